//! The log of a conversation as far as a client has it.

use fastchat_protocol::server::LogRow;
use std::collections::{BTreeMap, HashSet};

/// The log as far as it is known here.
#[derive(Debug)]
pub(super) struct Rows {
    /// Everything up to here was taken.
    pub(super) have: u64,
    /// Rows beyond a gap; one's own are nothing.
    ahead: BTreeMap<u64, Option<LogRow>>,
    /// Rows that came by a fetch, so that a live copy may still be on its way.
    fetched: HashSet<u64>,
    /// The last row that somebody spoke of.
    pub(super) head: u64,
}

impl Rows {
    pub(super) fn new() -> Self {
        // The founding is row 1, and was there before anybody connected.
        Self { have: 1, ahead: BTreeMap::new(), fetched: HashSet::new(), head: 1 }
    }

    /// Takes note of a row; `deliver` gets foreign ones in order.
    pub(super) fn take(&mut self, seq: u64, row: Option<LogRow>, mut deliver: impl FnMut(&LogRow)) {
        self.head = self.head.max(seq);
        if seq <= self.have {
            return;
        }
        self.ahead.insert(seq, row);
        while let Some(row) = self.ahead.remove(&(self.have + 1)) {
            self.have += 1;
            row.iter().for_each(&mut deliver);
        }
    }

    /// Whether the server may send this row: each once live, and once more if it was fetched.
    pub(super) fn is_new(&mut self, seq: u64, live: bool) -> bool {
        let known = seq <= self.have || self.ahead.contains_key(&seq);
        if !live {
            self.fetched.extend((!known).then_some(seq));
            return true;
        }
        !known || self.fetched.remove(&seq)
    }

    pub(super) fn is_behind(&self) -> bool {
        self.have < self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastchat_protocol::{Bytes, Counter, DeviceId, Seq, server::LogKind};

    fn row(seq: u64, body: &'static [u8]) -> LogRow {
        LogRow {
            seq: Seq(seq),
            sender: DeviceId::new([1; 16]),
            counter: Counter(seq),
            kind: LogKind::Application,
            at_ms: 0,
            envelope: Some(Bytes::from_static(body)),
        }
    }

    fn delivered(rows: &mut Rows, seq: u64, body: Option<&'static [u8]>) -> Vec<Bytes> {
        let mut bodies = Vec::new();
        rows.take(seq, body.map(|body| row(seq, body)), |row| bodies.extend(row.envelope.clone()));
        bodies
    }

    #[test]
    fn rows_are_taken_in_order_and_once() {
        let mut rows = Rows::new();
        assert_eq!(delivered(&mut rows, 2, Some(b"two")), ["two"]);
        assert_eq!(delivered(&mut rows, 4, Some(b"four")), [""; 0]);
        assert!(rows.is_behind());
        assert_eq!(delivered(&mut rows, 4, Some(b"four")), [""; 0]);
        // One's own row closes the gap and brings no body.
        assert_eq!(delivered(&mut rows, 3, None), ["four"]);
        assert_eq!(delivered(&mut rows, 2, Some(b"two")), [""; 0]);
        assert!(!rows.is_behind());
    }

    #[test]
    fn a_server_that_sends_a_row_twice_is_caught_and_a_fetch_is_no_second_time() {
        let mut rows = Rows::new();
        let mut come = |seq, live| {
            let new = rows.is_new(seq, live);
            rows.take(seq, None, |_| {});
            new
        };
        assert!(come(2, true) && !come(2, true));
        assert!(come(4, true) && !come(4, true));
        // By a fetch, because the live copy was late; then the live copy, once.
        assert!(come(3, false) && come(3, true) && !come(3, true));
        assert!(come(5, true) && come(5, false));
    }
}

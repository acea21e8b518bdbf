//! The order in which rows of one log reach the device: a contiguous cursor, a bounded buffer behind
//! a gap, and when to ask the log. Pure.

use fastchat_protocol::Seq;
use std::{collections::BTreeMap, time::Duration};

/// Limit: rows that wait behind a gap. Beyond, they are dropped: the log has them.
pub const MAX_BUFFERED: usize = 256;
/// A gap of this many rows is fetched at once; it is no reordering any more.
const MANY: usize = 8;
/// How long a gap may last before the log is asked: rows of one commit arrive within this.
pub const PATIENCE: Duration = Duration::from_millis(200);

/// Rows that have arrived and cannot be applied yet.
#[derive(Debug, Clone)]
pub struct Window<T> {
    rows: BTreeMap<Seq, T>,
    /// The highest seq that was heard of.
    head: Seq,
    /// Since when, in the caller's clock, something is missing.
    gap_since: Option<Duration>,
    /// Something else than a gap calls for the log: a row without bytes, or one that did not open.
    wanted: bool,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), head: Seq(0), gap_since: None, wanted: false }
    }
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It waits its turn, or can be applied at once.
    Kept,
    /// It was applied before.
    Old,
    /// The buffer is full.
    Dropped,
}

impl<T> Window<T> {
    /// A row arrived.
    pub fn offer(&mut self, cursor: Seq, seq: Seq, row: T) -> Received {
        self.head = self.head.max(seq);
        if seq <= cursor {
            return Received::Old;
        }
        if self.rows.len() >= MAX_BUFFERED && seq != cursor.next() {
            return Received::Dropped;
        }
        self.rows.insert(seq, row);
        Received::Kept
    }

    /// The log is said to reach up to here.
    pub fn heard_of(&mut self, head: Seq) {
        self.head = self.head.max(head);
    }

    /// The log does not reach further than this after all.
    pub fn limit_to(&mut self, head: Seq) {
        self.head = self.head.min(head);
    }

    /// The next row in order, if it is here.
    pub fn take(&mut self, cursor: Seq) -> Option<T> {
        while self.rows.first_key_value().is_some_and(|(seq, _)| *seq <= cursor) {
            self.rows.pop_first();
        }
        let row = self.rows.remove(&cursor.next());
        if row.is_some() {
            self.gap_since = None;
        }
        row
    }

    /// The log has to be asked, at once.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether the log reaches beyond the cursor.
    pub fn is_behind(&self, cursor: Seq) -> bool {
        self.head > cursor || self.wanted
    }

    /// When the log is to be asked: `None` while nothing is missing, else a time that may have passed.
    pub fn due(&mut self, cursor: Seq, now: Duration) -> Option<Duration> {
        if self.wanted {
            return Some(now);
        }
        if self.head <= cursor {
            self.gap_since = None;
            return None;
        }
        let missing = self.head.0 - cursor.0 - self.rows.len() as u64;
        // Nothing waits behind the gap, so this is no reordering: the head was heard of otherwise.
        if self.rows.is_empty() || missing >= MANY as u64 || self.rows.len() >= MANY {
            return Some(now);
        }
        Some(*self.gap_since.get_or_insert(now) + PATIENCE)
    }

    /// The log was asked; the next answer decides.
    pub fn asked(&mut self) {
        self.wanted = false;
        self.gap_since = None;
    }

    /// The connection is gone. The rows are in the log, which is asked at the next one.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Duration = Duration::from_secs(100);

    fn drain(window: &mut Window<u64>, cursor: &mut Seq) -> Vec<u64> {
        std::iter::from_fn(|| {
            let row = window.take(*cursor)?;
            *cursor = cursor.next();
            Some(row)
        })
        .collect()
    }

    #[test]
    fn rows_are_applied_in_order_and_once() {
        let cases: &[(&[u64], &[u64], bool)] = &[
            (&[1, 2, 3], &[1, 2, 3], false),
            (&[2, 1, 3], &[1, 2, 3], false),
            (&[1, 1, 2], &[1, 2], false),
            (&[1, 3], &[1], true),
            (&[3, 2], &[], true),
        ];
        for (arrivals, want, behind) in cases {
            let (mut window, mut cursor, mut applied) = (Window::default(), Seq(0), Vec::new());
            for seq in *arrivals {
                window.offer(cursor, Seq(*seq), *seq);
                applied.extend(drain(&mut window, &mut cursor));
            }
            assert_eq!((applied.as_slice(), window.is_behind(cursor)), (*want, *behind), "{arrivals:?}");
        }
    }

    #[test]
    fn when_the_log_is_asked() {
        let mut window = Window::default();
        assert_eq!(window.due(Seq(5), T0), None);
        window.offer(Seq(5), Seq(7), 7);
        assert_eq!(window.due(Seq(5), T0), Some(T0 + PATIENCE), "a small gap is waited for");
        assert_eq!(window.due(Seq(5), T0 + PATIENCE), Some(T0 + PATIENCE), "and no longer");
        window.offer(Seq(5), Seq(20), 20);
        assert_eq!(window.due(Seq(5), T0), Some(T0), "a large one is not");
        let mut window = Window::<u64>::default();
        window.heard_of(Seq(6));
        assert_eq!(window.due(Seq(5), T0), Some(T0), "a head without a row is the lost last message");
        window.asked();
        window.limit_to(Seq(5));
        assert_eq!(window.due(Seq(5), T0), None);
        window.want();
        assert_eq!(window.due(Seq(5), T0), Some(T0));
    }

    #[test]
    fn the_buffer_is_bounded_and_the_next_row_always_fits() {
        let mut window = Window::default();
        for seq in 2..1000 {
            window.offer(Seq(0), Seq(seq), seq);
        }
        assert_eq!(window.rows.len(), MAX_BUFFERED);
        assert_eq!(window.offer(Seq(0), Seq(1), 1), Received::Kept);
        assert_eq!(window.offer(Seq(0), Seq(0), 0), Received::Old);
    }
}

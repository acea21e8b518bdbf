//! A FastChat client under measurement: the wire and the order of things as `client/` has them, without
//! keys and without a disk.
//!
//! - Sends: at most 64 of a conversation on their way; what is refused for now is sent again, in order.
//! - Receives: rows in order. A row that is ahead waits for those before it, and they are fetched if they
//!   do not come. Heads that moved, and resyncs, are followed.
//! - Cursors are told 100 ms after the first row that they cover.

use super::people::EPOCH;
use crate::{pacer::Shot, record::Ear, stamp::Stamp, target::Link};
use anyhow::{Result, bail};
use async_trait::async_trait;
use fastchat_protocol::{
    Bytes, ClientFrame, ConversationId, Counter, DeviceId, Refusal, RequestId, Retry, Seq, ServerFrame,
    client::{Ack, Cursor, Fetch, Send, Sync},
    limits,
    server::{LogKind, LogRow},
};
use fastchat_tests::raw::RawClient;
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// Messages of a conversation on their way at a time, as clients have it.
const WINDOW: usize = 64;
/// How long cursors wait for more, as clients have it.
const ACK_DELAY: Duration = Duration::from_millis(100);
/// How long a row that is ahead waits for those before it.
const GAP_PATIENCE: Duration = Duration::from_millis(200);
/// How long a refused message waits, if the refusal does not say.
const RETRY: Duration = Duration::from_millis(50);
/// Answers to what is not sent: fetches and syncs.
const READING: RequestId = RequestId(1);

/// One connection of one device.
#[derive(Debug)]
pub(super) struct FastChatLink {
    client: RawClient,
    device: DeviceId,
    threads: Vec<Thread>,
    /// By the index that shots have.
    by_index: HashMap<usize, usize>,
    by_id: HashMap<ConversationId, usize>,
    /// Sends without an answer: which thread, in which attempt, which message.
    asked: HashMap<RequestId, (usize, u32, Counter)>,
    last_request: u32,
    timers: Timers,
    /// Whether it has asked where its conversations stand, as every client does first.
    synced: bool,
}

#[derive(Debug, Default)]
struct Timers {
    acks: Option<Instant>,
    gaps: Option<Instant>,
    retries: Option<Instant>,
}

/// One conversation as this device has it.
#[derive(Debug)]
struct Thread {
    id: ConversationId,
    /// Counters given out.
    counter: u64,
    /// Not acknowledged, oldest first; the first `flying` are on their way.
    outbox: VecDeque<(Counter, Stamp, Bytes)>,
    flying: usize,
    /// Raised when all that fly are given up: answers to them mean nothing any more.
    attempt: u32,
    rows: Rows,
    dirty: bool,
}

/// The log as far as it is known here.
#[derive(Debug)]
struct Rows {
    /// Everything up to here was taken.
    have: u64,
    /// Rows beyond a gap; one's own have no body.
    ahead: BTreeMap<u64, Option<Bytes>>,
    /// Rows that came by a fetch, so that a live copy may still be on its way.
    fetched: HashSet<u64>,
    /// The last row that somebody spoke of.
    head: u64,
}

impl Rows {
    fn new() -> Self {
        // The founding is row 1, and was there before anybody connected.
        Self { have: 1, ahead: BTreeMap::new(), fetched: HashSet::new(), head: 1 }
    }

    /// Takes note of a row; `deliver` gets bodies in order.
    fn take(&mut self, seq: u64, body: Option<Bytes>, mut deliver: impl FnMut(&Bytes)) {
        self.head = self.head.max(seq);
        if seq <= self.have {
            return;
        }
        self.ahead.insert(seq, body);
        while let Some(body) = self.ahead.remove(&(self.have + 1)) {
            self.have += 1;
            body.iter().for_each(&mut deliver);
        }
    }

    /// Whether the server may send this row: each once live, and once more if it was fetched.
    fn is_new(&mut self, seq: u64, live: bool) -> bool {
        let known = seq <= self.have || self.ahead.contains_key(&seq);
        if !live {
            self.fetched.extend((!known).then_some(seq));
            return true;
        }
        !known || self.fetched.remove(&seq)
    }

    fn is_behind(&self) -> bool {
        self.have < self.head
    }
}

impl FastChatLink {
    pub(super) fn new(client: RawClient, device: DeviceId, own: &[(usize, ConversationId)]) -> Self {
        let thread = |(_, id): &(usize, ConversationId)| Thread {
            id: *id,
            counter: 0,
            outbox: VecDeque::new(),
            flying: 0,
            attempt: 0,
            rows: Rows::new(),
            dirty: false,
        };
        Self {
            client,
            device,
            threads: own.iter().map(thread).collect(),
            by_index: own.iter().enumerate().map(|(place, (index, _))| (*index, place)).collect(),
            by_id: own.iter().enumerate().map(|(place, (_, id))| (*id, place)).collect(),
            asked: HashMap::new(),
            last_request: READING.0,
            timers: Timers::default(),
            synced: false,
        }
    }

    async fn on_shot(&mut self, shot: Shot, ear: &Ear) -> Result<()> {
        ear.sent(shot.stamp);
        let place = self.by_index[&shot.conversation];
        let thread = &mut self.threads[place];
        thread.counter += 1;
        let counter = Counter(thread.counter);
        let envelope = envelope(thread.id, counter, &shot.stamp.body(shot.size));
        thread.outbox.push_back((counter, shot.stamp, envelope));
        self.send_more(place).await
    }

    /// Sends what the window has room for.
    async fn send_more(&mut self, place: usize) -> Result<()> {
        if self.timers.retries.is_some() {
            return Ok(());
        }
        let thread = &mut self.threads[place];
        while thread.flying < WINDOW
            && let Some((counter, _, envelope)) = thread.outbox.get(thread.flying)
        {
            self.last_request = self.last_request.checked_add(1).unwrap_or(READING.0 + 1);
            let request = RequestId(self.last_request);
            let send = Send { conversation: thread.id, counter: *counter, envelope: envelope.clone() };
            self.asked.insert(request, (place, thread.attempt, *counter));
            thread.flying += 1;
            self.client.send(request.0, &ClientFrame::Send(send)).await?;
        }
        Ok(())
    }

    async fn on_frame(&mut self, request: RequestId, frame: ServerFrame, ear: &mut Ear) -> Result<()> {
        match frame {
            ServerFrame::Sent(sent) => {
                let Some((place, attempt, counter)) = self.asked.remove(&request) else { return Ok(()) };
                let thread = &mut self.threads[place];
                if thread.attempt != attempt {
                    return Ok(());
                }
                let answered = thread.outbox.iter().position(|(other, ..)| *other == counter);
                if let Some((_, stamp, _)) = answered.and_then(|place| thread.outbox.remove(place)) {
                    thread.flying -= 1;
                    ear.acked(stamp);
                }
                self.take(place, sent.seq, None, ear);
                self.send_more(place).await?;
            }
            ServerFrame::Deliver(deliver) => {
                if let Some(place) = self.by_id.get(&deliver.conversation).copied() {
                    self.on_row(place, deliver.row, true, ear);
                }
            }
            ServerFrame::LogPage(page) => {
                if let Some(place) = self.by_id.get(&page.conversation).copied() {
                    self.threads[place].rows.head = self.threads[place].rows.head.max(page.head.0);
                    page.rows.into_iter().for_each(|row| self.on_row(place, row, false, ear));
                    if self.threads[place].rows.is_behind() {
                        self.fetch(place).await?;
                    }
                }
            }
            ServerFrame::Heads(heads) => {
                for head in heads.heads {
                    self.on_head(head.conversation, head.seq);
                }
            }
            ServerFrame::Resync(_) => {
                self.client.send(READING.0, &ClientFrame::Sync(Sync::default())).await?
            }
            ServerFrame::Conversations(list) => {
                for state in &list.list {
                    self.on_head(state.conversation, state.head);
                    if let Some(place) = self.by_id.get(&state.conversation).copied()
                        && self.threads[place].rows.is_behind()
                    {
                        self.fetch(place).await?;
                    }
                }
                if let (true, Some(last)) = (list.more, list.list.last()) {
                    let sync = Sync { after: Some(last.conversation) };
                    self.client.send(READING.0, &ClientFrame::Sync(sync)).await?;
                }
            }
            ServerFrame::Refused(refusal) => self.on_refused(request, &refusal, ear),
            ServerFrame::Closing(refusal) => bail!("closed: {:?} {}", refusal.code, refusal.detail),
            _ => {}
        }
        Ok(())
    }

    fn on_row(&mut self, place: usize, row: LogRow, live: bool, ear: &mut Ear) {
        if !self.threads[place].rows.is_new(row.seq.0, live) {
            ear.repeated();
        }
        let foreign = row.kind == LogKind::Application && row.sender != self.device;
        match row.envelope {
            Some(envelope) => self.take(place, row.seq, Some(envelope).filter(|_| foreign), ear),
            // Too large for a live copy: it is to be fetched.
            None => self.on_head(self.threads[place].id, row.seq),
        }
    }

    fn take(&mut self, place: usize, seq: Seq, body: Option<Bytes>, ear: &mut Ear) {
        let thread = &mut self.threads[place];
        let before = thread.rows.have;
        thread.rows.take(seq.0, body, |body| ear.delivered(body));
        if thread.rows.have > before {
            thread.dirty = true;
            self.timers.acks.get_or_insert_with(|| Instant::now() + ACK_DELAY);
        }
        if thread.rows.is_behind() {
            self.timers.gaps.get_or_insert_with(|| Instant::now() + GAP_PATIENCE);
        }
    }

    fn on_head(&mut self, conversation: ConversationId, head: Seq) {
        let Some(place) = self.by_id.get(&conversation) else { return };
        let rows = &mut self.threads[*place].rows;
        rows.head = rows.head.max(head.0);
        if rows.is_behind() {
            self.timers.gaps.get_or_insert_with(|| Instant::now() + GAP_PATIENCE);
        }
    }

    fn on_refused(&mut self, request: RequestId, refusal: &Refusal, ear: &mut Ear) {
        if request == READING {
            self.timers.gaps.get_or_insert_with(|| Instant::now() + GAP_PATIENCE);
            return;
        }
        let Some((place, attempt, _)) = self.asked.remove(&request) else { return };
        let thread = &mut self.threads[place];
        if thread.attempt != attempt {
            return;
        }
        let for_good = refusal.code.retry() == Retry::Never;
        ear.refused(&format!("{:?}: {}", refusal.code, refusal.detail), for_good);
        if for_good {
            thread.outbox.pop_front();
        }
        (thread.flying, thread.attempt) = (0, thread.attempt.wrapping_add(1));
        let wait = refusal.wait_ms.map_or(RETRY, |ms| Duration::from_millis(ms.into()));
        self.timers.retries.get_or_insert_with(|| Instant::now() + wait);
    }

    async fn fetch(&mut self, place: usize) -> Result<()> {
        let thread = &self.threads[place];
        let (conversation, after) = (thread.id, Seq(thread.rows.have));
        let fetch = Fetch { conversation, after, limit: limits::MAX_PAGE_ROWS };
        self.client.send(READING.0, &ClientFrame::Fetch(fetch)).await
    }

    fn next_timer(&self) -> Option<Instant> {
        [self.timers.acks, self.timers.gaps, self.timers.retries].into_iter().flatten().min()
    }

    async fn on_timer(&mut self) -> Result<()> {
        let now = Instant::now();
        let due = |timer: &mut Option<Instant>| timer.take_if(|at| *at <= now).is_some();
        if due(&mut self.timers.acks) {
            self.tell_cursors().await?;
        }
        if due(&mut self.timers.gaps) {
            for place in 0..self.threads.len() {
                if self.threads[place].rows.is_behind() {
                    self.fetch(place).await?;
                    // A fetch may be refused, or its answer lost with a page.
                    self.timers.gaps.get_or_insert_with(|| now + 5 * GAP_PATIENCE);
                }
            }
        }
        if due(&mut self.timers.retries) {
            for place in 0..self.threads.len() {
                self.send_more(place).await?;
            }
        }
        Ok(())
    }

    async fn tell_cursors(&mut self) -> Result<()> {
        let cursor = |thread: &mut Thread| {
            let seq = Seq(thread.rows.have);
            std::mem::take(&mut thread.dirty).then_some(Cursor {
                conversation: thread.id,
                seq,
                authenticator: None,
            })
        };
        let cursors: Vec<Cursor> = self.threads.iter_mut().filter_map(cursor).collect();
        for some in cursors.chunks(limits::MAX_CURSORS) {
            self.client.send(0, &ClientFrame::Ack(Ack { cursors: some.to_vec() })).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Link for FastChatLink {
    async fn run(
        &mut self,
        mut shots: mpsc::Receiver<Shot>,
        ear: &mut Ear,
        end: CancellationToken,
    ) -> Result<()> {
        if !std::mem::replace(&mut self.synced, true) {
            self.client.send(READING.0, &ClientFrame::Sync(Sync::default())).await?;
        }
        loop {
            let timer = self.next_timer();
            // Cancel safety: `recv` and `next_ever` lose nothing.
            tokio::select! {
                Some(shot) = shots.recv() => self.on_shot(shot, ear).await?,
                frame = self.client.next_ever() => {
                    let (request, frame) = frame?;
                    self.on_frame(request, frame, ear).await?;
                }
                () = tokio::time::sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {
                    self.on_timer().await?;
                }
                () = end.cancelled() => return self.tell_cursors().await,
            }
        }
    }
}

/// An application message as MLS frames it (RFC 9420, section 6.3), with noise for what is sealed.
fn envelope(conversation: ConversationId, counter: Counter, body: &[u8]) -> Bytes {
    /// Version 1, PrivateMessage, a group id of 20 bytes.
    const OPENING: [u8; 5] = [0, 1, 0, 2, 20];
    const APPLICATION: u8 = 1;
    let mut bytes = Vec::with_capacity(body.len() + 80);
    bytes.extend(OPENING);
    bytes.extend(conversation.as_bytes());
    bytes.extend(EPOCH.generation.to_be_bytes());
    bytes.extend(EPOCH.number.to_be_bytes());
    bytes.extend([APPLICATION, 8]);
    bytes.extend(counter.0.to_be_bytes());
    // Sealed sender data, and the length of the ciphertext.
    bytes.push(28);
    bytes.extend([0x5e; 28]);
    // A vector of up to 2^30 - 1 bytes has a length of four (RFC 9420, section 2.1.2).
    bytes.extend((body.len() as u32 | 0x8000_0000).to_be_bytes());
    bytes.extend(body);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_looks_as_a_sealed_one_does() {
        let (conversation, counter) = (ConversationId::new([7; 16]), Counter(9));
        let stamp = Stamp { number: 3, lane: 1, turn: 2, due_us: 5 };
        let envelope = envelope(conversation, counter, &stamp.body(300));
        let header = fastchat_delivery::header::peek(&envelope).expect("an envelope");
        assert_eq!((header.conversation, header.epoch, header.counter), (conversation, EPOCH, counter));
        assert_eq!(header.kind, fastchat_delivery::header::Kind::Application);
        assert_eq!(Stamp::read(&envelope), Some(stamp));
    }

    fn delivered(rows: &mut Rows, seq: u64, body: Option<&'static [u8]>) -> Vec<Bytes> {
        let mut bodies = Vec::new();
        rows.take(seq, body.map(Bytes::from_static), |body| bodies.push(body.clone()));
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

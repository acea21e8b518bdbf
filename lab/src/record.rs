//! What a run sees: when messages were sent, acknowledged and delivered.
//!
//! - One [`Recorder`] for a run, one [`Ear`] for each client; times are microseconds since the run began.
//! - Latency counts from the moment at which a message was *due*, so that a stall shows in all messages
//!   that it delayed.
//! - Messages of the warm-up are held to the promises, and left out of every figure.

use crate::{
    order::{Faults, Received},
    stamp::Stamp,
    tally::{LONGEST_US, Tally, record},
};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// So many threads can record at once.
const SHARDS: usize = 16;
/// Limit: complaints that are kept.
const MAX_COMPLAINTS: usize = 20;

/// What a run is recorded by.
#[derive(Debug)]
pub struct Recorder {
    begin: Instant,
    warm_up_us: u64,
    /// Every so many-th message is kept by its number.
    stride: u64,
    counts: Counts,
    shards: Vec<Mutex<Tally>>,
    complaints: Mutex<Vec<String>>,
    /// Lanes whose message was acknowledged, for closed loops.
    windows: Option<mpsc::Sender<u32>>,
}

/// Counts over a whole run, warm-up and all.
#[derive(Debug, Default)]
pub struct Counts {
    sent: AtomicU64,
    acked: AtomicU64,
    refused: AtomicU64,
    deferred: AtomicU64,
    delivered: AtomicU64,
    overflowed: AtomicU64,
    reconnected: AtomicU64,
    parts: AtomicU64,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Given to the target.
    pub sent: u64,
    /// Acknowledged by it.
    pub acked: u64,
    /// Refused by it for good.
    pub refused: u64,
    /// Times that it refused one for now; the client tried again.
    pub deferred: u64,
    /// Received, by anybody, for the first time.
    pub delivered: u64,
    /// Not sent, because the driver's own queue was full.
    pub overflowed: u64,
    /// Times that a client has come back after it was sent away.
    pub reconnected: u64,
    /// Parts of files that have moved, either way.
    pub parts: u64,
}

impl Recorder {
    /// Of a run that begins now. About `keep` of `messages` are kept one by one.
    pub fn new(warm_up: Duration, messages: u64, keep: u64, windows: Option<mpsc::Sender<u32>>) -> Arc<Self> {
        Arc::new(Self {
            begin: Instant::now(),
            warm_up_us: micros(warm_up),
            stride: messages.div_ceil(keep.max(1)).max(1),
            counts: Counts::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            complaints: Mutex::default(),
            windows,
        })
    }

    /// When the run began.
    pub fn begin(&self) -> Instant {
        self.begin
    }

    /// Microseconds since the run began.
    pub fn now_us(&self) -> u64 {
        micros(self.begin.elapsed())
    }

    /// What happened so far.
    pub fn counted(&self) -> Counted {
        let counts = &self.counts;
        Counted {
            sent: counts.sent.load(Relaxed),
            acked: counts.acked.load(Relaxed),
            refused: counts.refused.load(Relaxed),
            deferred: counts.deferred.load(Relaxed),
            delivered: counts.delivered.load(Relaxed),
            overflowed: counts.overflowed.load(Relaxed),
            reconnected: counts.reconnected.load(Relaxed),
            parts: counts.parts.load(Relaxed),
        }
    }

    /// A part of a file has moved.
    pub fn moved(&self) {
        self.counts.parts.fetch_add(1, Relaxed);
    }

    /// A message that the driver had no room for.
    pub fn overflow(&self) {
        self.counts.overflowed.fetch_add(1, Relaxed);
    }

    /// Something that should not be.
    pub fn complain(&self, what: String) {
        let mut complaints = lock(&self.complaints);
        if complaints.len() < MAX_COMPLAINTS && !complaints.contains(&what) {
            complaints.push(what);
        }
    }

    /// What should not have been; the first few.
    pub fn complaints(&self) -> Vec<String> {
        lock(&self.complaints).clone()
    }

    /// Everything together. What is recorded afterwards is not in it.
    pub fn tally(&self) -> Tally {
        let mut all = Tally::default();
        for shard in &self.shards {
            all.add(std::mem::take(&mut *lock(shard)));
        }
        all
    }
}

/// What one client hears.
#[derive(Debug)]
pub struct Ear {
    client: usize,
    recorder: Arc<Recorder>,
    received: Received,
}

impl Ear {
    /// Of this client.
    pub fn new(client: usize, recorder: &Arc<Recorder>) -> Self {
        Self { client, recorder: Arc::clone(recorder), received: Received::default() }
    }

    /// Whose.
    pub fn client(&self) -> usize {
        self.client
    }

    /// The client gives a message to the target, now.
    pub fn sent(&self, stamp: Stamp) {
        let (recorder, now_us) = (&self.recorder, self.recorder.now_us());
        recorder.counts.sent.fetch_add(1, Relaxed);
        let mut tally = self.tally();
        tally.second(now_us).sent += 1;
        if stamp.due_us >= recorder.warm_up_us {
            record(&mut tally.lag, now_us.saturating_sub(stamp.due_us));
        }
    }

    /// The target has acknowledged a message of this client.
    pub fn acked(&self, stamp: Stamp) {
        let (recorder, now_us) = (&self.recorder, self.recorder.now_us());
        recorder.counts.acked.fetch_add(1, Relaxed);
        let after_us = now_us.saturating_sub(stamp.due_us);
        {
            let mut tally = self.tally();
            tally.second(now_us).acked += 1;
            if stamp.due_us < recorder.warm_up_us {
                // Judged, not measured.
            } else if stamp.file {
                record(&mut tally.files.announced, after_us);
            } else {
                record(&mut tally.acked, after_us);
                if stamp.number.is_multiple_of(recorder.stride) {
                    tally.acks.push((stamp.number, stamp.due_us, after_us));
                }
            }
        }
        if let Some(windows) = &recorder.windows {
            // A closed loop has no more on its way than the channel holds.
            let _ = windows.try_send(stamp.lane);
        }
    }

    /// The target does not take a message: ever, or for now.
    pub fn refused(&self, why: &str, for_good: bool) {
        let counts = &self.recorder.counts;
        let count = if for_good { &counts.refused } else { &counts.deferred };
        count.fetch_add(1, Relaxed);
        self.recorder.complain(format!("refused {}: {why}", if for_good { "for good" } else { "for now" }));
    }

    /// The target has sent a message twice, and the client has noticed by itself.
    pub fn repeated(&mut self) {
        self.received.repeat();
    }

    /// Something came for this client.
    pub fn delivered(&mut self, body: &[u8]) {
        match Stamp::read(body) {
            Some(stamp) => self.got(stamp, body.len() as u64),
            None => self.complain("something came that nobody sent"),
        }
    }

    /// A message came for this client, or all of a file of so many bytes.
    pub fn got(&mut self, stamp: Stamp, bytes: u64) {
        if !self.received.take(stamp.lane, stamp.turn) {
            return;
        }
        let (recorder, now_us) = (&self.recorder, self.recorder.now_us());
        recorder.counts.delivered.fetch_add(1, Relaxed);
        let after_us = now_us.saturating_sub(stamp.due_us);
        let mut tally = self.tally();
        let second = tally.second(now_us);
        second.delivered += 1;
        second.latencies.saturating_record(after_us.clamp(1, LONGEST_US));
        if stamp.due_us < recorder.warm_up_us {
            // Judged, not measured.
        } else if stamp.file {
            record(&mut tally.files.fetched, after_us);
            tally.files.fetched_bytes += bytes;
        } else {
            record(&mut tally.delivered, after_us);
            if stamp.number.is_multiple_of(recorder.stride) {
                tally.deliveries.push((stamp.number, stamp.due_us, after_us));
            }
        }
    }

    /// All of a file is on the server.
    pub fn uploaded(&self, stamp: Stamp, bytes: u64) {
        let after_us = self.recorder.now_us().saturating_sub(stamp.due_us);
        if stamp.due_us >= self.recorder.warm_up_us {
            let files = &mut self.tally().files;
            record(&mut files.uploaded, after_us);
            files.uploaded_bytes += bytes;
        }
    }

    /// The client has come back after it was sent away.
    pub fn reconnected(&self) {
        self.recorder.counts.reconnected.fetch_add(1, Relaxed);
    }

    /// For who moves files beside the client.
    pub fn recorder(&self) -> Arc<Recorder> {
        Arc::clone(&self.recorder)
    }

    /// Something that should not be.
    pub fn complain(&self, what: impl Into<String>) {
        self.recorder.complain(what.into());
    }

    /// The faults of what this client got, of lanes with so many messages.
    pub fn judge(&self, lanes: impl Iterator<Item = (u32, u32)>) -> Faults {
        self.received.judge(lanes)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.recorder.shards[self.client % SHARDS])
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(number: u64, due_us: u64) -> Stamp {
        Stamp { number, lane: 0, turn: number as u32, file: false, due_us }
    }

    #[test]
    fn the_warm_up_is_judged_but_not_measured() {
        let recorder = Recorder::new(Duration::from_secs(1), 10, 10, None);
        let mut ear = Ear::new(0, &recorder);
        for stamp in [stamp(0, 0), stamp(1, 1_000_000)] {
            ear.sent(stamp);
            ear.acked(stamp);
            ear.delivered(&stamp.body(100));
        }
        assert_eq!(ear.judge([(0, 3)].into_iter()).lost, 1);
        let counted = recorder.counted();
        assert_eq!((counted.sent, counted.acked, counted.delivered), (2, 2, 2));
        let tally = recorder.tally();
        assert_eq!((tally.acked.len(), tally.delivered.len(), tally.acks.len()), (1, 1, 1));
        assert_eq!(tally.seconds[0].delivered, 2);
    }

    #[test]
    fn what_comes_twice_counts_once_as_delivered() {
        let recorder = Recorder::new(Duration::ZERO, 10, 10, None);
        let mut ear = Ear::new(0, &recorder);
        ear.delivered(&stamp(0, 0).body(100));
        ear.delivered(&stamp(0, 0).body(100));
        ear.delivered(b"nobody sent this, but it is long enough to be a message");
        assert_eq!(recorder.counted().delivered, 1);
        assert_eq!(ear.judge([(0, 1)].into_iter()), Faults { duplicated: 1, ..Faults::default() });
        assert_eq!(recorder.complaints().len(), 1);
    }

    #[test]
    fn latency_counts_from_when_a_message_was_due() {
        let recorder = Recorder::new(Duration::ZERO, 10, 10, None);
        std::thread::sleep(Duration::from_millis(20));
        let ear = Ear::new(0, &recorder);
        ear.sent(stamp(0, 0));
        ear.acked(stamp(0, 0));
        let tally = recorder.tally();
        assert!(tally.lag.min() >= 19_900 && tally.acked.min() >= 19_900, "{}", tally.lag.min());
    }
}

//! What a run sees: when messages were sent, acknowledged and delivered.
//!
//! - One [`Recorder`] for a run, one [`Ear`] for each client; times are microseconds since the run began.
//! - Latency counts from the moment at which a message was *due*, so that a stall shows in all messages
//!   that it delayed.
//! - Messages of the warm-up are held to the promises, and left out of every figure.

use crate::{
    order::{Faults, Received},
    stamp::Stamp,
};
use hdrhistogram::Histogram;
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
/// Limit: microseconds that a histogram counts; longer ones count as this.
const LONGEST_US: u64 = 120_000_000;

/// Latencies in microseconds, three digits.
pub type Latencies = Histogram<u64>;

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
}

/// Everything of the measured part.
#[derive(Debug)]
pub struct Tally {
    /// How late messages were sent.
    pub lag: Latencies,
    /// From due to acknowledged.
    pub acked: Latencies,
    /// From due to received, each receiver apart.
    pub delivered: Latencies,
    /// By seconds since the run began, warm-up too.
    pub seconds: Vec<Second>,
    /// Some messages' latencies: number, due, acknowledged (in microseconds).
    pub acks: Vec<(u64, u64, u64)>,
    /// The same until received.
    pub deliveries: Vec<(u64, u64, u64)>,
}

/// What happened within one second.
#[derive(Debug, Clone)]
pub struct Second {
    /// Sent in it.
    pub sent: u64,
    /// Acknowledged in it.
    pub acked: u64,
    /// Received in it.
    pub delivered: u64,
    /// Latencies until received of what was received in it.
    pub latencies: Histogram<u32>,
}

impl Default for Second {
    fn default() -> Self {
        let latencies = Histogram::new(2).expect("two digits");
        Self { sent: 0, acked: 0, delivered: 0, latencies }
    }
}

impl Default for Tally {
    fn default() -> Self {
        let latencies = || Latencies::new_with_bounds(1, LONGEST_US, 3).expect("three digits");
        Self {
            lag: latencies(),
            acked: latencies(),
            delivered: latencies(),
            seconds: Vec::new(),
            acks: Vec::new(),
            deliveries: Vec::new(),
        }
    }
}

impl Tally {
    fn second(&mut self, at_us: u64) -> &mut Second {
        let second = (at_us / 1_000_000) as usize;
        if self.seconds.len() <= second {
            self.seconds.resize_with(second + 1, Second::default);
        }
        &mut self.seconds[second]
    }

    fn add(&mut self, other: Self) {
        let bounds = "tallies have the same bounds";
        self.lag.add(other.lag).expect(bounds);
        self.acked.add(other.acked).expect(bounds);
        self.delivered.add(other.delivered).expect(bounds);
        self.acks.extend(other.acks);
        self.deliveries.extend(other.deliveries);
        for (n, second) in other.seconds.into_iter().enumerate() {
            let mine = self.second(n as u64 * 1_000_000);
            mine.sent += second.sent;
            mine.acked += second.acked;
            mine.delivered += second.delivered;
            mine.latencies.add(second.latencies).expect("it grows");
        }
    }
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
        }
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
            if stamp.due_us >= recorder.warm_up_us {
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
        let Some(stamp) = Stamp::read(body) else {
            self.recorder.complain("something came that nobody sent".to_owned());
            return;
        };
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
        if stamp.due_us >= recorder.warm_up_us {
            record(&mut tally.delivered, after_us);
            if stamp.number.is_multiple_of(recorder.stride) {
                tally.deliveries.push((stamp.number, stamp.due_us, after_us));
            }
        }
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

fn record(latencies: &mut Latencies, us: u64) {
    latencies.saturating_record(us.clamp(1, LONGEST_US));
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
        Stamp { number, lane: 0, turn: number as u32, due_us }
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

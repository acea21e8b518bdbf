//! When a batch is worth waiting for.
//!
//! A transaction costs the machine the same whether it stores one envelope or ten, and so does all that
//! follows it: waking a server, a flush to the bus, an answer. Where envelopes come so fast that the machine
//! needs what waiting saves, a batch begins only so long after the one before; below that nobody waits.

use std::time::Duration;
use tokio::time::Instant;

/// Envelopes a second from which on they wait for each other. From 400 on that halves what each costs,
/// but there the machine has time, and those who wait have not.
const MANY: f64 = 2_250.0;
/// What the rate is averaged over.
const MEMORY: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Pace {
    /// Between the beginnings of two batches.
    gap: Duration,
    began: Instant,
    /// Envelopes a second.
    rate: f64,
}

impl Pace {
    pub(super) fn new(gap: Duration, now: Instant) -> Self {
        Self { gap, began: now, rate: 0.0 }
    }

    /// When the next batch begins, if not now.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let due = self.began + self.gap;
        (self.rate >= MANY && due > now).then_some(due)
    }

    /// A batch begins.
    pub(super) fn began(&mut self, now: Instant, envelopes: usize) {
        let since = (now - self.began).as_secs_f64();
        // As it would decay if all of them had come evenly since the batch before.
        let kept = (-since / MEMORY.as_secs_f64()).exp();
        let now_rate = envelopes as f64 / since.max(1e-6);
        self.rate = self.rate * kept + now_rate * (1.0 - kept);
        self.began = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Duration = Duration::from_millis(10);

    /// Whether batches wait after two seconds of single envelopes so long after one another.
    fn waits(every: Duration) -> bool {
        let mut now = Instant::now();
        let mut pace = Pace::new(GAP, now);
        let end = now + Duration::from_secs(2);
        while now < end {
            now += every;
            pace.began(now, 1);
        }
        pace.due(now).is_some()
    }

    #[test]
    fn few_wait_for_nobody_and_many_for_each_other() {
        assert!(!waits(Duration::from_micros(600)));
        assert!(waits(Duration::from_micros(400)));
    }

    #[test]
    fn a_rush_is_forgotten() {
        let mut now = Instant::now();
        let mut pace = Pace::new(GAP, now);
        now += GAP;
        pace.began(now, 2_000);
        assert_eq!(pace.due(now), Some(now + GAP));
        assert_eq!(pace.due(now + GAP), None);
        now += Duration::from_secs(5);
        pace.began(now, 1);
        assert_eq!(pace.due(now), None);
    }

    #[test]
    fn without_a_gap_nobody_waits() {
        let now = Instant::now() + Duration::from_millis(1);
        let mut pace = Pace::new(Duration::ZERO, now);
        pace.began(now, 1_000);
        assert_eq!(pace.due(now), None);
    }
}

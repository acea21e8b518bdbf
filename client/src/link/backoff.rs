//! When to dial again: exponential with full jitter, so that a fleet's clients do not return at once.

use std::time::Duration;

const BASE: Duration = Duration::from_millis(250);
const CAP: Duration = Duration::from_secs(30);
/// A connection that lasted this long was a good one: the next failure starts over.
const STABLE: Duration = Duration::from_secs(5);

/// How often dialling failed since the last good connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The bound below which the next wait is drawn.
    pub fn ceiling(self) -> Duration {
        BASE.saturating_mul(1 << self.failures.min(16)).min(CAP)
    }

    /// The wait before the next attempt. `random` is uniform in 0..1; `wish` is what the gateway asked
    /// for, which is never undercut and keeps its own jitter small.
    pub fn next(&mut self, random: f64, wish: Option<Duration>) -> Duration {
        let wait = self.ceiling().mul_f64(random.clamp(0.0, 1.0));
        self.failures = self.failures.saturating_add(1);
        match wish {
            // The gateway has told each connection another time already.
            Some(wish) => wish.min(CAP * 4) + wait.min(BASE),
            None => wait,
        }
    }

    /// A connection ended after `lasted`.
    pub fn ended(&mut self, lasted: Duration) {
        if lasted >= STABLE {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_cap_and_starts_over_after_a_stable_session() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..10).map(|_| backoff.next(1.0, None).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        backoff.ended(Duration::from_secs(1));
        assert_eq!(backoff.next(1.0, None), CAP);
        backoff.ended(STABLE);
        assert_eq!(backoff.next(1.0, None), BASE);
        assert_eq!(Backoff::default().next(0.0, None), Duration::ZERO);
    }

    #[test]
    fn the_gateways_wish_is_never_undercut() {
        for random in [0.0, 0.5, 1.0] {
            let wait = Backoff::default().next(random, Some(Duration::from_secs(2)));
            assert!(wait >= Duration::from_secs(2) && wait <= Duration::from_millis(2250), "{wait:?}");
        }
    }
}

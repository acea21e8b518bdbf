//! When clients come.

use rand::{Rng, RngExt};

/// A process of arrivals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// `clients` at even distances.
    Constant {
        /// How many.
        clients: usize,
        /// In a second.
        rate: f64,
    },
    /// `clients` at distances that are independent of each other.
    Poisson {
        /// How many.
        clients: usize,
        /// In a second, on average.
        rate: f64,
    },
    /// `clients` that lost their gateway at once and come back within a window, at random.
    Burst {
        /// How many.
        clients: usize,
        /// The window in milliseconds.
        window_ms: u64,
    },
}

impl Arrivals {
    /// Milliseconds of each arrival from the start, in order.
    pub fn times(self, rng: &mut impl Rng) -> Vec<u64> {
        let mut times: Vec<u64> = match self {
            Self::Constant { clients, rate } => {
                (0..clients).map(|n| (n as f64 * 1000.0 / rate) as u64).collect()
            }
            Self::Poisson { clients, rate } => {
                let mut at = 0.0;
                let mut next = || {
                    // Inverse of the exponential distribution; 1 - x is never 0.
                    at -= (1.0 - rng.random_range(0.0..1.0_f64)).ln() * 1000.0 / rate;
                    at as u64
                };
                (0..clients).map(|_| next()).collect()
            }
            Self::Burst { clients, window_ms } => {
                (0..clients).map(|_| rng.random_range(0..=window_ms)).collect()
            }
        };
        times.sort_unstable();
        times
    }
}

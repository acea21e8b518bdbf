//! When messages are due: arrival processes over a rate, drawn from a seed.
//!
//! Every process has the mean gap `1 / rate`, so that runs of different processes differ in their order
//! alone. The first message is due after its first gap.

use anyhow::{Result, bail};
use clap::ValueEnum;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, Exp1, StandardNormal};
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// The standard deviation of a Gaussian gap, as a share of the mean.
const GAUSSIAN_SPREAD: f64 = 0.25;
/// Messages that come at once in a burst, on average.
const BURST: f64 = 20.0;

/// How gaps between messages are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    /// All gaps are equal.
    Constant,
    /// Exponential gaps: people who know nothing of each other (a Poisson process).
    Exponential,
    /// Normally distributed gaps, a quarter of the mean wide, never negative.
    Gaussian,
    /// Bursts of 20 messages at once on average, the bursts as a Poisson process.
    Bursty,
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As it is typed.
        f.write_str(self.to_possible_value().expect("none is left out").get_name())
    }
}

/// The moments of one run, in order, without an end.
#[derive(Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    /// Seconds.
    mean: f64,
    /// Seconds.
    now: f64,
    /// Further messages of the burst.
    burst: u32,
    rng: StdRng,
}

impl Schedule {
    /// Of `rate` messages a second.
    pub fn new(arrivals: Arrivals, rate: f64, seed: u64) -> Result<Self> {
        if !rate.is_finite() || rate <= 0.0 {
            bail!("a rate is more than 0 messages a second, not {rate}");
        }
        Ok(Self { arrivals, mean: 1.0 / rate, now: 0.0, burst: 0, rng: StdRng::seed_from_u64(seed) })
    }

    fn gap(&mut self) -> f64 {
        match self.arrivals {
            Arrivals::Constant => self.mean,
            Arrivals::Exponential => self.mean * exponential(&mut self.rng),
            Arrivals::Gaussian => {
                let normal: f64 = StandardNormal.sample(&mut self.rng);
                (self.mean * (1.0 + GAUSSIAN_SPREAD * normal)).max(0.0)
            }
            Arrivals::Bursty if self.burst > 0 => {
                self.burst -= 1;
                0.0
            }
            Arrivals::Bursty => {
                // Geometric, with the mean BURST.
                while self.rng.random::<f64>() > 1.0 / BURST {
                    self.burst += 1;
                }
                self.mean * BURST * exponential(&mut self.rng)
            }
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.now += self.gap();
        Some(Duration::from_secs_f64(self.now))
    }
}

fn exponential(rng: &mut StdRng) -> f64 {
    Exp1.sample(rng)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Arrivals; 4] =
        [Arrivals::Constant, Arrivals::Exponential, Arrivals::Gaussian, Arrivals::Bursty];

    fn first(arrivals: Arrivals, count: usize) -> Vec<Duration> {
        Schedule::new(arrivals, 1_000.0, 7).expect("a rate").take(count).collect()
    }

    #[test]
    fn every_process_keeps_the_rate() {
        for arrivals in ALL {
            let last = first(arrivals, 200_000).pop().expect("a moment").as_secs_f64();
            assert!((last - 200.0).abs() < 6.0, "{arrivals}: 200,000 messages took {last} s at 1,000/s");
        }
    }

    #[test]
    fn moments_never_go_back() {
        for arrivals in ALL {
            assert!(first(arrivals, 10_000).is_sorted(), "{arrivals}");
        }
    }

    #[test]
    fn the_processes_differ_in_how_uneven_they_are() {
        // The coefficient of variation of the gaps: 0, a quarter, 1, and far more.
        let [constant, exponential, gaussian, bursty] = ALL.map(|arrivals| {
            let moments = first(arrivals, 50_000);
            let gaps: Vec<f64> = moments.windows(2).map(|two| (two[1] - two[0]).as_secs_f64()).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            variance.sqrt() / mean
        });
        assert!(constant < 0.001, "{constant}");
        assert!((gaussian - 0.25).abs() < 0.02, "{gaussian}");
        assert!((exponential - 1.0).abs() < 0.05, "{exponential}");
        assert!(bursty > 3.0, "{bursty}");
    }

    #[test]
    fn a_seed_says_everything_and_a_rate_must_be_one() {
        assert_eq!(first(Arrivals::Bursty, 100), first(Arrivals::Bursty, 100));
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Schedule::new(Arrivals::Constant, rate, 1).is_err());
        }
    }
}

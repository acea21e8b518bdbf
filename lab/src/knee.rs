//! The knee: the highest rate at which 99 of 100 deliveries take at most 50 ms and nothing is lost.
//!
//! The rate doubles until it is too high, then the step between is halved a few times. Each step is a
//! run on the same servers and connections.

use crate::{
    drive::Load,
    experiment::{Bench, Say},
    figures::{Experiment, Figures},
};
use anyhow::Result;

/// Deliveries that are slower than this (99th percentile) are too slow.
pub const LIMIT_US: u64 = 50_000;
/// Halvings after the doubling: the knee is found to about 6 %.
const HALVINGS: u32 = 4;

/// The knee, and every step on the way to it.
#[derive(Debug)]
pub struct Knee {
    /// Messages a second; 0 if even the first step was too high.
    pub rate: f64,
    /// In the order in which they were tried.
    pub steps: Vec<Figures>,
}

/// Searches the knee of an experiment from its load's rate upwards.
pub async fn find(experiment: &Experiment, highest: f64, say: Say<'_>) -> Result<Knee> {
    let mut bench = Bench::prepare(experiment, say).await?;
    let mut search = Search { good: 0.0, bad: None, next: experiment.load.rate, halvings: 0, highest };
    let mut steps = Vec::new();
    while let Some(rate) = search.next() {
        let load = Load { rate, ..experiment.load.clone() };
        let figures = bench.run(&load, say).await?;
        let fits = fits(&figures);
        let (p99, word) = (figures.delivered_us.p99 as f64 / 1e3, if fits { "fits" } else { "too high" });
        say(&format!(
            "{rate:.0} messages/s: {:.0} acknowledged/s, delivered p99 {p99:.1} ms: {word}",
            figures.acked_per_s
        ));
        steps.push(figures);
        search.learn(rate, fits);
        if !fits {
            // What an overloaded server still holds must not count against the next step.
            bench = Bench::prepare(experiment, say).await?;
        }
    }
    Ok(Knee { rate: search.good, steps })
}

/// A driver that sends late makes latencies longer, since they count from when a message was due: it can
/// hide a higher knee, not make one up. One that sends less than it should can, and does not pass.
fn fits(figures: &Figures) -> bool {
    let offered = figures.experiment.load.rate;
    figures.verdict.broken.is_empty()
        && figures.counts.overflowed == 0
        && figures.delivered_us.p99 <= LIMIT_US
        && figures.acked_per_s >= 0.9 * offered
}

/// Where the search stands.
#[derive(Debug)]
struct Search {
    good: f64,
    bad: Option<f64>,
    next: f64,
    halvings: u32,
    highest: f64,
}

impl Search {
    fn next(&self) -> Option<f64> {
        let done = self.halvings > HALVINGS || self.good >= self.highest || self.next < 1.0;
        (!done).then_some(self.next)
    }

    fn learn(&mut self, rate: f64, fits: bool) {
        if fits {
            self.good = self.good.max(rate);
        } else {
            self.bad = Some(self.bad.map_or(rate, |bad| bad.min(rate)));
        }
        self.next = match self.bad {
            None => (2.0 * rate).min(self.highest),
            Some(bad) => {
                // Going down from a first step that was too high is not the search yet.
                self.halvings += u32::from(self.good > 0.0);
                f64::midpoint(self.good, bad)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(from: f64, knee: f64, highest: f64) -> (f64, usize) {
        let mut search = Search { good: 0.0, bad: None, next: from, halvings: 0, highest };
        let mut steps = 0;
        while let Some(rate) = search.next() {
            search.learn(rate, rate <= knee);
            steps += 1;
        }
        (search.good, steps)
    }

    #[test]
    fn the_knee_is_found_from_below_and_from_above() {
        for (from, knee) in [(100.0, 5_000.0), (500.0, 777.0), (1_000.0, 300.0)] {
            let (found, steps) = search(from, knee, 1e6);
            assert!(found <= knee && found > 0.85 * knee, "{found} for {knee}");
            assert!(steps < 15, "{steps} steps");
        }
    }

    #[test]
    fn a_search_ends() {
        assert_eq!(search(100.0, 1e9, 10_000.0).0, 10_000.0);
        assert_eq!(search(100.0, 0.0, 1e6).0, 0.0);
    }
}

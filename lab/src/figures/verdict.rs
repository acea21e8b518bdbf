//! Whether a run's figures may be believed.

use super::{Counts, Experiment, Percentiles};
use crate::{machine::Machine, priority::Priority};
use serde::{Deserialize, Serialize};

/// Above this send lag (99th percentile) a run measures its driver.
const MAX_LAG_US: u64 = 1_000;
/// Above this share of the processors the driver leaves nothing to anybody.
const MAX_DRIVER_CORES: f64 = 0.8;
/// Above this share of the processors taken by the machine's host, latencies are partly its own.
const MAX_STOLEN: f64 = 0.01;
/// Above this share of all processor time the driver's own hunger decides where the knee is.
const MAX_DRIVER_SHARE: f64 = 0.4;

/// Shares of processor time, from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    /// The driver's, of all that was used.
    pub(super) of_used: f64,
    /// The driver's, of all that there was.
    pub(super) of_cores: f64,
    /// What the machine's host gave to others, of all that there was.
    pub(super) stolen: f64,
}

/// Whether a run's figures may be believed, and whether its target kept the promises.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// What the target did wrong.
    pub broken: Vec<String>,
    /// Why the run measures something else than it should.
    pub void: Vec<String>,
    /// What to know when reading the figures.
    pub notes: Vec<String>,
}

impl Verdict {
    /// Of what was counted, how late the driver sent, and what it says itself.
    pub(super) fn of(
        experiment: &Experiment,
        counts: &Counts,
        lag: &Percentiles,
        shares: Shares,
        machine: &Machine,
        complaints: Vec<String>,
    ) -> Self {
        let mut verdict = Self::default();
        let mut broken = |count: u64, what: &str| {
            if count > 0 {
                verdict.broken.push(format!("{count} {what}"));
            }
        };
        broken(counts.lost, "deliveries were lost");
        broken(counts.duplicated, "deliveries came twice");
        broken(counts.disordered, "deliveries came out of order");
        broken(counts.refused, "messages were refused for good");
        broken(counts.sent.saturating_sub(counts.acked + counts.refused), "messages were never acknowledged");
        if counts.overflowed > 0 {
            verdict.void.push(format!("{} messages found no room in the driver", counts.overflowed));
        }
        if experiment.load.window.is_none() && lag.p99 > MAX_LAG_US {
            verdict.void.push(format!("the driver sent late: {} us at the 99th percentile", lag.p99));
        }
        if shares.of_cores > MAX_DRIVER_CORES {
            verdict
                .void
                .push("the driver needed all processors: what is missing may be its fault".to_owned());
        }
        if counts.deferred > 0 {
            verdict.notes.push(format!("{} times the target said: not now", counts.deferred));
        }
        if shares.of_used > MAX_DRIVER_SHARE && shares.of_used < 1.0 {
            let share = shares.of_used * 100.0;
            verdict.notes.push(format!("the driver used {share:.0} % of the processor time: a lower bound"));
        }
        if machine.load_before > 0.5 * machine.cores as f64 {
            let load = machine.load_before;
            verdict.notes.push(format!("the machine was busy before the run: load {load:.1}"));
        }
        if machine.driver_priority == Priority::Ordinary {
            verdict.notes.push("the driver shared the cores as an equal: going first takes root".to_owned());
        }
        if shares.stolen > MAX_STOLEN {
            let share = shares.stolen * 100.0;
            verdict.notes.push(format!("the host of this machine took {share:.0} % of its processor time"));
        }
        verdict.notes.extend(complaints);
        verdict
    }

    /// Neither broken nor void.
    pub fn is_sound(&self) -> bool {
        self.broken.is_empty() && self.void.is_empty()
    }

    /// Nothing was wrong with the target, but the run says nothing of it.
    pub fn is_void(&self) -> bool {
        self.broken.is_empty() && !self.void.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(change: impl FnOnce(&mut Counts, &mut Percentiles)) -> Verdict {
        let mut counts = Counts {
            sent: 10,
            acked: 10,
            refused: 0,
            deferred: 0,
            expected: 10,
            delivered: 10,
            lost: 0,
            duplicated: 0,
            disordered: 0,
            overflowed: 0,
            reconnected: 0,
        };
        let mut lag = Percentiles::default();
        change(&mut counts, &mut lag);
        let experiment = Experiment::default();
        let machine = Machine {
            cores: 2,
            processor: String::new(),
            memory_bytes: 0,
            kernel: String::new(),
            load_before: 0.0,
            driver_priority: Priority::RealTime,
        };
        let shares = Shares { of_used: 0.1, of_cores: 0.1, stolen: 0.0 };
        Verdict::of(&experiment, &counts, &lag, shares, &machine, Vec::new())
    }

    #[test]
    fn a_sound_run_is_sound() {
        assert!(judged(|_, _| {}).is_sound());
    }

    #[test]
    fn every_fault_makes_a_run_broken_and_a_slow_driver_makes_it_void() {
        let broken = |change: fn(&mut Counts)| judged(|counts, _| change(counts)).broken.len();
        assert_eq!(broken(|counts| counts.lost = 1), 1);
        assert_eq!(broken(|counts| counts.duplicated = 1), 1);
        assert_eq!(broken(|counts| counts.disordered = 1), 1);
        assert_eq!(broken(|counts| counts.acked = 9), 1);
        assert_eq!(broken(|counts| (counts.acked, counts.refused) = (9, 1)), 1);
        assert_eq!(judged(|counts, _| counts.overflowed = 1).void.len(), 1);
        assert_eq!(judged(|_, lag| lag.p99 = 1_001).void.len(), 1);
    }
}

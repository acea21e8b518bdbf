//! How busy the processors are.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    time::{Duration, Instant},
};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// Limit: a shorter time between two looks says nothing (sysinfo's own minimum is 200 ms).
pub const SHORTEST: Duration = Duration::from_millis(250);

/// Whose work counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// All of the machine's: the rule, for a gateway that has its machine to itself.
    #[default]
    Machine,
    /// This process's: for gateways that share one machine.
    Process,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Machine => "machine",
            Self::Process => "process",
        })
    }
}

/// Measures now and then.
#[derive(Debug)]
pub struct Sampler {
    system: System,
    scope: Scope,
    process: Option<Pid>,
    last: Instant,
    ratio: f64,
}

impl Sampler {
    /// Begins to measure: what there was before does not count.
    pub fn new(scope: Scope) -> Self {
        let mut system = System::new();
        system.refresh_cpu_usage();
        let process = sysinfo::get_current_pid().ok();
        let mut sampler = Self { system, scope, process, last: Instant::now(), ratio: 0.0 };
        sampler.look();
        sampler
    }

    /// Share of the machine's processors in use, 0 to 1, since a moment ago; half of it is what was said
    /// before, so that a blink does not move clients.
    pub fn ratio(&mut self) -> f64 {
        if self.last.elapsed() >= SHORTEST {
            self.last = Instant::now();
            let now = self.look();
            // A machine that cannot be asked is said to idle: balancers find a frozen value themselves.
            let now = if now.is_finite() { now.clamp(0.0, 1.0) } else { 0.0 };
            self.ratio = if self.ratio == 0.0 { now } else { f64::midpoint(self.ratio, now) };
        }
        self.ratio
    }

    fn look(&mut self) -> f64 {
        match (self.scope, self.process) {
            (Scope::Process, Some(pid)) => {
                let only = ProcessesToUpdate::Some(&[pid]);
                let kind = ProcessRefreshKind::nothing().with_cpu().without_tasks();
                self.system.refresh_processes_specifics(only, false, kind);
                let of_one = self.system.process(pid).map_or(0.0, |process| process.cpu_usage());
                f64::from(of_one) / 100.0 / self.system.cpus().len().max(1) as f64
            }
            _ => {
                self.system.refresh_cpu_usage();
                f64::from(self.system.global_cpu_usage()) / 100.0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen_in_both_scopes_and_stays_a_ratio() {
        for scope in [Scope::Machine, Scope::Process] {
            let mut sampler = Sampler::new(scope);
            let begin = Instant::now();
            let mut seen = 0.0_f64;
            // A busy thread is seen sooner or later, however crowded the machine.
            while seen == 0.0 && begin.elapsed() < Duration::from_secs(30) {
                seen = sampler.ratio();
            }
            assert!(seen > 0.0 && seen <= 1.0, "{scope}: {seen}");
        }
    }
}

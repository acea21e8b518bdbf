//! The last reports of one gateway, and what of them is counted on.

use crate::{
    fleet::{Doubt, State, View},
    moment::Moment,
};
use std::collections::VecDeque;

/// Reports that are kept; so many must agree before levelling begins.
const KEPT: usize = 8;
/// Reports that must agree before anything else is planned from them.
const ENOUGH: usize = 3;
/// CPU from which a gateway is hot...
const HOT: f64 = 0.9;
/// ... if it was so for this long, in milliseconds.
const HOT_MS: u64 = 30_000;
/// A gateway that gave sessions because it was hot takes none for so long, in milliseconds: they would be
/// moved to and fro.
const COOLING_MS: u64 = 600_000;
/// A capacity counts for at most so many times the fleet's median.
const CAPACITY_SPREAD: f64 = 4.0;

/// What the last reports say, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Gauge {
    /// The fewest connections that any of them says.
    pub(super) low: f64,
    /// The most.
    pub(super) high: f64,
    /// The last word on CPU.
    pub(super) cpu: Option<f64>,
    /// Hot for long.
    pub(super) hot: bool,
    /// As many reports say so as are kept.
    pub(super) firm: bool,
}

impl Gauge {
    pub(super) fn middle(&self) -> f64 {
        f64::midpoint(self.low, self.high)
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Samples {
    kept: VecDeque<(Moment, f64)>,
    cpu: Option<f64>,
    hot_since: Option<Moment>,
    now: Moment,
    cooling_until: Moment,
}

impl Samples {
    /// Takes what the fleet says now. What is not sound forgets what was kept: it begins anew.
    pub(super) fn observe(&mut self, view: &View, now: Moment) {
        self.now = now;
        let Some((counted, connections)) = sound(view) else {
            (self.cpu, self.hot_since) = (None, None);
            self.kept.clear();
            return;
        };
        self.cpu = view.cpu;
        self.hot_since = view.cpu.filter(|cpu| *cpu >= HOT).map(|_| self.hot_since.unwrap_or(now));
        if self.kept.back().is_some_and(|(last, _)| *last >= counted) {
            return;
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((counted, connections));
    }

    /// What the reports since then say, if there are enough.
    pub(super) fn since(&self, since: Moment) -> Option<Gauge> {
        let counts: Vec<f64> =
            self.kept.iter().filter(|(at, _)| *at >= since).map(|(_, count)| *count).collect();
        let hot = self.hot_since.is_some_and(|since| self.now.since(since) >= HOT_MS);
        let (low, high) =
            (counts.iter().copied().reduce(f64::min)?, counts.iter().copied().reduce(f64::max)?);
        let firm = counts.len() >= KEPT;
        (counts.len() >= ENOUGH).then_some(Gauge { low, high, cpu: self.cpu, hot, firm })
    }

    /// It gives sessions because it is hot: not again before it was hot for as long again.
    pub(super) fn cool(&mut self, now: Moment) {
        self.hot_since = Some(now);
        self.cooling_until = now.plus(COOLING_MS);
    }

    pub(super) fn cooling(&self) -> bool {
        self.now < self.cooling_until
    }
}

/// Connections and when they were counted, of a gateway whose word is good.
fn sound(view: &View) -> Option<(Moment, f64)> {
    let reports = matches!(view.state, State::Live | State::Full | State::Drained) && !view.draining;
    // A wrong clock is for people to know; nothing depends on it.
    let believed = view.doubts.iter().all(|doubt| *doubt == Doubt::Clock);
    let (counted, connections) = (view.counted?, view.connections?);
    (reports && believed && view.capacity.is_some()).then_some((counted, connections as f64))
}

/// The lower median of the capacities.
pub(super) fn usual_capacity(views: &[View]) -> Option<u64> {
    let mut known: Vec<u64> = views.iter().filter_map(|view| view.capacity).collect();
    known.sort_unstable();
    known.get(known.len().checked_sub(1)? / 2).copied()
}

pub(super) fn capacity(view: &View, usual: Option<u64>) -> Option<f64> {
    Some((view.capacity? as f64).min(CAPACITY_SPREAD * usual? as f64))
}

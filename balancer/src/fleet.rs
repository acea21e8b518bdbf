//! The fleet as the balancer knows it: reports in, one picture out. Pure; time is an argument.
//!
//! - Every source keeps its own last report of a gateway. For each value the freshest trustworthy one
//!   of both counts.
//! - A gateway is *live* while a source was heard within [`MISSED_PERIODS`] of its periods.
//! - What is out of date or cannot be true is unknown, and unknown is average: no report, however
//!   wrong, makes a gateway look better than the fleet.
//! - Nothing is believed of a gateway's clock.

mod report;
mod trust;
mod view;

pub use report::{Doubt, Refused, Report, Source};
pub use trust::Values;
pub(crate) use view::hex;
pub use view::{State, View};

use crate::{ledger::Ledger, moment::Moment, strategy::Candidate};
use fastchat_protocol::{GatewayId, fleet::is_dialable};
use std::collections::{BTreeMap, BTreeSet};

/// A gateway that missed this many reports in a row is out.
pub const MISSED_PERIODS: u64 = 3;
/// Limit: gateways known at a time. Whoever may write to the bus could invent more.
pub const MAX_GATEWAYS: usize = 1_024;
/// Limit: characters of a program's name that are kept.
const MAX_AGENT: usize = 64;
/// A gateway's own word on its period counts within these bounds, in milliseconds: one that promises
/// a report next year would never be out.
const PERIOD_MS: std::ops::RangeInclusive<u64> = 100..=60_000;
/// Samples may be this much ahead of our clock, in milliseconds.
const AHEAD_MS: i64 = 2_000;
/// How long a gateway that went silent is shown, in milliseconds, while others are live.
const FORGET_MS: u64 = 10 * 60_000;
/// The wall clock and ours may differ by so much from one look at a sample to the next, in milliseconds.
const SAME_SAMPLE_MS: u64 = 20;
/// A report may be doubled or overtaken by so many others; a greater step back is a new count.
const REORDERED: u64 = 64;

/// Everything known of all gateways.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    gateways: BTreeMap<GatewayId, Entry>,
    /// Taken out by a person; kept for gateways that are not known yet, too.
    drained: BTreeSet<GatewayId>,
}

/// One gateway, by source.
#[derive(Debug, Clone, Default)]
struct Entry {
    known: BTreeMap<Source, Known>,
}

/// The last report of one source.
#[derive(Debug, Clone)]
struct Known {
    report: Report,
    values: Values,
    doubts: Vec<Doubt>,
    /// When the values were true, by our clock.
    taken: Moment,
    /// Since when, and for how many reports, connections and CPU are the same to the last bit.
    same_since: Moment,
    same_reports: u32,
}

impl Known {
    fn is_fresh(&self, now: Moment) -> bool {
        now.since(self.taken) <= self.silence_ms()
    }

    fn silence_ms(&self) -> u64 {
        MISSED_PERIODS * self.report.period_ms
    }
}

impl Entry {
    /// The newest report, whatever its source.
    fn newest(&self) -> Option<&Known> {
        self.known.values().max_by_key(|known| known.taken)
    }

    fn taken(&self) -> Moment {
        self.newest().map_or(Moment(0), |known| known.taken)
    }

    fn heartbeat(&self) -> Option<&Known> {
        self.known.get(&Source::Heartbeat)
    }

    /// Whether the gateway reports.
    ///
    /// While heartbeats flow they decide: a gateway whose own stopped is out, unless Prometheus reached
    /// it after that.
    fn is_live(&self, now: Moment, flowing: bool) -> bool {
        let Some(heartbeat) = self.heartbeat() else {
            return self.known.values().any(|known| known.is_fresh(now));
        };
        let sample = self.known.get(&Source::Prometheus).filter(|sample| sample.is_fresh(now));
        let reached_after =
            |sample: &Known| !flowing || sample.taken > heartbeat.taken.plus(heartbeat.silence_ms());
        heartbeat.is_fresh(now) || sample.is_some_and(reached_after)
    }

    /// The freshest believed value, and when it was taken.
    fn freshest<T>(&self, now: Moment, value: impl Fn(&Values) -> Option<T>) -> Option<(T, Moment)> {
        let fresh = self.known.values().filter(|known| known.is_fresh(now));
        fresh.filter_map(|known| Some((value(&known.values)?, known.taken))).max_by_key(|(_, taken)| *taken)
    }
}

impl Fleet {
    /// Takes a report in, or says why not. What of it is not believed can be seen in [`View::doubts`].
    pub fn on_report(&mut self, mut report: Report, now: Moment) -> Result<(), Refused> {
        if !is_dialable(&report.url) {
            return Err(Refused::Url);
        }
        if report.age_ms < -AHEAD_MS {
            return Err(Refused::Future);
        }
        report.period_ms = report.period_ms.clamp(*PERIOD_MS.start(), *PERIOD_MS.end());
        report.agent =
            report.agent.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(MAX_AGENT).collect();
        let taken = now.minus(u64::try_from(report.age_ms).unwrap_or(0));
        if !self.gateways.contains_key(&report.gateway) && self.gateways.len() >= MAX_GATEWAYS {
            return Err(Refused::TooMany);
        }
        let before = self.gateways.get(&report.gateway).and_then(|entry| entry.known.get(&report.source));
        if before.is_some_and(|before| is_older(&report, taken, before)) {
            return Err(Refused::Old);
        }
        let (values, doubts) = trust::check(&report);
        let same = before.filter(|before| says_the_same(&before.report, &report));
        let (same_since, same_reports) =
            same.map_or((taken, 1), |before| (before.same_since, before.same_reports.saturating_add(1)));
        let known = Known { values, doubts, taken, same_since, same_reports, report };
        self.gateways.entry(known.report.gateway).or_default().known.insert(known.report.source, known);
        Ok(())
    }

    /// A person takes a gateway out, or lets it back in.
    pub fn drain(&mut self, gateway: GatewayId, out: bool) {
        if out {
            self.drained.insert(gateway);
        } else {
            self.drained.remove(&gateway);
        }
    }

    /// The gateways that a person took out.
    pub fn drained(&self) -> &BTreeSet<GatewayId> {
        &self.drained
    }

    /// Forgets gateways that were silent for long. Never the last ones: they are all there is to try.
    pub fn forget(&mut self, now: Moment) -> Vec<GatewayId> {
        let flowing = self.heartbeats_flow(now);
        if !self.gateways.values().any(|entry| entry.is_live(now, flowing)) {
            return Vec::new();
        }
        let gone = |entry: &Entry| now.since(entry.taken()) > FORGET_MS;
        let gone: Vec<GatewayId> =
            self.gateways.iter().filter(|(_, entry)| gone(entry)).map(|(id, _)| *id).collect();
        for id in &gone {
            self.gateways.remove(id);
            self.drained.remove(id);
        }
        gone
    }

    /// Whether any gateway's heartbeats arrive. If none do, the bus may be what is silent.
    fn heartbeats_flow(&self, now: Moment) -> bool {
        self.gateways.values().filter_map(Entry::heartbeat).any(|known| known.is_fresh(now))
    }

    /// Every gateway, in the order of their ids.
    pub fn views(&self, now: Moment, ledger: &Ledger) -> Vec<View> {
        view::views(self, now, ledger)
    }

    /// The load of gateways as strategies compare it. Unknown values are the fleet's median; clients
    /// that were sent since the report are counted apart.
    pub fn candidates<'a>(views: impl Iterator<Item = &'a View> + Clone) -> Vec<Candidate> {
        view::candidates(views)
    }
}

fn is_older(report: &Report, taken: Moment, before: &Known) -> bool {
    match (report.count, before.report.count) {
        (Some(new), Some(old)) => new <= old && old - new < REORDERED,
        _ => taken <= before.taken.plus(SAME_SAMPLE_MS),
    }
}

/// Compared by bits: NaN is the same as NaN here.
fn says_the_same(one: &Report, other: &Report) -> bool {
    let bits = |report: &Report| (report.connections.map(f64::to_bits), report.cpu.map(f64::to_bits));
    bits(one) == bits(other)
}

#[cfg(test)]
mod tests;

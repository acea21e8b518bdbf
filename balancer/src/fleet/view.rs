//! One picture of all gateways, for strategies and for people.

use super::{Doubt, Entry, Fleet, Source, trust::Values};
use crate::{ledger::Ledger, moment::Moment, strategy::Candidate};
use fastchat_protocol::GatewayId;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// A report that says the same so often is looked at.
const FROZEN_REPORTS: u32 = 10;
/// ... if so many clients were sent there meanwhile: a quiet gateway is not a frozen one.
const FROZEN_ASSIGNMENTS: u64 = 8;
/// A client takes about this long, in milliseconds, from its assignment to a session that a report
/// counts. Assignments of so long before a report count as not in it.
const CONNECTING_MS: u64 = 250;
/// A capacity counts for at most this many times the fleet's median.
const CAPACITY_SPREAD: f64 = 4.0;
/// What a fleet of which no capacity is known counts as.
const CAPACITY_UNKNOWN: f64 = 15_000.0;

/// Whether clients are sent to a gateway, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It takes clients.
    Live,
    /// It holds as many as it can.
    Full,
    /// It says that it goes away.
    Draining,
    /// A person took it out.
    Drained,
    /// It was not heard for too long.
    Stale,
    /// Another gateway was heard under its URL since: it was restarted.
    Replaced,
}

impl State {
    /// All states.
    pub const ALL: [Self; 6] =
        [Self::Live, Self::Full, Self::Draining, Self::Drained, Self::Stale, Self::Replaced];

    /// For metrics and people.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Full => "full",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Stale => "stale",
            Self::Replaced => "replaced",
        }
    }
}

/// What is known of one gateway.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// Which.
    #[serde(serialize_with = "hex")]
    pub gateway: GatewayId,
    /// Where clients reach it.
    pub url: String,
    /// What it runs.
    pub agent: String,
    /// Protocol versions that it serves; empty if not known.
    pub versions: Vec<u16>,
    /// Whether clients are sent there.
    pub state: State,
    /// Connections, if known and fresh.
    pub connections: Option<u64>,
    /// When these were counted.
    #[serde(skip)]
    pub counted: Option<Moment>,
    /// Most connections, if known and fresh.
    pub capacity: Option<u64>,
    /// CPU from 0 to 1, if known and fresh.
    pub cpu: Option<f64>,
    /// Its last word on draining.
    pub draining: bool,
    /// Milliseconds since the newest report.
    pub age_ms: u64,
    /// Clients sent there since the connections were counted.
    pub own: u64,
    /// How far its clock is ahead, in milliseconds.
    pub skew_ms: Option<i64>,
    /// Sources that were heard in time.
    pub sources: Vec<Source>,
    /// What is not believed.
    pub doubts: Vec<Doubt>,
}

impl View {
    /// Whether it serves one of a client's versions.
    pub fn serves(&self, versions: &[u16]) -> bool {
        versions.is_empty()
            || self.versions.is_empty()
            || versions.iter().any(|version| self.versions.contains(version))
    }

    /// Connections of capacity, if both are known.
    pub fn utilisation(&self) -> Option<f64> {
        Some(self.connections? as f64 / self.capacity? as f64)
    }
}

/// An id as people write it.
pub(crate) fn hex<S: Serializer>(gateway: &GatewayId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(gateway)
}

pub(super) fn views(fleet: &Fleet, now: Moment, ledger: &Ledger) -> Vec<View> {
    let mut newest: BTreeMap<&str, (Moment, GatewayId)> = BTreeMap::new();
    for (id, entry) in &fleet.gateways {
        let url = entry.newest().map_or("", |known| &known.report.url);
        let heard = newest.entry(url).or_insert((entry.taken(), *id));
        *heard = (*heard).max((entry.taken(), *id));
    }
    let flowing = fleet.heartbeats_flow(now);
    let mut views = Vec::with_capacity(fleet.gateways.len());
    for (id, entry) in &fleet.gateways {
        let mut view = view(fleet, *id, entry, now, ledger);
        let replaced = newest.get(view.url.as_str()).is_some_and(|(_, newest)| newest != id);
        view.state = match () {
            () if replaced => State::Replaced,
            () if fleet.drained.contains(id) => State::Drained,
            () if !entry.is_live(now, flowing) => State::Stale,
            () if view.draining => State::Draining,
            () if view.utilisation().is_some_and(|load| load >= 1.0) => State::Full,
            () => State::Live,
        };
        views.push(view);
    }
    views
}

fn view(fleet: &Fleet, gateway: GatewayId, entry: &Entry, now: Moment, ledger: &Ledger) -> View {
    let newest = entry.newest();
    let frozen = is_frozen(fleet, gateway, entry, now, ledger);
    let believed = |value: &dyn Fn(&Values) -> Option<f64>| {
        if frozen { None } else { entry.freshest(now, value) }
    };
    let connections = believed(&|values| values.connections.map(|count| count as f64));
    let mut view = View {
        gateway,
        url: newest.map(|known| known.report.url.clone()).unwrap_or_default(),
        agent: newest.map(|known| known.report.agent.clone()).unwrap_or_default(),
        versions: versions(entry),
        state: State::Live,
        connections: connections.map(|(count, _)| count as u64),
        counted: connections.map(|(_, taken)| taken),
        capacity: entry.freshest(now, |values| values.capacity).map(|(capacity, _)| capacity),
        cpu: believed(&|values| values.cpu).map(|(cpu, _)| cpu),
        draining: draining(entry),
        age_ms: now.since(entry.taken()),
        own: 0,
        skew_ms: entry.heartbeat().and_then(|known| known.report.skew_ms),
        sources: entry
            .known
            .iter()
            .filter(|(_, known)| known.is_fresh(now))
            .map(|(source, _)| *source)
            .collect(),
        doubts: doubts(entry, frozen),
    };
    let counted = connections.map_or(entry.taken(), |(_, taken)| taken);
    view.own = ledger.since(gateway, counted.minus(CONNECTING_MS));
    view
}

/// The newest word, however old: who said that it leaves is not asked back by silence.
fn draining(entry: &Entry) -> bool {
    let words = entry.known.values().filter_map(|known| Some((known.taken, known.values.draining?)));
    words.max().is_some_and(|(_, draining)| draining)
}

/// Only heartbeats know versions.
fn versions(entry: &Entry) -> Vec<u16> {
    let known = entry.known.values().map(|known| &known.report.versions);
    known.into_iter().find(|versions| !versions.is_empty()).cloned().unwrap_or_default()
}

fn doubts(entry: &Entry, frozen: bool) -> Vec<Doubt> {
    let mut doubts: Vec<Doubt> = entry.known.values().flat_map(|known| known.doubts.clone()).collect();
    if frozen {
        doubts.push(Doubt::Frozen);
    }
    doubts.sort_unstable();
    doubts.dedup();
    doubts
}

/// The newest report says the same for long, although clients were sent there and at least half of the
/// other gateways moved.
fn is_frozen(fleet: &Fleet, gateway: GatewayId, entry: &Entry, now: Moment, ledger: &Ledger) -> bool {
    let Some(known) = entry.newest() else { return false };
    if known.same_reports < FROZEN_REPORTS || ledger.since(gateway, known.same_since) < FROZEN_ASSIGNMENTS {
        return false;
    }
    let others = fleet.gateways.iter().filter(|(id, _)| **id != gateway);
    let others: Vec<_> =
        others.filter_map(|(_, entry)| entry.newest()).filter(|other| other.is_fresh(now)).collect();
    let moved = others.iter().filter(|other| other.same_since > known.same_since).count();
    moved > 0 && 2 * moved >= others.len()
}

pub(super) fn candidates<'a>(views: impl Iterator<Item = &'a View> + Clone) -> Vec<Candidate> {
    let capacity = median(views.clone().filter_map(|view| view.capacity).map(|count| count as f64));
    let capacity = capacity.unwrap_or(CAPACITY_UNKNOWN);
    let capacity_of =
        |view: &View| view.capacity.map_or(capacity, |own| (own as f64).min(CAPACITY_SPREAD * capacity));
    let load = |view: &View| Some(view.connections? as f64 / capacity_of(view));
    let usual_load = median(views.clone().filter_map(load)).unwrap_or(0.0);
    let usual_cpu = median(views.clone().filter_map(|view| view.cpu)).unwrap_or(0.0);
    views
        .map(|view| Candidate {
            gateway: view.gateway,
            connections: view.connections.map_or(usual_load * capacity_of(view), |count| count as f64),
            capacity: capacity_of(view),
            cpu: view.cpu.unwrap_or(usual_cpu),
            own: view.own as f64,
        })
        .collect()
}

/// The lower median: of two, the less.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

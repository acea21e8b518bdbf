//! One decision: who may be chosen, by which strategy, and why it fell so. Pure; the service locks it,
//! the simulator owns it.
//!
//! Candidates come from the first of these that has any:
//! 1. live gateways, without those that the client excludes;
//! 2. full ones, without those: a report may be old, the gateway itself decides;
//! 3. live or full ones that the client excludes: better than nobody;
//! 4. if nothing reports at all, the gateways last known, uniformly: no load of theirs is true any more.
//!
//! A gateway that drains or was taken out is never chosen.

use crate::{
    fleet::{Fleet, State, View},
    ledger::Ledger,
    moment::Moment,
    strategy::{Candidate, Hints, Pick, Strategy},
};
use fastchat_protocol::GatewayId;
use rand::{Rng, seq::SliceRandom};
use serde::Serialize;
use std::collections::VecDeque;

/// Limit: decisions that can be explained afterwards.
pub const EXPLAINED: usize = 256;
/// Gateways that an answer names besides the chosen one, for a client that cannot reach it; unless it asks
/// for another number.
pub const ALTERNATIVES: usize = 2;
/// Limit: how many of these a client can ask for.
pub const MAX_ALTERNATIVES: usize = 16;

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// See [`Hints::key`].
    pub key: Option<Vec<u8>>,
    /// Ids or URLs of gateways that the client could not reach.
    pub exclude: Vec<String>,
    /// Protocol versions that it speaks; empty for any.
    pub versions: Vec<u16>,
    /// How many other gateways the answer names, if there are as many.
    pub alternatives: usize,
}

impl Default for Request {
    fn default() -> Self {
        Self { key: None, exclude: Vec::new(), versions: Vec::new(), alternatives: ALTERNATIVES }
    }
}

/// Which gateways were candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Live ones: the usual case.
    Live,
    /// Every live one is full.
    Full,
    /// Only excluded ones are left.
    Excluded,
    /// Nothing reports.
    LastKnown,
}

impl Basis {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Live, Self::Full, Self::Excluded, Self::LastKnown];

    /// For metrics and people.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Full => "full",
            Self::Excluded => "excluded",
            Self::LastKnown => "last-known",
        }
    }
}

/// A gateway that a client may dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which.
    pub gateway: GatewayId,
    /// Where.
    pub url: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Decision {
    /// When.
    pub at: Moment,
    /// Where to go first.
    pub target: Target,
    /// Where to go if that fails, best first.
    pub alternatives: Vec<Target>,
    /// By which strategy.
    pub strategy: Strategy,
    /// Among which gateways.
    pub basis: Basis,
    /// Why, in words. Names gateways, never a client.
    pub reason: String,
}

/// Nobody can be named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoGateway {
    /// Nothing was ever heard.
    #[error("no gateway has reported yet")]
    Unknown,
    /// There are some, and none may take clients.
    #[error("none of {known} gateways can take a client: {why}")]
    Unfit {
        /// How many are known.
        known: usize,
        /// What they are.
        why: String,
    },
}

/// Everything that a decision depends on.
#[derive(Debug, Clone, Default)]
pub struct Dispatcher {
    /// What is known of the gateways.
    pub fleet: Fleet,
    /// Where clients were sent lately.
    pub ledger: Ledger,
    /// The strategy in force.
    pub strategy: Strategy,
    decisions: VecDeque<Decision>,
}

impl Dispatcher {
    /// An empty one.
    pub fn new(strategy: Strategy) -> Self {
        Self { strategy, ..Self::default() }
    }

    /// Chooses a gateway and counts the assignment.
    pub fn assign(
        &mut self,
        request: &Request,
        now: Moment,
        rng: &mut impl Rng,
    ) -> Result<Decision, NoGateway> {
        let views = self.fleet.views(now, &self.ledger);
        let (basis, fit) = fit(&views, request).ok_or_else(|| refusal(&views))?;
        let candidates = Fleet::candidates(fit.iter().copied());
        // Of last known gateways, nothing but the names is true.
        let strategy = if basis == Basis::LastKnown { Strategy::Random } else { self.strategy };
        let hints = Hints { last: self.ledger.last(), key: request.key.as_deref() };
        let pick = strategy.choose(&candidates, hints, rng).ok_or_else(|| refusal(&views))?;
        let decision = Decision {
            at: now,
            target: target(fit[pick.chosen]),
            alternatives: alternatives(&fit, pick, request.alternatives, rng),
            strategy,
            basis,
            reason: reason(&candidates, &fit, pick, strategy, basis),
        };
        self.ledger.record(decision.target.gateway, now);
        if self.decisions.len() == EXPLAINED {
            self.decisions.pop_front();
        }
        self.decisions.push_back(decision.clone());
        Ok(decision)
    }

    /// The last decisions, newest first.
    pub fn explain(&self, last: usize) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().rev().take(last)
    }

    /// Every gateway, in the order of their ids.
    pub fn views(&self, now: Moment) -> Vec<View> {
        self.fleet.views(now, &self.ledger)
    }

    /// Forgets what was silent for long.
    pub fn forget(&mut self, now: Moment) {
        for gateway in self.fleet.forget(now) {
            self.ledger.forget(gateway);
        }
    }
}

/// The candidates, and on which basis.
fn fit<'a>(views: &'a [View], request: &Request) -> Option<(Basis, Vec<&'a View>)> {
    let excluded = |view: &View| {
        let id = view.gateway.to_string();
        request.exclude.iter().any(|name| *name == view.url || *name == id)
    };
    let these = |state: &[State], with_excluded: bool| -> Vec<&'a View> {
        let serving = views.iter().filter(|view| view.serves(&request.versions));
        serving.filter(|view| state.contains(&view.state) && (with_excluded || !excluded(view))).collect()
    };
    let reporting = views.iter().any(|view| matches!(view.state, State::Live | State::Full));
    let last_known = |with_excluded| {
        let stale = these(&[State::Stale], with_excluded);
        let leaving = |view: &&View| !view.draining;
        if reporting { Vec::new() } else { stale.into_iter().filter(leaving).collect() }
    };
    let mut tiers = [
        (Basis::Live, these(&[State::Live], false)),
        (Basis::Full, these(&[State::Full], false)),
        (Basis::Excluded, these(&[State::Live, State::Full], true)),
        (Basis::LastKnown, last_known(false)),
        (Basis::LastKnown, last_known(true)),
    ]
    .into_iter();
    tiers.find(|(_, views)| !views.is_empty())
}

fn refusal(views: &[View]) -> NoGateway {
    if views.is_empty() {
        return NoGateway::Unknown;
    }
    let count = |state: State| views.iter().filter(|view| view.state == state).count();
    let counts = State::ALL.into_iter().map(|state| (count(state), state)).filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, state)| format!("{count} {}", state.label())).collect();
    let served = views.iter().any(|view| matches!(view.state, State::Live | State::Full));
    let versions = if served { ", but not of the client's versions" } else { "" };
    NoGateway::Unfit { known: views.len(), why: format!("{}{versions}", counts.join(", ")) }
}

fn target(view: &View) -> Target {
    Target { gateway: view.gateway, url: view.url.clone() }
}

/// What the choice was compared with, then others at random.
fn alternatives(fit: &[&View], pick: Pick, most: usize, rng: &mut impl Rng) -> Vec<Target> {
    let mut others: Vec<usize> =
        (0..fit.len()).filter(|at| *at != pick.chosen && Some(*at) != pick.against).collect();
    others.shuffle(rng);
    pick.against
        .into_iter()
        .chain(others)
        .take(most.min(MAX_ALTERNATIVES))
        .map(|at| target(fit[at]))
        .collect()
}

fn reason(candidates: &[Candidate], fit: &[&View], pick: Pick, strategy: Strategy, basis: Basis) -> String {
    let chosen = &candidates[pick.chosen];
    let name = |candidate: &Candidate| candidate.gateway.to_string()[..8].to_owned();
    let load = |candidate: &Candidate| {
        let Candidate { connections, capacity, own, .. } = *candidate;
        format!(
            "{} at {:.3} ({connections:.0} and {own:.0} sent since, of {capacity:.0})",
            name(candidate),
            candidate.expected()
        )
    };
    let by_strategy = match strategy {
        Strategy::Random => format!("{}: any of {}", name(chosen), candidates.len()),
        Strategy::RoundRobin => format!("{}: its turn among {}", name(chosen), candidates.len()),
        Strategy::LeastConnections => {
            format!(
                "{}: the fewest connections of {}, {:.0}",
                name(chosen),
                candidates.len(),
                chosen.connections
            )
        }
        Strategy::MinLoad => {
            format!("{}: the least CPU of {}, {:.2}", name(chosen), candidates.len(), chosen.cpu)
        }
        Strategy::Weighted => {
            format!(
                "{}: by inverse load among {}, at {:.3}",
                name(chosen),
                candidates.len(),
                chosen.reported()
            )
        }
        Strategy::P2c => match pick.against {
            Some(against) => format!("{} against {}", load(chosen), load(&candidates[against])),
            None => format!("{}: the only one", name(chosen)),
        },
    };
    match basis {
        Basis::Live => by_strategy,
        Basis::Full => format!("{by_strategy}; every live gateway is full"),
        Basis::Excluded => format!("{by_strategy}; only gateways that the client excludes are left"),
        Basis::LastKnown => {
            let age = fit.iter().map(|view| view.age_ms).min().unwrap_or(0);
            format!(
                "{by_strategy}; nothing has reported for {:.1} s, these were known last",
                age as f64 / 1000.0
            )
        }
    }
}

#[cfg(test)]
mod tests;

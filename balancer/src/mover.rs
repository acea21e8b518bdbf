//! Which gateways are asked to move sessions to which: when one was added, is overloaded, or is emptied
//! by a person. Pure: views of the fleet, the time and randomness in, orders out.
//!
//! Sessions move in *rounds*, one at a time. A round asks gateways to give some sessions over [`ROUND_MS`];
//! the next is planned only from reports that were counted after all of it was done.
//!
//! What keeps it from doing harm:
//! - Only sound reports count, and several in a row: a giver by the least, a taker by the most that the last
//!   reports say. Noise and a single lie move nobody.
//! - It begins above [`plan::START`] times the fair share and goes on to [`plan::STOP`] (hysteresis), and
//!   moves half of the way at most: two that plan at once overshoot by nothing.
//! - A gateway gives and takes at most so many a second. A new one begins with a quarter of that.
//! - Whose numbers do not show the effect of a round gets half as many in the next ([`effect`]), down to none.
//!
//! It must never move sessions to a gateway that is stale, draining, drained or full, and none at all if fewer
//! than two gateways report.

mod effect;
mod gauge;
mod plan;

pub use plan::{Reason, START, STOP};

use crate::{
    fleet::{State, View},
    moment::Moment,
};
use effect::{Asked, Credit, Side};
use fastchat_protocol::GatewayId;
use gauge::{Gauge, Samples};
use rand::Rng;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Over which a gateway spreads the moves of a round, in milliseconds.
pub const ROUND_MS: u64 = 5_000;
/// A session that was asked to move is up at its new gateway after this, in milliseconds.
pub const EFFECT_MS: u64 = 1_000;
/// Reports that show the effect are waited for so long, in milliseconds.
const REPORTS_MS: u64 = 20_000;
/// Limit: orders that can be explained afterwards.
const EXPLAINED: usize = 256;

/// How fast sessions move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sessions that one gateway gives in a second; it takes four times as many.
    pub per_second: u64,
    /// Percent of its sessions that it gives in a second, unless a person empties it.
    pub percent_per_second: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_second: 50, percent_per_second: 2 }
    }
}

/// A gateway is to give sessions to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Order {
    /// Which gives.
    #[serde(serialize_with = "crate::fleet::hex")]
    pub from: GatewayId,
    /// Why.
    pub reason: Reason,
    /// Which take, and how many.
    #[serde(skip)]
    pub to: Vec<(GatewayId, u64)>,
    /// In words.
    pub why: String,
}

impl Order {
    /// How many sessions move.
    pub fn sessions(&self) -> u64 {
        self.to.iter().map(|(_, count)| count).sum()
    }
}

/// How a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The reports show it.
    Seen,
    /// The reports of some do not show it: these get less.
    Unseen,
    /// Too few reports came.
    Timeout,
}

impl Ended {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Seen, Self::Unseen, Self::Timeout];

    /// For metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Unseen => "unseen",
            Self::Timeout => "timeout",
        }
    }
}

/// What one look at the fleet came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ticked {
    /// The round before has ended.
    pub ended: Option<Ended>,
    /// What to ask now.
    pub orders: Vec<Order>,
}

/// Orders that are being carried out.
#[derive(Debug, Clone, Default)]
struct Round {
    /// All of it is done by then.
    due: Moment,
    gives: Asked,
    takes: Asked,
}

/// What is remembered from one look to the next.
#[derive(Debug, Clone, Default)]
pub struct Mover {
    limits: Limits,
    samples: BTreeMap<GatewayId, Samples>,
    credits: BTreeMap<(GatewayId, Side), Credit>,
    emptied: BTreeSet<GatewayId>,
    /// Between [`plan::START`] and [`plan::STOP`].
    balancing: bool,
    round: Option<Round>,
    /// Nothing is planned from reports before this.
    since: Moment,
    leads: bool,
    orders: VecDeque<(Moment, Order)>,
}

impl Mover {
    /// One that has seen nothing.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A person wants all sessions of a gateway elsewhere, or no longer. Only of a drained one.
    pub fn empty(&mut self, gateway: GatewayId, out: bool) {
        if out {
            self.emptied.insert(gateway);
        } else {
            self.emptied.remove(&gateway);
        }
    }

    /// Those that are not drained any more, or were forgotten, are not emptied either.
    pub fn retain(&mut self, drained: &BTreeSet<GatewayId>) {
        self.emptied.retain(|gateway| drained.contains(gateway));
    }

    /// The gateways that a person empties.
    pub fn emptied(&self) -> &BTreeSet<GatewayId> {
        &self.emptied
    }

    /// Looks at the fleet, about twice a second. `leads`: no other balancer asks for moves.
    pub fn tick(&mut self, views: &[View], now: Moment, leads: bool, rng: &mut impl Rng) -> Ticked {
        self.observe(views, now);
        if !leads {
            (self.leads, self.round, self.balancing) = (false, None, false);
            return Ticked::default();
        }
        if !self.leads {
            // Another one's last round may still be under way.
            self.leads = true;
            self.since = now.plus(ROUND_MS + EFFECT_MS);
        }
        let ended = match self.end_round(now) {
            Err(Underway) => return Ticked::default(),
            Ok(ended) => ended,
        };
        let orders = self.plan(views, now, rng);
        if !orders.is_empty() {
            self.begin_round(&orders, now);
        }
        Ticked { ended, orders }
    }

    /// The last orders, newest first.
    pub fn explain(&self, last: usize) -> impl Iterator<Item = &(Moment, Order)> {
        self.orders.iter().rev().take(last)
    }

    /// Sessions that a gateway was asked to give, and those that it is to take, in the round under way.
    pub fn underway(&self, gateway: GatewayId) -> (u64, u64) {
        let count = |side: &Asked| side.get(&gateway).map_or(0, |(count, _)| *count);
        self.round.as_ref().map_or((0, 0), |round| (count(&round.gives), count(&round.takes)))
    }

    fn observe(&mut self, views: &[View], now: Moment) {
        let known = |gateway: &GatewayId| views.iter().any(|view| view.gateway == *gateway);
        self.samples.retain(|gateway, _| known(gateway));
        self.credits.retain(|(gateway, _), _| known(gateway));
        for view in views {
            self.samples.entry(view.gateway).or_default().observe(view, now);
        }
    }

    /// Ends the round under way once the reports show all of it.
    fn end_round(&mut self, now: Moment) -> Result<Option<Ended>, Underway> {
        let Some(round) = &self.round else { return Ok(None) };
        let after: BTreeMap<GatewayId, Option<Gauge>> = round
            .gives
            .keys()
            .chain(round.takes.keys())
            .map(|gateway| (*gateway, self.samples.get(gateway).and_then(|seen| seen.since(round.due))))
            .collect();
        let complete = after.values().all(Option::is_some);
        if !complete && now < round.due.plus(REPORTS_MS) {
            return Err(Underway);
        }
        let middle = |gateway: &GatewayId| after.get(gateway).copied().flatten().map(|gauge| gauge.middle());
        let judged = effect::judge(&round.gives, &round.takes, middle);
        for (gateway, side, shown) in &judged {
            self.credits.entry((*gateway, *side)).or_insert_with(|| Credit::new(*side)).judge(*shown, now);
        }
        self.since = round.due;
        self.round = None;
        Ok(Some(match judged.iter().all(|(_, _, shown)| *shown) {
            false => Ended::Unseen,
            true if complete => Ended::Seen,
            true => Ended::Timeout,
        }))
    }

    fn plan(&mut self, views: &[View], now: Moment, rng: &mut impl Rng) -> Vec<Order> {
        let gauges = self.gauges(views);
        let reporting = views.iter().filter(|view| matches!(view.state, State::Live | State::Full)).count();
        let credits = &mut self.credits;
        let part = |gateway: GatewayId, side: Side, most: u64| {
            credits.entry((gateway, side)).or_insert_with(|| Credit::new(side)).of(most, now)
        };
        let orders = plan::plan(&gauges, reporting, self.limits, &mut self.balancing, part, rng);
        for order in orders.iter().filter(|order| order.reason == Reason::Hot) {
            self.samples.entry(order.from).or_default().cool(now);
        }
        orders
    }

    /// Those of which enough sound reports came.
    fn gauges(&self, views: &[View]) -> Vec<plan::Gateway> {
        let usual = gauge::usual_capacity(views);
        let gauges = views.iter().filter_map(|view| {
            let samples = self.samples.get(&view.gateway)?;
            let role = match view.state {
                State::Live => plan::Role::Any,
                State::Full => plan::Role::Giver,
                State::Drained if self.emptied.contains(&view.gateway) => plan::Role::Emptied,
                _ => return None,
            };
            let gauge = samples.since(self.since)?;
            let capacity = gauge::capacity(view, usual)?;
            Some(plan::Gateway { gateway: view.gateway, role, capacity, gauge, cooling: samples.cooling() })
        });
        gauges.collect()
    }

    fn begin_round(&mut self, orders: &[Order], now: Moment) {
        let before = |gateway: &GatewayId| {
            let gauge = self.samples.get(gateway).and_then(|seen| seen.since(self.since));
            gauge.map_or(0.0, |gauge| gauge.middle())
        };
        let mut round = Round { due: now.plus(ROUND_MS + EFFECT_MS), ..Round::default() };
        for order in orders {
            round.gives.insert(order.from, (order.sessions(), before(&order.from)));
            for (gateway, count) in &order.to {
                round.takes.entry(*gateway).or_insert((0, before(gateway))).0 += count;
            }
        }
        self.round = Some(round);
        for order in orders {
            if self.orders.len() == EXPLAINED {
                self.orders.pop_front();
            }
            self.orders.push_back((now, order.clone()));
        }
    }
}

/// The round's effect cannot be seen yet.
struct Underway;

#[cfg(test)]
mod tests;

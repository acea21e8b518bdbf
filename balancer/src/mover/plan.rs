//! The orders of one round, from what is counted on.

use super::{Limits, Order, ROUND_MS, effect::Side, gauge::Gauge};
use fastchat_protocol::GatewayId;
use rand::{Rng, seq::SliceRandom};
use serde::Serialize;

/// Levelling begins when a gateway is this far from its fair share, by factor...
pub const START: f64 = 1.2;
/// ... and ends when all givers are this near.
pub const STOP: f64 = 1.05;
/// Fewer sessions than this are no imbalance to begin with, and ...
const START_SESSIONS: f64 = 4.0;
/// ... this few are not worth going on for.
const STOP_SESSIONS: f64 = 2.0;
/// The part of the way that is gone in a round.
const STEP: f64 = 0.5;
/// A gateway with few sessions gives at least so many a round.
const FEW: u64 = 5;
/// A gateway takes so many times what it may give.
const TAKES: u64 = 4;
/// Share of its capacity from which a gateway is near it, to which it gives, and up to which others take.
const NEAR: f64 = 0.95;
const NEAR_STOP: f64 = 0.9;
const ROOM: f64 = 0.85;
/// One that is hot gives no more once it has this much less than its fair share.
const HOT_STOP: f64 = 0.5;
/// Those with more CPU take nothing from a hot one.
const COOL: f64 = 0.7;

/// Why sessions move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A person empties the gateway.
    Drain,
    /// Its connections are near its capacity, and others have room.
    Full,
    /// Its processors have been busy for long, and others' are not.
    Hot,
    /// It has more than its share; another was added, for instance.
    Uneven,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Drain, Self::Full, Self::Hot, Self::Uneven];

    /// For metrics and people.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Full => "full",
            Self::Hot => "hot",
            Self::Uneven => "uneven",
        }
    }
}

/// What a gateway may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Any,
    Giver,
    Emptied,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Gateway {
    pub(super) gateway: GatewayId,
    pub(super) role: Role,
    pub(super) capacity: f64,
    pub(super) gauge: Gauge,
    /// It gave sessions because it was hot, not long ago.
    pub(super) cooling: bool,
}

/// A gateway with its fair share, and what it takes in this round.
struct Place<'a> {
    of: &'a Gateway,
    share: f64,
    may_take: f64,
    taken: f64,
}

impl Place<'_> {
    fn surplus(&self) -> f64 {
        self.of.gauge.low - self.share
    }

    fn takes(&self) -> bool {
        self.of.role == Role::Any && !self.of.gauge.hot && !self.of.cooling
    }

    /// Sessions up to its fair share.
    fn lacks(&self) -> f64 {
        (self.share - self.of.gauge.high - self.taken).max(0.0)
    }

    /// Sessions up to what it can hold well.
    fn room(&self) -> f64 {
        (ROOM * self.of.capacity - self.of.gauge.high - self.taken).max(0.0)
    }

    fn cool(&self) -> bool {
        self.of.gauge.cpu.is_some_and(|cpu| cpu < COOL)
    }
}

/// `reporting`: how many live gateways there are, counted on or not. `balancing` is kept from one round to
/// the next. `part` is how much of a number a gateway may give or take by what it has shown.
pub(super) fn plan(
    gateways: &[Gateway],
    reporting: usize,
    limits: Limits,
    balancing: &mut bool,
    mut part: impl FnMut(GatewayId, Side, u64) -> u64,
    rng: &mut impl Rng,
) -> Vec<Order> {
    let live = gateways.iter().filter(|gateway| gateway.role != Role::Emptied);
    let capacity: f64 = live.clone().map(|gateway| gateway.capacity).sum();
    // Of most of the fleet nothing is known: what would be fair cannot be said.
    if gateways.len() < 2 || 2 * live.count() <= reporting || capacity <= 0.0 {
        *balancing = false;
        return Vec::new();
    }
    let sessions: f64 = gateways.iter().map(|gateway| gateway.gauge.middle()).sum();
    let most_taken = TAKES * limits.per_second * ROUND_MS / 1_000;
    let mut places: Vec<Place<'_>> = gateways
        .iter()
        .map(|of| {
            let share = if of.role == Role::Emptied { 0.0 } else { sessions * of.capacity / capacity };
            Place { of, share, may_take: part(of.gateway, Side::Takes, most_taken) as f64, taken: 0.0 }
        })
        .collect();
    // What is left over by rounding is nobody's in particular.
    places.shuffle(rng);
    *balancing = is_uneven(&places, *balancing);
    let gives = |place: &Place<'_>| gives(place, &places, *balancing);
    let mut givers: Vec<(usize, Reason, f64)> = places
        .iter()
        .enumerate()
        .filter_map(|(at, place)| gives(place).map(|(reason, want)| (at, reason, want)))
        .collect();
    givers.sort_by_key(|(_, reason, _)| *reason);
    let mut orders = Vec::new();
    for (at, reason, want) in givers {
        let of = places[at].of;
        let most = part(of.gateway, Side::Gives, most_given(of, limits));
        let to = allot((want.ceil() as u64).min(most), reason, of.gateway, &mut places);
        if !to.is_empty() {
            let why = explain(of, reason, places[at].share, &to);
            orders.push(Order { from: of.gateway, reason, to, why });
        }
    }
    orders
}

fn is_uneven(places: &[Place<'_>], already: bool) -> bool {
    let live = || places.iter().filter(|place| place.of.role != Role::Emptied);
    if already {
        return live().any(|place| place.surplus() > surplus_left(place.share));
    }
    let least = |part: f64| part.max(START_SESSIONS);
    let firm = || live().filter(|place| place.of.gauge.firm);
    firm().any(|place| place.surplus() > least((START - 1.0) * place.share))
        || firm().any(|place| place.takes() && place.lacks() > least((1.0 - 1.0 / START) * place.share))
}

/// A giver is not made to give more when it has no more than this above its share.
fn surplus_left(share: f64) -> f64 {
    ((STOP - 1.0) * share).max(STOP_SESSIONS)
}

/// Why a gateway gives sessions, and how many it would.
fn gives(place: &Place<'_>, places: &[Place<'_>], balancing: bool) -> Option<(Reason, f64)> {
    let Gateway { role, capacity, gauge, .. } = *place.of;
    let other = |fits: &dyn Fn(&Place<'_>) -> bool| {
        places.iter().any(|other| other.of.gateway != place.of.gateway && other.takes() && fits(other))
    };
    if role == Role::Emptied {
        return Some((Reason::Drain, gauge.high));
    }
    if gauge.low >= NEAR * capacity && other(&|other| other.room() > 0.0) {
        return Some((Reason::Full, STEP * (gauge.low - NEAR_STOP * capacity)));
    }
    if gauge.hot && gauge.low > HOT_STOP * place.share && other(&|other| other.cool() && other.room() > 0.0) {
        return Some((Reason::Hot, STEP * (gauge.low - HOT_STOP * place.share)));
    }
    (balancing && place.surplus() > surplus_left(place.share))
        .then(|| (Reason::Uneven, STEP * place.surplus()))
}

/// The most that a gateway gives in a round.
fn most_given(of: &Gateway, limits: Limits) -> u64 {
    let most = limits.per_second * ROUND_MS / 1_000;
    if of.role == Role::Emptied {
        return most;
    }
    let percent = (limits.percent_per_second * ROUND_MS) as f64 / 1_000.0;
    most.min(FEW.max((of.gauge.low * percent / 100.0) as u64))
}

/// Spreads sessions over those that take them, in proportion to what each lacks or has room for.
fn allot(want: u64, reason: Reason, from: GatewayId, places: &mut [Place<'_>]) -> Vec<(GatewayId, u64)> {
    let takes = |place: &Place<'_>| {
        place.of.gateway != from && place.takes() && (reason != Reason::Hot || place.cool())
    };
    let free = |place: &Place<'_>, by_share: bool| {
        let most = if by_share { place.lacks() } else { place.room() };
        if takes(place) { most.min(place.may_take - place.taken).max(0.0).floor() } else { 0.0 }
    };
    let lacking: f64 = places.iter().map(|place| free(place, true)).sum();
    let by_share = reason == Reason::Uneven || (reason == Reason::Drain && lacking >= want as f64);
    let rooms: Vec<f64> = places.iter().map(|place| free(place, by_share)).collect();
    let all: f64 = rooms.iter().sum();
    let want = (want as f64).min(all);
    let mut counts: Vec<f64> = rooms.iter().map(|room| (want * room / all.max(1.0)).floor()).collect();
    let mut left = want - counts.iter().sum::<f64>();
    for (count, room) in counts.iter_mut().zip(&rooms) {
        let more = left.min(room - *count).clamp(0.0, 1.0);
        *count += more;
        left -= more;
    }
    let mut to = Vec::new();
    for (place, count) in places.iter_mut().zip(counts).filter(|(_, count)| *count >= 1.0) {
        place.taken += count;
        to.push((place.of.gateway, count as u64));
    }
    to
}

fn explain(of: &Gateway, reason: Reason, share: f64, to: &[(GatewayId, u64)]) -> String {
    let name = |gateway: GatewayId| gateway.to_string()[..8].to_owned();
    let to: Vec<String> =
        to.iter().map(|(gateway, count)| format!("{count} to {}", name(*gateway))).collect();
    let (gauge, from) = (of.gauge, name(of.gateway));
    let why = match reason {
        Reason::Drain => format!("{from} is emptied and has {:.0}", gauge.high),
        Reason::Full => format!("{from} has {:.0} of {:.0}", gauge.low, of.capacity),
        Reason::Hot => {
            format!(
                "{from} is at {:.0}% CPU for long, with {:.0}",
                100.0 * gauge.cpu.unwrap_or(1.0),
                gauge.low
            )
        }
        Reason::Uneven => format!("{from} has {:.0} where {share:.0} are its share", gauge.low),
    };
    format!("{why}: {}", to.join(", "))
}

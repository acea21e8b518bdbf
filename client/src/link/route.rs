//! What to try next on the way to a gateway. Pure: time and randomness are arguments.
//!
//! A *round* is one attempt to get a session: it asks balancers, dials what they name, asks again without
//! those that failed, and then dials what is known from before, in random order. It ends by
//! [`Route::up`] or [`Step::Over`]; whoever walks the route pauses between rounds.
//!
//! - A gateway that failed is *away* for a while: balancers are told, and it is dialled only if nobody
//!   else is left.
//! - A ticket is used once, and not after its time.
//!
//! Invariant: a round has at most [`MAX_DIALS`] dials, [`MAX_ASKS`] answers, and one silence of each
//! balancer.

use super::{
    servers::{Pick, Servers},
    url::{AssignUrl, ServerUrl},
};
use fastchat_protocol::Bytes;
use rand::{Rng, RngExt, seq::SliceRandom};
use std::{collections::VecDeque, time::Duration};

/// Limit: gateways that are remembered, besides those that were typed.
pub const MAX_KNOWN: usize = 32;
/// Limit: answers of balancers in a round.
pub const MAX_ASKS: u32 = 3;
/// Limit: dials in a round.
pub const MAX_DIALS: u32 = 8;
/// Limit: gateways that an ask excludes; balancers take no more.
pub const MAX_EXCLUDED: usize = 16;
/// A gateway that could not be reached so often in a row is forgotten, until it is named again.
const MAX_MISSES: u8 = 3;
/// Who takes turns asks this often which gateways there are; tickets last longer.
const REFRESH: Duration = Duration::from_secs(30);

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask this balancer; then [`Route::answered`] or [`Route::unanswered`].
    Ask {
        /// Whom.
        balancer: AssignUrl,
        /// Gateways that it should not name.
        exclude: Vec<String>,
    },
    /// Dial this gateway; then [`Route::up`] or [`Route::failed`].
    Dial(Target),
    /// Nobody is left in this round.
    Over,
}

/// A gateway, and what lets the client in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where.
    pub url: ServerUrl,
    /// The balancer's ticket.
    pub ticket: Option<Bytes>,
}

/// A gateway that a balancer has named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Where.
    pub url: ServerUrl,
    /// Its ticket, and until when it is good.
    pub ticket: Option<(Bytes, Duration)>,
}

/// Why a gateway gave no session, or ended one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be reached, or does not speak as it should.
    Unreachable,
    /// The session was there, and broke.
    Lost,
    /// It has as many connections as it takes.
    Full,
    /// It goes away.
    Draining,
    /// It admits only whom a balancer sent.
    NoTicket,
    /// It is not this account's: another deployment, version or host.
    Wrong,
    /// Nothing that another gateway would do better.
    Ours,
}

impl Fault {
    /// For how long others are preferred.
    fn away(self) -> Duration {
        Duration::from_secs(match self {
            Self::Ours => 0,
            Self::Lost => 10,
            Self::Full => 15,
            Self::Unreachable | Self::NoTicket => 30,
            Self::Draining => 60,
            Self::Wrong => 600,
        })
    }
}

#[derive(Debug)]
struct Known {
    url: ServerUrl,
    ticket: Option<(Bytes, Duration)>,
    away: Option<Duration>,
    misses: u8,
    typed: bool,
}

impl Known {
    fn new(url: ServerUrl, typed: bool) -> Self {
        Self { url, ticket: None, away: None, misses: 0, typed }
    }

    fn is_away(&self, now: Duration) -> bool {
        self.away.is_some_and(|until| until > now)
    }
}

#[derive(Debug, Default)]
struct Round {
    answers: u32,
    dials: u32,
    /// Balancers that did not answer, or named nobody new.
    mute: Vec<AssignUrl>,
    /// Named by the last answer, best first.
    queue: VecDeque<ServerUrl>,
    tried: Vec<ServerUrl>,
    /// Known from before; drawn when it is needed.
    rest: Option<VecDeque<ServerUrl>>,
    with_ticket: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Route {
    balancers: Vec<AssignUrl>,
    pick: Pick,
    /// Named last, first.
    known: Vec<Known>,
    /// Whose turn was last.
    last: Option<ServerUrl>,
    answered: Option<Duration>,
    round: Round,
}

impl Route {
    /// The way to a deployment. `known` are gateways from earlier runs, `last` whose turn was last.
    pub fn new(servers: &Servers, pick: Pick, known: Vec<ServerUrl>, last: Option<ServerUrl>) -> Self {
        let mut route = Self {
            balancers: servers.balancers().cloned().collect(),
            pick,
            known: servers.gateways().map(|url| Known::new(url.clone(), true)).collect(),
            last,
            answered: None,
            round: Round::default(),
        };
        for url in known.into_iter().take(MAX_KNOWN) {
            if route.find(&url).is_none() {
                route.known.push(Known::new(url, false));
            }
        }
        route
    }

    /// Begins a round.
    pub fn begin(&mut self) {
        self.round = Round::default();
    }

    /// Leaves a gateway out of this round.
    pub fn skip(&mut self, url: &ServerUrl) {
        self.round.tried.push(url.clone());
    }

    /// What to do next.
    pub fn next(&mut self, now: Duration, rng: &mut impl Rng) -> Step {
        if self.round.dials >= MAX_DIALS {
            return Step::Over;
        }
        match self.pick {
            Pick::Assign => self.next_assigned(now, rng),
            Pick::RoundRobin => self.next_turn(now, rng),
        }
    }

    /// Whether this round has something left to try. It may still turn out to be in vain.
    pub fn has_more(&self) -> bool {
        let round = &self.round;
        let rest = || self.known.iter().any(|known| !round.tried.contains(&known.url));
        round.dials < MAX_DIALS && (!round.queue.is_empty() || self.may_ask() || rest())
    }

    /// A balancer has named these, best first.
    pub fn answered(&mut self, balancer: &AssignUrl, named: Vec<Named>, now: Duration) {
        self.round.answers += 1;
        self.answered = Some(now);
        let mut queue: Vec<ServerUrl> = Vec::new();
        for Named { url, ticket } in named.into_iter().take(MAX_KNOWN).rev() {
            let mut known = match self.known.iter().position(|known| known.url == url) {
                Some(at) => self.known.remove(at),
                None => Known::new(url.clone(), false),
            };
            known.ticket = ticket;
            self.known.insert(0, known);
            queue.retain(|other| *other != url);
            queue.insert(0, url);
        }
        self.forget_old();
        queue.retain(|url| !self.round.tried.contains(url));
        if queue.is_empty() {
            // The same question would get the same answer.
            self.round.mute.push(balancer.clone());
        }
        queue.sort_by_key(|url| self.find(url).is_some_and(|known| known.is_away(now)));
        self.round.queue = queue.into();
    }

    /// A balancer did not answer, or named nobody.
    pub fn unanswered(&mut self, balancer: &AssignUrl) {
        self.round.mute.push(balancer.clone());
    }

    /// There is a session with this gateway: the round is over.
    pub fn up(&mut self, url: &ServerUrl) {
        self.begin();
        self.last = Some(url.clone());
        match self.known.iter_mut().find(|known| known.url == *url) {
            Some(known) => (known.away, known.misses) = (None, 0),
            None => self.known.insert(0, Known::new(url.clone(), false)),
        }
        self.forget_old();
    }

    /// This gateway gave no session, or ended it.
    pub fn failed(&mut self, url: &ServerUrl, fault: Fault, now: Duration) {
        let without = fault == Fault::NoTicket && !self.round.with_ticket && !self.balancers.is_empty();
        if without {
            // With a ticket it may be another matter: somebody is asked for one.
            self.answered = None;
            self.round.queue.clear();
            self.round.tried.retain(|tried| tried != url);
            return;
        }
        let Some(known) = self.known.iter_mut().find(|known| known.url == *url) else { return };
        if fault != Fault::Ours {
            known.away = Some(now + fault.away());
        }
        if fault == Fault::Unreachable {
            known.misses = known.misses.saturating_add(1);
        }
        self.known.retain(|known| known.typed || known.misses < MAX_MISSES);
    }

    /// Gateways that are known, to be kept for the next run.
    pub fn known(&self) -> Vec<ServerUrl> {
        let mut known: Vec<ServerUrl> = self.known.iter().map(|known| known.url.clone()).collect();
        known.sort();
        known
    }

    /// Whose turn was last.
    pub fn last(&self) -> Option<&ServerUrl> {
        self.last.as_ref()
    }

    /// Whether there may be another gateway than this one.
    pub fn has_others(&self, than: &ServerUrl) -> bool {
        !self.balancers.is_empty() || self.known.iter().any(|known| known.url != *than)
    }

    fn next_assigned(&mut self, now: Duration, rng: &mut impl Rng) -> Step {
        while let Some(url) = self.round.queue.pop_front() {
            let stale = |known: &Known| known.ticket.as_ref().is_some_and(|(_, until)| *until <= now);
            if self.find(&url).is_none_or(stale) {
                // The other tickets of the answer are as old.
                self.round.queue.clear();
            } else if !self.round.tried.contains(&url) {
                return self.dial(url, now);
            }
        }
        match self.ask(now, rng) {
            Some(step) => step,
            None => self.next_rest(now, rng),
        }
    }

    /// One after the other: the next in the order of addresses.
    fn next_turn(&mut self, now: Duration, rng: &mut impl Rng) -> Step {
        let fresh = self.answered.is_some_and(|at| now.saturating_sub(at) < REFRESH);
        if !fresh && let Some(step) = self.ask(now, rng) {
            return step;
        }
        let left = || self.known.iter().filter(|known| !self.round.tried.contains(&known.url));
        let mut ring: Vec<&ServerUrl> =
            left().filter(|known| !known.is_away(now)).map(|known| &known.url).collect();
        if ring.is_empty() {
            ring = left().map(|known| &known.url).collect();
        }
        if ring.is_empty() {
            return Step::Over;
        }
        ring.sort();
        let at = match &self.last {
            Some(last) => ring.iter().position(|url| *url > last).unwrap_or(0),
            // Not everybody begins with the same.
            None => rng.random_range(0..ring.len()),
        };
        let url = ring[at].clone();
        self.last = Some(url.clone());
        self.dial(url, now)
    }

    fn next_rest(&mut self, now: Duration, rng: &mut impl Rng) -> Step {
        if self.round.rest.is_none() {
            let mut rest: Vec<&Known> = self.known.iter().collect();
            rest.shuffle(rng);
            rest.sort_by_key(|known| known.away.filter(|_| known.is_away(now)));
            self.round.rest = Some(rest.into_iter().map(|known| known.url.clone()).collect());
        }
        while let Some(url) = self.round.rest.as_mut().and_then(VecDeque::pop_front) {
            if !self.round.tried.contains(&url) && self.find(&url).is_some() {
                return self.dial(url, now);
            }
        }
        Step::Over
    }

    fn dial(&mut self, url: ServerUrl, now: Duration) -> Step {
        self.round.dials += 1;
        self.round.tried.push(url.clone());
        let known = self.known.iter_mut().find(|known| known.url == url);
        let ticket = known.and_then(|known| known.ticket.take()).filter(|(_, until)| *until > now);
        self.round.with_ticket = ticket.is_some();
        Step::Dial(Target { url, ticket: ticket.map(|(ticket, _)| ticket) })
    }

    fn may_ask(&self) -> bool {
        self.round.answers < MAX_ASKS && self.balancers.iter().any(|b| !self.round.mute.contains(b))
    }

    fn ask(&self, now: Duration, rng: &mut impl Rng) -> Option<Step> {
        if self.round.answers >= MAX_ASKS {
            return None;
        }
        let left: Vec<&AssignUrl> = self.balancers.iter().filter(|b| !self.round.mute.contains(b)).collect();
        let balancer = (*left.get(rng.random_range(0..left.len().max(1)))?).clone();
        let away = self.known.iter().filter(|known| known.is_away(now)).map(|known| &known.url);
        let mut exclude: Vec<String> = Vec::new();
        // What failed in this round matters more than what failed before.
        for url in self.round.tried.iter().rev().chain(away).map(ToString::to_string) {
            if exclude.len() < MAX_EXCLUDED && !exclude.contains(&url) {
                exclude.push(url);
            }
        }
        Some(Step::Ask { balancer, exclude })
    }

    fn find(&self, url: &ServerUrl) -> Option<&Known> {
        self.known.iter().find(|known| known.url == *url)
    }

    fn forget_old(&mut self) {
        let mut room = MAX_KNOWN;
        self.known.retain(|known| {
            let keep = known.typed || room > 0;
            room = room.saturating_sub(usize::from(!known.typed));
            keep
        });
    }
}

#[cfg(test)]
mod tests;

//! Which balancer asks gateways to move sessions: of those that were heard lately and would, the one with
//! the lowest id. Pure.
//!
//! No consensus: if balancers cannot hear each other, two may ask, each of the gateways that it hears. The
//! mover goes half of the way at most, so that two at once overshoot by nothing.

use crate::moment::Moment;
use fastchat_protocol::{BalancerId, fleet::Balancer};
use std::collections::BTreeMap;

/// Between two announcements, in milliseconds.
pub const ANNOUNCE_MS: u64 = 1_000;
/// One that was silent for so long, in milliseconds, is gone.
const SILENCE_MS: u64 = 3_500;
/// Limit: balancers that are remembered.
const MAX_PEERS: usize = 64;

/// The other balancers, as far as they were heard.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    heard: BTreeMap<BalancerId, (Moment, bool)>,
    /// Since when the bus is there.
    listening: Option<Moment>,
}

impl Peers {
    /// Another one announced itself; or this one, which changes nothing.
    pub fn on_announcement(&mut self, said: &Balancer, now: Moment) {
        self.heard.retain(|_, (at, _)| now.since(*at) <= SILENCE_MS);
        if self.heard.contains_key(&said.balancer) || self.heard.len() < MAX_PEERS {
            self.heard.insert(said.balancer, (now, said.moves));
        }
    }

    /// The bus is there, or gone.
    pub fn on_bus(&mut self, up: bool, now: Moment) {
        self.listening = up.then_some(self.listening.unwrap_or(now));
    }

    /// Whether `own` is the one that asks. Not before the others had the time to be heard.
    pub fn leads(&self, own: BalancerId, now: Moment) -> bool {
        let lower = |(id, (at, moves)): (&BalancerId, &(Moment, bool))| {
            *id < own && *moves && now.since(*at) <= SILENCE_MS
        };
        let listened = self.listening.is_some_and(|since| now.since(since) > SILENCE_MS);
        listened && !self.heard.iter().any(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> BalancerId {
        BalancerId::new([n; 16])
    }

    #[test]
    fn the_lowest_that_was_heard_lately_and_would_is_the_one() {
        let says = |n, moves| Balancer { balancer: id(n), moves };
        let mut peers = Peers::default();
        assert!(!peers.leads(id(5), Moment(10_000)), "there is no bus");
        peers.on_bus(true, Moment(10_000));
        assert!(!peers.leads(id(5), Moment(13_000)), "others may not have been heard yet");
        assert!(peers.leads(id(5), Moment(14_000)));
        peers.on_announcement(&says(7, true), Moment(14_000));
        peers.on_announcement(&says(5, true), Moment(14_000));
        peers.on_announcement(&says(2, false), Moment(14_000));
        assert!(peers.leads(id(5), Moment(14_000)), "one is higher, one is itself, one would not");
        peers.on_announcement(&says(2, true), Moment(15_000));
        assert!(!peers.leads(id(5), Moment(18_000)));
        assert!(peers.leads(id(5), Moment(18_501)), "it fell silent");
        peers.on_bus(false, Moment(19_000));
        assert!(!peers.leads(id(5), Moment(30_000)));
    }

    #[test]
    fn inventions_are_bounded() {
        let mut peers = Peers::default();
        for n in 0..1_000_u128 {
            let balancer = BalancerId::new(n.to_be_bytes());
            peers.on_announcement(&Balancer { balancer, moves: true }, Moment(0));
        }
        assert_eq!(peers.heard.len(), MAX_PEERS);
    }
}

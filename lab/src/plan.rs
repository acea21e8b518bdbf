//! Who writes to whom: clients, conversations, and the lanes that messages take.
//!
//! A *lane* is one sender in one conversation. Messages take the lanes in turn, or by a seeded draw, and
//! are numbered within their lane: what a receiver is held to is the order within a lane, which every
//! target keeps.

use anyhow::{Result, ensure};
use clap::ValueEnum;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Limit: conversations of one run. `any` makes one for each two clients.
const MAX_CONVERSATIONS: usize = 50_000;

/// Who writes to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// Clients 2n and 2n+1 write to each other.
    Pairs,
    /// The left half writes to the right half, each to one.
    Halves,
    /// Each writes to the next one, the last to the first.
    Ring,
    /// Each writes to all others, by a draw.
    Any,
    /// All are in one group; the first `senders` of it write.
    Group,
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As it is typed.
        f.write_str(self.to_possible_value().expect("none is left out").get_name())
    }
}

/// One sender in one conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    /// A client.
    pub sender: usize,
    /// An index into [`Plan::conversations`].
    pub conversation: usize,
}

/// All clients of a run, with what they do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many there are.
    pub clients: usize,
    /// The clients in each; the first one founds it. Two make a direct conversation, unless `groups`.
    pub conversations: Vec<Vec<usize>>,
    /// Whether conversations are groups.
    pub groups: bool,
    /// What messages take.
    pub lanes: Vec<Lane>,
    /// Whether lanes are drawn, or taken in turn.
    drawn: bool,
}

impl Plan {
    /// Makes the plan of a pattern. `senders` counts for groups alone.
    pub fn new(pattern: Pattern, clients: usize, senders: usize) -> Result<Self> {
        ensure!(clients > 0, "a run needs a client");
        let pair = |one: usize, other: usize| vec![one, other];
        let both = |index: usize| [0, 1].map(|side| (side, index));
        let (conversations, lanes): (Vec<Vec<usize>>, Vec<(usize, usize)>) = match pattern {
            // Alone, one writes to oneself, whatever the pattern: acknowledged, delivered to nobody.
            _ if clients == 1 => (vec![vec![0]], vec![(0, 0)]),
            Pattern::Pairs => {
                ensure!(clients.is_multiple_of(2), "pairs need an even number of clients, not {clients}");
                let count = clients / 2;
                let pairs = (0..count).map(|n| pair(2 * n, 2 * n + 1)).collect();
                (pairs, (0..count).flat_map(both).collect())
            }
            Pattern::Halves => {
                ensure!(clients.is_multiple_of(2), "halves need an even number of clients, not {clients}");
                let half = clients / 2;
                ((0..half).map(|n| pair(n, n + half)).collect(), (0..half).map(|n| (0, n)).collect())
            }
            Pattern::Ring if clients == 2 => (vec![pair(0, 1)], both(0).to_vec()),
            Pattern::Ring => {
                let next = (0..clients).map(|n| pair(n, (n + 1) % clients)).collect();
                (next, (0..clients).map(|n| (0, n)).collect())
            }
            Pattern::Any => {
                let pairs: Vec<Vec<usize>> =
                    (0..clients).flat_map(|one| (0..one).map(move |other| pair(other, one))).collect();
                let lanes = (0..pairs.len()).flat_map(both).collect();
                (pairs, lanes)
            }
            Pattern::Group => {
                ensure!((1..=clients).contains(&senders), "a group of {clients} has no {senders} senders");
                (vec![(0..clients).collect()], (0..senders).map(|sender| (sender, 0)).collect())
            }
        };
        let count = conversations.len();
        ensure!(count <= MAX_CONVERSATIONS, "{count} conversations are more than {MAX_CONVERSATIONS}");
        let lane = |(place, conversation): (usize, usize)| Lane {
            sender: conversations[conversation][place],
            conversation,
        };
        let lanes = lanes.into_iter().map(lane).collect();
        let (groups, drawn) = (pattern == Pattern::Group, pattern == Pattern::Any);
        Ok(Self { clients, conversations, groups, lanes, drawn })
    }

    /// Who receives what goes into a lane: everybody in its conversation but the sender.
    pub fn receivers(&self, lane: usize) -> impl Iterator<Item = usize> {
        let Lane { sender, conversation } = self.lanes[lane];
        self.conversations[conversation].iter().copied().filter(move |member| *member != sender)
    }

    /// For each client the lanes that it receives.
    pub fn received_lanes(&self) -> Vec<Vec<usize>> {
        let mut received = vec![Vec::new(); self.clients];
        for lane in 0..self.lanes.len() {
            self.receivers(lane).for_each(|client| received[client].push(lane));
        }
        received
    }

    /// The lanes of a run's messages, in order, without an end.
    pub fn turns(&self, seed: u64) -> impl Iterator<Item = usize> + Send + use<> {
        let (count, drawn) = (self.lanes.len(), self.drawn);
        let mut rng = StdRng::seed_from_u64(seed);
        (0..).map(move |turn: usize| if drawn { rng.random_range(0..count) } else { turn % count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pattern: Pattern, clients: usize) -> Plan {
        Plan::new(pattern, clients, 2.min(clients)).expect("a plan")
    }

    /// Sender and receivers of each lane.
    fn ways(plan: &Plan) -> Vec<(usize, Vec<usize>)> {
        let way = |(number, lane): (usize, &Lane)| (lane.sender, plan.receivers(number).collect());
        plan.lanes.iter().enumerate().map(way).collect()
    }

    #[test]
    fn patterns_are_what_they_say() {
        assert_eq!(ways(&plan(Pattern::Pairs, 4)), [(0, vec![1]), (1, vec![0]), (2, vec![3]), (3, vec![2])]);
        assert_eq!(ways(&plan(Pattern::Halves, 4)), [(0, vec![2]), (1, vec![3])]);
        assert_eq!(ways(&plan(Pattern::Ring, 3)), [(0, vec![1]), (1, vec![2]), (2, vec![0])]);
        assert_eq!(ways(&plan(Pattern::Ring, 2)), [(0, vec![1]), (1, vec![0])]);
        assert_eq!(ways(&plan(Pattern::Any, 3)).len(), 6);
        assert_eq!(ways(&plan(Pattern::Group, 3)), [(0, vec![1, 2]), (1, vec![0, 2])]);
        for pattern in [Pattern::Pairs, Pattern::Any, Pattern::Group] {
            assert_eq!(ways(&plan(pattern, 1)), [(0, vec![])], "{pattern}");
        }
    }

    #[test]
    fn nobody_is_in_the_same_conversation_twice() {
        for (pattern, clients) in [(Pattern::Ring, 2), (Pattern::Ring, 5), (Pattern::Any, 20)] {
            let mut pairs: Vec<Vec<usize>> = plan(pattern, clients).conversations;
            pairs.iter_mut().for_each(|pair| pair.sort_unstable());
            pairs.sort();
            let count = pairs.len();
            pairs.dedup();
            assert_eq!(pairs.len(), count, "{pattern}: a direct conversation is founded once for two");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(Plan::new(Pattern::Pairs, 3, 1).is_err());
        assert!(Plan::new(Pattern::Group, 3, 4).is_err());
        assert!(Plan::new(Pattern::Group, 0, 0).is_err());
        assert!(Plan::new(Pattern::Any, 1_000, 1).is_err());
    }

    #[test]
    fn lanes_are_taken_in_turn_or_drawn_from_the_seed() {
        let turns = |plan: &Plan, seed| plan.turns(seed).take(50).collect::<Vec<_>>();
        assert_eq!(turns(&plan(Pattern::Pairs, 4), 1)[..6], [0, 1, 2, 3, 0, 1]);
        let any = plan(Pattern::Any, 10);
        assert_eq!(turns(&any, 1), turns(&any, 1));
        assert_ne!(turns(&any, 1), turns(&any, 2));
    }
}

//! Who writes to whom: clients, conversations, and the lanes that messages take.
//!
//! A *lane* is one sender in one conversation. Messages take lanes by a seeded draw (people
//! do not write in turn: who always wrote right after the other would meet in each commit), and are numbered within their lane: what a receiver is held to is the order within a lane, which every
//! target keeps.

mod mixed;

use crate::figures::Experiment;
use anyhow::{Result, ensure};
use clap::ValueEnum;
use rand::{
    RngExt, SeedableRng,
    distr::{Distribution, weighted::WeightedIndex},
    rngs::StdRng,
};
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

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
    /// Each writes to all others.
    Any,
    /// All are in one group; the first `senders` of it write.
    Group,
    /// A day in the life: pairs and groups of several sizes, few of which say much.
    Mixed,
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
    /// Whether all conversations are groups, small ones too.
    groups: bool,
    /// What messages take. Where files are sent, each lane has a second one for them after all others.
    pub lanes: Vec<Lane>,
    /// How much each is used; all alike, if none.
    weights: Option<WeightedIndex<f64>>,
    /// The share of messages that bring a file.
    files: f64,
    /// What clients do besides.
    pub habits: Habits,
}

/// What clients do besides writing and reading.
#[derive(Debug, Clone, Copy, Default)]
pub struct Habits {
    /// Each loses its connection and comes back after so long, on average.
    pub reconnect_every: Option<Duration>,
    /// They tell others what they have read.
    pub receipts: bool,
    /// For their draws.
    pub seed: u64,
}

impl Plan {
    /// Makes an experiment's plan.
    pub fn of(experiment: &Experiment) -> Result<Self> {
        let Experiment { pattern, clients, senders, load, .. } = experiment;
        ensure!((0.0..=1.0).contains(&load.files), "a share of files is from 0 to 1, not {}", load.files);
        ensure!(load.reconnects >= 0.0, "reconnects are so many a second, not {}", load.reconnects);
        let whole = load.files == 0.0 || load.files == 1.0;
        ensure!(whole || load.window.is_none(), "a closed loop has files alone, or none");
        let mut plan = Self::new(*pattern, *clients, *senders)?;
        if load.files > 0.0 {
            plan.files = load.files;
            plan.lanes.extend_from_within(..);
        }
        let mean = *clients as f64 / load.reconnects;
        let reconnect_every = (load.reconnects > 0.0).then(|| Duration::from_secs_f64(mean));
        plan.habits = Habits { reconnect_every, receipts: *pattern == Pattern::Mixed, seed: load.seed };
        Ok(plan)
    }

    /// Makes the plan of a pattern. `senders` counts for groups alone.
    pub fn new(pattern: Pattern, clients: usize, senders: usize) -> Result<Self> {
        ensure!(clients > 0, "a run needs a client");
        let pair = |one: usize, other: usize| vec![one, other];
        let both = |index: usize| [0, 1].map(|side| (side, index));
        let mut weights = None;
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
            Pattern::Mixed => {
                let (conversations, lanes, uses) = mixed::mixed(clients);
                weights = Some(WeightedIndex::new(uses)?);
                (conversations, lanes)
            }
        };
        let count = conversations.len();
        ensure!(count <= MAX_CONVERSATIONS, "{count} conversations are more than {MAX_CONVERSATIONS}");
        let lane = |(place, conversation): (usize, usize)| Lane {
            sender: conversations[conversation][place],
            conversation,
        };
        let lanes = lanes.into_iter().map(lane).collect();
        let (groups, files, habits) = (pattern == Pattern::Group, 0.0, Habits::default());
        Ok(Self { clients, conversations, groups, lanes, weights, files, habits })
    }

    /// Clients who have nothing to do with each other.
    pub fn strangers(clients: usize) -> Self {
        let (conversations, lanes) = (Vec::new(), Vec::new());
        let (groups, weights, files, habits) = (false, None, 0.0, Habits::default());
        Self { clients, conversations, groups, lanes, weights, files, habits }
    }

    /// Whether a conversation is a group, or direct.
    pub fn is_group(&self, conversation: usize) -> bool {
        self.groups || self.conversations[conversation].len() > 2
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

    /// Lanes from here on are those of files.
    pub fn first_of_files(&self) -> usize {
        if self.files > 0.0 { self.lanes.len() / 2 } else { self.lanes.len() }
    }

    /// The lanes of a closed loop.
    pub fn looped(&self) -> std::ops::Range<usize> {
        let first_of_files = self.first_of_files();
        if self.files > 0.0 { first_of_files..self.lanes.len() } else { 0..first_of_files }
    }

    /// The lanes of a run's messages, in order, without an end.
    pub fn turns(&self, seed: u64) -> impl Iterator<Item = usize> + Send + use<> {
        let (count, weights, files) = (self.first_of_files(), self.weights.clone(), self.files);
        let mut rng = StdRng::seed_from_u64(seed);
        std::iter::repeat_with(move || {
            let lane = match &weights {
                None => rng.random_range(0..count),
                Some(weights) => weights.sample(&mut rng),
            };
            let file = files > 0.0 && rng.random::<f64>() < files;
            if file { lane + count } else { lane }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::Load;

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
        for (pattern, clients) in
            [(Pattern::Ring, 2), (Pattern::Ring, 5), (Pattern::Any, 20), (Pattern::Mixed, 60)]
        {
            let mut pairs: Vec<Vec<usize>> = plan(pattern, clients).conversations;
            pairs.retain(|members| members.len() == 2);
            pairs.iter_mut().for_each(|pair| pair.sort_unstable());
            pairs.sort();
            let count = pairs.len();
            pairs.dedup();
            assert_eq!(pairs.len(), count, "{pattern}: a direct conversation is founded once for two");
        }
    }

    #[test]
    fn a_mixture_has_groups_of_several_sizes_and_few_who_say_much() {
        let plan = plan(Pattern::Mixed, 200);
        for size in [2, 3, 8, 20, 50] {
            assert!(plan.conversations.iter().any(|members| members.len() == size), "{size}");
        }
        let mut said = vec![0; plan.clients];
        plan.turns(1).take(1_000).for_each(|lane| said[plan.lanes[lane].sender] += 1);
        let silent = said.iter().filter(|count| **count == 0).count();
        said.sort_unstable();
        let loud: u32 = said.iter().rev().take(20).sum();
        assert!(silent > 20 && loud > 350, "{silent} of 200 said nothing, 20 said {loud} of 1,000");
    }

    #[test]
    fn files_have_lanes_of_their_own() {
        let load = Load { files: 0.25, ..Load::default() };
        let experiment = Experiment { clients: 4, load, ..Experiment::default() };
        let plan = Plan::of(&experiment).expect("a plan");
        assert_eq!((plan.lanes.len(), plan.first_of_files()), (8, 4));
        assert_eq!(plan.lanes[1], plan.lanes[5]);
        let files = plan.turns(1).take(4_000).filter(|lane| *lane >= 4).count();
        assert!((850..1_150).contains(&files), "{files} of 4,000");
        let whole = Load { files: 1.0, ..experiment.load };
        let plan = Plan::of(&Experiment { load: whole, ..experiment }).expect("a plan");
        assert!(plan.turns(1).take(100).all(|lane| lane >= 4) && plan.looped() == (4..8));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(Plan::new(Pattern::Pairs, 3, 1).is_err());
        assert!(Plan::new(Pattern::Group, 3, 4).is_err());
        assert!(Plan::new(Pattern::Group, 0, 0).is_err());
        assert!(Plan::new(Pattern::Any, 1_000, 1).is_err());
    }

    #[test]
    fn lanes_are_drawn_from_the_seed() {
        let turns = |plan: &Plan, seed| plan.turns(seed).take(50).collect::<Vec<_>>();
        let any = plan(Pattern::Any, 10);
        assert_eq!(turns(&any, 1), turns(&any, 1));
        assert_ne!(turns(&any, 1), turns(&any, 2));
    }
}

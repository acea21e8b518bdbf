//! A day in the life: most people are online and say little, some say much; pairs, and groups of several
//! sizes.

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::collections::BTreeSet;

/// Sizes of groups, and how many people one group of that size is made for.
const GROUPS: [(usize, usize); 4] = [(3, 10), (8, 25), (20, 100), (50, 250)];
/// The same people for every load.
const SEED: u64 = 1;

/// Conversations, lanes as place and conversation, and the weight of each lane.
pub(super) type Mixed = (Vec<Vec<usize>>, Vec<(usize, usize)>, Vec<f64>);

/// Of so many clients. The n-th conversation has a share of 1/n of what the first one has, and so have its
/// members among each other: as words, cities and people who write are.
pub(super) fn mixed(clients: usize) -> Mixed {
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut conversations = pairs(clients, &mut rng);
    for (size, people) in GROUPS.into_iter().filter(|(size, _)| *size <= clients) {
        for _ in 0..clients.div_ceil(people) {
            conversations.push(rand::seq::index::sample(&mut rng, clients, size).into_vec());
        }
    }
    conversations.shuffle(&mut rng);
    let (mut lanes, mut weights) = (Vec::new(), Vec::new());
    for (conversation, members) in conversations.iter().enumerate() {
        for place in 0..members.len() {
            lanes.push((place, conversation));
            weights.push(1.0 / ((conversation + 1) * (place + 1)) as f64);
        }
    }
    (conversations, lanes, weights)
}

/// Each client with one to three others, no two twice.
fn pairs(clients: usize, rng: &mut StdRng) -> Vec<Vec<usize>> {
    // Nobody draws for the first one: two at least are there.
    let mut pairs = BTreeSet::from([[0, 1]]);
    for one in 1..clients {
        for _ in 0..rng.random_range(1..=3) {
            let other = rng.random_range(0..clients);
            if other != one {
                pairs.insert([one.min(other), one.max(other)]);
            }
        }
    }
    pairs.into_iter().map(Vec::from).collect()
}

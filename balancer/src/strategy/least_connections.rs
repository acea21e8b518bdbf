//! The fewest connections by the last report, and nothing else: it herds when reports are old. Here
//! because people expect it, and because the simulator shows what it does.

use super::{Candidate, Pick, any_least};
use rand::Rng;

pub(super) fn choose(candidates: &[Candidate], rng: &mut impl Rng) -> Pick {
    Pick::alone(any_least(candidates, rng, |candidate| candidate.connections))
}

//! Any gateway, each with the same chance. Knows nothing, so nothing can mislead it.

use super::{Candidate, Hints, Pick, draw_two};
use rand::Rng;

pub(super) fn choose(candidates: &[Candidate], hints: Hints<'_>, rng: &mut impl Rng) -> Pick {
    Pick::alone(draw_two(candidates, hints, rng).0)
}

//! The least CPU by the last report. Herds as [`super::least_connections`] does.

use super::{Candidate, Pick, any_least};
use rand::Rng;

pub(super) fn choose(candidates: &[Candidate], rng: &mut impl Rng) -> Pick {
    Pick::alone(any_least(candidates, rng, |candidate| candidate.cpu))
}

//! One after the other, in the order of ids. Goes on after the last choice even if that gateway left.

use super::{Candidate, Hints, Pick};

pub(super) fn choose(candidates: &[Candidate], hints: Hints<'_>) -> Pick {
    let places = || candidates.iter().enumerate().map(|(at, candidate)| (candidate.gateway, at));
    let after = hints.last.and_then(|last| places().filter(|(gateway, _)| *gateway > last).min());
    Pick::alone(after.or_else(|| places().min()).map_or(0, |(_, at)| at))
}

//! The power of two choices: draw two, take the one that should have more room.
//!
//! - Best of two of a stale table spreads where best of all herds (M. Mitzenmacher, "How useful is old
//!   information?", TPDS 2000).
//! - The balancer's own assignments since the report count as connections, so that it sees what it did.
//! - Whatever a gateway reports, it is drawn with share 2/G and cannot get more.

use super::{Candidate, Hints, Pick, draw_two};
use rand::Rng;

pub(super) fn choose(candidates: &[Candidate], hints: Hints<'_>, rng: &mut impl Rng) -> Pick {
    let (one, other) = draw_two(candidates, hints, rng);
    if one == other {
        return Pick::alone(one);
    }
    let better = candidates[other].expected() < candidates[one].expected();
    let (chosen, against) = if better { (other, one) } else { (one, other) };
    Pick { chosen, against: Some(against) }
}

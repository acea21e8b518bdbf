//! By chance, in inverse proportion to load: weight = capacity / (0.1 + utilisation).
//!
//! No gateway gets more than twice the even share, so that a report of nothing at all does not draw
//! everybody (M. Dahlin, "Interpreting stale load information", TPDS 2000, says why the most attractive
//! server must not be followed too eagerly).

use super::{Candidate, Pick};
use rand::{Rng, RngExt};

/// An empty gateway weighs eleven times a full one, not infinitely more.
const FLOOR: f64 = 0.1;
/// Limit: share of one gateway, as a multiple of the even one.
const MOST: f64 = 2.0;

pub(super) fn choose(candidates: &[Candidate], rng: &mut impl Rng) -> Pick {
    let shares = shares(candidates);
    let mut left: f64 = rng.random_range(0.0..1.0);
    for (at, share) in shares.iter().enumerate() {
        left -= share;
        if left < 0.0 {
            return Pick::alone(at);
        }
    }
    // Rounding: the shares are a hair less than 1.
    Pick::alone(candidates.len() - 1)
}

/// Each candidate's share. They sum to 1.
pub(super) fn shares(candidates: &[Candidate]) -> Vec<f64> {
    let weight = |candidate: &Candidate| candidate.capacity / (FLOOR + candidate.reported());
    let mut shares: Vec<f64> = candidates.iter().map(weight).collect();
    let most = (MOST / candidates.len() as f64).min(1.0);
    // What is above the limit is cut, the others share the rest by weight; that can lift another one
    // above the limit, at most once for each.
    let mut cut = vec![false; shares.len()];
    for _ in 0..=candidates.len() {
        let fixed = cut.iter().filter(|cut| **cut).count() as f64 * most;
        let open: f64 = shares.iter().zip(&cut).filter(|(_, cut)| !**cut).map(|(share, _)| share).sum();
        let scale = (1.0 - fixed) / open;
        let mut again = false;
        for (share, cut) in shares.iter_mut().zip(&mut cut).filter(|(_, cut)| !**cut) {
            *share *= scale;
            if *share > most {
                (*share, *cut, again) = (most, true, true);
            }
        }
        if !again {
            break;
        }
    }
    shares
}

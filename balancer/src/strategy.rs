//! How a gateway is chosen: pure functions of the candidates, the balancer's last choice, a key and
//! randomness. The service and the simulator run this same code.
//!
//! A *share* below is a share of assignments; G is the number of candidates.
//!
//! | strategy | definition | with old reports |
//! |---|---|---|
//! | `random` | each with share 1/G | even by number |
//! | `round-robin` | in the order of ids, after the last choice | even by number |
//! | `least-connections` | the least connections, of equals any | herds: all go to one until the next report |
//! | `min-load` | the least CPU, of equals any | herds |
//! | `weighted` | share in proportion to capacity / (0.1 + utilisation), at most 2/G | lags behind |
//! | `p2c` | two at random; the one with less (connections + own assignments) / capacity | even by load |

mod least_connections;
mod min_load;
mod p2c;
mod random;
mod round_robin;
mod weighted;

use fastchat_protocol::GatewayId;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};

/// A gateway that may be chosen, with its load. Unknown loads are filled in already.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Which.
    pub gateway: GatewayId,
    /// Connections by the last report.
    pub connections: f64,
    /// Most connections, at least 1.
    pub capacity: f64,
    /// CPU by the last report, 0 to 1.
    pub cpu: f64,
    /// Clients that this balancer sent there since that report.
    pub own: f64,
}

impl Candidate {
    /// Connections of capacity, by the report alone.
    pub fn reported(&self) -> f64 {
        self.connections / self.capacity
    }

    /// Connections of capacity, with the balancer's own assignments since the report.
    pub fn expected(&self) -> f64 {
        (self.connections + self.own) / self.capacity
    }
}

/// What a strategy may know besides the candidates.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints<'a> {
    /// The balancer's last choice.
    pub last: Option<GatewayId>,
    /// What the client calls itself: with `random` and `p2c`, equal keys meet the same draw as long as
    /// the candidates stay. Clients that come back then find the gateway that knows them already.
    pub key: Option<&'a [u8]>,
}

/// What was chosen, as places in the list of candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// The choice.
    pub chosen: usize,
    /// What it was compared with, if it was one.
    pub against: Option<usize>,
}

impl Pick {
    const fn alone(chosen: usize) -> Self {
        Self { chosen, against: None }
    }
}

/// The name of a strategy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Any.
    Random,
    /// One after the other.
    RoundRobin,
    /// The fewest connections by the last report.
    LeastConnections,
    /// The least CPU by the last report.
    MinLoad,
    /// By chance, in inverse proportion to load.
    Weighted,
    /// The better of two.
    #[default]
    P2c,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Random, Self::RoundRobin, Self::LeastConnections, Self::MinLoad, Self::Weighted, Self::P2c];

    /// The name.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
            Self::MinLoad => "min-load",
            Self::Weighted => "weighted",
            Self::P2c => "p2c",
        }
    }

    /// Chooses one; `None` only if there is no candidate.
    pub fn choose(self, candidates: &[Candidate], hints: Hints<'_>, rng: &mut impl Rng) -> Option<Pick> {
        if candidates.is_empty() {
            return None;
        }
        Some(match self {
            Self::Random => random::choose(candidates, hints, rng),
            Self::RoundRobin => round_robin::choose(candidates, hints),
            Self::LeastConnections => least_connections::choose(candidates, rng),
            Self::MinLoad => min_load::choose(candidates, rng),
            Self::Weighted => weighted::choose(candidates, rng),
            Self::P2c => p2c::choose(candidates, hints, rng),
        })
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// No strategy has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is random, round-robin, least-connections, min-load, weighted or p2c, not {0:?}")]
pub struct UnknownStrategy(String);

impl FromStr for Strategy {
    type Err = UnknownStrategy;

    fn from_str(text: &str) -> Result<Self, UnknownStrategy> {
        let found = Self::ALL.into_iter().find(|strategy| strategy.label() == text);
        found.ok_or_else(|| UnknownStrategy(text.to_owned()))
    }
}

/// Two different places, or the same twice if there is only one. By the key if there is one: the two
/// candidates with the highest hash of key and id (rendezvous), so that a gateway that comes or goes
/// moves only its own keys.
fn draw_two(candidates: &[Candidate], hints: Hints<'_>, rng: &mut impl Rng) -> (usize, usize) {
    let Some(key) = hints.key else {
        let first = rng.random_range(0..candidates.len());
        let step = if candidates.len() > 1 { rng.random_range(1..candidates.len()) } else { 0 };
        return (first, (first + step) % candidates.len());
    };
    let mut order: Vec<(u64, usize)> = candidates
        .iter()
        .enumerate()
        .map(|(at, candidate)| (rendezvous(key, candidate.gateway), at))
        .collect();
    order.sort_unstable_by(|one, other| other.cmp(one));
    let first = order.first().map_or(0, |(_, at)| *at);
    (first, order.get(1).map_or(first, |(_, at)| *at))
}

fn rendezvous(key: &[u8], gateway: GatewayId) -> u64 {
    let hash = Sha256::new().chain_update(gateway.as_bytes()).chain_update(key).finalize();
    hash.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Any of those with the least value.
fn any_least(candidates: &[Candidate], rng: &mut impl Rng, value: impl Fn(&Candidate) -> f64) -> usize {
    let least = candidates.iter().map(&value).min_by(f64::total_cmp).unwrap_or(0.0);
    let equals: Vec<usize> = (0..candidates.len()).filter(|at| value(&candidates[*at]) <= least).collect();
    if equals.is_empty() { 0 } else { equals[rng.random_range(0..equals.len())] }
}

#[cfg(test)]
mod tests;

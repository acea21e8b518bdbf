//! Which gateway each client connects to.

use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

/// So that two runs have the same people at the same gateways.
const SEED: u64 = 1;
const IN_TURN: &str = "in-turn";

/// How clients come to gateways.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Spread {
    /// As many to each, drawn: nobody chooses whom to write to by gateways. Of pairs, every second one is of
    /// two gateways where there are two.
    #[default]
    Drawn,
    /// The n-th to the n-th, and around. Both of a pair are never at one of two gateways, both ends of halves
    /// nearly always: the extremes.
    InTurn,
    /// As a balancer with this strategy says.
    Balanced(String),
}

impl Spread {
    /// From the word behind a fleet's gateways.
    pub fn named(word: Option<&str>) -> Self {
        match word {
            None => Self::Drawn,
            Some(IN_TURN) => Self::InTurn,
            Some(strategy) => Self::Balanced(strategy.to_owned()),
        }
    }

    /// The word, if it is not the usual way.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Drawn => None,
            Self::InTurn => Some(IN_TURN),
            Self::Balanced(strategy) => Some(strategy),
        }
    }

    /// For reports.
    pub(super) fn about(&self) -> String {
        match self {
            Self::Drawn => "drawn, as many at each gateway".to_owned(),
            Self::InTurn => "in turn: both of a pair never at one gateway".to_owned(),
            Self::Balanced(strategy) => format!("as the balancer says by {strategy}"),
        }
    }
}

/// The n-th to the n-th, and around.
pub(super) fn in_turn(gateways: &[String], clients: usize) -> Vec<String> {
    gateways.iter().cycle().take(clients).cloned().collect()
}

/// As many to each, drawn.
pub(super) fn drawn(gateways: &[String], clients: usize) -> Vec<String> {
    let mut addresses = in_turn(gateways, clients);
    addresses.shuffle(&mut StdRng::seed_from_u64(SEED));
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_get_as_many_each_and_split_half_of_all_pairs() {
        let gateways = ["a", "b"].map(str::to_owned);
        let addresses = drawn(&gateways, 200);
        assert_eq!(addresses.iter().filter(|address| **address == "a").count(), 100);
        let split = addresses.chunks(2).filter(|pair| pair[0] != pair[1]).count();
        assert!((40..=60).contains(&split), "{split} of 100 pairs");
        assert_eq!(addresses, drawn(&gateways, 200), "the same another time");
        assert!(in_turn(&gateways, 200).chunks(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn spreads_have_words() {
        for word in [None, Some("in-turn"), Some("p2c")] {
            assert_eq!(Spread::named(word).name(), word);
        }
        assert_eq!(Spread::named(Some("p2c")), Spread::Balanced("p2c".to_owned()));
    }
}

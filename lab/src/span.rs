//! A number, or a range that numbers are drawn from: `1000000`, `20000-200000`.

use anyhow::{Context, Error, Result, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span {
    least: u64,
    most: u64,
}

impl Span {
    /// From one to the other.
    pub fn new(least: u64, most: u64) -> Result<Self> {
        ensure!(0 < least && least <= most, "{least}-{most} is no range of sizes");
        Ok(Self { least, most })
    }

    /// One of them, the same for the same seed.
    pub fn draw(self, seed: u64) -> u64 {
        StdRng::seed_from_u64(seed).random_range(self.least..=self.most)
    }
}

impl FromStr for Span {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        let number = |of: &str| of.trim().parse().with_context(|| format!("{text} is no size, and no range"));
        Self::new(number(least)?, number(most)?)
    }
}

impl TryFrom<String> for Span {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.least == self.most {
            true => write!(f, "{}", self.least),
            false => write!(f, "{}-{}", self.least, self.most),
        }
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_what_they_say() {
        for text in ["7", "20000-200000"] {
            let span: Span = text.parse().expect(text);
            assert_eq!(span.to_string(), text);
            assert_eq!(span.draw(3), span.draw(3));
            assert!((0..100).all(|seed| (span.least..=span.most).contains(&span.draw(seed))));
        }
        for text in ["", "0", "5-4", "a", "1-b"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}

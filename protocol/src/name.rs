//! Account names: what people type to reach each other.

use crate::limits::MAX_NAME;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// 1 to 32 of `a-z 0-9 . _ -`, beginning with a letter and not ending in punctuation.
///
/// ASCII in lower case only, so that no two names look alike and none needs folding. Names are shown
/// and looked up; they are in no path, no subject and no metric.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountName(String);

/// Why a text cannot be an account name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or longer than the limit.
    #[error("a name has 1 to {MAX_NAME} characters")]
    Length,
    /// Something else than the alphabet.
    #[error("a name is made of a-z, 0-9, dot, underscore and hyphen, in lower case")]
    Alphabet,
    /// Starts with a digit or punctuation, or ends in punctuation.
    #[error("a name begins with a letter and ends in a letter or digit")]
    Ends,
}

impl AccountName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > MAX_NAME {
            return Err(NameError::Length);
        }
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
        if !text.bytes().all(allowed) {
            return Err(NameError::Alphabet);
        }
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
        let ends = text.ends_with(|c: char| c.is_ascii_alphanumeric());
        if begins && ends { Ok(Self(text.to_owned())) } else { Err(NameError::Ends) }
    }
}

impl TryFrom<String> for AccountName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<AccountName> for String {
    fn from(name: AccountName) -> Self {
        name.0
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_people_choose() {
        for name in ["a", "alice", "bob-2", "x.y_z", &"a".repeat(MAX_NAME)] {
            assert!(name.parse::<AccountName>().is_ok(), "{name}");
        }
    }

    #[test]
    fn hostile_names_are_refused_with_a_reason() {
        let long = "a".repeat(MAX_NAME + 1);
        let cases = [
            ("", NameError::Length),
            (long.as_str(), NameError::Length),
            ("Alice", NameError::Alphabet),
            ("al ice", NameError::Alphabet),
            ("alice\r\nPUB x", NameError::Alphabet),
            ("*", NameError::Alphabet),
            (">", NameError::Alphabet),
            ("fc.v1.user.>", NameError::Alphabet),
            ("../etc", NameError::Alphabet),
            ("a\0b", NameError::Alphabet),
            ("\u{202e}ecila", NameError::Alphabet),
            ("аlice", NameError::Alphabet), // a Cyrillic а
            ("'; drop table accounts", NameError::Alphabet),
            (".hidden", NameError::Ends),
            ("1st", NameError::Ends),
            ("alice-", NameError::Ends),
        ];
        for (name, reason) in cases {
            assert_eq!(name.parse::<AccountName>(), Err(reason), "{name:?}");
        }
    }
}

//! Reads the settings file: key by key, so that each fault names its key.

use super::{ConfigError, Settings};
use clap::{Args, Command};
use std::path::Path;
use toml::{Table, Value};

/// Of every variable.
const PREFIX: &str = "FASTCHAT_GATEWAY_";

impl Settings {
    /// Reads a settings file. What is wrong with single keys is kept in `faults`, which
    /// [`Settings::validate`] reports with everything else.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let wrong = |problem: String| ConfigError::new("config", format!("{}: {problem}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        Self::parse(&text).map_err(|e| wrong(e.to_string()))
    }

    /// Reads the text of a settings file; fails only if it is no TOML at all.
    pub(super) fn parse(text: &str) -> Result<Self, toml::de::Error> {
        let table: Table = toml::from_str(text)?;
        let known = keys();
        let (mut good, mut faults) = (Table::new(), Vec::new());
        for (key, value) in table {
            match fault(&key, &value, &known) {
                Some(problem) => faults.push(ConfigError::new(key, problem)),
                None => drop(good.insert(key, value)),
            }
        }
        let settings: Self = Value::Table(good).try_into()?;
        Ok(Self { faults, ..settings })
    }
}

impl Settings {
    /// Finds variables of the environment that were probably meant to be settings; nothing reads them.
    pub fn look_for_misnamed(&mut self, variables: impl Iterator<Item = String>) {
        let mut known = keys();
        known.push("config".to_owned());
        for variable in variables {
            let Some(name) = variable.strip_prefix(PREFIX).map(str::to_lowercase) else { continue };
            if let Some(meant) = nearest(&name, &known).filter(|meant| **meant != name) {
                let hint =
                    format!("nothing reads this variable; did you mean {PREFIX}{}?", meant.to_uppercase());
                self.faults.push(ConfigError::new(variable, hint));
            }
        }
    }
}

/// Every key: the flags with underscores.
fn keys() -> Vec<String> {
    let command = Settings::augment_args(Command::new("keys"));
    command.get_arguments().map(|flag| flag.get_id().as_str().to_owned()).collect()
}

fn fault(key: &str, value: &Value, known: &[String]) -> Option<String> {
    if !known.iter().any(|other| other == key) {
        let hint = match nearest(key, known) {
            Some(meant) => format!("did you mean {meant}?"),
            None => "fastchat-gateway --help lists the flags; keys have underscores for hyphens".to_owned(),
        };
        return Some(format!("there is no such key; {hint}"));
    }
    let alone: Table = [(key.to_owned(), value.clone())].into_iter().collect();
    let read: Result<Settings, _> = Value::Table(alone).try_into();
    read.err().map(|error| error.message().to_owned())
}

/// The name that was probably meant: it begins like that, or a third of its letters may be wrong.
pub(super) fn nearest<'a>(wrong: &str, names: &'a [String]) -> Option<&'a str> {
    let wrong = wrong.to_lowercase().replace('-', "_");
    if let Some(longer) = names.iter().find(|name| wrong.len() > 3 && name.starts_with(&wrong)) {
        return Some(longer);
    }
    let (distance, name) = names.iter().map(|name| (distance(&wrong, name), name)).min()?;
    (distance <= name.len() / 3).then_some(name)
}

/// Letters to insert, drop or replace, to make one word of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (place, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], place + 1);
        for (column, there) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *there);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_answered_by_the_one_that_was_meant() {
        let known = keys();
        for (wrong, meant) in [
            ("lisen", Some("listen")),
            ("max-connections", Some("max_connections")),
            ("MaxConnections", Some("max_connections")),
            ("tls_cert", Some("tls_certificate")),
            ("pepperfile", Some("pepper_file")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, &known), meant, "{wrong}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!((distance("", "abc"), distance("abc", "")), (3, 3));
    }
}

//! All that is wrong with the settings, at once: nobody likes to be told one thing at a time.

use super::ConfigError;
use std::fmt;

/// What is wrong, each with its key; one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if place > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

/// Gathers them.
#[derive(Debug, Default)]
pub(super) struct Faults(pub(super) Vec<ConfigError>);

impl Faults {
    /// The good value, or nothing and one fault more.
    pub(super) fn keep<T>(&mut self, checked: Result<T, ConfigError>) -> Option<T> {
        checked.map_err(|error| self.0.push(error)).ok()
    }

    /// Everything that was built from good values, if there was no fault.
    pub(super) fn end<T>(self, built: Option<T>) -> Result<T, ConfigErrors> {
        match built {
            Some(built) if self.0.is_empty() => Ok(built),
            _ => Err(ConfigErrors(self.0)),
        }
    }
}

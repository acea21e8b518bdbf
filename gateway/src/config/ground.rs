//! What a gateway stands on: store and bus.

use super::{ConfigError, Settings, secrets::secret, wrong};
use async_nats::ServerAddr;
use std::path::{Path, PathBuf};

/// Where the truth is.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreChoice {
    /// SQLite at this path.
    Sqlite(PathBuf),
    /// Postgres at this URL, which may hold a password.
    Postgres(String),
}

impl std::fmt::Debug for StoreChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl StoreChoice {
    /// Without a password.
    pub fn redacted(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Postgres(url) => redact(url),
        }
    }
}

/// Where the hint goes.
#[derive(Clone, PartialEq, Eq)]
pub enum BusChoice {
    /// Within this process.
    Local,
    /// NATS.
    Nats {
        /// nats:// or tls://, without credentials.
        url: String,
        /// User and password.
        login: Option<(String, String)>,
    },
}

impl std::fmt::Debug for BusChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Nats { url, login } => {
                write!(f, "{}{}", redact(url), if login.is_some() { " (with login)" } else { "" })
            }
        }
    }
}

impl Settings {
    pub(super) fn store_in(&self, data_dir: &Path) -> Result<StoreChoice, ConfigError> {
        let url = match (&self.store, &self.store_file) {
            (Some(_), Some(_)) => return wrong("store_file", "store is given too: give one of them"),
            (Some(url), None) => Some(url.clone()),
            (None, Some(file)) => Some(secret("store_file", file)?),
            (None, None) => None,
        };
        match url.as_deref() {
            None => Ok(StoreChoice::Sqlite(data_dir.join("fastchat.sqlite"))),
            Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                match url.parse::<sqlx::postgres::PgConnectOptions>() {
                    Ok(_) => Ok(StoreChoice::Postgres(url.to_owned())),
                    // The error does not repeat the URL, which may hold a password.
                    Err(_) => wrong("store", "is no URL such as postgres://user@host:5432/database"),
                }
            }
            Some(url) => match url.strip_prefix("sqlite:") {
                Some(path) if !path.is_empty() => Ok(StoreChoice::Sqlite(path.into())),
                _ => wrong("store", "begins with postgres:// or sqlite:"),
            },
        }
    }

    pub(super) fn bus_choice(&self, store: Option<&StoreChoice>) -> Result<BusChoice, ConfigError> {
        let Some(url) = &self.bus else {
            if self.bus_user.is_some() || self.bus_password_file.is_some() {
                return wrong("bus_user", "there is no bus to log in to: give bus too");
            }
            return Ok(BusChoice::Local);
        };
        if url == "local" {
            return Ok(BusChoice::Local);
        }
        let is_server = |url: &str| {
            (url.starts_with("nats://") || url.starts_with("tls://")) && url.parse::<ServerAddr>().is_ok()
        };
        if !url.split(',').all(|url| is_server(url.trim())) {
            return wrong(
                "bus",
                "is local, or one or several of nats://host:4222 or tls://host:4222 with commas",
            );
        }
        if url.contains('@') {
            return wrong("bus", "holds credentials: give bus_user and bus_password_file instead");
        }
        if matches!(store, Some(StoreChoice::Sqlite(_))) {
            return wrong(
                "bus",
                "several gateways cannot share a SQLite store: give store = postgres://... too",
            );
        }
        let login = match (&self.bus_user, &self.bus_password_file) {
            (Some(user), Some(file)) => Some((user.clone(), secret("bus_password_file", file)?)),
            (None, None) => None,
            _ => return wrong("bus_user", "bus_user and bus_password_file go together"),
        };
        Ok(BusChoice::Nats { url: url.clone(), login })
    }
}

/// A URL without the password in it.
pub(super) fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "(not a URL)".into();
    };
    match rest.rsplit_once('@') {
        None => url.to_owned(),
        Some((login, place)) => {
            let user = login.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:(hidden)@{place}")
        }
    }
}

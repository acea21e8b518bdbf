//! How to reach the NATS servers, checked before anything connects.

use crate::rim::share;
use async_nats::{ConnectOptions, ServerAddr};
use std::{fmt, path::PathBuf, time::Duration};

/// A gateway notices a server that hangs after two of these without an answer.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Limit: how long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Limit: how long a gateway waits between two attempts, at most.
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(2);
/// The longest wait before the first attempt; it doubles with each one that fails.
const RECONNECT_DELAY_BASE: Duration = Duration::from_millis(50);
/// Limit: records of one subject that may wait to be taken into the event queue. async-nats keeps
/// room for 32 from the start and adds to it as needed, so that this bounds a burst, not the rest.
const SUBSCRIPTION_CAPACITY: usize = 4_096;

/// Where the answers to barriers go. A name of our own, so that the allow-list of the gateways'
/// credentials is `fc.v1.>` and nothing else.
const INBOX_PREFIX: &str = "fc.v1.inbox";

/// How to reach the bus.
#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    /// One or more servers, separated by commas: `nats://host:4222` or `tls://host:4222`.
    pub url: String,
    /// What the servers show as the connection's name: the gateway's id.
    pub name: String,
    /// How this gateway proves itself.
    pub auth: NatsAuth,
    /// Refuse a connection without TLS, whatever the URL says.
    pub require_tls: bool,
    /// PEM files with further roots to trust.
    pub ca_files: Vec<PathBuf>,
    /// PEM files with the gateway's certificate chain and key, where the servers ask for one.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

/// How a gateway proves itself to NATS.
#[derive(Clone, Default)]
pub enum NatsAuth {
    /// Not at all, or as the URL says.
    #[default]
    Url,
    /// By user and password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// By the text of a `.creds` file.
    Credentials(String),
}

/// Secrets stay out of logs.
impl fmt::Debug for NatsAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url => "Url",
            Self::Password { .. } => "Password(..)",
            Self::Credentials(_) => "Credentials(..)",
        })
    }
}

/// Why a bus cannot be started. A server that is down is no reason.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// One of the URLs.
    #[error("bus URL {place} is not a NATS URL such as nats://host:4222")]
    Url {
        /// Which of the comma-separated ones, from 1. The URL itself may hold a password.
        place: usize,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The credentials.
    #[error("the bus credentials are not the text of a .creds file")]
    Credentials(#[source] std::io::Error),
    /// A file that cannot be read.
    #[error("cannot read {path}, which the bus needs for TLS")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What async-nats refuses for another reason.
    #[error("the bus cannot be started")]
    Connect(#[from] async_nats::ConnectError),
}

impl NatsOptions {
    /// The servers.
    pub(super) fn servers(&self) -> Result<Vec<ServerAddr>, NatsError> {
        let parse = |(place, url): (usize, &str)| {
            url.trim().parse().map_err(|source| NatsError::Url { place: place + 1, source })
        };
        self.url.split(',').enumerate().map(parse).collect()
    }

    /// What async-nats is told, except for the events.
    pub(super) fn connect_options(&self) -> Result<ConnectOptions, NatsError> {
        let mut options = ConnectOptions::new()
            .name(&self.name)
            .no_echo()
            .retry_on_initial_connect()
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(|attempts| reconnect_delay(attempts, share()))
            .subscription_capacity(SUBSCRIPTION_CAPACITY)
            .custom_inbox_prefix(INBOX_PREFIX)
            // Subjects come from one typed constructor.
            .skip_subject_validation(true)
            .require_tls(self.require_tls);
        options = match &self.auth {
            NatsAuth::Url => options,
            NatsAuth::Password { user, password } => {
                options.user_and_password(user.clone(), password.clone())
            }
            NatsAuth::Credentials(text) => options.credentials(text).map_err(NatsError::Credentials)?,
        };
        for path in &self.ca_files {
            options = options.add_root_certificates(readable(path)?);
        }
        if let Some((certificate, key)) = &self.client_certificate {
            options = options.add_client_certificate(readable(certificate)?, readable(key)?);
        }
        Ok(options)
    }
}

/// A path whose file can be opened: async-nats would retry for ever on one that cannot.
fn readable(path: &PathBuf) -> Result<PathBuf, NatsError> {
    let opened = std::fs::File::open(path);
    opened.map(|_| path.clone()).map_err(|source| NatsError::File { path: path.clone(), source })
}

/// Full jitter: a fleet that lost its bus does not come back all at once. `share` is in 0..1.
fn reconnect_delay(attempts: usize, share: f64) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(10);
    let longest = RECONNECT_DELAY_BASE.saturating_mul(1 << doublings).min(RECONNECT_DELAY_MAX);
    longest.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_their_limit_and_are_spread() {
        assert_eq!(reconnect_delay(0, 0.99), Duration::from_millis(50).mul_f64(0.99));
        assert_eq!(reconnect_delay(3, 0.5), Duration::from_millis(200));
        for attempts in [6, 10, 1_000, usize::MAX] {
            assert_eq!(reconnect_delay(attempts, 1.0), RECONNECT_DELAY_MAX);
            assert_eq!(reconnect_delay(attempts, 0.0), Duration::ZERO);
        }
        assert!((0..1_000).all(|_| (0.0..1.0).contains(&share())));
    }

    #[test]
    fn a_bad_url_is_named_by_its_place() {
        let options = NatsOptions { url: "nats://a:4222, http://b".into(), ..NatsOptions::default() };
        let error = options.servers().expect_err("http is no NATS URL");
        assert!(matches!(error, NatsError::Url { place: 2, .. }), "{error:?}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let options = NatsOptions { ca_files: vec!["/nowhere/ca.pem".into()], ..NatsOptions::default() };
        let error = options.connect_options().expect_err("no such file").to_string();
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
    }

    #[test]
    fn a_password_is_not_shown() {
        let auth = NatsAuth::Password { user: "gateway".into(), password: "hunter2".into() };
        assert!(!format!("{auth:?}").contains("hunter2"));
    }
}

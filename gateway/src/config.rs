//! Settings: flag over environment over file over default; parsed, then validated, then used.
//!
//! Every error names the key, and all of them are said at once. Nothing listens before all of it is valid.

mod blobs;
mod faults;
mod file;
mod fleet;
mod ground;
mod registration;
mod secrets;
mod settings;
mod storage;

pub use blobs::{BlobRules, MAX_BLOB_QUOTA, Retention};
pub use faults::ConfigErrors;
pub use ground::{BusChoice, StoreChoice};
pub use registration::Registration;
pub use settings::Settings;
pub use storage::{S3, Storage};

use crate::{
    fleet::{load::Scope, shed::turns::Rules, tickets::Policy},
    passwords::Pepper,
    rate::Rates,
    tls,
};
use ed25519_dalek::VerifyingKey;
use faults::Faults;
use std::{borrow::Cow, net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};
use tracing_subscriber::EnvFilter;

/// What is wrong with a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    /// The key in the file; the flag has hyphens for underscores.
    pub key: Cow<'static, str>,
    /// What is wrong and what to do.
    pub problem: String,
}

impl ConfigError {
    /// A fault of a key.
    pub fn new(key: impl Into<Cow<'static, str>>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}

/// Settings that were checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// For clients.
    pub listen: SocketAddr,
    /// For operators.
    pub admin_listen: SocketAddr,
    /// The deployment's name.
    pub deployment: String,
    /// Hosts that clients may dial; empty for any.
    pub public_hosts: Vec<String>,
    /// Own files.
    pub data_dir: PathBuf,
    /// The truth.
    pub store: StoreChoice,
    /// The hint.
    pub bus: BusChoice,
    /// Where clients reach it, if that was said; see [`Config::public_url`].
    pub public_url: Option<String>,
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// Whose CPU time counts as load.
    pub load_scope: Scope,
    /// Whose tickets are good.
    pub balancer_keys: Vec<VerifyingKey>,
    /// Whether clients need one.
    pub tickets: Policy,
    /// What moving sessions may cost.
    pub shed: Rules,
    /// See [`Pepper`].
    pub pepper: Pepper,
    /// TLS, if any.
    pub tls: Option<tls::Files>,
    /// Whether strangers may register.
    pub registration: Registration,
    /// Connections at most.
    pub max_connections: usize,
    /// Between head checks.
    pub head_check_interval: Duration,
    /// How long a batch of the writer waits for more at most.
    pub batch_wait: Duration,
    /// Threads that serve connections.
    pub threads: usize,
    /// Between pings.
    pub ping_interval: Duration,
    /// In which clients leave.
    pub drain_window: Duration,
    /// In which a challenge is answered.
    pub challenge_timeout: Duration,
    /// How often one may try.
    pub rates: Rates,
    /// What files may take.
    pub blobs: BlobRules,
    /// What becomes of old rows.
    pub retention: Retention,
    /// Between sweeps of what is past its time.
    pub sweep_interval: Duration,
    /// Threads that hash passwords.
    pub bcrypt_threads: usize,
}

impl Config {
    /// Whether clients may dial this host.
    pub fn serves_host(&self, host: &str) -> bool {
        !host.is_empty()
            && host.len() <= 255
            && (self.public_hosts.is_empty() || self.public_hosts.iter().any(|own| own == host))
    }
}

impl Settings {
    /// Checks all of it, and says all that is wrong. Reads secret files, and makes the pepper of an
    /// embedded deployment if `make_secrets` says so.
    pub fn validate(&self, make_secrets: bool) -> Result<Config, ConfigErrors> {
        let mut faults = Faults(self.faults.clone());
        let data_dir = self.data_dir();
        let store = faults.keep(self.store_in(&data_dir));
        let listen = faults.keep(self.checked_listen());
        let admin_listen = faults.keep(self.admin_address());
        if let (Some(public), Some(admin)) = (listen, admin_listen) {
            faults.keep(apart(public, admin));
        }
        let bus = faults.keep(self.bus_choice(store.as_ref()));
        let public_url = faults.keep(self.checked_public_url(listen, bus.as_ref()));
        let balancer_keys = faults.keep(self.balancer_keys());
        let tickets = faults.keep(self.ticket_policy(balancer_keys.as_deref()));
        let tls = faults.keep(self.tls_files());
        faults.keep(self.log_filter());
        faults.keep(self.log_as_json());
        let deployment = faults.keep(self.deployment_name());
        let public_hosts = faults.keep(self.public_hosts());
        let pepper =
            store.as_ref().and_then(|store| faults.keep(self.pepper(&data_dir, store, make_secrets)));
        let heartbeat = faults.keep(self.heartbeat());
        let load_scope = faults.keep(self.checked_load_scope());
        let shed = faults.keep(self.shed_rules());
        let registration = faults.keep(self.registration());
        let blobs = faults.keep(self.blob_rules());
        let retention = faults.keep(self.retention());
        let sweep_interval = faults.keep(self.sweep_interval());
        let max_connections =
            faults.keep(between("max_connections", self.max_connections.unwrap_or(15_000), 1, 1_000_000));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = faults.keep(between("threads", self.threads.unwrap_or(cores), 1, 1_024));
        let mut number = |key, value: Option<u64>, usual, least, most| {
            faults.keep(between(key, value.unwrap_or(usual), least, most))
        };
        let head_check = number("head_check_ms", self.head_check_ms, 2_000, 100, 60_000);
        let usual_wait = crate::limits::BATCH_WAIT.as_millis() as u64;
        let batch_wait = number("batch_wait_ms", self.batch_wait_ms, usual_wait, 0, 1_000);
        let ping = number("ping_seconds", self.ping_seconds, 10, 1, 300);
        let drain = number("drain_seconds", self.drain_seconds, 5, 0, 3_600);
        let challenge = fastchat_protocol::limits::CHALLENGE_SECONDS;
        let challenge = number("challenge_seconds", self.challenge_seconds, challenge, 1, 30);
        let build = || {
            Some(Config {
                deployment: deployment?,
                public_hosts: public_hosts?,
                pepper: pepper?,
                public_url: public_url?,
                heartbeat: heartbeat?,
                load_scope: load_scope?,
                tickets: tickets?,
                balancer_keys: balancer_keys?,
                shed: shed?,
                bus: bus?,
                registration: registration?,
                max_connections: max_connections?,
                head_check_interval: Duration::from_millis(head_check?),
                batch_wait: Duration::from_millis(batch_wait?),
                threads: threads?,
                ping_interval: Duration::from_secs(ping?),
                drain_window: Duration::from_secs(drain?),
                challenge_timeout: Duration::from_secs(challenge?),
                rates: self.rates(),
                blobs: blobs?,
                retention: retention?,
                sweep_interval: sweep_interval?,
                bcrypt_threads: (cores - 1).max(1),
                listen: listen?,
                admin_listen: admin_listen?,
                data_dir,
                store: store?,
                tls: tls?,
            })
        };
        faults.end(build())
    }

    fn rates(&self) -> Rates {
        Rates {
            logins_per_minute: self.logins_per_minute.unwrap_or(per(120)),
            guesses_per_hour: self.guesses_per_hour.unwrap_or(per(20)),
            sends_per_second: self.sends_per_second.unwrap_or(per(100)),
            claims_per_minute: self.claims_per_minute.unwrap_or(per(1_200)),
            commits_per_minute: self.commits_per_minute.unwrap_or(per(300)),
            slots_per_minute: self.slots_per_minute.unwrap_or(per(600)),
            presence_per_minute: self.presence_per_minute.unwrap_or(per(60)),
            blob_parts_per_minute: self.blob_parts_per_minute.unwrap_or(per(2_400)),
        }
    }

    fn checked_listen(&self) -> Result<SocketAddr, ConfigError> {
        let listen = address("listen", self.listen.as_deref().unwrap_or("127.0.0.1:7400"))?;
        let tls = self.tls_certificate.is_some() || self.tls_key.is_some();
        if !tls && !listen.ip().is_loopback() && !self.insecure.unwrap_or(false) {
            return wrong(
                "listen",
                format!(
                    "{listen} can be reached from other machines without TLS: give tls_certificate and tls_key, or say insecure if a proxy ends TLS"
                ),
            );
        }
        Ok(listen)
    }

    /// What to log.
    pub fn log_filter(&self) -> Result<EnvFilter, ConfigError> {
        let filter = EnvFilter::try_new(self.log.as_deref().unwrap_or("info"));
        filter.map_err(|e| ConfigError::new("log", e.to_string()))
    }

    /// Whether the log is JSON.
    pub fn log_as_json(&self) -> Result<bool, ConfigError> {
        match self.log_format.as_deref().unwrap_or("text") {
            "text" => Ok(false),
            "json" => Ok(true),
            other => wrong("log_format", format!("is text or json, not {other:?}")),
        }
    }

    fn public_hosts(&self) -> Result<Vec<String>, ConfigError> {
        let hosts = self.public_host.clone().unwrap_or_default();
        match hosts
            .iter()
            .find(|host| host.is_empty() || !host.bytes().all(|c| c.is_ascii_graphic() && c != b'/'))
        {
            Some(host) => {
                wrong("public_host", format!("{host:?} is no host (and port), such as chat.example.org"))
            }
            None => Ok(hosts),
        }
    }

    /// Where the admin listener is.
    pub fn admin_address(&self) -> Result<SocketAddr, ConfigError> {
        address("admin_listen", self.admin_listen.as_deref().unwrap_or("127.0.0.1:7401"))
    }

    /// Where the truth is, for commands that need nothing else.
    pub fn store_choice(&self) -> Result<StoreChoice, ConfigError> {
        self.store_in(&self.data_dir())
    }

    fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| "fastchat-data".into())
    }

    fn tls_files(&self) -> Result<Option<tls::Files>, ConfigError> {
        match (self.tls_certificate.clone(), self.tls_key.clone()) {
            (Some(certificate), Some(key)) => {
                let files = tls::Files { certificate, key };
                match tls::Tls::load(files.clone()) {
                    Ok(_) => Ok(Some(files)),
                    Err(error) => wrong("tls_certificate", format!("{error:#}")),
                }
            }
            (None, None) => Ok(None),
            (Some(_), None) => wrong("tls_key", "is missing: tls_certificate and tls_key go together"),
            (None, Some(_)) => {
                wrong("tls_certificate", "is missing: tls_certificate and tls_key go together")
            }
        }
    }

    fn deployment_name(&self) -> Result<String, ConfigError> {
        let name = self.deployment.clone().unwrap_or_else(|| "fastchat.local".into());
        let fits = (1..=64).contains(&name.len())
            && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b".-".contains(&c));
        if fits { Ok(name) } else { wrong("deployment", "has 1 to 64 of a-z, 0-9, dot and hyphen") }
    }
}

/// Two listeners cannot share an address.
fn apart(listen: SocketAddr, admin: SocketAddr) -> Result<(), ConfigError> {
    let everywhere = listen.ip().is_unspecified() || admin.ip().is_unspecified();
    if listen.port() != 0 && listen.port() == admin.port() && (listen.ip() == admin.ip() || everywhere) {
        return wrong("admin_listen", format!("{admin} is taken by listen: give it a port of its own"));
    }
    Ok(())
}

fn per(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN)
}

fn address(key: &'static str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| {
        let problem = format!("{text:?} is not an address and port such as 127.0.0.1:7400 or [::1]:7400");
        ConfigError::new(key, problem)
    })
}

fn between<T: PartialOrd + std::fmt::Display + Copy>(
    key: &'static str,
    value: T,
    least: T,
    most: T,
) -> Result<T, ConfigError> {
    if value >= least && value <= most {
        Ok(value)
    } else {
        wrong(key, format!("is from {least} to {most}, not {value}"))
    }
}

fn wrong<T>(key: &'static str, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::new(key, problem))
}

#[cfg(test)]
mod tests;

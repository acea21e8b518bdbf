//! Settings: flag over environment over file over default; parsed, then validated, then used.
//!
//! Every error names the key, and all of them are said at once. Nothing listens before all of it is valid.

mod blobs;
mod faults;
mod file;
mod fleet;
mod registration;
mod storage;

pub use blobs::{BlobRules, MAX_BLOB_QUOTA, Retention};
pub use faults::ConfigErrors;
pub use registration::Registration;
pub use storage::{S3, Storage};

use crate::{
    fleet::{load::Scope, shed::turns::Rules, tickets::Policy},
    passwords::Pepper,
    rate::Rates,
    tls,
};
use async_nats::ServerAddr;
use clap::Args;
use ed25519_dalek::VerifyingKey;
use faults::Faults;
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};
use tracing_subscriber::EnvFilter;

/// What can be set. Each is a flag, an environment variable and a key of the file.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Address for clients [default: 127.0.0.1:7400; port 0 takes a free one]
    #[arg(long, env = "FASTCHAT_GATEWAY_LISTEN", value_name = "ADDRESS", global = true)]
    pub listen: Option<String>,
    /// Address for /livez, /readyz, /metrics, /drain [default: 127.0.0.1:7401]
    #[arg(long, env = "FASTCHAT_GATEWAY_ADMIN_LISTEN", value_name = "ADDRESS", global = true)]
    pub admin_listen: Option<String>,
    /// Name of the deployment: clients pin it, passwords are salted with it; never change it [default: fastchat.local]
    #[arg(long, env = "FASTCHAT_GATEWAY_DEPLOYMENT", value_name = "NAME", global = true)]
    pub deployment: Option<String>,
    /// Host (and port) under which clients dial; may be given several times [default: any]
    #[arg(
        long,
        env = "FASTCHAT_GATEWAY_PUBLIC_HOST",
        value_name = "HOST",
        value_delimiter = ',',
        global = true
    )]
    pub public_host: Option<Vec<String>>,
    /// Folder of the embedded store and of secrets that are made at first start [default: ./fastchat-data]
    #[arg(long, env = "FASTCHAT_GATEWAY_DATA_DIR", value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// postgres://user@host/database for a fleet [default: SQLite in the data folder]
    #[arg(long, env = "FASTCHAT_GATEWAY_STORE", value_name = "URL", hide_env_values = true, global = true)]
    pub store: Option<String>,
    /// File that holds the store's URL, for URLs with a password
    #[arg(long, env = "FASTCHAT_GATEWAY_STORE_FILE", value_name = "FILE", global = true)]
    pub store_file: Option<PathBuf>,
    /// nats://host:4222 for a fleet [default: within this process]
    #[arg(long, env = "FASTCHAT_GATEWAY_BUS", value_name = "URL", global = true)]
    pub bus: Option<String>,
    /// User name for NATS
    #[arg(long, env = "FASTCHAT_GATEWAY_BUS_USER", value_name = "NAME", global = true)]
    pub bus_user: Option<String>,
    /// File that holds the password for NATS
    #[arg(long, env = "FASTCHAT_GATEWAY_BUS_PASSWORD_FILE", value_name = "FILE", global = true)]
    pub bus_password_file: Option<PathBuf>,
    /// ws:// or wss:// URL under which clients reach this gateway [default: made from the listen address]
    #[arg(long, env = "FASTCHAT_GATEWAY_PUBLIC_URL", value_name = "URL", global = true)]
    pub public_url: Option<String>,
    /// Milliseconds between heartbeats for balancers [default: 500]
    #[arg(long, env = "FASTCHAT_GATEWAY_HEARTBEAT_MS", value_name = "MS", global = true)]
    pub heartbeat_ms: Option<u64>,
    /// Whose CPU time the reported load counts: machine, or process where gateways share a machine [default: machine]
    #[arg(long, env = "FASTCHAT_GATEWAY_LOAD_SCOPE", value_name = "SCOPE", global = true)]
    pub load_scope: Option<String>,
    /// Public key of a balancer, 64 hexadecimal digits (fastchat-balancer ticket-public-key); may be given several times
    #[arg(
        long,
        env = "FASTCHAT_GATEWAY_BALANCER_KEY",
        value_name = "HEX",
        value_delimiter = ',',
        global = true
    )]
    pub balancer_key: Option<Vec<String>>,
    /// Whether clients need a balancer's ticket: off, optional (they are counted), or required [default: optional with balancer_key, else off]
    #[arg(long, env = "FASTCHAT_GATEWAY_TICKETS", value_name = "POLICY", global = true)]
    pub tickets: Option<String>,
    /// Sessions that balancers may move away from here in a second; 0 for none [default: 50]
    #[arg(long, env = "FASTCHAT_GATEWAY_SHED_PER_SECOND", value_name = "N", global = true)]
    pub shed_per_second: Option<u32>,
    /// File with 64 hexadecimal digits, the same for all gateways of a fleet [default: made in the data folder]
    #[arg(long, env = "FASTCHAT_GATEWAY_PEPPER_FILE", value_name = "FILE", global = true)]
    pub pepper_file: Option<PathBuf>,
    /// Certificate chain in PEM; with --tls-key. Read again on SIGHUP
    #[arg(long, env = "FASTCHAT_GATEWAY_TLS_CERTIFICATE", value_name = "FILE", global = true)]
    pub tls_certificate: Option<PathBuf>,
    /// Private key of the certificate in PEM
    #[arg(long, env = "FASTCHAT_GATEWAY_TLS_KEY", value_name = "FILE", global = true)]
    pub tls_key: Option<PathBuf>,
    /// Allow clients without TLS from other machines, e.g. behind a proxy that ends TLS
    #[arg(long, env = "FASTCHAT_GATEWAY_INSECURE", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", global = true)]
    pub insecure: Option<bool>,
    /// Who may register: open (anybody), invite (who has a code of `admin invite create`) or closed [default: open]
    #[arg(long, env = "FASTCHAT_GATEWAY_REGISTRATION", value_name = "WHO", global = true)]
    pub registration: Option<String>,
    /// Connections at most [default: 15000]
    #[arg(long, env = "FASTCHAT_GATEWAY_MAX_CONNECTIONS", value_name = "N", global = true)]
    pub max_connections: Option<usize>,
    /// Milliseconds between head checks [default: 2000]
    #[arg(long, env = "FASTCHAT_GATEWAY_HEAD_CHECK_MS", value_name = "MS", global = true)]
    pub head_check_ms: Option<u64>,
    /// Milliseconds that a message waits at most to be stored together with others, when many come; 0: never [default: 10]
    #[arg(long, env = "FASTCHAT_GATEWAY_BATCH_WAIT_MS", value_name = "MS", global = true)]
    pub batch_wait_ms: Option<u64>,
    /// Threads that serve connections [default: one for each core; where gateways share a machine, give each its share]
    #[arg(long, env = "FASTCHAT_GATEWAY_THREADS", value_name = "N", global = true)]
    pub threads: Option<usize>,
    /// Seconds between pings; a silent client is given up after three [default: 10]
    #[arg(long, env = "FASTCHAT_GATEWAY_PING_SECONDS", value_name = "S", global = true)]
    pub ping_seconds: Option<u64>,
    /// Seconds in which clients leave when the gateway drains [default: 5]
    #[arg(long, env = "FASTCHAT_GATEWAY_DRAIN_SECONDS", value_name = "S", global = true)]
    pub drain_seconds: Option<u64>,
    /// Seconds in which a client answers the challenge [default: 30]
    #[arg(long, env = "FASTCHAT_GATEWAY_CHALLENGE_SECONDS", value_name = "S", hide = true, global = true)]
    pub challenge_seconds: Option<u64>,
    /// Registrations and password logins of one address in a minute [default: 120]
    #[arg(long, env = "FASTCHAT_GATEWAY_LOGINS_PER_MINUTE", value_name = "N", global = true)]
    pub logins_per_minute: Option<NonZeroU32>,
    /// Password logins to one account in an hour [default: 20]
    #[arg(long, env = "FASTCHAT_GATEWAY_GUESSES_PER_HOUR", value_name = "N", global = true)]
    pub guesses_per_hour: Option<NonZeroU32>,
    /// Messages of one connection in a second, ten times as many at once [default: 100]
    #[arg(long, env = "FASTCHAT_GATEWAY_SENDS_PER_SECOND", value_name = "N", global = true)]
    pub sends_per_second: Option<NonZeroU32>,
    /// Claims of key packages of one account in a minute [default: 1200]
    #[arg(long, env = "FASTCHAT_GATEWAY_CLAIMS_PER_MINUTE", value_name = "N", global = true)]
    pub claims_per_minute: Option<NonZeroU32>,
    /// Foundings, commits and other changes of one account in a minute [default: 300]
    #[arg(long, env = "FASTCHAT_GATEWAY_COMMITS_PER_MINUTE", value_name = "N", global = true)]
    pub commits_per_minute: Option<NonZeroU32>,
    /// Parts of slots of one account in a minute [default: 600]
    #[arg(long, env = "FASTCHAT_GATEWAY_SLOTS_PER_MINUTE", value_name = "N", global = true)]
    pub slots_per_minute: Option<NonZeroU32>,
    /// Questions of one account who is online, in a minute [default: 60]
    #[arg(long, env = "FASTCHAT_GATEWAY_PRESENCE_PER_MINUTE", value_name = "N", global = true)]
    pub presence_per_minute: Option<NonZeroU32>,
    /// Files of one account that are put or fetched in a minute, by parts of at most 256 KiB [default: 2400]
    #[arg(long, env = "FASTCHAT_GATEWAY_BLOB_PARTS_PER_MINUTE", value_name = "N", global = true)]
    pub blob_parts_per_minute: Option<NonZeroU32>,
    /// Sealed bytes of one file at most; sealing and padding add up to 12 % [default: 117440512, for files of 100 MiB]
    #[arg(long, env = "FASTCHAT_GATEWAY_BLOB_MAX_BYTES", value_name = "BYTES", global = true)]
    pub blob_max_bytes: Option<u64>,
    /// Bytes of files that one account may keep; `admin quota` gives single ones another [default: 1073741824]
    #[arg(long, env = "FASTCHAT_GATEWAY_BLOB_QUOTA_BYTES", value_name = "BYTES", global = true)]
    pub blob_quota_bytes: Option<u64>,
    /// Days for which a file is kept; 0 for ever [default: 30]
    #[arg(long, env = "FASTCHAT_GATEWAY_BLOB_KEEP_DAYS", value_name = "DAYS", global = true)]
    pub blob_keep_days: Option<u32>,
    /// Where the bytes of files are: store, file:///folder (there, and shared by all gateways), or s3://bucket/prefix [default: store]
    #[arg(long, env = "FASTCHAT_GATEWAY_BLOB_STORAGE", value_name = "URL", global = true)]
    pub blob_storage: Option<String>,
    /// Server of s3:// [default: Amazon's of the region]
    #[arg(long, env = "FASTCHAT_GATEWAY_BLOB_S3_ENDPOINT", value_name = "URL", global = true)]
    pub blob_s3_endpoint: Option<String>,
    /// Region of s3:// [default: us-east-1]
    #[arg(long, env = "FASTCHAT_GATEWAY_BLOB_S3_REGION", value_name = "REGION", global = true)]
    pub blob_s3_region: Option<String>,
    /// File that holds the access key of s3:// [default: from AWS_ACCESS_KEY_ID and its like, or the machine's role]
    #[arg(long, env = "FASTCHAT_GATEWAY_BLOB_S3_ACCESS_KEY_FILE", value_name = "FILE", global = true)]
    pub blob_s3_access_key_file: Option<PathBuf>,
    /// File that holds the secret key of s3://
    #[arg(long, env = "FASTCHAT_GATEWAY_BLOB_S3_SECRET_KEY_FILE", value_name = "FILE", global = true)]
    pub blob_s3_secret_key_file: Option<PathBuf>,
    /// Allow http:// to object storage on another machine, e.g. within a tunnel
    #[arg(long, env = "FASTCHAT_GATEWAY_BLOB_S3_ALLOW_HTTP", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", global = true)]
    pub blob_s3_allow_http: Option<bool>,
    /// Days for which messages stay on the server; 0 for ever [default: 0]
    #[arg(long, env = "FASTCHAT_GATEWAY_RETENTION_LOG_DAYS", value_name = "DAYS", global = true)]
    pub retention_log_days: Option<u32>,
    /// Whether messages stay longer until every device has them that connected within 90 days [default: true]
    #[arg(long, env = "FASTCHAT_GATEWAY_RETENTION_BELOW_CURSORS", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", global = true)]
    pub retention_below_cursors: Option<bool>,
    /// Seconds between sweeps of what is past its time [default: 60]
    #[arg(long, env = "FASTCHAT_GATEWAY_SWEEP_SECONDS", value_name = "S", hide = true, global = true)]
    pub sweep_seconds: Option<u64>,
    /// What to log, e.g. info or fastchat_gateway=debug [default: info]
    #[arg(long, env = "FASTCHAT_GATEWAY_LOG", value_name = "FILTER", global = true)]
    pub log: Option<String>,
    /// text or json [default: text]
    #[arg(long, env = "FASTCHAT_GATEWAY_LOG_FORMAT", value_name = "FORMAT", global = true)]
    pub log_format: Option<String>,
    /// What was wrong in the file.
    #[arg(skip)]
    #[serde(skip)]
    pub faults: Vec<ConfigError>,
}

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

    /// Lanes of the writer: SQLite has one place to write, Postgres overlaps two commits.
    pub fn writer_lanes(&self) -> usize {
        match self.store {
            StoreChoice::Sqlite(_) => 1,
            StoreChoice::Postgres(_) => 2,
        }
    }
}

impl Settings {
    /// These, and where they say nothing, those of `under`.
    pub fn over(self, under: Self) -> Self {
        macro_rules! layered {
            ($($field:ident),+ $(,)?) => {
                Self { $($field: self.$field.or(under.$field)),+, faults: [self.faults, under.faults].concat() }
            };
        }
        layered!(
            listen,
            admin_listen,
            deployment,
            public_host,
            data_dir,
            store,
            store_file,
            bus,
            bus_user,
            bus_password_file,
            public_url,
            heartbeat_ms,
            load_scope,
            balancer_key,
            tickets,
            shed_per_second,
            pepper_file,
            tls_certificate,
            tls_key,
            insecure,
            registration,
            max_connections,
            head_check_ms,
            batch_wait_ms,
            threads,
            ping_seconds,
            drain_seconds,
            challenge_seconds,
            logins_per_minute,
            guesses_per_hour,
            sends_per_second,
            claims_per_minute,
            commits_per_minute,
            slots_per_minute,
            presence_per_minute,
            blob_parts_per_minute,
            blob_max_bytes,
            blob_quota_bytes,
            blob_keep_days,
            blob_storage,
            blob_s3_endpoint,
            blob_s3_region,
            blob_s3_access_key_file,
            blob_s3_secret_key_file,
            blob_s3_allow_http,
            retention_log_days,
            retention_below_cursors,
            sweep_seconds,
            log,
            log_format,
        )
    }

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

    fn store_in(&self, data_dir: &Path) -> Result<StoreChoice, ConfigError> {
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

    fn bus_choice(&self, store: Option<&StoreChoice>) -> Result<BusChoice, ConfigError> {
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

    fn pepper(&self, data_dir: &Path, store: &StoreChoice, make: bool) -> Result<Pepper, ConfigError> {
        let path = match (&self.pepper_file, store) {
            (Some(path), _) => path.clone(),
            (None, StoreChoice::Sqlite(_)) => data_dir.join("pepper"),
            (None, StoreChoice::Postgres(_)) => {
                return wrong(
                    "pepper_file",
                    "is needed with Postgres: one file with 64 hexadecimal digits for all gateways (openssl rand -hex 32)",
                );
            }
        };
        if !path.exists() && self.pepper_file.is_none() {
            if !make {
                return Ok(Pepper::new([0; 32]));
            }
            make_secret(&path)
                .map_err(|e| ConfigError::new("data_dir", format!("{}: {e}", path.display())))?;
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(secret("pepper_file", &path)?, &mut bytes).map_err(|_| {
            ConfigError::new("pepper_file", format!("{} does not hold 64 hexadecimal digits", path.display()))
        })?;
        Ok(Pepper::new(bytes))
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

fn make_secret(path: &Path) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| std::io::Error::other(e.to_string()))?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(hex::encode(bytes).as_bytes())?;
    file.sync_all()
}

fn secret(key: &'static str, path: &Path) -> Result<String, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => wrong(key, format!("{} is empty", path.display())),
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => wrong(key, format!("{}: {error}", path.display())),
    }
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

/// A URL without the password in it.
fn redact(url: &str) -> String {
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

#[cfg(test)]
mod tests;

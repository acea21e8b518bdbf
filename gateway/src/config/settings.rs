//! What can be set: by flags, environment variables and the keys of a file.

use super::ConfigError;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::{num::NonZeroU32, path::PathBuf};

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
    /// Milliseconds that a message waits at most to be stored together with others, when many come; 0: never [default: 7]
    #[arg(long, env = "FASTCHAT_GATEWAY_BATCH_WAIT_MS", value_name = "MS", global = true)]
    pub batch_wait_ms: Option<u64>,
    /// Threads that serve connections [default: one for each core; on a machine shared with Postgres or other gateways, its share]
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
}

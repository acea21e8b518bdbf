//! Settings: flag over environment over file over default; parsed, then validated, then used.
//!
//! Every error names the key. Nothing listens before all of it is valid.

mod file;

use crate::{http, mover::Limits, state::Kept, strategy::Strategy, ticket::TicketKey, tls};
use async_nats::ServerAddr;
use clap::Args;
use fastchat_protocol::ticket::MAX_LIFE_MS;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// What can be set. Each is a flag, an environment variable and a key of the file.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Address for clients: POST /v1/assign [default: 127.0.0.1:7410; port 0 takes a free one]
    #[arg(long, env = "FASTCHAT_BALANCER_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Address for /livez, /readyz, /metrics and the commands of this program [default: 127.0.0.1:7411]
    #[arg(long, env = "FASTCHAT_BALANCER_ADMIN_LISTEN", value_name = "ADDRESS")]
    pub admin_listen: Option<String>,
    /// nats://host:4222, one or several with commas: where heartbeats are
    #[arg(long, env = "FASTCHAT_BALANCER_BUS", value_name = "URL")]
    pub bus: Option<String>,
    /// User name for NATS
    #[arg(long, env = "FASTCHAT_BALANCER_BUS_USER", value_name = "NAME")]
    pub bus_user: Option<String>,
    /// File that holds the password for NATS
    #[arg(long, env = "FASTCHAT_BALANCER_BUS_PASSWORD_FILE", value_name = "FILE")]
    pub bus_password_file: Option<PathBuf>,
    /// heartbeats, prometheus=URL, or both [default: heartbeats]
    #[arg(long, env = "FASTCHAT_BALANCER_LOAD_SOURCE", value_name = "SOURCE", value_delimiter = ',')]
    pub load_source: Option<Vec<String>>,
    /// Milliseconds between Prometheus's scrapes of a gateway [default: 5000]
    #[arg(long, env = "FASTCHAT_BALANCER_SCRAPE_INTERVAL_MS", value_name = "MS")]
    pub scrape_interval_ms: Option<u64>,
    /// random, round-robin, least-connections, min-load, weighted or p2c [default: p2c]
    #[arg(long, env = "FASTCHAT_BALANCER_STRATEGY", value_name = "NAME")]
    pub strategy: Option<String>,
    /// File with the 64 hexadecimal digits of the seed of this balancer's key [default: no tickets]
    #[arg(long, env = "FASTCHAT_BALANCER_TICKET_KEY_FILE", value_name = "FILE")]
    pub ticket_key_file: Option<PathBuf>,
    /// Seconds for which a ticket is good [default: 60]
    #[arg(long, env = "FASTCHAT_BALANCER_TICKET_SECONDS", value_name = "S")]
    pub ticket_seconds: Option<u64>,
    /// on: ask gateways to move sessions when one is added, overloaded or emptied; off [default: on with a bus]
    #[arg(long, env = "FASTCHAT_BALANCER_MOVE_SESSIONS", value_name = "ON_OFF")]
    pub move_sessions: Option<String>,
    /// Most sessions that one gateway is asked to give in a second, 1 to 1000 [default: 50]
    #[arg(long, env = "FASTCHAT_BALANCER_MOVES_PER_SECOND", value_name = "N")]
    pub moves_per_second: Option<u64>,
    /// Most percent of its sessions that a gateway is asked to give in a second, 1 to 20 [default: 2]
    #[arg(long, env = "FASTCHAT_BALANCER_MOVES_PERCENT", value_name = "N")]
    pub moves_percent: Option<u64>,
    /// Requests that one address may make in a second, after a burst of 20 times as many; 0 for any
    /// [default: 500 with a certificate, else 0: the addresses are those of a proxy then]
    #[arg(long, env = "FASTCHAT_BALANCER_ASSIGN_PER_SECOND", value_name = "N")]
    pub assign_per_second: Option<u64>,
    /// File that keeps drains and the strategy over a restart [default: they are forgotten]
    #[arg(long, env = "FASTCHAT_BALANCER_STATE_FILE", value_name = "FILE")]
    pub state_file: Option<PathBuf>,
    /// Certificate chain in PEM; with --tls-key. Read again on SIGHUP
    #[arg(long, env = "FASTCHAT_BALANCER_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// Private key of the certificate in PEM
    #[arg(long, env = "FASTCHAT_BALANCER_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Allow clients without TLS from other machines, e.g. behind a proxy that ends TLS
    #[arg(long, env = "FASTCHAT_BALANCER_INSECURE", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub insecure: Option<bool>,
    /// What to log, e.g. info or fastchat_balancer=debug [default: info]
    #[arg(long, env = "FASTCHAT_BALANCER_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// text or json [default: text]
    #[arg(long, env = "FASTCHAT_BALANCER_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// What is wrong with a setting.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    /// The key in the file; the flag has hyphens for underscores.
    pub key: &'static str,
    /// What is wrong and what to do.
    pub problem: String,
}

/// Where heartbeats are.
#[derive(Clone)]
pub struct NatsChoice {
    /// One or more servers; a URL may hold a password.
    pub servers: Vec<ServerAddr>,
    /// User and password.
    pub login: Option<(String, String)>,
}

/// Secrets stay out of logs.
impl fmt::Debug for NatsChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> =
            self.servers.iter().map(|server| format!("{}:{}", server.host(), server.port())).collect();
        write!(f, "{}{}", hosts.join(","), if self.login.is_some() { " (with login)" } else { "" })
    }
}

/// A Prometheus that scrapes the gateways.
#[derive(Debug, Clone)]
pub struct PrometheusChoice {
    /// http://host:port, perhaps with a prefix.
    pub url: String,
    /// Between two scrapes of a gateway.
    pub period: Duration,
}

/// Settings that were checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// For clients.
    pub listen: SocketAddr,
    /// For operators.
    pub admin_listen: SocketAddr,
    /// The first source of load.
    pub heartbeats: Option<NatsChoice>,
    /// The second.
    pub prometheus: Option<PrometheusChoice>,
    /// At the start.
    pub strategy: Strategy,
    /// Signs tickets.
    pub ticket_key: Option<TicketKey>,
    /// Milliseconds for which a ticket is good.
    pub ticket_life_ms: u64,
    /// How fast sessions move, if they do.
    pub moves: Option<Limits>,
    /// Requests of one address in a second; 0 for any.
    pub assign_per_second: u64,
    /// Where drains and the strategy are kept.
    pub state_file: Option<PathBuf>,
    /// What was there at the start.
    pub kept: Kept,
    /// TLS, if any.
    pub tls: Option<tls::Files>,
}

impl Settings {
    /// Reads a settings file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let wrong = |problem: String| ConfigError {
            key: "config",
            problem: format!("{}: {problem}", path.display()),
        };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        file::check_keys(&text).map_err(wrong)?;
        toml::from_str(&text).map_err(|e| wrong(e.to_string()))
    }

    /// These, and where they say nothing, those of `under`.
    pub fn over(self, under: Self) -> Self {
        macro_rules! layered {
            ($($field:ident),+ $(,)?) => { Self { $($field: self.$field.or(under.$field)),+ } };
        }
        layered!(
            listen,
            admin_listen,
            bus,
            bus_user,
            bus_password_file,
            load_source,
            scrape_interval_ms,
            strategy,
            ticket_key_file,
            ticket_seconds,
            move_sessions,
            moves_per_second,
            moves_percent,
            assign_per_second,
            state_file,
            tls_certificate,
            tls_key,
            insecure,
            log,
            log_format,
        )
    }

    /// Checks all of it, and reads the files that it names.
    pub fn validate(&self) -> Result<Config, ConfigError> {
        let listen = address("listen", self.listen.as_deref().unwrap_or("127.0.0.1:7410"))?;
        let admin_listen = address("admin_listen", self.admin_listen.as_deref().unwrap_or("127.0.0.1:7411"))?;
        let tls = self.tls_files()?;
        if tls.is_none() && !listen.ip().is_loopback() && !self.insecure.unwrap_or(false) {
            return wrong(
                "listen",
                format!(
                    "{listen} can be reached from other machines without TLS: give tls_certificate and tls_key, or say insecure if a proxy ends TLS"
                ),
            );
        }
        let strategy = self.strategy.as_deref().map(str::parse).transpose();
        let strategy: Option<Strategy> = strategy
            .or_else(|error: crate::strategy::UnknownStrategy| wrong("strategy", error.to_string()))?;
        let (heartbeats, prometheus) = self.sources()?;
        let life = between("ticket_seconds", self.ticket_seconds.unwrap_or(60), 1, MAX_LIFE_MS / 1000)?;
        let moves = self.moves(heartbeats.is_some())?;
        let usual = if tls.is_some() { 500 } else { 0 };
        let assign_per_second =
            between("assign_per_second", self.assign_per_second.unwrap_or(usual), 0, 1_000_000)?;
        let kept = self.state_file.as_deref().map(Kept::read).transpose();
        let kept = kept.or_else(|problem| wrong("state_file", problem))?.unwrap_or_default();
        Ok(Config {
            moves,
            assign_per_second,
            state_file: self.state_file.clone(),
            kept,
            listen,
            admin_listen,
            heartbeats,
            prometheus,
            strategy: strategy.unwrap_or_default(),
            ticket_key: self.ticket_key()?,
            ticket_life_ms: 1000 * life,
            tls,
        })
    }

    /// Gateways are asked over the bus: without it, nothing moves.
    fn moves(&self, bus: bool) -> Result<Option<Limits>, ConfigError> {
        let usual = Limits::default();
        let per_second =
            between("moves_per_second", self.moves_per_second.unwrap_or(usual.per_second), 1, 1_000)?;
        let percent = self.moves_percent.unwrap_or(usual.percent_per_second);
        let percent_per_second = between("moves_percent", percent, 1, 20)?;
        let limits = Some(Limits { per_second, percent_per_second });
        match self.move_sessions.as_deref() {
            None => Ok(limits.filter(|_| bus)),
            Some("off") => Ok(None),
            Some("on") if bus => Ok(limits),
            Some("on") => wrong(
                "move_sessions",
                "is on, but gateways are asked over the bus: name heartbeats in load_source, and bus",
            ),
            Some(other) => wrong("move_sessions", format!("is on or off, not {other:?}")),
        }
    }

    fn sources(&self) -> Result<(Option<NatsChoice>, Option<PrometheusChoice>), ConfigError> {
        let usual = vec!["heartbeats".to_owned()];
        let (mut heartbeats, mut prometheus) = (None, None);
        for source in self.load_source.as_ref().unwrap_or(&usual) {
            match source.split_once('=') {
                None if source == "heartbeats" => heartbeats = Some(self.nats()?),
                Some(("prometheus", url)) if prometheus.is_none() => prometheus = Some(self.prometheus(url)?),
                Some(("prometheus", _)) => return wrong("load_source", "names Prometheus twice"),
                _ => {
                    return wrong(
                        "load_source",
                        format!("is heartbeats or prometheus=http://host:9090, not {source:?}"),
                    );
                }
            }
        }
        if heartbeats.is_none() && prometheus.is_none() {
            return wrong("load_source", "is empty: name heartbeats or prometheus=http://host:9090");
        }
        if heartbeats.is_none() && self.bus.is_some() {
            return wrong("bus", "is given, but load_source does not name heartbeats");
        }
        Ok((heartbeats, prometheus))
    }

    fn nats(&self) -> Result<NatsChoice, ConfigError> {
        let Some(url) = &self.bus else {
            return wrong("bus", "is needed for heartbeats: nats://host:4222; or choose another load_source");
        };
        // async-nats would take a bare host, or nothing at all, for a server on this machine.
        let server = |url: &str| -> Option<ServerAddr> {
            let rest = url.strip_prefix("nats://").or_else(|| url.strip_prefix("tls://"))?;
            (!rest.is_empty()).then(|| url.parse().ok())?
        };
        let servers: Option<Vec<ServerAddr>> = url.split(',').map(|url| server(url.trim())).collect();
        let Some(servers) = servers else {
            return wrong("bus", "is one or more of nats://host:4222 or tls://host:4222, with commas");
        };
        let login = match (&self.bus_user, &self.bus_password_file) {
            (Some(user), Some(file)) => Some((user.clone(), secret("bus_password_file", file)?)),
            (None, None) => None,
            _ => return wrong("bus_user", "bus_user and bus_password_file go together"),
        };
        Ok(NatsChoice { servers, login })
    }

    fn prometheus(&self, url: &str) -> Result<PrometheusChoice, ConfigError> {
        http::place(url)
            .map_err(|error| ConfigError { key: "load_source", problem: format!("prometheus: {error}") })?;
        let ms = between("scrape_interval_ms", self.scrape_interval_ms.unwrap_or(5_000), 100, 60_000)?;
        Ok(PrometheusChoice { url: url.to_owned(), period: Duration::from_millis(ms) })
    }

    /// The key alone, whatever else is set.
    pub fn ticket_key(&self) -> Result<Option<TicketKey>, ConfigError> {
        let Some(path) = &self.ticket_key_file else { return Ok(None) };
        match TicketKey::from_hex(&secret("ticket_key_file", path)?) {
            Some(key) => Ok(Some(key)),
            None => wrong(
                "ticket_key_file",
                format!("{} does not hold 64 hexadecimal digits (openssl rand -hex 32)", path.display()),
            ),
        }
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
}

fn secret(key: &'static str, path: &Path) -> Result<String, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => wrong(key, format!("{} is empty", path.display())),
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => wrong(key, format!("{}: {error}", path.display())),
    }
}

fn address(key: &'static str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| ConfigError {
        key,
        problem: format!("{text:?} is not an address and port such as 127.0.0.1:7410 or [::1]:7410"),
    })
}

fn between(key: &'static str, value: u64, least: u64, most: u64) -> Result<u64, ConfigError> {
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        wrong(key, format!("is from {least} to {most}, not {value}"))
    }
}

fn wrong<T>(key: &'static str, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError { key, problem: problem.into() })
}

/// URLs without the passwords in them.
pub fn redact(urls: &str) -> String {
    let redacted = urls.split(',').map(|url| match url.split_once("://") {
        None => "(not a URL)".to_owned(),
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            None => url.to_owned(),
            Some((login, place)) => {
                format!("{scheme}://{}:(hidden)@{place}", login.split(':').next().unwrap_or_default())
            }
        },
    });
    redacted.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;

//! Settings of a gateway as one of a fleet.

use super::{BusChoice, Config, ConfigError, Settings, between, wrong};
use crate::fleet::{load::Scope, shed::turns::Rules, tickets::Policy};
use ed25519_dalek::VerifyingKey;
use fastchat_protocol::fleet::is_dialable;
use std::{net::SocketAddr, time::Duration};

impl Config {
    /// Where clients reach this gateway: as set, or else where it listens.
    pub fn public_url(&self) -> String {
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        self.public_url.clone().unwrap_or_else(|| format!("{scheme}://{}", self.listen))
    }
}

impl Settings {
    /// The public URL, if it was given; a fleet's gateway that listens everywhere must say it.
    pub(super) fn checked_public_url(
        &self,
        listen: Option<SocketAddr>,
        bus: Option<&BusChoice>,
    ) -> Result<Option<String>, ConfigError> {
        let is_everywhere = listen.is_some_and(|listen| listen.ip().is_unspecified());
        let is_fleet = matches!(bus, Some(BusChoice::Nats { .. }));
        match &self.public_url {
            Some(url) if url.starts_with("ws://") && self.tls_certificate.is_some() => wrong(
                "public_url",
                format!("{url} is not how clients reach a gateway with tls_certificate: wss://"),
            ),
            Some(url) if is_dialable(url) => Ok(Some(url.clone())),
            Some(url) => wrong(
                "public_url",
                format!("{url:?} is not ws:// or wss:// with a host, such as wss://g1.example.org"),
            ),
            None if is_everywhere && is_fleet => wrong(
                "public_url",
                "is needed in a fleet: 0.0.0.0 is no address that a client can dial; give e.g. wss://g1.example.org",
            ),
            None => Ok(None),
        }
    }

    pub(super) fn balancer_keys(&self) -> Result<Vec<VerifyingKey>, ConfigError> {
        let key = |text: &String| {
            let mut bytes = [0; 32];
            let key = hex::decode_to_slice(text, &mut bytes).ok().and(VerifyingKey::from_bytes(&bytes).ok());
            match key.filter(|key| !key.is_weak()) {
                Some(key) => Ok(key),
                None => wrong(
                    "balancer_key",
                    format!(
                        "{text:?} is no public key: 64 hexadecimal digits, as fastchat-balancer ticket-public-key prints"
                    ),
                ),
            }
        };
        self.balancer_key.iter().flatten().map(key).collect()
    }

    pub(super) fn ticket_policy(&self, balancers: Option<&[VerifyingKey]>) -> Result<Policy, ConfigError> {
        let policy = match self.tickets.as_deref() {
            None if balancers.is_some_and(<[_]>::is_empty) => Policy::Off,
            None | Some("optional") => Policy::Optional,
            Some("off") => Policy::Off,
            Some("required") => Policy::Required,
            Some(other) => return wrong("tickets", format!("is off, optional or required, not {other:?}")),
        };
        if policy != Policy::Off && balancers.is_some_and(<[_]>::is_empty) {
            return wrong(
                "tickets",
                format!("{policy} needs balancer_key: nobody's tickets are good without it"),
            );
        }
        Ok(policy)
    }

    pub(super) fn shed_rules(&self) -> Result<Rules, ConfigError> {
        let rules = Rules::default();
        let per_second =
            between("shed_per_second", self.shed_per_second.unwrap_or(rules.per_second), 0, 10_000)?;
        Ok(Rules { per_second, ..rules })
    }

    pub(super) fn heartbeat(&self) -> Result<Duration, ConfigError> {
        between("heartbeat_ms", self.heartbeat_ms.unwrap_or(500), 100, 60_000).map(Duration::from_millis)
    }

    pub(super) fn checked_load_scope(&self) -> Result<Scope, ConfigError> {
        match self.load_scope.as_deref().unwrap_or("machine") {
            "machine" => Ok(Scope::Machine),
            "process" => Ok(Scope::Process),
            other => wrong("load_scope", format!("is machine or process, not {other:?}")),
        }
    }
}

//! What gateways and balancers tell each other, and where.
//!
//! A heartbeat is a claim. Whoever reads it believes each value only as far as it can be true, and no
//! clock but its own. A request to shed is one too: a gateway does as much of it as can do no harm.

use crate::{
    frame::frames,
    ids::{BalancerId, GatewayId},
    server::Move,
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What a balancer subscribes to: the heartbeats of all gateways.
pub const HEARTBEATS: &str = "fc.v1.fleet.heartbeat.*";
/// What a balancer subscribes to as well: the announcements of all balancers.
pub const BALANCERS: &str = "fc.v1.fleet.balancer.*";
const HEARTBEAT: &str = "fc.v1.fleet.heartbeat.";
const SHED: &str = "fc.v1.fleet.shed.";
const BALANCER: &str = "fc.v1.fleet.balancer.";
/// Limit: bytes of a gateway's URL.
pub const MAX_URL: usize = 255;
/// Limit: sessions that one [`Shed`] moves. More are asked for again, once their effect was seen.
pub const MAX_SHED: usize = 256;

/// Where a record of the fleet is published: fixed words and the fixed-width hexadecimal of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FleetSubject {
    /// A gateway's heartbeats.
    Heartbeat(GatewayId),
    /// What balancers ask of a gateway.
    Shed(GatewayId),
    /// A balancer's announcements.
    Balancer(BalancerId),
}

impl fmt::Display for FleetSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Heartbeat(gateway) => write!(f, "{HEARTBEAT}{gateway}"),
            Self::Shed(gateway) => write!(f, "{SHED}{gateway}"),
            Self::Balancer(balancer) => write!(f, "{BALANCER}{balancer}"),
        }
    }
}

/// Whether a gateway's URL is one that balancers take and clients dial: `ws://` or `wss://` with a host, an
/// optional port and path, printable, without credentials, at most [`MAX_URL`] bytes.
pub fn is_dialable(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("wss://").or_else(|| url.strip_prefix("ws://")) else { return false };
    let host = rest.split('/').next().unwrap_or_default();
    url.len() <= MAX_URL
        && !host.is_empty()
        && url.bytes().all(|c| c.is_ascii_graphic() && !b"\"\\<>@?#".contains(&c))
}

/// Not a subject of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a subject of the fleet")]
pub struct FleetSubjectError;

impl FromStr for FleetSubject {
    type Err = FleetSubjectError;

    fn from_str(text: &str) -> Result<Self, FleetSubjectError> {
        fn id<T: FromStr>(text: &str) -> Result<T, FleetSubjectError> {
            text.parse().map_err(|_| FleetSubjectError)
        }
        if let Some(rest) = text.strip_prefix(HEARTBEAT) {
            return id(rest).map(Self::Heartbeat);
        }
        if let Some(rest) = text.strip_prefix(SHED) {
            return id(rest).map(Self::Shed);
        }
        id(text.strip_prefix(BALANCER).ok_or(FleetSubjectError)?).map(Self::Balancer)
    }
}

frames! {
    /// A record of the fleet. The request number is not used.
    pub enum FleetFrame {
        /// A gateway lives, and how it stands.
        1 => Heartbeat(Heartbeat),
        /// A gateway is to send some of its sessions elsewhere.
        2 => Shed(Shed),
        /// A balancer lives.
        3 => Balancer(Balancer),
    }
    retired: []
}

/// A gateway lives, and how it stands. Sent every `period_ms`; one that missed three is out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Which process; the subject names it too. Drawn when it starts.
    #[serde(rename = "i")]
    pub gateway: GatewayId,
    /// Counts this process's heartbeats from 1.
    #[serde(rename = "n")]
    pub count: u64,
    /// Milliseconds since 1970 by the gateway's clock: shown to people, used for nothing.
    #[serde(rename = "t")]
    pub at_ms: u64,
    /// Milliseconds until the next one.
    #[serde(rename = "p")]
    pub period_ms: u32,
    /// Where clients reach it, `ws://` or `wss://`.
    #[serde(rename = "u")]
    pub url: String,
    /// Connections with a session.
    #[serde(rename = "c")]
    pub connections: u64,
    /// Most connections that it takes.
    #[serde(rename = "m")]
    pub capacity: u64,
    /// Thousandths of the machine's processors in use, 0 to 1000.
    #[serde(rename = "l")]
    pub cpu_permille: u32,
    /// It sends its clients away and takes no new ones.
    #[serde(rename = "d", default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// Protocol versions that it serves.
    #[serde(rename = "v")]
    pub versions: Vec<u16>,
    /// Program and version, for people.
    #[serde(rename = "a", default, skip_serializing_if = "String::is_empty")]
    pub agent: String,
}

/// A gateway is to send some of its sessions elsewhere: one for each of `moves`, the gateway chooses which,
/// at random times within `over_ms`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shed {
    /// Milliseconds over which the moves are spread.
    #[serde(rename = "o")]
    pub over_ms: u32,
    /// Where to; at most [`MAX_SHED`]. The ticket is empty if the balancer has no key.
    #[serde(rename = "m")]
    pub moves: Vec<Move>,
}

/// A balancer lives. Of those that announced themselves lately and would, only the lowest id asks gateways
/// to shed, so that two of them do not ask for the same moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balancer {
    /// Which process; the subject names it too. Drawn when it starts.
    #[serde(rename = "i")]
    pub balancer: BalancerId,
    /// It would ask gateways to shed.
    #[serde(rename = "m", default, skip_serializing_if = "std::ops::Not::not")]
    pub moves: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_as_it_is_written_and_no_other() {
        let gateway = GatewayId::new([0xab; 16]);
        for (subject, word) in
            [(FleetSubject::Heartbeat(gateway), "heartbeat"), (FleetSubject::Shed(gateway), "shed")]
        {
            let text = subject.to_string();
            assert_eq!(text, format!("fc.v1.fleet.{word}.{}", "ab".repeat(16)));
            assert_eq!(text.parse(), Ok(subject));
        }
        let balancer = FleetSubject::Balancer(BalancerId::new([0xcd; 16]));
        assert_eq!(balancer.to_string(), format!("fc.v1.fleet.balancer.{}", "cd".repeat(16)));
        assert_eq!(balancer.to_string().parse(), Ok(balancer));
        for other in
            [HEARTBEATS, BALANCERS, "fc.v1.fleet.heartbeat.ab", "fc.v1.user.abababababababababababababababab"]
        {
            assert_eq!(other.parse::<FleetSubject>(), Err(FleetSubjectError), "{other}");
        }
    }

    #[test]
    fn only_urls_that_a_client_can_dial_are_taken() {
        for url in ["ws://127.0.0.1:7400", "wss://chat.example.org", "wss://[::1]:1/base"] {
            assert!(is_dialable(url), "{url}");
        }
        let long = format!("wss://{}", "a".repeat(MAX_URL));
        for url in [
            "",
            "wss://",
            "http://a",
            "wss:///x",
            "wss://a b",
            "wss://user@a",
            "wss://a?b",
            "wss://a\u{1b}[2J",
            &long,
        ] {
            assert!(!is_dialable(url), "{url}");
        }
    }
}

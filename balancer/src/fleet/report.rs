//! What a source says of one gateway, before anything of it is believed.

use fastchat_protocol::GatewayId;
use serde::Serialize;

/// Where a report comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The gateway itself, on the bus.
    Heartbeat,
    /// Prometheus, which scraped the gateway.
    Prometheus,
}

impl Source {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Heartbeat, Self::Prometheus];

    /// For metrics and people.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Prometheus => "prometheus",
        }
    }
}

/// One report. Numbers are `f64` because that is what Prometheus says, NaN and infinity included.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Who says it.
    pub source: Source,
    /// Of which gateway.
    pub gateway: GatewayId,
    /// Where clients reach it.
    pub url: String,
    /// Program and version, for people.
    pub agent: String,
    /// Protocol versions that it serves; empty if the source does not know.
    pub versions: Vec<u16>,
    /// The heartbeat's number, where there is one: orders reports and finds doubles.
    pub count: Option<u64>,
    /// Milliseconds since the values were taken; below zero if the other side's clock is ahead.
    pub age_ms: i64,
    /// Milliseconds until the next report, as far as the source knows.
    pub period_ms: u64,
    /// How far the gateway's clock is ahead of ours, in milliseconds. Shown, never used.
    pub skew_ms: Option<i64>,
    /// Connections with a session.
    pub connections: Option<f64>,
    /// Most connections that it takes.
    pub capacity: Option<f64>,
    /// Share of the machine's processors in use, 0 to 1.
    pub cpu: Option<f64>,
    /// 1 if it sends its clients away, 0 if not.
    pub draining: Option<f64>,
}

/// Why a whole report is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// Not `ws://` or `wss://` with a host, or longer than [`fastchat_protocol::fleet::MAX_URL`].
    #[error("its URL is not one that a client could dial")]
    Url,
    /// Taken later than now, by more than clocks differ.
    #[error("it comes from the future")]
    Future,
    /// Doubled, or overtaken by a newer one.
    #[error("a newer one is there")]
    Old,
    /// There are [`super::MAX_GATEWAYS`] already.
    #[error("there are too many gateways")]
    TooMany,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Url, Self::Future, Self::Old, Self::TooMany];

    /// For metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Future => "future",
            Self::Old => "old",
            Self::TooMany => "too_many",
        }
    }
}

/// Why a value of a report is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// Connections below zero, NaN, infinite, or more than could be.
    Connections,
    /// Capacity of zero, NaN, infinite, or out of all proportion to the fleet.
    Capacity,
    /// CPU outside of 0 to 1.
    Cpu,
    /// Draining that is neither 0 nor 1.
    Draining,
    /// The same numbers for long while others move and clients are sent there.
    Frozen,
    /// The gateway's clock is far from ours. Nothing depends on it; a person should know.
    Clock,
}

impl Doubt {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Connections, Self::Capacity, Self::Cpu, Self::Draining, Self::Frozen, Self::Clock];

    /// For metrics and people.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Capacity => "capacity",
            Self::Cpu => "cpu",
            Self::Draining => "draining",
            Self::Frozen => "frozen",
            Self::Clock => "clock",
        }
    }
}

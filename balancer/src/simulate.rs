//! The same decisions offline: what would a strategy do to a fleet?
//!
//! A discrete simulation: clients arrive, ask one of the balancers, connect a moment later; gateways
//! report; gateways fail and come back. Fleet, ledger and strategies are those of the service. Nothing
//! here sleeps or reads a clock, and a seed gives the same outcome each time.
//!
//! - *Report period*: how often a gateway reports, at a phase of its own.
//! - *Report age*: how long a report takes until balancers have it. They know its age, as they know it
//!   of a sample of Prometheus.
//! - With *moves*, the first balancers ask for them as the service does, and a session that is asked connects
//!   to its new gateway as any client does.
//! - *Balance* is max/mean of connections per capacity over the gateways that are up at the end.

mod arrivals;
mod plot;
mod run;
#[cfg(test)]
mod tests;

pub use arrivals::Arrivals;
pub use plot::svg;
pub use run::run;

use crate::{mover::Limits, strategy::Strategy};
use serde::Serialize;

/// One experiment.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Most connections of each gateway; as many gateways as numbers.
    pub capacities: Vec<u64>,
    /// Connections that each gateway has at the start; missing ones are 0.
    pub start: Vec<u64>,
    /// How clients come.
    pub arrivals: Arrivals,
    /// Balancers; a client asks any of them.
    pub balancers: usize,
    /// Milliseconds between a gateway's reports.
    pub report_period_ms: u64,
    /// Milliseconds from a report to the balancers.
    pub report_age_ms: u64,
    /// Milliseconds from an assignment to the connection.
    pub connect_ms: u64,
    /// Gateways that fail.
    pub failures: Vec<Failure>,
    /// Gateways that are not there at the start.
    pub joins: Vec<Join>,
    /// Sessions move, at most so fast.
    pub moves: Option<Limits>,
    /// Balancers that ask for moves at once, without knowing of each other; 1 is how it should be.
    pub movers: usize,
    /// Milliseconds that the simulation goes on after the last client, failure or gateway came.
    pub settle_ms: u64,
    /// Clients of a failed gateway come back within so many milliseconds, at random (full jitter).
    pub reconnect_window_ms: u64,
    /// Of all randomness.
    pub seed: u64,
}

/// A gateway fails: its connections end, and whoever is sent there fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Its place, from 0.
    pub gateway: usize,
    /// When.
    pub at_ms: u64,
    /// When it is back, empty; never if absent.
    pub back_ms: Option<u64>,
}

/// A gateway is added, empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Join {
    /// Its place, from 0.
    pub gateway: usize,
    /// When.
    pub at_ms: u64,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// By which strategy.
    pub strategy: Strategy,
    /// Max/mean of connections per capacity over the gateways that are up at the end.
    pub max_over_mean: f64,
    /// The largest share of assignments that one gateway got in one second with at least 100.
    pub peak_share: f64,
    /// Clients that were sent to a gateway that was down.
    pub failed_attempts: u64,
    /// Clients that no balancer could send anywhere.
    pub unserved: u64,
    /// Sessions that were asked to move.
    pub moved: u64,
    /// Milliseconds from when the last gateway was added until max/mean was at most [`LEVEL`] for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level_after_ms: Option<u64>,
    /// Connections at the end.
    pub connections: Vec<u64>,
    /// Connections of each gateway, every [`SAMPLE_MS`]; not part of the JSON.
    #[serde(skip)]
    pub history: Vec<Vec<u64>>,
}

/// The max/mean that a gateway added under load is to come to.
pub const LEVEL: f64 = 1.2;
/// Milliseconds between points of the plot.
pub const SAMPLE_MS: u64 = 100;

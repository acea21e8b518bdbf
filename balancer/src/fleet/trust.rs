//! Which values of a report are believed. A value that passed has another type than one that arrived.
//!
//! What cannot be true becomes *unknown*, not a number: an unknown load counts as an average one
//! ([`super::Fleet::candidates`]), so that a broken gauge neither attracts clients nor repels them.

use super::report::{Doubt, Report};

/// No gateway holds more connections than this; 64 times the ports of one address.
const MAX_CONNECTIONS: f64 = 4_000_000.0;
/// Connections may exceed the capacity by this factor: both numbers are read one after the other.
const OVER_CAPACITY: f64 = 1.25;
/// CPU may exceed 1 by this much: both sides of the division are sampled.
const OVER_CPU: f64 = 0.05;
/// A clock that is further off than this is said to be wrong.
const CLOCK_TOLERANCE_MS: u64 = 5_000;

/// Values that can be true.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Values {
    /// Connections with a session, at most the capacity.
    pub connections: Option<u64>,
    /// Most connections, at least 1.
    pub capacity: Option<u64>,
    /// 0 to 1.
    pub cpu: Option<f64>,
    /// Whether it sends its clients away.
    pub draining: Option<bool>,
}

/// Checks each value by itself, and says which are not believed.
pub(super) fn check(report: &Report) -> (Values, Vec<Doubt>) {
    let mut doubts = Vec::new();
    let mut checked = |value: Option<f64>, doubt, check: &dyn Fn(f64) -> Option<f64>| {
        let value = value?;
        let good = check(value);
        if good.is_none() {
            doubts.push(doubt);
        }
        good
    };
    let capacity = checked(report.capacity, Doubt::Capacity, &|value| within(value, 1.0, MAX_CONNECTIONS));
    let connections = checked(report.connections, Doubt::Connections, &|value| {
        let most = capacity.map_or(MAX_CONNECTIONS, |capacity| (capacity * OVER_CAPACITY).ceil());
        Some(within(value, 0.0, most)?.min(capacity.unwrap_or(MAX_CONNECTIONS)))
    });
    let cpu = checked(report.cpu, Doubt::Cpu, &|value| Some(within(value, 0.0, 1.0 + OVER_CPU)?.min(1.0)));
    let draining =
        checked(report.draining, Doubt::Draining, &|value| [0.0, 1.0].contains(&value).then_some(value));
    if report.skew_ms.is_some_and(|skew| skew.unsigned_abs() > CLOCK_TOLERANCE_MS) {
        doubts.push(Doubt::Clock);
    }
    let values = Values {
        connections: connections.map(whole),
        capacity: capacity.map(whole),
        cpu,
        draining: draining.map(|draining| draining == 1.0),
    };
    (values, doubts)
}

/// The value if it is a number in the range; NaN is in no range.
fn within(value: f64, least: f64, most: f64) -> Option<f64> {
    (value >= least && value <= most).then_some(value)
}

/// A checked number as a count.
fn whole(value: f64) -> u64 {
    // Within 0..=MAX_CONNECTIONS, so that nothing is cut off.
    value.round() as u64
}

//! The dashboards, one module each.

mod balancer;
mod clients;
mod delivery;
mod files;
mod gateway;
mod nats;
mod overview;
mod postgres;

use crate::Dashboard;

/// All of them, in the order in which one reads them.
pub fn all() -> Vec<Dashboard> {
    vec![
        overview::board(),
        gateway::board(),
        delivery::board(),
        balancer::board(),
        nats::board(),
        postgres::board(),
        clients::board(),
        files::board(),
    ]
}

//! How things stand, looked up when Prometheus asks.

use crate::{
    bus,
    gateway::Gateway,
    limits::{MAX_GUESTS, MAX_UNIDENTIFIED},
    registry::Backlog,
};
use metrics::{gauge, histogram};
use std::time::{Duration, Instant};

/// Between looks whether the store answers.
const STORE_CHECK: Duration = Duration::from_secs(5);

/// Sets every gauge that nobody else sets. Takes a moment for each connection: no wait, no I/O.
pub fn sample(gateway: &Gateway) {
    let sockets = |state: &'static str, count: usize| {
        gauge!("fastchat_sockets", "state" => state).set(count as f64);
    };
    sockets("opening", MAX_UNIDENTIFIED.saturating_sub(gateway.unidentified.available_permits()));
    sockets("session", gateway.registry.connections());
    sockets("guest", MAX_GUESTS.saturating_sub(gateway.guests.available_permits()));
    super::connections(gateway.registry.connections());
    gauge!("fastchat_cursors_waiting").set(gateway.cursors.devices_waiting() as f64);
    let (watched, leases) = gateway.watches.counts();
    super::watches(watched, leases);
    connections(gateway.registry.backlog());
    bus(&*gateway.bus);
    store(gateway);
}

fn connections(backlog: Backlog) {
    gauge!("fastchat_connections_lagging").set(backlog.lagging as f64);
    gauge!("fastchat_connection_queue_depth").set(backlog.frames as f64);
    gauge!("fastchat_connection_queue_bytes").set(backlog.bytes as f64);
    gauge!("fastchat_connection_queue_longest").set(backlog.longest as f64);
}

fn bus(bus: &dyn bus::Bus) {
    let waiting = bus.waiting();
    gauge!("fastchat_bus_up").set(if bus.is_up() { 1.0 } else { 0.0 });
    gauge!("fastchat_bus_publish_queue_depth").set(waiting.publishes as f64);
    gauge!("fastchat_bus_event_queue_depth").set(waiting.events as f64);
}

fn store(gateway: &Gateway) {
    let pool = gateway.store.pool();
    gauge!("fastchat_store_connections", "state" => "used")
        .set(f64::from(pool.open.saturating_sub(pool.idle)));
    gauge!("fastchat_store_connections", "state" => "idle").set(f64::from(pool.idle));
    gauge!("fastchat_store_connections_limit").set(f64::from(pool.limit));
}

/// Asks the store the smallest question now and then, for ever.
pub async fn watch_store(gateway: &Gateway) {
    let mut ticks = tokio::time::interval(STORE_CHECK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let began = Instant::now();
        let up = gateway.store.ping().await.is_ok();
        gauge!("fastchat_store_up").set(if up { 1.0 } else { 0.0 });
        histogram!("fastchat_store_ping_seconds").record(began.elapsed());
    }
}

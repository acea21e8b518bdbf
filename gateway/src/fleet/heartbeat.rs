//! Says how this gateway stands: to balancers on the bus, and as gauges that Prometheus brings them.
//!
//! - One task: a look at the load and a heartbeat every period, and one at once when a drain begins.
//! - A heartbeat that cannot be sent is lost: the next one says the same.

use super::load::{SHORTEST, Sampler};
use crate::{gateway::Gateway, metrics, rim::now_ms};
use fastchat_protocol::{
    RequestId, VERSIONS,
    fleet::{FleetFrame, FleetSubject, Heartbeat},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Between looks at the load where nobody hears of it but Prometheus.
const ALONE: Duration = Duration::from_secs(2);

/// Says it until the gateway ends.
pub async fn run(gateway: Arc<Gateway>) {
    let link = gateway.bus.fleet();
    let period = match link {
        Some(_) => gateway.config.heartbeat,
        None => gateway.config.heartbeat.max(ALONE),
    };
    metrics::identity(&gateway.identity, gateway.config.max_connections);
    let mut sampler = Sampler::new(gateway.config.load_scope);
    let mut ticks = interval_at(Instant::now() + SHORTEST, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0;
    let mut draining = false;
    loop {
        tokio::select! {
            () = gateway.ending.cancelled() => return,
            () = gateway.draining.cancelled(), if !draining => draining = true,
            _ = ticks.tick() => {}
        }
        let cpu = sampler.ratio();
        metrics::load(cpu, draining);
        if let Some(link) = &link {
            count += 1;
            let heartbeat = state(&gateway, count, period, cpu, draining);
            let record = FleetFrame::Heartbeat(heartbeat).encode(RequestId(0));
            link.publish(FleetSubject::Heartbeat(gateway.identity.id), record).await;
        }
    }
}

fn state(gateway: &Gateway, count: u64, period: Duration, cpu: f64, draining: bool) -> Heartbeat {
    Heartbeat {
        gateway: gateway.identity.id,
        count,
        at_ms: now_ms(),
        period_ms: u32::try_from(period.as_millis()).unwrap_or(u32::MAX),
        url: gateway.identity.url.clone(),
        connections: gateway.registry.connections() as u64,
        capacity: gateway.config.max_connections as u64,
        cpu_permille: (cpu * 1000.0).round() as u32,
        draining,
        versions: VERSIONS.to_vec(),
        agent: concat!("fastchat-gateway ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

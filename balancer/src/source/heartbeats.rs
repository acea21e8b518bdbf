//! Heartbeats of the gateways, on the bus.
//!
//! One subscription; async-nats owns the socket and connects again by itself. While the bus is away
//! nothing arrives: the fleet's own rules make what is known stale.

use crate::{
    config::NatsChoice,
    fleet::{Report, Source},
    metrics, moving,
    service::{Balancer, wall_ms},
};
use async_nats::{Client, ConnectOptions, Event, Message};
use fastchat_protocol::fleet::{FleetFrame, FleetSubject, HEARTBEATS, Heartbeat};
use futures_util::StreamExt;
use std::{sync::Arc, time::Duration};

/// A server that hangs is noticed after two of these without an answer.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Limit: how long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Limit: how long the next attempt waits at most.
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(2);
/// Limit: heartbeats that may wait. More are lost; the next ones say the same.
const CAPACITY: usize = 4_096;

/// Reads heartbeats until the balancer ends. Fails only if the settings are refused.
pub async fn run(balancer: Arc<Balancer>, choice: NatsChoice) -> anyhow::Result<()> {
    let watched = Arc::clone(&balancer);
    let mut options = ConnectOptions::new()
        .name("fastchat-balancer")
        .retry_on_initial_connect()
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .subscription_capacity(CAPACITY)
        .reconnect_delay_callback(|attempts| reconnect_delay(attempts, rand::random()))
        .event_callback(move |event| {
            on_event(&watched, &event);
            std::future::ready(())
        });
    if let Some((user, password)) = choice.login {
        options = options.user_and_password(user, password);
    }
    let client = options.connect(choice.servers).await?;
    tokio::try_join!(listen(&balancer, &client), moving::run(Arc::clone(&balancer), client.clone()))?;
    Ok(())
}

async fn listen(balancer: &Balancer, client: &Client) -> anyhow::Result<()> {
    let mut heartbeats = client.subscribe(HEARTBEATS).await?;
    loop {
        let message = tokio::select! {
            () = balancer.ending.cancelled() => return Ok(()),
            message = heartbeats.next() => message,
        };
        let Some(message) = message else { anyhow::bail!("the subscription to heartbeats ended") };
        match read(&message) {
            Some(heartbeat) => balancer.on_report(report(heartbeat, wall_ms())),
            None => metrics::report(Source::Heartbeat, "malformed"),
        }
    }
}

fn on_event(balancer: &Balancer, event: &Event) {
    match event {
        Event::Connected => balancer.set_source_up(Source::Heartbeat, true),
        Event::Disconnected | Event::Closed => balancer.set_source_up(Source::Heartbeat, false),
        Event::ServerError(error) => tracing::warn!(%error, "the bus refused something"),
        Event::ClientError(error) => tracing::debug!(%error, "the bus cannot be reached"),
        Event::SlowConsumer(_) => metrics::report(Source::Heartbeat, "lost"),
        Event::LameDuckMode | Event::Draining => {}
    }
}

/// Full jitter, so that balancers do not come back all at once. `share` is in 0..1.
fn reconnect_delay(attempts: usize, share: f64) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(6);
    (Duration::from_millis(50) * (1 << doublings)).min(RECONNECT_DELAY_MAX).mul_f64(share)
}

/// A heartbeat under its own subject: NATS can be told which gateway may publish where.
fn read(message: &Message) -> Option<Heartbeat> {
    let Ok(FleetSubject::Heartbeat(gateway)) = message.subject.as_str().parse() else { return None };
    let Ok((_, FleetFrame::Heartbeat(heartbeat))) = FleetFrame::decode(&message.payload) else { return None };
    (heartbeat.gateway == gateway).then_some(heartbeat)
}

fn report(heartbeat: Heartbeat, wall_ms: u64) -> Report {
    Report {
        source: Source::Heartbeat,
        gateway: heartbeat.gateway,
        url: heartbeat.url,
        agent: heartbeat.agent,
        versions: heartbeat.versions,
        count: Some(heartbeat.count),
        // It is as old as its way here; the gateway's clock says nothing.
        age_ms: 0,
        period_ms: u64::from(heartbeat.period_ms),
        skew_ms: Some(skew(heartbeat.at_ms, wall_ms)),
        connections: Some(heartbeat.connections as f64),
        capacity: Some(heartbeat.capacity as f64),
        cpu: Some(f64::from(heartbeat.cpu_permille) / 1000.0),
        draining: Some(if heartbeat.draining { 1.0 } else { 0.0 }),
    }
}

/// How far `theirs` is ahead of `ours`, as far as the type goes.
fn skew(theirs: u64, ours: u64) -> i64 {
    let apart = i64::try_from(theirs.abs_diff(ours)).unwrap_or(i64::MAX);
    if theirs >= ours { apart } else { -apart }
}

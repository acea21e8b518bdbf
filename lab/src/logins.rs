//! Logins: how many clients a second a target lets in, one after another through so many doors.
//!
//! One login is everything from dialling until the client may send: for FastChat the WebSocket, the
//! challenge, the device's signature and the session; for ejabberd the stream, SASL, binding and stream
//! management; for mosquitto CONNECT and CONNACK. Then the client hangs up.

use crate::{
    experiment::Say,
    figures::Percentiles,
    loops,
    machine::{self, Component, DRIVER},
    priority::First,
    tally::{Latencies, latencies, record},
    target::{Door, Target},
};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Logins before this are not counted.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long a login may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What logins cost.
#[derive(Debug, Clone, Serialize)]
pub struct Logins {
    /// The target's name.
    pub target: String,
    /// Versions and settings.
    pub about: Vec<(String, String)>,
    /// Clients that log in at a time.
    pub at_once: usize,
    /// Logins that were counted.
    pub logins: u64,
    /// A second.
    pub per_s: f64,
    /// From dialling until the client may send, microseconds.
    pub login_us: Percentiles,
    /// Processor time of the servers for one, microseconds.
    pub server_cpu_us: f64,
    /// The driver's share of all processor time.
    pub driver_share: f64,
}

/// Logs in for so long, so many at a time.
pub async fn run(
    target: &mut dyn Target,
    at_once: usize,
    duration: Duration,
    say: Say<'_>,
) -> Result<Logins> {
    ensure!(at_once > 0, "somebody must log in");
    say(&format!("{}: starting, {at_once} log in at a time", target.name()));
    let doors = target.doors(at_once).await?;
    let mut components = target.components();
    components.push(Component::driver());
    // Where that is not allowed, logins take longer.
    let _first = First::raise();
    let since = Instant::now() + WARM_UP;
    let end = since + duration;
    let mut visitors = JoinSet::new();
    for (client, door) in doors.into_iter().enumerate() {
        visitors.spawn_on(visit(door, since, end), loops::of(client));
    }
    tokio::time::sleep_until(since.into()).await;
    let before = machine::usage(&components)?;
    tokio::time::sleep_until(end.into()).await;
    let used = machine::between(&before, &machine::usage(&components)?);
    let mut all = latencies();
    while let Some(visited) = visitors.join_next().await {
        all.add(visited??).context("latencies have the same bounds")?;
    }
    ensure!(!all.is_empty(), "nobody was let in within {duration:?}");
    let cpu_us: u64 = used.values().map(|usage| usage.cpu_us).sum();
    let driver_us = used[DRIVER].cpu_us;
    Ok(Logins {
        target: target.name(),
        about: target.about(),
        at_once,
        logins: all.len(),
        per_s: all.len() as f64 / duration.as_secs_f64(),
        login_us: Percentiles::of(&all),
        server_cpu_us: (cpu_us - driver_us) as f64 / all.len() as f64,
        driver_share: driver_us as f64 / cpu_us.max(1) as f64,
    })
}

/// Goes in and out by one door; what was begun after `since` and was over before `end` counts.
async fn visit(mut door: Box<dyn Door>, since: Instant, end: Instant) -> Result<Latencies> {
    let mut took = latencies();
    loop {
        let begin = Instant::now();
        tokio::time::timeout(PATIENCE, door.login()).await.context("a login takes too long")??;
        let now = Instant::now();
        if now >= end {
            return Ok(took);
        }
        if begin >= since {
            record(&mut took, (now - begin).as_micros() as u64);
        }
        door.leave().await?;
    }
}

/// A line for each.
pub fn text(all: &[Logins]) -> String {
    let line = |one: &Logins| {
        let (p50, p99) = (one.login_us.p50 as f64 / 1e3, one.login_us.p99 as f64 / 1e3);
        format!(
            "{:32} {:8.0} logins/s  p50 {p50:.1} ms  p99 {p99:.1} ms  {:.0} us of the servers each; the driver \
             used {:.0} % of all",
            one.target,
            one.per_s,
            one.server_cpu_us,
            one.driver_share * 100.0
        )
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

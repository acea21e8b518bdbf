//! Floors: what this machine's parts take by themselves, measured beside each run before its load begins.
//!
//! An acknowledgement cannot be faster than a message's way through the loopback device and a commit; a
//! delivery takes the bus besides. Each floor is the median of some hundred samples, one after another.

use crate::{
    arrivals::Arrivals,
    drive::{self, Load},
    plan::{Pattern, Plan},
    target::{Target, null::Null},
};
use anyhow::{Context, Result};
use async_nats::ConnectOptions;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use sqlx::{Connection, Executor, PgConnection};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// Samples of a floor.
const SAMPLES: usize = 300;
/// Samples that are taken before and not counted: caches and plans.
const WARM_UP: usize = 20;
/// No floor takes longer than this, however slow the disk is.
const LONGEST: Duration = Duration::from_millis(700);
/// How long a message may take until it counts as lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between commits that come one by one.
const REST: Duration = Duration::from_millis(2);
/// A subject that nobody else has.
const SUBJECT: &str = "lab.floor";

/// What a target is built on, to be measured alone.
#[derive(Debug, Clone, Default)]
pub struct Ground {
    /// The URL of a database on its server.
    pub postgres: Option<String>,
    /// Its bus.
    pub nats: Option<String>,
}

/// Medians, microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Floors {
    /// A message's size to another thread and back, over a TCP connection of the loopback address.
    pub loopback_us: u64,
    /// From when a message was due until it was received, where the driver has no server.
    pub driver_us: u64,
    /// One row of a message's size, committed to the target's Postgres.
    pub commit_us: Option<u64>,
    /// The same with [`REST`] before each: processors sleep and caches go cold in between, as between the
    /// messages of a server that has little to do. Told beside; multiples are of the other.
    pub rested_commit_us: Option<u64>,
    /// A message's size from publisher to subscriber through the target's NATS.
    pub hop_us: Option<u64>,
}

impl Floors {
    /// Measures on this ground with messages of so many bytes.
    pub async fn measure(ground: &Ground, size: usize) -> Result<Self> {
        let loopback = tokio::task::spawn_blocking(move || loopback(size));
        let loopback_us = loopback.await?.context("the floor of the loopback address")?;
        let driver_us = driver().await.context("the floor of the driver")?;
        let mut floors = Self { loopback_us, driver_us, ..Self::default() };
        if let Some(url) = &ground.postgres {
            let (at_once, rested) = commit(url, size).await.context("the floor of Postgres")?;
            (floors.commit_us, floors.rested_commit_us) = (Some(at_once), Some(rested));
        }
        if let Some(url) = &ground.nats {
            floors.hop_us = Some(hop(url, size).await.context("the floor of NATS")?);
        }
        Ok(floors)
    }

    /// What no acknowledgement after a commit can be faster than.
    pub fn ack_us(&self) -> Option<u64> {
        self.commit_us.map(|commit_us| self.loopback_us + commit_us)
    }

    /// What no delivery after a commit, through the bus, can be faster than.
    pub fn delivered_us(&self) -> Option<u64> {
        Some(self.ack_us()? + self.hop_us?)
    }
}

/// The median of what `sample` takes.
#[derive(Debug)]
struct Sampler {
    begin: Instant,
    taken: Vec<Duration>,
}

impl Sampler {
    fn new() -> Self {
        Self { begin: Instant::now(), taken: Vec::new() }
    }

    fn wants_more(&self) -> bool {
        self.taken.len() < WARM_UP + SAMPLES && self.begin.elapsed() < LONGEST
    }

    fn took(&mut self, since: Instant) {
        self.taken.push(since.elapsed());
    }

    /// Microseconds.
    fn median(mut self) -> Result<u64> {
        let mut counted = self.taken.split_off(WARM_UP.min(self.taken.len() / 2));
        counted.sort_unstable();
        let median = counted.get(counted.len() / 2).context("too slow for a single sample")?;
        Ok(median.as_micros() as u64)
    }
}

fn loopback(size: usize) -> Result<u64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let echo = thread::spawn(move || -> Result<()> {
        let mut body = vec![0; size];
        // Until the other end is closed.
        while far.read_exact(&mut body).is_ok() {
            far.write_all(&body)?;
        }
        Ok(())
    });
    let (mut sampler, mut body) = (Sampler::new(), vec![0x5e; size]);
    while sampler.wants_more() {
        let since = Instant::now();
        near.write_all(&body)?;
        near.read_exact(&mut body)?;
        sampler.took(since);
    }
    drop(near);
    echo.join().ok().context("the echo failed")??;
    sampler.median()
}

/// A short run of the driver against nothing.
async fn driver() -> Result<u64> {
    let load = Load {
        rate: 1_000.0,
        arrivals: Arrivals::Constant,
        warm_up_s: 0.1,
        duration_s: SAMPLES as f64 / 1_000.0,
        ..Load::default()
    };
    let plan = Plan::new(Pattern::Pairs, 2, 1)?;
    let links = Null.prepare(&plan).await?;
    let (_, outcome) = drive::run(links, &plan, &load, &[], &|_, _| {}).await?;
    Ok(outcome.tally.delivered.value_at_quantile(0.5))
}

/// One after another, and with rests; in a table of its own in a schema of its own, gone afterwards.
async fn commit(url: &str, size: usize) -> Result<(u64, u64)> {
    const MAKE: &str = "DROP SCHEMA IF EXISTS lab_floor CASCADE; CREATE SCHEMA lab_floor;
                        CREATE TABLE lab_floor.rows (body bytea NOT NULL)";
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(MAKE).await?;
    let body = vec![0x5e_u8; size];
    let mut medians = Vec::new();
    for rest in [Duration::ZERO, REST] {
        let mut sampler = Sampler::new();
        while sampler.wants_more() {
            if !rest.is_zero() {
                tokio::time::sleep(rest).await;
            }
            let since = Instant::now();
            sqlx::query("INSERT INTO lab_floor.rows VALUES ($1)")
                .bind(&body)
                .execute(&mut connection)
                .await?;
            sampler.took(since);
        }
        medians.push(sampler.median()?);
    }
    connection.execute("DROP SCHEMA lab_floor CASCADE").await?;
    connection.close().await?;
    Ok((medians[0], medians[1]))
}

async fn hop(url: &str, size: usize) -> Result<u64> {
    let publisher = ConnectOptions::new().connect(url).await?;
    let subscriber = ConnectOptions::new().connect(url).await?;
    let mut inbox = subscriber.subscribe(SUBJECT).await?;
    let body = bytes::Bytes::from(vec![0x5e; size]);
    // By the subscriber's own connection: when it comes, the server knows the subscription.
    subscriber.publish(SUBJECT, body.clone()).await?;
    inbox.next().await.context("NATS has ended")?;
    let mut sampler = Sampler::new();
    while sampler.wants_more() {
        let since = Instant::now();
        publisher.publish(SUBJECT, body.clone()).await?;
        let came = tokio::time::timeout(PATIENCE, inbox.next()).await;
        came.ok().flatten().context("a message did not come")?;
        sampler.took(since);
    }
    sampler.median()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_is_the_sum_of_what_must_be_passed() {
        let floors = Floors {
            loopback_us: 30,
            driver_us: 90,
            commit_us: Some(100),
            hop_us: Some(50),
            ..Floors::default()
        };
        assert_eq!((floors.ack_us(), floors.delivered_us()), (Some(130), Some(180)));
        let alone = Floors { loopback_us: 30, ..Floors::default() };
        assert_eq!((alone.ack_us(), alone.delivered_us()), (None, None));
    }

    #[tokio::test]
    async fn the_machine_and_the_driver_have_a_floor_without_servers() {
        let floors = Floors::measure(&Ground::default(), 256).await.expect("it measures");
        assert!(floors.loopback_us > 0 && floors.driver_us > 0, "{floors:?}");
        assert_eq!(floors.ack_us(), None);
    }
}

//! A backlog: how fast messages are stored for people who are away, and how fast they get them when they
//! all come back at once.
//!
//! The left half of the clients writes, each to one of the right half, in a closed loop. Then the right
//! half connects, asks where its conversations stand, and fetches what it lacks, as clients do.

use crate::{
    drive::{self, Load},
    experiment::Say,
    loops,
    machine::{self, DRIVER},
    pacer::Shot,
    plan::{Pattern, Plan},
    record::{Counted, Ear, Recorder},
    target::{
        Link, Target,
        fastchat::{Entrance, FastChat, Setup, connect, connect_one},
    },
};
use anyhow::{Result, ensure};
use async_trait::async_trait;
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Nothing new for so long, and the drain has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Backlog {
    /// Messages that were stored.
    pub messages: u64,
    /// Stored a second.
    pub stored_per_s: f64,
    /// Processor time of the servers for storing one, microseconds.
    pub stored_cpu_us: f64,
    /// Fetched a second, from the first connection to the last row.
    pub drained_per_s: f64,
    /// Processor time of the servers for one that was fetched, microseconds.
    pub drained_cpu_us: f64,
    /// Messages that never came, or came wrongly.
    pub faults: u64,
}

/// Somebody who is away.
#[derive(Debug)]
struct Away;

#[async_trait]
impl Link for Away {
    async fn run(&mut self, _: mpsc::Receiver<Shot>, _: &mut Ear, end: CancellationToken) -> Result<()> {
        end.cancelled().await;
        Ok(())
    }
}

/// Builds a backlog for so long, and drains it.
pub async fn run(setup: Setup, clients: usize, load: &Load, say: Say<'_>) -> Result<Backlog> {
    ensure!(load.window.is_some(), "a backlog is built in a closed loop");
    let mut target = FastChat::new(setup);
    let plan = Plan::new(Pattern::Halves, clients, 1)?;
    say(&format!("{}: {} write to {} who are away", target.name(), clients / 2, clients / 2));
    let mut writers = target.people(&plan).await?;
    let readers = writers.split_off(clients / 2);
    let mut links = connect(writers).await?;
    links.extend(readers.iter().map(|_| Box::new(Away) as Box<dyn Link>));
    let components = target.components();
    let progress = |second: f64, counted: Counted| say(&format!("{second:5.0} s: {} stored", counted.acked));
    let (links, outcome) = drive::run(links, &plan, load, &components, &progress).await?;
    drop(links);
    let (messages, measured) = (outcome.counted.acked, outcome.tally.acked.len().max(1) as f64);
    let stored_cpu: u64 = servers(&outcome.used).sum();

    let before = machine::usage(&components)?;
    let (drained, elapsed) = drain(readers, messages, say).await?;
    let used = machine::between(&before, &machine::usage(&components)?);
    let drained_cpu: u64 = servers(&used).sum();
    Ok(Backlog {
        messages,
        stored_per_s: measured / outcome.measured_s,
        stored_cpu_us: stored_cpu as f64 / measured,
        drained_per_s: drained as f64 / elapsed.as_secs_f64(),
        drained_cpu_us: drained_cpu as f64 / drained.max(1) as f64,
        faults: messages.abs_diff(drained),
    })
}

fn servers(used: &std::collections::BTreeMap<String, machine::Usage>) -> impl Iterator<Item = u64> {
    used.iter().filter(|(name, _)| *name != DRIVER).map(|(_, usage)| usage.cpu_us)
}

/// Connects the readers all at once; how much came, and how long that took.
async fn drain(readers: Vec<Entrance>, messages: u64, say: Say<'_>) -> Result<(u64, Duration)> {
    let (recorder, end) = (Recorder::new(Duration::ZERO, messages, 1, None), CancellationToken::new());
    let mut tasks = JoinSet::new();
    for (client, reader) in readers.into_iter().enumerate() {
        let (mut ear, end) = (Ear::new(client, &recorder), end.clone());
        let living = async move {
            let mut link = connect_one(reader).await?;
            // Held open: without it the client would hear that nobody will ever send.
            let (_shots, none) = mpsc::channel(1);
            link.run(none, &mut ear, end).await
        };
        tasks.spawn_on(living, loops::of(client));
    }
    let (mut before, mut moved) = (0, Instant::now());
    while before < messages && moved.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = recorder.counted().delivered;
        if now != before {
            (before, moved) = (now, Instant::now());
        }
    }
    let elapsed = moved - recorder.begin();
    say(&format!("{before} of {messages} fetched in {:.2} s", elapsed.as_secs_f64()));
    end.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok((before, elapsed))
}

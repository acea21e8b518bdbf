//! The gateway's writer alone, beside bare rows that are inserted by the hundred into the same Postgres.

use super::{
    people::{EPOCH, People},
    servers::Servers,
};
use crate::{
    experiment::Say,
    plan::{Pattern, Plan},
    target::fastchat::Setup,
};
use anyhow::{Context, Result, ensure};
use fastchat_gateway::{
    limits::BATCH_WAIT,
    store::{Append, Outcome},
    writer::Writer,
};
use fastchat_protocol::{Bytes, ConversationId, Counter, DeviceId};
use serde::Serialize;
use sqlx::{Connection, Executor, PgConnection};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, task::JoinSet};

/// Rows of a bare insert.
const ROWS: usize = 100;
/// Envelopes that each sender has on its way.
const WINDOW: usize = 16;
/// How long each is measured in each round.
const ROUND: Duration = Duration::from_secs(3);

/// What was measured: medians of all rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Alone {
    /// Envelopes that the writer committed a second.
    pub writer_per_s: f64,
    /// Bare rows of the same size a second, 100 in a transaction, by as many connections.
    pub bare_per_s: f64,
    /// The writer's, divided by the bare rows' of the same round.
    pub ratio: f64,
}

/// Who writes where.
#[derive(Debug, Clone)]
struct Sender {
    conversation: ConversationId,
    device: DeviceId,
    sent: Arc<AtomicU64>,
}

/// Measures both in turn, so often, with so many senders and bytes in an envelope.
pub async fn writer(senders: usize, size: usize, rounds: usize, say: Say<'_>) -> Result<Alone> {
    ensure!(rounds > 0 && senders > 0, "at least one round and one sender");
    let servers = Servers::start(&Setup { gateways: 1, ..Setup::default() }).await?;
    let ground = servers.ground().postgres.context("a fleet has a Postgres")?;
    let store = servers.store().await?;
    let people = People::make(&store, &Plan::new(Pattern::Pairs, senders * 2, 1)?).await?;
    let senders: Vec<_> = people
        .writers()
        .map(|(conversation, device)| Sender { conversation, device, sent: Arc::default() })
        .collect();
    let mut figures = Vec::new();
    for round in 1..=rounds {
        let bare = bare(&ground, store.lanes(), size).await?;
        let writer = Writer::spawn(Arc::clone(&store), BATCH_WAIT);
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for sender in &senders {
            tasks.spawn(send(writer.clone(), sender.clone(), size));
        }
        let mut committed = 0;
        while let Some(sent) = tasks.join_next().await {
            committed += sent??;
        }
        let ours = f64::from(committed) / began.elapsed().as_secs_f64();
        writer.close().await;
        say(&format!("round {round}: {ours:.0} envelopes/s, {bare:.0} bare rows/s"));
        figures.push((ours, bare));
    }
    let median = |of: fn(&(f64, f64)) -> f64| {
        let mut all: Vec<f64> = figures.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    Ok(Alone {
        writer_per_s: median(|round| round.0),
        bare_per_s: median(|round| round.1),
        ratio: median(|round| round.0 / round.1),
    })
}

/// One sender in its conversation, with a few on their way; how many were committed.
async fn send(writer: Writer, sender: Sender, size: usize) -> Result<u32> {
    let (began, room) = (Instant::now(), Arc::new(Semaphore::new(WINDOW)));
    let (committed, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let envelope = Bytes::from(vec![0x5e; size]);
    while began.elapsed() < ROUND {
        let permit = Arc::clone(&room).acquire_owned().await?;
        let append = Append {
            conversation: sender.conversation,
            device: sender.device,
            counter: Counter(sender.sent.fetch_add(1, Ordering::Relaxed) + 1),
            epoch: EPOCH,
            envelope: envelope.clone(),
        };
        let (committed, failed) = (Arc::clone(&committed), Arc::clone(&failed));
        let reply = Box::new(move |outcome| {
            match outcome {
                Ok(Outcome::Stored(_)) => committed.fetch_add(1, Ordering::Relaxed),
                _ => u64::from(failed.swap(true, Ordering::Relaxed)),
            };
            drop(permit);
        });
        writer.submit(append, reply)?;
    }
    // All that are on their way.
    drop(room.acquire_many(u32::try_from(WINDOW)?).await?);
    ensure!(!failed.load(Ordering::Relaxed), "an envelope was not committed");
    Ok(u32::try_from(committed.load(Ordering::Relaxed))?)
}

/// Rows a second, by as many connections as the writer has, into a table that is gone afterwards.
async fn bare(url: &str, lanes: usize, size: usize) -> Result<f64> {
    const MAKE: &str = "DROP SCHEMA IF EXISTS lab_bare CASCADE; CREATE SCHEMA lab_bare;
                        CREATE TABLE lab_bare.rows (id bigserial PRIMARY KEY, body bytea NOT NULL)";
    let mut first = PgConnection::connect(url).await?;
    first.execute(MAKE).await?;
    let (began, mut tasks) = (Instant::now(), JoinSet::new());
    for _ in 0..lanes {
        let (url, bodies) = (url.to_owned(), vec![vec![0x5e_u8; size]; ROWS]);
        tasks.spawn(async move {
            let mut connection = PgConnection::connect(&url).await?;
            let mut rows = 0;
            while began.elapsed() < ROUND {
                let insert = sqlx::query("INSERT INTO lab_bare.rows (body) SELECT unnest($1::bytea[])");
                rows += insert.bind(&bodies).execute(&mut connection).await?.rows_affected();
            }
            connection.close().await?;
            anyhow::Ok(rows)
        });
    }
    let mut rows = 0;
    while let Some(inserted) = tasks.join_next().await {
        rows += inserted??;
    }
    let per_s = rows as f64 / began.elapsed().as_secs_f64();
    first.execute("DROP SCHEMA lab_bare CASCADE").await?;
    first.close().await?;
    Ok(per_s)
}

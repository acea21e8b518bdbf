//! A thousand people come back at once, and what that costs in presence: counted, never timed.
#![expect(clippy::print_stdout, reason = "the figures of docs/performance.md")]

use anyhow::{Context, Result, ensure};
use fastchat_gateway::store::{
    Join, NewGroup, Store,
    postgres::{Options, Postgres},
};
use fastchat_protocol::{AccountId, ClientFrame, ConversationId, Counter, Epoch, Role, client::AskPresence};
use fastchat_tests::{
    cluster::Cluster,
    crowd::{self, Extra},
    raw::RawClient,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::time::Duration;

const PEOPLE: usize = 1_000;
/// A tenth of them watch.
const WATCHERS: usize = 100;
const WATCHED: usize = 20;
/// Connections that are made at a time.
const DIALLING: usize = 100;

/// Presence in both gateways' metrics.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Counted {
    /// Records given to the bus.
    published: f64,
    /// Frames queued for clients.
    told: f64,
}

async fn counted(cluster: &mut Cluster) -> Result<Counted> {
    let mut counted = Counted { published: 0.0, told: 0.0 };
    for n in 0..cluster.gateways() {
        let (_, text) = cluster.gateway(n).admin("/metrics").await?;
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(name) && line.contains("kind=\"presence\""));
            line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
        };
        counted.published += value("fastchat_hints_published_total");
        counted.told += value("fastchat_hints_total");
    }
    Ok(counted)
}

/// One group of everybody, so that all of them are acquainted.
async fn acquaint(database: &str, people: &[Extra]) -> Result<()> {
    let (url, application_name) = (database.to_owned(), "storm".to_owned());
    let store = Postgres::connect(&Options { url, max_connections: 2, application_name })?;
    let role = |at| if at == 0 { Role::Owner } else { Role::Member };
    let founding = NewGroup {
        conversation: ConversationId::new(rand::random()),
        device: people[0].device(),
        counter: Counter(0),
        parent: None,
        suite: 1,
        epoch: Epoch { generation: 0, number: 1 },
        group_info: "info".into(),
        state: "state".into(),
        tree: "tree".into(),
        members: people.iter().enumerate().map(|(at, one)| (one.account(), role(at))).collect(),
        joins: people[1..].iter().map(|one| Join { device: one.device(), welcome: None }).collect(),
    };
    store.found_group(founding).await?;
    Ok(())
}

/// All of them at once, half at each gateway; the first ones watch others as soon as they are there.
async fn come(cluster: &mut Cluster, people: &[Extra], watchers: usize) -> Result<Vec<RawClient>> {
    let addresses: Vec<_> = (0..cluster.gateways()).map(|n| cluster.gateway(n).address()).collect();
    let accounts: Vec<AccountId> = people.iter().map(Extra::account).collect();
    let coming = people.iter().enumerate().map(|(at, one)| {
        let (address, accounts) = (addresses[at % addresses.len()].clone(), &accounts);
        async move {
            let mut client = one.connect(&address, None).await.context(address)?;
            if at < watchers {
                // Each others, spread over both gateways and over who comes early and late.
                let step = PEOPLE / WATCHED + 1;
                let accounts = (1..=WATCHED).map(|n| accounts[(at + n * step) % PEOPLE]).collect();
                client.send(1, &ClientFrame::AskPresence(AskPresence { accounts, watch_s: 120 })).await?;
            }
            anyhow::Ok(client)
        }
    });
    stream::iter(coming).buffer_unordered(DIALLING).try_collect().await
}

/// Waits until nothing is counted any more.
async fn settled(cluster: &mut Cluster) -> Result<Counted> {
    let mut last = counted(cluster).await?;
    loop {
        // Longer than a going lingers and a question is waited for.
        tokio::time::sleep(Duration::from_secs(9)).await;
        let now = counted(cluster).await?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_who_come_back_cost_presence_only_where_somebody_looks() -> Result<()> {
    let mut cluster = Cluster::fleet(2).await?;
    let people = crowd::enrol(cluster.database(), PEOPLE).await?;
    acquaint(cluster.database(), &people).await?;

    let here = come(&mut cluster, &people, 0).await?;
    let alone = settled(&mut cluster).await?;
    println!("{PEOPLE} came back, nobody looks: {alone:?}");
    assert_eq!(alone, Counted { published: 0.0, told: 0.0 }, "connecting costs no presence");

    drop(here);
    let gone = settled(&mut cluster).await?;
    assert_eq!(gone, alone, "nor does going");

    let here = come(&mut cluster, &people, WATCHERS).await?;
    let looked_at = settled(&mut cluster).await?;
    println!("{PEOPLE} came back, {WATCHERS} look at {WATCHED} each: {looked_at:?}");
    let pairs = (WATCHERS * WATCHED) as f64;
    // Each watcher hears of each once, and once more if it looked before that one had come.
    ensure!((pairs..=2.0 * pairs).contains(&looked_at.told), "{looked_at:?}");
    // A question and its answer; after silence again, and once more when that one came.
    ensure!(looked_at.published <= 4.0 * pairs, "{looked_at:?}");

    // All who are looked at go: each watcher is gone as well, so nobody is told.
    drop(here);
    let after = settled(&mut cluster).await?;
    println!("and went again: {after:?}");
    ensure!(after.published - looked_at.published <= 4.0 * pairs, "{after:?}");
    Ok(())
}

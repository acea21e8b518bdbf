//! Stories of a fleet: real gateways, a real balancer, real NATS, Postgres and Prometheus.

use anyhow::{Context, Result, ensure};
use fastchat_protocol::Bytes;
use fastchat_tests::{
    balancer::BalancerProcess,
    cluster::Cluster,
    crowd::{self, Crowd, Extra},
    process::Process,
    servers::{Job, PrometheusServer},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

const LONG: Duration = Duration::from_secs(60);

/// Where a balancer's answer sends a client: `host:port` and the ticket.
fn place(answer: &Value) -> Result<(String, Option<Bytes>)> {
    let url = answer["url"].as_str().with_context(|| format!("no gateway: {answer}"))?;
    let ticket = answer["ticket"].as_str().map(hex::decode).transpose()?.map(Bytes::from);
    Ok((url.trim_start_matches("ws://").to_owned(), ticket))
}

/// Asks so often; how often each `host:port` was the answer.
async fn ask(balancer: &BalancerProcess, times: usize) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        let (address, _) = place(&balancer.assign(&json!({})).await?.1)?;
        *counts.entry(address).or_insert(0) += 1;
    }
    Ok(counts)
}

/// Lets devices ask the balancer and go where it says.
async fn arrive(balancer: &BalancerProcess, crowd: &mut Crowd, extras: Vec<Extra>) -> Result<()> {
    let mut going = Vec::new();
    for extra in extras {
        let (address, ticket) = place(&balancer.assign(&json!({})).await?.1)?;
        going.push((extra, address, ticket));
    }
    crowd.join(going).await
}

/// Waits until the balancer believes that these gateways have so many connections.
async fn reported(balancer: &BalancerProcess, wanted: &[(String, usize)]) -> Result<()> {
    let says = |fleet: &Value, (url, count): &(String, usize)| {
        let views = fleet["gateways"].as_array().into_iter().flatten();
        views.filter(|view| view["url"] == *url).any(|view| view["connections"] == *count)
    };
    balancer.wait_for_fleet(|fleet| wanted.iter().all(|one| says(fleet, one))).await
}

/// Every strategy, with `source` as the balancer's source of load: gateways 0, 1 and 2 have 60, 20 and
/// no connections, and the first two are busy.
async fn strategies(cluster: &mut Cluster, balancer: &BalancerProcess) -> Result<()> {
    let at = |n: usize| cluster.url(n).trim_start_matches("ws://").to_owned();
    let mut crowd = Crowd::default();
    let mut extras = crowd::enrol(cluster.database(), 190).await?;
    let mut some = |count: usize| extras.split_off(extras.len() - count);
    for (n, count) in [(0, 60), (1, 20)] {
        crowd.join(some(count).into_iter().map(|extra| (extra, at(n), None)).collect()).await?;
    }
    reported(balancer, &[(cluster.url(0), 60), (cluster.url(1), 20), (cluster.url(2), 0)]).await?;
    let share = |counts: &BTreeMap<String, usize>, n: usize| counts.get(&at(n)).copied().unwrap_or(0);

    balancer.command(&["strategy", "least-connections"]).await?;
    assert_eq!(share(&ask(balancer, 30).await?, 2), 30, "the fewest connections");
    balancer.command(&["strategy", "round-robin"]).await?;
    let counts = ask(balancer, 30).await?;
    assert!((0..3).all(|n| share(&counts, n) == 10), "each in its turn: {counts:?}");
    balancer.command(&["strategy", "random"]).await?;
    let counts = ask(balancer, 300).await?;
    assert!((0..3).all(|n| (60..140).contains(&share(&counts, n))), "all alike: {counts:?}");
    balancer.command(&["strategy", "weighted"]).await?;
    let counts = ask(balancer, 300).await?;
    let [most, some_more, fewest] = [2, 1, 0].map(|n| share(&counts, n));
    assert!(most > some_more && some_more > fewest && fewest > 0, "by inverse load: {counts:?}");

    balancer.command(&["strategy", "min-load"]).await?;
    let busy = tokio::spawn(keep_busy(some(10), vec![at(0), at(1)]));
    let began = Instant::now();
    while share(&ask(balancer, 10).await?, 2) < 10 {
        ensure!(began.elapsed() < LONG, "clients go to busy gateways: {}", balancer.admin("/fleet").await?.1);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    busy.abort();

    balancer.command(&["strategy", "p2c"]).await?;
    // Devices that kept the gateways busy are gone, and those that were asked for and never came are
    // forgotten, before the next ones come.
    reported(balancer, &[(cluster.url(0), 60), (cluster.url(1), 20), (cluster.url(2), 0)]).await?;
    let forgotten = |fleet: &Value| {
        fleet["gateways"].as_array().is_some_and(|all| all.iter().all(|view| view["own"] == 0))
    };
    balancer.wait_for_fleet(forgotten).await?;
    arrive(balancer, &mut crowd, some(100)).await?;
    assert!(crowd.imbalance(3) <= 1.15, "180 devices on three gateways: {:?}", crowd.counts());
    assert_eq!(crowd.lost(), Vec::<String>::new());
    Ok(())
}

/// Connects again and again, which costs a gateway signatures and questions to the store.
async fn keep_busy(extras: Vec<Extra>, places: Vec<String>) {
    let one = |(n, extra): (usize, Extra)| {
        let address = places[n % places.len()].clone();
        async move {
            loop {
                let _ = extra.connect(&address, None).await;
            }
        }
    };
    futures_util::future::join_all(extras.into_iter().enumerate().map(one)).await;
}

const SMALL: &[&str] = &["--max-connections", "200", "--load-scope", "process"];

#[tokio::test(flavor = "multi_thread")]
async fn every_strategy_places_clients_as_it_says_by_heartbeats() -> Result<()> {
    let mut cluster = Cluster::fleet_with(3, SMALL).await?;
    let nats = cluster.nats().url();
    // 60, 20 and none are to stay so.
    let balancer = BalancerProcess::start(&["--bus", &nats, "--move-sessions", "off"]).await?;
    balancer.wait_for(|ready| ready["live"] == 3).await?;
    strategies(&mut cluster, &balancer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_strategy_places_clients_as_it_says_by_prometheus() -> Result<()> {
    let mut cluster = Cluster::fleet_with(3, SMALL).await?;
    let targets: Vec<_> = (0..3).map(|n| cluster.gateway(n).admin_address()).collect();
    let prometheus =
        PrometheusServer::start(Duration::from_secs(1), &[Job::new("gateway", targets)], &[]).await?;
    let source = format!("prometheus={}", prometheus.url());
    let balancer =
        BalancerProcess::start(&["--load-source", &source, "--scrape-interval-ms", "1000"]).await?;
    balancer.wait_for(|ready| ready["live"] == 3).await?;
    strategies(&mut cluster, &balancer).await
}

/// A balancer's key in a file, and its public half.
async fn ticket_key() -> Result<(tempfile::NamedTempFile, String)> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), "07".repeat(32))?;
    let process = Process::spawn("fastchat-balancer", |command| {
        command.arg("ticket-public-key").arg("--ticket-key-file").arg(file.path());
    })?;
    let (status, public) = process.finish().await?;
    ensure!(status.success(), "no public key");
    Ok((file, public.trim().to_owned()))
}

/// 320 devices come at once to four gateways whose reports are as much as five seconds old; the last of
/// them is a little less loaded.
async fn herd(strategy: &str) -> Result<f64> {
    let (key, public) = ticket_key().await?;
    let settings = ["--heartbeat-ms", "5000", "--tickets", "required", "--balancer-key", &public];
    let mut cluster = Cluster::fleet_with(4, &settings).await?;
    let nats = cluster.nats().url();
    let balancer = BalancerProcess::start(&[
        "--bus",
        &nats,
        "--strategy",
        strategy,
        // Where they land is what is looked at.
        "--move-sessions",
        "off",
        "--ticket-key-file",
        key.path().to_str().context("a path")?,
    ])
    .await?;
    balancer.wait_for(|ready| ready["live"] == 4).await?;
    let mut crowd = Crowd::default();
    // Three of four in turn: without the last one, which is excluded.
    let last = cluster.url(3);
    balancer.command(&["strategy", "round-robin"]).await?;
    let mut going = Vec::new();
    for extra in crowd::enrol(cluster.database(), 30).await? {
        let (address, ticket) = place(&balancer.assign(&json!({"exclude": [last]})).await?.1)?;
        going.push((extra, address, ticket));
    }
    crowd.join(going).await?;
    balancer.command(&["strategy", strategy]).await?;
    let all: Vec<_> = (0..4).map(|n| (cluster.url(n), if n < 3 { 10 } else { 0 })).collect();
    reported(&balancer, &all).await?;
    let extras = crowd::enrol(cluster.database(), 320).await?;
    arrive(&balancer, &mut crowd, extras).await?;
    ensure!(crowd.lost().is_empty(), "{:?}", crowd.lost());
    Ok(crowd.imbalance(4))
}

#[tokio::test(flavor = "multi_thread")]
async fn real_gateways_with_old_reports_agree_with_the_simulation() -> Result<()> {
    let (choices, herding) = (herd("p2c").await?, herd("least-connections").await?);
    assert!(choices <= 1.10, "two choices: max/mean {choices}");
    // All to one gateway is 4; a report in the middle of it divides the herd.
    assert!(herding >= 1.9, "the fewest connections, seen late: max/mean {herding}");
    Ok(())
}

//! Stories of people who chat while the fleet under them changes. Nobody sees an error, nothing is lost.

use anyhow::{Result, ensure};
use fastchat_tests::{
    balancer::BalancerProcess,
    cluster::Cluster,
    crowd::{self, Crowd},
    load::{Load, Outcome},
};
use std::time::{Duration, Instant};

/// Messages in a second. What the goal says is 200, of which clients without optimisation can only carry a
/// part on a small machine: `CARGO_PROFILE_DEV_OPT_LEVEL=2 RATE=200 scripts/test -E 'test(three_gateways)'`.
fn rate() -> f64 {
    std::env::var("RATE").ok().and_then(|rate| rate.parse().ok()).unwrap_or(60.0)
}

/// Gateways and a balancer to which they report.
async fn stage(gateways: usize, settings: &[&str]) -> Result<(Cluster, BalancerProcess)> {
    let settings: Vec<_> = ["--load-scope", "process"].iter().chain(settings).copied().collect();
    let mut cluster = Cluster::fleet_with(gateways, &settings).await?;
    let nats = cluster.nats().url();
    let balancer = BalancerProcess::start(&["--bus", &nats]).await?;
    balancer.wait_for(|ready| ready["live"] == gateways).await?;
    Ok((cluster, balancer))
}

/// Nobody saw anything of it.
fn assert_calm(outcome: &Outcome) {
    assert_eq!(outcome.errors, Vec::<String>::new());
    assert_eq!(outcome.acked, outcome.sent);
    assert_eq!(outcome.interruptions, Vec::<String>::new(), "somebody was told that the connection is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_gateways_are_restarted_in_turn_under_load() -> Result<()> {
    let (mut cluster, balancer) = stage(3, &["--drain-seconds", "12"]).await?;
    let folder = tempfile::tempdir()?;
    let load = Load::gather(&balancer.url(), 10, folder.path()).await?;
    // Clients leave within eight of the twelve seconds: the rest is for changing gateways on a machine that
    // has much else to do.
    let restarting = async {
        for n in 0..3 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            cluster.gateway(n).terminate().await?;
            cluster.gateway(n).start().await?;
        }
        anyhow::Ok(())
    };
    let (outcome, restarted) = tokio::join!(load.run(rate(), Duration::from_secs(40)), restarting);
    restarted?;
    let outcome = outcome?;
    assert_calm(&outcome);
    let p99 = outcome.delay(0.99);
    assert!(p99 <= Duration::from_secs(3), "from send to sight, p99: {p99:?}");
    load.judge().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_that_is_gone_disturbs_nobody() -> Result<()> {
    let (mut cluster, mut balancer) = stage(3, &[]).await?;
    let folder = tempfile::tempdir()?;
    let load = Load::gather(&balancer.url(), 5, folder.path()).await?;
    let killing = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        balancer.process.kill().await
    };
    let (outcome, killed) = tokio::join!(load.run(20.0, Duration::from_secs(6)), killing);
    killed?;
    assert_calm(&outcome?);
    // Whoever loses a gateway now finds another one among those that it knows.
    let losing = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.gateway(0).kill().await
    };
    let (outcome, lost) = tokio::join!(load.run(20.0, Duration::from_secs(10)), losing);
    lost?;
    let outcome = outcome?;
    assert_eq!((outcome.acked, outcome.errors), (outcome.sent, Vec::new()));
    load.judge().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_added_gets_its_share_within_a_minute() -> Result<()> {
    let (mut cluster, balancer) = stage(2, &[]).await?;
    let folder = tempfile::tempdir()?;
    let load = Load::gather(&balancer.url(), 5, folder.path()).await?;
    let mut crowd = Crowd::default();
    let extras = crowd::enrol(cluster.database(), 290).await?;
    let at = |(n, extra)| (extra, cluster.url(n % 2).trim_start_matches("ws://").to_owned(), None);
    crowd.join(extras.into_iter().enumerate().map(at).collect()).await?;
    // Sessions that have just begun stay where they are for a moment.
    tokio::time::sleep(Duration::from_secs(12)).await;

    let balance = async {
        cluster.grow().await?;
        let began = Instant::now();
        while crowd.imbalance(3) > 1.2 {
            ensure!(began.elapsed() < Duration::from_secs(60), "{:?} {:?}", crowd.counts(), crowd.lost());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::Ok(began.elapsed())
    };
    let (outcome, balanced) = tokio::join!(load.run(20.0, Duration::from_secs(40)), balance);
    let took = balanced?;
    assert_calm(&outcome?);
    assert_eq!(crowd.lost(), Vec::<String>::new(), "moved in {took:?}");
    // It stays so: nobody is moved to and fro.
    let before = crowd.counts();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(crowd.imbalance(3) <= 1.2, "{before:?}, then {:?}", crowd.counts());
    load.judge().await
}

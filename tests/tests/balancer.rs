//! The balancer as a process, on a real NATS: heartbeats of gateways come from the test, samples from an
//! endpoint that speaks as much of Prometheus' query API as the balancer asks for.

#[path = "balancer/fleet.rs"]
mod fleet;
#[path = "balancer/moving.rs"]
mod moving;
#[path = "balancer/prometheus.rs"]
mod prometheus;
#[path = "balancer/scraped.rs"]
mod scraped;
#[path = "balancer/tls.rs"]
mod tls;

use anyhow::{Context, Result};
use fastchat_delivery::ticket;
use fastchat_tests::{
    balancer::{BalancerProcess, http},
    process::{Process, Signal},
    servers::NatsServer,
};
use fleet::{Fleet, assign_many, gateway};
use prometheus::FakePrometheus;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

const LONG: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_assigned_as_each_strategy_says_and_it_changes_at_run_time() -> Result<()> {
    let nats = NatsServer::start()?;
    let fleet = Fleet::start(&nats.url(), 8).await?;
    for (n, connections) in (0..).zip([100, 200, 300, 400, 500, 600, 700, 800]) {
        fleet.change(n, |beat| {
            beat.cpu_permille = 1_000 - connections as u32;
            (beat.connections, beat.capacity) = (connections, 1_000);
        });
    }
    let balancer = BalancerProcess::start(&["--bus", &nats.url()]).await?;
    balancer.wait_for(|ready| ready["live"] == 8).await?;

    let share = |counts: &BTreeMap<usize, usize>, n: usize| counts.get(&n).copied().unwrap_or(0);
    balancer.command(&["strategy", "least-connections"]).await?;
    assert_eq!(share(&assign_many(&balancer, 50).await?, 0), 50);
    balancer.command(&["strategy", "min-load"]).await?;
    assert_eq!(share(&assign_many(&balancer, 50).await?, 7), 50);
    balancer.command(&["strategy", "round-robin"]).await?;
    let counts = assign_many(&balancer, 80).await?;
    assert!((0..8).all(|n| share(&counts, n) == 10), "{counts:?}");
    balancer.command(&["strategy", "random"]).await?;
    let counts = assign_many(&balancer, 800).await?;
    assert!((0..8).all(|n| (50..160).contains(&share(&counts, n))), "{counts:?}");
    balancer.command(&["strategy", "weighted"]).await?;
    let counts = assign_many(&balancer, 800).await?;
    assert!(share(&counts, 0) > 2 * share(&counts, 7) && share(&counts, 7) > 10, "{counts:?}");
    balancer.command(&["strategy", "p2c"]).await?;
    // Reports say 100 to 800 and go on saying it: the own assignments since each report are what levels.
    let counts = assign_many(&balancer, 800).await?;
    assert!(share(&counts, 0) > share(&counts, 3) && share(&counts, 0) <= 250, "{counts:?}");
    assert!(share(&counts, 7) < 60, "{counts:?}");

    let wrong = balancer.run(&["strategy", "best"]).await?;
    assert!(wrong.0 == Some(1) && wrong.1.contains("p2c"), "{wrong:?}");
    assert_eq!(balancer.command(&["strategy"]).await?.trim(), "p2c");
    let metrics = balancer.admin("/metrics").await?.1;
    for line in [
        "fastchat_balancer_assignments_total{strategy=\"p2c\",basis=\"live\"} 800",
        "fastchat_balancer_strategy{strategy=\"p2c\"} 1",
        "fastchat_balancer_gateways{state=\"live\"} 8",
        "fastchat_balancer_source_up{source=\"heartbeat\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is missing:\n{metrics}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_has_a_ticket_that_its_gateway_takes() -> Result<()> {
    let nats = NatsServer::start()?;
    let _fleet = Fleet::start(&nats.url(), 3).await?;
    let folder = tempfile::tempdir()?;
    let seed = folder.path().join("ticket-key");
    std::fs::write(&seed, "07".repeat(32))?;
    let seed = seed.display().to_string();
    let settings = ["--bus", &nats.url(), "--ticket-key-file", &seed];
    let balancer = BalancerProcess::start(&settings).await?;
    balancer.wait_for(|ready| ready["live"] == 3).await?;
    let public = balancer.run(&[&["ticket-public-key"][..], &settings].concat()).await?.1;
    let public: [u8; 32] = hex::decode(public.trim())?.try_into().ok().context("32 bytes")?;
    let public = ed25519_dalek::VerifyingKey::from_bytes(&public)?;

    let (status, answer) = balancer.assign(&json!({"key": "a client's own word", "versions": [1]})).await?;
    assert_eq!(status, 200, "{answer}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64;
    let alternatives = answer["alternatives"].as_array().context("a list")?;
    assert_eq!(alternatives.len(), 2);
    for place in alternatives.iter().chain([&answer]) {
        let bytes = hex::decode(place["ticket"].as_str().context("a ticket")?)?;
        let id = place["gateway"].as_str().context("an id")?.parse()?;
        let ticket = ticket::verify(&bytes, &[public], id, now)?;
        assert!((50_000..=60_500).contains(&(ticket.expires_at_ms - now)));
        assert!(ticket::verify(&bytes, &[public], gateway(9), now).is_err());
    }
    for (asked, named) in [(0, 0), (1, 1), (16, 2)] {
        let (_, answer) = balancer.assign(&json!({"alternatives": asked})).await?;
        assert_eq!(answer["alternatives"].as_array().context("a list")?.len(), named, "{asked}: {answer}");
    }
    // The same key, the same pair of gateways; an excluded one is avoided.
    let chosen = answer["url"].clone();
    let (_, other) = balancer.assign(&json!({"exclude": [chosen]})).await?;
    assert_ne!(other["url"], chosen);
    let (status, answer) = balancer.assign(&json!({"versions": [99]})).await?;
    assert_eq!((status, answer["error"].as_str().is_some()), (503, true), "{answer}");

    let explained = balancer.command(&["explain", "--last", "1"]).await?;
    assert!(explained.contains(other["url"].as_str().context("a URL")?), "{explained}");
    assert!(!balancer.admin("/explain/10").await?.1.contains("own word"), "a key may name a person");
    assert!(!balancer.log().contains("own word"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_told_what_is_wrong() -> Result<()> {
    let nats = NatsServer::start()?;
    let balancer = BalancerProcess::start(&["--bus", &nats.url()]).await?;
    assert_eq!(balancer.admin("/livez").await?.0, 200);
    assert_eq!(balancer.admin("/readyz").await?.0, 503, "nobody is known");
    let (status, answer) = balancer.assign(&json!({})).await?;
    assert_eq!((status, &answer["error"]), (503, &json!("no gateway has reported yet")));
    let long = "x".repeat(9_000);
    for (body, status) in [
        (json!([1]), 400),
        (json!({"key": 1}), 400),
        (json!({"key": "x".repeat(129)}), 400),
        (json!({"exclude": vec!["x"; 17]}), 400),
        (json!({"versions": [70_000]}), 400),
        (json!({"alternatives": 17}), 400),
        (json!({"alternatives": -1}), 400),
        (json!({"key": long}), 413),
    ] {
        let (answered, answer) = balancer.assign(&body).await?;
        assert_eq!(answered, status, "{answer}");
        assert!(answer["error"].is_string(), "{answer}");
    }
    // A page of a browser could send this form without asking first: it is not JSON.
    let form =
        http(&balancer.admin_address(), "POST", "/drain", "text/plain", "{\"gateway\":\"ab\"}").await?;
    assert_eq!(form.0, 415, "{form:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_drains_gets_nobody_and_comes_back() -> Result<()> {
    let nats = NatsServer::start()?;
    let fleet = Fleet::start(&nats.url(), 3).await?;
    let balancer = BalancerProcess::start(&["--bus", &nats.url()]).await?;
    balancer.wait_for(|ready| ready["live"] == 3).await?;
    let id = gateway(0).to_string();
    for name in ["ws://127.0.0.1:1000", &id, &id[..6]] {
        balancer.command(&["drain", name]).await?;
        assert!(!assign_many(&balancer, 40).await?.contains_key(&0), "drained as {name}");
        balancer.command(&["undrain", name]).await?;
        assert!(assign_many(&balancer, 60).await?.contains_key(&0));
    }
    assert_eq!(balancer.run(&["drain", "ws://nobody"]).await?.0, Some(1));
    // One that says so itself, and one that went silent.
    fleet.change(1, |beat| beat.draining = true);
    fleet.silence(2);
    balancer.wait_for(|ready| ready["live"] == 1).await?;
    assert_eq!(assign_many(&balancer, 20).await?, BTreeMap::from([(0, 20)]));
    let table = balancer.command(&["fleet"]).await?;
    assert!(table.contains("draining") && table.contains("stale") && table.contains("live"), "{table}");
    let json: Value = serde_json::from_str(&balancer.command(&["fleet", "--json"]).await?)?;
    assert_eq!(json["gateways"].as_array().context("a list")?.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lying_heartbeats_do_no_harm() -> Result<()> {
    let nats = NatsServer::start()?;
    let fleet = Fleet::start(&nats.url(), 8).await?;
    (0..8).for_each(|n| fleet.change(n, |beat| beat.connections = 1_000));
    // Huge; empty with room for everybody; a clock in another century; a period that never ends.
    fleet.change(0, |beat| beat.connections = u64::MAX);
    fleet.change(1, |beat| (beat.connections, beat.capacity) = (0, 3_000_000));
    fleet.change(2, |beat| beat.at_ms = u64::MAX);
    fleet.change(3, |beat| (beat.at_ms, beat.period_ms) = (0, u32::MAX));
    let balancer = BalancerProcess::start(&["--bus", &nats.url()]).await?;
    balancer.wait_for(|ready| ready["live"] == 8).await?;
    fleet.publish_raw(&format!("fc.v1.fleet.heartbeat.{}", gateway(5)), b"\xff not CBOR".to_vec()).await?;
    // Another gateway's heartbeat under this one's subject: it cannot be told who says it.
    fleet.publish_as(6, 5).await?;
    let counts = assign_many(&balancer, 800).await?;
    let share = |n: usize| counts.get(&n).copied().unwrap_or(0);
    assert!((0..8).all(|n| n == 1 || share(n) >= 40), "everybody gets clients: {counts:?}");
    assert!(share(1) <= 250, "the one that lies best gets 2/G at most: {counts:?}");
    let metrics = balancer.admin("/metrics").await?.1;
    assert!(metrics.contains("reports_total{source=\"heartbeat\",result=\"malformed\"} 2"), "{metrics}");
    assert!(metrics.contains("doubts{value=\"connections\"} 1"), "{metrics}");
    assert!(metrics.contains("doubts{value=\"clock\"} 2"), "{metrics}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_bus_leaves_the_last_picture_and_then_the_last_names() -> Result<()> {
    let mut nats = NatsServer::start()?;
    let fleet = Fleet::start(&nats.url(), 4).await?;
    let balancer = BalancerProcess::start(&["--bus", &nats.url()]).await?;
    balancer.wait_for(|ready| ready["live"] == 4).await?;
    nats.kill();
    let (_, answer) = balancer.assign(&json!({})).await?;
    assert_eq!(answer["basis"], "live", "the last picture is still good");
    balancer.wait_for(|ready| ready["live"] == 0 && ready["heartbeats"] == "down").await?;
    let (status, answer) = balancer.assign(&json!({})).await?;
    assert_eq!(
        (status, &answer["basis"], &answer["strategy"]),
        (200, &json!("last-known"), &json!("random"))
    );
    assert!(answer["reason"].as_str().is_some_and(|reason| reason.contains("nothing has reported for")));
    assert_eq!(balancer.admin("/readyz").await?.0, 200, "it can still name gateways");
    let counts = assign_many(&balancer, 400).await?;
    assert!((0..4).all(|n| (60..140).contains(&counts.get(&n).copied().unwrap_or(0))), "{counts:?}");
    nats.restart()?;
    balancer.wait_for(|ready| ready["live"] == 4 && ready["heartbeats"] == "up").await?;
    assert_eq!(balancer.assign(&json!({})).await?.1["basis"], "live");
    drop(fleet);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_alone_feeds_the_balancer_and_its_nonsense_is_not_believed() -> Result<()> {
    let prometheus = FakePrometheus::start(4).await?;
    (0..4).for_each(|n| prometheus.set(n, "fastchat_connections", ["100", "NaN", "-5", "+Inf"][n]));
    prometheus.set(1, "fastchat_cpu_ratio", "-Inf");
    let source = format!("prometheus={}", prometheus.url());
    let balancer = BalancerProcess::start(&["--load-source", &source, "--scrape-interval-ms", "500"]).await?;
    balancer.wait_for(|ready| ready["live"] == 4 && ready["prometheus"] == "up").await?;
    let counts = assign_many(&balancer, 400).await?;
    assert!((0..4).all(|n| (40..=200).contains(&counts.get(&n).copied().unwrap_or(0))), "{counts:?}");
    let json: Value = serde_json::from_str(&balancer.command(&["fleet", "--json"]).await?)?;
    assert_eq!(json["gateways"][0]["connections"], 100);
    for n in 1..4 {
        let gateway = &json["gateways"][n];
        assert!(gateway["connections"].is_null(), "{gateway}");
        assert!(gateway["doubts"].as_array().context("a list")?.contains(&json!("connections")), "{gateway}");
    }
    prometheus.set(2, "fastchat_draining", "1");
    balancer.wait_for(|ready| ready["live"] == 3).await?;
    // A scrape from tomorrow is refused; one from yesterday is stale.
    prometheus.shift(0, 86_400);
    prometheus.shift(1, -86_400);
    balancer.wait_for(|ready| ready["live"] == 1).await?;
    assert_eq!(assign_many(&balancer, 10).await?, BTreeMap::from([(3, 10)]));
    prometheus.break_off();
    balancer.wait_for(|ready| ready["live"] == 0 && ready["prometheus"] == "down").await?;
    assert_eq!(balancer.assign(&json!({})).await?.1["basis"], "last-known");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn either_source_goes_on_while_the_other_is_away() -> Result<()> {
    let mut nats = NatsServer::start()?;
    let fleet = Fleet::start(&nats.url(), 3).await?;
    let prometheus = FakePrometheus::start(3).await?;
    (0..3).for_each(|n| prometheus.set(n, "fastchat_connections", "700"));
    let sources = format!("heartbeats,prometheus={}", prometheus.url());
    let settings = ["--bus", &nats.url(), "--load-source", &sources, "--scrape-interval-ms", "1000"];
    let balancer = BalancerProcess::start(&settings).await?;
    balancer.wait_for(|ready| ready["live"] == 3 && ready["prometheus"] == "up").await?;
    fleet.change(0, |beat| beat.connections = 5);
    let connections = |fleet: &Value| fleet["gateways"][0]["connections"].as_u64();
    balancer.wait_for_fleet(|fleet| connections(fleet) == Some(5)).await.context("heartbeats are fresher")?;
    nats.kill();
    balancer.wait_for_fleet(|fleet| connections(fleet) == Some(700)).await.context("samples go on")?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    balancer.wait_for(|ready| ready["live"] == 3 && ready["heartbeats"] == "down").await?;
    nats.restart()?;
    prometheus.break_off();
    balancer.wait_for(|ready| ready["live"] == 3 && ready["prometheus"] == "down").await?;
    balancer.wait_for_fleet(|fleet| connections(fleet) == Some(5)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_balancers_share_a_fleet_without_talking() -> Result<()> {
    let nats = NatsServer::start()?;
    let fleet = Fleet::start(&nats.url(), 8).await?;
    let mut balancers = Vec::new();
    for _ in 0..2 {
        balancers.push(BalancerProcess::start(&["--bus", &nats.url()]).await?);
    }
    let mut all = BTreeMap::new();
    for round in 0..20 {
        for balancer in &balancers {
            balancer.wait_for(|ready| ready["live"] == 8).await?;
            for (n, count) in assign_many(balancer, 200).await? {
                *all.entry(n).or_insert(0) += count;
                // Half of them connect before the next report.
                fleet.change(n, |beat| beat.connections += count as u64 * u64::from(round % 2 == 0));
            }
        }
    }
    let (most, mean) = (all.values().max().copied().unwrap_or(0) as f64, 8_000.0 / 8.0);
    assert!(most / mean <= 1.10, "{all:?}");
    // One command reaches both.
    let both = format!("http://{},http://{}", balancers[0].admin_address(), balancers[1].admin_address());
    let said = balancers[0].run(&["strategy", "random", "--json", "--admin", &both]).await?;
    assert_eq!((said.0, said.1.lines().count()), (Some(0), 2), "{said:?}");
    assert_eq!(balancers[1].command(&["strategy"]).await?.trim(), "random");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_ends_when_asked_and_names_what_is_wrong() -> Result<()> {
    let nats = NatsServer::start()?;
    let mut balancer = BalancerProcess::start(&["--bus", &nats.url()]).await?;
    balancer.process.signal(Signal::HUP)?;
    balancer.process.line(LONG, |line| line.contains("no certificate")).await?;
    assert!(balancer.process.terminate(LONG).await?.success(), "{}", balancer.log());
    for (arguments, key) in [
        (&["serve"][..], "bus"),
        (&["check-config", "--bus", "nats://a:1", "--strategy", "best"], "strategy"),
        (&["print-config", "--bus", "http://a"], "bus"),
        (&["serve", "--bus", "nats://a:1", "--listen", "0.0.0.0:0"], "listen"),
        (&["serve", "--bus", "nats://a:1", "--log-format", "xml"], "log_format"),
    ] {
        let mut process = Process::spawn("fastchat-balancer", |command| {
            command.args(arguments);
        })?;
        assert_eq!(process.wait(LONG).await?.code(), Some(64), "{}", process.log());
        assert!(process.log().contains(&format!("{key}: ")), "{key} is not named: {}", process.log());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulator_shows_the_herd_and_draws_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let plot = folder.path().join("herd.svg").display().to_string();
    let arguments =
        ["simulate", "--strategy", "p2c", "--strategy", "least-connections", "--json", "--plot", &plot];
    let process = Process::spawn("fastchat-balancer", |command| {
        command.args(arguments);
    })?;
    let (status, output) = process.finish().await?;
    assert!(status.success());
    let ratios: Vec<f64> = output
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).ok()?["max_over_mean"].as_f64())
        .collect::<Option<_>>()
        .context("a number in each line")?;
    assert!(ratios[0] <= 1.10 && ratios[1] > 3.0, "{ratios:?}");
    assert!(std::fs::read_to_string(plot)?.contains("least-connections: max/mean"));
    Ok(())
}

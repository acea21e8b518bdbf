//! Sessions move because a balancer asks for it: simulated gateways on a real NATS do what they are asked.

use crate::fleet::{Fleet, assign_many, gateway, url};
use anyhow::{Context, Result, ensure};
use ed25519_dalek::VerifyingKey;
use fastchat_delivery::ticket;
use fastchat_tests::{balancer::BalancerProcess, process::Process, servers::NatsServer};
use serde_json::Value;
use std::time::Duration;

/// The place's connections, as the balancer knows them.
fn connections(fleet: &Value) -> Vec<u64> {
    let gateways = fleet["gateways"].as_array();
    gateways.into_iter().flatten().map(|gateway| gateway["connections"].as_u64().unwrap_or(0)).collect()
}

async fn asked(balancer: &BalancerProcess) -> Result<u64> {
    let metrics = balancer.admin("/metrics").await?.1;
    let counts = metrics.lines().filter(|line| line.starts_with("fastchat_balancer_moves_asked_total{"));
    counts.map(|line| Ok(line.rsplit(' ').next().context("a value")?.parse::<u64>()?)).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_balancers_fills_an_added_gateway_and_the_other_takes_over() -> Result<()> {
    let nats = NatsServer::start()?;
    let fleet = Fleet::start(&nats.url(), 4).await?;
    (0..3).for_each(|n| fleet.change(n, |beat| beat.connections = 200));
    fleet.change(3, |beat| beat.connections = 0);
    let sheds = fleet.obey().await?;
    let folder = tempfile::tempdir()?;
    let (mut balancers, mut keys) = (Vec::new(), Vec::new());
    for name in ["07", "08"] {
        let seed = folder.path().join(name);
        std::fs::write(&seed, name.repeat(32))?;
        let seed: [u8; 32] = hex::decode(name.repeat(32))?.try_into().ok().context("32 bytes")?;
        keys.push(VerifyingKey::from(&ed25519_dalek::SigningKey::from_bytes(&seed)));
        let path = folder.path().join(name).display().to_string();
        let settings = ["--bus", &nats.url(), "--ticket-key-file", &path];
        balancers.push(BalancerProcess::start(&settings).await?);
    }
    // 600 sessions on 4 gateways: max/mean of 1.2 is 180.
    let level = |fleet: &Value| connections(fleet).iter().max().is_some_and(|most| *most <= 180);
    balancers[0].wait_for_fleet_within(Duration::from_secs(60), level).await?;
    let counts = [asked(&balancers[0]).await?, asked(&balancers[1]).await?];
    assert!(counts.contains(&0) && counts.iter().sum::<u64>() > 0, "only one asks: {counts:?}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64;
    for (from, shed) in sheds.taken() {
        ensure!(from < 3 && shed.over_ms <= 10_000, "{from}: {shed:?}");
        for to in shed.moves {
            ensure!(to.url == url(3));
            ticket::verify(&to.ticket, &keys, gateway(3), now - 1_000)?;
        }
    }
    // The one that asks ends. The other moves everything off a gateway.
    let leader = usize::from(counts[0] == 0);
    let why = balancers[leader].command(&["explain"]).await?;
    assert!(why.contains("uneven: ") && why.contains("are its share"), "{why}");
    balancers.swap_remove(leader).process.kill().await?;
    let left = &balancers[0];
    left.command(&["drain", &url(0), "--move"]).await?;
    let empty = |fleet: &Value| connections(fleet)[0] == 0;
    left.wait_for_fleet_within(Duration::from_secs(60), empty).await?;
    let table = left.command(&["fleet"]).await?;
    assert!(
        table.contains("GIVES") && table.contains("moves of sessions: asked by this balancer"),
        "{table}"
    );
    assert_eq!(fleet.connections().iter().sum::<u64>(), 600, "nobody is lost");
    let metrics = left.admin("/metrics").await?.1;
    for line in ["fastchat_balancer_mover 1", "fastchat_balancer_moves_asked_total{reason=\"hot\"} 0"] {
        assert!(metrics.contains(line), "{line} is missing:\n{metrics}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn drains_and_the_strategy_survive_a_restart_if_a_file_is_named() -> Result<()> {
    let nats = NatsServer::start()?;
    let _fleet = Fleet::start(&nats.url(), 3).await?;
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("state.json");
    let place = state.display().to_string();
    let settings = ["--bus", &nats.url(), "--state-file", &place, "--move-sessions", "off"];
    let mut balancer = BalancerProcess::start(&settings).await?;
    balancer.wait_for(|ready| ready["live"] == 3).await?;
    balancer.command(&["drain", &url(1)]).await?;
    balancer.command(&["strategy", "round-robin"]).await?;
    let refused = balancer.run(&["drain", &url(2), "--move"]).await?;
    assert!(refused.0 == Some(1) && refused.1.contains("move_sessions is off"), "{refused:?}");
    assert!(balancer.process.terminate(Duration::from_secs(10)).await?.success());
    let balancer = BalancerProcess::start(&settings).await?;
    balancer.wait_for(|ready| ready["live"] == 2).await?;
    assert_eq!(balancer.command(&["strategy"]).await?.trim(), "round-robin");
    assert!(!assign_many(&balancer, 20).await?.contains_key(&1));
    // A change that cannot be kept is not made.
    std::fs::remove_file(&state)?;
    std::fs::create_dir(&state)?;
    let refused = balancer.run(&["strategy", "random"]).await?;
    assert!(refused.0 == Some(1) && refused.1.contains("state_file"), "{refused:?}");
    assert_eq!(balancer.command(&["strategy"]).await?.trim(), "round-robin");
    std::fs::remove_dir(&state)?;
    std::fs::write(&state, "{\"drained\": [\"ab")?;
    let mut process = Process::spawn("fastchat-balancer", |command| {
        command.arg("serve").args(settings);
    })?;
    assert_eq!(process.wait(Duration::from_secs(10)).await?.code(), Some(64));
    assert!(process.log().contains("state_file: ") && process.log().contains(&place), "{}", process.log());
    Ok(())
}

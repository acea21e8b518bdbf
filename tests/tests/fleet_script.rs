//! scripts/fleet, as somebody at a terminal types it.

use anyhow::{Context, Result, ensure};
use fastchat_tests::{
    cli::Person,
    process::{Process, program},
};
use serde_json::Value;
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

/// Limit: how long one command of the script may take on a slow machine.
const LONG: Duration = Duration::from_secs(120);

/// A fleet of the script. Dropping it stops what still runs.
struct Script {
    folder: TempDir,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/fleet")
}

impl Script {
    fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::Builder::new().prefix("fastchat-fleet-script-").tempdir()? })
    }

    fn place(&self) -> PathBuf {
        self.folder.path().join("fleet")
    }

    /// Runs the script; its standard output, if it succeeds.
    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let bin = program("fastchat-gateway")?.parent().context("a folder")?.to_owned();
        let mut process = Process::spawn_path(OsStr::new(&script()), "scripts/fleet", |command| {
            command.args(arguments).env("FASTCHAT_BIN_DIR", bin).env("FASTCHAT_FLEET_DIR", self.place());
        })?;
        let status = process.wait(LONG).await?;
        ensure!(status.success(), "scripts/fleet {arguments:?}: {}", process.log());
        Ok(process.stdout())
    }

    async fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(&["status", "--json"]).await?)?)
    }

    /// Waits until the balancer sends clients to so many gateways.
    async fn live(&self, wanted: usize) -> Result<Value> {
        let began = std::time::Instant::now();
        loop {
            let status = self.status().await?;
            let views = status["fleet"]["gateways"].as_array().cloned().unwrap_or_default();
            if views.iter().filter(|view| view["state"] == "live").count() == wanted {
                return Ok(status);
            }
            ensure!(began.elapsed() < LONG, "{wanted} live gateways: {status}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Ends everything by the ids in its folder; after a clean stop there is no folder.
        if self.place().exists() {
            let _ = std::process::Command::new(script())
                .args(["stop", "--delete"])
                .env("FASTCHAT_FLEET_DIR", self.place())
                .output();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_comes_up_changes_and_goes_by_one_script() -> Result<()> {
    let script = Script::new()?;
    let said = script.run(&["up"]).await?;
    let status = script.live(3).await?;
    let port = |name: &str| status["processes"][name]["port"].as_u64().context(name.to_owned());
    let balancer = format!("http://127.0.0.1:{}", port("balancer")?);
    for name in ["nats", "postgres", "prometheus", "gateway-0", "gateway-2"] {
        ensure!(said.contains(&port(name)?.to_string()), "it does not say where {name} is: {said}");
    }

    let profile = |name: &str| script.folder.path().join(name);
    let alice = Person::new("alice", profile("alice"), &balancer)?;
    let bob = Person::new("bob", profile("bob"), &balancer)?;
    for person in [&alice, &bob] {
        person.run(&["register", &person.name]).await?.ok()?;
    }
    alice.run(&["send", "bob", "by way of the balancer"]).await?.ok()?;
    let heard = bob.run(&["listen", "--count", "1", "--timeout", "60"]).await?.ok()?;
    ensure!(heard.stdout.contains("by way of the balancer"), "{}", heard.stdout);

    script.run(&["add"]).await?;
    script.live(4).await?;
    script.run(&["kill", "1"]).await?;
    script.live(3).await?;
    script.run(&["start", "1"]).await?;
    script.run(&["restart"]).await?;
    script.live(4).await?;
    bob.run(&["send", "alice", "after all of that"]).await?.ok()?;
    script.run(&["drain", "3"]).await?;
    script.run(&["strategy", "weighted"]).await?;
    let status = script.live(3).await?;
    ensure!(status["fleet"]["strategy"] == "weighted", "{status}");

    let pids: Vec<u64> = status["processes"]
        .as_object()
        .context("processes")?
        .values()
        .filter_map(|process| process["pid"].as_u64())
        .collect();
    script.run(&["stop"]).await?;
    for pid in pids {
        ensure!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
    }
    script.run(&["up"]).await?;
    let heard = alice.run(&["listen", "--count", "1", "--timeout", "60"]).await?.ok()?;
    ensure!(heard.stdout.contains("after all of that"), "the data is there after a stop: {}", heard.stdout);
    script.run(&["stop", "--delete"]).await?;
    ensure!(!script.place().exists(), "something is left");
    Ok(())
}

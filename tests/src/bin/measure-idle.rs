//! Memory of an idle, authenticated connection: `measure-idle [N]`; scripts/measure-idle runs it.
//!
//! Starts a fleet of one gateway, registers N accounts with one device each straight in the store (no
//! password is hashed), connects all of them by their device keys, waits until nothing moves, and
//! divides the growth of the gateway's resident memory by N. Each account is one bus subscription.

use anyhow::{Context, Result};
use fastchat_tests::{
    cluster::Cluster,
    crowd::{self, Extra},
    raw::RawClient,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<()> {
    let n: usize =
        std::env::args().nth(1).map_or(Ok(5_000), |n| n.parse()).context("usage: measure-idle [N]")?;
    let mut cluster = Cluster::fleet(1).await?;
    let address = &cluster.gateway(0).address();
    let pid = &cluster.gateway(0).process().pid().context("it runs")?.to_string();
    eprintln!("registering {n} accounts in the store");
    let devices = crowd::enrol(cluster.database(), n).await?;

    // A first few connections, so that pools, threads and tables are there before the first reading.
    let warm = connect(address, &devices[..50]).await?;
    drop(warm);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = resident_kib(pid)?;
    eprintln!("connecting {n} devices");
    let mut clients = connect(address, &devices).await?;
    let mut settled = Vec::new();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        settled.push(resident_kib(pid)?);
    }
    let after = *settled.last().context("a reading")?;
    for client in &mut clients {
        client.idle(Duration::from_millis(1)).await.context("a connection did not stay")?;
    }
    let bytes = (after - before) as f64 * 1024.0 / n as f64;
    let mut out = std::io::stdout().lock();
    use std::io::Write;
    writeln!(
        out,
        "connections {n}  RSS before {before} KiB  after {after} KiB  per connection {:.1} KiB",
        bytes / 1024.0
    )?;
    Ok(())
}

async fn connect(address: &str, devices: &[Extra]) -> Result<Vec<RawClient>> {
    let connecting = devices.iter().map(|device| device.connect(address, None));
    stream::iter(connecting).buffer_unordered(50).try_collect().await
}

fn resident_kib(pid: &str) -> Result<i64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

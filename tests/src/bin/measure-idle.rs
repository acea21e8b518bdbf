//! Memory of an idle, authenticated connection: `measure-idle [N]`; scripts/measure-idle runs it.
//!
//! Starts a fleet of one gateway, registers N accounts with one device each straight in the store (no
//! password is hashed), connects all of them by their device keys, waits until nothing moves, and
//! divides the growth of the gateway's resident memory by N. Each account is one bus subscription.

use anyhow::{Context, Result, bail};
use ed25519_dalek::{Signer, SigningKey};
use fastchat_gateway::store::{
    NewAccount, NewManifest, Registered, Store,
    postgres::{Options, Postgres},
};
use fastchat_protocol::{AccountId, Bytes, DeviceId, ServerFrame};
use fastchat_tests::{cluster::Cluster, raw::RawClient};
use std::time::Duration;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<()> {
    let n: u32 =
        std::env::args().nth(1).map_or(Ok(5_000), |n| n.parse()).context("usage: measure-idle [N]")?;
    let mut cluster = Cluster::fleet(1).await?;
    let address = &cluster.gateway(0).address();
    let pid = &cluster.gateway(0).process().pid().context("it runs")?.to_string();
    let url = cluster.database().to_owned();
    let options = Options { url, max_connections: 4, application_name: "measure-idle".into() };
    let store = Postgres::connect(&options)?;
    eprintln!("registering {n} accounts in the store");
    let devices = register(&store, n).await?;

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
    let bytes = (after - before) as f64 * 1024.0 / f64::from(n);
    let mut out = std::io::stdout().lock();
    use std::io::Write;
    writeln!(
        out,
        "connections {n}  RSS before {before} KiB  after {after} KiB  per connection {:.1} KiB",
        bytes / 1024.0
    )?;
    Ok(())
}

async fn register(store: &Postgres, n: u32) -> Result<Vec<(DeviceId, SigningKey)>> {
    let mut devices = Vec::new();
    for i in 0..n {
        let mut secret = [0; 32];
        rand::fill(&mut secret);
        let key = SigningKey::from_bytes(&secret);
        let (account, device): ([u8; 16], [u8; 16]) = (rand::random(), rand::random());
        let device = DeviceId::new(device);
        let manifest = NewManifest {
            version: 1,
            bytes: Bytes::from_static(b"only measured, never read"),
            devices: vec![(device, key.verifying_key().to_bytes())],
            revoked: Vec::new(),
        };
        let name = format!("idle-{}-{i}", std::process::id()).parse()?;
        let password_hash = "no password fits".to_owned();
        let new = NewAccount { account: AccountId::new(account), name, password_hash, manifest };
        if store.register(new).await? != Registered::Made {
            bail!("an account could not be made");
        }
        devices.push((device, key));
    }
    Ok(devices)
}

async fn connect(address: &str, devices: &[(DeviceId, SigningKey)]) -> Result<Vec<RawClient>> {
    let mut clients = Vec::new();
    for chunk in devices.chunks(50) {
        let mut dialling = JoinSet::new();
        for (device, key) in chunk.iter().cloned() {
            let address = address.to_owned();
            dialling.spawn(async move {
                let mut client = RawClient::dial(&address).await?;
                let hello = client.challenged().await?;
                let resume = client.resume_frame(&hello, device, |statement| key.sign(statement).to_bytes());
                match client.ask(&resume).await? {
                    ServerFrame::Session(_) => Ok(client),
                    other => bail!("expected a session, got {other:?}"),
                }
            });
        }
        while let Some(client) = dialling.join_next().await {
            clients.push(client??);
        }
    }
    Ok(clients)
}

fn resident_kib(pid: &str) -> Result<i64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

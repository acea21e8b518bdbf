//! What groups cost by size: `measure-groups [DEVICES...]`; scripts/measure-groups runs it.
//!
//! - A fleet of one gateway with real Postgres and NATS; N accounts with one device each, registered
//!   straight in the store (no password is hashed; all share one RSA identity, which nothing here
//!   depends on), their key packages too. Three of them are live: founder, member, newcomer.
//! - Every step goes over the wire as a client would send it, and the gateway judges it as ever.
//! - Client CPU is that of the calling thread around the encryption alone; gateway CPU is that of the
//!   process, in ticks of 10 ms, so that of cheap steps is an average over many.
//!
//! Prints one JSON object a size and suite, then a table.

mod people;
mod steps;

use anyhow::{Context, Result};
use fastchat_e2ee::Suite;
use fastchat_tests::cluster::Cluster;
use std::io::Write;

/// The sizes that docs/performance.md shows.
const SIZES: [usize; 6] = [2, 10, 64, 100, 500, 1_000];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let sizes: Vec<usize> = std::env::args()
        .skip(1)
        .map(|size| size.parse().context("usage: measure-groups [DEVICES...]"))
        .collect::<Result<_>>()?;
    let sizes = if sizes.is_empty() { SIZES.to_vec() } else { sizes };
    let mut cluster = Cluster::fleet(1).await?;
    let mut rows = Vec::new();
    for devices in sizes {
        for suite in Suite::ALL.into_iter().filter(|suite| devices <= suite.max_devices()) {
            eprintln!("{devices} devices, {suite}");
            let row = steps::measure(&mut cluster, devices, suite).await?;
            writeln!(std::io::stdout(), "{}", serde_json::to_string(&row)?)?;
            rows.push(row);
        }
    }
    for line in steps::table(&rows) {
        writeln!(std::io::stdout(), "{line}")?;
    }
    Ok(())
}

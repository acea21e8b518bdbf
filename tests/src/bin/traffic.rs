//! Messages between real clients at a steady rate: `traffic --help`; scripts/fleet runs it.
//!
//! Registers people at a server (a gateway, or a balancer that spreads them), lets pairs of them write
//! to each other, and says each second what became of it. Ends with 1 if anything was lost, doubled or
//! out of order.

use anyhow::{Result, bail};
use clap::Parser;
use fastchat_tests::load::{Load, Outcome};
use std::{io::Write, time::Duration};

/// Messages between real clients at a steady rate.
#[derive(Debug, Parser)]
#[command(after_help = "Example:
  traffic --server http://127.0.0.1:7310 --rate 50 --pairs 20 --seconds 60")]
struct Cli {
    /// A gateway (ws://) or a balancer (http://)
    #[arg(long)]
    server: String,
    /// Messages in a second, over all pairs
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Pairs of people
    #[arg(long, default_value_t = 10)]
    pairs: usize,
    /// How long to send; 0 until it is ended
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Print one JSON object for each stretch instead of a line of text
    #[arg(long)]
    json: bool,
}

/// Between two lines.
const STRETCH: u64 = 5;

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    if !(cli.rate > 0.0 && cli.pairs > 0) {
        bail!("--rate and --pairs are above 0");
    }
    let folder = tempfile::Builder::new().prefix("fastchat-traffic-").tempdir()?;
    eprintln!("registering {} people at {}", 2 * cli.pairs, cli.server);
    let load = Load::gather(&cli.server, cli.pairs, folder.path()).await?;
    let stretches = if cli.seconds == 0 { u64::MAX } else { cli.seconds.div_ceil(STRETCH) };
    for n in 0..stretches {
        let left = if cli.seconds == 0 { STRETCH } else { STRETCH.min(cli.seconds - n * STRETCH) };
        let outcome = load.run(cli.rate, Duration::from_secs(left)).await?;
        say(&outcome, cli.json)?;
        if let Some(error) = outcome.errors.first() {
            eprintln!("{} sends failed, the first: {error}", outcome.errors.len());
        }
    }
    load.judge().await?;
    eprintln!("nothing lost, doubled or out of order");
    Ok(())
}

fn say(outcome: &Outcome, json: bool) -> Result<()> {
    let [p50, p99] = [0.5, 0.99].map(|share| outcome.delay(share).as_secs_f64() * 1e3);
    let Outcome { sent, acked, errors, interruptions, .. } = outcome;
    let mut out = std::io::stdout().lock();
    if json {
        let line = serde_json::json!({
            "sent": sent, "acked": acked, "errors": errors.len(), "interruptions": interruptions.len(),
            "delivered_p50_ms": p50, "delivered_p99_ms": p99,
        });
        writeln!(out, "{line}")?;
    } else {
        writeln!(
            out,
            "sent {sent}  acked {acked}  errors {}  interruptions {}  delivered in {p50:.0} ms (p50) {p99:.0} ms (p99)",
            errors.len(),
            interruptions.len()
        )?;
    }
    Ok(out.flush()?)
}

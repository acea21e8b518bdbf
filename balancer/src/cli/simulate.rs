//! `simulate`: an experiment from flags, its outcome as a table, a histogram, JSON or a picture.

use super::say;
use anyhow::{Context, bail};
use clap::ValueEnum;
use fastchat_balancer::{
    mover::Limits,
    simulate::{Arrivals, Failure, Join, Outcome, Scenario, run as simulate, svg},
    strategy::Strategy,
};
use std::{fmt::Write, path::PathBuf};

pub(crate) const EXAMPLES: &str = "\
Examples:
  fastchat-balancer simulate                                   10,000 reconnects, 5 s-old reports
  fastchat-balancer simulate --strategy p2c --strategy least-connections --plot herd.svg
  fastchat-balancer simulate --report-age-ms 0 --fail 3@2000 --balancers 2
  fastchat-balancer simulate --strategy p2c --gateways 3 --start 1000 --clients 100 --arrivals constant \
      --report-age-ms 20 --add 1000 --move --settle-ms 90000     a fourth gateway is added under load
  fastchat-balancer simulate --capacity 15000,15000,5000 --arrivals poisson --rate 500 --json

max/mean is that of connections per capacity at the end; 1.00 is even. Peak share is the largest share of
the assignments of one second that went to one gateway.";

/// Bars of the histogram have at most so many characters.
const BAR: usize = 50;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Process {
    /// All lost their gateway at once and come back within --window-ms
    Burst,
    /// At even distances, --rate a second
    Constant,
    /// At independent distances, --rate a second on average
    Poisson,
}

/// What can be tried.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Strategies to compare [default: all]
    #[arg(long, value_name = "NAME")]
    strategy: Vec<Strategy>,
    /// How many gateways
    #[arg(long, value_name = "N", default_value_t = 8)]
    gateways: usize,
    /// Most connections of each gateway, with commas; the last one counts for all further
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "15000")]
    capacity: Vec<u64>,
    /// Connections of each gateway at the start, with commas; the last one counts for all further [default: about 100]
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    start: Vec<u64>,
    /// How clients come
    #[arg(long, value_enum, default_value = "burst")]
    arrivals: Process,
    /// How many clients come
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    clients: usize,
    /// Clients in a second
    #[arg(long, value_name = "N", default_value_t = 2_000.0)]
    rate: f64,
    /// Milliseconds in which a burst comes back
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    window_ms: u64,
    /// Milliseconds between a gateway's reports
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    report_period_ms: u64,
    /// Milliseconds until a report reaches the balancers
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    report_age_ms: u64,
    /// Milliseconds from an assignment to the connection
    #[arg(long, value_name = "MS", default_value_t = 100)]
    connect_ms: u64,
    /// Balancers that do not talk to each other
    #[arg(long, value_name = "N", default_value_t = 1)]
    balancers: usize,
    /// A gateway (from 0) fails at so many milliseconds, and is back at others: 3@2000 or 3@2000-8000
    #[arg(long, value_name = "GATEWAY@MS[-MS]", value_parser = failure)]
    fail: Vec<Failure>,
    /// One more gateway is added, empty, at so many milliseconds
    #[arg(long, value_name = "MS")]
    add: Vec<u64>,
    /// Sessions move as the service would ask for it
    #[arg(long = "move")]
    moves: bool,
    /// Most sessions that one gateway gives in a second
    #[arg(long, value_name = "N", default_value_t = 50)]
    moves_per_second: u64,
    /// Percent of its sessions that a gateway gives in a second
    #[arg(long, value_name = "N", default_value_t = 2)]
    moves_percent: u64,
    /// Balancers that ask for moves without knowing of each other
    #[arg(long, value_name = "N", default_value_t = 1)]
    movers: usize,
    /// Milliseconds to go on after the last client, failure or gateway came
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    settle_ms: u64,
    /// Milliseconds in which clients of a failed gateway come back
    #[arg(long, value_name = "MS", default_value_t = 2_000)]
    reconnect_window_ms: u64,
    /// The same seed gives the same outcome
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write JSON, one line for each strategy
    #[arg(long)]
    json: bool,
    /// Draw the connections of every gateway over time
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let scenario = scenario(args)?;
    let strategies = if args.strategy.is_empty() { Strategy::ALL.to_vec() } else { args.strategy.clone() };
    let outcomes: Vec<Outcome> = strategies.iter().map(|strategy| simulate(&scenario, *strategy)).collect();
    for outcome in &outcomes {
        let text = if args.json { serde_json::to_string(outcome)? + "\n" } else { told(outcome) };
        say(&text)?;
    }
    if let Some(path) = &args.plot {
        std::fs::write(path, svg(&outcomes)).with_context(|| format!("plot: {}", path.display()))?;
    }
    Ok(())
}

fn scenario(args: &Args) -> anyhow::Result<Scenario> {
    let last = args.capacity.last().copied().unwrap_or(15_000);
    let gateways = args.gateways + args.add.len();
    let capacities: Vec<u64> = (0..gateways).map(|n| args.capacity.get(n).copied().unwrap_or(last)).collect();
    if !(1..=1_000).contains(&args.gateways) || !(1..=100).contains(&args.balancers) {
        bail!("--gateways is from 1 to 1000, --balancers from 1 to 100");
    }
    if capacities.contains(&0) || !(args.rate > 0.0 && args.rate.is_finite()) || args.clients > 1_000_000 {
        bail!("--capacity and --rate are above 0, --clients at most 1000000");
    }
    if !(1..=args.balancers).contains(&args.movers) || args.add.len() > 100 {
        bail!("--movers is from 1 to the number of balancers, --add at most 100 times");
    }
    if !(1..=1_000).contains(&args.moves_per_second) || !(1..=20).contains(&args.moves_percent) {
        bail!("--moves-per-second is from 1 to 1000, --moves-percent from 1 to 20");
    }
    let times = [
        args.settle_ms,
        args.add.iter().copied().max().unwrap_or(0),
        args.window_ms,
        args.report_period_ms,
        args.report_age_ms,
        args.connect_ms,
        args.reconnect_window_ms,
    ];
    if times.iter().any(|ms| *ms > 600_000) || args.report_period_ms == 0 {
        bail!("times are at most 600000 ms, --report-period-ms at least 1");
    }
    if let Some(wrong) = args.fail.iter().find(|failure| failure.gateway >= args.gateways) {
        bail!("--fail: there is no gateway {} of {}, they count from 0", wrong.gateway, args.gateways);
    }
    let (clients, rate) = (args.clients, args.rate);
    Ok(Scenario {
        capacities,
        start: start(args),
        arrivals: match args.arrivals {
            Process::Burst => Arrivals::Burst { clients, window_ms: args.window_ms },
            Process::Constant => Arrivals::Constant { clients, rate },
            Process::Poisson => Arrivals::Poisson { clients, rate },
        },
        balancers: args.balancers,
        report_period_ms: args.report_period_ms,
        report_age_ms: args.report_age_ms,
        connect_ms: args.connect_ms,
        failures: args.fail.clone(),
        joins: (args.gateways..)
            .zip(&args.add)
            .map(|(gateway, at_ms)| Join { gateway, at_ms: *at_ms })
            .collect(),
        moves: args
            .moves
            .then_some(Limits { per_second: args.moves_per_second, percent_per_second: args.moves_percent }),
        movers: args.movers,
        settle_ms: args.settle_ms,
        reconnect_window_ms: args.reconnect_window_ms,
        seed: args.seed,
    })
}

/// As named, the last number for all further ones; or not quite even, as after a while of coming and going.
fn start(args: &Args) -> Vec<u64> {
    let usual = |n: usize| 100 + (n as u64 * 37 + args.seed % 1_000) % 20;
    let named = |n: usize| args.start.get(n).or(args.start.last()).copied();
    (0..args.gateways).map(|n| named(n).unwrap_or_else(|| usual(n))).collect()
}

fn failure(text: &str) -> Result<Failure, String> {
    let read = || {
        let (gateway, times) = text.split_once('@')?;
        let (at, back) = times.split_once('-').map_or((times, None), |(at, back)| (at, Some(back)));
        let (at_ms, back_ms) = (at.parse().ok()?, back.map(str::parse).transpose().ok()?);
        Some(Failure { gateway: gateway.parse().ok()?, at_ms, back_ms })
    };
    let soon = |failure: &Failure| {
        failure.at_ms <= 600_000 && failure.back_ms.is_none_or(|back| back > failure.at_ms && back <= 600_000)
    };
    read().filter(soon).ok_or_else(|| "is GATEWAY@MS or GATEWAY@MS-MS, e.g. 3@2000-8000".to_owned())
}

fn told(outcome: &Outcome) -> String {
    let Outcome { strategy, max_over_mean, peak_share, failed_attempts, unserved, .. } = outcome;
    let mut text = format!(
        "{strategy}: max/mean {max_over_mean:.3}, peak share {:.0}%, {failed_attempts} attempts failed, {unserved} clients unserved\n",
        100.0 * peak_share
    );
    if outcome.moved > 0 || outcome.level_after_ms.is_some() {
        let level =
            outcome.level_after_ms.map_or("never".to_owned(), |ms| format!("after {:.1} s", ms as f64 / 1e3));
        // Writing into a String cannot fail.
        let _ =
            writeln!(text, "  {} sessions were asked to move; max/mean at most 1.2: {level}", outcome.moved);
    }
    let most = outcome.connections.iter().max().copied().unwrap_or(0).max(1);
    for (gateway, connections) in outcome.connections.iter().enumerate() {
        let bar = "#".repeat(BAR * *connections as usize / most as usize);
        // Writing into a String cannot fail.
        let _ = writeln!(text, "  {gateway:>3} {connections:>8} {bar}");
    }
    text + "\n"
}

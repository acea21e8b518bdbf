//! `fastchat-lab`: experiments from the command line.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use fastchat_lab::{
    arrivals::Arrivals,
    compare::{self, Ratio},
    crowd,
    drive::Load,
    experiment::{self, Say},
    figures::{Experiment, Figures, Given},
    knee, logins,
    matrix::Matrix,
    offline,
    plan::Pattern,
    report::{self, Folder},
    span::Span,
    target::{
        self, Manner, TARGETS,
        fastchat::{self, Setup},
    },
};
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// Measures FastChat and its peers
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  fastchat-lab run --target embedded --clients 20 --rate 500
  fastchat-lab run --target fleet:2 --pattern group --clients 100 --rate 200 --size 512
  fastchat-lab knee --target fleet:2 --clients 200
  fastchat-lab compare fleet:2 nats --clients 200 --rate 1000
  fastchat-lab logins fleet:2 ejabberd mosquitto:1 --rounds 3
  fastchat-lab matrix lab/experiments/original.toml --out results
  fastchat-lab run --target url:ws://127.0.0.1:8080 --invite CODE --clients 10 --rate 20
  fastchat-lab run --target fleet:2 --seal --pattern group --clients 20
  fastchat-lab run --target fleet:2 --files 1 --file-bytes 1000000 --rate 10
  fastchat-lab run --target fleet:2 --files 0.2            a picture of 20 to 200 KB with every fifth
  fastchat-lab run --target fleet:2 --pattern mixed --clients 500 --rate 100
  fastchat-lab run --target null --rate 5000        the driver alone: what it can do

A run that loses, doubles or reorders anything, or is never answered, is broken: exit code 1."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print figures as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing while it runs
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One run: who writes to whom, on what, how fast
    Run {
        #[arg(long, help = format!("What is measured: {TARGETS}"), default_value = "embedded")]
        target: String,
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        out: Out,
    },
    /// The highest rate with 99 of 100 deliveries within 50 ms and nothing lost
    Knee {
        #[arg(long, help = format!("What is measured: {TARGETS}"), default_value = "embedded")]
        target: String,
        #[command(flatten)]
        what: What,
        /// Go no further than this rate
        #[arg(long, default_value_t = 200_000.0)]
        highest: f64,
        #[command(flatten)]
        out: Out,
    },
    /// A backlog for people who are away: how fast it is stored, and fetched when they come back
    Offline {
        #[command(flatten)]
        fleet: Fleet,
        /// Clients: half of them write, to the other half
        #[arg(long, default_value_t = 200)]
        clients: usize,
        /// Messages that each may have on its way
        #[arg(long, default_value_t = 32)]
        window: usize,
        /// Bytes of a message
        #[arg(long, default_value_t = 256)]
        size: usize,
        /// Seconds that the backlog grows
        #[arg(long, default_value_t = 10.0)]
        duration: f64,
    },
    /// Connections that say nothing: what each costs
    Idle {
        #[command(flatten)]
        fleet: Fleet,
        /// How many; a gateway holds 14,000 here
        #[arg(long, default_value_t = 5_000)]
        connections: usize,
        /// By TLS 1.3
        #[arg(long)]
        tls: bool,
        /// Seconds for which all are held
        #[arg(long, default_value_t = 60.0)]
        hold: f64,
    },
    /// A gateway dies: how soon everybody is back
    Storm {
        #[command(flatten)]
        fleet: Fleet,
        /// How many, over all gateways
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
    },
    /// Clients who log in and hang up, as fast as they are let in
    Logins {
        #[arg(help = format!("What is measured, one after another: {TARGETS}"), required = true)]
        targets: Vec<String>,
        /// Clients who log in at a time
        #[arg(long, default_value_t = 64)]
        at_once: usize,
        /// Seconds that are measured
        #[arg(long, default_value_t = 10.0)]
        duration: f64,
        /// How often all targets take their turn
        #[arg(long, default_value_t = 1)]
        rounds: usize,
    },
    /// A gateway's writer alone, beside bare rows inserted by the hundred
    Writer {
        /// Conversations with somebody who writes
        #[arg(long, default_value_t = 100)]
        senders: usize,
        /// Bytes of an envelope, or of a row
        #[arg(long, default_value_t = 256)]
        size: usize,
        /// How often, in turn
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// Holds connections for another process
    #[command(hide = true)]
    Hold,
    /// Every combination of what a file lists, in one report
    Matrix {
        /// TOML; lab/experiments has some
        file: PathBuf,
        /// Say what would run, and end
        #[arg(long)]
        list: bool,
        /// Folder for JSON, CSV and report.html
        #[arg(long, value_name = "FOLDER", default_value = "lab-results")]
        out: PathBuf,
    },
    /// Two targets in turn, with the ratios of what both need
    Compare {
        /// The first target
        first: String,
        /// The second target
        second: String,
        /// How often
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        out: Out,
    },
}

#[derive(Debug, Args)]
struct What {
    /// Who writes to whom
    #[arg(long, default_value = "pairs")]
    pattern: Pattern,
    /// How many clients there are
    #[arg(long, default_value_t = 20)]
    clients: usize,
    /// How many of a group write
    #[arg(long, default_value_t = 1)]
    senders: usize,
    /// Messages a second, of all clients together
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Closed loop instead of a rate: messages that each sender may have on its way
    #[arg(long)]
    window: Option<usize>,
    /// How messages come [default: exponential; for mixed: bursty]
    #[arg(long)]
    arrivals: Option<Arrivals>,
    /// Bytes of a message
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// The share of messages that bring a file, from 0 to 1 [default: 0; for mixed: 0.02]
    #[arg(long, value_name = "SHARE")]
    files: Option<f64>,
    /// Bytes of a file, or a range: what pictures have, if nothing is said
    #[arg(long, value_name = "BYTES", default_value = "20000-200000")]
    file_bytes: Span,
    /// Clients a second that lose their connection and come back (FastChat) [default: 0; for mixed: 1]
    #[arg(long, value_name = "PER_SECOND")]
    reconnects: Option<f64>,
    /// Seconds before anything is measured
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Messages are really sealed and opened by the clients (FastChat)
    #[arg(long)]
    seal: bool,
    /// Lets test accounts register at a given deployment
    #[arg(long, value_name = "CODE", env = "FASTCHAT_LAB_INVITE", hide_env_values = true)]
    invite: Option<String>,
    /// A process of a given deployment on this machine, to be measured; may be repeated
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// For all draws
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct Fleet {
    /// Gateways of the fleet
    #[arg(long, default_value_t = 2)]
    gateways: usize,
    /// The balancer's strategy [default: clients are spread in turn]
    #[arg(long)]
    strategy: Option<String>,
}

impl Fleet {
    fn setup(&self) -> Setup {
        Setup { gateways: self.gateways, strategy: self.strategy.clone(), ..Setup::default() }
    }
}

#[derive(Debug, Args)]
struct Out {
    /// Folder for JSON, CSV and report.html
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

impl What {
    fn experiment(&self, target: &str) -> Experiment {
        let usual = Load::usual(self.pattern);
        Experiment {
            target: target.to_owned(),
            pattern: self.pattern,
            clients: self.clients,
            senders: self.senders,
            seal: self.seal,
            given: Given { invite: self.invite.clone(), pids: self.pid.clone() },
            load: Load {
                rate: self.rate,
                window: self.window,
                arrivals: self.arrivals.unwrap_or(usual.arrivals),
                files: self.files.unwrap_or(usual.files),
                file_bytes: self.file_bytes,
                reconnects: self.reconnects.unwrap_or(usual.reconnects),
                size: self.size,
                warm_up_s: self.warm_up,
                duration_s: self.duration,
                seed: self.seed,
            },
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match work(&cli.command, cli.json, cli.quiet).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "fastchat-lab: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// False if something measured was broken or void.
async fn work(command: &Command, json: bool, quiet: bool) -> Result<bool> {
    let say = |line: &str| {
        if !quiet {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    };
    match command {
        Command::Run { target, what, out } => {
            let experiment = what.experiment(target);
            let figures = experiment::run(&experiment, &say).await?;
            finish("run", &[figures], out.out.as_deref(), json)
        }
        Command::Knee { target, what, highest, out } => {
            let knee = knee::find(&what.experiment(target), *highest, &say).await?;
            if knee.rate == 0.0 {
                bail!("already {} messages/s are too many; begin lower with --rate", what.rate);
            }
            print(&format!("knee: {:.0} messages/s", knee.rate))?;
            // Steps above the knee may break, that is what they are for.
            finish("knee", &knee.steps, out.out.as_deref(), json)?;
            Ok(true)
        }
        Command::Offline { fleet, clients, window, size, duration } => {
            let load = Load {
                window: Some(*window),
                size: *size,
                warm_up_s: 1.0,
                duration_s: *duration,
                ..Load::default()
            };
            let backlog = offline::run(fleet.setup(), *clients, &load, &say).await?;
            print(&figures(&backlog, json)?)?;
            Ok(backlog.faults == 0)
        }
        Command::Idle { fleet, connections, tls, hold } => {
            let hold = Duration::from_secs_f64(*hold);
            let idle = crowd::idle(*connections, fleet.setup(), *tls, hold, &say).await?;
            print(&figures(&idle, json)?)?;
            Ok(idle.dropped == 0)
        }
        Command::Writer { senders, size, rounds } => {
            let alone = fastchat::writer(*senders, *size, *rounds, &say).await?;
            print(&figures(&alone, json)?)?;
            Ok(true)
        }
        Command::Storm { fleet, connections } => {
            let storm = crowd::storm(*connections, fleet.setup(), &say).await?;
            print(&figures(&storm, json)?)?;
            Ok(true)
        }
        Command::Logins { targets, at_once, duration, rounds } => {
            let duration = Duration::from_secs_f64(*duration);
            let mut all = Vec::new();
            for _ in 0..*rounds {
                for name in targets {
                    let mut target = target::choose(name, &Manner::default())?;
                    all.push(logins::run(&mut *target, *at_once, duration, &say).await?);
                }
            }
            print(&if json { serde_json::to_string(&all)? } else { logins::text(&all) })?;
            Ok(true)
        }
        Command::Hold => crowd::hold().await.map(|()| true),
        Command::Matrix { file, list, out } => matrix(file, *list, out, json, &say).await,
        Command::Compare { first, second, rounds, what, out } => {
            let (runs, ratios) = compare((first, second), *rounds, what, &say).await?;
            let text = ratio_text((first, second), &ratios);
            print(&if json { serde_json::to_string(&ratios)? } else { text })?;
            finish(&format!("{first} and {second}"), &runs, out.out.as_deref(), json)
        }
    }
}

/// A line for each figure, or JSON.
fn figures(of: &impl serde::Serialize, json: bool) -> Result<String> {
    let value = serde_json::to_value(of)?;
    if json {
        return Ok(value.to_string());
    }
    let lines = value.as_object().context("figures have names")?;
    let line = |(name, value): (&String, &serde_json::Value)| match value.as_f64() {
        Some(number) if !value.is_i64() && !value.is_u64() => format!("{name:18} {number:.2}"),
        _ => format!("{name:18} {value}"),
    };
    Ok(lines.iter().map(line).collect::<Vec<_>>().join("\n"))
}

async fn matrix(file: &Path, list: bool, out: &Path, json: bool, say: Say<'_>) -> Result<bool> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let matrix = Matrix::parse(&text).with_context(|| name.to_string())?;
    let experiments = matrix.experiments().with_context(|| name.to_string())?;
    if list {
        for experiment in &experiments {
            print(&serde_json::to_string(experiment)?)?;
        }
        return Ok(true);
    }
    let folder = Folder::make(out)?;
    let count = experiments.len();
    let mut runs: Vec<Option<Figures>> = vec![None; count];
    let passes = [false, true].into_iter().flat_map(|again| (0..count).map(move |number| (again, number)));
    for (again, number) in passes {
        // A run that says nothing has a second chance when the machine may be quieter.
        if again && !runs[number].as_ref().is_some_and(|run| run.verdict.is_void()) {
            continue;
        }
        say(&format!("run {} of {count}{}", number + 1, if again { ", again" } else { "" }));
        match experiment::run(&experiments[number], say).await {
            Ok(figures) => {
                print(&if json { serde_json::to_string(&figures)? } else { report::text(&figures) })?;
                folder.write_run(&format!("{:03}", number + 1), &figures)?;
                runs[number] = Some(figures);
                // After each run, so that what was measured is there if the rest is not.
                folder.write_report(&matrix.title, &runs.iter().flatten().cloned().collect::<Vec<_>>())?;
            }
            Err(error) => say(&format!("run {} failed: {error:#}", number + 1)),
        }
    }
    print(&format!("report: {}", folder.path().join("report.html").display()))?;
    Ok(runs.iter().all(|run| run.as_ref().is_some_and(|run| run.verdict.is_sound())))
}

async fn compare(
    (first, second): (&str, &str),
    rounds: usize,
    what: &What,
    say: Say<'_>,
) -> Result<(Vec<Figures>, Vec<Ratio>)> {
    let (first, second) = (what.experiment(first), what.experiment(second));
    let (runs, ratios) = compare::run(&first, &second, rounds, say).await?;
    if ratios.is_empty() {
        bail!("every round was broken on one side, or sent less than it should");
    }
    Ok((runs, ratios))
}

fn ratio_text((first, second): (&str, &str), ratios: &[Ratio]) -> String {
    let mut text = format!("{:26} {first:>14} {second:>14}   ratio (range)", "");
    for Ratio { measure, first, second, ratio, lowest, highest } in ratios {
        text +=
            &format!("\n{measure:26} {first:14.1} {second:14.1}   {ratio:.2} ({lowest:.2} to {highest:.2})");
    }
    text
}

/// Prints and writes what was measured; whether all of it is sound.
fn finish(title: &str, runs: &[Figures], out: Option<&Path>, json: bool) -> Result<bool> {
    for run in runs {
        print(&if json { serde_json::to_string(run)? } else { report::text(run) })?;
    }
    if let Some(path) = out {
        let folder = Folder::make(path)?;
        for (number, run) in runs.iter().enumerate() {
            folder.write_run(&format!("{:03}", number + 1), run)?;
        }
        let report = folder.write_report(title, runs)?;
        print(&format!("report: {}", report.display()))?;
    }
    Ok(runs.iter().all(|run| run.verdict.is_sound()))
}

fn print(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write")
}

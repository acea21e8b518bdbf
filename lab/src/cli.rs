//! What may be asked of the laboratory.

use clap::{Args, Parser, Subcommand};
use fastchat_lab::{
    arrivals::Arrivals,
    drive::Load,
    figures::{Experiment, Given},
    plan::Pattern,
    span::Span,
    target::{
        TARGETS,
        fastchat::{Setup, Spread},
    },
};
use std::path::PathBuf;

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
  fastchat-lab report monday tuesday --out both
  fastchat-lab run --target url:ws://127.0.0.1:8080 --invite CODE --clients 10 --rate 20
  fastchat-lab run --target fleet:2 --seal --pattern group --clients 20
  fastchat-lab run --target fleet:2 --files 1 --file-bytes 1000000 --rate 10
  fastchat-lab run --target fleet:2 --files 0.2            a picture of 20 to 200 KB with every fifth
  fastchat-lab run --target fleet:2 --pattern mixed --clients 500 --rate 100
  fastchat-lab run --target null --rate 5000        the driver alone: what it can do

A run that loses, doubles or reorders anything, or is never answered, is broken: exit code 1."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print figures as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing while it runs
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
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
    /// One report of runs that were made before
    Report {
        /// Folders that runs were written into
        #[arg(required = true, value_name = "FOLDER")]
        folders: Vec<PathBuf>,
        /// What it is about
        #[arg(long, default_value = "Runs")]
        title: String,
        /// Folder for report.html, its pictures and the table
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
pub(crate) struct What {
    /// Who writes to whom
    #[arg(long, default_value = "pairs")]
    pub(crate) pattern: Pattern,
    /// How many clients there are
    #[arg(long, default_value_t = 20)]
    pub(crate) clients: usize,
    /// How many of a group write
    #[arg(long, default_value_t = 1)]
    pub(crate) senders: usize,
    /// Messages a second, of all clients together
    #[arg(long, default_value_t = 500.0)]
    pub(crate) rate: f64,
    /// Closed loop instead of a rate: messages that each sender may have on its way
    #[arg(long)]
    pub(crate) window: Option<usize>,
    /// How messages come [default: exponential; for mixed: bursty]
    #[arg(long)]
    pub(crate) arrivals: Option<Arrivals>,
    /// Bytes of a message
    #[arg(long, default_value_t = 256)]
    pub(crate) size: usize,
    /// The share of messages that bring a file, from 0 to 1 [default: 0; for mixed: 0.02]
    #[arg(long, value_name = "SHARE")]
    pub(crate) files: Option<f64>,
    /// Bytes of a file, or a range: what pictures have, if nothing is said
    #[arg(long, value_name = "BYTES", default_value = "20000-200000")]
    pub(crate) file_bytes: Span,
    /// Clients a second that lose their connection and come back (FastChat) [default: 0; for mixed: 1]
    #[arg(long, value_name = "PER_SECOND")]
    pub(crate) reconnects: Option<f64>,
    /// Seconds before anything is measured
    #[arg(long, default_value_t = 2.0)]
    pub(crate) warm_up: f64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 10.0)]
    pub(crate) duration: f64,
    /// Messages are really sealed and opened by the clients (FastChat)
    #[arg(long)]
    pub(crate) seal: bool,
    /// Lets test accounts register at a given deployment
    #[arg(long, value_name = "CODE", env = "FASTCHAT_LAB_INVITE", hide_env_values = true)]
    pub(crate) invite: Option<String>,
    /// A process of a given deployment on this machine, to be measured; may be repeated
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Vec<u32>,
    /// For all draws
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Fleet {
    /// Gateways of the fleet
    #[arg(long, default_value_t = 2)]
    pub(crate) gateways: usize,
    /// The balancer's strategy, or in-turn [default: clients are drawn, as many for each gateway]
    #[arg(long)]
    pub(crate) strategy: Option<String>,
}

impl Fleet {
    pub(crate) fn setup(&self) -> Setup {
        let spread = Spread::named(self.strategy.as_deref());
        Setup { gateways: self.gateways, spread, ..Setup::default() }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Out {
    /// Folder for JSON, CSV and report.html
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
}

impl What {
    pub(crate) fn experiment(&self, target: &str) -> Experiment {
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

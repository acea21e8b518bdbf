//! The program `fastchat-balancer`.

mod cli;

use clap::{Args, Parser, Subcommand};
use fastchat_balancer::config::{ConfigError, Settings};
use std::{io::Write, path::PathBuf, process::ExitCode};

/// What sysexits.h calls EX_USAGE: a setting is wrong.
const EXIT_CONFIG: u8 = 64;

#[derive(Debug, Parser)]
#[command(
    name = "fastchat-balancer",
    version,
    about = "Tells FastChat's clients which gateway to use",
    after_help = EXAMPLES,
    propagate_version = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer clients
    #[command(after_help = cli::serve::EXAMPLES)]
    Serve(Configured),
    /// Try strategies offline, without any fleet
    #[command(after_help = cli::simulate::EXAMPLES)]
    Simulate(cli::simulate::Args),
    /// Show every gateway with its load and state
    Fleet(cli::operate::Admin),
    /// Send no new clients to a gateway; its sessions stay, unless they are moved (--move)
    Drain(cli::operate::Drained),
    /// Send clients to a drained gateway again
    Undrain(cli::operate::Named),
    /// Show the strategy in force, or use another one from now on
    Strategy(cli::operate::Strategy),
    /// Say why the last clients were sent where they were
    Explain(cli::operate::Explain),
    /// Check the settings, say what is wrong with which key, and end
    CheckConfig(Configured),
    /// Print the settings in force, without secrets, and end
    PrintConfig(Configured),
    /// Ask a running balancer whether it can name gateways: exit code 0 if so
    Health(cli::operate::Health),
    /// Print the public half of the ticket key, which gateways are told, and end
    TicketPublicKey(Configured),
}

/// Settings by flag, environment and file.
#[derive(Debug, Args)]
struct Configured {
    /// Settings in TOML; flags and environment win over it
    #[arg(long, env = "FASTCHAT_BALANCER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

const EXAMPLES: &str = "\
Examples:
  fastchat-balancer serve --bus nats://127.0.0.1:4222
  fastchat-balancer serve --bus nats://bus:4222 --load-source heartbeats,prometheus=http://prometheus:9090
  fastchat-balancer fleet
  fastchat-balancer drain wss://g3.example.org --admin http://10.0.0.1:7411,http://10.0.0.2:7411
  fastchat-balancer drain wss://g3.example.org --move
  fastchat-balancer strategy weighted
  fastchat-balancer explain --last 5
  fastchat-balancer simulate --plot herd.svg

Exit codes: 0 ok, 1 failed, 2 wrong use, 64 a setting is wrong (the message names it).";

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "fastchat-balancer: {error:#}");
            if error.is::<ConfigError>() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(configured) => cli::serve::run(&configured.read()?),
        Command::Simulate(args) => cli::simulate::run(&args),
        Command::Fleet(admin) => cli::operate::fleet(&admin),
        Command::Drain(args) => cli::operate::drain(&args),
        Command::Undrain(named) => cli::operate::undrain(&named),
        Command::Strategy(args) => cli::operate::strategy(&args),
        Command::Explain(args) => cli::operate::explain(&args),
        Command::CheckConfig(configured) => cli::serve::check(&configured.read()?),
        Command::PrintConfig(configured) => cli::serve::print(&configured.read()?),
        Command::Health(args) => cli::operate::health(&args),
        Command::TicketPublicKey(configured) => cli::serve::public_key(&configured.read()?),
    }
}

impl Configured {
    fn read(self) -> Result<Settings, ConfigError> {
        let file = self.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
        Ok(self.settings.over(file))
    }
}

//! The command line: arguments, a file for each command, output, exit codes.

mod account;
mod ask;
mod backup;
mod block;
mod change;
mod context;
mod conversations;
mod debug;
mod device;
mod disappear;
mod doctor;
mod export;
mod file;
mod group;
mod history;
mod import;
mod listen;
mod login;
mod logout;
mod online;
mod outbox;
mod output;
mod passwd;
mod receipts;
mod recover;
mod recovery;
mod register;
mod requests;
mod rpc;
mod search;
mod send;
mod server;
mod show;
mod verify;
mod whoami;

use clap::{Parser, Subcommand};
use context::Context;
use fastchat_client::api::{ApiError, ErrorKind};
use std::{path::PathBuf, process::ExitCode};

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 internal error, 2 usage, 3 server unavailable, 4 authentication, 5 refused by policy,
6 untrusted or changed key, 7 not found, 8 no answer in time, 130 interrupted.

Examples:
  fastchat register alice --server wss://chat.example.org
  fastchat send bob 'hello'
  fastchat group create team bob carol
  fastchat send '#team' 'hello all'
  echo 'from a script' | fastchat send bob
  fastchat file send bob photo.jpg
  fastchat listen --json";

/// End-to-end encrypted chat on the command line.
#[derive(Debug, Parser)]
#[command(name = "fastchat", version, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Global {
    /// Which account on this machine.
    #[arg(long, global = true, env = "FASTCHAT_PROFILE", default_value = "default")]
    profile: String,
    /// The server: wss://HOST dials a gateway, https://HOST asks a balancer for one; several with commas.
    /// Remembered by `register`.
    #[arg(long, global = true, env = "FASTCHAT_SERVER", value_name = "URL")]
    server: Option<String>,
    /// Where profiles are, instead of $XDG_DATA_HOME/fastchat.
    #[arg(long, global = true, env = "FASTCHAT_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Trust the certificates in this PEM file instead of the system's.
    #[arg(long, global = true, env = "FASTCHAT_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print JSON, one object a line, each with "v":1.
    #[arg(long, global = true)]
    json: bool,
    /// Read the password from this file's first line instead of asking.
    #[arg(long, global = true, env = "FASTCHAT_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Give up after this many seconds (30 where nothing else is said).
    #[arg(long, global = true, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Allow ws:// and http:// to another machine: who talks to whom is then visible on the way.
    #[arg(long, global = true)]
    insecure: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Register(register::Args),
    Login(login::Args),
    Logout(logout::Args),
    Passwd(passwd::Args),
    Whoami(whoami::Args),
    Device(device::Args),
    Recover(recover::Args),
    Recovery(recovery::Args),
    Backup(backup::Args),
    Account(account::Args),
    Send(send::Args),
    Edit(change::EditArgs),
    Delete(change::DeleteArgs),
    React(change::ReactArgs),
    Disappear(disappear::Args),
    Show(show::Args),
    Link(show::LinkArgs),
    Listen(listen::Args),
    History(history::Args),
    File(file::Args),
    Search(search::Args),
    Export(export::Args),
    Import(import::Args),
    Rpc(rpc::Args),
    Conversations(conversations::Args),
    Group(group::Args),
    Requests(requests::Args),
    Block(block::Args),
    Unblock(block::UnblockArgs),
    Online(online::Args),
    Receipts(receipts::ReceiptsArgs),
    Read(receipts::ReadArgs),
    Unread(receipts::UnreadArgs),
    Typing(receipts::TypingArgs),
    Privacy(receipts::PrivacyArgs),
    Verify(verify::Args),
    Outbox(outbox::Args),
    Server(server::Args),
    Doctor(doctor::Args),
    #[command(hide = true)]
    Debug(debug::Args),
}

impl Command {
    /// What to say when a signal ends it.
    fn interrupted(&self) -> &'static str {
        match self {
            Self::Device(_) | Self::Recover(_) => {
                "interrupted; nothing is damaged: run the same command again to go on"
            }
            Self::Register(_) => "interrupted; run the same command again to finish it",
            Self::File(_) => "interrupted; the file goes on with the next command that connects",
            Self::Backup(_) => "interrupted; the last backup is in force",
            _ => "interrupted; what was not sent is in the outbox",
        }
    }
}

/// Diagnostics for developers: `FASTCHAT_LOG=debug`, on stderr. Never text of messages.
pub(crate) fn logging() {
    let filter = std::env::var("FASTCHAT_LOG").unwrap_or_else(|_| "off".to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// Runs the command; a signal ends it.
pub(crate) async fn run(args: Args) -> ExitCode {
    let Args { global, command } = args;
    let json = global.json;
    let interrupt = command.interrupted();
    let result = tokio::select! {
        result = dispatch(global, command) => result,
        () = interrupted() => Err(ApiError::new(ErrorKind::Interrupted, interrupt)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(json, &error);
            ExitCode::from(error.kind.exit_code())
        }
    }
}

async fn dispatch(global: Global, command: Command) -> Result<(), ApiError> {
    let context = Context::new(global)?;
    match command {
        Command::Register(args) => register::run(&context, args).await,
        Command::Login(args) => login::run(&context, args).await,
        Command::Logout(args) => logout::run(&context, args).await,
        Command::Passwd(args) => passwd::run(&context, args).await,
        Command::Whoami(args) => whoami::run(&context, args).await,
        Command::Device(args) => device::run(&context, args).await,
        Command::Recover(args) => recover::run(&context, args).await,
        Command::Recovery(args) => recovery::run(&context, args).await,
        Command::Backup(args) => backup::run(&context, args).await,
        Command::Account(args) => account::run(&context, args).await,
        Command::Send(args) => send::run(&context, args).await,
        Command::Edit(args) => change::edit(&context, args).await,
        Command::Delete(args) => change::delete(&context, args).await,
        Command::React(args) => change::react(&context, args).await,
        Command::Disappear(args) => disappear::run(&context, args).await,
        Command::Show(args) => show::run(&context, args).await,
        Command::Link(args) => show::link(&context, args).await,
        Command::Listen(args) => listen::run(&context, args).await,
        Command::History(args) => history::run(&context, args).await,
        Command::File(args) => file::run(&context, args).await,
        Command::Search(args) => search::run(&context, args).await,
        Command::Export(args) => export::run(&context, args).await,
        Command::Import(args) => import::run(&context, args).await,
        Command::Rpc(args) => rpc::run(&context, args).await,
        Command::Conversations(args) => conversations::run(&context, args).await,
        Command::Group(args) => group::run(&context, args).await,
        Command::Requests(args) => requests::run(&context, args).await,
        Command::Block(args) => block::run(&context, args).await,
        Command::Unblock(args) => block::unblock(&context, args).await,
        Command::Online(args) => online::run(&context, args).await,
        Command::Receipts(args) => receipts::receipts(&context, args).await,
        Command::Read(args) => receipts::read(&context, args).await,
        Command::Unread(args) => receipts::unread(&context, args).await,
        Command::Typing(args) => receipts::typing(&context, args).await,
        Command::Privacy(args) => receipts::privacy(&context, args).await,
        Command::Verify(args) => verify::run(&context, args).await,
        Command::Outbox(args) => outbox::run(&context, args).await,
        Command::Server(args) => server::run(&context, args).await,
        Command::Doctor(args) => doctor::run(&context, args).await,
        Command::Debug(args) => debug::run(&context, args).await,
    }
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        result = tokio::signal::ctrl_c() => if result.is_err() { std::future::pending::<()>().await },
        _ = terminate.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::collections::BTreeSet;

    /// Commands that can be given, as `group.create`.
    fn commands(command: &clap::Command, name: &str, into: &mut BTreeSet<String>) {
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            let name = format!("{name}{}", below.get_name());
            if !below.is_subcommand_required_set() {
                into.insert(name.clone());
            }
            commands(below, &format!("{name}."), into);
        }
    }

    #[test]
    fn every_command_has_a_schema_of_what_it_prints() {
        let mut all = BTreeSet::new();
        commands(&Args::command(), "", &mut all);
        for (name, schema) in [("listen", listen::SCHEMA), ("rpc", rpc::SCHEMA)] {
            assert!(all.remove(name) && schema.contains("\"$schema\""), "{name}");
        }
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../docs/schemas/commands.schema.json")).unwrap();
        let defined = schema["$defs"].as_object().unwrap().keys();
        let defined: BTreeSet<String> =
            defined.filter_map(|name| name.strip_prefix("command.")).map(str::to_owned).collect();
        assert_eq!(defined, all, "docs/schemas/commands.schema.json and the commands");
    }
}

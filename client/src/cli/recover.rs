//! `fastchat recover`.

use super::{
    ask,
    context::{Context, read_password, wanted_server},
    output, recovery,
};
use fastchat_client::{
    Client,
    api::{ApiError, ErrorKind},
    client::Options,
    devices::recover::{self, Recovery},
    profile::Profile,
};
use std::{path::PathBuf, time::Duration};

/// Where nothing else is said: a backup may be large.
const PATIENCE: Duration = Duration::from_secs(600);

/// Bring an account back onto this machine, with nothing but its recovery code.
///
/// All its other devices are revoked, a new password is set, conversations are joined again, and the
/// history backup is taken in if there is one (`fastchat backup`). Whoever wrote to the account sees the
/// same identity as before.
///
/// If a device that held the identity keys was stolen rather than lost, this is not enough: the thief
/// may have those keys, and with them can sign lists of devices as the account does. Make a new account
/// then, tell the people you write to in person, and delete this one (`fastchat account delete`).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat recover alice --server wss://chat.example.org\n  \
    fastchat recover alice --recovery-file alice.recovery --password-file new-password")]
pub(crate) struct Args {
    /// The account's name.
    name: String,
    /// Read the recovery code from this file instead of asking.
    #[arg(long, value_name = "FILE")]
    recovery_file: Option<PathBuf>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let usage = |message: String| ApiError::new(ErrorKind::Usage, message);
    let name = args.name.parse().map_err(|e| usage(format!("{:?} cannot be a name: {e}", args.name)))?;
    let (server, ca) = wanted_server(context)?;
    let cost = context.cost(&server)?;
    let profile = context.own_profile()?;
    let code = match &args.recovery_file {
        Some(file) => recovery::read(file)?,
        None => {
            let typed = ask::line("Recovery code: ", "give --recovery-file FILE").await?;
            typed.parse().map_err(|e| usage(format!("{e}")))?
        }
    };
    let password = context.password("A new password for this account: ")?;
    if context.global.password_file.is_none() && *read_password(None, "Once more: ")? != *password {
        return Err(usage("the two passwords differ".into()));
    }
    let insecure = context.global.insecure;
    let recovery = Recovery { name, code, password, server, ca, insecure, cost };
    bring_back(context, profile, &recovery).await
}

async fn bring_back(context: &Context, profile: Profile, recovery: &Recovery) -> Result<(), ApiError> {
    let recovered = recover::recover(&profile, recovery).await?;
    if !context.json() {
        output::note("the account is back; joining its conversations");
    }
    let client = Client::open(profile, recovered.key, Options::default())?;
    let status = client.synced(context.timeout()).await?;
    let mut history = 0;
    match &recovered.backup {
        Ok(None) => output::note("there is no backup of the history: it is lost with the devices"),
        Ok(Some(here)) => {
            let mut progress = ask::Progress::default();
            let wait = context.given_timeout().unwrap_or(PATIENCE);
            let told = |view: &fastchat_client::api::ImportView| {
                if view.state == "reading" {
                    progress.say(&format!("the backup: {} messages", view.entries));
                }
            };
            let imported = client.imported(wait, told).await?;
            history = imported.entries.max(*here);
            output::note(&format!("from the backup: {history} messages"));
            if let Some(reason) = imported.reason {
                output::note(&format!("not all of the backup could be had: {reason}"));
            }
        }
        Err(why) => output::note(&format!("the backup of the history cannot be had: {why}")),
    }
    client.settled(context.timeout()).await?;
    client.close().await;
    if !status.synced {
        output::note("the server did not answer in time: conversations are joined with the next command");
    }
    output::note(
        "was a device stolen rather than lost? Then its thief may have the identity keys: see `fastchat recover --help`",
    );
    let value = serde_json::json!({
        "type": "recovered", "name": recovery.name, "revoked": recovered.revoked,
        "backup": matches!(recovered.backup, Ok(Some(_))), "messages": history,
    });
    context.print(&value, || {
        format!("recovered {} at {}; devices revoked: {}", recovery.name, recovery.server, recovered.revoked)
    });
    Ok(())
}

//! `fastchat backup`.

use super::{
    ask,
    context::{Context, not_connected},
    output,
};
use fastchat_client::{
    api::{ApiError, BackupAction, BackupView, ErrorKind},
    client::Options,
};
use std::time::Duration;

/// Where nothing else is said: the first backup may be large.
const PATIENCE: Duration = Duration::from_secs(900);

/// The backup of the history on the server, sealed for the account's identity keys.
///
/// Only somebody with those keys (this device, or the recovery code) can open it. While it is on, it is
/// made once a day if there is anything new.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fastchat backup on\n  fastchat backup status --json\n  fastchat backup delete"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Clone, Copy, clap::Subcommand)]
enum Action {
    /// Make one now, and one a day from now on.
    On,
    /// Make no more; the last one stays on the server.
    Off,
    /// Make one now.
    Now,
    /// Say whether there is one, and how old it is.
    Status,
    /// Make no more, and remove the last one from the server.
    Delete,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let action = match args.command {
        Action::On => BackupAction::On,
        Action::Off => BackupAction::Off,
        Action::Now => BackupAction::Now,
        Action::Status => BackupAction::Status,
        Action::Delete => BackupAction::Delete,
    };
    let mut client = context.client(Options::default()).await?;
    if !matches!(action, BackupAction::Status | BackupAction::Off) {
        let status = context.synced(&mut client, context.timeout()).await?;
        if !status.connected {
            client.close().await;
            return Err(not_connected(&status));
        }
    }
    let mut view = client.backup(action).await?;
    if matches!(action, BackupAction::On | BackupAction::Now) {
        let mut progress = ask::Progress::default();
        let told = |view: &BackupView| {
            if view.running && !context.json() {
                progress.say(&format!("backup: {} parts", view.parts));
            }
        };
        view = client.backed_up(context.given_timeout().unwrap_or(PATIENCE), told).await?;
    }
    client.close().await;
    let mut value = serde_json::to_value(&view).map_err(ApiError::internal)?;
    value["type"] = "backup".into();
    context.print(&value, || described(&view));
    match view.problem {
        Some(problem) if !matches!(action, BackupAction::Status | BackupAction::Off) => {
            Err(ApiError::new(ErrorKind::Refused, problem))
        }
        _ => Ok(()),
    }
}

fn described(view: &BackupView) -> String {
    let last = match view.made_ms {
        None => "there is none".to_owned(),
        Some(at) => format!("made {}, {} KiB", output::time(at), view.bytes.div_ceil(1024)),
    };
    let state = if view.on { "on" } else { "off" };
    let problem =
        view.problem.as_ref().map(|why| format!("\nthe last attempt failed: {why}")).unwrap_or_default();
    format!("backup {state}: {last}{problem}")
}

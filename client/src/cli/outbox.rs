//! `fastchat outbox`.

use super::{
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    Client,
    api::{ApiError, ErrorKind, OutboxView, Request, Response},
    client::Options,
    terminal::clean_line,
};
use std::time::{Duration, Instant};

/// See, take back or retry what has not been sent.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fastchat outbox\n  fastchat outbox cancel 3fa9\n  fastchat outbox retry"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List what waits and what failed (the default).
    List,
    /// Take a message back that no gateway has been offered.
    Cancel {
        /// Its id, or the beginning of it.
        id: String,
    },
    /// Try failed messages again, and wait until the outbox is empty.
    Retry {
        /// One of them, by its id or the beginning of it; all if none is given.
        id: Option<String>,
    },
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let online = matches!(args.command, Some(Action::Retry { .. }));
    let options = Options { online, serve: true };
    let mut client = context.client(options).await?;
    let result = act(context, &mut client, options, args.command.unwrap_or(Action::List)).await;
    client.close().await;
    result
}

async fn act(
    context: &Context,
    client: &mut Client,
    options: Options,
    action: Action,
) -> Result<(), ApiError> {
    match action {
        Action::List => {
            for item in list(context, client, options).await? {
                print(context, &item)?;
            }
            Ok(())
        }
        Action::Cancel { id } => {
            context.request(client, options, Request::OutboxCancel { id }).await?;
            context.print(&serde_json::json!({ "type": "cancelled" }), || "taken back".to_owned());
            Ok(())
        }
        Action::Retry { id } => {
            context.request(client, options, Request::OutboxRetry { id }).await?;
            wait_until_empty(context, client, options).await
        }
    }
}

async fn wait_until_empty(context: &Context, client: &mut Client, options: Options) -> Result<(), ApiError> {
    let deadline = Instant::now() + context.timeout();
    loop {
        let items = list(context, client, options).await?;
        let waiting = |item: &&OutboxView| item.state == "waiting" || item.state == "offered";
        let failed = items.iter().filter(|item| item.state == "failed").count();
        let Some(first) = items.iter().find(waiting) else {
            return match failed {
                0 => {
                    context
                        .print(&serde_json::json!({ "type": "done" }), || "the outbox is empty".to_owned());
                    Ok(())
                }
                n => Err(ApiError::new(
                    ErrorKind::Refused,
                    format!("{n} messages were refused again: `fastchat outbox` says why"),
                )),
            };
        };
        if Instant::now() >= deadline {
            let reason = first.reason.clone().unwrap_or_default();
            let message = format!("{} messages still wait: {reason}", items.iter().filter(waiting).count());
            return Err(ApiError::new(ErrorKind::Timeout, message));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn list(context: &Context, client: &mut Client, options: Options) -> Result<Vec<OutboxView>, ApiError> {
    match context.request(client, options, Request::Outbox).await? {
        Response::Outbox { items } => Ok(items),
        other => Err(unexpected(&other)),
    }
}

fn print(context: &Context, item: &OutboxView) -> Result<(), ApiError> {
    let mut value = serde_json::to_value(item).map_err(ApiError::internal)?;
    value["type"] = "outbox".into();
    context.print(&value, || {
        let text: String = clean_line(&item.text).chars().take(40).collect();
        let reason =
            item.reason.as_deref().map(|reason| format!("  ({})", clean_line(reason))).unwrap_or_default();
        let id = item.id.get(..8).unwrap_or(&item.id);
        format!(
            "{id}  {}  {:<8} to {}: {text}{reason}",
            output::time(item.at_ms),
            item.state,
            clean_line(&item.to)
        )
    });
    Ok(())
}

//! `fastchat block` and `fastchat unblock`.

use super::{
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    api::{ApiError, ErrorKind, Request, Response},
    client::Options,
    terminal::clean_line,
};

/// Block an account: the server takes no direct message from it to you, and your conversation is hidden.
///
/// In groups that you share, each still reads the other. The account is not told.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fastchat block mallory\n  fastchat block list\n  fastchat unblock mallory"
)]
pub(crate) struct Args {
    /// An account's name; `list` shows who is blocked.
    name: String,
}

/// Unblock an account: its conversation with you is back as it was.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat unblock mallory")]
pub(crate) struct UnblockArgs {
    /// An account's name.
    name: String,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    if args.name == "list" {
        return list(context).await;
    }
    set(context, args.name, true).await
}

pub(crate) async fn unblock(context: &Context, args: UnblockArgs) -> Result<(), ApiError> {
    set(context, args.name, false).await
}

async fn set(context: &Context, name: String, blocked: bool) -> Result<(), ApiError> {
    let options = Options::default();
    let mut client = context.client(options).await?;
    let wait_ms = context.timeout().as_millis() as u64;
    let request = Request::Block { name: name.clone(), blocked, wait_ms };
    let answer = context.request(&mut client, options, request).await;
    client.close().await;
    match answer? {
        done @ Response::Done => {
            let word = if blocked { "blocked" } else { "no longer blocked" };
            context.print(&done, || format!("{} is {word}", clean_line(&name)));
            Ok(())
        }
        other => Err(unexpected(&other)),
    }
}

async fn list(context: &Context) -> Result<(), ApiError> {
    let options = Options::default();
    let mut client = context.client(options).await?;
    context.glance(&mut client).await?;
    let answer = context.request(&mut client, options, Request::Blocked).await;
    client.close().await;
    let Response::Names { names } = answer? else {
        return Err(ApiError::new(ErrorKind::Internal, "an answer of another kind"));
    };
    if names.is_empty() && !context.json() {
        output::note("nobody is blocked");
    }
    for name in names {
        context.print(&serde_json::json!({ "type": "blocked", "name": name }), || clean_line(&name));
    }
    Ok(())
}

//! `fastchat requests`.

use super::{
    context::{Context, unexpected},
    output,
};
use clap::{Subcommand, ValueEnum};
use fastchat_client::{
    api::{ApiError, ErrorKind, Request, RequestView, Response},
    client::Options,
    terminal::clean_line,
};

/// Message requests: what strangers have begun, and what to do about it.
///
/// A stranger is somebody with whom you have no conversation that you accepted. What a stranger writes is
/// shown as a request and does not count as unread until you accept it, or write into it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat requests list\n  fastchat requests accept mallory\n  \
    fastchat requests decline '#spam'    # leaves the group, too\n  fastchat requests policy open")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what waits (the default).
    List,
    /// Say yes: from then on it is a conversation like any other.
    Accept {
        /// An account's name, or a group: #NAME or the beginning of its id.
        with: String,
    },
    /// Say no: it is hidden, and a group is left. The other side is not told that it was you who said no.
    Decline {
        /// An account's name, or a group: #NAME or the beginning of its id.
        with: String,
    },
    /// Show or set who may write without being asked for.
    Policy {
        /// `ask`: strangers' messages are requests (the default). `open`: nobody is a stranger.
        policy: Option<Policy>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Policy {
    Ask,
    Open,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    match args.command.unwrap_or(Command::List) {
        Command::List => list(context).await,
        Command::Accept { with } => answer(context, with, true).await,
        Command::Decline { with } => answer(context, with, false).await,
        Command::Policy { policy } => self::policy(context, policy).await,
    }
}

async fn ask(context: &Context, request: Request) -> Result<Response, ApiError> {
    let options = Options::default();
    let mut client = context.client(options).await?;
    context.glance(&mut client).await?;
    let answer = context.request(&mut client, options, request).await;
    client.close().await;
    answer
}

async fn list(context: &Context) -> Result<(), ApiError> {
    let response = ask(context, Request::Requests).await?;
    let Response::Requests { requests } = response else { return Err(unexpected(&response)) };
    if requests.is_empty() && !context.json() {
        output::note("no requests");
    }
    for view in requests {
        let mut value = serde_json::to_value(&view).map_err(ApiError::internal)?;
        value["type"] = "request".into();
        context.print(&value, || line(&view));
    }
    Ok(())
}

fn line(view: &RequestView) -> String {
    let last = view.last.as_ref().map(|last| clean_line(&output::message(last))).unwrap_or_default();
    let (with, from) = (clean_line(&view.with), clean_line(&view.from));
    let who = if view.group { format!("{with}, by {from}") } else { with };
    format!("{who:<28} {:>3}  {last}", view.messages)
}

async fn answer(context: &Context, with: String, accept: bool) -> Result<(), ApiError> {
    let name = clean_line(&with);
    let wait_ms = context.timeout().as_millis() as u64;
    match ask(context, Request::RequestAnswer { with, accept, wait_ms }).await? {
        Response::Waiting(_) if accept => {
            output::note(
                "the server cannot be reached: the others are told with the next command that connects",
            );
        }
        Response::Waiting(waiting) => {
            let message = format!(
                "it is hidden; the group is left with the next command that connects ({})",
                waiting.reason
            );
            return Err(ApiError::new(ErrorKind::Timeout, message));
        }
        Response::Done | Response::Sent(_) | Response::Group(_) => {}
        other => return Err(unexpected(&other)),
    }
    context.print(&Response::Done, || match accept {
        true => format!("{name} accepted"),
        false => format!("{name} declined"),
    });
    Ok(())
}

async fn policy(context: &Context, policy: Option<Policy>) -> Result<(), ApiError> {
    let policy = policy.map(|policy| match policy {
        Policy::Ask => "ask".to_owned(),
        Policy::Open => "open".to_owned(),
    });
    let options = Options { online: false, ..Options::default() };
    let mut client = context.client(options).await?;
    let response = context.request(&mut client, options, Request::RequestPolicy { policy }).await;
    client.close().await;
    let response = response?;
    let Response::Policy { policy } = &response else { return Err(unexpected(&response)) };
    context.print(&response, || match policy.as_str() {
        "open" => "open: anybody may write".to_owned(),
        _ => "ask: what strangers write waits for a yes".to_owned(),
    });
    Ok(())
}

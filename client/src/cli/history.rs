//! `fastchat history`.

use super::{
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    api::{ApiError, Event, Request, Response},
    client::Options,
};

/// Show the last messages of a conversation.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat history bob\n  fastchat history bob -n 100 --json")]
pub(crate) struct Args {
    /// An account's name.
    with: String,
    /// How many at most.
    #[arg(short = 'n', long, default_value_t = 20)]
    number: usize,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let options = Options::default();
    let mut client = context.client(options).await?;
    context.glance(&mut client).await?;
    let request = Request::History { with: args.with, limit: args.number };
    let response = context.request(&mut client, options, request).await;
    let Response::Messages { messages } = response? else { return Err(ApiError::internal("no messages")) };
    // What is shown is seen.
    if let Some(last) = messages.last() {
        let mark = Request::MarkRead { conversation: last.conversation.clone(), seq: last.seq };
        let marked = context.request(&mut client, options, mark).await?;
        if marked != Response::Done {
            return Err(unexpected(&marked));
        }
    }
    client.close().await;
    for view in &messages {
        context.print(&Event::Message(view.clone()), || output::message(view));
    }
    Ok(())
}

//! `fastchat history`.

use super::{
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    api::{ApiError, Event, MessageView, Request, Response},
    client::Options,
};
use std::collections::BTreeMap;

/// Show the last messages of a conversation, or of all of them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat history bob\n  fastchat history '#team' --last 100 --json\n  \
    fastchat history --last 5    # the last five of every conversation")]
pub(crate) struct Args {
    /// An account's name, or a group: #NAME or the beginning of its id. All conversations without it.
    with: Option<String>,
    /// How many at most, of each conversation.
    #[arg(short = 'n', long, visible_alias = "number", default_value_t = 20, value_name = "N")]
    last: usize,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let options = Options::default();
    let mut client = context.client(options).await?;
    context.glance(&mut client).await?;
    let request = Request::History { with: args.with, limit: args.last };
    let response = context.request(&mut client, options, request).await;
    let Response::Messages { messages } = response? else { return Err(ApiError::internal("no messages")) };
    // What is shown is seen.
    for (conversation, seq) in last_seen(&messages) {
        let marked = context.request(&mut client, options, Request::MarkRead { conversation, seq }).await?;
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

fn last_seen(messages: &[MessageView]) -> BTreeMap<String, u64> {
    let mut last = BTreeMap::new();
    for view in messages {
        let seq: &mut u64 = last.entry(view.conversation.clone()).or_default();
        *seq = view.seq.max(*seq);
    }
    last
}

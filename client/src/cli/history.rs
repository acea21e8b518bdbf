//! `fastchat history`.

use super::{
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    api::{ApiError, Event, MessageView, Page, Request, Response},
    client::Options,
};
use std::collections::BTreeMap;

/// Show the last messages of a conversation, or of all of them; or a page from further back.
///
/// A place is a message's id or its seq, as --json shows them. The last page is marked as read, others
/// are not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat history bob\n  fastchat history '#team' --last 100 --json\n  \
    fastchat history bob --before 120    # the twenty before message 120\n  \
    fastchat history --last 5    # the last five of every conversation")]
pub(crate) struct Args {
    /// An account's name, or a group: #NAME or the beginning of its id. All conversations without it.
    with: Option<String>,
    /// How many at most, of each conversation.
    #[arg(short = 'n', long, visible_aliases = ["number", "limit"], default_value_t = 20, value_name = "N")]
    last: usize,
    /// What comes before this place.
    #[arg(long, value_name = "PLACE", requires = "with")]
    before: Option<String>,
    /// What comes after this place.
    #[arg(long, value_name = "PLACE", requires = "with", conflicts_with = "before")]
    after: Option<String>,
    /// What is around this place.
    #[arg(long, value_name = "PLACE", requires = "with", conflicts_with_all = ["before", "after"])]
    around: Option<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let options = Options::default();
    let mut client = context.client(options).await?;
    context.glance(&mut client).await?;
    let page = Page { before: args.before, after: args.after, around: args.around };
    let last = page == Page::default();
    let request = Request::History { with: args.with, limit: args.last, page };
    let response = context.request(&mut client, options, request).await;
    let Response::Messages { messages, older, newer } = response? else {
        return Err(ApiError::internal("no messages"));
    };
    // What is shown is seen; further back, that would say nothing of what came meanwhile.
    for (conversation, seq) in last_seen(&messages).into_iter().filter(|_| last) {
        let marked = context.request(&mut client, options, Request::MarkRead { conversation, seq }).await?;
        if marked != Response::Done {
            return Err(unexpected(&marked));
        }
    }
    client.close().await;
    for view in &messages {
        context.print(&Event::Message(view.clone()), || output::message(view));
    }
    if !last {
        say_more(context, older, newer, &messages);
    }
    Ok(())
}

/// On stderr, so that what is on stdout is messages alone.
fn say_more(context: &Context, older: bool, newer: bool, messages: &[MessageView]) {
    let place = |view: &MessageView| format!("{}.{}", view.incarnation, view.seq);
    let hint = |there: bool, view: Option<&MessageView>, side: &str, option: &str| {
        if let (true, Some(view)) = (there, view) {
            output::note(&format!("there are {side} ones: --{option} {}", place(view)));
        }
    };
    if !context.json() {
        hint(older, messages.first(), "older", "before");
        hint(newer, messages.last(), "newer", "after");
    }
}

fn last_seen(messages: &[MessageView]) -> BTreeMap<String, u64> {
    let mut last = BTreeMap::new();
    for view in messages {
        let seq: &mut u64 = last.entry(view.conversation.clone()).or_default();
        *seq = view.seq.max(*seq);
    }
    last
}

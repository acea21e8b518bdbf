//! `fastchat conversations`.

use super::{
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    api::{ApiError, ConversationView, Request, Response, UnreadView},
    client::Options,
    terminal::clean_line,
};

/// List conversations: with whom, how much is unread, the last message.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat conversations\n  \
    fastchat conversations --unread    # only the sums\n  \
    fastchat conversations --json | jq -r 'select(.unread>0).with'")]
pub(crate) struct Args {
    /// Only how much is unread: from people, in groups, in requests.
    #[arg(long)]
    unread: bool,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let options = Options::default();
    let mut client = context.client(options).await?;
    context.glance(&mut client).await?;
    let response = context.request(&mut client, options, Request::Conversations).await?;
    client.close().await;
    let Response::Conversations { conversations, unread } = response else {
        return Err(unexpected(&response));
    };
    for view in conversations.iter().filter(|_| !args.unread) {
        show(context, view)?;
    }
    if args.unread {
        let mut value = serde_json::to_value(unread).map_err(ApiError::internal)?;
        value["type"] = "unread".into();
        context.print(&value, || sums(&unread));
    } else if !context.json() && unread != UnreadView::default() {
        output::note(&sums(&unread));
    }
    Ok(())
}

fn show(context: &Context, view: &ConversationView) -> Result<(), ApiError> {
    let last = view.last.as_ref().map(|last| clean_line(&output::message(last))).unwrap_or_default();
    let mut value = serde_json::to_value(view).map_err(ApiError::internal)?;
    value["type"] = "conversation".into();
    context.print(&value, || {
        let unread = match (view.unread, view.request) {
            (0, false) => String::new(),
            (n, false) => format!("{n} new"),
            (_, true) => "request".to_owned(),
        };
        let state = if view.state == "ready" { String::new() } else { format!(" ({})", view.state) };
        format!("{:<20} {unread:>8}  {last}{state}", clean_line(&view.with))
    });
    Ok(())
}

fn sums(unread: &UnreadView) -> String {
    let UnreadView { direct, groups, requests } = unread;
    format!("{direct} unread from people, {groups} in groups, {requests} in requests")
}

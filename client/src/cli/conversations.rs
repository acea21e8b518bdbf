//! `fastchat conversations`.

use super::{
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    api::{ApiError, Request, Response},
    client::Options,
    terminal::clean_line,
};

/// List conversations: with whom, how much is unread, the last message.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fastchat conversations\n  fastchat conversations --json | jq -r 'select(.unread>0).with'"
)]
pub(crate) struct Args {}

pub(crate) async fn run(context: &Context, _: Args) -> Result<(), ApiError> {
    let options = Options::default();
    let mut client = context.client(options).await?;
    context.glance(&mut client).await?;
    let response = context.request(&mut client, options, Request::Conversations).await?;
    client.close().await;
    let Response::Conversations { conversations } = response else { return Err(unexpected(&response)) };
    for view in conversations {
        let last = view.last.as_ref().map(|last| clean_line(&output::message(last))).unwrap_or_default();
        let mut value = serde_json::to_value(&view).map_err(ApiError::internal)?;
        value["type"] = "conversation".into();
        context.print(&value, || {
            let unread = if view.unread > 0 { format!("{} new", view.unread) } else { String::new() };
            let state = if view.state == "ready" { String::new() } else { format!(" ({})", view.state) };
            format!("{:<20} {unread:>8}  {last}{state}", clean_line(&view.with))
        });
    }
    Ok(())
}

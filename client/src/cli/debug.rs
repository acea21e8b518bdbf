//! `fastchat debug`: for tests.

use super::context::Context;
use fastchat_client::{
    api::{ApiError, Request},
    client::Options,
};

/// For tests; may change at any time.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make this device's keys in a conversation new.
    UpdateKeys {
        /// An account's name.
        with: String,
    },
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let Action::UpdateKeys { with } = args.command;
    let options = Options::default();
    let mut client = context.client(options).await?;
    context.synced(&mut client, context.timeout()).await?;
    let answer = context.request(&mut client, options, Request::UpdateKeys { with }).await;
    client.close().await;
    answer?;
    context.print(&serde_json::json!({ "type": "done" }), || "new keys are in use".to_owned());
    Ok(())
}

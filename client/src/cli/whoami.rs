//! `fastchat whoami`.

use super::context::{Context, unexpected};
use fastchat_client::{
    api::{ApiError, Request, Response},
    client::Options,
};

/// Show which account this profile is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat whoami\n  fastchat whoami --json")]
pub(crate) struct Args {}

pub(crate) async fn run(context: &Context, _: Args) -> Result<(), ApiError> {
    let options = Options { online: false, serve: true };
    let mut client = context.client(options).await?;
    let response = context.request(&mut client, options, Request::WhoAmI).await?;
    client.close().await;
    let Response::WhoAmI(view) = &response else { return Err(unexpected(&response)) };
    context.print(&response, || {
        format!(
            "{} at {} ({})\naccount  {}\ndevice   {}\nidentity {}",
            view.name, view.server, view.deployment, view.account, view.device, view.identity
        )
    });
    Ok(())
}

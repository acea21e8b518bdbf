//! `fastchat logout`.

use super::context::Context;
use fastchat_client::{
    Client,
    api::{ApiError, Request},
};

/// Lock this profile: forget its key and end whatever is using it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat logout")]
pub(crate) struct Args {}

pub(crate) async fn run(context: &Context, _: Args) -> Result<(), ApiError> {
    // First the key, so that what ends now cannot be followed by something that begins.
    context.location.forget_key()?;
    if let Ok(owner) = Client::connect(&context.location).await {
        // An owner that ends at this moment is what was wanted.
        let _ = owner.request(Request::Shutdown).await;
    }
    context.print(&serde_json::json!({ "type": "logout" }), || "logged out".to_owned());
    Ok(())
}

//! `fastchat register`.

use super::{
    context::{Context, not_connected},
    output,
};
use fastchat_client::{
    Client,
    account::Registration,
    api::{ApiError, ErrorKind, Request},
    client::Options,
    link::ServerUrl,
};

/// Make an account, with this machine as its first device.
///
/// Repeating an interrupted registration finishes it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat register alice --server wss://chat.example.org\n  \
    fastchat --profile work register alice --server ws://127.0.0.1:4000 --password-file ~/.secret")]
pub(crate) struct Args {
    /// The name that others will type: a-z, 0-9, dot, underscore, hyphen.
    name: String,
    /// An invite, where registration needs one.
    #[arg(long, value_name = "CODE")]
    invite: Option<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let usage = |message: String| ApiError::new(ErrorKind::Usage, message);
    let name = args.name.parse().map_err(|e| usage(format!("{:?} cannot be a name: {e}", args.name)))?;
    let url = context
        .global
        .server
        .as_deref()
        .ok_or_else(|| usage("which server? Give --server URL (or FASTCHAT_SERVER)".into()))?;
    let server: ServerUrl = url.parse().map_err(|e| usage(format!("{e}")))?;
    if let Some(settings) = context.location.settings()?.filter(|settings| settings.registered) {
        return Err(usage(format!(
            "this profile already belongs to {}: use --profile for another account",
            settings.name
        )));
    }
    let cost = context.cost(&server)?;
    let password = context.password("A password for this account: ")?;
    if context.global.password_file.is_none() && *context.password("Once more: ")? != *password {
        return Err(usage("the two passwords differ".into()));
    }
    if !context.json() {
        output::note("making keys; this takes a few seconds");
    }
    let ca = context.global.ca.as_deref().map(std::path::absolute).transpose().map_err(ApiError::internal)?;
    let insecure = context.global.insecure;
    let registration = Registration { name, password, server, ca, insecure, invite: args.invite, cost };
    let client = Client::register(&context.location, &registration, Options::default()).await?;
    // Others can write to this account once its key packages are there.
    let status = client.synced(context.timeout()).await?;
    let response = client.request(Request::WhoAmI).await?;
    client.close().await;
    if !status.synced {
        let why = not_connected(&status);
        output::note(&format!(
            "the account is made; its keys will be published with the next command: {why}"
        ));
    }
    context.print(&response, || format!("registered as {} at {}", registration.name, registration.server));
    Ok(())
}

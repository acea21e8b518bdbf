//! `fastchat register`.

use super::{
    context::{Context, not_connected, wanted_server},
    output,
    recovery::Wish,
};
use fastchat_client::{
    Client,
    account::Registration,
    api::{ApiError, ErrorKind, Request},
    client::Options,
};
use std::path::PathBuf;

/// Make an account, with this machine as its first device.
///
/// Shows a recovery code, which alone brings the account back when all devices are lost. Repeating an
/// interrupted registration finishes it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat register alice --server wss://chat.example.org\n  \
    fastchat --profile work register alice --server ws://127.0.0.1:4000 --password-file ~/.secret")]
pub(crate) struct Args {
    /// The name that others will type: a-z, 0-9, dot, underscore, hyphen.
    name: String,
    /// An invite, where registration needs one.
    #[arg(long, value_name = "CODE")]
    invite: Option<String>,
    /// Write the recovery code into this file (0600) instead of showing it.
    #[arg(long, value_name = "FILE", conflicts_with = "no_recovery")]
    recovery_file: Option<PathBuf>,
    /// Make no recovery code: the account is lost with its last device.
    #[arg(long)]
    no_recovery: bool,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let usage = |message: String| ApiError::new(ErrorKind::Usage, message);
    let name = args.name.parse().map_err(|e| usage(format!("{:?} cannot be a name: {e}", args.name)))?;
    let (server, ca) = wanted_server(context)?;
    let wish = Wish::of(args.recovery_file, args.no_recovery)?;
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
    let insecure = context.global.insecure;
    let registration = Registration { name, password, server, ca, insecure, invite: args.invite, cost };
    let client = Client::register(&context.location, &registration, Options::default()).await?;
    // Others can write to this account once its key packages are there.
    let status = client.synced(context.timeout()).await?;
    let response = client.request(Request::WhoAmI).await?;
    let recovery = set_recovery(&client, &wish, &registration).await;
    client.close().await;
    if !status.synced {
        let why = not_connected(&status);
        output::note(&format!(
            "the account is made; its keys will be published with the next command: {why}"
        ));
    }
    context.print(&response, || format!("registered as {} at {}", registration.name, registration.server));
    recovery
}

/// The account is made; without its code it is lost with its last device.
async fn set_recovery(client: &Client, wish: &Wish, registration: &Registration) -> Result<(), ApiError> {
    let Registration { name, server, .. } = registration;
    let set = match wish.code(name.as_str(), &server.to_string()).await {
        Ok(Some(code)) => client.set_recovery(&code.to_string()).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    match set {
        // It is kept, and the server is told with the next command.
        Err(error) if error.kind == ErrorKind::Network => {
            output::note(&format!("the recovery code is in force once the server can be reached: {error}"));
            Ok(())
        }
        Err(error) => Err(ApiError::new(
            error.kind,
            format!("{error}; the account is made, and has no recovery code yet: `fastchat recovery new`"),
        )),
        Ok(()) => Ok(()),
    }
}

//! `fastchat passwd`.

use super::{
    context::{Context, not_connected, read_password},
    output,
};
use fastchat_client::{
    account::{self, PasswordChange},
    api::{ApiError, ErrorKind, Request},
    client::Options,
    profile::no_account,
};
use std::path::PathBuf;

/// Change the account's password, here and at the server.
///
/// Other devices of the account stay logged in and go on opening with the password from before, until
/// `--this-device` is run there. Interrupted anywhere, one of the two passwords works; run it again to be
/// sure which.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fastchat passwd\n  fastchat passwd --password-file old --new-password-file new"
)]
pub(crate) struct Args {
    /// Read the new password from this file's first line instead of asking.
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// The password was changed on another device already: make it this one's as well.
    #[arg(long)]
    this_device: bool,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let place = &context.location;
    let settings =
        place.settings()?.filter(|settings| settings.registered).ok_or_else(|| no_account(place))?;
    let (of_old, of_new) = match args.this_device {
        true => ("Password that opens this device: ".to_owned(), "The account's present password: "),
        false => (format!("Present password of {}: ", settings.name), "New password: "),
    };
    let old = context.password(&of_old)?;
    let new = read_password(args.new_password_file.as_deref(), of_new)?;
    if args.this_device {
        account::follow_change(place, &old, &new, context.cost_for(&settings)?).await?;
        let text = || "this device opens with the account's password now".to_owned();
        context.print(&serde_json::json!({ "type": "passwd" }), text);
        return Ok(());
    }
    if args.new_password_file.is_none() && *read_password(None, "Once more: ")? != *new {
        return Err(ApiError::new(ErrorKind::Usage, "the two new passwords differ"));
    }
    let mut client = context.client(Options::default()).await?;
    let status = context.synced(&mut client, context.timeout()).await?;
    if !status.connected {
        return Err(not_connected(&status));
    }
    let change = account::begin_change(place, &old, &new, context.cost_for(&settings)?).await?;
    let request = Request::ChangePassword { old: change.old.clone(), new: change.new.clone() };
    let answer = client.request(request).await;
    let result = finish(context, &change, answer.map(drop));
    let others = client.devices().await.unwrap_or_default();
    client.close().await;
    result?;
    if others.iter().any(|device| !device.this && !device.revoked) {
        output::note(
            "the other devices stay logged in and still open with the old password: run `fastchat passwd --this-device` on them",
        );
    }
    context.print(&serde_json::json!({ "type": "passwd" }), || "the password was changed".to_owned());
    Ok(())
}

fn finish(context: &Context, change: &PasswordChange, answer: Result<(), ApiError>) -> Result<(), ApiError> {
    match answer {
        Ok(()) => account::end_change(&context.location, change),
        Err(error) if matches!(error.kind, ErrorKind::Auth | ErrorKind::Refused) => {
            account::abort_change(&context.location, change)?;
            Err(error)
        }
        Err(error) => {
            output::note(
                "the server did not say whether it took the new password: both open this device; try `fastchat login`",
            );
            Err(error)
        }
    }
}

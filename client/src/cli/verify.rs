//! `fastchat verify`.

use super::{
    context::{Context, unexpected},
    device::described,
};
use fastchat_client::{
    api::{ApiError, ErrorKind, Request, Response},
    client::Options,
};

/// Show the safety number with an account; compare it with what the other side sees.
///
/// Equal numbers mean that nobody is in between, not even the server. They are over the identity keys,
/// which sign each account's list of devices, so they cover all devices of both. After an identity key has
/// changed, nothing is sent to that account until the new number was accepted.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fastchat verify bob\n  fastchat verify bob --accept    # after comparing"
)]
pub(crate) struct Args {
    /// An account's name.
    name: String,
    /// The numbers were compared and are equal: trust this identity.
    #[arg(long)]
    accept: bool,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let options = Options::default();
    let mut client = context.client(options).await?;
    context.glance(&mut client).await?;
    let request = Request::Verify { name: args.name, accept: args.accept };
    let response = context.request(&mut client, options, request).await;
    client.close().await;
    let response = response?;
    let Response::Safety(view) = &response else { return Err(unexpected(&response)) };
    context.print(&response, || {
        let mut text = format!("{}: {}\n{}", view.name, view.trust, halves(&view.number));
        if let Some(changed) = &view.changed_number {
            text +=
                &format!("\nThe server now shows another identity, whose number is:\n{}", halves(changed));
        }
        let used: Vec<_> = view.devices.iter().filter(|device| !device.revoked).collect();
        let devices =
            if used.len() == 1 { "one device".to_owned() } else { format!("{} devices", used.len()) };
        text +=
            &format!("\nThe identity key has signed the list of devices, so the number covers {devices}:");
        for device in used {
            text += &format!("\n  {}", described(device));
        }
        text
    });
    match view.trust.as_str() {
        "changed" => Err(ApiError::new(
            ErrorKind::Untrusted,
            format!(
                "the identity key of {0} has changed: compare the new number, then `fastchat verify {0} --accept`",
                view.name
            ),
        )),
        _ => Ok(()),
    }
}

/// Twelve groups on two lines.
fn halves(number: &str) -> String {
    let groups: Vec<&str> = number.split(' ').collect();
    groups.chunks(6).map(|half| format!("  {}", half.join(" "))).collect::<Vec<_>>().join("\n")
}

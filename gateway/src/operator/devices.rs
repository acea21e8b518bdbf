//! `admin device`.

use super::{
    Desk,
    output::{self, mark},
};
use anyhow::{Result, bail};
use clap::Subcommand;
use fastchat_protocol::DeviceId;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show an account's devices
    #[command(after_help = "Examples:\n  fastchat-gateway admin device list alice\n  \
        fastchat-gateway admin device list alice --json")]
    List {
        /// The account
        name: String,
    },
    /// Serve a device no longer: its connection ends within two seconds, for good
    #[command(after_help = "Example:\n  \
        fastchat-gateway admin device revoke alice 9c1f5a30b7f84c0d8be2a1d3c4e5f607\n\n\
        The server serves the device nothing any more. Only the owner can tell other people's devices to\n\
        stop encrypting for it (`fastchat device revoke`): the list of devices is signed by the account.")]
    Revoke {
        /// The account
        name: String,
        /// From the list; the first digits are enough if no other device begins with them
        device: String,
    },
}

pub(super) async fn run(desk: &Desk, command: Command) -> Result<()> {
    match command {
        Command::List { name } => list(desk, &name).await,
        Command::Revoke { name, device } => revoke(desk, &name, &device).await,
    }
}

async fn list(desk: &Desk, name: &str) -> Result<()> {
    let user = desk.user(name).await?;
    let devices = desk.store.devices(user.account).await?;
    if desk.json {
        return devices.iter().try_for_each(|device| {
            output::object(json!({
                "device": device.device.to_string(), "revoked": device.revoked,
                "key_packages": device.key_packages, "conversations": device.conversations,
                "mailbox": device.mailbox,
            }))
        });
    }
    let rows: Vec<_> = devices
        .iter()
        .map(|device| {
            [
                device.device.to_string(),
                mark(device.revoked),
                device.conversations.to_string(),
                device.key_packages.to_string(),
                device.mailbox.to_string(),
            ]
        })
        .collect();
    output::table(["DEVICE", "REVOKED", "CONVERSATIONS", "KEY PACKAGES", "WAITING WELCOMES"], &rows)
}

async fn revoke(desk: &Desk, name: &str, typed: &str) -> Result<()> {
    let user = desk.living(name).await?;
    let typed = typed.to_ascii_lowercase();
    let devices = desk.store.devices(user.account).await?;
    let found: Vec<DeviceId> =
        devices.iter().map(|device| device.device).filter(|id| id.to_string().starts_with(&typed)).collect();
    let device = match found[..] {
        [device] if typed.len() >= 4 => device,
        [_] => bail!("give at least four digits of the device"),
        [] => bail!("{name} has no device {typed:?}: see `admin device list {name}`"),
        _ => bail!("more than one device of {name} begins with {typed:?}"),
    };
    if !desk.store.shut_out_device(&desk.by, user.account, device).await? {
        bail!("the device {device} is revoked already");
    }
    let object = json!({ "name": name, "device": device.to_string(), "revoked": true });
    desk.done(object, &format!("{device} of {name} is revoked"))
}

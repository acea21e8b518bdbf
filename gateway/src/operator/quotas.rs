//! `admin quota`. Only what gateways enforce can be set.

use super::{Desk, output, output::say};
use crate::{config::MAX_BLOB_QUOTA, store::operate::Quotas};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use fastchat_delivery::manifest::MAX_DEVICES;
use fastchat_protocol::limits::MAX_SLOTS;
use serde_json::{Value, json};
use std::str::FromStr;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what is allowed to an account instead of the settings
    #[command(after_help = "Example:\n  fastchat-gateway admin quota show alice")]
    Show {
        /// The account
        name: String,
    },
    /// Allow an account something else; what is not given stays
    #[command(after_help = "Examples:\n  fastchat-gateway admin quota set alice --devices 2\n  \
        fastchat-gateway admin quota set robot --sends 1000 --slot-bytes 0\n  \
        fastchat-gateway admin quota set alice --blob-bytes 5000000000\n  \
        fastchat-gateway admin quota set alice --devices default")]
    Set(Set),
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// The account
    name: String,
    /// Devices that are not revoked; who has more keeps them, and adds none
    #[arg(long, value_name = "N|default")]
    devices: Option<Choice<u32>>,
    /// Bytes that may wait for the account's own devices (linking, backups)
    #[arg(long, value_name = "N|default")]
    slot_bytes: Option<Choice<u64>>,
    /// Bytes of files that it may keep on the server; who has more keeps them, and adds none
    #[arg(long, value_name = "N|default")]
    blob_bytes: Option<Choice<u64>>,
    /// Messages of one connection in a second, ten times as many at once; from its next connection on
    #[arg(long, value_name = "N|default")]
    sends: Option<Choice<u32>>,
}

/// A number, or back to the settings.
#[derive(Debug, Clone, Copy)]
struct Choice<T>(Option<T>);

impl<T: FromStr> FromStr for Choice<T> {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "default" => Ok(Self(None)),
            number => number.parse().map(|n| Self(Some(n))).map_err(|_| "is a number, or default".to_owned()),
        }
    }
}

pub(super) async fn run(desk: &Desk, command: Command) -> Result<()> {
    match command {
        Command::Show { name } => {
            let user = desk.user(&name).await?;
            told(desk, &name, &desk.store.quotas(user.account).await?)
        }
        Command::Set(set) => change(desk, &set).await,
    }
}

async fn change(desk: &Desk, set: &Set) -> Result<()> {
    let user = desk.living(&set.name).await?;
    let mut quotas = desk.store.quotas(user.account).await?;
    if let Some(Choice(devices)) = set.devices {
        quotas.devices = within("devices", devices, 1, MAX_DEVICES as u32)?;
    }
    if let Some(Choice(bytes)) = set.slot_bytes {
        quotas.slot_bytes = within("slot-bytes", bytes, 0, 1024 * MAX_SLOTS as u64)?;
    }
    if let Some(Choice(bytes)) = set.blob_bytes {
        quotas.blob_bytes = within("blob-bytes", bytes, 0, MAX_BLOB_QUOTA)?;
    }
    if let Some(Choice(sends)) = set.sends {
        quotas.sends_per_second = within("sends", sends, 1, 100_000)?;
    }
    let nothing = set.devices.is_none() && set.slot_bytes.is_none() && set.blob_bytes.is_none();
    if nothing && set.sends.is_none() {
        bail!("nothing to set: give --devices, --slot-bytes, --blob-bytes or --sends");
    }
    desk.store.set_quotas(&desk.by, user.account, quotas).await?;
    told(desk, &set.name, &quotas)
}

fn within<T: PartialOrd + Copy + std::fmt::Display>(
    what: &str,
    value: Option<T>,
    least: T,
    most: T,
) -> Result<Option<T>> {
    match value {
        Some(n) if n < least || n > most => bail!("--{what} is from {least} to {most}, not {n}"),
        fits => Ok(fits),
    }
}

fn told(desk: &Desk, name: &str, quotas: &Quotas) -> Result<()> {
    let mut object = as_json(quotas);
    object["name"] = name.into();
    if desk.json { output::object(object) } else { say(&format!("{}\n", as_text(quotas))) }
}

pub(super) fn as_json(quotas: &Quotas) -> Value {
    json!({
        "devices": quotas.devices, "slot_bytes": quotas.slot_bytes, "blob_bytes": quotas.blob_bytes,
        "sends_per_second": quotas.sends_per_second,
    })
}

pub(super) fn as_text(quotas: &Quotas) -> String {
    fn said(n: Option<impl ToString>) -> String {
        n.map_or_else(|| "default".into(), |n| n.to_string())
    }
    format!(
        "devices {}, slot bytes {}, blob bytes {}, sends per second {}",
        said(quotas.devices),
        said(quotas.slot_bytes),
        said(quotas.blob_bytes),
        said(quotas.sends_per_second)
    )
}

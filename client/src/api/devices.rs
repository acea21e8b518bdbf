//! What is asked and told of devices, recovery and backups.

use serde::{Deserialize, Serialize};

/// A device of an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Hexadecimal.
    pub id: String,
    /// The one that answers.
    pub this: bool,
    /// It holds the account's identity keys: it alone can add and revoke devices.
    pub identity: bool,
    /// It no longer speaks for the account.
    pub revoked: bool,
}

/// A device that wants to be linked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfferView {
    /// Hexadecimal.
    pub device: String,
    /// Six digits; the same on both devices, or somebody is in between.
    pub confirmation: String,
    /// An earlier attempt got as far as listing it.
    pub listed: bool,
}

/// How far handing things over to a new device is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HandoverView {
    /// `waiting` (the other device has not joined yet), `sending` (the history) or `done`.
    pub state: String,
    /// Parts of the history that are on the server.
    pub parts: u32,
}

/// How far taking history in is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportView {
    /// `none` (nothing is expected), `joining` (conversations first), `waiting`, `reading`, `done` or
    /// `failed`.
    pub state: String,
    /// Entries that were taken in.
    pub entries: u64,
    /// Why it failed.
    pub reason: Option<String>,
}

/// How the backup of the history stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupView {
    /// It is made by itself, once a day.
    pub on: bool,
    /// One is being made.
    pub running: bool,
    /// Parts of it that are on the server.
    pub parts: u32,
    /// When the last one was made, in milliseconds since 1970 by this machine's clock.
    pub made_ms: Option<u64>,
    /// Bytes of the last one.
    pub bytes: u64,
    /// Why the last attempt came to nothing.
    pub problem: Option<String>,
}

/// What to do about the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupAction {
    /// Make one now, and one a day from now on.
    On,
    /// Make no more; the last one stays.
    Off,
    /// Make one now.
    Now,
    /// Say how it stands.
    Status,
    /// Make no more, and remove the last one from the server.
    Delete,
}

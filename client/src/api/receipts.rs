//! What is told of how far others are, and of what others may learn.

use serde::{Deserialize, Serialize};

/// Who has a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptsView {
    /// The other party's name; for a group `#` and its name.
    pub with: String,
    /// Hexadecimal.
    pub conversation: String,
    /// The message's place.
    pub seq: u64,
    /// A device of theirs has stored it, as far as they tell.
    pub delivered: Vec<String>,
    /// They have read it, as far as they tell.
    pub read: Vec<String>,
    /// Of the others nothing is known: it has not reached them, or they do not tell.
    pub waiting: Vec<String>,
    /// The server was asked just now; else it is what this device knows.
    pub fresh: bool,
}

/// Somebody has received or read further.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptView {
    /// The other party's name; for a group `#` and its name.
    pub with: String,
    /// Hexadecimal.
    pub conversation: String,
    /// Who.
    pub by: String,
    /// Up to where a device of theirs has stored everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<u64>,
    /// Up to where they have read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<u64>,
}

/// Somebody types, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypingView {
    /// The other party's name; for a group `#` and its name.
    pub with: String,
    /// Hexadecimal.
    pub conversation: String,
    /// Who.
    pub by: String,
    /// False: no longer. Nothing may come at all: it is over after six seconds in any case.
    pub typing: bool,
}

/// What others may learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivacyView {
    /// What was read here. A setting of this device.
    pub read: bool,
    /// What any device has received.
    pub delivered: bool,
    /// When the account was last online.
    pub last_seen: bool,
    /// That it is online.
    pub online: bool,
}

/// Changes of [`PrivacyView`]; what is absent stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivacyChange {
    /// See there.
    #[serde(default)]
    pub read: Option<bool>,
    /// See there.
    #[serde(default)]
    pub delivered: Option<bool>,
    /// See there.
    #[serde(default)]
    pub last_seen: Option<bool>,
    /// See there.
    #[serde(default)]
    pub online: Option<bool>,
}

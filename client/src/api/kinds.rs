//! What is asked and told about messages that were sent already.

use serde::{Deserialize, Serialize};

/// What begins a link to a message; the conversation, `/`, and the message's id follow.
pub const LINK: &str = "fastchat:m/";

/// A change to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum MessageChange {
    /// It says something else from now on; of a file, its caption. Only of one's own.
    Edit {
        /// What it says.
        text: String,
    },
    /// It is taken back, for everybody. One's own, or in a group anybody's for the owner and admins.
    Delete,
    /// What this account thinks of it, in place of what it thought before.
    React {
        /// At most 64 bytes; `None` takes it back.
        #[serde(default)]
        emoji: Option<String>,
    },
}

/// The beginning of a message that another one answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExcerptView {
    /// Who sent it.
    pub from: String,
    /// Its first line, or the beginning of that; empty if it was deleted.
    pub text: String,
    /// It was taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

/// A message whose time was over: nothing of it is here any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoneView {
    /// As in `MessageView`.
    pub with: String,
    /// Hexadecimal.
    pub conversation: String,
    /// As in `MessageView`.
    #[serde(default)]
    pub incarnation: u32,
    /// Its place in the log.
    pub seq: u64,
    /// What named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

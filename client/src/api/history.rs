//! Pages of the history, and searching in it.

use super::MessageView;
use serde::{Deserialize, Serialize};

/// Which part of a conversation's history. A place is a message's id, or its seq, or both incarnation and
/// seq as `INCARNATION.SEQ` where the server's store has been restored meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// What comes before this place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What comes after this place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// What is before and after this place, and what is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub around: Option<String>,
}

/// What is looked for: all of it must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchQuery {
    /// Words, `"words in a row"`, `beginn*`.
    #[serde(default)]
    pub words: String,
    /// In this conversation: as `to` of `Send`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<String>,
    /// Sent by this account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Not before, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Not after, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Only files.
    #[serde(default)]
    pub files: bool,
    /// How many at most.
    pub limit: usize,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FoundView {
    /// The newest first.
    pub messages: Vec<MessageView>,
    /// Older ones may fit, too.
    pub more: bool,
    /// About so many messages were not looked at: the index of an older profile is still being made.
    pub unindexed: usize,
}

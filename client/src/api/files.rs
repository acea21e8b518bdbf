//! What is asked and told about files.

use super::{MessageView, groups::as_hex};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A small picture of a file. The bytes are hexadecimal in JSON.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewView {
    /// Pixels.
    pub width: u16,
    /// Pixels.
    pub height: u16,
    /// JPEG or PNG, at most 20 KiB.
    #[serde(with = "as_hex")]
    pub bytes: Vec<u8>,
}

/// A file on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferView {
    /// The caller's id.
    pub id: String,
    /// `out` or `in`.
    pub direction: String,
    /// As commands take it.
    pub with: String,
    /// The file's name.
    pub name: String,
    /// Bytes that have moved.
    pub done: u64,
    /// Bytes of all; 0 before the file was measured.
    pub size: u64,
    /// `waiting` (for a connection, or its turn), `running` or `failed`.
    pub state: String,
    /// Why it waits or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedView {
    /// The caller's id.
    pub id: String,
    /// Where it is.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, hexadecimal: as its sender said, and as it is.
    pub sha256: String,
}

/// Files that were sent and received, and those on their way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FilesView {
    /// Messages of kind `file`, oldest first.
    pub files: Vec<MessageView>,
    /// What is under way, or has failed.
    pub transfers: Vec<TransferView>,
}

impl fmt::Debug for PreviewView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PreviewView({}x{}, {} bytes)", self.width, self.height, self.bytes.len())
    }
}

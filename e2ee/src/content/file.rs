//! What a message says of a file: where its sealed bytes are, what opens them, and how to show it.
//!
//! Name and type are inside the seal, and are the sender's word: a name never chooses a path, and a type
//! never a decoder.

use super::ContentError;
use fastchat_protocol::AccountId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Limit: bytes of a file's name.
pub const MAX_FILE_NAME: usize = 255;
/// Limit: bytes of what is said of a file.
pub const MAX_CAPTION: usize = 8 * 1024;
/// Limit: bytes of a preview, so that the message still travels live.
pub const MAX_PREVIEW: usize = 20 * 1024;
/// Limit: messages that are handed to newcomers at once.
pub const MAX_SHARED: u32 = 1000;
/// Limit: bytes of their archive; whoever takes it in has it in memory.
pub const MAX_SHARED_BYTES: u64 = 16 << 20;
/// Limit: bytes of a media type.
const MAX_MIME: usize = 128;
/// Limit: pixels of a preview's side.
const MAX_PREVIEW_SIDE: u16 = 512;

/// A file. Its bytes are the blob: parts sealed by [`crate::archive::seal_part`], and padding behind the
/// last of its bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// The blob's id, and the archive id under which its parts are sealed.
    #[serde(rename = "i", with = "serde_bytes")]
    pub blob: [u8; 16],
    /// What opens it; drawn for this file alone.
    #[serde(rename = "k", with = "serde_bytes")]
    pub key: [u8; 32],
    /// Bytes of the file, without padding.
    #[serde(rename = "s")]
    pub size: u64,
    /// SHA-256 of the file's bytes.
    #[serde(rename = "h", with = "serde_bytes")]
    pub hash: [u8; 32],
    /// As the sender calls it; at most [`MAX_FILE_NAME`] bytes.
    #[serde(rename = "n")]
    pub name: String,
    /// Its media type as the sender says.
    #[serde(rename = "m", default)]
    pub mime: String,
    /// How it looks.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
    /// What is said of it; at most [`MAX_CAPTION`] bytes.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
}

/// A small picture of a file, made by its sender.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// Pixels.
    #[serde(rename = "w")]
    pub width: u16,
    /// Pixels.
    #[serde(rename = "h")]
    pub height: u16,
    /// JPEG or PNG, at most [`MAX_PREVIEW`] bytes.
    #[serde(rename = "b", with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// What was said before some members came in. The entries are in the blob; they are the sharer's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryShare {
    /// The blob.
    #[serde(rename = "f")]
    pub file: FileInfo,
    /// How many entries.
    #[serde(rename = "n")]
    pub count: u32,
    /// For whom; others pass it over.
    #[serde(rename = "a")]
    pub accounts: Vec<AccountId>,
}

impl FileInfo {
    /// Checks the limits; to be asked before sending, and asked when reading.
    pub fn check(&self) -> Result<(), ContentError> {
        if self.name.len() > MAX_FILE_NAME || self.mime.len() > MAX_MIME {
            return Err(ContentError::Limit("a file's name has at most 255 bytes, its type 128"));
        }
        if self.caption.as_ref().is_some_and(|caption| caption.len() > MAX_CAPTION) {
            return Err(ContentError::Limit("what is said of a file has at most 8 KiB"));
        }
        let too_large = |preview: &Preview| {
            preview.bytes.len() > MAX_PREVIEW || preview.width.max(preview.height) > MAX_PREVIEW_SIDE
        };
        match self.preview.as_ref().is_some_and(too_large) {
            true => Err(ContentError::Limit("a file's preview has at most 20 KiB and 512 pixels a side")),
            false => Ok(()),
        }
    }
}

impl HistoryShare {
    pub(super) fn check(&self) -> Result<(), ContentError> {
        if self.accounts.len() > super::MAX_MENTIONS {
            return Err(ContentError::Limit("history is shared with at most 64 accounts at once"));
        }
        if self.count > MAX_SHARED || self.file.size > MAX_SHARED_BYTES {
            return Err(ContentError::Limit("at most 1000 messages are shared at once, in 16 MiB"));
        }
        self.file.check()
    }
}

impl fmt::Debug for FileInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileInfo({} bytes)", self.size)
    }
}

impl fmt::Debug for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Preview({}x{}, {} bytes)", self.width, self.height, self.bytes.len())
    }
}

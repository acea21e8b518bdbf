//! What an envelope holds: a CBOR map `{v, k, ...}` in which `k` says the kind.
//!
//! - A kind that this build does not know is shown as such, not dropped: an older client says that
//!   there was something, and a newer one can read the same bytes again.
//! - Fields that a kind does not know are skipped, whatever they hold.
//! - The first message of an epoch carries the sender's view of its own manifest: a server that shows
//!   different manifests to different people is caught.

use fastchat_protocol::codec;
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;
const TEXT: &str = "text";
const PROFILE: &str = "profile";
const ACCEPTED: &str = "accepted";
/// Limit: characters of a group's name.
pub const MAX_GROUP_NAME: usize = 64;
/// Limit: bytes of a group's picture, so that the message fits an envelope.
pub const MAX_PICTURE: usize = 32 * 1024;
/// Limit: bytes of a picture's media type.
const MAX_MIME: usize = 64;

/// The content of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// Text as typed. It must pass the client's filter before it meets a terminal.
    Text(String),
    /// Name and picture of the group; counts only from an admin or the owner.
    Profile(GroupProfile),
    /// The sender's account takes part in this conversation: not a request any more.
    Accepted,
    /// A kind of a newer program.
    Unknown {
        /// Its name.
        kind: String,
    },
}

/// How a group shows itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupProfile {
    /// At most [`MAX_GROUP_NAME`] characters, not empty. Must pass the client's filter, as text does.
    pub name: String,
    /// None: no picture.
    pub picture: Option<Picture>,
}

/// A small picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// Its media type as the sender says.
    #[serde(rename = "m")]
    pub mime: String,
    /// At most [`MAX_PICTURE`] bytes.
    #[serde(rename = "b", with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// Which manifest its own account had when the sender wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestView {
    /// Its version.
    #[serde(rename = "n")]
    pub version: u64,
    /// The first bytes of [`fastchat_delivery::VerifiedManifest::hash`].
    #[serde(rename = "h", with = "serde_bytes")]
    pub hash: [u8; 8],
}

/// A plaintext: content, and what goes with any content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What was said.
    pub content: Content,
    /// In the first message of an epoch.
    pub manifest: Option<ManifestView>,
}

/// The plaintext of an envelope is not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// Not the expected CBOR.
    #[error("the message cannot be read")]
    Decode(#[from] codec::DecodeError),
    /// A message without what its kind needs.
    #[error("a message of kind {0} lacks what its kind needs")]
    Incomplete(String),
    /// Longer than its kind may be.
    #[error("{0}")]
    Limit(&'static str),
}

/// What every version has.
#[derive(Deserialize)]
struct Head {
    v: u8,
    k: String,
}

#[derive(Serialize, Deserialize)]
struct TextBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    t: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct ProfileBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p: Option<Picture>,
}

#[derive(Deserialize)]
struct View {
    #[serde(default)]
    m: Option<ManifestView>,
}

#[derive(Default, Serialize)]
struct Encoded<'a> {
    v: u8,
    k: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    t: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p: Option<&'a Picture>,
    #[serde(skip_serializing_if = "Option::is_none")]
    m: Option<ManifestView>,
}

impl Content {
    /// The plaintext to seal. An unknown kind has no content of its own and is not for sending.
    pub fn encode(&self) -> Vec<u8> {
        encode(self, None)
    }

    /// Reads an opened plaintext. Unknown kinds and versions are not errors.
    pub fn decode(plaintext: &[u8]) -> Result<Self, ContentError> {
        let Head { v, k } = codec::decode(plaintext)?;
        match k.as_str() {
            TEXT if v == VERSION => {
                let TextBody { t } = codec::decode(plaintext)?;
                t.map(Self::Text).ok_or(ContentError::Incomplete(k))
            }
            PROFILE if v == VERSION => {
                let ProfileBody { n, p } = codec::decode(plaintext)?;
                let profile = GroupProfile { name: n.ok_or(ContentError::Incomplete(k))?, picture: p };
                profile.check()?;
                Ok(Self::Profile(profile))
            }
            ACCEPTED if v == VERSION => Ok(Self::Accepted),
            _ => Ok(Self::Unknown { kind: k }),
        }
    }
}

impl GroupProfile {
    /// Checks the limits; to be asked before sending, and asked when reading.
    pub fn check(&self) -> Result<(), ContentError> {
        let characters = self.name.chars().take(MAX_GROUP_NAME + 1).count();
        if self.name.trim().is_empty() || characters > MAX_GROUP_NAME {
            return Err(ContentError::Limit("a group's name has 1 to 64 characters"));
        }
        match &self.picture {
            Some(picture) if picture.bytes.len() > MAX_PICTURE || picture.mime.len() > MAX_MIME => {
                Err(ContentError::Limit("a group's picture has at most 32 KiB"))
            }
            _ => Ok(()),
        }
    }
}

impl Message {
    /// A content without anything besides.
    pub fn new(content: Content) -> Self {
        Self { content, manifest: None }
    }

    /// The plaintext to seal.
    pub fn encode(&self) -> Vec<u8> {
        encode(&self.content, self.manifest)
    }

    /// Reads an opened plaintext. A manifest view that cannot be read is none: it may be a newer form.
    pub fn decode(plaintext: &[u8]) -> Result<Self, ContentError> {
        let content = Content::decode(plaintext)?;
        let manifest = codec::decode::<View>(plaintext).ok().and_then(|view| view.m);
        Ok(Self { content, manifest })
    }
}

fn encode(content: &Content, m: Option<ManifestView>) -> Vec<u8> {
    let base = Encoded { v: VERSION, m, ..Encoded::default() };
    codec::encode(&match content {
        Content::Text(text) => Encoded { k: TEXT, t: Some(text), ..base },
        Content::Profile(GroupProfile { name, picture }) => {
            Encoded { k: PROFILE, n: Some(name), p: picture.as_ref(), ..base }
        }
        Content::Accepted => Encoded { k: ACCEPTED, ..base },
        Content::Unknown { kind } => Encoded { k: kind, ..base },
    })
}

#[cfg(test)]
mod tests;

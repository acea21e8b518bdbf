//! What an envelope holds: a CBOR map `{v, k, ...}` in which `k` says the kind.
//!
//! - A kind that this build does not know is shown as such, not dropped: an older client says that
//!   there was something, and a newer one can read the same bytes again.
//! - Fields that a kind does not know are skipped, whatever they hold.
//! - The first message of an epoch carries the sender's view of its own manifest: a server that shows
//!   different manifests to different people is caught.

mod file;

use fastchat_protocol::{AccountId, Counter, DeviceId, codec};
use serde::{Deserialize, Serialize};

pub use file::{
    FileInfo, HistoryShare, MAX_CAPTION, MAX_FILE_NAME, MAX_PREVIEW, MAX_SHARED, MAX_SHARED_BYTES, Preview,
};

const VERSION: u8 = 1;
const TEXT: &str = "text";
const PROFILE: &str = "profile";
const ACCEPTED: &str = "accepted";
const FILE: &str = "file";
const EDIT: &str = "edit";
const DELETE: &str = "delete";
const REACTION: &str = "reaction";
const TIMER: &str = "timer";
const HISTORY: &str = "history";
/// Limit: accounts that one message mentions.
pub const MAX_MENTIONS: usize = 64;
/// Limit: bytes of a reaction; a family of four with skin tones has 41.
pub const MAX_REACTION: usize = 64;
/// Limit: seconds for which a message is kept at most by a timer, a year.
pub const MAX_TIMER: u32 = fastchat_delivery::group_data::MAX_TIMER;
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
    Text(Text),
    /// A file; its bytes are a blob.
    File(Box<FileInfo>),
    /// Another text for an earlier message of the same account.
    Edit {
        /// Which.
        target: MessageRef,
        /// What it says now; of a file, its caption. A reply stays one.
        text: Text,
    },
    /// An earlier message is taken back, for everybody.
    Delete {
        /// Which.
        target: MessageRef,
    },
    /// What the account thinks of a message; the last one counts.
    Reaction {
        /// Of which.
        target: MessageRef,
        /// At most [`MAX_REACTION`] bytes; `None` takes it back.
        emoji: Option<String>,
    },
    /// How long messages of a direct conversation are kept from now on. A group has this in its state.
    Timer {
        /// Seconds, at most [`MAX_TIMER`]; 0 keeps them.
        seconds: u32,
    },
    /// What was said before some members came in, for them.
    History(Box<HistoryShare>),
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

/// Names a message. Both are authenticated by the envelope, as a seq is not: with a seq, a server could
/// have an edit hit another message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageRef {
    /// The device that sent it.
    #[serde(rename = "d")]
    pub device: DeviceId,
    /// Its count in the conversation.
    #[serde(rename = "n")]
    pub counter: Counter,
}

/// A text, and to what it belongs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text {
    /// As typed.
    pub text: String,
    /// The message that it answers.
    pub reply: Option<MessageRef>,
    /// Accounts that are to look; at most [`MAX_MENTIONS`].
    pub mentions: Vec<AccountId>,
}

impl<T: Into<String>> From<T> for Text {
    fn from(text: T) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
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
    /// Seconds after which it is to be forgotten, at most [`MAX_TIMER`].
    pub expires_s: Option<u32>,
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

#[derive(Deserialize)]
struct TextFields {
    #[serde(default)]
    t: Option<String>,
    #[serde(default)]
    r: Option<MessageRef>,
    #[serde(default)]
    a: Vec<AccountId>,
}

#[derive(Deserialize)]
struct ProfileFields {
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    p: Option<Picture>,
}

#[derive(Deserialize)]
struct TargetFields {
    #[serde(default)]
    r: Option<MessageRef>,
    #[serde(default)]
    e: Option<String>,
}

#[derive(Deserialize)]
struct FileFields {
    #[serde(default)]
    f: Option<FileInfo>,
}

#[derive(Deserialize)]
struct TimerFields {
    #[serde(default)]
    s: Option<u32>,
}

#[derive(Deserialize)]
struct HistoryFields {
    #[serde(default)]
    h: Option<HistoryShare>,
}

/// What goes with any content.
#[derive(Deserialize)]
struct View {
    #[serde(default)]
    m: Option<ManifestView>,
}

#[derive(Deserialize)]
struct Expiry {
    #[serde(default)]
    x: Option<u32>,
}

#[derive(Default, Serialize)]
struct Encoded<'a> {
    v: u8,
    k: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    t: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r: Option<MessageRef>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    a: &'a [AccountId],
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    f: Option<&'a FileInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    h: Option<&'a HistoryShare>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p: Option<&'a Picture>,
    #[serde(skip_serializing_if = "Option::is_none")]
    m: Option<ManifestView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<u32>,
}

impl Content {
    /// The plaintext to seal. An unknown kind has no content of its own and is not for sending.
    pub fn encode(&self) -> Vec<u8> {
        encode(self, None, None)
    }

    /// Reads an opened plaintext. Unknown kinds and versions are not errors.
    pub fn decode(plaintext: &[u8]) -> Result<Self, ContentError> {
        let Head { v, k } = codec::decode(plaintext)?;
        if v != VERSION {
            return Ok(Self::Unknown { kind: k });
        }
        match k.as_str() {
            TEXT => Ok(Self::Text(text(&k, codec::decode(plaintext)?)?)),
            PROFILE => profile(k, codec::decode(plaintext)?).map(Self::Profile),
            ACCEPTED => Ok(Self::Accepted),
            FILE => {
                let FileFields { f } = codec::decode(plaintext)?;
                let file = f.ok_or(ContentError::Incomplete(k))?;
                file.check()?;
                Ok(Self::File(Box::new(file)))
            }
            EDIT => {
                let mut text = text(&k, codec::decode(plaintext)?)?;
                let target = text.reply.take().ok_or(ContentError::Incomplete(k))?;
                Ok(Self::Edit { target, text })
            }
            DELETE => {
                let TargetFields { r, .. } = codec::decode(plaintext)?;
                Ok(Self::Delete { target: r.ok_or(ContentError::Incomplete(k))? })
            }
            REACTION => {
                let TargetFields { r, e } = codec::decode(plaintext)?;
                match e.as_ref().is_some_and(|emoji| emoji.is_empty() || emoji.len() > MAX_REACTION) {
                    true => Err(ContentError::Limit("a reaction has 1 to 64 bytes")),
                    false => Ok(Self::Reaction { target: r.ok_or(ContentError::Incomplete(k))?, emoji: e }),
                }
            }
            TIMER => {
                let TimerFields { s } = codec::decode(plaintext)?;
                let seconds = s.ok_or(ContentError::Incomplete(k))?;
                match seconds > MAX_TIMER {
                    true => Err(ContentError::Limit("a timer has at most a year")),
                    false => Ok(Self::Timer { seconds }),
                }
            }
            HISTORY => {
                let HistoryFields { h } = codec::decode(plaintext)?;
                let share = h.ok_or(ContentError::Incomplete(k))?;
                share.check()?;
                Ok(Self::History(Box::new(share)))
            }
            _ => Ok(Self::Unknown { kind: k }),
        }
    }
}

fn text(kind: &str, fields: TextFields) -> Result<Text, ContentError> {
    let TextFields { t, r: reply, a: mentions } = fields;
    let text = t.ok_or_else(|| ContentError::Incomplete(kind.to_owned()))?;
    match mentions.len() > MAX_MENTIONS {
        true => Err(ContentError::Limit("a message mentions at most 64 accounts")),
        false => Ok(Text { text, reply, mentions }),
    }
}

fn profile(kind: String, fields: ProfileFields) -> Result<GroupProfile, ContentError> {
    let ProfileFields { n, p } = fields;
    let profile = GroupProfile { name: n.ok_or(ContentError::Incomplete(kind))?, picture: p };
    profile.check()?;
    Ok(profile)
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
        Self { content, manifest: None, expires_s: None }
    }

    /// The plaintext to seal.
    pub fn encode(&self) -> Vec<u8> {
        encode(&self.content, self.manifest, self.expires_s)
    }

    /// Reads an opened plaintext. A manifest view that cannot be read is none: it may be a newer form.
    /// A message whose time to be forgotten cannot be read is an error: it would stay for ever.
    pub fn decode(plaintext: &[u8]) -> Result<Self, ContentError> {
        let content = Content::decode(plaintext)?;
        let manifest = codec::decode::<View>(plaintext).ok().and_then(|view| view.m);
        let Expiry { x } = codec::decode(plaintext)?;
        match x {
            Some(x) if x == 0 || x > MAX_TIMER => Err(ContentError::Limit("a timer has 1 second to a year")),
            expires_s => Ok(Self { content, manifest, expires_s }),
        }
    }
}

fn encode(content: &Content, m: Option<ManifestView>, x: Option<u32>) -> Vec<u8> {
    let base = Encoded { v: VERSION, m, x, ..Encoded::default() };
    codec::encode(&match content {
        Content::Text(Text { text, reply, mentions }) => {
            Encoded { k: TEXT, t: Some(text), r: *reply, a: mentions, ..base }
        }
        Content::File(file) => Encoded { k: FILE, f: Some(file), ..base },
        Content::Edit { target, text: Text { text, mentions, .. } } => {
            Encoded { k: EDIT, t: Some(text), r: Some(*target), a: mentions, ..base }
        }
        Content::Delete { target } => Encoded { k: DELETE, r: Some(*target), ..base },
        Content::Reaction { target, emoji } => {
            Encoded { k: REACTION, r: Some(*target), e: emoji.as_deref(), ..base }
        }
        Content::Timer { seconds } => Encoded { k: TIMER, s: Some(*seconds), ..base },
        Content::History(share) => Encoded { k: HISTORY, h: Some(share), ..base },
        Content::Profile(GroupProfile { name, picture }) => {
            Encoded { k: PROFILE, n: Some(name), p: picture.as_ref(), ..base }
        }
        Content::Accepted => Encoded { k: ACCEPTED, ..base },
        Content::Unknown { kind } => Encoded { k: kind, ..base },
    })
}

#[cfg(test)]
mod tests;

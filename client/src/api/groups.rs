//! What is asked and told about groups and about people one does not know yet.

use super::MessageView;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A change to a group's members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum GroupChange {
    /// These accounts come in.
    Add {
        /// Names.
        members: Vec<String>,
        /// Go on without post-quantum encryption if the group outgrows it.
        #[serde(default)]
        leave_post_quantum: bool,
        /// So many of the last messages are handed to them; 0: none.
        #[serde(default)]
        history: u32,
    },
    /// These accounts go.
    Remove {
        /// Names.
        members: Vec<String>,
    },
    /// Becomes an admin.
    Promote {
        /// A name.
        member: String,
    },
    /// Is an admin no longer.
    Demote {
        /// A name.
        member: String,
    },
    /// Owns the group from now on.
    Transfer {
        /// A name.
        to: String,
        /// The owner becomes a member, and not an admin.
        #[serde(default)]
        step_down: bool,
    },
    /// This account leaves.
    Leave,
    /// What is written from now on is kept for a time only.
    Timer {
        /// For how long; 0: it stays.
        seconds: u32,
    },
}

/// History that was handed to this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedView {
    /// As in `MessageView`.
    pub with: String,
    /// Hexadecimal.
    pub conversation: String,
    /// Who says that this was said.
    pub by: String,
    /// Messages that were not here.
    pub new: u32,
}

/// A picture. The bytes are hexadecimal in JSON.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureView {
    /// `image/png` or another.
    pub mime: String,
    /// At most 32 KiB.
    #[serde(with = "as_hex")]
    pub bytes: Vec<u8>,
}

/// What becomes of a group's picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PictureChange {
    /// Another one.
    Set(PictureView),
    /// None.
    Remove,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// Hexadecimal.
    pub conversation: String,
    /// Its name; empty as long as nobody has said it to this device.
    pub name: String,
    /// As commands take it: `#` and the name, or the beginning of the id where names are not enough.
    pub handle: String,
    /// `owner`, `admin`, `member`, or empty once this account is not in it any more.
    pub role: String,
    /// The owner first, then admins, then the others.
    pub members: Vec<MemberView>,
    /// Devices that can read it.
    pub devices: usize,
    /// The encryption in words.
    pub encryption: String,
    /// Whether that resists a quantum computer.
    pub post_quantum: bool,
    /// The kind of its picture, if it has one.
    pub picture: Option<String>,
    /// As in `ConversationView`.
    pub state: String,
    /// Seconds for which what is written now is kept; 0: it stays.
    #[serde(default)]
    pub timer_s: u32,
    /// Messages of others that nobody has seen.
    pub unread: u64,
    /// Nobody has said yes to it.
    #[serde(default)]
    pub request: bool,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// The account's name.
    pub name: String,
    /// `owner`, `admin` or `member`.
    pub role: String,
    /// This account.
    pub own: bool,
    /// Devices that can read the group.
    pub devices: usize,
    /// `unverified`, `verified`, `changed`, or `left` for one who has left and is still to be taken out.
    pub trust: String,
}

/// A conversation that waits for a yes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestView {
    /// Hexadecimal.
    pub conversation: String,
    /// As commands take it.
    pub with: String,
    /// Who has begun it, or has added this account to it.
    pub from: String,
    /// It is a group.
    pub group: bool,
    /// Messages of others in it.
    pub messages: u64,
    /// The last one.
    pub last: Option<MessageView>,
}

/// Messages of others that nobody has seen, by where they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadView {
    /// In conversations of two.
    pub direct: u64,
    /// In groups.
    pub groups: u64,
    /// In what nobody has said yes to.
    pub requests: u64,
}

/// Somebody one shares a conversation with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonView {
    /// The account's name.
    pub name: String,
    /// A device of the account is connected, and it lets that be known.
    pub online: bool,
    /// When it was last online, in milliseconds since 1970, if it lets that be known and is not online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_ms: Option<u64>,
}

/// Something that takes long, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressView {
    /// What.
    pub what: String,
    /// So many are done.
    pub done: usize,
    /// Of so many.
    pub of: usize,
}

pub(super) mod as_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::api) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(in crate::api) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl fmt::Debug for PictureView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PictureView({}, {} bytes)", self.mime, self.bytes.len())
    }
}

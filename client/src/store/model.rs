//! The values that the store seals.

use fastchat_delivery::VerifiedManifest;
use fastchat_e2ee::{FileInfo, HistoryShare, MessageRef};
use fastchat_protocol::{AccountId, Bytes, ConversationId, Counter, DeviceId, Epoch, Seq, client::Welcome};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

use super::{
    Place,
    group::{GroupRecord, MemberChange, Party, StoredPicture},
};

/// An account that this one has to do with, and what is believed about it.
#[derive(Debug, Clone)]
pub struct Contact {
    /// Its id.
    pub account: AccountId,
    /// The name under which it was first met.
    pub name: String,
    /// The newest manifest under the trusted identity.
    pub manifest: VerifiedManifest,
    /// A manifest under another identity that the server has shown: nothing is sent until a person
    /// has looked at it.
    pub changed: Option<VerifiedManifest>,
    /// A person has compared the safety number.
    pub verified: bool,
}

/// A conversation as this device has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// Which.
    pub id: ConversationId,
    /// Between whom. Profiles from before groups call it `peer` and hold the account.
    #[serde(alias = "peer")]
    pub party: Party,
    /// Whether it can be used.
    pub standing: Standing,
    /// The incarnation of the log in which `cursor` and `counter` are meant; 0 before any was noted.
    #[serde(default)]
    pub incarnation: u32,
    /// The last seq that is stored here, with all before it.
    pub cursor: Seq,
    /// The last counter that was given to something of ours.
    pub counter: Counter,
    /// The last seq that a person has seen.
    pub read: Seq,
    /// The incarnation in which `read` is meant.
    #[serde(default)]
    pub read_in: u32,
    /// Messages of others after `read`.
    pub unread: u64,
    /// A commit of ours whose outcome is not known yet.
    pub commit: Option<OwnCommit>,
    /// When this device's keys were made new, in milliseconds since 1970.
    pub updated_ms: u64,
    /// Messages sealed since then.
    pub sealed: u32,
    /// When the last external commit was made, in milliseconds since 1970; they are rate-limited.
    pub rejoined_ms: u64,
    /// The log has a change of members that breaks the rules, and was refused here: whatever goes on from
    /// it is not entered.
    #[serde(default)]
    pub refused: bool,
    /// The keys here are of a log that is gone: the server's store was restored from an older backup.
    #[serde(default)]
    pub gone: bool,
    /// Begun by somebody whom nobody here has said yes to. `None`: accepted.
    #[serde(default)]
    pub request: Option<MessageRequest>,
    /// What is to change about the members, in the order in which it was asked for.
    #[serde(default)]
    pub changes: Vec<MemberChange>,
    /// The last epoch in which this device has told the others which manifest it has.
    #[serde(default)]
    pub gossiped: Option<Epoch>,
    /// Seconds for which what is sent now is kept; 0 keeps it. Of a group its state says so, between two
    /// the last timer message in the log.
    #[serde(default)]
    pub timer_s: u32,
}

/// A conversation that waits for a yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRequest {
    /// Who has begun it, or has let this account in.
    pub by: AccountId,
    /// The answer was no: it is not shown, and nothing of it is news.
    pub declined: bool,
}

/// Whether a conversation can be used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Standing {
    /// We want to found it; the server has not said yes.
    Founding(FoundingFrame),
    /// It can be used.
    Ready,
    /// The keys are lost or do not fit: an external commit is needed, and why.
    Rejoining(String),
    /// The server's store was restored from a backup that is older than the keys here: whoever may founds
    /// the next generation, and the others wait for it. Since when, in milliseconds since 1970.
    Restoring(u64),
    /// This device was removed.
    Removed,
}

/// What `Found` carries, kept until its outcome is known.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundingFrame {
    /// Signed GroupInfo.
    pub group_info: Bytes,
    /// Ratchet tree.
    pub tree: Bytes,
    /// For the other devices.
    pub welcomes: Vec<Welcome>,
}

/// A commit of ours on its way.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnCommit {
    /// The counter under which it is offered.
    pub counter: Counter,
    /// MLS bytes.
    pub commit: Bytes,
    /// Signed GroupInfo of the epoch that it makes.
    pub group_info: Bytes,
    /// For devices that it adds.
    pub welcomes: Vec<Welcome>,
    /// For a new generation: its ratchet tree.
    #[serde(default)]
    pub tree: Bytes,
    /// What it is for.
    pub reason: CommitReason,
}

/// What a commit is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommitReason {
    /// New keys of this device.
    Update,
    /// This device joins anew, and why.
    Rejoin(String),
    /// Other members, devices or roles.
    Members(MemberChange),
    /// The next generation, in another suite. `commit` is what its row holds: SHA-256 of the GroupInfo.
    Generation {
        /// The epoch that it takes the place of.
        replaces: Epoch,
        /// Who comes in by it.
        change: MemberChange,
    },
    /// The generation with which a conversation goes on in a restored store. `commit` is what its row
    /// holds: SHA-256 of the GroupInfo.
    Restored {
        /// The epoch that it takes the place of.
        replaces: Epoch,
    },
    /// This account leaves. `commit` is the statement.
    Leave,
}

/// An entry of a conversation's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The incarnation of the log; 0 before any was noted. With it a seq is never used twice.
    #[serde(default)]
    pub incarnation: u32,
    /// Its place in the log.
    pub seq: Seq,
    /// Which of the entries at that place: 0 is the row itself.
    pub part: u32,
    /// What it is.
    pub kind: EntryKind,
    /// Who sent it: from the encryption, not from the server.
    pub from: Option<(AccountId, DeviceId)>,
    /// The text, the notice, or the reason.
    pub text: String,
    /// Milliseconds since 1970 by the server's clock.
    pub at_ms: u64,
    /// The epoch in which it was sealed.
    pub epoch: Option<Epoch>,
    /// The sender device's count. With the device it names the message: [`Entry::reference`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<Counter>,
    /// What goes with it, and what became of it.
    #[serde(default, skip_serializing_if = "Extra::is_empty")]
    pub extra: Extra,
}

/// What goes with an entry, and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Extra {
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<MessageRef>,
    /// Who is to look.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<AccountId>,
    /// The file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Box<FileInfo>>,
    /// It says something else than at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited: Option<Changed>,
    /// It was taken back: nothing of it is here any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Changed>,
    /// What accounts think of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reactions: BTreeMap<AccountId, String>,
    /// Milliseconds since 1970 at which it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// It came from this account's memory or from a file, not from the encryption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_by: Option<AccountId>,
}

/// By which row something was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Who did it.
    pub by: AccountId,
    /// The incarnation of the log.
    #[serde(default)]
    pub incarnation: u32,
    /// The row's place.
    pub seq: Seq,
    /// Milliseconds since 1970 by the server's clock.
    pub at_ms: u64,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// Text.
    Text,
    /// A file; the text is what is said of it.
    File,
    /// A message of a kind that this program does not know.
    Unknown,
    /// About the conversation.
    Notice,
    /// A row that cannot be read.
    Quarantine,
}

/// The caller's id of a message that it wants to send.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ItemId(#[serde(with = "serde_array")] pub [u8; 16]);

mod serde_array {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(serde::de::Error::custom)?;
        Ok(bytes)
    }
}

/// A message that wants to be sent, until the log has it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// The caller's id.
    pub id: ItemId,
    /// The name to which it goes.
    pub to: String,
    /// The conversation, once there is one.
    pub conversation: Option<ConversationId>,
    /// What it says.
    pub text: String,
    /// Milliseconds since 1970 by this machine's clock.
    pub at_ms: u64,
    /// How far it is.
    pub state: ItemState,
    /// What it is; text, before there was anything else.
    #[serde(default)]
    pub what: What,
    /// Seconds for which it is kept, as it was sealed.
    #[serde(default)]
    pub expires_s: Option<u32>,
}

/// What a message is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum What {
    /// The item's text.
    #[default]
    Text,
    /// A group's name and picture.
    Profile {
        /// Its name.
        name: String,
        /// Its picture.
        picture: Option<StoredPicture>,
    },
    /// This account takes messages in this conversation.
    Accepted,
    /// A file whose blob is complete; the item's text is what is said of it.
    File(Box<FileInfo>),
    /// The item's text, as an answer or for somebody.
    Said {
        /// What it answers.
        reply: Option<MessageRef>,
        /// Who is to look.
        mentions: Vec<AccountId>,
    },
    /// The item's text takes the place of another one.
    Edit {
        /// Of which message.
        target: MessageRef,
        /// Who is to look.
        mentions: Vec<AccountId>,
    },
    /// A message is taken back.
    Delete {
        /// Which.
        target: MessageRef,
    },
    /// What this account thinks of a message.
    Reaction {
        /// Of which.
        target: MessageRef,
        /// `None` takes it back.
        emoji: Option<String>,
    },
    /// How long messages between two are kept from now on.
    Timer {
        /// 0 keeps them.
        seconds: u32,
    },
    /// What was said before some came in, for them; its blob is complete.
    History(Box<HistoryShare>),
}

impl What {
    /// Whether it is gone with the others when messages are kept for a time only. What says how a
    /// conversation stands is not.
    pub fn expires(&self) -> bool {
        !matches!(self, Self::Profile { .. } | Self::Accepted | Self::Timer { .. } | Self::History(_))
    }
}

/// How far a message is on its way.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub enum ItemState {
    /// Not sealed. No gateway has seen anything of it.
    Draft,
    /// Sealed: from here on a gateway may have it.
    Sealed {
        /// Its counter.
        counter: Counter,
        /// The bytes that go out, again and again the same.
        envelope: Bytes,
    },
    /// The server has it; the log has not been read up to it.
    Acked {
        /// Its counter.
        counter: Counter,
        /// The bytes that went out.
        envelope: Bytes,
        /// Its place.
        seq: Seq,
        /// Milliseconds since 1970 by the server's clock.
        at_ms: u64,
    },
    /// Refused for good.
    Failed {
        /// Why.
        reason: String,
    },
}

impl Conversation {
    /// A conversation that was just met.
    pub fn new(id: ConversationId, party: Party, standing: Standing, cursor: Seq, now_ms: u64) -> Self {
        Self {
            id,
            party,
            standing,
            incarnation: 0,
            cursor,
            counter: Counter(0),
            read: cursor,
            read_in: 0,
            gone: false,
            unread: 0,
            commit: None,
            updated_ms: now_ms,
            sealed: 0,
            rejoined_ms: 0,
            refused: false,
            request: None,
            changes: Vec::new(),
            gossiped: None,
            timer_s: 0,
        }
    }

    /// The same, met in this incarnation of the log.
    pub fn of(self, incarnation: u32) -> Self {
        Self { incarnation, read_in: incarnation, ..self }
    }

    /// The other party of a direct conversation; the own account in one with oneself.
    pub fn peer(&self) -> Option<AccountId> {
        match self.party {
            Party::Direct(peer) => Some(peer),
            Party::Group(_) => None,
        }
    }

    /// Everybody in it, as last seen.
    pub fn people(&self) -> Vec<AccountId> {
        match &self.party {
            Party::Direct(peer) => vec![*peer],
            Party::Group(group) => group.roles.keys().copied().collect(),
        }
    }

    /// What is known of a group.
    pub fn group(&self) -> Option<&GroupRecord> {
        match &self.party {
            Party::Group(group) => Some(group),
            Party::Direct(_) => None,
        }
    }

    /// What is known of a group, to be changed.
    pub fn group_mut(&mut self) -> Option<&mut GroupRecord> {
        match &mut self.party {
            Party::Group(group) => Some(group),
            Party::Direct(_) => None,
        }
    }
}

impl Extra {
    /// Nothing goes with it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Entry {
    /// What names the message for everybody; notices and what came before this was kept have none.
    pub fn reference(&self) -> Option<MessageRef> {
        let ((_, device), counter) = self.from.zip(self.counter)?;
        Some(MessageRef { device, counter })
    }

    /// Where it is in the history.
    pub fn place(&self) -> Place {
        (self.incarnation, self.seq, self.part)
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ItemId({self})")
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

impl fmt::Debug for ItemState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Draft => f.write_str("Draft"),
            Self::Sealed { counter, .. } => write!(f, "Sealed({counter})"),
            Self::Acked { counter, seq, .. } => write!(f, "Acked({counter} at {seq})"),
            Self::Failed { .. } => f.write_str("Failed"),
        }
    }
}

impl fmt::Debug for FoundingFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FoundingFrame").finish_non_exhaustive()
    }
}

impl fmt::Debug for OwnCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnCommit")
            .field("counter", &self.counter)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

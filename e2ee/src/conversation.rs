//! What a client does with a conversation's MLS group.
//!
//! - [`found`], [`join`], [`resync`]: into a conversation; [`discard`]: out of one that lost a race.
//! - [`found_next`], [`refound`], [`enter_next`]: from one generation into the next.
//! - [`seal`] and [`open`]: messages.
//! - [`update_keys`], [`change_members`]: commits. A commit of ours waits until it is read back from
//!   the log ([`Opened::OwnCommit`]); the loser of a race clears it, applies the winner, tries again.
//!
//! Every function works on what the vault holds now and writes all of its state or none. The caller's
//! transaction around it decides whether it happened.
//!
//! Invariant: no leaf enters a group here before [`Policy`](crate::Policy) has seen a signed manifest that lists it.

mod commit;
mod entry;
mod generation;
mod messages;
mod state;

use crate::store::VaultError;
use fastchat_delivery::{
    CommitSummary, GroupData, GroupDataError, Leaf, PolicyError, Suite, change::ChangeError,
    header::HeaderError, key_package, leaf::LeafError, suite::TooManyDevices,
};
use fastchat_protocol::{AccountId, Bytes, ConversationId, Counter, DeviceId, Epoch, client::Welcome};
use std::fmt;
use zeroize::Zeroizing;

pub use commit::{Members, Shown, change_members, clear_pending, merge_pending, resync, update_keys};
pub use entry::{discard, found, join};
pub use generation::{Next, enter_next, found_next, refound};
pub use messages::{open, seal};
pub use state::info;

/// A new conversation, ready to be sent to the gateway as `Found`.
#[derive(Debug, Clone)]
pub struct Founding {
    /// Which.
    pub conversation: ConversationId,
    /// The first epoch that all share.
    pub epoch: Epoch,
    /// Signed GroupInfo of that epoch.
    pub group_info: Bytes,
    /// Its ratchet tree.
    pub tree: Bytes,
    /// For the other devices; one Welcome serves several.
    pub welcomes: Vec<Welcome>,
}

/// A conversation that was joined by a Welcome.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Which.
    pub conversation: ConversationId,
    /// Where it stands.
    pub epoch: Epoch,
    /// Its suite.
    pub suite: Suite,
    /// The member that let this device in; signed.
    pub by: Leaf,
    /// All members, each listed in a manifest that was verified.
    pub members: Vec<Leaf>,
    /// What a group declares; `None` for a direct conversation.
    pub data: Option<GroupData>,
}

/// A sealed message.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// What goes to the gateway.
    pub envelope: Bytes,
    /// The epoch in which it was sealed.
    pub epoch: Epoch,
}

/// A commit of ours that waits for the log.
#[derive(Debug, Clone)]
pub struct PendingCommit {
    /// What goes to the gateway.
    pub commit: Bytes,
    /// Signed GroupInfo of the epoch that it makes.
    pub group_info: Bytes,
    /// For devices that it adds.
    pub welcomes: Vec<Welcome>,
    /// The epoch that it makes.
    pub epoch: Epoch,
}

/// What came of opening an envelope. All of these are normal.
#[derive(Debug)]
pub enum Opened {
    /// A message of another device.
    Message {
        /// Whose device sent it: from the MLS session, not from the gateway.
        account: AccountId,
        /// Which device.
        device: DeviceId,
        /// The epoch in which it was sealed.
        epoch: Epoch,
        /// What [`crate::Content::decode`] reads.
        plaintext: Zeroizing<Vec<u8>>,
    },
    /// An echo of what this device sent; its plaintext was stored when it was sealed.
    /// Nothing but the sender was authenticated: compare the envelope with the one that was stored.
    OwnMessage,
    /// A commit of another device was applied.
    Commit {
        /// What it did.
        summary: CommitSummary,
        /// A pending commit of ours lost the race and is gone: make it again if still wanted.
        lost_pending: bool,
    },
    /// Our pending commit was accepted and is merged.
    OwnCommit(CommitSummary),
    /// A commit removed this device: the conversation can no longer be used here.
    Removed(CommitSummary),
    /// The key of this message was used before and is gone: a duplicate. If the caller has never
    /// stored this row, its sender has gone back to an older state and used a key twice: that is a
    /// loss, to be recorded and shown.
    Replay,
    /// Of an epoch for which this device has no keys (any more, or it was not a member yet).
    /// For a commit: it was applied before.
    TooOld {
        /// Where it was made.
        made: Epoch,
        /// Where this device is.
        current: Epoch,
    },
    /// Of an epoch that this device has not reached: read the log in order.
    Future {
        /// Where it was made.
        made: Epoch,
        /// Where this device is.
        current: Epoch,
    },
}

/// How a conversation stands on this device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Its newest epoch here.
    pub epoch: Epoch,
    /// Its suite.
    pub suite: Suite,
    /// Its members.
    pub members: Vec<Leaf>,
    /// What a group declares; `None` for a direct conversation.
    pub data: Option<GroupData>,
    /// First 8 bytes of SHA-256 of the epoch authenticator: equal on all devices of an epoch, or the
    /// conversation has split.
    pub epoch_authenticator_hash: [u8; 8],
    /// A commit of ours waits for the log (an update, or a resync).
    pub pending: bool,
    /// False once a commit removed this device.
    pub active: bool,
}

/// Why an operation on a conversation failed. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ConversationError {
    /// See the source.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// This device has no keys for it.
    #[error("this device has no keys for conversation {0}")]
    NotJoined(ConversationId),
    /// A member has removed this device.
    #[error("this device was removed from conversation {0}")]
    Removed(ConversationId),
    /// It is already there.
    #[error("this device is already in conversation {0}")]
    AlreadyJoined(ConversationId),
    /// A commit of ours is still waiting.
    #[error("an earlier change to the keys of this conversation is still waiting for the server")]
    Pending,
    /// A key package does not fit.
    #[error("a device cannot be added: {0}")]
    KeyPackage(#[from] key_package::KeyPackageError),
    /// A key package of another suite than the conversation's.
    #[error("a device cannot be added: its key package is for the suite {0}")]
    Suite(Suite),
    /// No member device has this id.
    #[error("device {0} is not in this conversation")]
    NoSuchDevice(DeviceId),
    /// See the source.
    #[error("a member of the conversation cannot be trusted: {0}")]
    Policy(#[from] PolicyError),
    /// See the source.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// See the source.
    #[error(transparent)]
    Data(#[from] GroupDataError),
    /// See the source.
    #[error(transparent)]
    Size(#[from] TooManyDevices),
    /// What is to be entered lies before what this device knows: whoever was taken out since would be
    /// in it again.
    #[error(
        "the server shows an older state of the conversation ({shown}) than this device has seen ({known})"
    )]
    RolledBack {
        /// The epoch that the server shows.
        shown: u64,
        /// The epoch that this device is in.
        known: u64,
    },
    /// Welcome, tree or GroupInfo are wrong, or belong to another conversation.
    #[error("what the server sent does not make a conversation: {0}")]
    Invalid(String),
    /// OpenMLS failed in a way that nothing above explains.
    #[error("the encryption library failed: {0}")]
    Mls(String),
}

impl ConversationError {
    pub(crate) fn mls(error: impl fmt::Display) -> Self {
        Self::Mls(error.to_string())
    }

    pub(crate) fn invalid(error: impl fmt::Display) -> Self {
        Self::Invalid(error.to_string())
    }

    /// The account whose newest manifest should be fetched before trying again.
    pub fn wants_manifest(&self) -> Option<AccountId> {
        match self {
            Self::Policy(error) => error.wants_manifest(),
            _ => None,
        }
    }
}

/// Why an envelope was not opened. Nothing was written: the same envelope, fetched again from the
/// log, may still open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// See the source.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// This device has no keys for it.
    #[error("this device has no keys for this conversation")]
    NotJoined,
    /// A member has removed this device.
    #[error("this device was removed from this conversation")]
    Removed,
    /// Not an envelope.
    #[error("this is not a message: {0}")]
    Header(#[from] HeaderError),
    /// The server put it into the wrong conversation.
    #[error("the server delivered a message of another conversation")]
    Conversation,
    /// The server says another number than the sender signed.
    #[error("the server says that this is message {claimed}, its sender says {signed}")]
    Counter {
        /// What the server says.
        claimed: Counter,
        /// What the sender signed.
        signed: Counter,
    },
    /// The server names another sender than the keys do.
    #[error("the server says that device {claimed} sent this, the keys say {actual}")]
    Sender {
        /// What the server says.
        claimed: DeviceId,
        /// Whose keys they are.
        actual: DeviceId,
    },
    /// A commit that breaks the rules.
    #[error("a change to the members of this conversation was refused: {0}")]
    Policy(#[from] PolicyError),
    /// A commit that does what no commit may.
    #[error("a change to this conversation was refused: {0}")]
    Change(#[from] ChangeError),
    /// See the source.
    #[error(transparent)]
    Data(#[from] GroupDataError),
    /// A message of an epoch that this device has does not open, or a commit does not apply.
    #[error("a message could not be decrypted: {0}")]
    Undecryptable(String),
}

impl OpenError {
    /// Whether joining anew by an external commit ([`resync`]) is the way out, if the log's copy
    /// does not open either.
    pub fn resync_helps(&self) -> bool {
        matches!(self, Self::NotJoined | Self::Undecryptable(_))
    }

    /// The account whose newest manifest should be fetched before trying again.
    pub fn wants_manifest(&self) -> Option<AccountId> {
        match self {
            Self::Policy(error) => error.wants_manifest(),
            _ => None,
        }
    }
}

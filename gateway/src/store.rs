//! The truth: what must last, behind one trait with two implementations.
//!
//! - [`postgres`] is for fleets, [`sqlite`] for the embedded default; one contract suite runs on both.
//! - Invariant: an outcome is given only after the commit. Seqs of a conversation are 1..=head.
//! - Dedupe comes first, then membership, revocation and epoch, in the transaction that gives the seq.
//! - Every read of a log asks the same question (who may read which rows) in one place.
//!
//! Nothing here is ever opened: envelopes, trees and manifests are bytes.

pub mod postgres;
mod rows;
mod rules;
pub mod sqlite;

use async_trait::async_trait;
use bytes::Bytes;
use fastchat_protocol::{
    AccountId, AccountName, ConversationId, Counter, DeviceId, Epoch, Seq,
    server::{ConversationState, KeyPackagesLeft, LogRow, MailboxItem},
};

/// Why the store gave no outcome.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or it refused before doing anything. Nothing was stored.
    #[error("the store is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// The connection broke at a moment when a commit may have happened.
    #[error("the store did not say whether it committed: {0}")]
    Unknown(#[source] sqlx::Error),
    /// What is stored cannot be so.
    #[error("the store holds something impossible in {place}: {what}")]
    Corrupt {
        /// Table and column.
        place: &'static str,
        /// What was found, without its content.
        what: String,
    },
    /// The schema is not the one that this program knows.
    #[error("{0}")]
    Schema(String),
}

impl StoreError {
    /// Whether one item may have spoiled its batch, so that the others may succeed without it. What
    /// concerns more than one (not reachable, full, read-only, a lock that did not come) would refuse
    /// each of them again, and some only after a wait.
    pub fn may_be_one_items(&self) -> bool {
        /// Postgres: data, constraint, deadlock, `RAISE`, internal error.
        const CLASSES: [&str; 5] = ["22", "23", "40", "P0", "XX"];
        /// SQLite's primary codes: corrupt, too big, constraint, mismatch.
        const PRIMARY: [i32; 4] = [11, 18, 19, 20];
        let Self::Unavailable(error) = self else { return false };
        let Some(code) = error.as_database_error().and_then(|error| error.code()) else { return false };
        match code.parse::<i32>() {
            // An SQLSTATE has five characters, and some are digits alone.
            Ok(sqlite) if code.len() < 5 => PRIMARY.contains(&(sqlite & 0xff)),
            _ => CLASSES.iter().any(|class| code.starts_with(class)),
        }
    }
}

/// What every store call returns.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Accounts, devices, key packages, conversations, logs, cursors, mailboxes.
#[async_trait]
pub trait Store: std::fmt::Debug + Send + Sync + 'static {
    /// Answers if the store can answer. At most two seconds.
    async fn ping(&self) -> Result<()>;
    /// Raised whenever a backup was restored; 1 at first.
    async fn incarnation(&self) -> Result<u32>;

    /// Makes account and first device in one transaction.
    async fn register(&self, new: NewAccount) -> Result<Registered>;
    /// An account and its newest manifest, by name.
    async fn find_account(&self, name: &AccountName) -> Result<Option<Account>>;
    /// An account and its newest manifest.
    async fn account(&self, account: AccountId) -> Result<Option<Account>>;
    /// What a password is checked against.
    async fn password_hash(&self, account: AccountId) -> Result<Option<String>>;
    /// Replaces the password hash if it is still `old`; false if it is not.
    async fn set_password_hash(&self, account: AccountId, old: &str, new: &str) -> Result<bool>;
    /// Stores the next manifest with the devices that it lists and revokes; false if `version - 1`
    /// is not the version in force.
    async fn put_manifest(&self, account: AccountId, next: NewManifest) -> Result<bool>;
    /// A device with all that a connecting client needs, in one query.
    async fn device(&self, device: DeviceId) -> Result<Option<Device>>;

    /// Those of these devices that were revoked.
    async fn revoked(&self, devices: &[DeviceId]) -> Result<Vec<DeviceId>>;

    /// Adds key packages of a device, up to `limits::MAX_STORED_KEY_PACKAGES` one-time packages for
    /// the suite (further ones are dropped), and replaces the last-resort package if one is given.
    async fn publish_key_packages(
        &self,
        device: DeviceId,
        suite: u16,
        one_time: &[Bytes],
        last_resort: Option<&Bytes>,
    ) -> Result<KeyPackagesLeft>;
    /// Takes one package for each live device of the account: a one-time package while there is one
    /// (never the same twice), else the last-resort one. Devices with neither are left out.
    async fn claim_key_packages(&self, account: AccountId, suite: u16) -> Result<Vec<(DeviceId, Bytes)>>;
    /// What the directory holds for a device, by suite.
    async fn key_packages_left(&self, device: DeviceId) -> Result<Vec<KeyPackagesLeft>>;

    /// Appends application envelopes in one transaction: every item has its own outcome, in the order
    /// of the batch. An error says that no item was stored (`Unavailable`), or that it is not known
    /// (`Unknown`). The caller puts no (conversation, device, counter) twice into one batch.
    async fn append(&self, batch: &[Append]) -> Result<Vec<Outcome>>;
    /// Appends a commit that was validated against the state of `commit.parent`: row, public state,
    /// mailbox items and tree together, if the epoch is still `commit.parent`.
    async fn append_commit(&self, commit: NewCommit) -> Result<Committed>;
    /// Founds a direct conversation: its first row, members, public state and mailbox items together.
    /// `Existing` if the pair has one already. Repeating a founding with the same id is a duplicate.
    async fn found_direct(&self, founding: NewDirect) -> Result<Founded>;

    /// Rows after `after` that this device may read; `None` if it may read nothing of this log.
    async fn fetch(
        &self,
        device: DeviceId,
        conversation: ConversationId,
        after: Seq,
        limit: u32,
    ) -> Result<Option<LogPage>>;
    /// Which of these devices may read rows of this log, and which rows: for the live path.
    async fn readers(&self, conversation: ConversationId, devices: &[DeviceId]) -> Result<Readers>;
    /// The device's conversations after `after`, in the order of ids.
    async fn conversations(
        &self,
        device: DeviceId,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Result<Vec<ConversationState>>;
    /// The newest public group state, for an account that is a member.
    async fn group_state(
        &self,
        account: AccountId,
        conversation: ConversationId,
    ) -> Result<Option<GroupState>>;
    /// A tree that a waiting welcome of this device needs.
    async fn tree(
        &self,
        device: DeviceId,
        conversation: ConversationId,
        hash: &[u8],
    ) -> Result<Option<Bytes>>;
    /// Everything whose head moved since `mark`, at a cost of what changed; nothing is ever left out,
    /// something may be said twice. `None` starts: it returns only a mark.
    async fn moved_since(&self, mark: Option<Mark>) -> Result<Moved>;

    /// Moves cursors forward (never back, never past the head, only where the device is a member).
    async fn set_cursors(&self, cursors: &[(DeviceId, ConversationId, Seq)]) -> Result<()>;
    /// Mailbox items after `after`, in order, with the mailbox's head.
    async fn mailbox(&self, device: DeviceId, after: Seq, limit: u32) -> Result<(Vec<MailboxItem>, Seq)>;
    /// Removes mailbox items up to the seq; the head stays.
    async fn ack_mailbox(&self, device: DeviceId, seq: Seq) -> Result<()>;
}

/// A registration that was checked.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// From the manifest.
    pub account: AccountId,
    /// Checked by its type.
    pub name: AccountName,
    /// bcrypt of what the client derived.
    pub password_hash: String,
    /// Version 1, with its devices.
    pub manifest: NewManifest,
}

/// A manifest that was checked.
#[derive(Debug, Clone)]
pub struct NewManifest {
    /// Its version.
    pub version: u64,
    /// Signed bytes as they came.
    pub bytes: Bytes,
    /// Devices that it lists, with their Ed25519 keys.
    pub devices: Vec<(DeviceId, [u8; 32])>,
    /// Devices that it revokes.
    pub revoked: Vec<DeviceId>,
}

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// Made.
    Made,
    /// The name is somebody's.
    NameTaken,
    /// The account id or a device id is in use.
    IdTaken,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// Its name.
    pub name: AccountName,
    /// Signed bytes of the newest manifest.
    pub manifest: Bytes,
}

/// A device, as it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Whose.
    pub account: AccountId,
    /// The account's name.
    pub name: AccountName,
    /// Ed25519.
    pub key: [u8; 32],
    /// It may do nothing any more.
    pub revoked: bool,
    /// The last place of its mailbox.
    pub mailbox_head: Seq,
}

/// An application envelope to append.
#[derive(Debug, Clone)]
pub struct Append {
    /// Where to.
    pub conversation: ConversationId,
    /// The authenticated sender.
    pub device: DeviceId,
    /// The sender's count.
    pub counter: Counter,
    /// As the envelope's MLS header says.
    pub epoch: Epoch,
    /// The sealed bytes.
    pub envelope: Bytes,
}

/// What became of one append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Committed.
    Stored(Stored),
    /// Was there before, with the same bytes.
    Duplicate(Stored),
    /// The counter was used for other bytes, stored at this seq.
    Conflict(Seq),
    /// The counter was used; the row is past retention.
    Expired,
    /// The counter is not the next one, which is this.
    OutOfOrder(Counter),
    /// Not an accepted epoch; this one is in force. For a commit: another commit came first.
    Stale(Epoch),
    /// No such conversation, not a member, not joined, or revoked.
    NotMember,
}

/// A committed row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its place.
    pub seq: Seq,
    /// Milliseconds since 1970 by the store's clock.
    pub at_ms: u64,
    /// Who gets it.
    pub audience: Audience,
    /// The conversation's membership revision.
    pub revision: u64,
}

/// Whom a conversation's rows are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// A direct conversation: the two accounts (twice the same in one with oneself).
    Pair(AccountId, AccountId),
    /// A group: its members.
    Group,
}

/// A commit that was validated.
#[derive(Debug, Clone)]
pub struct NewCommit {
    /// Where to.
    pub conversation: ConversationId,
    /// The authenticated sender.
    pub device: DeviceId,
    /// The sender's count.
    pub counter: Counter,
    /// The epoch that it was validated against.
    pub parent: Epoch,
    /// The epoch that it makes.
    pub epoch: Epoch,
    /// The commit's bytes.
    pub commit: Bytes,
    /// GroupInfo of the new epoch.
    pub group_info: Bytes,
    /// Public state of the new epoch.
    pub state: Bytes,
    /// Ratchet tree of the new epoch; kept by its SHA-256 while welcomes wait for it.
    pub tree: Bytes,
    /// A leaf was added or removed: envelopes of earlier epochs are no longer accepted.
    pub membership_changed: bool,
    /// Devices that the commit lets in (their cursor starts at its row), each with its mailbox item's
    /// welcome. An external commit lets its own sender in, without a welcome.
    pub joins: Vec<Join>,
    /// Devices whose leaf the commit removes; they may read nothing after its row.
    pub removes: Vec<DeviceId>,
}

/// A device that is let in.
#[derive(Debug, Clone)]
pub struct Join {
    /// Which.
    pub device: DeviceId,
    /// Its welcome, unless it joined by itself.
    pub welcome: Option<Bytes>,
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// As for an application envelope.
    pub outcome: Outcome,
    /// The mailboxes that grew, if it was stored just now: device, its account, the new head.
    pub mailboxes: Vec<(DeviceId, AccountId, Seq)>,
}

/// A direct conversation that was validated.
#[derive(Debug, Clone)]
pub struct NewDirect {
    /// Chosen by the founder.
    pub conversation: ConversationId,
    /// The authenticated founder, which joins at the first row without a welcome.
    pub device: DeviceId,
    /// The founder's account.
    pub account: AccountId,
    /// The other party; may be the same account.
    pub peer: AccountId,
    /// MLS code point of the suite.
    pub suite: u16,
    /// The first epoch that the parties share.
    pub epoch: Epoch,
    /// GroupInfo of that epoch.
    pub group_info: Bytes,
    /// Public state of that epoch.
    pub state: Bytes,
    /// Ratchet tree of that epoch.
    pub tree: Bytes,
    /// The other devices, with their welcomes.
    pub joins: Vec<Join>,
}

/// What became of a founding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Founded {
    /// Its first row is committed; these mailboxes grew.
    Made {
        /// Seq 1.
        stored: Stored,
        /// Device, its account, its mailbox's new head.
        mailboxes: Vec<(DeviceId, AccountId, Seq)>,
    },
    /// The same founding was committed before.
    Duplicate(Stored),
    /// The pair has this conversation.
    Existing(ConversationId),
    /// The founder's device, or the peer, is not there or revoked.
    NotMember,
}

/// Who may read a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readers {
    /// The membership revision that this is true for; 0 if there is no such conversation.
    pub revision: u64,
    /// Devices that may read something, each with its first row and, once it is out, its last.
    pub ranges: Vec<(DeviceId, Seq, Option<Seq>)>,
}

/// A page of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogPage {
    /// In order, without a hole; ends at `limits::MAX_PAGE_BYTES` at the latest (but has one row).
    pub rows: Vec<LogRow>,
    /// The last seq that this device may read.
    pub head: Seq,
    /// The first seq that retention has left.
    pub first: Seq,
}

/// The newest public state of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupState {
    /// Which epoch.
    pub epoch: Epoch,
    /// The head when it was read.
    pub head: Seq,
    /// Who the members are.
    pub audience: Audience,
    /// GroupInfo.
    pub group_info: Bytes,
    /// Public state.
    pub state: Bytes,
    /// Ratchet tree.
    pub tree: Bytes,
}

/// A place in the order of commits, as one store understands it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub i64);

/// What moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Conversations with their head and audience.
    pub heads: Vec<(ConversationId, Seq, Audience)>,
    /// Devices with their account and their mailbox's head.
    pub mailboxes: Vec<(DeviceId, AccountId, Seq)>,
    /// Where the next question starts.
    pub mark: Mark,
}

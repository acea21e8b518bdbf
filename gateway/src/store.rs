//! The truth: what must last, behind one trait with two implementations.
//!
//! - [`postgres`] is for fleets, [`sqlite`] for the embedded default; one contract suite runs on both.
//! - Invariant: an outcome is given only after the commit. Seqs of a conversation are 1..=head.
//! - Dedupe comes first, then membership, revocation and epoch, in the transaction that gives the seq.
//! - Every read of a log asks the same question (who may read which rows) in one place.
//!
//! Nothing here is ever opened: envelopes, trees and manifests are bytes.

pub mod blobs;
pub mod operate;
pub mod postgres;
pub mod receipts;
pub mod retain;
mod rows;
mod rules;
pub mod sqlite;

use async_trait::async_trait;
use bytes::Bytes;
use fastchat_protocol::{
    AccountId, AccountName, ConversationId, Counter, DeviceId, Epoch, Role, Seq, SlotId,
    server::{ConversationState, KeyPackagesLeft, LogRow, MailboxItem, MemberReceipt},
};
use receipts::{Acquaintance, Circle, CursorMoved, ReadMark};

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

/// The connections of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pool {
    /// Those that there are.
    pub open: u32,
    /// Those that wait for a call.
    pub idle: u32,
    /// As many there may be.
    pub limit: u32,
}

impl Pool {
    /// Of one of sqlx's pools.
    fn of<DB: sqlx::Database>(pool: &sqlx::Pool<DB>) -> Self {
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
        Self { open: pool.size(), idle, limit: pool.options().get_max_connections() }
    }
}

/// What every store call returns.
pub type Result<T> = std::result::Result<T, StoreError>;

/// What a part of a slot counts at least, in bytes: rows of nothing would fill a disk as well.
const SLOT_PART_COST: usize = 1024;
/// Expired parts of anybody's that one put removes at most: more than it adds, and soon done.
const SLOT_SWEEP: i64 = 16;

/// Accounts, devices, key packages, conversations, logs, cursors, mailboxes.
#[async_trait]
pub trait Store: operate::Operate + blobs::Blobs + retain::Retain + 'static {
    /// How its connections are used.
    fn pool(&self) -> Pool;
    /// How many calls of [`append`](Store::append) it carries out side by side.
    fn lanes(&self) -> usize;
    /// Answers if the store can answer. At most two seconds.
    async fn ping(&self) -> Result<()>;
    /// Raised whenever a backup was restored; 1 at first.
    async fn incarnation(&self) -> Result<u32>;
    /// After a backup was restored, before any gateway serves it: raises the incarnation by one, or to
    /// `at_least`, and remembers where every conversation stands, so that devices which have read
    /// further learn how much of it is gone. One-time key packages go: nobody knows which were used.
    async fn begin_incarnation(&self, at_least: u32) -> Result<Restoration>;

    /// Makes account and first device in one transaction.
    async fn register(&self, new: NewAccount) -> Result<Registered>;
    /// An account and its newest manifest, by name; `None` if it is deleted.
    async fn find_account(&self, name: &AccountName) -> Result<Option<Account>>;
    /// An account and its newest manifest; also of a deleted one, whose signatures others still check.
    async fn account(&self, account: AccountId) -> Result<Option<Account>>;
    /// Those of these accounts that exist, in any order: what the rules of a group ask for.
    async fn accounts(&self, accounts: &[AccountId]) -> Result<Vec<Account>>;
    /// What a password is checked against; `None` if the account is deleted.
    async fn password_hash(&self, account: AccountId) -> Result<Option<String>>;
    /// Replaces the password hash if it is still `old`; false if it is not.
    async fn set_password_hash(&self, account: AccountId, old: &str, new: &str) -> Result<bool>;
    /// Stores the next manifest with the devices that it lists and revokes; false if `version - 1`
    /// is not the version in force, or the account is deleted. The one in force again is true. Devices
    /// that it revokes may do nothing any more: their key packages and mailboxes are gone, and the
    /// revision of every conversation that they are in is raised.
    async fn put_manifest(&self, account: AccountId, next: NewManifest) -> Result<bool>;
    /// Those of these devices that there are, in any order: what their proofs are checked against.
    async fn known_devices(&self, devices: &[DeviceId]) -> Result<Vec<(DeviceId, Device)>>;
    /// One of them.
    async fn device(&self, device: DeviceId) -> Result<Option<Device>> {
        Ok(self.known_devices(&[device]).await?.pop().map(|(_, device)| device))
    }
    /// Those of these devices that there are, in any order, with all that their sessions begin with, as
    /// of one moment. One question, however many come at once.
    async fn arrivals(&self, devices: &[DeviceId]) -> Result<Vec<(DeviceId, Arrival)>>;
    /// One of them.
    async fn arrival(&self, device: DeviceId) -> Result<Option<Arrival>> {
        Ok(self.arrivals(&[device]).await?.pop().map(|(_, arrival)| arrival))
    }

    /// Those of these devices that may not be served, and why.
    async fn shut_out(&self, devices: &[DeviceId]) -> Result<Vec<(DeviceId, operate::ShutOut)>>;

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
    /// Nothing is taken if the account has blocked `by`.
    async fn claim_key_packages(&self, by: AccountId, account: AccountId, suite: u16) -> Result<Claimed>;

    /// Appends application envelopes in one transaction: every item has its own outcome, in the order
    /// of the batch. An error says that no item was stored (`Unavailable`), or that it is not known
    /// (`Unknown`). The caller puts no (conversation, device, counter) twice into one batch.
    async fn append(&self, batch: &[Append]) -> Result<Vec<Outcome>>;
    /// Appends a commit that was validated against the state of `commit.parent`: row, public state,
    /// mailbox items and tree together, if the epoch is still `commit.parent`. `NotMember` also if an
    /// account or device that it lets in is not there or deleted, and if it says anything of the
    /// members of a direct conversation.
    async fn append_commit(&self, commit: NewCommit) -> Result<Committed>;
    /// Founds a direct conversation: its first row, members, public state and mailbox items together.
    /// `Existing` if the pair has one already. Repeating a founding with the same id is a duplicate.
    /// A peer whom the founder has blocked comes in, and may not append.
    async fn found_direct(&self, founding: NewDirect) -> Result<Founded>;

    /// Founds a group, or goes on with it in a new generation (`parent` is then still its epoch): row,
    /// members, public state and mailbox items together. Devices and accounts that the new generation
    /// leaves out are out with the new row; those that stay keep where they joined. The same founding
    /// (by device, counter and GroupInfo) again is a duplicate, also past retention of a group's first
    /// row. `NotMember` also for an id that is another conversation's, a founder that is not among the
    /// members, and if an account or device is not there or deleted; `OutOfOrder(0)` for a new group
    /// with another counter.
    async fn found_group(&self, founding: NewGroup) -> Result<Committed>;
    /// Appends the statement by which a device's account leaves a group, and bars the account in the
    /// same transaction: it and its devices may read up to that row, and it counts as `left` in
    /// [`GroupState`] until a commit or a new generation says what becomes of it. An owner may leave
    /// only if nobody else is left. `NotMember` for a direct conversation. Refusals come in the order
    /// of an envelope's, `Owner` before the epoch.
    async fn leave(&self, leave: NewLeave) -> Result<Outcome>;

    /// Blocks an account or no longer: it cannot found a direct conversation with the blocker, append
    /// to one (nor a commit), or claim its key packages. Idempotent; nothing happens for oneself, or if
    /// one of the two is not there.
    async fn block(&self, account: AccountId, other: AccountId, blocked: bool) -> Result<()>;
    /// The accounts that this one has blocked, in the order of ids.
    async fn blocked(&self, account: AccountId) -> Result<Vec<AccountId>>;
    /// Those of `others` that share a conversation with the account (both are members now) and have not
    /// blocked it; each once, in the order of ids.
    async fn acquainted(&self, account: AccountId, others: &[AccountId]) -> Result<Vec<AccountId>>;
    /// Whether others may learn that the account is online.
    async fn set_visible(&self, account: AccountId, visible: bool) -> Result<()>;
    /// Bars the account for good: no login, no device, no key package, no slot, out of every
    /// conversation; the name stays taken. False if it owns a group with other members, and then nothing
    /// has changed. Idempotent; true for an account that is not there.
    ///
    /// The revision of every conversation that it was in is raised, and no row is written: nobody has
    /// signed one, so nobody would believe it. Clients leave their groups by a statement first; where
    /// they did not, the account counts as `left`. The other party of a direct conversation is refused
    /// as `NotAccepted` from then on. The manifest and what was said stay.
    async fn delete_account(&self, account: AccountId) -> Result<bool>;

    /// What the recovery code opens, and a hash that proves the code; replaces the one before. Nothing
    /// happens if the account is not there or deleted.
    async fn set_recovery(&self, account: AccountId, recovery: Recovery) -> Result<()>;
    /// See [`Store::set_recovery`].
    async fn recovery(&self, account: AccountId) -> Result<Option<Recovery>>;
    /// Puts the next manifest and another password hash in one transaction; false as `put_manifest`, and
    /// then nothing has changed. With the manifest in force again it sets the hash: the answer to the
    /// first try was lost, and every try proved the code.
    async fn restore(&self, account: AccountId, next: NewManifest, password_hash: &str) -> Result<bool>;

    /// Puts a part of a slot, in the place of the one that was there; false if the account's slots would
    /// hold more than `limits::MAX_SLOTS` or its own quota (each part counts as 1 KiB at least), or there is no such
    /// account. Parts that have expired are removed first, and a few of other accounts with them.
    async fn put_slot(
        &self,
        account: AccountId,
        slot: SlotId,
        part: u32,
        bytes: &Bytes,
        expires_in_s: u32,
    ) -> Result<bool>;
    /// A part, unless it has expired.
    async fn slot(&self, account: AccountId, slot: SlotId, part: u32) -> Result<Option<Bytes>>;
    /// Removes all parts of a slot.
    async fn drop_slot(&self, account: AccountId, slot: SlotId) -> Result<()>;

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
    /// The device's conversations after `after`, in the order of ids; those of its account that it has
    /// not joined, too (`unjoined`, with the head as cursor and join seq).
    async fn conversations(
        &self,
        device: DeviceId,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Result<Vec<ConversationState>>;
    /// The newest public group state, for a device that is not revoked and whose account is a member.
    async fn group_state(&self, device: DeviceId, conversation: ConversationId)
    -> Result<Option<GroupState>>;
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

    /// Moves cursors forward (never back, never past the head, only where the device is a member). Returns
    /// those that moved and are of members now, each once, in order.
    async fn set_cursors(&self, cursors: &[(DeviceId, ConversationId, Seq)]) -> Result<Vec<CursorMoved>>;
    /// Moves read positions forward: never back, and only for a device of a live member that is in, to a row
    /// from the account's first one to the head. Says for each mark in which membership revision it was
    /// believed (also one that changes nothing), or that it was not.
    async fn mark_read(&self, marks: &[ReadMark]) -> Result<Vec<Option<u64>>>;
    /// How far the members are, in the order of ids, as much as they share and a block allows; of the
    /// asker's own account all of it. `None` if its account is no live member.
    async fn receipts(
        &self,
        device: DeviceId,
        conversation: ConversationId,
    ) -> Result<Option<Vec<MemberReceipt>>>;
    /// Who hears of receipts and typing in these conversations, in the order of ids; those that are not
    /// there are left out.
    async fn circles(&self, conversations: &[ConversationId]) -> Result<Vec<(ConversationId, Circle)>>;
    /// Those of `others` that are acquainted and want it known whether they are online.
    async fn acquaintances(&self, account: AccountId, others: &[AccountId]) -> Result<Vec<Acquaintance>>;
    /// Whether others may learn how far the account has received, and when it was last online. Of one that
    /// does not want the latter known it is forgotten, and not noted again.
    async fn set_sharing(&self, account: AccountId, delivered: bool, last_seen: bool) -> Result<()>;
    /// Notes when accounts were online, in milliseconds since 1970; never goes back.
    async fn note_seen(&self, seen: &[(AccountId, u64)]) -> Result<()>;
    /// Mailbox items after `after`, in order, with the mailbox's head.
    async fn mailbox(&self, device: DeviceId, after: Seq, limit: u32) -> Result<(Vec<MailboxItem>, Seq)>;
    /// Removes mailbox items up to the seq; the head stays.
    async fn ack_mailbox(&self, device: DeviceId, seq: Seq) -> Result<()>;
}

/// What became of a store that was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restoration {
    /// The backup's incarnation.
    pub before: u32,
    /// The one in force now.
    pub now: u32,
    /// Conversations that were marked.
    pub conversations: u64,
    /// One-time key packages that were dropped.
    pub key_packages: u64,
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
    /// SHA-256 of the invite that it uses up, where registration needs one.
    pub invite: Option<[u8; 32]>,
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
    /// There is no such invite, or it is used up, expired or withdrawn.
    BadInvite,
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
    /// The operator has shut its account out.
    pub disabled: bool,
    /// Messages of a connection in a second, if its account has a quota of its own.
    pub sends_per_second: Option<u32>,
    /// Others may learn that the account is online.
    pub visible: bool,
    /// Others may learn how far its devices have received.
    pub shares_delivered: bool,
    /// Others may learn when it was last online.
    pub shares_last_seen: bool,
    /// The last place of its mailbox.
    pub mailbox_head: Seq,
}

impl Device {
    /// Why it may not be served, if so.
    pub fn shut_out(&self) -> Option<operate::ShutOut> {
        match (self.revoked, self.disabled) {
            (true, _) => Some(operate::ShutOut::Revoked),
            (false, true) => Some(operate::ShutOut::Disabled),
            (false, false) => None,
        }
    }
}

/// What a device's session begins with.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrival {
    /// The device itself.
    pub device: Device,
    /// Its account has no other that is not revoked.
    pub sole: bool,
    /// The store's incarnation.
    pub incarnation: u32,
    /// The groups of which it may read what comes, in the order of ids: what its connection hears.
    pub groups: Vec<ConversationId>,
    /// What the directory holds for it, by suite.
    pub key_packages: Vec<KeyPackagesLeft>,
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
    /// The other party of a direct conversation has blocked the sender, or is deleted.
    NotAccepted,
    /// The owner of a group with other members cannot leave it.
    Owner,
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
    /// What becomes of accounts of a group: the role that it has from now on (it comes in with this row
    /// if it was no member), or `None`: it may read nothing after this row.
    pub members: Vec<(AccountId, Option<Role>)>,
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

/// A group, or its next generation, that was validated.
#[derive(Debug, Clone)]
pub struct NewGroup {
    /// Chosen by the founder.
    pub conversation: ConversationId,
    /// The authenticated founder, which needs no welcome.
    pub device: DeviceId,
    /// 0 for a new group, else the founder's next count.
    pub counter: Counter,
    /// For a new generation: the epoch that it was validated against.
    pub parent: Option<Epoch>,
    /// MLS code point of the suite.
    pub suite: u16,
    /// The first epoch that the members share.
    pub epoch: Epoch,
    /// GroupInfo of that epoch; the row of a new generation holds its SHA-256.
    pub group_info: Bytes,
    /// Public state of that epoch.
    pub state: Bytes,
    /// Ratchet tree of that epoch.
    pub tree: Bytes,
    /// All members and their roles.
    pub members: Vec<(AccountId, Role)>,
    /// All other devices, with their welcomes.
    pub joins: Vec<Join>,
}

/// A statement to leave that was verified.
#[derive(Debug, Clone)]
pub struct NewLeave {
    /// Which group.
    pub conversation: ConversationId,
    /// The authenticated sender.
    pub device: DeviceId,
    /// Its next count.
    pub counter: Counter,
    /// The epoch that the statement names; accepted as an envelope's.
    pub epoch: Epoch,
    /// Signed bytes.
    pub statement: Bytes,
}

/// Key packages that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// One for each device that has any.
    Packages(Vec<(DeviceId, Bytes)>),
    /// The account has blocked who asks.
    NotAccepted,
}

/// What a recovery code opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// SHA-256 of the recovery key (which has 256 random bits, so nothing slower is needed).
    pub key_hash: [u8; 32],
    /// The account's keys, sealed under the code.
    pub sealed: Bytes,
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
    /// The peer has blocked the founder.
    NotAccepted,
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
    /// Accounts of a group that are out and may still have leaves in the tree.
    pub left: Vec<AccountId>,
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

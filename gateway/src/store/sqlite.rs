//! The store of the embedded default: one SQLite file, no other process.
//!
//! - One connection writes, a few read (WAL); every write is one `BEGIN IMMEDIATE` transaction, so
//!   that its rules read what they write by. `synchronous=FULL`: a commit is on the disk.
//! - The rules are those of Postgres; [`super::rules`] holds them as functions.
//! - Writing calls have an order (the file's lock), so a counter of changes serves as the mark that a
//!   transaction id is in Postgres.

mod accounts;
mod append;
mod arrivals;
mod blocks;
mod commit;
mod connection;
mod deletion;
mod direct;
mod group;
mod key_packages;
mod mailbox;
mod members;
mod pool;
mod read;
mod receipts;
mod restored;
#[expect(clippy::duplicate_mod, reason = "a module of each store")]
#[path = "shared.rs"]
mod shared;
mod slots;
mod table;

use super::*;
use connection::now;
use pool::Connections;
use shared::noted;
use sqlx::SqliteConnection;
use std::path::Path;

// What the shared statements run on.
type Connection = SqliteConnection;
type Database = Sqlite;
/// When an account was made, in seconds since 1970.
const MADE_AT_S: &str = "a.made_at";
// One transaction writes at a time: there is nobody to hold rows against.
const FOR_KEY_SHARE: &str = "";
const FOR_UPDATE: &str = "";
const SKIP_LOCKED: &str = "";

/// The store in a file.
#[derive(Debug)]
pub struct Sqlite {
    writer: Connections,
    readers: Connections,
}

impl Sqlite {
    /// Opens the file, makes it if there is none, and brings its schema up to this program's.
    pub async fn open(path: &Path) -> Result<Self> {
        connection::open(path).await
    }

    /// Opens a file that is there, at this program's schema, for this process alone: an error if any
    /// other has it open. Whoever opens it meanwhile waits, and fails.
    pub async fn open_alone(path: &Path) -> Result<SqliteConnection> {
        connection::open_alone(path).await
    }

    /// Whether the store may be served: not if it was moved elsewhere.
    pub async fn check_not_moved(&self) -> Result<()> {
        match self.read(read::moved_to).await? {
            None => Ok(()),
            Some(place) => Err(StoreError::Schema(format!(
                "this store was moved to {place}: give store = postgres://... (what came after is there \
                 alone; `fastchat-gateway move-store --undo` lets this one be served again)"
            ))),
        }
    }

    /// Waits for the calls that run, then closes the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

#[async_trait]
impl Store for Sqlite {
    /// There is one place to write.
    fn lanes(&self) -> usize {
        1
    }

    fn pool(&self) -> Pool {
        let (writer, readers) = (self.writer.pool(), self.readers.pool());
        Pool {
            open: writer.open + readers.open,
            idle: writer.idle + readers.idle,
            limit: writer.limit + readers.limit,
        }
    }

    async fn ping(&self) -> Result<()> {
        self.read(read::ping).await
    }

    async fn incarnation(&self) -> Result<u32> {
        self.read(read::incarnation).await
    }

    async fn begin_incarnation(&self, at_least: u32) -> Result<Restoration> {
        self.transaction(async |c| restored::begin_incarnation(c, at_least).await).await
    }

    async fn register(&self, new: NewAccount) -> Result<Registered> {
        self.transaction(async |c| noted::register(c, &new).await).await
    }

    async fn find_account(&self, name: &AccountName) -> Result<Option<Account>> {
        self.read(async |c| accounts::find(c, name).await).await
    }

    async fn account(&self, account: AccountId) -> Result<Option<Account>> {
        self.read(async |c| accounts::get(c, account).await).await
    }

    async fn accounts(&self, accounts: &[AccountId]) -> Result<Vec<Account>> {
        self.read(async |c| accounts::all(c, accounts).await).await
    }

    async fn password_hash(&self, account: AccountId) -> Result<Option<String>> {
        self.read(async |c| accounts::password_hash(c, account).await).await
    }

    async fn set_password_hash(&self, account: AccountId, old: &str, new: &str) -> Result<bool> {
        self.transaction(async |c| noted::set_password_hash(c, account, old, new).await).await
    }

    async fn put_manifest(&self, account: AccountId, next: NewManifest) -> Result<bool> {
        self.transaction(async |c| noted::put_manifest(c, account, &next).await).await
    }

    async fn known_devices(&self, devices: &[DeviceId]) -> Result<Vec<(DeviceId, Device)>> {
        self.read(async |c| arrivals::devices(c, devices).await).await
    }

    async fn arrivals(&self, devices: &[DeviceId]) -> Result<Vec<(DeviceId, Arrival)>> {
        self.read(async |c| arrivals::arrivals(c, devices).await).await
    }

    async fn shut_out(&self, devices: &[DeviceId]) -> Result<Vec<(DeviceId, operate::ShutOut)>> {
        self.read(async |c| accounts::shut_out(c, devices).await).await
    }

    async fn publish_key_packages(
        &self,
        device: DeviceId,
        suite: u16,
        one_time: &[Bytes],
        last_resort: Option<&Bytes>,
    ) -> Result<KeyPackagesLeft> {
        self.transaction(async |c| key_packages::publish(c, device, suite, one_time, last_resort).await).await
    }

    async fn claim_key_packages(&self, by: AccountId, account: AccountId, suite: u16) -> Result<Claimed> {
        self.transaction(async |c| key_packages::claim(c, by, account, suite).await).await
    }

    async fn append(&self, batch: &[Append]) -> Result<Vec<Outcome>> {
        self.transaction(async |c| append::append(c, batch).await).await
    }

    async fn append_commit(&self, commit: NewCommit) -> Result<Committed> {
        self.transaction(async |c| commit::append(c, &commit).await).await
    }

    async fn found_direct(&self, founding: NewDirect) -> Result<Founded> {
        self.transaction(async |c| direct::found(c, &founding).await).await
    }

    async fn found_group(&self, founding: NewGroup) -> Result<Committed> {
        self.transaction(async |c| group::found(c, &founding).await).await
    }

    async fn leave(&self, leave: NewLeave) -> Result<Outcome> {
        self.transaction(async |c| commit::leave(c, &leave).await).await
    }

    async fn block(&self, account: AccountId, other: AccountId, blocked: bool) -> Result<()> {
        self.transaction(async |c| blocks::block(c, account, other, blocked).await).await
    }

    async fn blocked(&self, account: AccountId) -> Result<Vec<AccountId>> {
        self.read(async |c| blocks::blocked(c, account).await).await
    }

    async fn acquainted(&self, account: AccountId, others: &[AccountId]) -> Result<Vec<AccountId>> {
        self.read(async |c| blocks::acquainted(c, account, others).await).await
    }

    async fn set_visible(&self, account: AccountId, visible: bool) -> Result<()> {
        self.transaction(async |c| accounts::set_visible(c, account, visible).await).await
    }

    async fn delete_account(&self, account: AccountId) -> Result<bool> {
        self.transaction(async |c| noted::delete_account(c, account).await).await
    }

    async fn set_recovery(&self, account: AccountId, recovery: Recovery) -> Result<()> {
        self.transaction(async |c| noted::set_recovery(c, account, &recovery).await).await
    }

    async fn recovery(&self, account: AccountId) -> Result<Option<Recovery>> {
        self.read(async |c| slots::recovery(c, account).await).await
    }

    async fn restore(&self, account: AccountId, next: NewManifest, password_hash: &str) -> Result<bool> {
        self.transaction(async |c| noted::restore(c, account, &next, password_hash).await).await
    }

    async fn put_slot(
        &self,
        account: AccountId,
        slot: SlotId,
        part: u32,
        bytes: &Bytes,
        expires_in_s: u32,
    ) -> Result<bool> {
        self.transaction(async |c| slots::put(c, account, (slot, part), bytes, expires_in_s).await).await
    }

    async fn slot(&self, account: AccountId, slot: SlotId, part: u32) -> Result<Option<Bytes>> {
        self.read(async |c| slots::get(c, account, slot, part).await).await
    }

    async fn drop_slot(&self, account: AccountId, slot: SlotId) -> Result<()> {
        self.transaction(async |c| slots::drop_all(c, account, slot).await).await
    }

    async fn fetch(
        &self,
        device: DeviceId,
        conversation: ConversationId,
        after: Seq,
        limit: u32,
    ) -> Result<Option<LogPage>> {
        self.read(async |c| read::fetch(c, device, conversation, after, limit).await).await
    }

    async fn readers(&self, conversation: ConversationId, devices: &[DeviceId]) -> Result<Readers> {
        self.read(async |c| read::readers(c, conversation, devices).await).await
    }

    async fn conversations(
        &self,
        device: DeviceId,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Result<Vec<ConversationState>> {
        self.read(async |c| read::conversations(c, device, after, limit).await).await
    }

    async fn group_state(
        &self,
        device: DeviceId,
        conversation: ConversationId,
    ) -> Result<Option<GroupState>> {
        self.read(async |c| read::group_state(c, device, conversation).await).await
    }

    async fn tree(
        &self,
        device: DeviceId,
        conversation: ConversationId,
        hash: &[u8],
    ) -> Result<Option<Bytes>> {
        self.read(async |c| mailbox::tree(c, device, conversation, hash).await).await
    }

    async fn moved_since(&self, mark: Option<Mark>) -> Result<Moved> {
        self.read(async |c| read::moved_since(c, mark).await).await
    }

    async fn set_cursors(&self, cursors: &[(DeviceId, ConversationId, Seq)]) -> Result<Vec<CursorMoved>> {
        self.transaction(async |c| append::set_cursors(c, cursors).await).await
    }

    async fn mark_read(&self, marks: &[ReadMark]) -> Result<Vec<Option<u64>>> {
        self.transaction(async |c| receipts::mark_read(c, marks).await).await
    }

    async fn receipts(
        &self,
        device: DeviceId,
        conversation: ConversationId,
    ) -> Result<Option<Vec<MemberReceipt>>> {
        self.read(async |c| shared::receipts::receipts(c, device, conversation).await).await
    }

    async fn circles(&self, conversations: &[ConversationId]) -> Result<Vec<(ConversationId, Circle)>> {
        self.read(async |c| receipts::circles(c, conversations).await).await
    }

    async fn acquaintances(&self, account: AccountId, others: &[AccountId]) -> Result<Vec<Acquaintance>> {
        self.read(async |c| receipts::acquaintances(c, account, others).await).await
    }

    async fn set_sharing(&self, account: AccountId, delivered: bool, last_seen: bool) -> Result<()> {
        self.transaction(async |c| shared::receipts::set_sharing(c, account, delivered, last_seen).await)
            .await
    }

    async fn note_seen(&self, seen: &[(AccountId, u64)]) -> Result<()> {
        self.transaction(async |c| receipts::note_seen(c, seen).await).await
    }

    async fn mailbox(&self, device: DeviceId, after: Seq, limit: u32) -> Result<(Vec<MailboxItem>, Seq)> {
        self.read(async |c| mailbox::page(c, device, after, limit).await).await
    }

    async fn ack_mailbox(&self, device: DeviceId, seq: Seq) -> Result<()> {
        self.transaction(async |c| mailbox::ack(c, device, seq).await).await
    }
}

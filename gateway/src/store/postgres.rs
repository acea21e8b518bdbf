//! The store of a fleet: Postgres, shared by all gateways.
//!
//! - Every call but an append is one statement or one transaction on one connection, under a deadline
//!   ([`connection`]); there also is the one place that says what an error means for what was stored.
//! - Appending is one statement where it is plain ([`plain`]), of senders who are known ([`senders`]); what
//!   needs judgement is another (`append_envelopes` in the migrations). Commits and foundings are ordinary
//!   transactions with the same rules and the same order of locks ([`members`]): accounts, conversations,
//!   cursors, mailboxes, each in the order of ids.
//! - It connects when it is used, and again whenever Postgres is back; nothing needs a restart.
//!
//! The gateway's role has no DDL: `migrate` is run by another one, `check_schema` by the gateway.

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
mod plain;
mod pool;
mod read;
mod receipts;
mod restored;
mod row;
mod schema;
mod senders;
#[expect(clippy::duplicate_mod, reason = "a module of each store")]
#[path = "shared.rs"]
mod shared;
mod slots;

use super::*;
use connection::now;
use pool::{Connections, Health};
use senders::Senders;
use shared::noted;
use sqlx::{PgConnection, postgres::PgConnectOptions};
use std::{sync::Arc, time::Instant};

// What the shared statements run on.
type Connection = PgConnection;
type Database = Postgres;
/// When an account was made, in seconds since 1970.
const MADE_AT_S: &str = "extract(epoch FROM a.made_at)::bigint";
/// Holds rows against their removal.
const FOR_KEY_SHARE: &str = " FOR KEY SHARE";
/// Holds rows alone, and waits for them.
const FOR_UPDATE: &str = " FOR UPDATE";
/// Does not wait.
const SKIP_LOCKED: &str = " SKIP LOCKED";

/// How to reach Postgres.
#[derive(Clone)]
pub struct Options {
    /// `postgres://user:password@host:port/database`.
    pub url: String,
    /// Connections at most. Some are the writer's; the others serve reads, logins and commits.
    pub max_connections: u32,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("max_connections", &self.max_connections).finish_non_exhaustive()
    }
}

/// Appends side by side, each on a connection that is the writer's alone.
const LANES: u32 = 2;

/// The store in Postgres.
pub struct Postgres {
    /// For everything but appends.
    pool: Arc<Connections>,
    /// For the writer's lanes alone: they wait for no reader, and use the same few connections over and
    /// over, whose plans and caches are warm.
    writer: Arc<Connections>,
    lanes: u32,
    senders: Senders,
    /// Without the timeouts of the pool's connections: a migration may take its time.
    patient: PgConnectOptions,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("connections", &self.pool.pool().open).finish_non_exhaustive()
    }
}

impl Postgres {
    /// Prepares to connect. An error says that the URL is not one; Postgres is not asked yet.
    pub fn connect(options: &Options) -> Result<Self> {
        let patient: PgConnectOptions = options.url.parse().map_err(StoreError::Unavailable)?;
        let patient = patient.application_name(&options.application_name);
        let health = Health::default();
        let pool = |options, limit| Arc::new(Connections::new(options, limit, health.clone()));
        let planned = patient.clone().options(plain::PLANS);
        let lanes = LANES.min(options.max_connections / 2);
        let (others, writer) = match lanes {
            // Of a single connection there is nothing to set aside.
            0 => {
                let one = pool(planned, options.max_connections);
                (Arc::clone(&one), one)
            }
            lanes => (pool(patient.clone(), options.max_connections - lanes), pool(planned, lanes)),
        };
        Ok(Self { pool: others, writer, lanes: lanes.max(1), senders: Senders::new(Instant::now()), patient })
    }

    /// Brings the schema up to this program's. Needs a role that may create tables.
    pub async fn migrate(&self) -> Result<()> {
        schema::migrate(&self.patient).await
    }

    /// Whether the schema is one that this program can serve; says what to do if it is not.
    pub async fn check_schema(&self) -> Result<()> {
        self.read(schema::check).await?
    }
}

#[async_trait]
impl Store for Postgres {
    fn lanes(&self) -> usize {
        self.lanes as usize
    }

    fn pool(&self) -> Pool {
        self.pool.pool()
    }

    async fn ping(&self) -> Result<()> {
        self.read(read::ping).await
    }

    async fn incarnation(&self) -> Result<u32> {
        self.read(read::incarnation).await
    }

    async fn begin_incarnation(&self, at_least: u32) -> Result<Restoration> {
        restored::begin_incarnation(&self.patient, at_least).await
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
        self.write(async |c| key_packages::claim(c, by, account, suite).await).await
    }

    async fn append(&self, batch: &[Append]) -> Result<Vec<Outcome>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        append::append(self, batch).await
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
        self.write(async |c| accounts::set_visible(c, account, visible).await).await
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
        self.write(async |c| slots::drop_all(c, account, slot).await).await
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
        self.write(async |c| append::set_cursors(c, cursors).await).await
    }

    async fn mark_read(&self, marks: &[ReadMark]) -> Result<Vec<Option<u64>>> {
        self.write(async |c| receipts::mark_read(c, marks).await).await
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
        self.write(async |c| receipts::note_seen(c, seen).await).await
    }

    async fn mailbox(&self, device: DeviceId, after: Seq, limit: u32) -> Result<(Vec<MailboxItem>, Seq)> {
        self.read(async |c| mailbox::page(c, device, after, limit).await).await
    }

    async fn ack_mailbox(&self, device: DeviceId, seq: Seq) -> Result<()> {
        self.transaction(async |c| mailbox::ack(c, device, seq).await).await
    }
}

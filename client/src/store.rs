//! What a device keeps: one SQLite file in which only sizes and counts can be seen.
//!
//! - Every value is sealed (AES-256-GCM, bound to its place), every lookup key is an HMAC; seqs and
//!   the order of the outbox are in the clear, because the file must be searched by them.
//! - A [`Tx`] is also the key-value store on which `e2ee` works, so that ratchet steps, plaintext,
//!   cursor and outbox share one transaction.
//!
//! Invariant: whatever is done to a conversation's keys is committed together with what it was done
//! for, or not at all. WAL with `synchronous=FULL`: a commit that returned survives a power cut.

mod contacts;
mod conversations;
mod expiry;
mod group;
mod history;
mod model;
mod outbox;
pub mod search;
#[cfg(test)]
mod tests;
mod transfers;

use fastchat_e2ee::{KeyValue, StoreKey, Vault, VaultError, sealed::SealError};
use fastchat_protocol::codec;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;

pub use group::{Came, GroupRecord, MemberChange, Party, StoredPicture};
pub use history::{Place, Quarantined, quarantined};
pub use model::{
    Changed, CommitReason, Contact, Conversation, Entry, EntryKind, Extra, FoundingFrame, Item, ItemId,
    ItemState, MessageRequest, OwnCommit, Standing, What,
};
pub use transfers::{Direction, Transfer};

/// The form of the file that this program writes.
const SCHEMA: i32 = 3;

const TABLES: &str = "
CREATE TABLE kv (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE contacts (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE conversations (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE outbox (position INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL);
";

/// Rows by (incarnation, seq): a store that was restored from a backup gives seqs again.
const HISTORY: &str = "
CREATE TABLE messages (
    conversation BLOB NOT NULL, incarnation INTEGER NOT NULL, seq INTEGER NOT NULL, part INTEGER NOT NULL,
    value BLOB NOT NULL, PRIMARY KEY (conversation, incarnation, seq, part)) WITHOUT ROWID;
CREATE TABLE quarantine (
    conversation BLOB NOT NULL, incarnation INTEGER NOT NULL, seq INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (conversation, incarnation, seq)) WITHOUT ROWID;
";

/// Rows of form 1 are of incarnation 0: which one it was, nobody had noted.
const FROM_1: [&str; 2] = [
    "ALTER TABLE messages RENAME TO messages_1; ALTER TABLE quarantine RENAME TO quarantine_1;",
    "INSERT INTO messages SELECT conversation, 0, seq, part, value FROM messages_1;
     INSERT INTO quarantine SELECT conversation, 0, seq, value FROM quarantine_1;
     DROP TABLE messages_1; DROP TABLE quarantine_1;",
];

/// Since form 3. What names a message for everybody leads to its place; what is to be forgotten is found
/// by its time.
const MESSAGES: &str = "
CREATE TABLE refs (
    key BLOB PRIMARY KEY, incarnation INTEGER NOT NULL, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE expiries (
    at_ms INTEGER NOT NULL, conversation BLOB NOT NULL, incarnation INTEGER NOT NULL, seq INTEGER NOT NULL,
    part INTEGER NOT NULL, PRIMARY KEY (at_ms, conversation, incarnation, seq, part)) WITHOUT ROWID;
";

/// Since form 3: files on their way.
const TRANSFERS: &str = "
CREATE TABLE transfers (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
";

/// Why the local store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite: disk full, not readable, damaged.
    #[error("the local store failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A value does not open or cannot be read.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A value does not open.
    #[error("a value in the local store cannot be opened: {0}")]
    Sealed(#[from] SealError),
    /// A value opened and is not what was expected.
    #[error("a value in the local store cannot be read: {0}")]
    Decode(#[from] codec::DecodeError),
    /// The index opens and is not what was expected.
    #[error("the search index in the local store cannot be read")]
    Index,
    /// Written by a newer program.
    #[error("the local store has form {0}, which this version does not know: update fastchat")]
    Schema(i32),
}

type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The open file and the key to it.
pub struct Store {
    conn: Connection,
    key: StoreKey,
}

/// One transaction: all of it happens or none.
pub struct Tx<'a> {
    conn: &'a Connection,
    key: &'a StoreKey,
}

impl Store {
    /// Opens or makes the file. The key is tried at once: a wrong one is an error here.
    pub fn open(path: &Path, key: StoreKey) -> Result<Self> {
        let conn = Connection::open(path)?;
        conn.busy_timeout(std::time::Duration::from_secs(5))?;
        conn.pragma_update(None, "journal_mode", "WAL")?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        // Deleted values are overwritten, so that used-up keys do not linger in free pages.
        conn.pragma_update(None, "secure_delete", "ON")?;
        let mut store = Self { conn, key };
        store.migrate()?;
        Ok(store)
    }

    fn migrate(&mut self) -> Result<()> {
        const PROBE: (&str, &[u8]) = ("meta", b"probe");
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match tx.pragma_query_value(None, "user_version", |row| row.get(0))? {
            0 => {
                tx.execute_batch(TABLES)?;
                tx.execute_batch(HISTORY)?;
                tx.execute_batch(MESSAGES)?;
                tx.execute_batch(TRANSFERS)?;
                tx.execute_batch(search::TABLES)?;
                Vault::new(&Tx { conn: &tx, key: &self.key }, &self.key).put(PROBE.0, PROBE.1, b"ok")?;
                tx.pragma_update(None, "user_version", SCHEMA)?;
            }
            form @ 1..=SCHEMA => {
                // Under another key the probe is not found.
                let found = Vault::new(&Tx { conn: &tx, key: &self.key }, &self.key).get(PROBE.0, PROBE.1)?;
                found.ok_or(SealError::Closed)?;
                if form == 1 {
                    tx.execute_batch(FROM_1[0])?;
                    tx.execute_batch(HISTORY)?;
                    tx.execute_batch(FROM_1[1])?;
                }
                if form < SCHEMA {
                    tx.execute_batch(MESSAGES)?;
                    tx.execute_batch(TRANSFERS)?;
                    tx.execute_batch(search::TABLES)?;
                    tx.pragma_update(None, "user_version", SCHEMA)?;
                }
            }
            newer => return Err(StoreError::Schema(newer)),
        }
        Tx { conn: &tx, key: &self.key }.check_search_form()?;
        Ok(tx.commit()?)
    }

    /// Runs `work` in one transaction and commits it, unless `work` fails.
    pub fn write<T, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let tx =
            self.conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::from)?;
        let result = work(&Tx { conn: &tx, key: &self.key })?;
        tx.commit().map_err(StoreError::from)?;
        Ok(result)
    }

    /// Reads. Nothing that `read` writes would be kept together, so it should not write.
    pub fn read<T>(&self, read: impl FnOnce(&Tx<'_>) -> T) -> T {
        read(&Tx { conn: &self.conn, key: &self.key })
    }

    /// Checks the file's structure; for `doctor`.
    pub fn check(&self) -> Result<bool> {
        let answer: String = self.conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok(answer == "ok")
    }
}

impl<'a> Tx<'a> {
    /// For `e2ee`.
    pub fn vault(&self) -> Vault<'_, Self> {
        Vault::new(self, self.key)
    }

    /// Seals a value for a place.
    fn seal<T: Serialize>(&self, place: &[u8], value: &T) -> Result<Vec<u8>> {
        let plain = fastchat_e2ee::Zeroizing::new(codec::encode(value));
        Ok(self.key.seal_value(place, &plain)?)
    }

    fn unseal<T: DeserializeOwned>(&self, place: &[u8], sealed: &[u8]) -> Result<T> {
        let plain = self.key.open_value(place, sealed)?;
        Ok(codec::decode_local(&plain)?)
    }

    fn index(&self, label: &str, key: &[u8]) -> [u8; 32] {
        self.key.index(label, key)
    }

    /// A small value of ours, by name.
    pub fn setting<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(bytes) = self.vault().get("setting", name.as_bytes())? else { return Ok(None) };
        Ok(Some(codec::decode_local(&bytes)?))
    }

    /// Writes a small value of ours.
    pub fn set_setting<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        Ok(self.vault().put("setting", name.as_bytes(), &codec::encode(value))?)
    }
}

impl KeyValue for Tx<'_> {
    type Error = rusqlite::Error;

    fn get(&self, key: &[u8; 32]) -> Result<Option<Vec<u8>>, rusqlite::Error> {
        let mut query = self.conn.prepare_cached("SELECT value FROM kv WHERE key = ?1")?;
        query.query_row(params![key], |row| row.get(0)).optional()
    }

    fn put(&self, key: &[u8; 32], value: &[u8]) -> Result<(), rusqlite::Error> {
        let mut query = self
            .conn
            .prepare_cached("INSERT INTO kv VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2")?;
        query.execute(params![key, value]).map(drop)
    }

    fn delete(&self, key: &[u8; 32]) -> Result<(), rusqlite::Error> {
        self.conn.prepare_cached("DELETE FROM kv WHERE key = ?1")?.execute(params![key]).map(drop)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store(..)")
    }
}

impl std::fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tx(..)")
    }
}

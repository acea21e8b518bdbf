//! What conversations hold, and the rows that could not be read.

use super::{Entry, Result, Tx};
use fastchat_protocol::{Bytes, ConversationId, Seq, server::LogRow};
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

/// A row that could not be read: kept as it came, with the reason, so that a later version of this
/// program may try again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Which log.
    pub conversation: ConversationId,
    /// Its place.
    pub seq: Seq,
    /// Why, for a person.
    pub reason: String,
    /// The row's bytes.
    pub envelope: Option<Bytes>,
}

/// A row, to be kept with the reason why it cannot be read.
pub fn quarantined(conversation: ConversationId, row: &LogRow, reason: String) -> Quarantined {
    Quarantined { conversation, seq: row.seq, reason, envelope: row.envelope.clone() }
}

impl Tx<'_> {
    /// Adds an entry. The row itself (part 0) may be stored once only; a second attempt is an error,
    /// because it would mean that a message is shown twice.
    pub fn add_entry(&self, conversation: ConversationId, entry: &Entry) -> Result<()> {
        let key = self.index("conversation", conversation.as_bytes());
        let value = self.seal(&place(&key, entry.seq, entry.part), entry)?;
        let sql = "INSERT INTO messages VALUES (?1, ?2, ?3, ?4)";
        self.conn.prepare_cached(sql)?.execute(params![key, number(entry.seq), entry.part, value])?;
        Ok(())
    }

    /// The next free part at a place, for notices.
    pub fn next_part(&self, conversation: ConversationId, seq: Seq) -> Result<u32> {
        let key = self.index("conversation", conversation.as_bytes());
        let sql = "SELECT coalesce(max(part), 0) + 1 FROM messages WHERE conversation = ?1 AND seq = ?2";
        Ok(self.conn.prepare_cached(sql)?.query_row(params![key, number(seq)], |row| row.get(0))?)
    }

    /// The last `limit` entries, oldest first.
    pub fn last_entries(&self, conversation: ConversationId, limit: usize) -> Result<Vec<Entry>> {
        let sql = "SELECT seq, part, value FROM messages WHERE conversation = ?1 ORDER BY seq DESC, part DESC LIMIT ?2";
        let mut entries = self.entries(conversation, sql, limit as i64)?;
        entries.reverse();
        Ok(entries)
    }

    /// Entries after a seq, oldest first.
    pub fn entries_after(&self, conversation: ConversationId, after: Seq) -> Result<Vec<Entry>> {
        let sql =
            "SELECT seq, part, value FROM messages WHERE conversation = ?1 AND seq > ?2 ORDER BY seq, part";
        self.entries(conversation, sql, number(after))
    }

    /// Entries after a place and up to a seq, oldest first, `limit` at most.
    pub fn entries_between(
        &self,
        conversation: ConversationId,
        (after, part): (Seq, u32),
        upto: Seq,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let key = self.index("conversation", conversation.as_bytes());
        let sql = "SELECT seq, part, value FROM messages WHERE conversation = ?1 AND (seq, part) > (?2, ?3) \
             AND seq <= ?4 ORDER BY seq, part LIMIT ?5";
        let mut query = self.conn.prepare_cached(sql)?;
        let bounds = params![key, number(after), part, number(upto), limit as i64];
        let rows = query.query_map(bounds, |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, u32>(1)?, row.get::<_, Vec<u8>>(2)?))
        })?;
        rows.map(|row| {
            let (seq, part, value) = row?;
            self.unseal(&place(&key, Seq(seq.unsigned_abs()), part), &value)
        })
        .collect()
    }

    /// The place after which the last `count` entries are; `None` if there are no more than that.
    pub fn place_before_last(&self, conversation: ConversationId, count: u32) -> Result<Option<(Seq, u32)>> {
        let key = self.index("conversation", conversation.as_bytes());
        let sql = "SELECT seq, part FROM messages WHERE conversation = ?1 ORDER BY seq DESC, part DESC LIMIT 1 OFFSET ?2";
        let found = self.conn.prepare_cached(sql)?.query_row(params![key, count], |row| {
            Ok((Seq(row.get::<_, i64>(0)?.unsigned_abs()), row.get(1)?))
        });
        Ok(found.optional()?)
    }

    /// Adds an entry that another device has had, unless there is one at its place; whether it was new.
    pub fn add_entry_if_new(&self, conversation: ConversationId, entry: &Entry) -> Result<bool> {
        let key = self.index("conversation", conversation.as_bytes());
        let value = self.seal(&place(&key, entry.seq, entry.part), entry)?;
        let sql = "INSERT OR IGNORE INTO messages VALUES (?1, ?2, ?3, ?4)";
        let added =
            self.conn.prepare_cached(sql)?.execute(params![key, number(entry.seq), entry.part, value])?;
        Ok(added == 1)
    }

    fn entries(&self, conversation: ConversationId, sql: &str, bound: i64) -> Result<Vec<Entry>> {
        let key = self.index("conversation", conversation.as_bytes());
        let mut query = self.conn.prepare_cached(sql)?;
        let rows = query.query_map(params![key, bound], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, u32>(1)?, row.get::<_, Vec<u8>>(2)?))
        })?;
        rows.map(|row| {
            let (seq, part, value) = row?;
            self.unseal(&place(&key, Seq(seq.unsigned_abs()), part), &value)
        })
        .collect()
    }

    /// Keeps a row that could not be read.
    pub fn quarantine(&self, row: &Quarantined) -> Result<()> {
        let key = self.index("conversation", row.conversation.as_bytes());
        let value = self.seal(&place(&key, row.seq, u32::MAX), row)?;
        let sql = "INSERT OR REPLACE INTO quarantine VALUES (?1, ?2, ?3)";
        self.conn.prepare_cached(sql)?.execute(params![key, number(row.seq), value])?;
        Ok(())
    }

    /// How many rows could not be read.
    pub fn quarantined(&self) -> Result<u64> {
        let count: Option<i64> =
            self.conn.query_row("SELECT count(*) FROM quarantine", [], |row| row.get(0)).optional()?;
        Ok(count.unwrap_or(0).unsigned_abs())
    }
}

/// What an entry is sealed for: it opens nowhere else.
fn place(key: &[u8; 32], seq: Seq, part: u32) -> Vec<u8> {
    [key.as_slice(), &seq.0.to_be_bytes(), &part.to_be_bytes()].concat()
}

/// SQLite's integers are signed; a seq beyond 2^63 does not happen.
fn number(seq: Seq) -> i64 {
    i64::try_from(seq.0).unwrap_or(i64::MAX)
}

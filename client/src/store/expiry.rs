//! What is to be forgotten, and when: entries that are kept for a time only.

use super::{
    Entry, Result, Tx,
    history::{Place, named, number},
};
use fastchat_protocol::{ConversationId, Seq};
use rusqlite::params;
use std::collections::HashMap;

impl Tx<'_> {
    /// Notes when an entry goes, if it does.
    pub(super) fn add_expiry(&self, key: &[u8; 32], entry: &Entry) -> Result<()> {
        let Some(at_ms) = entry.extra.expires_at_ms else { return Ok(()) };
        let (incarnation, seq, part) = entry.place();
        let sql = "INSERT OR IGNORE INTO expiries VALUES (?1, ?2, ?3, ?4, ?5)";
        let row = params![time(at_ms), key, incarnation, number(seq), part];
        self.conn.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    /// When the next entry goes, in milliseconds since 1970.
    pub fn next_expiry(&self) -> Result<Option<u64>> {
        let mut query = self.conn.prepare_cached("SELECT min(at_ms) FROM expiries")?;
        Ok(query.query_row([], |row| row.get::<_, Option<i64>>(0))?.map(i64::unsigned_abs))
    }

    /// Forgets what is due, `limit` entries at most: the entry, what leads to it, and the row's bytes, if
    /// they were kept. Returns what is gone of the conversations that are `known`; all others go, too.
    pub fn forget_due(
        &self,
        now_ms: u64,
        known: impl Iterator<Item = ConversationId>,
        limit: usize,
    ) -> Result<Vec<(ConversationId, Entry)>> {
        let due = self.due(now_ms, limit)?;
        let ids: HashMap<[u8; 32], ConversationId> =
            known.map(|id| (self.index("conversation", id.as_bytes()), id)).collect();
        let mut gone = Vec::new();
        for (at_ms, key, place) in due {
            let entry = self.entry_of(&key, place)?;
            let id = ids.get(&key).copied();
            if let Some(entry) = &entry {
                self.forget(&key, id, entry)?;
            }
            self.drop_expiry(at_ms, &key, place)?;
            gone.extend(id.zip(entry));
        }
        Ok(gone)
    }

    fn due(&self, now_ms: u64, limit: usize) -> Result<Vec<(i64, [u8; 32], Place)>> {
        let sql = "SELECT at_ms, conversation, incarnation, seq, part FROM expiries \
             WHERE at_ms <= ?1 ORDER BY at_ms LIMIT ?2";
        let mut query = self.conn.prepare_cached(sql)?;
        let rows = query.query_map(params![time(now_ms), limit as i64], |row| {
            let place = (row.get(2)?, Seq(row.get::<_, i64>(3)?.unsigned_abs()), row.get(4)?);
            Ok((row.get(0)?, row.get(1)?, place))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn drop_expiry(&self, at_ms: i64, key: &[u8; 32], (incarnation, seq, part): Place) -> Result<()> {
        let sql = "DELETE FROM expiries \
             WHERE at_ms = ?1 AND conversation = ?2 AND incarnation = ?3 AND seq = ?4 AND part = ?5";
        self.conn.prepare_cached(sql)?.execute(params![at_ms, key, incarnation, number(seq), part])?;
        Ok(())
    }

    /// Removes an entry with what was kept beside it, what leads to it, and its words in the index.
    pub(super) fn forget(&self, key: &[u8; 32], id: Option<ConversationId>, entry: &Entry) -> Result<()> {
        self.search_forgotten(key, entry)?;
        let (incarnation, seq, part) = entry.place();
        let sql =
            "DELETE FROM messages WHERE conversation = ?1 AND incarnation = ?2 AND seq = ?3 AND part = ?4";
        self.conn.prepare_cached(sql)?.execute(params![key, incarnation, number(seq), part])?;
        if part == 0 {
            let sql = "DELETE FROM quarantine WHERE conversation = ?1 AND incarnation = ?2 AND seq = ?3";
            self.conn.prepare_cached(sql)?.execute(params![key, incarnation, number(seq)])?;
        }
        if let Some(at_ms) = entry.extra.expires_at_ms {
            self.drop_expiry(time(at_ms), key, entry.place())?;
        }
        if let Some((id, name)) = id.zip(entry.reference()) {
            let key = self.index("ref", &named(id, name));
            // Another row may have the name, by a server that repeats itself.
            let sql = "DELETE FROM refs WHERE key = ?1 AND incarnation = ?2 AND seq = ?3";
            self.conn.prepare_cached(sql)?.execute(params![key, incarnation, number(seq)])?;
        }
        Ok(())
    }
}

/// SQLite's integers are signed.
fn time(at_ms: u64) -> i64 {
    i64::try_from(at_ms).unwrap_or(i64::MAX)
}

//! Messages that want to be sent, in the order in which they were typed.

use super::{Item, ItemId, Result, Tx};
use rusqlite::{OptionalExtension, params};

impl Tx<'_> {
    /// Adds a message at the end; `None` if its id is there already.
    pub fn add_item(&self, item: &Item) -> Result<Option<i64>> {
        let key = self.index("outbox", &item.id.0);
        let sql = "INSERT OR IGNORE INTO outbox (key, value) VALUES (?1, ?2)";
        let added = self.conn.prepare_cached(sql)?.execute(params![key, self.seal(&key, item)?])?;
        Ok((added == 1).then(|| self.conn.last_insert_rowid()))
    }

    /// Replaces a message's state; an error if it is not there.
    pub fn put_item(&self, item: &Item) -> Result<()> {
        let key = self.index("outbox", &item.id.0);
        let sql = "UPDATE outbox SET value = ?2 WHERE key = ?1";
        match self.conn.prepare_cached(sql)?.execute(params![key, self.seal(&key, item)?])? {
            0 => Err(rusqlite::Error::QueryReturnedNoRows.into()),
            _ => Ok(()),
        }
    }

    /// Forgets a message: it is in the history now, or was taken back.
    pub fn delete_item(&self, id: ItemId) -> Result<()> {
        let key = self.index("outbox", &id.0);
        self.conn.prepare_cached("DELETE FROM outbox WHERE key = ?1")?.execute(params![key])?;
        Ok(())
    }

    /// All messages with their positions, in order.
    pub fn items(&self) -> Result<Vec<(i64, Item)>> {
        let mut query =
            self.conn.prepare_cached("SELECT position, key, value FROM outbox ORDER BY position")?;
        let rows = query.query_map([], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, Vec<u8>>(2)?))
        })?;
        rows.map(|row| {
            let (position, key, value) = row?;
            Ok((position, self.unseal(&key, &value)?))
        })
        .collect()
    }

    /// Remembers that a message was sent, so that a caller who asks again after a crash gets the
    /// same answer instead of a second message.
    pub fn remember_sent(
        &self,
        id: ItemId,
        sent: &(fastchat_protocol::ConversationId, u64, u64),
    ) -> Result<()> {
        Ok(self.vault().put("sent", &id.0, &fastchat_protocol::codec::encode(sent))?)
    }

    /// What was remembered: conversation, seq and time.
    pub fn recall_sent(&self, id: ItemId) -> Result<Option<(fastchat_protocol::ConversationId, u64, u64)>> {
        let Some(bytes) = self.vault().get("sent", &id.0)? else { return Ok(None) };
        Ok(Some(fastchat_protocol::codec::decode_local(&bytes)?))
    }

    /// Whether a message is in the outbox.
    pub fn has_item(&self, id: ItemId) -> Result<bool> {
        let key = self.index("outbox", &id.0);
        let mut query = self.conn.prepare_cached("SELECT 1 FROM outbox WHERE key = ?1")?;
        Ok(query.query_row(params![key], |_| Ok(())).optional()?.is_some())
    }
}

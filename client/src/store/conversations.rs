//! How each conversation stands.

use super::{Conversation, Result, Tx};
use fastchat_protocol::ConversationId;
use rusqlite::params;

impl Tx<'_> {
    /// Writes a conversation, replacing what was known of it.
    pub fn put_conversation(&self, conversation: &Conversation) -> Result<()> {
        let key = self.index("conversation", conversation.id.as_bytes());
        let sql = "INSERT INTO conversations VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2";
        self.conn.prepare_cached(sql)?.execute(params![key, self.seal(&key, conversation)?])?;
        Ok(())
    }

    /// Forgets a conversation that lost its founding race. Its history is empty.
    pub fn delete_conversation(&self, id: ConversationId) -> Result<()> {
        let key = self.index("conversation", id.as_bytes());
        self.conn.prepare_cached("DELETE FROM conversations WHERE key = ?1")?.execute(params![key])?;
        Ok(())
    }

    /// All conversations.
    pub fn conversations(&self) -> Result<Vec<Conversation>> {
        let mut query = self.conn.prepare_cached("SELECT key, value FROM conversations")?;
        let rows = query.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        rows.map(|row| {
            let (key, value) = row?;
            self.unseal(&key, &value)
        })
        .collect()
    }
}

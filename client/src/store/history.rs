//! What conversations hold, and the rows that could not be read.

use super::{Conversation, Entry, Result, Tx};
use fastchat_e2ee::MessageRef;
use fastchat_protocol::{Bytes, ConversationId, Seq, server::LogRow};
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

/// A row that could not be read: kept as it came, with the reason, so that a later version of this
/// program may try again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Which log.
    pub conversation: ConversationId,
    /// The incarnation of the log.
    #[serde(default)]
    pub incarnation: u32,
    /// Its place.
    pub seq: Seq,
    /// Why, for a person.
    pub reason: String,
    /// The row's bytes.
    pub envelope: Option<Bytes>,
}

/// A place in a conversation's history: incarnation of the log, seq, part.
pub type Place = (u32, Seq, u32);

/// A row, to be kept with the reason why it cannot be read.
pub fn quarantined(record: &Conversation, row: &LogRow, reason: String) -> Quarantined {
    let Conversation { id: conversation, incarnation, .. } = *record;
    Quarantined { conversation, incarnation, seq: row.seq, reason, envelope: row.envelope.clone() }
}

impl Tx<'_> {
    /// Adds an entry. The row itself (part 0) may be stored once only; a second attempt is an error,
    /// because it would mean that a message is shown twice.
    pub fn add_entry(&self, conversation: ConversationId, entry: &Entry) -> Result<()> {
        self.insert(conversation, entry, "INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5)").map(drop)
    }

    /// Adds an entry that another device has had, unless there is one at its place; whether it was new.
    pub fn add_entry_if_new(&self, conversation: ConversationId, entry: &Entry) -> Result<bool> {
        let sql = "INSERT OR IGNORE INTO messages VALUES (?1, ?2, ?3, ?4, ?5)";
        Ok(self.insert(conversation, entry, sql)? == 1)
    }

    fn insert(&self, conversation: ConversationId, entry: &Entry, sql: &str) -> Result<usize> {
        let key = self.index("conversation", conversation.as_bytes());
        let value = self.seal(&sealed_for(&key, entry.place()), entry)?;
        let row = params![key, entry.incarnation, number(entry.seq), entry.part, value];
        let rows = self.conn.prepare_cached(sql)?.execute(row)?;
        if rows == 1 {
            self.search_added(&key, entry)?;
        }
        self.add_reference(conversation, entry)?;
        if rows == 1 {
            self.add_expiry(&key, entry)?;
        }
        Ok(rows)
    }

    /// Replaces an entry: what it says or what became of it has changed.
    pub fn update_entry(&self, conversation: ConversationId, entry: &Entry) -> Result<()> {
        let key = self.index("conversation", conversation.as_bytes());
        let Some(old) = self.entry_of(&key, entry.place())? else {
            return self.add_entry(conversation, entry);
        };
        self.search_changed(&key, &old, entry)?;
        let (incarnation, seq, part) = entry.place();
        let value = self.seal(&sealed_for(&key, entry.place()), entry)?;
        let sql = "UPDATE messages SET value = ?5 \
             WHERE conversation = ?1 AND incarnation = ?2 AND seq = ?3 AND part = ?4";
        self.conn.prepare_cached(sql)?.execute(params![key, incarnation, number(seq), part, value])?;
        self.add_reference(conversation, entry)
    }

    /// The entry at a place.
    pub fn entry_at(&self, conversation: ConversationId, place: Place) -> Result<Option<Entry>> {
        self.entry_of(&self.index("conversation", conversation.as_bytes()), place)
    }

    /// The same, by the conversation's key.
    pub(super) fn entry_of(&self, key: &[u8; 32], place: Place) -> Result<Option<Entry>> {
        let sql = "SELECT incarnation, seq, part, value FROM messages \
             WHERE conversation = ?1 AND incarnation = ?2 AND seq = ?3 AND part = ?4";
        let (incarnation, seq, part) = place;
        Ok(self.entries(key, sql, params![key, incarnation, number(seq), part])?.pop())
    }

    /// The message of this name, if this device has it.
    pub fn find_message(&self, conversation: ConversationId, name: MessageRef) -> Result<Option<Entry>> {
        let key = self.index("ref", &named(conversation, name));
        let place = self
            .conn
            .prepare_cached("SELECT incarnation, seq FROM refs WHERE key = ?1")?
            .query_row(params![key], |row| Ok((row.get(0)?, Seq(row.get::<_, i64>(1)?.unsigned_abs()), 0)));
        let Some(place) = place.optional()? else { return Ok(None) };
        // The server chose the place, the encryption the name: both must agree.
        Ok(self.entry_at(conversation, place)?.filter(|entry| entry.reference() == Some(name)))
    }

    fn add_reference(&self, conversation: ConversationId, entry: &Entry) -> Result<()> {
        let Some(name) = entry.reference().filter(|_| entry.part == 0) else { return Ok(()) };
        let key = self.index("ref", &named(conversation, name));
        // What others say that was said gives way to what the encryption says: else they could have an
        // edit of a message to come hit something of theirs.
        let held = self.find_message(conversation, name)?;
        let replaces = entry.extra.shared_by.is_none() && held.is_some_and(|e| e.extra.shared_by.is_some());
        let sql = match replaces {
            true => "INSERT OR REPLACE INTO refs VALUES (?1, ?2, ?3)",
            false => "INSERT OR IGNORE INTO refs VALUES (?1, ?2, ?3)",
        };
        self.conn.prepare_cached(sql)?.execute(params![key, entry.incarnation, number(entry.seq)])?;
        Ok(())
    }

    /// The next free part at a place, for notices.
    pub fn next_part(&self, conversation: ConversationId, incarnation: u32, seq: Seq) -> Result<u32> {
        let key = self.index("conversation", conversation.as_bytes());
        let sql = "SELECT coalesce(max(part), 0) + 1 FROM messages \
             WHERE conversation = ?1 AND incarnation = ?2 AND seq = ?3";
        let place = params![key, incarnation, number(seq)];
        Ok(self.conn.prepare_cached(sql)?.query_row(place, |row| row.get(0))?)
    }

    /// The last `limit` entries, oldest first.
    pub fn last_entries(&self, conversation: ConversationId, limit: usize) -> Result<Vec<Entry>> {
        let sql = "SELECT incarnation, seq, part, value FROM messages WHERE conversation = ?1 \
             ORDER BY incarnation DESC, seq DESC, part DESC LIMIT ?2";
        let key = self.index("conversation", conversation.as_bytes());
        let mut entries = self.entries(&key, sql, params![key, limit as i64])?;
        entries.reverse();
        Ok(entries)
    }

    /// Entries after a seq of an incarnation, oldest first.
    pub fn entries_after(
        &self,
        conversation: ConversationId,
        (incarnation, after): (u32, Seq),
    ) -> Result<Vec<Entry>> {
        let sql = "SELECT incarnation, seq, part, value FROM messages \
             WHERE conversation = ?1 AND (incarnation, seq) > (?2, ?3) ORDER BY incarnation, seq, part";
        let key = self.index("conversation", conversation.as_bytes());
        self.entries(&key, sql, params![key, incarnation, number(after)])
    }

    /// Entries after a place and up to a seq of an incarnation, oldest first, `limit` at most.
    pub fn entries_between(
        &self,
        conversation: ConversationId,
        (incarnation, after, part): Place,
        (last_incarnation, upto): (u32, Seq),
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let key = self.index("conversation", conversation.as_bytes());
        let sql = "SELECT incarnation, seq, part, value FROM messages \
             WHERE conversation = ?1 AND (incarnation, seq, part) > (?2, ?3, ?4) \
             AND (incarnation, seq) <= (?5, ?6) ORDER BY incarnation, seq, part LIMIT ?7";
        let bounds =
            params![key, incarnation, number(after), part, last_incarnation, number(upto), limit as i64];
        self.entries(&key, sql, bounds)
    }

    /// The last `limit` entries before a place, oldest first.
    pub fn entries_before(
        &self,
        conversation: ConversationId,
        (incarnation, seq, part): Place,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let key = self.index("conversation", conversation.as_bytes());
        let sql = "SELECT incarnation, seq, part, value FROM messages \
             WHERE conversation = ?1 AND (incarnation, seq, part) < (?2, ?3, ?4) \
             ORDER BY incarnation DESC, seq DESC, part DESC LIMIT ?5";
        let bounds = params![key, incarnation, number(seq), part, limit as i64];
        let mut entries = self.entries(&key, sql, bounds)?;
        entries.reverse();
        Ok(entries)
    }

    /// Entries from a place on, oldest first: the `limit` next ones.
    pub fn entries_from(
        &self,
        conversation: ConversationId,
        (incarnation, seq, part): Place,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let sql = "SELECT incarnation, seq, part, value FROM messages \
             WHERE conversation = ?1 AND (incarnation, seq, part) >= (?2, ?3, ?4) \
             ORDER BY incarnation, seq, part LIMIT ?5";
        let key = self.index("conversation", conversation.as_bytes());
        self.entries(&key, sql, params![key, incarnation, number(seq), part, limit as i64])
    }

    /// The place after which the last `count` entries are; `None` if there are no more than that.
    pub fn place_before_last(&self, conversation: ConversationId, count: u32) -> Result<Option<Place>> {
        let key = self.index("conversation", conversation.as_bytes());
        let sql = "SELECT incarnation, seq, part FROM messages WHERE conversation = ?1 \
             ORDER BY incarnation DESC, seq DESC, part DESC LIMIT 1 OFFSET ?2";
        let found = self.conn.prepare_cached(sql)?.query_row(params![key, count], |row| {
            Ok((row.get(0)?, Seq(row.get::<_, i64>(1)?.unsigned_abs()), row.get(2)?))
        });
        Ok(found.optional()?)
    }

    pub(super) fn entries(
        &self,
        key: &[u8; 32],
        sql: &str,
        bounds: impl rusqlite::Params,
    ) -> Result<Vec<Entry>> {
        let mut query = self.conn.prepare_cached(sql)?;
        let rows = query.query_map(bounds, |row| {
            let place = (row.get(0)?, Seq(row.get::<_, i64>(1)?.unsigned_abs()), row.get(2)?);
            Ok((place, row.get::<_, Vec<u8>>(3)?))
        })?;
        rows.map(|row| {
            let (place, value) = row?;
            self.unseal(&sealed_for(key, place), &value)
        })
        .collect()
    }

    /// Keeps a row that could not be read.
    pub fn quarantine(&self, row: &Quarantined) -> Result<()> {
        let key = self.index("conversation", row.conversation.as_bytes());
        let value = self.seal(&sealed_for(&key, (row.incarnation, row.seq, u32::MAX)), row)?;
        let sql = "INSERT OR REPLACE INTO quarantine VALUES (?1, ?2, ?3, ?4)";
        let row = params![key, row.incarnation, number(row.seq), value];
        self.conn.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    /// How many rows could not be read.
    pub fn quarantined(&self) -> Result<u64> {
        let count: Option<i64> =
            self.conn.query_row("SELECT count(*) FROM quarantine", [], |row| row.get(0)).optional()?;
        Ok(count.unwrap_or(0).unsigned_abs())
    }
}

/// What names a message in all conversations.
pub(super) fn named(conversation: ConversationId, MessageRef { device, counter }: MessageRef) -> Vec<u8> {
    [conversation.as_bytes().as_slice(), device.as_bytes(), &counter.0.to_be_bytes()].concat()
}

/// What an entry is sealed for: it opens nowhere else. Incarnation 0 is what was stored before there
/// were any, and so is the way in which it is sealed.
fn sealed_for(key: &[u8], (incarnation, seq, part): Place) -> Vec<u8> {
    let place = [key, &seq.0.to_be_bytes(), &part.to_be_bytes()].concat();
    match incarnation {
        0 => place,
        _ => [place.as_slice(), &incarnation.to_be_bytes()].concat(),
    }
}

/// SQLite's integers are signed; a seq beyond 2^63 does not happen.
pub(super) fn number(seq: Seq) -> i64 {
    i64::try_from(seq.0).unwrap_or(i64::MAX)
}

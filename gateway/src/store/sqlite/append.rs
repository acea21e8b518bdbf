//! The hot path: batches of envelopes, and cursors.
//!
//! What is known of the conversations and senders of a batch is read at once; items are judged one after the
//! other by [`super::super::rules`], which needs no store but for counters that were used before; and what
//! may be stored is written at once ([`super::table`] says why).

use super::{
    super::{
        Append, Outcome,
        receipts::CursorMoved,
        rows::{Columns, Ending, Fallible, Fault, stored},
        rules::{Conversation, Standing, Used},
    },
    table::table,
};
use crate::rim::now_ms;
use fastchat_protocol::{ConversationId, Counter, DeviceId, Seq, server::LogKind};
use serde_json::json;
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use std::collections::{BTreeSet, HashMap};

/// Of each (conversation, device) of $1: the conversation, and the device's standing in it. By its place;
/// there is no row where there is no such conversation. A view that is joined from the left would be made
/// whole first: `admissible` is asked for each device by itself.
const KNOWN: &str = "
    SELECT p.place, c.*,
           EXISTS (SELECT 1 FROM admissible a
                   WHERE a.conversation = c.id AND a.device = p.device) AS member,
           EXISTS (SELECT 1 FROM admissible a
                   WHERE a.conversation = c.id AND a.device = p.device AND a.barred) AS barred,
           EXISTS (SELECT 1 FROM admissible a
                   JOIN members o ON o.conversation = a.conversation AND o.account <> a.account
                   WHERE a.conversation = c.id AND a.device = p.device AND a.role = 3
                     AND o.to_seq IS NULL) AS needed,
           EXISTS (SELECT 1 FROM cursors u
                   WHERE u.conversation = c.id AND u.device = p.device AND u.to_seq IS NULL) AS joined,
           coalesce((SELECT s.high FROM send_counters s
                     WHERE s.conversation = c.id AND s.device = p.device), 0) AS high_water
    FROM (SELECT key AS place, unhex(value ->> 0) AS conversation, unhex(value ->> 1) AS device
          FROM json_each($1)) AS p
    CROSS JOIN conversations c ON c.id = p.conversation";

/// Writes the rows of $1: (conversation, seq, sender, counter, where in $2 the envelope begins, its length).
const WRITE: &str = "
    UPDATE settings SET change = change + 1;
    INSERT INTO log (conversation, seq, sender, counter, kind, at_ms, tx, envelope)
    SELECT unhex(value ->> 0), value ->> 1, unhex(value ->> 2), value ->> 3, $3, $4, change,
           coalesce(substr($2, value ->> 4, value ->> 5), x'')
    FROM json_each($1), settings;
    INSERT INTO send_counters (conversation, device, high)
    SELECT unhex(value ->> 0), unhex(value ->> 2), max(value ->> 3) FROM json_each($1) WHERE true GROUP BY 1, 2
    ON CONFLICT (conversation, device) DO UPDATE SET high = excluded.high WHERE high < excluded.high;
    UPDATE conversations SET head = last.seq
    FROM (SELECT unhex(value ->> 0) AS id, max(value ->> 1) AS seq FROM json_each($1) GROUP BY 1) AS last
    WHERE conversations.id = last.id AND head < last.seq";

/// What the batch has read, and what of that its items have changed so far.
struct Batch {
    at_ms: u64,
    conversations: HashMap<ConversationId, Conversation>,
    senders: HashMap<(ConversationId, DeviceId), Standing>,
}

/// A row to write.
pub(super) struct Row<'a> {
    pub(super) conversation: ConversationId,
    pub(super) seq: Seq,
    pub(super) sender: DeviceId,
    pub(super) counter: Counter,
    pub(super) kind: LogKind,
    pub(super) envelope: &'a [u8],
    pub(super) at_ms: u64,
    pub(super) tx: i64,
}

impl Row<'static> {
    /// The first row of a conversation, which no counter names.
    pub(super) fn first(conversation: ConversationId, sender: DeviceId, at_ms: u64, tx: i64) -> Self {
        let (seq, counter, kind) = (Seq(1), Counter(0), LogKind::Founded);
        Self { conversation, seq, sender, counter, kind, envelope: &[], at_ms, tx }
    }
}

pub(super) async fn append(c: &mut SqliteConnection, items: &[Append]) -> Fallible<Ending<Vec<Outcome>>> {
    let mut batch = Batch::read(c, items).await?;
    let (mut outcomes, mut fresh) = (Vec::with_capacity(items.len()), Vec::new());
    for item in items {
        let outcome = batch.judge(c, item).await?;
        if let Outcome::Stored(stored) = &outcome {
            fresh.push((item, stored.seq));
        }
        outcomes.push(outcome);
    }
    if fresh.is_empty() {
        return Ok(Ending::Rollback(outcomes));
    }
    write(c, &fresh, batch.at_ms).await?;
    Ok(Ending::Commit(outcomes))
}

/// Envelopes at their seqs, their senders' counters, and the heads of their conversations.
async fn write(c: &mut SqliteConnection, fresh: &[(&Append, Seq)], at_ms: u64) -> Fallible<()> {
    let (mut rows, mut envelopes) = (Vec::with_capacity(fresh.len()), Vec::new());
    for (item, seq) in fresh {
        let (conversation, sender) = (item.conversation.to_string(), item.device.to_string());
        let (begin, length) = (envelopes.len() + 1, item.envelope.len());
        rows.push(json!([conversation, stored(seq.0), sender, stored(item.counter.0), begin, length]));
        envelopes.extend_from_slice(&item.envelope);
    }
    let query = sqlx::query(WRITE).bind(table(rows)).bind(envelopes);
    let query = query.bind(i64::from(u8::from(LogKind::Application))).bind(stored(at_ms));
    query.execute(c).await?;
    Ok(())
}

pub(super) async fn set_cursors(
    c: &mut SqliteConnection,
    cursors: &[(DeviceId, ConversationId, Seq)],
) -> Fallible<Ending<Vec<CursorMoved>>> {
    let rows = sqlx::query(
        "WITH wanted AS (
             SELECT unhex(value ->> 0) AS device, unhex(value ->> 1) AS conversation, value ->> 2 AS seq
             FROM json_each($1))
         SELECT r.conversation, r.device, r.account, max(w.seq) AS seq, r.revision, r.to_seq IS NULL AS live
         FROM wanted w
         CROSS JOIN cursors u ON u.device = w.device AND u.conversation = w.conversation AND u.cursor < w.seq
         CROSS JOIN readable r ON r.device = w.device AND r.conversation = w.conversation AND w.seq <= r.head
         GROUP BY w.conversation, w.device ORDER BY w.conversation, w.device",
    )
    .bind(positions(cursors))
    .fetch_all(&mut *c)
    .await?;
    let (mut further, mut moved) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in &rows {
        further.push((row.id("device")?, row.id("conversation")?, row.seq("seq")?));
        moved.extend(row.cursor_moved()?);
    }
    if further.is_empty() {
        return Ok(Ending::Rollback(moved));
    }
    sqlx::query(
        "UPDATE cursors SET cursor = m.seq
         FROM (SELECT unhex(value ->> 0) AS device, unhex(value ->> 1) AS conversation, value ->> 2 AS seq
               FROM json_each($1)) AS m
         WHERE cursors.conversation = m.conversation AND cursors.device = m.device",
    )
    .bind(positions(&further))
    .execute(c)
    .await?;
    Ok(Ending::Commit(moved))
}

impl Batch {
    async fn read(c: &mut SqliteConnection, items: &[Append]) -> Fallible<Self> {
        let senders: BTreeSet<_> = items.iter().map(|item| (item.conversation, item.device)).collect();
        let senders: Vec<_> = senders.into_iter().collect();
        let mut batch = Self { at_ms: now_ms(), conversations: HashMap::new(), senders: HashMap::new() };
        for (sender, (conversation, standing)) in known(c, &senders).await? {
            batch.conversations.insert(sender.0, conversation);
            batch.senders.insert(sender, standing);
        }
        Ok(batch)
    }

    async fn judge(&mut self, c: &mut SqliteConnection, item: &Append) -> Fallible<Outcome> {
        let conversation = self.conversations.get_mut(&item.conversation);
        let sender = self.senders.get_mut(&(item.conversation, item.device));
        let (Some(conversation), Some(sender)) = (conversation, sender) else {
            return Ok(Outcome::NotMember);
        };
        if sender.has_used(item.counter) {
            // Of this batch it cannot be: no message is in it twice.
            let used = used(c, item.conversation, item.device, item.counter, &item.envelope).await?;
            return Ok(conversation.repeated(used));
        }
        if let Some(refused) = conversation.refuse_append(sender, item.epoch, item.counter) {
            return Ok(refused);
        }
        conversation.head = conversation.head.next();
        sender.high = item.counter;
        Ok(Outcome::Stored(conversation.stored(conversation.head, self.at_ms)))
    }
}

/// What is known of a device in a conversation, which must exist.
pub(super) async fn sender(
    c: &mut SqliteConnection,
    conversation: ConversationId,
    device: DeviceId,
) -> Fallible<Option<(Conversation, Standing)>> {
    Ok(known(c, &[(conversation, device)]).await?.pop().map(|(_, known)| known))
}

type Sender = (ConversationId, DeviceId);

/// Of those whose conversation exists.
async fn known(
    c: &mut SqliteConnection,
    senders: &[Sender],
) -> Fallible<Vec<(Sender, (Conversation, Standing))>> {
    let wanted =
        senders.iter().map(|(conversation, device)| json!([conversation.to_string(), device.to_string()]));
    let rows = sqlx::query(KNOWN).bind(table(wanted)).fetch_all(c).await?;
    let read = |row: &SqliteRow| {
        let place: usize = row.small("place")?;
        let sender = *senders.get(place).ok_or_else(|| Fault::corrupt("place", place))?;
        Ok((sender, (row.conversation()?, row.standing()?)))
    };
    rows.iter().map(read).collect()
}

fn positions(cursors: &[(DeviceId, ConversationId, Seq)]) -> String {
    table(cursors.iter().map(|(device, conversation, seq)| {
        json!([device.to_string(), conversation.to_string(), stored(seq.0)])
    }))
}

pub(super) async fn used(
    c: &mut SqliteConnection,
    conversation: ConversationId,
    device: DeviceId,
    counter: Counter,
    envelope: &[u8],
) -> Fallible<Option<Used>> {
    let row = sqlx::query(
        "SELECT seq, at_ms, envelope = $4 AS same FROM log
         WHERE conversation = $1 AND sender = $2 AND counter = $3",
    )
    .bind(conversation.as_bytes().as_slice())
    .bind(device.as_bytes().as_slice())
    .bind(stored(counter.0))
    .bind(envelope)
    .fetch_optional(c)
    .await?;
    row.map(|row| row.used()).transpose()
}

pub(super) async fn insert_row(c: &mut SqliteConnection, row: &Row<'_>) -> Fallible<()> {
    sqlx::query(
        "INSERT INTO log (conversation, seq, sender, counter, kind, envelope, at_ms, tx)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(row.conversation.as_bytes().as_slice())
    .bind(stored(row.seq.0))
    .bind(row.sender.as_bytes().as_slice())
    .bind(stored(row.counter.0))
    .bind(i64::from(u8::from(row.kind)))
    .bind(row.envelope)
    .bind(stored(row.at_ms))
    .bind(row.tx)
    .execute(c)
    .await?;
    Ok(())
}

pub(super) async fn raise_counter(
    c: &mut SqliteConnection,
    conversation: ConversationId,
    device: DeviceId,
    high: Counter,
) -> Fallible<()> {
    sqlx::query(
        "INSERT INTO send_counters (conversation, device, high) VALUES ($1, $2, $3)
         ON CONFLICT (conversation, device) DO UPDATE SET high = excluded.high WHERE high < excluded.high",
    )
    .bind(conversation.as_bytes().as_slice())
    .bind(device.as_bytes().as_slice())
    .bind(stored(high.0))
    .execute(c)
    .await?;
    Ok(())
}

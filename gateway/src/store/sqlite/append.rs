//! The hot path: batches of envelopes, and cursors.
//!
//! Items are judged one after the other by [`super::super::rules`]; what does not change within the
//! batch (conversations, senders) is read once.

use super::{
    super::{
        Append, Outcome,
        receipts::CursorMoved,
        rows::{Columns, Ending, Fallible, stored},
        rules::{Conversation, Standing, Used},
    },
    connection::next_change,
};
use crate::rim::now_ms;
use fastchat_protocol::{ConversationId, Counter, DeviceId, Seq, server::LogKind};
use sqlx::SqliteConnection;
use std::collections::{BTreeMap, HashMap};

/// What the batch has read and changed so far; written when all items are judged.
struct Batch {
    at_ms: u64,
    tx: i64,
    conversations: HashMap<ConversationId, Option<Conversation>>,
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
    let tx = next_change(c).await?;
    let mut batch = Batch { at_ms: now_ms(), tx, conversations: HashMap::new(), senders: HashMap::new() };
    let mut outcomes = Vec::with_capacity(items.len());
    for item in items {
        outcomes.push(append_one(c, &mut batch, item).await?);
    }
    if !outcomes.iter().any(|outcome| matches!(outcome, Outcome::Stored(_))) {
        return Ok(Ending::Rollback(outcomes));
    }
    for (id, conversation) in batch.conversations {
        let Some(conversation) = conversation else { continue };
        let query = sqlx::query("UPDATE conversations SET head = $2 WHERE id = $1 AND head < $2");
        query.bind(id.as_bytes().as_slice()).bind(stored(conversation.head.0)).execute(&mut *c).await?;
    }
    for ((conversation, device), sender) in batch.senders {
        if sender.high.0 == 0 {
            continue;
        }
        raise_counter(c, conversation, device, sender.high).await?;
    }
    Ok(Ending::Commit(outcomes))
}

async fn append_one(c: &mut SqliteConnection, batch: &mut Batch, item: &Append) -> Fallible<Outcome> {
    let Some(mut conversation) = batch.conversation(c, item.conversation).await? else {
        return Ok(Outcome::NotMember);
    };
    let mut sender = batch.sender(c, item.conversation, item.device).await?;
    if sender.has_used(item.counter) {
        let used = used(c, item.conversation, item.device, item.counter, &item.envelope).await?;
        return Ok(conversation.repeated(used));
    }
    if let Some(refused) = conversation.refuse_append(&sender, item.epoch, item.counter) {
        return Ok(refused);
    }
    conversation.head = conversation.head.next();
    sender.high = item.counter;
    let row = Row {
        conversation: item.conversation,
        seq: conversation.head,
        sender: item.device,
        counter: item.counter,
        kind: LogKind::Application,
        envelope: &item.envelope,
        at_ms: batch.at_ms,
        tx: batch.tx,
    };
    insert_row(c, &row).await?;
    batch.conversations.insert(item.conversation, Some(conversation));
    batch.senders.insert((item.conversation, item.device), sender);
    Ok(Outcome::Stored(conversation.stored(conversation.head, batch.at_ms)))
}

pub(super) async fn set_cursors(
    c: &mut SqliteConnection,
    cursors: &[(DeviceId, ConversationId, Seq)],
) -> Fallible<Ending<Vec<CursorMoved>>> {
    let mut moved = BTreeMap::new();
    for (device, conversation, seq) in cursors {
        let updated = sqlx::query(
            "UPDATE cursors SET cursor = $3 WHERE device = $1 AND conversation = $2 AND cursor < $3 AND $3 <= (
                 SELECT head FROM readable WHERE device = $1 AND conversation = $2)",
        )
        .bind(device.as_bytes().as_slice())
        .bind(conversation.as_bytes().as_slice())
        .bind(stored(seq.0))
        .execute(&mut *c)
        .await?;
        if updated.rows_affected() == 0 {
            continue;
        }
        let row = sqlx::query(
            "SELECT conversation, device, account, $3 AS seq, revision, to_seq IS NULL AS live
             FROM readable WHERE device = $1 AND conversation = $2",
        )
        .bind(device.as_bytes().as_slice())
        .bind(conversation.as_bytes().as_slice())
        .bind(stored(seq.0))
        .fetch_one(&mut *c)
        .await?;
        if let Some(one) = row.cursor_moved()? {
            moved.insert((one.conversation, one.device), one);
        }
    }
    Ok(Ending::Commit(moved.into_values().collect()))
}

impl Batch {
    async fn conversation(
        &mut self,
        c: &mut SqliteConnection,
        id: ConversationId,
    ) -> Fallible<Option<Conversation>> {
        if let Some(known) = self.conversations.get(&id) {
            return Ok(*known);
        }
        let read = conversation(c, id).await?;
        self.conversations.insert(id, read);
        Ok(read)
    }

    async fn sender(
        &mut self,
        c: &mut SqliteConnection,
        id: ConversationId,
        device: DeviceId,
    ) -> Fallible<Standing> {
        if let Some(known) = self.senders.get(&(id, device)) {
            return Ok(*known);
        }
        let read = standing(c, id, device).await?;
        self.senders.insert((id, device), read);
        Ok(read)
    }
}

pub(super) async fn conversation(
    c: &mut SqliteConnection,
    id: ConversationId,
) -> Fallible<Option<Conversation>> {
    let query = sqlx::query("SELECT * FROM conversations WHERE id = $1");
    let row = query.bind(id.as_bytes().as_slice()).fetch_optional(c).await?;
    row.map(|row| row.conversation()).transpose()
}

pub(super) async fn standing(
    c: &mut SqliteConnection,
    conversation: ConversationId,
    device: DeviceId,
) -> Fallible<Standing> {
    sqlx::query(
        "SELECT a.account IS NOT NULL AS member, coalesce(a.barred, 0) AS barred,
                coalesce(a.role = 3, 0) AND EXISTS (
                    SELECT 1 FROM members o
                    WHERE o.conversation = $1 AND o.account <> a.account AND o.to_seq IS NULL) AS needed,
                EXISTS (SELECT 1 FROM cursors u
                        WHERE u.conversation = $1 AND u.device = $2 AND u.to_seq IS NULL) AS joined,
                coalesce((SELECT s.high FROM send_counters s
                          WHERE s.conversation = $1 AND s.device = $2), 0) AS high_water
         FROM (SELECT 1) LEFT JOIN admissible a ON a.conversation = $1 AND a.device = $2",
    )
    .bind(conversation.as_bytes().as_slice())
    .bind(device.as_bytes().as_slice())
    .fetch_one(c)
    .await?
    .standing()
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

//! Letting devices in, and the mailboxes by which they learn of it.

use super::super::{
    Join,
    rows::{Columns, Ending, Fallible, hash, stored},
};
use bytes::Bytes;
use fastchat_protocol::{
    AccountId, ConversationId, DeviceId, Seq,
    limits::{MAX_PAGE_BYTES, MAX_PAGE_ROWS},
    server::MailboxItem,
};
use sqlx::SqliteConnection;
use std::collections::BTreeMap;

/// What lets devices in.
pub(super) struct Entry<'a> {
    pub(super) conversation: ConversationId,
    /// The row that does it.
    pub(super) seq: Seq,
    pub(super) by: DeviceId,
    pub(super) tree: &'a [u8],
    pub(super) joins: &'a [Join],
    /// The change that it is part of.
    pub(super) tx: i64,
}

/// Sets cursors to the entry's row and fills mailboxes, in the order of devices. Returns the mailboxes
/// that grew; `None` if a device is not one of a member's.
///
/// A device that is still in, and comes back by an external commit, keeps its cursor: the rows after
/// it are still there for it to open.
pub(super) async fn let_in(
    c: &mut SqliteConnection,
    entry: &Entry<'_>,
) -> Fallible<Option<Vec<(DeviceId, AccountId, Seq)>>> {
    let joins: BTreeMap<DeviceId, Option<&Bytes>> =
        entry.joins.iter().map(|join| (join.device, join.welcome.as_ref())).collect();
    for device in joins.keys() {
        let placed = sqlx::query(
            "INSERT INTO cursors AS u (conversation, device, account, join_seq, cursor)
             SELECT $1, d.id, d.account, $3, $3
             FROM devices d JOIN members m ON m.account = d.account
             WHERE d.id = $2 AND m.conversation = $1 AND m.to_seq IS NULL
             ON CONFLICT (conversation, device) DO UPDATE
             SET join_seq = CASE WHEN u.to_seq IS NULL THEN u.join_seq ELSE excluded.join_seq END,
                 cursor = CASE WHEN u.to_seq IS NULL THEN u.cursor ELSE excluded.cursor END,
                 to_seq = NULL",
        )
        .bind(entry.conversation.as_bytes().as_slice())
        .bind(device.as_bytes().as_slice())
        .bind(stored(entry.seq.0))
        .execute(&mut *c)
        .await?;
        if placed.rows_affected() == 0 {
            return Ok(None);
        }
    }
    let welcomes: Vec<_> =
        joins.into_iter().filter_map(|(device, welcome)| Some((device, welcome?))).collect();
    if welcomes.is_empty() {
        return Ok(Some(Vec::new()));
    }
    keep_parts(c, entry, &welcomes).await?;
    let mut grown = Vec::with_capacity(welcomes.len());
    for (device, welcome) in welcomes {
        grown.push(put(c, entry, device, welcome).await?);
    }
    Ok(Some(grown))
}

/// Tree and welcomes are stored once, however many devices they are for.
async fn keep_parts(
    c: &mut SqliteConnection,
    entry: &Entry<'_>,
    welcomes: &[(DeviceId, &Bytes)],
) -> Fallible<()> {
    let mut parts: Vec<&[u8]> = welcomes.iter().map(|(_, welcome)| welcome.as_ref()).collect();
    parts.push(entry.tree);
    parts.sort_unstable();
    parts.dedup();
    for part in parts {
        sqlx::query("INSERT INTO welcome_parts (conversation, hash, bytes) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(entry.conversation.as_bytes().as_slice())
            .bind(hash(part).as_slice())
            .bind(part)
            .execute(&mut *c)
            .await?;
    }
    Ok(())
}

async fn put(
    c: &mut SqliteConnection,
    entry: &Entry<'_>,
    device: DeviceId,
    welcome: &Bytes,
) -> Fallible<(DeviceId, AccountId, Seq)> {
    let row = sqlx::query(
        "INSERT INTO mailbox_heads AS h (device, account, head, tx)
         SELECT id, account, 1, $2 FROM devices WHERE id = $1
         ON CONFLICT (device) DO UPDATE SET head = h.head + 1, tx = excluded.tx
         RETURNING account, head",
    )
    .bind(device.as_bytes().as_slice())
    .bind(entry.tx)
    .fetch_one(&mut *c)
    .await?;
    sqlx::query(
        "INSERT INTO mailbox (device, seq, conversation, join_seq, sender, welcome_hash, tree_hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(device.as_bytes().as_slice())
    .bind(stored(row.seq("head")?.0))
    .bind(entry.conversation.as_bytes().as_slice())
    .bind(stored(entry.seq.0))
    .bind(entry.by.as_bytes().as_slice())
    .bind(hash(welcome).as_slice())
    .bind(hash(entry.tree).as_slice())
    .execute(c)
    .await?;
    Ok((device, row.id("account")?, row.seq("head")?))
}

pub(super) async fn page(
    c: &mut SqliteConnection,
    device: DeviceId,
    after: Seq,
    limit: u32,
) -> Fallible<(Vec<MailboxItem>, Seq)> {
    let head = sqlx::query("SELECT coalesce((SELECT head FROM mailbox_heads WHERE device = $1), 0) AS head")
        .bind(device.as_bytes().as_slice())
        .fetch_one(&mut *c)
        .await?
        .seq("head")?;
    let rows = sqlx::query(
        "SELECT * FROM (
             SELECT i.*, w.bytes AS welcome, row_number() OVER items AS n,
                    sum(length(w.bytes)) OVER items AS size
             FROM (SELECT * FROM mailbox WHERE device = $1 AND seq > $2 ORDER BY seq LIMIT $3) i
             JOIN welcome_parts w ON w.conversation = i.conversation AND w.hash = i.welcome_hash
             WINDOW items AS (ORDER BY i.seq)
         ) WHERE n = 1 OR size <= $4 ORDER BY seq",
    )
    .bind(device.as_bytes().as_slice())
    .bind(stored(after.0))
    .bind(i64::from(limit.min(MAX_PAGE_ROWS)))
    .bind(MAX_PAGE_BYTES as i64)
    .fetch_all(c)
    .await?;
    Ok((rows.iter().map(Columns::mailbox_item).collect::<Fallible<_>>()?, head))
}

/// Drops the items, and the trees and welcomes that nobody waits for any more.
pub(super) async fn ack(c: &mut SqliteConnection, device: DeviceId, seq: Seq) -> Fallible<Ending<()>> {
    drop_items(c, device, seq).await?;
    Ok(Ending::Commit(()))
}

/// Drops all items of a device that will not come for them.
pub(super) async fn forget(c: &mut SqliteConnection, device: DeviceId) -> Fallible<()> {
    drop_items(c, device, Seq(u64::MAX)).await
}

async fn drop_items(c: &mut SqliteConnection, device: DeviceId, seq: Seq) -> Fallible<()> {
    let dropped = sqlx::query(
        "DELETE FROM mailbox WHERE device = $1 AND seq <= $2 RETURNING conversation, welcome_hash, tree_hash",
    )
    .bind(device.as_bytes().as_slice())
    .bind(stored(seq.0))
    .fetch_all(&mut *c)
    .await?;
    for row in dropped {
        sqlx::query(
            "DELETE FROM welcome_parts AS w WHERE conversation = $1 AND hash IN ($2, $3) AND NOT EXISTS (
                 SELECT 1 FROM mailbox m
                 WHERE m.conversation = w.conversation AND w.hash IN (m.welcome_hash, m.tree_hash))",
        )
        .bind(row.blob("conversation")?)
        .bind(row.blob("welcome_hash")?)
        .bind(row.blob("tree_hash")?)
        .execute(&mut *c)
        .await?;
    }
    Ok(())
}

pub(super) async fn tree(
    c: &mut SqliteConnection,
    device: DeviceId,
    conversation: ConversationId,
    hash: &[u8],
) -> Fallible<Option<Bytes>> {
    let row = sqlx::query(
        "SELECT bytes FROM welcome_parts w WHERE conversation = $2 AND hash = $3 AND EXISTS (
             SELECT 1 FROM mailbox WHERE device = $1 AND conversation = $2 AND tree_hash = $3)",
    )
    .bind(device.as_bytes().as_slice())
    .bind(conversation.as_bytes().as_slice())
    .bind(hash)
    .fetch_optional(c)
    .await?;
    row.map(|row| row.bytes("bytes")).transpose()
}

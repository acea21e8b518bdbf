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
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What lets devices in.
pub(super) struct Entry<'a> {
    pub(super) conversation: ConversationId,
    /// The row that does it.
    pub(super) seq: Seq,
    pub(super) by: DeviceId,
    pub(super) tree: &'a [u8],
    pub(super) joins: &'a [Join],
}

/// Sets cursors to the entry's row and fills mailboxes, in the order of devices. Returns the mailboxes
/// that grew; `None` if a device is not one of a member's.
///
/// A device that is still in, and comes back by an external commit, keeps its cursor: the rows after
/// it are still there for it to open.
pub(super) async fn let_in(
    c: &mut PgConnection,
    entry: &Entry<'_>,
) -> Fallible<Option<Vec<(DeviceId, AccountId, Seq)>>> {
    let joins: BTreeMap<DeviceId, Option<&Bytes>> =
        entry.joins.iter().map(|join| (join.device, join.welcome.as_ref())).collect();
    let devices: Vec<_> = joins.keys().map(|device| device.as_bytes().as_slice()).collect();
    let placed = sqlx::query(
        "INSERT INTO cursors AS u (conversation, device, account, join_seq, cursor)
         SELECT $1, d.id, d.account, $3, $3
         FROM devices d JOIN members m ON m.account = d.account
         WHERE d.id = ANY ($2) AND m.conversation = $1 AND m.to_seq IS NULL ORDER BY d.id
         ON CONFLICT (conversation, device) DO UPDATE
         SET join_seq = CASE WHEN u.to_seq IS NULL THEN u.join_seq ELSE excluded.join_seq END,
             cursor = CASE WHEN u.to_seq IS NULL THEN u.cursor ELSE excluded.cursor END,
             to_seq = NULL",
    )
    .bind(entry.conversation.as_bytes().as_slice())
    .bind(&devices)
    .bind(stored(entry.seq.0))
    .execute(&mut *c)
    .await?;
    if placed.rows_affected() != joins.len() as u64 {
        return Ok(None);
    }
    let welcomes: Vec<_> =
        joins.into_iter().filter_map(|(device, welcome)| Some((device, welcome?))).collect();
    if welcomes.is_empty() {
        return Ok(Some(Vec::new()));
    }
    keep_parts(c, entry, &welcomes).await?;
    put(c, entry, &welcomes).await.map(Some)
}

/// Tree and welcomes are stored once, however many devices they are for. Parts that are there are held:
/// whoever acks the last item that names one would not see these items yet. In the order in which an
/// ack holds them.
async fn keep_parts(
    c: &mut PgConnection,
    entry: &Entry<'_>,
    welcomes: &[(DeviceId, &Bytes)],
) -> Fallible<()> {
    let distinct: BTreeSet<&[u8]> =
        welcomes.iter().map(|(_, welcome)| welcome.as_ref()).chain([entry.tree]).collect();
    sqlx::query(
        "INSERT INTO welcome_parts (conversation, hash, bytes)
         SELECT $1, sha256(bytes), bytes FROM unnest($2::bytea[]) AS p (bytes) ORDER BY sha256(bytes)
         ON CONFLICT (conversation, hash) DO UPDATE SET hash = excluded.hash",
    )
    .bind(entry.conversation.as_bytes().as_slice())
    .bind(distinct.into_iter().collect::<Vec<_>>())
    .execute(c)
    .await?;
    Ok(())
}

async fn put(
    c: &mut PgConnection,
    entry: &Entry<'_>,
    welcomes: &[(DeviceId, &Bytes)],
) -> Fallible<Vec<(DeviceId, AccountId, Seq)>> {
    // Many devices have one welcome: each is hashed once.
    let mut hashes: HashMap<&[u8], [u8; 32]> = HashMap::new();
    let hashes: Vec<_> = welcomes
        .iter()
        .map(|(_, welcome)| *hashes.entry(welcome.as_ref()).or_insert_with(|| hash(welcome)))
        .collect();
    let rows = sqlx::query(
        "WITH waiting AS MATERIALIZED (
             SELECT * FROM unnest($1::bytea[], $2::bytea[]) AS w (device, welcome_hash)
         ), grown AS (
             INSERT INTO mailbox_heads AS h (device, account, head, tx)
             SELECT d.id, d.account, 1, pg_current_xact_id()::text::bigint
             FROM waiting w JOIN devices d ON d.id = w.device ORDER BY d.id
             ON CONFLICT (device) DO UPDATE SET head = h.head + 1, tx = excluded.tx
             RETURNING device, account, head
         ), items AS (
             INSERT INTO mailbox (device, seq, conversation, join_seq, sender, welcome_hash, tree_hash)
             SELECT g.device, g.head, $3, $4, $5, w.welcome_hash, $6
             FROM grown g JOIN waiting w ON w.device = g.device
         )
         SELECT device, account, head FROM grown ORDER BY device",
    )
    .bind(welcomes.iter().map(|(device, _)| device.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(hashes.iter().map(<[u8; 32]>::as_slice).collect::<Vec<_>>())
    .bind(entry.conversation.as_bytes().as_slice())
    .bind(stored(entry.seq.0))
    .bind(entry.by.as_bytes().as_slice())
    .bind(hash(entry.tree).as_slice())
    .fetch_all(c)
    .await?;
    rows.iter().map(|row| Ok((row.id("device")?, row.id("account")?, row.seq("head")?))).collect()
}

pub(super) async fn page(
    c: &mut PgConnection,
    device: DeviceId,
    after: Seq,
    limit: u32,
) -> Fallible<(Vec<MailboxItem>, Seq)> {
    // The head is read first: an item that comes in between is on the page and beyond the head, which
    // the next page puts right; the other way round it would be missed until the next one.
    let head = sqlx::query("SELECT coalesce((SELECT head FROM mailbox_heads WHERE device = $1), 0) AS head")
        .bind(device.as_bytes().as_slice())
        .fetch_one(&mut *c)
        .await?
        .seq("head")?;
    let rows = sqlx::query(
        "SELECT * FROM (
             SELECT i.*, w.bytes AS welcome, row_number() OVER items AS n,
                    sum(octet_length(w.bytes)) OVER items AS size
             FROM (SELECT * FROM mailbox WHERE device = $1 AND seq > $2 ORDER BY seq LIMIT $3) i
             JOIN welcome_parts w ON w.conversation = i.conversation AND w.hash = i.welcome_hash
             WINDOW items AS (ORDER BY i.seq)
         ) AS page WHERE n = 1 OR size <= $4 ORDER BY seq",
    )
    .bind(device.as_bytes().as_slice())
    .bind(stored(after.0))
    .bind(i64::from(limit.min(MAX_PAGE_ROWS)))
    .bind(MAX_PAGE_BYTES as i64)
    .fetch_all(c)
    .await?;
    let items = rows.iter().map(Columns::mailbox_item).collect::<Fallible<Vec<_>>>()?;
    let head = items.last().map_or(head, |last| head.max(last.seq));
    Ok((items, head))
}

/// Drops the items, and the trees and welcomes that nobody waits for any more.
pub(super) async fn ack(c: &mut PgConnection, device: DeviceId, seq: Seq) -> Fallible<Ending<()>> {
    drop_items(c, &[device], seq).await?;
    Ok(Ending::Commit(()))
}

/// Drops all items of devices that will not come for them.
pub(super) async fn forget(c: &mut PgConnection, devices: &[DeviceId]) -> Fallible<()> {
    drop_items(c, devices, Seq(u64::MAX)).await
}

async fn drop_items(c: &mut PgConnection, devices: &[DeviceId], seq: Seq) -> Fallible<()> {
    let dropped = sqlx::query(
        "WITH gone AS (
             DELETE FROM mailbox WHERE device = ANY ($1) AND seq <= $2
             RETURNING conversation, welcome_hash, tree_hash
         )
         SELECT conversation, welcome_hash AS hash FROM gone
         UNION SELECT conversation, tree_hash FROM gone",
    )
    .bind(devices.iter().map(|device| device.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(stored(seq.0))
    .fetch_all(&mut *c)
    .await?;
    if dropped.is_empty() {
        return Ok(());
    }
    let conversations = dropped.iter().map(|row| row.blob("conversation")).collect::<Fallible<Vec<_>>>()?;
    let hashes = dropped.iter().map(|row| row.blob("hash")).collect::<Fallible<Vec<_>>>()?;
    // Of two devices that ack the last two items at once, the second looks when the first is done.
    sqlx::query(
        "SELECT 1 FROM welcome_parts w JOIN unnest($1::bytea[], $2::bytea[]) AS d (conversation, hash)
         ON w.conversation = d.conversation AND w.hash = d.hash
         ORDER BY w.conversation, w.hash FOR UPDATE OF w",
    )
    .bind(&conversations)
    .bind(&hashes)
    .execute(&mut *c)
    .await?;
    sqlx::query(
        "DELETE FROM welcome_parts w USING unnest($1::bytea[], $2::bytea[]) AS d (conversation, hash)
         WHERE w.conversation = d.conversation AND w.hash = d.hash AND NOT EXISTS (
             SELECT 1 FROM mailbox m WHERE m.conversation = w.conversation AND w.hash IN (m.welcome_hash, m.tree_hash))",
    )
    .bind(&conversations)
    .bind(&hashes)
    .execute(c)
    .await?;
    Ok(())
}

pub(super) async fn tree(
    c: &mut PgConnection,
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

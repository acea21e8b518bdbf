//! Reading logs and heads. Who may read which rows is said by the view `readable` alone.

use super::super::{
    GroupState, LogPage, Mark, Moved, Readers,
    rows::{Columns, Fallible, stored},
};
use fastchat_protocol::{
    ConversationId, DeviceId, Seq,
    limits::{MAX_PAGE_BYTES, MAX_PAGE_ROWS, MAX_SYNC_CONVERSATIONS},
    server::ConversationState,
};
use sqlx::{PgConnection, postgres::PgRow};

pub(super) async fn ping(c: &mut PgConnection) -> Fallible<()> {
    sqlx::query("SELECT 1").execute(c).await?;
    Ok(())
}

pub(super) async fn incarnation(c: &mut PgConnection) -> Fallible<u32> {
    sqlx::query("SELECT incarnation FROM settings").fetch_one(c).await?.small("incarnation")
}

pub(super) async fn fetch(
    c: &mut PgConnection,
    device: DeviceId,
    conversation: ConversationId,
    after: Seq,
    limit: u32,
) -> Fallible<Option<LogPage>> {
    // One statement, one snapshot: the page and its head belong together.
    let rows = sqlx::query(
        "SELECT r.head, page.*, coalesce(
             (SELECT min(l.seq) FROM log l WHERE l.conversation = $2), r.log_head + 1) AS first
         FROM readable r LEFT JOIN LATERAL (
             SELECT * FROM (
                 SELECT l.*, row_number() OVER w AS n, sum(octet_length(envelope)) OVER w AS size
                 FROM (SELECT seq, sender, counter, kind::bigint, at_ms, envelope FROM log
                       WHERE conversation = $2 AND seq > $3 AND seq BETWEEN r.join_seq AND r.head
                       ORDER BY seq LIMIT $4) l
                 WINDOW w AS (ORDER BY seq)
             ) AS sized WHERE n = 1 OR size <= $5
         ) page ON true
         WHERE r.device = $1 AND r.conversation = $2 ORDER BY page.seq",
    )
    .bind(device.as_bytes().as_slice())
    .bind(conversation.as_bytes().as_slice())
    .bind(stored(after.0))
    .bind(i64::from(limit.min(MAX_PAGE_ROWS)))
    .bind(MAX_PAGE_BYTES as i64)
    .fetch_all(c)
    .await?;
    let Some(any) = rows.first() else { return Ok(None) };
    let is_row = |row: &&PgRow| !matches!(row.optional_number("seq"), Ok(None));
    Ok(Some(LogPage {
        head: any.seq("head")?,
        first: any.seq("first")?,
        rows: rows.iter().filter(is_row).map(Columns::log_row).collect::<Fallible<_>>()?,
    }))
}

pub(super) async fn readers(
    c: &mut PgConnection,
    conversation: ConversationId,
    devices: &[DeviceId],
) -> Fallible<Readers> {
    let rows = sqlx::query(
        "SELECT c.revision, r.device, r.join_seq, r.to_seq FROM conversations c
         LEFT JOIN readable r ON r.conversation = c.id AND r.device = ANY ($2)
         WHERE c.id = $1 ORDER BY r.device",
    )
    .bind(conversation.as_bytes().as_slice())
    .bind(devices.iter().map(|device| device.as_bytes().as_slice()).collect::<Vec<_>>())
    .fetch_all(c)
    .await?;
    let Some(any) = rows.first() else { return Ok(Readers::default()) };
    let mut readers = Readers { revision: any.number("revision")?, ranges: Vec::with_capacity(rows.len()) };
    for row in &rows {
        if row.optional_blob("device")?.is_some() {
            readers.ranges.push((
                row.id("device")?,
                row.seq("join_seq")?,
                row.optional_number("to_seq")?.map(Seq),
            ));
        }
    }
    Ok(readers)
}

pub(super) async fn conversations(
    c: &mut PgConnection,
    device: DeviceId,
    after: Option<ConversationId>,
    limit: u32,
) -> Fallible<Vec<ConversationState>> {
    let rows = sqlx::query(
        // The page first: a counter is looked up for each of its rows.
        "SELECT v.*, coalesce(s.high, 0) AS counter FROM (
             SELECT * FROM (
                 SELECT r.conversation, r.device, r.account, r.join_seq, r.cursor, r.head,
                        r.generation, r.epoch, r.low, r.high, false AS unjoined
                 FROM readable r WHERE r.device = $1
                 UNION ALL
                 SELECT c.id, a.device, a.account, c.head, c.head, c.head,
                        c.generation, c.epoch, c.low, c.high, true
                 FROM admissible a JOIN conversations c ON c.id = a.conversation
                 WHERE a.device = $1 AND NOT EXISTS (
                     SELECT 1 FROM readable r WHERE r.device = $1 AND r.conversation = a.conversation)
             ) AS all_of_them
             WHERE $2::bytea IS NULL OR conversation > $2
             ORDER BY conversation LIMIT $3
         ) AS v
         LEFT JOIN counters s ON s.conversation = v.conversation AND s.device = v.device
         ORDER BY v.conversation",
    )
    .bind(device.as_bytes().as_slice())
    .bind(after.as_ref().map(|after| after.as_bytes().as_slice()))
    .bind(i64::from(limit.min(MAX_SYNC_CONVERSATIONS)))
    .fetch_all(&mut *c)
    .await?;
    let mut states = rows.iter().map(Columns::conversation_state).collect::<Fallible<Vec<_>>>()?;
    let ids: Vec<_> = states.iter().map(|state| state.conversation.as_bytes().to_vec()).collect();
    let restored = sqlx::query(
        "SELECT conversation, incarnation, head, generation, epoch FROM restorations
         WHERE conversation = ANY ($1) ORDER BY conversation, incarnation",
    );
    for row in restored.bind(ids).fetch_all(c).await? {
        let id: ConversationId = row.id("conversation")?;
        if let Ok(at) = states.binary_search_by_key(&id, |state| state.conversation) {
            states[at].restored.push(row.restored()?);
        }
    }
    Ok(states)
}

pub(super) async fn group_state(
    c: &mut PgConnection,
    device: DeviceId,
    conversation: ConversationId,
) -> Fallible<Option<GroupState>> {
    // One statement, one snapshot: who has left belongs to the state.
    let rows = sqlx::query(
        "SELECT c.generation, c.epoch, c.head, c.low, c.high, g.group_info, g.state, g.tree, l.account AS gone
         FROM admissible a JOIN conversations c ON c.id = a.conversation
         JOIN group_states g ON g.conversation = c.id
         LEFT JOIN members l ON l.conversation = c.id AND l.lingers AND c.kind = 2
         WHERE a.conversation = $2 AND a.device = $1 ORDER BY l.account",
    )
    .bind(device.as_bytes().as_slice())
    .bind(conversation.as_bytes().as_slice())
    .fetch_all(c)
    .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let mut left = Vec::new();
    for row in &rows {
        if row.optional_blob("gone")?.is_some() {
            left.push(row.id("gone")?);
        }
    }
    row.group_state(left).map(Some)
}

/// The mark is the oldest transaction that still ran when it was read: all older ones had ended, and
/// what they wrote was visible. It is read before the rows, so what they miss is not older than it.
/// Rows from the future are those of another cluster, which a backup brought: nothing moved there.
pub(super) async fn moved_since(c: &mut PgConnection, mark: Option<Mark>) -> Fallible<Moved> {
    let row = sqlx::query("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS mark");
    let next = row.fetch_one(&mut *c).await?.number("mark")?;
    let mut moved = Moved { heads: Vec::new(), mailboxes: Vec::new(), mark: Mark(stored(next)) };
    let Some(Mark(since)) = mark else { return Ok(moved) };
    let heads = sqlx::query(
        "SELECT c.id, c.head, c.low, c.high FROM conversations c
         WHERE c.id IN (SELECT DISTINCT conversation FROM log
                        WHERE tx >= $1 AND tx < pg_snapshot_xmax(pg_current_snapshot())::text::bigint)",
    );
    for row in heads.bind(since).fetch_all(&mut *c).await? {
        moved.heads.push((row.id("id")?, row.seq("head")?, row.audience()?));
    }
    let mailboxes = sqlx::query(
        "SELECT device, account, head FROM mailbox_heads
         WHERE tx >= $1 AND tx < pg_snapshot_xmax(pg_current_snapshot())::text::bigint",
    );
    for row in mailboxes.bind(since).fetch_all(c).await? {
        moved.mailboxes.push((row.id("device")?, row.id("account")?, row.seq("head")?));
    }
    Ok(moved)
}

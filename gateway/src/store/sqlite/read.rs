//! Reading logs and heads. Who may read which rows is said by the view `readable` alone.

use super::{
    super::{
        GroupState, LogPage, Mark, Moved, Readers,
        rows::{Columns, Fallible, stored},
    },
    table::table,
};
use fastchat_protocol::{
    ConversationId, DeviceId, Seq,
    limits::{MAX_PAGE_BYTES, MAX_PAGE_ROWS, MAX_SYNC_CONVERSATIONS},
    server::ConversationState,
};
use serde_json::json;
use sqlx::SqliteConnection;

pub(super) async fn ping(c: &mut SqliteConnection) -> Fallible<()> {
    sqlx::query("SELECT 1").execute(c).await?;
    Ok(())
}

pub(super) async fn incarnation(c: &mut SqliteConnection) -> Fallible<u32> {
    sqlx::query("SELECT incarnation FROM settings").fetch_one(c).await?.small("incarnation")
}

/// Where the store was moved to, if it was.
pub(super) async fn moved_to(c: &mut SqliteConnection) -> Fallible<Option<String>> {
    let moved = sqlx::query("SELECT moved_to FROM settings WHERE moved_to IS NOT NULL");
    moved.fetch_optional(c).await?.map(|row| row.string("moved_to")).transpose()
}

pub(super) async fn fetch(
    c: &mut SqliteConnection,
    device: DeviceId,
    conversation: ConversationId,
    after: Seq,
    limit: u32,
) -> Fallible<Option<LogPage>> {
    let readable = sqlx::query(
        "SELECT r.head, r.join_seq, coalesce(
             (SELECT min(l.seq) FROM log l WHERE l.conversation = r.conversation), r.log_head + 1) AS first
         FROM readable r WHERE r.device = $1 AND r.conversation = $2",
    )
    .bind(device.as_bytes().as_slice())
    .bind(conversation.as_bytes().as_slice())
    .fetch_optional(&mut *c)
    .await?;
    let Some(readable) = readable else { return Ok(None) };
    let rows = sqlx::query(
        "SELECT * FROM (
             SELECT l.*, row_number() OVER w AS n, sum(length(envelope)) OVER w AS size
             FROM (SELECT seq, sender, counter, kind, at_ms, envelope FROM log
                   WHERE conversation = $1 AND seq > $2 AND seq BETWEEN $3 AND $4 ORDER BY seq LIMIT $5) l
             WINDOW w AS (ORDER BY seq)
         ) WHERE n = 1 OR size <= $6 ORDER BY seq",
    )
    .bind(conversation.as_bytes().as_slice())
    .bind(stored(after.0))
    .bind(stored(readable.seq("join_seq")?.0))
    .bind(stored(readable.seq("head")?.0))
    .bind(i64::from(limit.min(MAX_PAGE_ROWS)))
    .bind(MAX_PAGE_BYTES as i64)
    .fetch_all(c)
    .await?;
    Ok(Some(LogPage {
        head: readable.seq("head")?,
        first: readable.seq("first")?,
        rows: rows.iter().map(Columns::log_row).collect::<Fallible<_>>()?,
    }))
}

pub(super) async fn readers(
    c: &mut SqliteConnection,
    conversation: ConversationId,
    devices: &[DeviceId],
) -> Fallible<Readers> {
    let query = sqlx::query("SELECT revision FROM conversations WHERE id = $1");
    let found = query.bind(conversation.as_bytes().as_slice()).fetch_optional(&mut *c).await?;
    let Some(found) = found else { return Ok(Readers::default()) };
    let rows = sqlx::query(
        "SELECT r.device, r.join_seq, r.to_seq
         FROM (SELECT DISTINCT unhex(value ->> 0) AS id FROM json_each($2)) AS d
         CROSS JOIN readable r ON r.device = d.id AND r.conversation = $1 ORDER BY r.device",
    )
    .bind(conversation.as_bytes().as_slice())
    .bind(table(devices.iter().map(|device| json!([device.to_string()]))))
    .fetch_all(c)
    .await?;
    let mut ranges = Vec::with_capacity(rows.len());
    for row in &rows {
        ranges.push((row.id("device")?, row.seq("join_seq")?, row.optional_number("to_seq")?.map(Seq)));
    }
    Ok(Readers { revision: found.number("revision")?, ranges })
}

pub(super) async fn conversations(
    c: &mut SqliteConnection,
    device: DeviceId,
    after: Option<ConversationId>,
    limit: u32,
) -> Fallible<Vec<ConversationState>> {
    let rows = sqlx::query(
        "SELECT v.*, coalesce(s.high, 0) AS counter FROM (
             SELECT r.conversation, r.device, r.account, r.join_seq, r.cursor, r.head,
                    r.generation, r.epoch, r.low, r.high, 0 AS unjoined
             FROM readable r WHERE r.device = $1
             UNION ALL
             SELECT c.id, a.device, a.account, c.head, c.head, c.head,
                    c.generation, c.epoch, c.low, c.high, 1
             FROM admissible a JOIN conversations c ON c.id = a.conversation
             WHERE a.device = $1 AND NOT EXISTS (
                 SELECT 1 FROM readable r WHERE r.device = $1 AND r.conversation = a.conversation)
         ) AS v
         LEFT JOIN send_counters s ON s.conversation = v.conversation AND s.device = v.device
         WHERE $2 IS NULL OR v.conversation > $2
         ORDER BY v.conversation LIMIT $3",
    )
    .bind(device.as_bytes().as_slice())
    .bind(after.as_ref().map(|after| after.as_bytes().as_slice()))
    .bind(i64::from(limit.min(MAX_SYNC_CONVERSATIONS)))
    .fetch_all(&mut *c)
    .await?;
    let mut states = rows.iter().map(Columns::conversation_state).collect::<Fallible<Vec<_>>>()?;
    let restorations = sqlx::query(
        "SELECT r.conversation, r.incarnation, r.head, r.generation, r.epoch
         FROM json_each($1) CROSS JOIN restorations r ON r.conversation = unhex(value ->> 0)
         ORDER BY r.conversation, r.incarnation",
    );
    let listed = table(states.iter().map(|state| json!([state.conversation.to_string()])));
    for row in restorations.bind(listed).fetch_all(c).await? {
        let conversation = row.id("conversation")?;
        // In their order, as the query asks for.
        if let Ok(place) = states.binary_search_by_key(&conversation, |state| state.conversation) {
            states[place].restored.push(row.restored()?);
        }
    }
    Ok(states)
}

pub(super) async fn group_state(
    c: &mut SqliteConnection,
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

/// The mark is the number of the last change; the rows are read on the same snapshot.
pub(super) async fn moved_since(c: &mut SqliteConnection, mark: Option<Mark>) -> Fallible<Moved> {
    let last = sqlx::query("SELECT change FROM settings").fetch_one(&mut *c).await?.number("change")?;
    let mut moved = Moved { heads: Vec::new(), mailboxes: Vec::new(), mark: Mark(stored(last)) };
    let Some(Mark(since)) = mark else { return Ok(moved) };
    let heads = sqlx::query(
        "SELECT c.id, c.head, c.low, c.high FROM conversations c
         WHERE c.id IN (SELECT DISTINCT conversation FROM log WHERE tx > $1)",
    );
    for row in heads.bind(since).fetch_all(&mut *c).await? {
        moved.heads.push((row.id("id")?, row.seq("head")?, row.audience()?));
    }
    let mailboxes = sqlx::query("SELECT device, account, head FROM mailbox_heads WHERE tx > $1");
    for row in mailboxes.bind(since).fetch_all(c).await? {
        moved.mailboxes.push((row.id("device")?, row.id("account")?, row.seq("head")?));
    }
    Ok(moved)
}

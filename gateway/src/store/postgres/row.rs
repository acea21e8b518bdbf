//! One row under its conversation's lock: what commits, leaves and foundings have in common.

use super::super::{
    rows::{Columns, Fallible, stored},
    rules::{Conversation, Standing, Used},
};
use bytes::Bytes;
use fastchat_protocol::{ConversationId, Counter, DeviceId, Seq, server::LogKind};
use sqlx::PgConnection;

/// What is to be appended.
pub(super) struct Row<'a> {
    pub(super) conversation: ConversationId,
    pub(super) sender: DeviceId,
    pub(super) counter: Counter,
    pub(super) kind: LogKind,
    pub(super) envelope: &'a [u8],
}

/// The lock is a statement of its own: those after it see what was committed while it waited.
pub(super) async fn lock(c: &mut PgConnection, id: ConversationId) -> Fallible<Option<Conversation>> {
    let lock = sqlx::query("SELECT * FROM conversations WHERE id = $1 FOR NO KEY UPDATE");
    let locked = lock.bind(id.as_bytes().as_slice()).fetch_optional(c).await?;
    locked.map(|row| row.conversation()).transpose()
}

pub(super) async fn standing(
    c: &mut PgConnection,
    conversation: ConversationId,
    device: DeviceId,
) -> Fallible<Standing> {
    sqlx::query(
        "SELECT a.account IS NOT NULL AS member, coalesce(a.barred, false) AS barred,
                coalesce(a.role = 3, false) AND EXISTS (
                    SELECT 1 FROM members o
                    WHERE o.conversation = $1 AND o.account <> a.account AND o.to_seq IS NULL) AS needed,
                EXISTS (SELECT 1 FROM cursors u
                        WHERE u.conversation = $1 AND u.device = $2 AND u.to_seq IS NULL) AS joined,
                coalesce((SELECT s.high FROM counters s
                          WHERE s.conversation = $1 AND s.device = $2), 0) AS high_water
         FROM (SELECT) AS one LEFT JOIN admissible a ON a.conversation = $1 AND a.device = $2",
    )
    .bind(conversation.as_bytes().as_slice())
    .bind(device.as_bytes().as_slice())
    .fetch_one(c)
    .await?
    .standing()
}

/// The row that the counter was used for, unless retention has taken it.
pub(super) async fn used(c: &mut PgConnection, row: &Row<'_>) -> Fallible<Option<Used>> {
    let found = sqlx::query(
        "SELECT seq, at_ms, envelope = $4 AS same FROM log
         WHERE conversation = $1 AND sender = $2 AND counter = $3",
    )
    .bind(row.conversation.as_bytes().as_slice())
    .bind(row.sender.as_bytes().as_slice())
    .bind(stored(row.counter.0))
    .bind(row.envelope)
    .fetch_optional(c)
    .await?;
    found.map(|row| row.used()).transpose()
}

/// Returns the row's time.
pub(super) async fn insert(c: &mut PgConnection, row: &Row<'_>, seq: Seq) -> Fallible<u64> {
    sqlx::query(
        "WITH up AS (
             INSERT INTO send_counters (conversation, device, high) VALUES ($1, $2, $3)
             ON CONFLICT (conversation, device) DO UPDATE SET high = excluded.high
         )
         INSERT INTO log (conversation, seq, sender, counter, kind, envelope, at_ms, tx)
         VALUES ($1, $4, $2, $3, $6, $5, floor(extract(epoch FROM clock_timestamp()) * 1000),
                 pg_current_xact_id()::text::bigint)
         RETURNING at_ms",
    )
    .bind(row.conversation.as_bytes().as_slice())
    .bind(row.sender.as_bytes().as_slice())
    .bind(stored(row.counter.0))
    .bind(stored(seq.0))
    .bind(row.envelope)
    .bind(i16::from(u8::from(row.kind)))
    .fetch_one(c)
    .await?
    .number("at_ms")
}

/// The first row of a conversation, which no counter names.
pub(super) async fn insert_first(
    c: &mut PgConnection,
    conversation: ConversationId,
    founder: DeviceId,
    at_ms: u64,
) -> Fallible<()> {
    sqlx::query(
        "INSERT INTO log (conversation, seq, sender, counter, kind, envelope, at_ms, tx)
         VALUES ($1, 1, $2, 0, 1, '', $3, pg_current_xact_id()::text::bigint)",
    )
    .bind(conversation.as_bytes().as_slice())
    .bind(founder.as_bytes().as_slice())
    .bind(stored(at_ms))
    .execute(c)
    .await?;
    Ok(())
}

/// Writes the conversation as it is after a row; another suite, if there is one.
pub(super) async fn advance(
    c: &mut PgConnection,
    id: ConversationId,
    after: &Conversation,
    suite: Option<u16>,
) -> Fallible<()> {
    sqlx::query(
        "UPDATE conversations SET head = $2, generation = $3, epoch = $4, fence = $5, revision = $6,
                suite = coalesce($7, suite) WHERE id = $1",
    )
    .bind(id.as_bytes().as_slice())
    .bind(stored(after.head.0))
    .bind(i64::from(after.epoch.generation))
    .bind(stored(after.epoch.number))
    .bind(stored(after.fence))
    .bind(stored(after.revision))
    .bind(suite.map(i32::from))
    .execute(c)
    .await?;
    Ok(())
}

/// The public state of the newest epoch: GroupInfo, state, tree.
pub(super) async fn put_state(
    c: &mut PgConnection,
    id: ConversationId,
    [group_info, state, tree]: [&Bytes; 3],
) -> Fallible<()> {
    sqlx::query(
        "INSERT INTO group_states (conversation, group_info, state, tree) VALUES ($1, $2, $3, $4)
         ON CONFLICT (conversation) DO UPDATE
         SET group_info = excluded.group_info, state = excluded.state, tree = excluded.tree",
    )
    .bind(id.as_bytes().as_slice())
    .bind(group_info.as_ref())
    .bind(state.as_ref())
    .bind(tree.as_ref())
    .execute(c)
    .await?;
    Ok(())
}

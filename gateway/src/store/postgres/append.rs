//! The hot path: batches of envelopes, and cursors.

use super::super::{
    Append, Outcome,
    receipts::CursorMoved,
    rows::{Columns, Fallible, Fault, stored},
};
use super::runs;
use fastchat_protocol::{ConversationId, Counter, DeviceId, Seq};
use sqlx::{PgConnection, postgres::PgRow};

/// A batch of one goes the short way (migration 11), a larger one as runs (migration 12); whichever is
/// not plain is judged by `append_envelopes`.
pub(super) async fn append(c: &mut PgConnection, batch: &[Append]) -> Fallible<Vec<Outcome>> {
    let rows = match batch {
        [item] => append_one(c, item).await?,
        _ => match runs::append(c, batch).await? {
            Some(outcomes) => return Ok(outcomes),
            None => append_many(c, batch).await?,
        },
    };
    rows.iter().map(outcome).collect()
}

async fn append_one(c: &mut PgConnection, item: &Append) -> Fallible<Vec<PgRow>> {
    let query = sqlx::query("SELECT * FROM append_envelope($1, $2, $3, $4, $5, $6)")
        .bind(item.conversation.as_bytes().as_slice())
        .bind(item.device.as_bytes().as_slice())
        .bind(stored(item.counter.0))
        .bind(i64::from(item.epoch.generation))
        .bind(stored(item.epoch.number))
        .bind(item.envelope.as_ref());
    Ok(query.fetch_all(c).await?)
}

async fn append_many(c: &mut PgConnection, batch: &[Append]) -> Fallible<Vec<PgRow>> {
    let column = |f: fn(&Append) -> i64| batch.iter().map(f).collect::<Vec<_>>();
    let query = sqlx::query("SELECT * FROM append_envelopes($1, $2, $3, $4, $5, $6)")
        .bind(batch.iter().map(|item| item.conversation.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(batch.iter().map(|item| item.device.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(column(|item| stored(item.counter.0)))
        .bind(column(|item| item.epoch.generation.into()))
        .bind(column(|item| stored(item.epoch.number)))
        .bind(batch.iter().map(|item| item.envelope.as_ref()).collect::<Vec<_>>());
    Ok(query.fetch_all(c).await?)
}

/// The numbers are explained at `append_envelopes`.
fn outcome(row: &PgRow) -> Fallible<Outcome> {
    let stored = || {
        Ok::<_, Fault>(super::Stored {
            seq: row.seq("seq")?,
            at_ms: row.number("at_ms")?,
            audience: row.audience()?,
            revision: row.number("revision")?,
        })
    };
    Ok(match row.number("verdict")? {
        1 => Outcome::Stored(stored()?),
        2 => Outcome::Duplicate(stored()?),
        3 => Outcome::Conflict(row.seq("seq")?),
        4 => Outcome::Expired,
        5 => Outcome::OutOfOrder(Counter(row.number("expected")?)),
        6 => Outcome::Stale(row.epoch()?),
        7 => Outcome::NotMember,
        8 => Outcome::NotAccepted,
        other => return Err(Fault::corrupt("append_envelopes.verdict", other)),
    })
}

/// Locks in the order of keys, so that two gateways that move the same cursors never wait in a circle.
pub(super) async fn set_cursors(
    c: &mut PgConnection,
    cursors: &[(DeviceId, ConversationId, Seq)],
) -> Fallible<Vec<CursorMoved>> {
    let rows = sqlx::query(
        "WITH moved AS (
             SELECT r.conversation, r.device, max(m.seq) AS seq, max(r.revision) AS revision,
                    bool_and(r.to_seq IS NULL) AS live
             FROM unnest($1::bytea[], $2::bytea[], $3::bigint[]) AS m (device, conversation, seq)
             JOIN readable r ON r.conversation = m.conversation AND r.device = m.device
             WHERE m.seq <= r.head GROUP BY r.conversation, r.device
         ), locked AS MATERIALIZED (
             SELECT u.conversation, u.device, m.seq, m.revision, m.live
             FROM cursors u JOIN moved m ON m.conversation = u.conversation AND m.device = u.device
             WHERE m.seq > u.cursor
             ORDER BY u.conversation, u.device FOR NO KEY UPDATE OF u
         )
         UPDATE cursors u SET cursor = l.seq FROM locked l
         WHERE u.conversation = l.conversation AND u.device = l.device AND u.cursor < l.seq
         RETURNING u.conversation, u.device, u.account, u.cursor AS seq, l.revision, l.live",
    )
    .bind(cursors.iter().map(|(device, ..)| device.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(cursors.iter().map(|(_, conversation, _)| conversation.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(cursors.iter().map(|(.., seq)| stored(seq.0)).collect::<Vec<_>>())
    .fetch_all(c)
    .await?;
    let mut moved =
        rows.iter().filter_map(|row| row.cursor_moved().transpose()).collect::<Fallible<Vec<_>>>()?;
    moved.sort();
    Ok(moved)
}

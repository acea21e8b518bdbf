//! The end of blobs: what is past its time is doomed, and what is doomed goes in small steps.

use super::{
    Connection, FOR_UPDATE, SKIP_LOCKED,
    blobs::{COMPLETE, DOOMED, OPEN},
    now,
};
use crate::store::{
    blobs::{BlobKey, Known, SWEEP_PARTS, SWEEP_ROWS, Totals},
    rows::{Columns, Ending, Fallible, Fault},
};
use fastchat_protocol::limits::BLOB_UNFINISHED_HOURS;
use sqlx::AssertSqlSafe;

const HOUR_MS: i64 = 3_600_000;

pub(in crate::store) async fn doom(c: &mut Connection, keep_days: u32) -> Fallible<Ending<u64>> {
    let now = now(c).await?;
    let mut doomed = due(c, OPEN, now - i64::from(BLOB_UNFINISHED_HOURS) * HOUR_MS, now).await?;
    if keep_days > 0 {
        doomed += due(c, COMPLETE, now - i64::from(keep_days) * 24 * HOUR_MS, now).await?;
    }
    Ok(Ending::Commit(doomed))
}

async fn due(c: &mut Connection, state: i64, before_ms: i64, now: i64) -> Fallible<u64> {
    let sql = format!(
        "UPDATE blobs SET state = $4, at_ms = $5 WHERE (conversation, blob) IN (
             SELECT conversation, blob FROM blobs WHERE state = $1 AND at_ms < $2
             ORDER BY at_ms LIMIT $3{FOR_UPDATE}{SKIP_LOCKED})"
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(state).bind(before_ms).bind(SWEEP_ROWS);
    Ok(query.bind(DOOMED).bind(now).execute(c).await?.rows_affected())
}

pub(in crate::store) async fn doomed(
    c: &mut Connection,
    outside: bool,
    since_s: u32,
) -> Fallible<Vec<BlobKey>> {
    let before_ms = now(c).await? - i64::from(since_s) * 1000;
    let query = sqlx::query(
        "SELECT conversation, blob FROM blobs WHERE state = $1 AND at_ms <= $2 AND outside = $3
         ORDER BY at_ms LIMIT $4",
    );
    let rows = query.bind(DOOMED).bind(before_ms).bind(outside).bind(SWEEP_ROWS).fetch_all(c).await?;
    rows.iter()
        .map(|row| Ok(BlobKey { conversation: row.id("conversation")?, blob: row.id("blob")? }))
        .collect()
}

pub(in crate::store) async fn forget(c: &mut Connection, key: BlobKey) -> Fallible<Ending<bool>> {
    let (conversation, blob) = (key.conversation.as_bytes().as_slice(), key.blob.as_bytes().as_slice());
    // A part that is being put holds the row; it is seen by the statements after this one.
    let sql = format!(
        "SELECT 1 AS one FROM blobs WHERE conversation = $1 AND blob = $2 AND state = $3{FOR_UPDATE}{SKIP_LOCKED}"
    );
    let hold = sqlx::query(AssertSqlSafe(sql)).bind(conversation).bind(blob).bind(DOOMED);
    if hold.fetch_optional(&mut *c).await?.is_none() {
        return Ok(Ending::Rollback(true));
    }
    let parts = sqlx::query(
        "DELETE FROM blob_parts WHERE conversation = $1 AND blob = $2 AND part IN (
             SELECT part FROM blob_parts WHERE conversation = $1 AND blob = $2 ORDER BY part LIMIT $3)",
    );
    let parts = parts.bind(conversation).bind(blob).bind(SWEEP_PARTS).execute(&mut *c).await?;
    if parts.rows_affected() == SWEEP_PARTS.unsigned_abs() {
        return Ok(Ending::Commit(false));
    }
    let row = sqlx::query("DELETE FROM blobs WHERE conversation = $1 AND blob = $2");
    row.bind(conversation).bind(blob).execute(c).await?;
    Ok(Ending::Commit(true))
}

/// State and parts are one statement: a blob that ends meanwhile is not seen in between.
pub(in crate::store) async fn known(c: &mut Connection, key: BlobKey) -> Fallible<Known> {
    let query = sqlx::query(
        "SELECT b.state, p.part, p.hash FROM blobs b
         LEFT JOIN blob_parts p ON p.conversation = b.conversation AND p.blob = b.blob AND p.bytes IS NULL
         WHERE b.conversation = $1 AND b.blob = $2",
    );
    let query = query.bind(key.conversation.as_bytes().as_slice()).bind(key.blob.as_bytes().as_slice());
    let rows = query.fetch_all(c).await?;
    let Some(first) = rows.first() else { return Ok(Known::Nothing) };
    if first.optional_i64("state")? != Some(COMPLETE) {
        return Ok(Known::Changing);
    }
    let of_parts =
        rows.iter().filter_map(|row| row.optional_blob("hash").transpose().map(|hash| (row, hash)));
    let parts = of_parts.map(|(row, hash)| {
        let hash = hash?.try_into().map_err(|_| Fault::corrupt("blob_parts.hash", "not 32 bytes"))?;
        Ok((row.small("part")?, hash))
    });
    Ok(Known::Complete(parts.collect::<Fallible<_>>()?))
}

/// Nobody's, of no size: only so that what is under its name goes.
pub(in crate::store) async fn doom_unknown(c: &mut Connection, key: BlobKey) -> Fallible<Ending<()>> {
    let at_ms = now(c).await?;
    let query = sqlx::query(
        "INSERT INTO blobs (conversation, blob, account, device, size_bytes, parts, outside, state, at_ms)
         VALUES ($1, $2, $3, $3, 0, 0, $4, $5, $6) ON CONFLICT (conversation, blob) DO NOTHING",
    );
    let query = query.bind(key.conversation.as_bytes().as_slice()).bind(key.blob.as_bytes().as_slice());
    let query = query.bind([0_u8; 16].as_slice()).bind(true).bind(DOOMED).bind(at_ms);
    query.execute(c).await?;
    Ok(Ending::Commit(()))
}

pub(in crate::store) async fn tokens(c: &mut Connection) -> Fallible<Ending<u64>> {
    let now = now(c).await?;
    let query = sqlx::query(
        "DELETE FROM blob_tokens WHERE token_hash IN (
             SELECT token_hash FROM blob_tokens WHERE expires_at_ms <= $1 ORDER BY expires_at_ms LIMIT $2)",
    );
    Ok(Ending::Commit(query.bind(now).bind(SWEEP_ROWS).execute(c).await?.rows_affected()))
}

pub(in crate::store) async fn totals(c: &mut Connection) -> Fallible<Totals> {
    let rows = sqlx::query(
        "SELECT state, count(*) AS blobs, CAST(sum(size_bytes) AS bigint) AS bytes FROM blobs GROUP BY state",
    );
    let mut totals = Totals::default();
    for row in rows.fetch_all(c).await? {
        let blobs = row.number("blobs")?;
        match row.optional_i64("state")? {
            Some(OPEN) => totals.open = blobs,
            Some(COMPLETE) => (totals.complete, totals.complete_bytes) = (blobs, row.number("bytes")?),
            _ => totals.doomed = blobs,
        }
    }
    Ok(totals)
}

//! What an account keeps for its own devices: sealed parts in slots, and what its recovery code opens.

use super::{
    super::{
        Recovery, SLOT_PART_COST, SLOT_SWEEP,
        rows::{Columns, Ending, Fallible, Fault, stored},
    },
    members,
};
use crate::rim::now_ms;
use bytes::Bytes;
use fastchat_protocol::{AccountId, SlotId, limits::MAX_SLOTS};
use sqlx::SqliteConnection;

pub(super) async fn put(
    c: &mut SqliteConnection,
    account: AccountId,
    (slot, part): (SlotId, u32),
    bytes: &Bytes,
    expires_in_s: u32,
) -> Fallible<Ending<bool>> {
    if !members::are_there(c, &[account], &[]).await? {
        return Ok(Ending::Rollback(false));
    }
    let now = stored(now_ms());
    sweep(c, account, now).await?;
    let put = sqlx::query(
        "INSERT INTO slots (account, slot, part, bytes, expires_at_ms)
         SELECT $1, $2, $3, $4, $5
         WHERE max(length($4), $6) + coalesce((
             SELECT sum(max(length(bytes), $6)) FROM slots
             WHERE account = $1 AND NOT (slot = $2 AND part = $3)), 0) <= coalesce((SELECT slot_bytes FROM quotas WHERE account = $1), $7)
         ON CONFLICT (account, slot, part) DO UPDATE
         SET bytes = excluded.bytes, expires_at_ms = excluded.expires_at_ms",
    )
    .bind(account.as_bytes().as_slice())
    .bind(slot.as_bytes().as_slice())
    .bind(i64::from(part))
    .bind(bytes.as_ref())
    .bind(now + i64::from(expires_in_s) * 1000)
    .bind(SLOT_PART_COST as i64)
    .bind(MAX_SLOTS as i64)
    .execute(c)
    .await?;
    // What the sweep removed had expired in any case.
    Ok(Ending::Commit(put.rows_affected() == 1))
}

/// Removes what has expired: all of the account's, and a few of other accounts, which may never put
/// anything again.
async fn sweep(c: &mut SqliteConnection, account: AccountId, now_ms: i64) -> Fallible<()> {
    sqlx::query(
        "DELETE FROM slots WHERE expires_at_ms <= $2 AND (account = $1 OR rowid IN (
             SELECT rowid FROM slots WHERE expires_at_ms <= $2 ORDER BY expires_at_ms LIMIT $3))",
    )
    .bind(account.as_bytes().as_slice())
    .bind(now_ms)
    .bind(SLOT_SWEEP)
    .execute(c)
    .await?;
    Ok(())
}

pub(super) async fn get(
    c: &mut SqliteConnection,
    account: AccountId,
    slot: SlotId,
    part: u32,
) -> Fallible<Option<Bytes>> {
    let row = sqlx::query(
        "SELECT bytes FROM slots WHERE account = $1 AND slot = $2 AND part = $3 AND expires_at_ms > $4",
    )
    .bind(account.as_bytes().as_slice())
    .bind(slot.as_bytes().as_slice())
    .bind(i64::from(part))
    .bind(stored(now_ms()))
    .fetch_optional(c)
    .await?;
    row.map(|row| row.bytes("bytes")).transpose()
}

pub(super) async fn drop_all(
    c: &mut SqliteConnection,
    account: AccountId,
    slot: SlotId,
) -> Fallible<Ending<()>> {
    let query = sqlx::query("DELETE FROM slots WHERE account = $1 AND slot = $2");
    query.bind(account.as_bytes().as_slice()).bind(slot.as_bytes().as_slice()).execute(c).await?;
    Ok(Ending::Commit(()))
}

pub(super) async fn recovery(c: &mut SqliteConnection, account: AccountId) -> Fallible<Option<Recovery>> {
    let query = sqlx::query("SELECT key_hash, sealed FROM recoveries WHERE account = $1");
    let Some(row) = query.bind(account.as_bytes().as_slice()).fetch_optional(c).await? else {
        return Ok(None);
    };
    let key_hash = row.blob("key_hash")?.try_into();
    Ok(Some(Recovery {
        key_hash: key_hash.map_err(|_| Fault::corrupt("recoveries.key_hash", "not 32 bytes"))?,
        sealed: row.bytes("sealed")?,
    }))
}

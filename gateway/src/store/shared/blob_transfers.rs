//! Transfers of blobs: tokens, what they are for now, and parts.

use super::{
    Connection, FOR_KEY_SHARE,
    blobs::{COMPLETE, DOOMED},
    now,
};
use crate::store::{
    blobs::{Blob, BlobKey, NewPart, NewToken, Part, PutPart, Standing, Transfer},
    operate::ShutOut,
    rows::{Columns, Ending, Fallible, Fault, stored},
};
use fastchat_protocol::{DeviceId, Seq};
use sqlx::AssertSqlSafe;

pub(in crate::store) async fn put_token(c: &mut Connection, token: &NewToken) -> Fallible<Ending<()>> {
    let expires_at_ms = now(c).await? + i64::from(token.lasts_s) * 1000;
    sqlx::query(
        "INSERT INTO blob_tokens (token_hash, conversation, blob, device, puts, expires_at_ms)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(token.hash.as_slice())
    .bind(token.key.conversation.as_bytes().as_slice())
    .bind(token.key.blob.as_bytes().as_slice())
    .bind(token.device.as_bytes().as_slice())
    .bind(token.puts)
    .bind(expires_at_ms)
    .execute(c)
    .await?;
    Ok(Ending::Commit(()))
}

/// How a device stands to a blob, whether it has a token or asks for one.
const STANDING: &str = "d.id AS device, d.account, d.revoked, a.disabled, m.to_seq,
       coalesce(m.barred, false) AS barred, (m.account IS NOT NULL AND m.to_seq IS NULL) AS member,
       b.device AS put_by, b.size_bytes, b.parts, b.outside, b.state, b.head";

pub(in crate::store) async fn transfer(
    c: &mut Connection,
    token_hash: &[u8; 32],
) -> Fallible<Option<Transfer>> {
    let at_ms = now(c).await?;
    let sql = format!(
        "SELECT t.conversation, t.blob, t.puts, {STANDING}
         FROM blob_tokens t JOIN devices d ON d.id = t.device JOIN accounts a ON a.id = d.account
         LEFT JOIN members m ON m.conversation = t.conversation AND m.account = d.account
         LEFT JOIN blobs b ON b.conversation = t.conversation AND b.blob = t.blob
         WHERE t.token_hash = $1 AND t.expires_at_ms > $2"
    );
    let row =
        sqlx::query(AssertSqlSafe(sql)).bind(token_hash.as_slice()).bind(at_ms).fetch_optional(c).await?;
    let Some(row) = row else { return Ok(None) };
    let key = BlobKey { conversation: row.id("conversation")?, blob: row.id("blob")? };
    standing(&row, key, row.flag("puts")?).map(Some)
}

pub(in crate::store) async fn blob(
    c: &mut Connection,
    device: DeviceId,
    key: BlobKey,
) -> Fallible<Option<Blob>> {
    let sql = format!(
        "SELECT {STANDING}
         FROM devices d JOIN accounts a ON a.id = d.account
         LEFT JOIN members m ON m.conversation = $2 AND m.account = d.account
         LEFT JOIN blobs b ON b.conversation = $2 AND b.blob = $3
         WHERE d.id = $1"
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(device.as_bytes().as_slice());
    let query = query.bind(key.conversation.as_bytes().as_slice()).bind(key.blob.as_bytes().as_slice());
    let Some(row) = query.fetch_optional(c).await? else { return Ok(None) };
    Ok(standing(&row, key, false)?.may(false).ok().map(|standing| standing.blob))
}

fn standing(row: &impl Columns, key: BlobKey, puts: bool) -> Fallible<Transfer> {
    let shut_out = match (row.flag("revoked")?, row.flag("disabled")?) {
        (true, _) => Some(ShutOut::Revoked),
        (false, true) => Some(ShutOut::Disabled),
        (false, false) => None,
    };
    let state = row.optional_i64("state")?.filter(|state| *state != DOOMED);
    let blob = match state {
        None => None,
        Some(state) => Some(Standing {
            device: row.id("put_by")?,
            blob: Blob { size_bytes: row.number("size_bytes")?, parts: row.small("parts")? },
            outside: row.flag("outside")?,
            finished: if state == COMPLETE { Some(row.seq("head")?) } else { None },
        }),
    };
    Ok(Transfer {
        key,
        device: row.id("device")?,
        account: row.id("account")?,
        puts,
        shut_out,
        member: row.flag("member")?,
        barred: row.flag("barred")?,
        to_seq: row.optional_number("to_seq")?.map(Seq),
        blob,
    })
}

pub(in crate::store) async fn put_part(
    c: &mut Connection,
    key: BlobKey,
    part: &NewPart,
) -> Fallible<Ending<PutPart>> {
    // Held against the sweep, which removes parts and then the row: no part may come in between.
    let sql = format!(
        "SELECT size_bytes, parts, state FROM blobs
         WHERE conversation = $1 AND blob = $2 AND state <> $3{FOR_KEY_SHARE}"
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(key.conversation.as_bytes().as_slice());
    let found = query.bind(key.blob.as_bytes().as_slice()).bind(DOOMED).fetch_optional(&mut *c).await?;
    let Some(blob) = found else { return Ok(Ending::Rollback(PutPart::NoBlob)) };
    if u64::from(part.number) >= blob.number("parts")? {
        return Ok(Ending::Rollback(PutPart::TooLarge));
    }
    if let Some(there) = judge(c, key, part).await? {
        return Ok(Ending::Rollback(there));
    }
    if blob.optional_i64("state")? == Some(COMPLETE) {
        return Ok(Ending::Rollback(PutPart::Other));
    }
    if put_bytes(c, key).await?.saturating_add(part.size_bytes) > blob.number("size_bytes")? {
        return Ok(Ending::Rollback(PutPart::TooLarge));
    }
    if insert(c, key, part).await? {
        return Ok(Ending::Commit(PutPart::Stored));
    }
    // Another came first; it is committed, or it would still be waited for.
    Ok(Ending::Rollback(judge(c, key, part).await?.unwrap_or(PutPart::NoBlob)))
}

/// What to say of a part that is there.
async fn judge(c: &mut Connection, key: BlobKey, part: &NewPart) -> Fallible<Option<PutPart>> {
    let query =
        sqlx::query("SELECT hash FROM blob_parts WHERE conversation = $1 AND blob = $2 AND part = $3");
    let query = query.bind(key.conversation.as_bytes().as_slice()).bind(key.blob.as_bytes().as_slice());
    let Some(row) = query.bind(i64::from(part.number)).fetch_optional(c).await? else { return Ok(None) };
    Ok(Some(if row.blob("hash")? == part.hash { PutPart::Same } else { PutPart::Other }))
}

async fn put_bytes(c: &mut Connection, key: BlobKey) -> Fallible<u64> {
    let query = sqlx::query(
        "SELECT CAST(coalesce(sum(size_bytes), 0) AS bigint) AS bytes FROM blob_parts
         WHERE conversation = $1 AND blob = $2",
    );
    let query = query.bind(key.conversation.as_bytes().as_slice()).bind(key.blob.as_bytes().as_slice());
    query.fetch_one(c).await?.number("bytes")
}

async fn insert(c: &mut Connection, key: BlobKey, part: &NewPart) -> Fallible<bool> {
    let made = sqlx::query(
        "INSERT INTO blob_parts (conversation, blob, part, hash, size_bytes, bytes)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (conversation, blob, part) DO NOTHING",
    )
    .bind(key.conversation.as_bytes().as_slice())
    .bind(key.blob.as_bytes().as_slice())
    .bind(i64::from(part.number))
    .bind(part.hash.as_slice())
    .bind(stored(part.size_bytes))
    .bind(part.bytes.as_deref())
    .execute(c)
    .await?;
    Ok(made.rows_affected() == 1)
}

pub(in crate::store) async fn part(c: &mut Connection, key: BlobKey, number: u32) -> Fallible<Option<Part>> {
    let query = sqlx::query(
        "SELECT hash, size_bytes, bytes FROM blob_parts
         WHERE conversation = $1 AND blob = $2 AND part = $3",
    );
    let query = query.bind(key.conversation.as_bytes().as_slice()).bind(key.blob.as_bytes().as_slice());
    let Some(row) = query.bind(i64::from(number)).fetch_optional(c).await? else { return Ok(None) };
    let hash = row.blob("hash")?.try_into();
    Ok(Some(Part {
        hash: hash.map_err(|_| Fault::corrupt("blob_parts.hash", "not 32 bytes"))?,
        size_bytes: row.number("size_bytes")?,
        bytes: row.optional_blob("bytes")?.map(Into::into),
    }))
}

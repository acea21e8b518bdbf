//! Blobs: beginning, finishing, finding, dropping; and the half of the store that they are.

use super::{Connection, Database, FOR_UPDATE, accounts, blob_sweep, blob_transfers, now};
use crate::store::{
    Result,
    blobs::{
        Begun, Blob, BlobKey, Blobs, Dropped, Finished, Known, NewBlob, NewPart, NewToken, Part, PutPart,
        Totals, Transfer,
    },
    rows::{Columns, Ending, Fallible, stored},
};
use async_trait::async_trait;
use fastchat_protocol::{AccountId, DeviceId};
use sqlx::AssertSqlSafe;

/// Parts come.
pub(super) const OPEN: i64 = 1;
/// Nothing changes any more.
pub(super) const COMPLETE: i64 = 2;
/// The sweep removes it.
pub(super) const DOOMED: i64 = 3;

#[async_trait]
impl Blobs for Database {
    async fn begin_blob(&self, new: NewBlob, quota_bytes: u64) -> Result<Begun> {
        self.transaction(async |c| begin(c, &new, quota_bytes).await).await
    }

    async fn blob(&self, device: DeviceId, key: BlobKey) -> Result<Option<Blob>> {
        self.read(async |c| blob_transfers::blob(c, device, key).await).await
    }

    async fn finish_blob(&self, device: DeviceId, key: BlobKey) -> Result<Finished> {
        self.transaction(async |c| finish(c, device, key).await).await
    }

    async fn drop_blob(&self, device: DeviceId, key: BlobKey) -> Result<Dropped> {
        self.transaction(async |c| drop_blob(c, device, key).await).await
    }

    async fn put_token(&self, token: NewToken) -> Result<()> {
        self.transaction(async |c| blob_transfers::put_token(c, &token).await).await
    }

    async fn transfer(&self, token_hash: [u8; 32]) -> Result<Option<Transfer>> {
        self.read(async |c| blob_transfers::transfer(c, &token_hash).await).await
    }

    async fn put_part(&self, key: BlobKey, part: NewPart) -> Result<PutPart> {
        self.transaction(async |c| blob_transfers::put_part(c, key, &part).await).await
    }

    async fn part(&self, key: BlobKey, part: u32) -> Result<Option<Part>> {
        self.read(async |c| blob_transfers::part(c, key, part).await).await
    }

    async fn doom_blobs(&self, keep_days: u32) -> Result<u64> {
        self.transaction(async |c| blob_sweep::doom(c, keep_days).await).await
    }

    async fn doomed_blobs(&self, outside: bool, since_s: u32) -> Result<Vec<BlobKey>> {
        self.read(async |c| blob_sweep::doomed(c, outside, since_s).await).await
    }

    async fn forget_blob(&self, key: BlobKey) -> Result<bool> {
        self.transaction(async |c| blob_sweep::forget(c, key).await).await
    }

    async fn known_blob(&self, key: BlobKey) -> Result<Known> {
        self.read(async |c| blob_sweep::known(c, key).await).await
    }

    async fn doom_unknown(&self, key: BlobKey) -> Result<()> {
        self.transaction(async |c| blob_sweep::doom_unknown(c, key).await).await
    }

    async fn sweep_tokens(&self) -> Result<u64> {
        self.transaction(async |c| blob_sweep::tokens(c).await).await
    }

    async fn blob_totals(&self) -> Result<Totals> {
        self.read(async |c| blob_sweep::totals(c).await).await
    }
}

/// A blob's row, as those see it that change it.
struct Row {
    account: AccountId,
    device: DeviceId,
    blob: Blob,
    state: i64,
}

async fn row(c: &mut Connection, key: BlobKey, hold: &str) -> Fallible<Option<Row>> {
    let sql = format!(
        "SELECT account, device, size_bytes, parts, state FROM blobs WHERE conversation = $1 AND blob = $2{hold}"
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(key.conversation.as_bytes().as_slice());
    let Some(row) = query.bind(key.blob.as_bytes().as_slice()).fetch_optional(c).await? else {
        return Ok(None);
    };
    Ok(Some(Row {
        account: row.id("account")?,
        device: row.id("device")?,
        blob: Blob { size_bytes: row.number("size_bytes")?, parts: row.small("parts")? },
        state: stored(row.number("state")?),
    }))
}

/// How a device stands in a conversation.
struct Member {
    role: u64,
    barred: bool,
}

/// `None` unless the device is not revoked, and its account is a member and not disabled.
async fn member(c: &mut Connection, device: DeviceId, key: BlobKey) -> Fallible<Option<Member>> {
    let query = sqlx::query(
        "SELECT CAST(m.role AS bigint) AS role, m.barred FROM admissible m
         JOIN accounts a ON a.id = m.account AND NOT a.disabled
         WHERE m.conversation = $1 AND m.device = $2",
    );
    let query = query.bind(key.conversation.as_bytes().as_slice()).bind(device.as_bytes().as_slice());
    let Some(row) = query.fetch_optional(c).await? else { return Ok(None) };
    Ok(Some(Member { role: row.number("role")?, barred: row.flag("barred")? }))
}

async fn begin(c: &mut Connection, new: &NewBlob, quota_bytes: u64) -> Fallible<Ending<Begun>> {
    // Two that fill the last room would both measure before they insert.
    accounts::hold(c, new.account).await?;
    match member(c, new.device, new.key).await? {
        None => return Ok(Ending::Rollback(Begun::NotMember)),
        Some(Member { barred: true, .. }) => return Ok(Ending::Rollback(Begun::NotAccepted)),
        Some(_) => {}
    }
    if let Some(row) = row(c, new.key, FOR_UPDATE).await? {
        return begin_again(c, new, &row).await;
    }
    let (used_bytes, quota_bytes) = room(c, new.account, quota_bytes).await?;
    if used_bytes.saturating_add(new.size_bytes) > quota_bytes {
        return Ok(Ending::Rollback(Begun::Full { used_bytes, quota_bytes }));
    }
    let at_ms = now(c).await?;
    let made = sqlx::query(
        "INSERT INTO blobs (conversation, blob, account, device, size_bytes, parts, outside, state, at_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (conversation, blob) DO NOTHING",
    )
    .bind(new.key.conversation.as_bytes().as_slice())
    .bind(new.key.blob.as_bytes().as_slice())
    .bind(new.account.as_bytes().as_slice())
    .bind(new.device.as_bytes().as_slice())
    .bind(stored(new.size_bytes))
    .bind(i64::from(new.parts))
    .bind(new.outside)
    .bind(OPEN)
    .bind(at_ms)
    .execute(c)
    .await?;
    match made.rows_affected() {
        0 => Ok(Ending::Rollback(Begun::Conflict)),
        _ => Ok(Ending::Commit(Begun::Open(Vec::new()))),
    }
}

async fn begin_again(c: &mut Connection, new: &NewBlob, row: &Row) -> Fallible<Ending<Begun>> {
    let same = Blob { size_bytes: new.size_bytes, parts: new.parts } == row.blob;
    if !same || row.device != new.device {
        return Ok(Ending::Rollback(Begun::Conflict));
    }
    match row.state {
        COMPLETE => return Ok(Ending::Rollback(Begun::Complete)),
        DOOMED => return Ok(Ending::Rollback(Begun::Gone)),
        _ => {}
    }
    let at_ms = now(c).await?;
    let query = sqlx::query("UPDATE blobs SET at_ms = $3 WHERE conversation = $1 AND blob = $2");
    let query = query.bind(new.key.conversation.as_bytes().as_slice());
    query.bind(new.key.blob.as_bytes().as_slice()).bind(at_ms).execute(&mut *c).await?;
    let there = sizes(c, new.key).await?.into_iter().map(|(part, _)| part).collect();
    Ok(Ending::Commit(Begun::Open(there)))
}

/// Bytes that an account keeps or has announced, and how many it may.
async fn room(c: &mut Connection, account: AccountId, usual: u64) -> Fallible<(u64, u64)> {
    let used = sqlx::query(
        "SELECT CAST(coalesce(sum(size_bytes), 0) AS bigint) AS used,
                (SELECT blob_bytes FROM quotas WHERE account = $1) AS quota
         FROM blobs WHERE account = $1 AND state <> $2",
    );
    let row = used.bind(account.as_bytes().as_slice()).bind(DOOMED).fetch_one(c).await?;
    Ok((row.number("used")?, row.optional_number("quota")?.unwrap_or(usual)))
}

/// The parts that are there, in order, and their lengths.
async fn sizes(c: &mut Connection, key: BlobKey) -> Fallible<Vec<(u32, u64)>> {
    let query = sqlx::query(
        "SELECT part, size_bytes FROM blob_parts WHERE conversation = $1 AND blob = $2 ORDER BY part",
    );
    let query = query.bind(key.conversation.as_bytes().as_slice()).bind(key.blob.as_bytes().as_slice());
    query.fetch_all(c).await?.iter().map(|row| Ok((row.small("part")?, row.number("size_bytes")?))).collect()
}

async fn finish(c: &mut Connection, device: DeviceId, key: BlobKey) -> Fallible<Ending<Finished>> {
    let Some(row) = row(c, key, FOR_UPDATE).await? else { return Ok(Ending::Rollback(Finished::NoBlob)) };
    if member(c, device, key).await?.is_none_or(|member| member.barred) {
        return Ok(Ending::Rollback(Finished::NotMember));
    }
    if row.device != device || row.state == DOOMED {
        return Ok(Ending::Rollback(Finished::NoBlob));
    }
    if row.state == COMPLETE {
        return Ok(Ending::Rollback(Finished::Done));
    }
    let there = sizes(c, key).await?;
    let first_gap = (0..row.blob.parts).zip(&there).find(|(expected, (part, _))| expected != part);
    let missing = first_gap.map_or(there.len() as u32, |(expected, _)| expected);
    if missing < row.blob.parts {
        return Ok(Ending::Rollback(Finished::Missing(missing)));
    }
    let bytes = there.iter().map(|(_, size)| size).sum();
    if bytes != row.blob.size_bytes {
        return Ok(Ending::Rollback(Finished::OtherSize(bytes)));
    }
    let at_ms = now(c).await?;
    let query = sqlx::query(
        "UPDATE blobs SET state = $3, at_ms = $4, head = (SELECT head FROM conversations WHERE id = $1)
         WHERE conversation = $1 AND blob = $2",
    );
    let query = query.bind(key.conversation.as_bytes().as_slice()).bind(key.blob.as_bytes().as_slice());
    query.bind(COMPLETE).bind(at_ms).execute(c).await?;
    Ok(Ending::Commit(Finished::Done))
}

async fn drop_blob(c: &mut Connection, device: DeviceId, key: BlobKey) -> Fallible<Ending<Dropped>> {
    /// Of `members.role`: an admin; the owner has more.
    const ADMIN: u64 = 2;
    let Some(row) = row(c, key, FOR_UPDATE).await? else { return Ok(Ending::Rollback(Dropped::NoBlob)) };
    // Who put it may drop it also when out of the conversation.
    let own = sqlx::query(
        "SELECT 1 AS one FROM devices d JOIN accounts a ON a.id = d.account AND NOT a.disabled
         WHERE d.id = $1 AND d.account = $2 AND NOT d.revoked",
    );
    let own = own.bind(device.as_bytes().as_slice()).bind(row.account.as_bytes().as_slice());
    if own.fetch_optional(&mut *c).await?.is_none() {
        match member(c, device, key).await? {
            None => return Ok(Ending::Rollback(Dropped::NoBlob)),
            Some(member) if member.role < ADMIN => return Ok(Ending::Rollback(Dropped::Forbidden)),
            Some(_) => {}
        }
    }
    if row.state == DOOMED {
        return Ok(Ending::Rollback(Dropped::Done));
    }
    let at_ms = now(c).await?;
    let query = sqlx::query("UPDATE blobs SET state = $3, at_ms = $4 WHERE conversation = $1 AND blob = $2");
    let query = query.bind(key.conversation.as_bytes().as_slice()).bind(key.blob.as_bytes().as_slice());
    query.bind(DOOMED).bind(at_ms).execute(c).await?;
    Ok(Ending::Commit(Dropped::Done))
}

//! Invites: codes by which strangers may register.

use super::{Connection, audit, now};
use crate::store::{
    operate::{Act, Invite, NewInvite, Note},
    rows::{Columns, Ending, Fallible, Fault, stored},
};

pub(in crate::store) async fn make(c: &mut Connection, by: &str, invite: &NewInvite) -> Fallible<Ending<()>> {
    let now = now(c).await?;
    let lasts_ms = invite.lasts_s.map(|seconds| stored(seconds.saturating_mul(1000)));
    sqlx::query(
        "INSERT INTO invites (code_hash, note, uses, made_at_ms, expires_at_ms) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(invite.code_hash.as_slice())
    .bind(&invite.note)
    .bind(i64::from(invite.uses))
    .bind(now)
    .bind(lasts_ms.map(|ms| now.saturating_add(ms)))
    .execute(&mut *c)
    .await?;
    let detail = format!("invite {} for {}", short(&invite.code_hash), invite.uses);
    audit::note(c, &Note { actor: by.into(), act: Act::InviteMade, account: None, detail }).await?;
    Ok(Ending::Commit(()))
}

pub(in crate::store) async fn list(c: &mut Connection) -> Fallible<Vec<Invite>> {
    let now = now(c).await?.unsigned_abs();
    let query = sqlx::query("SELECT * FROM invites ORDER BY made_at_ms DESC, code_hash");
    query.fetch_all(c).await?.iter().map(|row| invite(row, now)).collect()
}

fn invite(row: &impl Columns, now_ms: u64) -> Fallible<Invite> {
    let hash = row.blob("code_hash")?.try_into();
    let expires_at_ms = row.optional_number("expires_at_ms")?;
    let (uses, used, revoked) = (row.number("uses")?, row.number("used")?, row.flag("revoked")?);
    Ok(Invite {
        code_hash: hash.map_err(|_| Fault::corrupt("invites.code_hash", "not 32 bytes"))?,
        note: row.string("note")?,
        uses,
        used,
        made_at_ms: row.number("made_at_ms")?,
        expires_at_ms,
        revoked,
        good: used < uses && !revoked && expires_at_ms.is_none_or(|at| at > now_ms),
    })
}

pub(in crate::store) async fn revoke(
    c: &mut Connection,
    by: &str,
    code_hash: &[u8; 32],
) -> Fallible<Ending<bool>> {
    let query = sqlx::query("UPDATE invites SET revoked = true WHERE code_hash = $1 AND NOT revoked");
    if query.bind(code_hash.as_slice()).execute(&mut *c).await?.rows_affected() == 0 {
        return Ok(Ending::Rollback(false));
    }
    let detail = format!("invite {}", short(code_hash));
    audit::note(c, &Note { actor: by.into(), act: Act::InviteRevoked, account: None, detail }).await?;
    Ok(Ending::Commit(true))
}

/// Uses an invite up by one, in the transaction that registers; false if it is not good. The row's lock
/// makes those who want the last use take turns, and each looks again when its turn comes.
pub(in crate::store) async fn take(c: &mut Connection, code_hash: &[u8; 32]) -> Fallible<bool> {
    let now = now(c).await?;
    let query = sqlx::query(
        "UPDATE invites SET used = used + 1
         WHERE code_hash = $1 AND used < uses AND NOT revoked
           AND (expires_at_ms IS NULL OR expires_at_ms > $2)",
    );
    let taken = query.bind(code_hash.as_slice()).bind(now).execute(c).await?;
    Ok(taken.rows_affected() == 1)
}

/// What an invite is called where its code is not known.
pub(in crate::store) fn short(code_hash: &[u8; 32]) -> String {
    hex::encode(&code_hash[..5])
}

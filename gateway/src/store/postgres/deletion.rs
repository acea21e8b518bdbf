//! The end of devices and of accounts.
//!
//! Both change who may read, so they raise the revision of the conversations. They take locks in the
//! order that everybody has (see [`super::members`]): the account's row, then conversations by id.

use super::{
    super::rows::{Columns, Ending, Fallible},
    mailbox,
};
use fastchat_protocol::{AccountId, DeviceId};
use sqlx::PgConnection;

/// What a revocation brings with it: whoever hands rows out asks again who may read them, and what waits
/// for the devices, or is given out in their name, is gone. The account's row is held.
pub(super) async fn retire(c: &mut PgConnection, devices: &[DeviceId]) -> Fallible<()> {
    let ids: Vec<_> = devices.iter().map(|device| device.as_bytes().as_slice()).collect();
    sqlx::query(
        "WITH locked AS MATERIALIZED (
             SELECT id FROM conversations WHERE id IN (
                 SELECT conversation FROM cursors WHERE device = ANY ($1) AND to_seq IS NULL)
             ORDER BY id FOR NO KEY UPDATE
         )
         UPDATE conversations c SET revision = c.revision + 1 FROM locked l WHERE c.id = l.id",
    )
    .bind(&ids)
    .execute(&mut *c)
    .await?;
    for query in [
        "DELETE FROM key_packages WHERE device = ANY ($1)",
        "DELETE FROM last_resort_packages WHERE device = ANY ($1)",
    ] {
        sqlx::query(query).bind(&ids).execute(&mut *c).await?;
    }
    mailbox::forget(c, devices).await
}

pub(super) async fn delete_account(c: &mut PgConnection, account: AccountId) -> Fallible<Ending<bool>> {
    let id = account.as_bytes().as_slice();
    let lock = sqlx::query("SELECT 1 FROM accounts WHERE id = $1 AND NOT deleted FOR NO KEY UPDATE");
    if lock.bind(id).fetch_optional(&mut *c).await?.is_none() {
        return Ok(Ending::Rollback(true));
    }
    // Held in order; what is read of them comes after, in statements of their own.
    sqlx::query(
        "SELECT 1 FROM conversations WHERE id IN (
             SELECT conversation FROM members WHERE account = $1 AND to_seq IS NULL)
         ORDER BY id FOR NO KEY UPDATE",
    )
    .bind(id)
    .execute(&mut *c)
    .await?;
    if is_needed(c, account).await? {
        return Ok(Ending::Rollback(false));
    }
    leave_all(c, account).await?;
    let devices = sqlx::query("UPDATE devices SET revoked = true WHERE account = $1 RETURNING id");
    let devices = devices.bind(id).fetch_all(&mut *c).await?;
    let devices = devices.iter().map(|row| row.id("id")).collect::<Fallible<Vec<DeviceId>>>()?;
    retire(c, &devices).await?;
    for query in [
        "DELETE FROM slots WHERE account = $1",
        "DELETE FROM recoveries WHERE account = $1",
        "DELETE FROM blocks WHERE account = $1",
        "DELETE FROM last_seen WHERE account = $1",
        "DELETE FROM read_positions WHERE account = $1 AND conversation IN (
             SELECT conversation FROM members WHERE account = $1)",
        "UPDATE accounts SET deleted = true, password_hash = '' WHERE id = $1",
    ] {
        sqlx::query(query).bind(id).execute(&mut *c).await?;
    }
    Ok(Ending::Commit(true))
}

/// Whether a group with others in it would lose its owner.
async fn is_needed(c: &mut PgConnection, account: AccountId) -> Fallible<bool> {
    sqlx::query(
        "SELECT EXISTS (
             SELECT 1 FROM members m JOIN members o ON o.conversation = m.conversation
             WHERE m.account = $1 AND m.role = 3 AND m.to_seq IS NULL
               AND o.account <> $1 AND o.to_seq IS NULL) AS needed",
    )
    .bind(account.as_bytes().as_slice())
    .fetch_one(c)
    .await?
    .flag("needed")
}

/// Out of every conversation with its head as it is: there is no row, because nobody has signed one. In
/// a direct conversation the other party is told by not being accepted any more.
async fn leave_all(c: &mut PgConnection, account: AccountId) -> Fallible<()> {
    for query in [
        "UPDATE conversations c SET revision = c.revision + 1 FROM members m
         WHERE m.conversation = c.id AND m.account = $1 AND m.to_seq IS NULL",
        "WITH locked AS MATERIALIZED (
             SELECT u.conversation, u.device, c.head
             FROM members m JOIN conversations c ON c.id = m.conversation
             JOIN cursors u ON u.conversation = m.conversation AND u.account = m.account
             WHERE m.account = $1 AND m.to_seq IS NULL AND u.to_seq IS NULL
             ORDER BY u.conversation, u.device FOR NO KEY UPDATE OF u
         )
         UPDATE cursors u SET to_seq = l.head FROM locked l
         WHERE u.conversation = l.conversation AND u.device = l.device",
        "UPDATE members o SET barred = true FROM members m JOIN conversations c ON c.id = m.conversation
         WHERE m.account = $1 AND m.to_seq IS NULL AND c.kind = 1
           AND o.conversation = m.conversation AND o.account <> $1",
        "UPDATE members m SET to_seq = c.head, lingers = c.kind = 2 FROM conversations c
         WHERE c.id = m.conversation AND m.account = $1 AND m.to_seq IS NULL",
    ] {
        sqlx::query(query).bind(account.as_bytes().as_slice()).execute(&mut *c).await?;
    }
    Ok(())
}

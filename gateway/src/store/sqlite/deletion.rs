//! The end of devices and of accounts. Both change who may read, so they raise the revision of the
//! conversations.

use super::{
    super::rows::{Columns, Ending, Fallible},
    mailbox, members,
};
use fastchat_protocol::{AccountId, DeviceId};
use sqlx::SqliteConnection;

/// What a revocation brings with it: whoever hands rows out asks again who may read them, and what waits
/// for the device, or is given out in its name, is gone.
pub(super) async fn retire(c: &mut SqliteConnection, device: DeviceId) -> Fallible<()> {
    for query in [
        "UPDATE conversations SET revision = revision + 1
         WHERE id IN (SELECT conversation FROM cursors WHERE device = $1 AND to_seq IS NULL)",
        "DELETE FROM key_packages WHERE device = $1",
        "DELETE FROM last_resort_packages WHERE device = $1",
    ] {
        sqlx::query(query).bind(device.as_bytes().as_slice()).execute(&mut *c).await?;
    }
    mailbox::forget(c, device).await
}

pub(super) async fn delete_account(c: &mut SqliteConnection, account: AccountId) -> Fallible<Ending<bool>> {
    if !members::are_there(c, &[account], &[]).await? {
        return Ok(Ending::Rollback(true));
    }
    if is_needed(c, account).await? {
        return Ok(Ending::Rollback(false));
    }
    leave_all(c, account).await?;
    let id = account.as_bytes().as_slice();
    let devices = sqlx::query("UPDATE devices SET revoked = 1 WHERE account = $1 RETURNING id");
    for row in devices.bind(id).fetch_all(&mut *c).await? {
        retire(c, row.id("id")?).await?;
    }
    for query in [
        "DELETE FROM slots WHERE account = $1",
        "DELETE FROM recoveries WHERE account = $1",
        "DELETE FROM blocks WHERE account = $1",
        "DELETE FROM last_seen WHERE account = $1",
        "DELETE FROM read_positions WHERE account = $1 AND conversation IN (
             SELECT conversation FROM members WHERE account = $1)",
        "UPDATE accounts SET deleted = 1, password_hash = '' WHERE id = $1",
    ] {
        sqlx::query(query).bind(id).execute(&mut *c).await?;
    }
    Ok(Ending::Commit(true))
}

/// Whether a group with others in it would lose its owner.
async fn is_needed(c: &mut SqliteConnection, account: AccountId) -> Fallible<bool> {
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
async fn leave_all(c: &mut SqliteConnection, account: AccountId) -> Fallible<()> {
    for query in [
        "UPDATE conversations SET revision = revision + 1
         WHERE id IN (SELECT conversation FROM members WHERE account = $1 AND to_seq IS NULL)",
        "UPDATE cursors SET to_seq = (SELECT head FROM conversations WHERE id = cursors.conversation)
         WHERE account = $1 AND to_seq IS NULL",
        "UPDATE members SET barred = 1 WHERE account <> $1 AND conversation IN (
             SELECT m.conversation FROM members m JOIN conversations c ON c.id = m.conversation
             WHERE m.account = $1 AND m.to_seq IS NULL AND c.kind = 1)",
        "UPDATE members SET to_seq = c.head, lingers = c.kind = 2 FROM conversations c
         WHERE c.id = members.conversation AND members.account = $1 AND members.to_seq IS NULL",
    ] {
        sqlx::query(query).bind(account.as_bytes().as_slice()).execute(&mut *c).await?;
    }
    Ok(())
}

//! Accounts and devices as an operator sees and ends them.

use super::{Connection, MADE_AT_S, accounts, audit, deletion, notices};
use crate::store::{
    operate::{Act, Note, NoticeKind, User, UserDevice},
    rows::{Columns, Ending, Fallible},
};
use fastchat_protocol::{AccountId, DeviceId};
use sqlx::AssertSqlSafe;

/// The columns of a [`User`]. Only a constant goes into the text.
fn columns() -> String {
    format!(
        "SELECT a.id, a.name, {MADE_AT_S} AS made_at_s, a.disabled, a.deleted,
                (SELECT count(*) FROM devices d WHERE d.account = a.id AND NOT d.revoked) AS devices,
                (SELECT count(*) FROM members m WHERE m.account = a.id AND m.to_seq IS NULL) AS conversations,
                (SELECT CAST(coalesce(sum(length(s.bytes)), 0) AS bigint) FROM slots s WHERE s.account = a.id)
                    AS slot_bytes,
                EXISTS (SELECT 1 FROM recoveries r WHERE r.account = a.id) AS recovery
         FROM accounts a"
    )
}

pub(in crate::store) async fn list(
    c: &mut Connection,
    pattern: &str,
    after: &str,
    limit: u32,
) -> Fallible<Vec<User>> {
    let like = pattern.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_").replace('*', "%");
    let sql = columns() + r" WHERE a.name LIKE $1 ESCAPE '\' AND a.name > $2 ORDER BY a.name LIMIT $3";
    let query = sqlx::query(AssertSqlSafe(sql)).bind(like).bind(after).bind(i64::from(limit));
    query.fetch_all(c).await?.iter().map(user).collect()
}

pub(in crate::store) async fn get(c: &mut Connection, name: &str) -> Fallible<Option<User>> {
    let sql = columns() + " WHERE a.name = $1";
    let row = sqlx::query(AssertSqlSafe(sql)).bind(name).fetch_optional(c).await?;
    row.as_ref().map(user).transpose()
}

fn user(row: &impl Columns) -> Fallible<User> {
    Ok(User {
        account: row.id("id")?,
        name: row.string("name")?,
        made_at_s: row.number("made_at_s")?,
        disabled: row.flag("disabled")?,
        deleted: row.flag("deleted")?,
        devices: row.number("devices")?,
        conversations: row.number("conversations")?,
        slot_bytes: row.number("slot_bytes")?,
        recovery: row.flag("recovery")?,
    })
}

pub(in crate::store) async fn set_disabled(
    c: &mut Connection,
    by: &str,
    account: AccountId,
    disabled: bool,
) -> Fallible<Ending<bool>> {
    let query =
        sqlx::query("UPDATE accounts SET disabled = $2 WHERE id = $1 AND disabled <> $2 AND NOT deleted");
    let set = query.bind(account.as_bytes().as_slice()).bind(disabled).execute(&mut *c).await?;
    if set.rows_affected() == 0 {
        return Ok(Ending::Rollback(false));
    }
    if disabled {
        notices::post(c, account, None, NoticeKind::Disabled).await?;
    }
    let act = if disabled { Act::Disabled } else { Act::Enabled };
    note(c, by, act, account, String::new()).await?;
    Ok(Ending::Commit(true))
}

pub(in crate::store) async fn delete(
    c: &mut Connection,
    by: &str,
    account: AccountId,
) -> Fallible<Ending<bool>> {
    let ending = deletion::delete_account(c, account).await?;
    if let Ending::Commit(true) = ending {
        notices::post(c, account, None, NoticeKind::Revoked).await?;
        note(c, by, Act::Deleted, account, String::new()).await?;
    }
    Ok(ending)
}

pub(in crate::store) async fn reset_login(
    c: &mut Connection,
    by: &str,
    account: AccountId,
    void: Option<&str>,
) -> Fallible<Ending<()>> {
    if let Some(hash) = void {
        let query = sqlx::query("UPDATE accounts SET password_hash = $2 WHERE id = $1 AND NOT deleted");
        query.bind(account.as_bytes().as_slice()).bind(hash).execute(&mut *c).await?;
    }
    notices::post(c, account, None, NoticeKind::LoginReset).await?;
    let act = if void.is_some() { Act::PasswordVoided } else { Act::LoginReset };
    note(c, by, act, account, String::new()).await?;
    Ok(Ending::Commit(()))
}

pub(in crate::store) async fn devices(c: &mut Connection, account: AccountId) -> Fallible<Vec<UserDevice>> {
    let rows = sqlx::query(
        "SELECT d.id, d.revoked,
                (SELECT count(*) FROM key_packages k WHERE k.device = d.id) AS key_packages,
                (SELECT count(*) FROM readable r WHERE r.device = d.id AND r.to_seq IS NULL) AS conversations,
                (SELECT count(*) FROM mailbox b WHERE b.device = d.id) AS mailbox
         FROM devices d WHERE d.account = $1 ORDER BY d.id",
    )
    .bind(account.as_bytes().as_slice())
    .fetch_all(c)
    .await?;
    rows.iter().map(user_device).collect()
}

fn user_device(row: &impl Columns) -> Fallible<UserDevice> {
    Ok(UserDevice {
        device: row.id("id")?,
        revoked: row.flag("revoked")?,
        key_packages: row.number("key_packages")?,
        conversations: row.number("conversations")?,
        mailbox: row.number("mailbox")?,
    })
}

pub(in crate::store) async fn shut_out_device(
    c: &mut Connection,
    by: &str,
    account: AccountId,
    device: DeviceId,
) -> Fallible<Ending<bool>> {
    // First the account's row, as everybody who ends a device.
    accounts::hold(c, account).await?;
    let query = sqlx::query("SELECT 1 AS one FROM devices WHERE account = $1 AND id = $2 AND NOT revoked");
    let query = query.bind(account.as_bytes().as_slice()).bind(device.as_bytes().as_slice());
    if query.fetch_optional(&mut *c).await?.is_none() {
        return Ok(Ending::Rollback(false));
    }
    accounts::revoke(c, account, &[device]).await?;
    notices::post(c, account, Some(device), NoticeKind::Revoked).await?;
    note(c, by, Act::DeviceShutOut, account, format!("device {device}")).await?;
    Ok(Ending::Commit(true))
}

async fn note(c: &mut Connection, by: &str, act: Act, account: AccountId, detail: String) -> Fallible<()> {
    audit::note(c, &Note { actor: by.into(), act, account: Some(account), detail }).await
}

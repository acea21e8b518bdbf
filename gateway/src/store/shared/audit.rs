//! The audit log: rows are added and, when they are old, removed; nothing is ever changed.

use super::{Connection, now};
use crate::store::{
    operate::{AUDIT_DAYS, AUDIT_ROWS, AuditRow, Note},
    rows::{Columns, Fallible, Fault, stored},
};
use fastchat_protocol::AccountId;

/// Rows that one sweep removes at most for their age.
const SWEEP: i64 = 1_000;

pub(in crate::store) async fn note(c: &mut Connection, note: &Note) -> Fallible<()> {
    let at_ms = now(c).await?;
    sqlx::query("INSERT INTO audit (at_ms, actor, act, account, detail) VALUES ($1, $2, $3, $4, $5)")
        .bind(at_ms)
        .bind(&note.actor)
        .bind(note.act.label())
        .bind(note.account.as_ref().map(|account| account.as_bytes().as_slice()))
        .bind(&note.detail)
        .execute(c)
        .await?;
    Ok(())
}

pub(in crate::store) async fn list(
    c: &mut Connection,
    account: Option<AccountId>,
    since_ms: u64,
    limit: u32,
) -> Fallible<Vec<AuditRow>> {
    let rows = sqlx::query(
        "SELECT u.number, u.at_ms, u.actor, u.act, u.account, a.name, u.detail
         FROM audit u LEFT JOIN accounts a ON a.id = u.account
         WHERE u.at_ms >= $1 AND ($2 IS NULL OR u.account = $2) ORDER BY u.number DESC LIMIT $3",
    )
    .bind(stored(since_ms))
    .bind(account.as_ref().map(|account| account.as_bytes().as_slice()))
    .bind(i64::from(limit))
    .fetch_all(c)
    .await?;
    rows.iter().rev().map(audit_row).collect()
}

fn audit_row(row: &impl Columns) -> Fallible<AuditRow> {
    let account = match row.optional_blob("account")? {
        Some(_) => Some(row.id("account")?),
        None => None,
    };
    Ok(AuditRow {
        number: row.optional_i64("number")?.ok_or_else(|| Fault::corrupt("audit.number", "null"))?,
        at_ms: row.number("at_ms")?,
        actor: row.string("actor")?,
        act: row.string("act")?,
        name: account.map(|_: AccountId| row.string("name")).transpose()?,
        account,
        detail: row.string("detail")?,
    })
}

/// Rows beyond those that are kept. Numbers follow time closely enough.
pub(in crate::store) async fn sweep(c: &mut Connection) -> Fallible<()> {
    let old = now(c).await? - AUDIT_DAYS * 24 * 3600 * 1000;
    sqlx::query("DELETE FROM audit WHERE number <= (SELECT max(number) FROM audit) - $1")
        .bind(AUDIT_ROWS)
        .execute(&mut *c)
        .await?;
    sqlx::query(
        "DELETE FROM audit WHERE number IN (
             SELECT number FROM (SELECT number, at_ms FROM audit ORDER BY number LIMIT $2) AS first
             WHERE at_ms < $1)",
    )
    .bind(old)
    .bind(SWEEP)
    .execute(c)
    .await?;
    Ok(())
}

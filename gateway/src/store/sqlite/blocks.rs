//! Whom an account does not want to hear from, and whom it knows.

use super::{
    super::rows::{Columns, Ending, Fallible, pair},
    members,
};
use fastchat_protocol::AccountId;
use sqlx::SqliteConnection;
use std::collections::BTreeSet;

/// A block is a row of its own, for foundings and claims, and a mark at the blocked party's place in the
/// direct conversation, for appends. As in Postgres, the revision says that who may write has changed.
pub(super) async fn block(
    c: &mut SqliteConnection,
    account: AccountId,
    other: AccountId,
    blocked: bool,
) -> Fallible<Ending<()>> {
    if account == other || !members::are_there(c, &[account], &[]).await? {
        return Ok(Ending::Rollback(()));
    }
    let query = match blocked {
        true => sqlx::query(
            "INSERT INTO blocks (account, blocked) SELECT $1, id FROM accounts WHERE id = $2
             ON CONFLICT DO NOTHING",
        ),
        false => sqlx::query("DELETE FROM blocks WHERE account = $1 AND blocked = $2"),
    };
    query.bind(account.as_bytes().as_slice()).bind(other.as_bytes().as_slice()).execute(&mut *c).await?;
    let (low, high) = pair(account, other);
    let raise = sqlx::query(
        "UPDATE conversations SET revision = revision + 1 WHERE id = (
             SELECT conversation FROM direct_pairs WHERE low = $1 AND high = $2)",
    );
    raise.bind(low.as_bytes().as_slice()).bind(high.as_bytes().as_slice()).execute(&mut *c).await?;
    sqlx::query(
        "UPDATE members SET barred = $4 WHERE account = $3 AND conversation = (
             SELECT conversation FROM direct_pairs WHERE low = $1 AND high = $2)",
    )
    .bind(low.as_bytes().as_slice())
    .bind(high.as_bytes().as_slice())
    .bind(other.as_bytes().as_slice())
    .bind(blocked)
    .execute(c)
    .await?;
    Ok(Ending::Commit(()))
}

pub(super) async fn has_blocked(
    c: &mut SqliteConnection,
    account: AccountId,
    other: AccountId,
) -> Fallible<bool> {
    sqlx::query("SELECT EXISTS (SELECT 1 FROM blocks WHERE account = $1 AND blocked = $2) AS blocked")
        .bind(account.as_bytes().as_slice())
        .bind(other.as_bytes().as_slice())
        .fetch_one(c)
        .await?
        .flag("blocked")
}

pub(super) async fn blocked(c: &mut SqliteConnection, account: AccountId) -> Fallible<Vec<AccountId>> {
    let query = sqlx::query("SELECT blocked FROM blocks WHERE account = $1 ORDER BY blocked");
    let rows = query.bind(account.as_bytes().as_slice()).fetch_all(c).await?;
    rows.iter().map(|row| row.id("blocked")).collect()
}

pub(super) async fn acquainted(
    c: &mut SqliteConnection,
    account: AccountId,
    others: &[AccountId],
) -> Fallible<Vec<AccountId>> {
    let mut acquainted = Vec::new();
    for other in others.iter().copied().collect::<BTreeSet<_>>() {
        let row = sqlx::query(
            "SELECT EXISTS (
                 SELECT 1 FROM members m JOIN members n ON n.conversation = m.conversation
                 WHERE m.account = $1 AND m.to_seq IS NULL AND n.account = $2 AND n.to_seq IS NULL)
               AND NOT EXISTS (SELECT 1 FROM blocks WHERE account = $2 AND blocked = $1) AS acquainted",
        );
        let row = row.bind(account.as_bytes().as_slice()).bind(other.as_bytes().as_slice());
        if row.fetch_one(&mut *c).await?.flag("acquainted")? {
            acquainted.push(other);
        }
    }
    Ok(acquainted)
}

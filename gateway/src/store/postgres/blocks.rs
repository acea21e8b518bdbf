//! Whom an account does not want to hear from, and whom it knows.

use super::super::rows::{Columns, Ending, Fallible, pair};
use fastchat_protocol::AccountId;
use sqlx::PgConnection;

/// A block is a row of its own, for foundings and claims, and a mark at the blocked party's place in the
/// direct conversation, for appends. The blocker's row is held, as a founding holds it: a conversation
/// that is founded at the same time is marked by one of the two. Who may write has changed, so the
/// revision is raised, under the conversation's lock.
pub(super) async fn block(
    c: &mut PgConnection,
    account: AccountId,
    other: AccountId,
    blocked: bool,
) -> Fallible<Ending<()>> {
    let lock = sqlx::query("SELECT 1 FROM accounts WHERE id = $1 AND NOT deleted FOR NO KEY UPDATE");
    let held = lock.bind(account.as_bytes().as_slice()).fetch_optional(&mut *c).await?;
    if held.is_none() || account == other {
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
    let lock = sqlx::query(
        "UPDATE conversations c SET revision = c.revision + 1 FROM direct_pairs p
         WHERE p.low = $1 AND p.high = $2 AND c.id = p.conversation",
    );
    lock.bind(low.as_bytes().as_slice()).bind(high.as_bytes().as_slice()).execute(&mut *c).await?;
    sqlx::query(
        "UPDATE members m SET barred = $4 FROM direct_pairs p
         WHERE p.low = $1 AND p.high = $2 AND m.conversation = p.conversation AND m.account = $3",
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
    c: &mut PgConnection,
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

pub(super) async fn blocked(c: &mut PgConnection, account: AccountId) -> Fallible<Vec<AccountId>> {
    let query = sqlx::query("SELECT blocked FROM blocks WHERE account = $1 ORDER BY blocked");
    let rows = query.bind(account.as_bytes().as_slice()).fetch_all(c).await?;
    rows.iter().map(|row| row.id("blocked")).collect()
}

pub(super) async fn acquainted(
    c: &mut PgConnection,
    account: AccountId,
    others: &[AccountId],
) -> Fallible<Vec<AccountId>> {
    let rows = sqlx::query(
        "SELECT DISTINCT o.account FROM unnest($2::bytea[]) AS o (account)
         WHERE EXISTS (
             SELECT 1 FROM members m JOIN members n ON n.conversation = m.conversation
             WHERE m.account = $1 AND m.to_seq IS NULL AND n.account = o.account AND n.to_seq IS NULL)
           AND NOT EXISTS (SELECT 1 FROM blocks b WHERE b.account = o.account AND b.blocked = $1)
         ORDER BY o.account",
    )
    .bind(account.as_bytes().as_slice())
    .bind(others.iter().map(|other| other.as_bytes().as_slice()).collect::<Vec<_>>())
    .fetch_all(c)
    .await?;
    rows.iter().map(|row| row.id("account")).collect()
}

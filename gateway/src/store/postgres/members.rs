//! Who is in a conversation: accounts and their devices, coming and going with a row.
//!
//! The order of locks, for everything that changes it: accounts, conversations, cursors, members,
//! mailboxes, each in the order of ids. Whoever lets an account or a device in holds the account's row,
//! so that it cannot be deleted, or the device revoked, in between.

use super::super::{
    NewCommit, NewGroup,
    rows::{Columns, Fallible, comings_and_goings, stored},
};
use fastchat_protocol::{AccountId, ConversationId, DeviceId, Seq};
use sqlx::PgConnection;
use std::collections::BTreeSet;

/// Holds these accounts, and those of these devices, as they are. False if one of the accounts is not
/// there, or any is deleted.
pub(super) async fn hold(
    c: &mut PgConnection,
    accounts: &BTreeSet<AccountId>,
    devices: &[DeviceId],
) -> Fallible<bool> {
    if accounts.is_empty() && devices.is_empty() {
        return Ok(true);
    }
    let rows = sqlx::query(
        "SELECT a.id, a.deleted FROM accounts a
         JOIN (SELECT unnest($1::bytea[]) AS id UNION SELECT account::bytea FROM devices WHERE id = ANY ($2)) AS h
         ON h.id = a.id ORDER BY a.id FOR SHARE OF a",
    )
    .bind(bytes(accounts.iter().map(AccountId::as_bytes)))
    .bind(bytes(devices.iter().map(DeviceId::as_bytes)))
    .fetch_all(c)
    .await?;
    let mut missing = accounts.clone();
    for row in rows {
        if row.flag("deleted")? {
            return Ok(false);
        }
        missing.remove(&row.id("id")?);
    }
    Ok(missing.is_empty())
}

/// Holds what a commit lets in; see [`hold`].
pub(super) async fn hold_for(c: &mut PgConnection, commit: &NewCommit) -> Fallible<bool> {
    let (stay, _) = comings_and_goings(&commit.members);
    let devices: Vec<_> = commit.joins.iter().map(|join| join.device).collect();
    hold(c, &stay.into_iter().map(|(account, _)| account).collect(), &devices).await
}

/// What a commit says of accounts and of devices that go. Those that come in are the mailbox's work,
/// and come after: a device that comes back by an external commit removes its old leaf with it.
pub(super) async fn change(c: &mut PgConnection, commit: &NewCommit, seq: Seq) -> Fallible<()> {
    let (stay, go) = comings_and_goings(&commit.members);
    let touched: Vec<_> =
        commit.removes.iter().copied().chain(commit.joins.iter().map(|join| join.device)).collect();
    if touched.is_empty() && commit.members.is_empty() {
        return Ok(());
    }
    lock_cursors(c, commit.conversation, &touched, &go).await?;
    put_out(c, commit.conversation, seq, &commit.removes, &go).await?;
    put_in(c, commit.conversation, seq, &stay).await
}

/// An account goes by its own statement: its devices are out, and its leaves are still there.
pub(super) async fn leave(
    c: &mut PgConnection,
    conversation: ConversationId,
    device: DeviceId,
    seq: Seq,
) -> Fallible<()> {
    let query = sqlx::query("SELECT account FROM devices WHERE id = $1");
    let account: AccountId =
        query.bind(device.as_bytes().as_slice()).fetch_one(&mut *c).await?.id("account")?;
    lock_cursors(c, conversation, &[], &[account]).await?;
    put_out(c, conversation, seq, &[], &[account]).await?;
    sqlx::query("UPDATE members SET lingers = true WHERE conversation = $1 AND account = $2")
        .bind(conversation.as_bytes().as_slice())
        .bind(account.as_bytes().as_slice())
        .execute(c)
        .await?;
    Ok(())
}

/// Everybody whom a new generation leaves out is out with its row; it has the leaves of nobody else.
pub(super) async fn regenerate(c: &mut PgConnection, founding: &NewGroup, seq: Seq) -> Fallible<()> {
    let conversation = founding.conversation.as_bytes().as_slice();
    let lock = sqlx::query("SELECT 1 FROM cursors WHERE conversation = $1 ORDER BY device FOR NO KEY UPDATE");
    lock.bind(conversation).execute(&mut *c).await?;
    let kept = founding.joins.iter().map(|join| &join.device).chain([&founding.device]);
    sqlx::query(
        "UPDATE cursors SET to_seq = $3
         WHERE conversation = $1 AND to_seq IS NULL AND device <> ALL ($2)",
    )
    .bind(conversation)
    .bind(bytes(kept.map(DeviceId::as_bytes)))
    .bind(stored(seq.0))
    .execute(&mut *c)
    .await?;
    if founding.members.is_empty() {
        // Between two: the parties stay what they are.
        return Ok(());
    }
    sqlx::query(
        "UPDATE members SET to_seq = coalesce(to_seq, $3), lingers = false
         WHERE conversation = $1 AND (to_seq IS NULL OR lingers) AND account <> ALL ($2)",
    )
    .bind(conversation)
    .bind(bytes(founding.members.iter().map(|(account, _)| account.as_bytes())))
    .bind(stored(seq.0))
    .execute(&mut *c)
    .await?;
    put_in(c, founding.conversation, seq, &roles(founding)).await
}

/// The members of a founding, each once.
pub(super) fn roles(founding: &NewGroup) -> Vec<(AccountId, i16)> {
    let members: Vec<_> = founding.members.iter().map(|(account, role)| (*account, Some(*role))).collect();
    comings_and_goings(&members).0
}

/// Gives roles; an account that was not in comes in with this row.
pub(super) async fn put_in(
    c: &mut PgConnection,
    conversation: ConversationId,
    seq: Seq,
    members: &[(AccountId, i16)],
) -> Fallible<()> {
    if members.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO members AS m (conversation, account, role, from_seq)
         SELECT $1, account, role, $4 FROM unnest($2::bytea[], $3::smallint[]) AS i (account, role)
         ORDER BY account
         ON CONFLICT (conversation, account) DO UPDATE
         SET role = excluded.role, to_seq = NULL, lingers = false,
             from_seq = CASE WHEN m.to_seq IS NULL THEN m.from_seq ELSE excluded.from_seq END",
    )
    .bind(conversation.as_bytes().as_slice())
    .bind(bytes(members.iter().map(|(account, _)| account.as_bytes())))
    .bind(members.iter().map(|(_, role)| *role).collect::<Vec<_>>())
    .bind(stored(seq.0))
    .execute(c)
    .await?;
    Ok(())
}

/// These devices, and these accounts with all their devices, read up to this row. The leaves of the
/// accounts are gone.
async fn put_out(
    c: &mut PgConnection,
    conversation: ConversationId,
    seq: Seq,
    devices: &[DeviceId],
    accounts: &[AccountId],
) -> Fallible<()> {
    let accounts = bytes(accounts.iter().map(AccountId::as_bytes));
    sqlx::query(
        "UPDATE cursors SET to_seq = $4
         WHERE conversation = $1 AND (device = ANY ($2) OR account = ANY ($3)) AND to_seq IS NULL",
    )
    .bind(conversation.as_bytes().as_slice())
    .bind(bytes(devices.iter().map(DeviceId::as_bytes)))
    .bind(&accounts)
    .bind(stored(seq.0))
    .execute(&mut *c)
    .await?;
    sqlx::query(
        "UPDATE members SET to_seq = coalesce(to_seq, $3), lingers = false
         WHERE conversation = $1 AND account = ANY ($2)",
    )
    .bind(conversation.as_bytes().as_slice())
    .bind(&accounts)
    .bind(stored(seq.0))
    .execute(c)
    .await?;
    Ok(())
}

/// Cursors also move without their conversation's lock: all that this transaction will touch, first and
/// in their order, so that the two never wait in a circle.
async fn lock_cursors(
    c: &mut PgConnection,
    conversation: ConversationId,
    devices: &[DeviceId],
    accounts: &[AccountId],
) -> Fallible<()> {
    sqlx::query(
        "SELECT 1 FROM cursors WHERE conversation = $1 AND (device = ANY ($2) OR account = ANY ($3))
         ORDER BY device FOR NO KEY UPDATE",
    )
    .bind(conversation.as_bytes().as_slice())
    .bind(bytes(devices.iter().map(DeviceId::as_bytes)))
    .bind(bytes(accounts.iter().map(AccountId::as_bytes)))
    .execute(c)
    .await?;
    Ok(())
}

fn bytes<'a>(ids: impl Iterator<Item = &'a [u8; 16]>) -> Vec<&'a [u8]> {
    ids.map(<[u8; 16]>::as_slice).collect()
}

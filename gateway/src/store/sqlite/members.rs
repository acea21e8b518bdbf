//! Who is in a conversation: accounts and their devices, coming and going with a row.

use super::super::{
    NewCommit, NewGroup,
    rows::{Columns, Fallible, comings_and_goings, stored},
};
use fastchat_protocol::{AccountId, ConversationId, DeviceId, Seq};
use sqlx::SqliteConnection;
use std::collections::BTreeSet;

/// Whether these accounts are there and not deleted, and those of these devices are not deleted.
pub(super) async fn are_there(
    c: &mut SqliteConnection,
    accounts: &[AccountId],
    devices: &[DeviceId],
) -> Fallible<bool> {
    for account in accounts {
        let query = sqlx::query("SELECT 1 FROM accounts WHERE id = $1 AND NOT deleted");
        if query.bind(account.as_bytes().as_slice()).fetch_optional(&mut *c).await?.is_none() {
            return Ok(false);
        }
    }
    for device in devices {
        let query = sqlx::query(
            "SELECT 1 FROM devices d JOIN accounts a ON a.id = d.account WHERE d.id = $1 AND a.deleted",
        );
        if query.bind(device.as_bytes().as_slice()).fetch_optional(&mut *c).await?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a commit lets in; see [`are_there`].
pub(super) async fn are_there_for(c: &mut SqliteConnection, commit: &NewCommit) -> Fallible<bool> {
    let (stay, _) = comings_and_goings(&commit.members);
    let devices: Vec<_> = commit.joins.iter().map(|join| join.device).collect();
    are_there(c, &stay.into_iter().map(|(account, _)| account).collect::<Vec<_>>(), &devices).await
}

/// What a commit says of accounts and of devices that go. Those that come in are the mailbox's work,
/// and come after: a device that comes back by an external commit removes its old leaf with it.
pub(super) async fn change(c: &mut SqliteConnection, commit: &NewCommit, seq: Seq) -> Fallible<()> {
    let (stay, go) = comings_and_goings(&commit.members);
    for device in &commit.removes {
        sqlx::query(
            "UPDATE cursors SET to_seq = $3 WHERE conversation = $1 AND device = $2 AND to_seq IS NULL",
        )
        .bind(commit.conversation.as_bytes().as_slice())
        .bind(device.as_bytes().as_slice())
        .bind(stored(seq.0))
        .execute(&mut *c)
        .await?;
    }
    for account in go {
        put_out(c, commit.conversation, seq, account, false).await?;
    }
    put_in(c, commit.conversation, seq, &stay).await
}

/// An account goes by its own statement: its devices are out, and its leaves are still there.
pub(super) async fn leave(
    c: &mut SqliteConnection,
    conversation: ConversationId,
    device: DeviceId,
    seq: Seq,
) -> Fallible<()> {
    let query = sqlx::query("SELECT account FROM devices WHERE id = $1");
    let account = query.bind(device.as_bytes().as_slice()).fetch_one(&mut *c).await?.id("account")?;
    put_out(c, conversation, seq, account, true).await
}

/// Everybody whom a new generation leaves out is out with its row; it has the leaves of nobody else.
pub(super) async fn regenerate(c: &mut SqliteConnection, founding: &NewGroup, seq: Seq) -> Fallible<()> {
    let roles = roles(founding);
    let accounts: BTreeSet<AccountId> = roles.iter().map(|(account, _)| *account).collect();
    let kept: BTreeSet<DeviceId> =
        founding.joins.iter().map(|join| join.device).chain([founding.device]).collect();
    let conversation = founding.conversation.as_bytes().as_slice();
    let query =
        sqlx::query("SELECT account FROM members WHERE conversation = $1 AND (to_seq IS NULL OR lingers)");
    for row in query.bind(conversation).fetch_all(&mut *c).await? {
        let account = row.id("account")?;
        // Between two, the parties stay what they are.
        if !(accounts.is_empty() || accounts.contains(&account)) {
            put_out(c, founding.conversation, seq, account, false).await?;
        }
    }
    let query = sqlx::query("SELECT device FROM cursors WHERE conversation = $1 AND to_seq IS NULL");
    for row in query.bind(conversation).fetch_all(&mut *c).await? {
        let device: DeviceId = row.id("device")?;
        if !kept.contains(&device) {
            let query = sqlx::query("UPDATE cursors SET to_seq = $3 WHERE conversation = $1 AND device = $2");
            let query = query.bind(conversation).bind(device.as_bytes().as_slice());
            query.bind(stored(seq.0)).execute(&mut *c).await?;
        }
    }
    put_in(c, founding.conversation, seq, &roles).await
}

/// The members of a founding, each once.
pub(super) fn roles(founding: &NewGroup) -> Vec<(AccountId, i16)> {
    let members: Vec<_> = founding.members.iter().map(|(account, role)| (*account, Some(*role))).collect();
    comings_and_goings(&members).0
}

/// Gives roles; an account that was not in comes in with this row.
pub(super) async fn put_in(
    c: &mut SqliteConnection,
    conversation: ConversationId,
    seq: Seq,
    members: &[(AccountId, i16)],
) -> Fallible<()> {
    for (account, role) in members {
        sqlx::query(
            "INSERT INTO members AS m (conversation, account, role, from_seq) VALUES ($1, $2, $3, $4)
             ON CONFLICT (conversation, account) DO UPDATE
             SET role = excluded.role, to_seq = NULL, lingers = 0,
                 from_seq = CASE WHEN m.to_seq IS NULL THEN m.from_seq ELSE excluded.from_seq END",
        )
        .bind(conversation.as_bytes().as_slice())
        .bind(account.as_bytes().as_slice())
        .bind(i64::from(*role))
        .bind(stored(seq.0))
        .execute(&mut *c)
        .await?;
    }
    Ok(())
}

/// The account with all its devices reads up to this row; `lingers` says whether its leaves are still
/// there.
async fn put_out(
    c: &mut SqliteConnection,
    conversation: ConversationId,
    seq: Seq,
    account: AccountId,
    lingers: bool,
) -> Fallible<()> {
    sqlx::query("UPDATE cursors SET to_seq = $3 WHERE conversation = $1 AND account = $2 AND to_seq IS NULL")
        .bind(conversation.as_bytes().as_slice())
        .bind(account.as_bytes().as_slice())
        .bind(stored(seq.0))
        .execute(&mut *c)
        .await?;
    sqlx::query(
        "UPDATE members SET to_seq = coalesce(to_seq, $3), lingers = $4 WHERE conversation = $1 AND account = $2",
    )
    .bind(conversation.as_bytes().as_slice())
    .bind(account.as_bytes().as_slice())
    .bind(stored(seq.0))
    .bind(lingers)
    .execute(c)
    .await?;
    Ok(())
}

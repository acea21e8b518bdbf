//! Foundings of groups, and of their next generations.

use super::{
    super::{
        Audience, Committed, NewGroup, Outcome, Stored,
        rows::{Columns, Ending, Fallible, hash, stored, with_founder},
    },
    append::{Row, insert_row, sender, used},
    commit::{put_row, put_state},
    connection::next_change,
    mailbox::{self, Entry},
    members,
};
use crate::rim::now_ms;
use fastchat_protocol::{Counter, DeviceId, Seq, server::LogKind};
use sqlx::SqliteConnection;

/// The founding's own row.
const FIRST: Seq = Seq(1);

pub(super) async fn found(c: &mut SqliteConnection, founding: &NewGroup) -> Fallible<Ending<Committed>> {
    match founding.parent.is_some() {
        true => next_generation(c, founding).await,
        false => new_group(c, founding).await,
    }
}

async fn new_group(c: &mut SqliteConnection, founding: &NewGroup) -> Fallible<Ending<Committed>> {
    if let Some(repeated) = repeated(c, founding).await? {
        return Ok(Ending::Rollback(repeated.into()));
    }
    if !may_found(c, founding).await? {
        return Ok(Ending::Rollback(Outcome::NotMember.into()));
    }
    if founding.counter != Counter(0) {
        return Ok(Ending::Rollback(Outcome::OutOfOrder(Counter(0)).into()));
    }
    let (at_ms, tx) = (now_ms(), next_change(c).await?);
    insert(c, founding, at_ms).await?;
    members::put_in(c, founding.conversation, FIRST, &members::roles(founding)).await?;
    insert_row(c, &Row::first(founding.conversation, founding.device, at_ms, tx)).await?;
    let first = Stored { seq: FIRST, at_ms, audience: Audience::Group, revision: 1 };
    let_in(c, founding, first, tx).await
}

async fn next_generation(c: &mut SqliteConnection, founding: &NewGroup) -> Fallible<Ending<Committed>> {
    let Some((before, sender)) = sender(c, founding.conversation, founding.device).await? else {
        return Ok(Ending::Rollback(Outcome::NotMember.into()));
    };
    let envelope = hash(&founding.group_info);
    if sender.has_used(founding.counter) {
        let used = used(c, founding.conversation, founding.device, founding.counter, &envelope).await?;
        return Ok(Ending::Rollback(before.repeated(used).into()));
    }
    if let Some(refused) = before.refuse_generation(&sender, founding) {
        return Ok(Ending::Rollback(refused.into()));
    }
    // Between two, whoever has joined may; a group's founder must stay in it.
    if !founding.members.is_empty() && !may_found(c, founding).await? {
        return Ok(Ending::Rollback(Outcome::NotMember.into()));
    }
    let (after, at_ms, tx) = (before.after_generation(founding), now_ms(), next_change(c).await?);
    let row = Row {
        conversation: founding.conversation,
        seq: after.head,
        sender: founding.device,
        counter: founding.counter,
        kind: LogKind::Founded,
        envelope: &envelope,
        at_ms,
        tx,
    };
    put_row(c, &row, &after, Some(founding.suite)).await?;
    members::regenerate(c, founding, after.head).await?;
    let_in(c, founding, after.stored(after.head, at_ms), tx).await
}

async fn let_in(
    c: &mut SqliteConnection,
    founding: &NewGroup,
    row: Stored,
    tx: i64,
) -> Fallible<Ending<Committed>> {
    put_state(c, founding.conversation, [&founding.group_info, &founding.state, &founding.tree]).await?;
    let entry = Entry {
        conversation: founding.conversation,
        seq: row.seq,
        by: founding.device,
        tree: &founding.tree,
        joins: &with_founder(founding),
        tx,
    };
    Ok(match mailbox::let_in(c, &entry).await? {
        Some(mailboxes) => Ending::Commit(Committed { outcome: Outcome::Stored(row), mailboxes }),
        None => Ending::Rollback(Outcome::NotMember.into()),
    })
}

/// The answer to a founding whose id is in use: the same founding, another one by the same device, or
/// somebody else's conversation.
async fn repeated(c: &mut SqliteConnection, founding: &NewGroup) -> Fallible<Option<Outcome>> {
    let row = sqlx::query(
        "SELECT c.revision, f.founder, f.group_info_hash = $2 AS same, f.at_ms
         FROM conversations c LEFT JOIN group_foundings f ON f.conversation = c.id WHERE c.id = $1",
    )
    .bind(founding.conversation.as_bytes().as_slice())
    .bind(hash(&founding.group_info).as_slice())
    .fetch_optional(c)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if row.optional_blob("founder")?.is_none() || row.id::<DeviceId>("founder")? != founding.device {
        return Ok(Some(Outcome::NotMember));
    }
    if founding.counter != Counter(0) || !row.flag("same")? {
        return Ok(Some(Outcome::Conflict(FIRST)));
    }
    let (at_ms, revision) = (row.number("at_ms")?, row.number("revision")?);
    Ok(Some(Outcome::Duplicate(Stored { seq: FIRST, at_ms, audience: Audience::Group, revision })))
}

/// The founder is not revoked, its account is among the members, and all of them are there.
async fn may_found(c: &mut SqliteConnection, founding: &NewGroup) -> Fallible<bool> {
    let query = sqlx::query("SELECT account FROM devices WHERE id = $1 AND NOT revoked");
    let Some(founder) = query.bind(founding.device.as_bytes().as_slice()).fetch_optional(&mut *c).await?
    else {
        return Ok(false);
    };
    let founder = founder.id("account")?;
    let accounts: Vec<_> = founding.members.iter().map(|(account, _)| *account).collect();
    let devices: Vec<_> = founding.joins.iter().map(|join| join.device).collect();
    Ok(accounts.contains(&founder) && members::are_there(c, &accounts, &devices).await?)
}

async fn insert(c: &mut SqliteConnection, founding: &NewGroup, at_ms: u64) -> Fallible<()> {
    sqlx::query(
        "INSERT INTO conversations (id, kind, suite, generation, epoch, fence, head, revision)
         VALUES ($1, 2, $2, $3, $4, $4, 1, 1)",
    )
    .bind(founding.conversation.as_bytes().as_slice())
    .bind(i64::from(founding.suite))
    .bind(i64::from(founding.epoch.generation))
    .bind(stored(founding.epoch.number))
    .execute(&mut *c)
    .await?;
    sqlx::query(
        "INSERT INTO group_foundings (conversation, founder, group_info_hash, at_ms) VALUES ($1, $2, $3, $4)",
    )
    .bind(founding.conversation.as_bytes().as_slice())
    .bind(founding.device.as_bytes().as_slice())
    .bind(hash(&founding.group_info).as_slice())
    .bind(stored(at_ms))
    .execute(c)
    .await?;
    Ok(())
}

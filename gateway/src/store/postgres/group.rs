//! Foundings of groups, and of their next generations.

use super::{
    super::{
        Audience, Committed, NewGroup, Outcome, Stored,
        rows::{Columns, Ending, Fallible, hash, stored, with_founder},
    },
    mailbox::{self, Entry},
    members,
    row::{self, Row},
};
use fastchat_protocol::{Counter, DeviceId, Seq, server::LogKind};
use sqlx::PgConnection;

/// The founding's own row.
const FIRST: Seq = Seq(1);

pub(super) async fn found(c: &mut PgConnection, founding: &NewGroup) -> Fallible<Ending<Committed>> {
    let accounts = founding.members.iter().map(|(account, _)| *account).collect();
    let devices: Vec<_> = with_founder(founding).iter().map(|join| join.device).collect();
    let held = members::hold(c, &accounts, &devices).await?;
    match founding.parent.is_some() {
        true => next_generation(c, founding, held).await,
        false => new_group(c, founding, held).await,
    }
}

async fn new_group(c: &mut PgConnection, founding: &NewGroup, held: bool) -> Fallible<Ending<Committed>> {
    if let Some(repeated) = repeated(c, founding).await? {
        return Ok(Ending::Rollback(repeated.into()));
    }
    if !held || !may_found(c, founding).await? {
        return Ok(Ending::Rollback(Outcome::NotMember.into()));
    }
    if founding.counter != Counter(0) {
        return Ok(Ending::Rollback(Outcome::OutOfOrder(Counter(0)).into()));
    }
    // A repeated founding that comes second waits here for the first one's commit.
    let Some(at_ms) = insert(c, founding).await? else {
        let first = repeated(c, founding).await?;
        return Ok(Ending::Rollback(first.unwrap_or(Outcome::NotMember).into()));
    };
    members::put_in(c, founding.conversation, FIRST, &members::roles(founding)).await?;
    row::insert_first(c, founding.conversation, founding.device, at_ms).await?;
    let first = Stored { seq: FIRST, at_ms, audience: Audience::Group, revision: 1 };
    let_in(c, founding, first).await
}

async fn next_generation(
    c: &mut PgConnection,
    founding: &NewGroup,
    held: bool,
) -> Fallible<Ending<Committed>> {
    let Some(before) = row::lock(c, founding.conversation).await? else {
        return Ok(Ending::Rollback(Outcome::NotMember.into()));
    };
    let row = Row {
        conversation: founding.conversation,
        sender: founding.device,
        counter: founding.counter,
        kind: LogKind::Founded,
        envelope: &hash(&founding.group_info),
    };
    let sender = row::standing(c, row.conversation, row.sender).await?;
    if sender.has_used(row.counter) {
        let used = row::used(c, &row).await?;
        return Ok(Ending::Rollback(before.repeated(used).into()));
    }
    let refused = before.refuse_generation(&sender, founding);
    // Between two, whoever has joined may; a group's founder must stay in it.
    let may = held && (founding.members.is_empty() || may_found(c, founding).await?);
    if let Some(refused) = refused.or((!may).then_some(Outcome::NotMember)) {
        return Ok(Ending::Rollback(refused.into()));
    }
    let after = before.after_generation(founding);
    let at_ms = row::insert(c, &row, after.head).await?;
    row::advance(c, founding.conversation, &after, Some(founding.suite)).await?;
    members::regenerate(c, founding, after.head).await?;
    let_in(c, founding, after.stored(after.head, at_ms)).await
}

async fn let_in(c: &mut PgConnection, founding: &NewGroup, row: Stored) -> Fallible<Ending<Committed>> {
    row::put_state(c, founding.conversation, [&founding.group_info, &founding.state, &founding.tree]).await?;
    let entry = Entry {
        conversation: founding.conversation,
        seq: row.seq,
        by: founding.device,
        tree: &founding.tree,
        joins: &with_founder(founding),
    };
    Ok(match mailbox::let_in(c, &entry).await? {
        Some(mailboxes) => Ending::Commit(Committed { outcome: Outcome::Stored(row), mailboxes }),
        None => Ending::Rollback(Outcome::NotMember.into()),
    })
}

/// The answer to a founding whose id is in use: the same founding, another one by the same device, or
/// somebody else's conversation.
async fn repeated(c: &mut PgConnection, founding: &NewGroup) -> Fallible<Option<Outcome>> {
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

/// The founder is not revoked, and its account is among the members.
async fn may_found(c: &mut PgConnection, founding: &NewGroup) -> Fallible<bool> {
    let accounts: Vec<_> =
        founding.members.iter().map(|(account, _)| account.as_bytes().as_slice()).collect();
    sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM devices WHERE id = $1 AND account = ANY ($2) AND NOT revoked) AS may",
    )
    .bind(founding.device.as_bytes().as_slice())
    .bind(&accounts)
    .fetch_one(c)
    .await?
    .flag("may")
}

/// Returns the time of the founding, if the id was free.
async fn insert(c: &mut PgConnection, founding: &NewGroup) -> Fallible<Option<u64>> {
    let row = sqlx::query(
        "WITH made AS (
             INSERT INTO conversations (id, kind, suite, generation, epoch, fence, head, revision)
             VALUES ($1, 2, $2, $3, $4, $4, 1, 1) ON CONFLICT DO NOTHING RETURNING id
         )
         INSERT INTO group_foundings (conversation, founder, group_info_hash, at_ms)
         SELECT id, $5, $6, floor(extract(epoch FROM clock_timestamp()) * 1000) FROM made
         RETURNING at_ms",
    )
    .bind(founding.conversation.as_bytes().as_slice())
    .bind(i32::from(founding.suite))
    .bind(i64::from(founding.epoch.generation))
    .bind(stored(founding.epoch.number))
    .bind(founding.device.as_bytes().as_slice())
    .bind(hash(&founding.group_info).as_slice())
    .fetch_optional(c)
    .await?;
    row.map(|row| row.number("at_ms")).transpose()
}

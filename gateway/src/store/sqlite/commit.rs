//! Commits, and statements to leave: the row and all that it changes.

use super::{
    super::{
        Committed, NewCommit, NewLeave, Outcome,
        rows::{Ending, Fallible, stored},
        rules::Conversation,
    },
    append::{Row, insert_row, raise_counter, sender, used},
    connection::next_change,
    mailbox::{self, Entry},
    members,
};
use crate::rim::now_ms;
use bytes::Bytes;
use fastchat_protocol::{ConversationId, server::LogKind};
use sqlx::SqliteConnection;

pub(super) async fn append(c: &mut SqliteConnection, commit: &NewCommit) -> Fallible<Ending<Committed>> {
    let Some((before, sender)) = sender(c, commit.conversation, commit.device).await? else {
        return Ok(Ending::Rollback(Outcome::NotMember.into()));
    };
    if sender.has_used(commit.counter) {
        let used = used(c, commit.conversation, commit.device, commit.counter, &commit.commit).await?;
        return Ok(Ending::Rollback(before.repeated(used).into()));
    }
    if let Some(refused) = before.refuse_commit(&sender, commit) {
        return Ok(Ending::Rollback(refused.into()));
    }
    if !members::are_there_for(c, commit).await? {
        return Ok(Ending::Rollback(Outcome::NotMember.into()));
    }
    let (after, at_ms, tx) = (before.after(commit), now_ms(), next_change(c).await?);
    let row = Row {
        conversation: commit.conversation,
        seq: after.head,
        sender: commit.device,
        counter: commit.counter,
        kind: LogKind::Commit,
        envelope: &commit.commit,
        at_ms,
        tx,
    };
    put_row(c, &row, &after, None).await?;
    put_state(c, commit.conversation, [&commit.group_info, &commit.state, &commit.tree]).await?;
    members::change(c, commit, after.head).await?;
    let entry = Entry {
        conversation: commit.conversation,
        seq: after.head,
        by: commit.device,
        tree: &commit.tree,
        joins: &commit.joins,
        tx,
    };
    let Some(mailboxes) = mailbox::let_in(c, &entry).await? else {
        return Ok(Ending::Rollback(Outcome::NotMember.into()));
    };
    let outcome = Outcome::Stored(after.stored(after.head, at_ms));
    Ok(Ending::Commit(Committed { outcome, mailboxes }))
}

pub(super) async fn leave(c: &mut SqliteConnection, leave: &NewLeave) -> Fallible<Ending<Outcome>> {
    let Some((before, sender)) = sender(c, leave.conversation, leave.device).await? else {
        return Ok(Ending::Rollback(Outcome::NotMember));
    };
    if sender.has_used(leave.counter) {
        let used = used(c, leave.conversation, leave.device, leave.counter, &leave.statement).await?;
        return Ok(Ending::Rollback(before.repeated(used)));
    }
    if let Some(refused) = before.refuse_leave(&sender, leave) {
        return Ok(Ending::Rollback(refused));
    }
    let (after, at_ms) = (before.after_leave(), now_ms());
    let row = Row {
        conversation: leave.conversation,
        seq: after.head,
        sender: leave.device,
        counter: leave.counter,
        kind: LogKind::Left,
        envelope: &leave.statement,
        at_ms,
        tx: next_change(c).await?,
    };
    put_row(c, &row, &after, None).await?;
    members::leave(c, leave.conversation, leave.device, after.head).await?;
    Ok(Ending::Commit(Outcome::Stored(after.stored(after.head, at_ms))))
}

/// The row, its sender's counter, and the conversation as it is after it; with another suite, if there
/// is one.
pub(super) async fn put_row(
    c: &mut SqliteConnection,
    row: &Row<'_>,
    after: &Conversation,
    suite: Option<u16>,
) -> Fallible<()> {
    insert_row(c, row).await?;
    raise_counter(c, row.conversation, row.sender, row.counter).await?;
    sqlx::query(
        "UPDATE conversations SET head = $2, generation = $3, epoch = $4, fence = $5, revision = $6,
                suite = coalesce($7, suite) WHERE id = $1",
    )
    .bind(row.conversation.as_bytes().as_slice())
    .bind(stored(after.head.0))
    .bind(i64::from(after.epoch.generation))
    .bind(stored(after.epoch.number))
    .bind(stored(after.fence))
    .bind(stored(after.revision))
    .bind(suite.map(i64::from))
    .execute(c)
    .await?;
    Ok(())
}

/// The public state of the newest epoch: GroupInfo, state, tree.
pub(super) async fn put_state(
    c: &mut SqliteConnection,
    id: ConversationId,
    [group_info, state, tree]: [&Bytes; 3],
) -> Fallible<()> {
    sqlx::query(
        "INSERT INTO group_states (conversation, group_info, state, tree) VALUES ($1, $2, $3, $4)
         ON CONFLICT (conversation) DO UPDATE
         SET group_info = excluded.group_info, state = excluded.state, tree = excluded.tree",
    )
    .bind(id.as_bytes().as_slice())
    .bind(group_info.as_ref())
    .bind(state.as_ref())
    .bind(tree.as_ref())
    .execute(c)
    .await?;
    Ok(())
}

//! Commits: the row and all that it changes, if no other commit came first.

use super::{
    super::{
        Committed, NewCommit, Outcome,
        rows::{Ending, Fallible, stored},
        rules::Conversation,
    },
    append::{Row, conversation, insert_row, raise_counter, standing, used},
    connection::{next_change, now_ms},
    mailbox::{self, Entry},
};
use fastchat_protocol::{Seq, server::LogKind};
use sqlx::SqliteConnection;

pub(super) async fn append(c: &mut SqliteConnection, commit: &NewCommit) -> Fallible<Ending<Committed>> {
    let Some(before) = conversation(c, commit.conversation).await? else {
        return Ok(Ending::Rollback(Outcome::NotMember.into()));
    };
    let sender = standing(c, commit.conversation, commit.device).await?;
    if sender.has_used(commit.counter) {
        let used = used(c, commit.conversation, commit.device, commit.counter, &commit.commit).await?;
        return Ok(Ending::Rollback(before.repeated(used).into()));
    }
    if let Some(refused) = before.refuse_commit(&sender, commit) {
        return Ok(Ending::Rollback(refused.into()));
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
    insert_row(c, &row).await?;
    raise_counter(c, commit.conversation, commit.device, commit.counter).await?;
    advance(c, commit, &after).await?;
    remove(c, commit, after.head).await?;
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

async fn advance(c: &mut SqliteConnection, commit: &NewCommit, after: &Conversation) -> Fallible<()> {
    sqlx::query(
        "UPDATE conversations SET head = $2, generation = $3, epoch = $4, fence = $5, revision = $6 WHERE id = $1",
    )
    .bind(commit.conversation.as_bytes().as_slice())
    .bind(stored(after.head.0))
    .bind(i64::from(after.epoch.generation))
    .bind(stored(after.epoch.number))
    .bind(stored(after.fence))
    .bind(stored(after.revision))
    .execute(&mut *c)
    .await?;
    sqlx::query("UPDATE group_states SET group_info = $2, state = $3, tree = $4 WHERE conversation = $1")
        .bind(commit.conversation.as_bytes().as_slice())
        .bind(commit.group_info.as_ref())
        .bind(commit.state.as_ref())
        .bind(commit.tree.as_ref())
        .execute(c)
        .await?;
    Ok(())
}

/// Before the joins: a device that comes back by an external commit removes its old leaf with it.
async fn remove(c: &mut SqliteConnection, commit: &NewCommit, seq: Seq) -> Fallible<()> {
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
    Ok(())
}

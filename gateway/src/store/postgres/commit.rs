//! Commits, and statements to leave: the row and all that it changes.

use super::{
    super::{
        Committed, NewCommit, NewLeave, Outcome,
        rows::{Ending, Fallible},
    },
    mailbox::{self, Entry},
    members,
    row::{self, Row},
};
use fastchat_protocol::server::LogKind;
use sqlx::PgConnection;

pub(super) async fn append(c: &mut PgConnection, commit: &NewCommit) -> Fallible<Ending<Committed>> {
    let held = members::hold_for(c, commit).await?;
    let Some(before) = row::lock(c, commit.conversation).await? else {
        return Ok(Ending::Rollback(Outcome::NotMember.into()));
    };
    let row = Row {
        conversation: commit.conversation,
        sender: commit.device,
        counter: commit.counter,
        kind: LogKind::Commit,
        envelope: &commit.commit,
    };
    let sender = row::standing(c, row.conversation, row.sender).await?;
    if sender.has_used(row.counter) {
        let used = row::used(c, &row).await?;
        return Ok(Ending::Rollback(before.repeated(used).into()));
    }
    let refused = before.refuse_commit(&sender, commit);
    if let Some(refused) = refused.or((!held).then_some(Outcome::NotMember)) {
        return Ok(Ending::Rollback(refused.into()));
    }
    let after = before.after(commit);
    let at_ms = row::insert(c, &row, after.head).await?;
    row::advance(c, commit.conversation, &after, None).await?;
    row::put_state(c, commit.conversation, [&commit.group_info, &commit.state, &commit.tree]).await?;
    members::change(c, commit, after.head).await?;
    let entry = Entry {
        conversation: commit.conversation,
        seq: after.head,
        by: commit.device,
        tree: &commit.tree,
        joins: &commit.joins,
    };
    let Some(mailboxes) = mailbox::let_in(c, &entry).await? else {
        return Ok(Ending::Rollback(Outcome::NotMember.into()));
    };
    let outcome = Outcome::Stored(after.stored(after.head, at_ms));
    Ok(Ending::Commit(Committed { outcome, mailboxes }))
}

pub(super) async fn leave(c: &mut PgConnection, leave: &NewLeave) -> Fallible<Ending<Outcome>> {
    let Some(before) = row::lock(c, leave.conversation).await? else {
        return Ok(Ending::Rollback(Outcome::NotMember));
    };
    let row = Row {
        conversation: leave.conversation,
        sender: leave.device,
        counter: leave.counter,
        kind: LogKind::Left,
        envelope: &leave.statement,
    };
    let sender = row::standing(c, row.conversation, row.sender).await?;
    if sender.has_used(row.counter) {
        let used = row::used(c, &row).await?;
        return Ok(Ending::Rollback(before.repeated(used)));
    }
    if let Some(refused) = before.refuse_leave(&sender, leave) {
        return Ok(Ending::Rollback(refused));
    }
    let after = before.after_leave();
    let at_ms = row::insert(c, &row, after.head).await?;
    row::advance(c, leave.conversation, &after, None).await?;
    members::leave(c, leave.conversation, leave.device, after.head).await?;
    Ok(Ending::Commit(Outcome::Stored(after.stored(after.head, at_ms))))
}

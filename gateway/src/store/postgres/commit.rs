//! Commits: the row and all that it changes, if no other commit came first.

use super::{
    super::{
        Committed, NewCommit, Outcome, Stored,
        rows::{Columns, Ending, Fallible, stored},
        rules::{Conversation, Standing, Used},
    },
    mailbox::{self, Entry},
};
use fastchat_protocol::{Counter, DeviceId, Seq};
use sqlx::PgConnection;

pub(super) async fn append(c: &mut PgConnection, commit: &NewCommit) -> Fallible<Ending<Committed>> {
    // The lock is a statement of its own: those after it see what was committed while it waited.
    let lock = sqlx::query("SELECT * FROM conversations WHERE id = $1 FOR NO KEY UPDATE");
    let locked = lock.bind(commit.conversation.as_bytes().as_slice()).fetch_optional(&mut *c).await?;
    let Some(locked) = locked else { return Ok(Ending::Rollback(Outcome::NotMember.into())) };
    let before = locked.conversation()?;

    let sender = standing(c, commit).await?;
    if sender.has_used(commit.counter) {
        let used = used(c, commit).await?;
        return Ok(Ending::Rollback(before.repeated(used).into()));
    }
    if let Some(refused) = before.refuse_commit(&sender, commit) {
        return Ok(Ending::Rollback(refused.into()));
    }
    let after = before.after(commit);
    let at_ms = insert_row(c, commit, after.head).await?;
    advance(c, commit, &after).await?;
    remove(c, commit, after.head).await?;
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
    let stored: Stored = after.stored(after.head, at_ms);
    Ok(Ending::Commit(Committed { outcome: Outcome::Stored(stored), mailboxes }))
}

async fn standing(c: &mut PgConnection, commit: &NewCommit) -> Fallible<Standing> {
    let row = sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM devices d JOIN members m ON m.account = d.account
                        WHERE d.id = $2 AND NOT d.revoked AND m.conversation = $1 AND m.to_seq IS NULL) AS member,
                EXISTS (SELECT 1 FROM cursors u
                        WHERE u.conversation = $1 AND u.device = $2 AND u.to_seq IS NULL) AS joined,
                coalesce((SELECT s.high FROM send_counters s
                          WHERE s.conversation = $1 AND s.device = $2), 0) AS high_water",
    )
    .bind(commit.conversation.as_bytes().as_slice())
    .bind(commit.device.as_bytes().as_slice())
    .fetch_one(c)
    .await?;
    Ok(Standing {
        member: row.flag("member")?,
        joined: row.flag("joined")?,
        high: Counter(row.number("high_water")?),
    })
}

async fn used(c: &mut PgConnection, commit: &NewCommit) -> Fallible<Option<Used>> {
    let row = sqlx::query(
        "SELECT seq, at_ms, envelope = $4 AS same FROM log
         WHERE conversation = $1 AND sender = $2 AND counter = $3",
    )
    .bind(commit.conversation.as_bytes().as_slice())
    .bind(commit.device.as_bytes().as_slice())
    .bind(stored(commit.counter.0))
    .bind(commit.commit.as_ref())
    .fetch_optional(c)
    .await?;
    let used = |row: sqlx::postgres::PgRow| {
        Ok(Used { seq: row.seq("seq")?, at_ms: row.number("at_ms")?, same: row.flag("same")? })
    };
    row.map(used).transpose()
}

/// Returns the row's time.
async fn insert_row(c: &mut PgConnection, commit: &NewCommit, seq: Seq) -> Fallible<u64> {
    sqlx::query(
        "WITH up AS (
             INSERT INTO send_counters (conversation, device, high) VALUES ($1, $2, $3)
             ON CONFLICT (conversation, device) DO UPDATE SET high = excluded.high
         )
         INSERT INTO log (conversation, seq, sender, counter, kind, envelope, at_ms, tx)
         VALUES ($1, $4, $2, $3, 3, $5, floor(extract(epoch FROM clock_timestamp()) * 1000),
                 pg_current_xact_id()::text::bigint)
         RETURNING at_ms",
    )
    .bind(commit.conversation.as_bytes().as_slice())
    .bind(commit.device.as_bytes().as_slice())
    .bind(stored(commit.counter.0))
    .bind(stored(seq.0))
    .bind(commit.commit.as_ref())
    .fetch_one(c)
    .await?
    .number("at_ms")
}

async fn advance(c: &mut PgConnection, commit: &NewCommit, after: &Conversation) -> Fallible<()> {
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
async fn remove(c: &mut PgConnection, commit: &NewCommit, seq: Seq) -> Fallible<()> {
    let devices: Vec<_> = commit.removes.iter().map(DeviceId::as_bytes).map(|id| id.as_slice()).collect();
    sqlx::query(
        "UPDATE cursors SET to_seq = $3 WHERE conversation = $1 AND device = ANY ($2) AND to_seq IS NULL",
    )
    .bind(commit.conversation.as_bytes().as_slice())
    .bind(&devices)
    .bind(stored(seq.0))
    .execute(c)
    .await?;
    Ok(())
}

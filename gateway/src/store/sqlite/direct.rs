//! Foundings of direct conversations: one for each pair of accounts.

use super::{
    super::{
        Audience, Founded, Join, NewDirect, Stored,
        rows::{Columns, Ending, Fallible, pair, stored},
    },
    append::{Row, insert_row},
    blocks,
    commit::put_state,
    connection::next_change,
    mailbox::{self, Entry},
    members,
};
use crate::rim::now_ms;
use fastchat_protocol::{ConversationId, DeviceId, Seq};
use sqlx::SqliteConnection;

/// The founding's own row.
const FIRST: Seq = Seq(1);

pub(super) async fn found(c: &mut SqliteConnection, founding: &NewDirect) -> Fallible<Ending<Founded>> {
    if let Some(repeated) = existing(c, founding, false).await? {
        return Ok(Ending::Rollback(repeated));
    }
    let parties = [founding.account, founding.peer];
    if !members::are_there(c, &parties, &[]).await? || !may_found(c, founding).await? {
        return Ok(Ending::Rollback(Founded::NotMember));
    }
    if blocks::has_blocked(c, founding.peer, founding.account).await? {
        return Ok(Ending::Rollback(Founded::NotAccepted));
    }
    if let Some(first) = existing(c, founding, true).await? {
        return Ok(Ending::Rollback(first));
    }
    let at_ms = now_ms();
    if !insert_conversation(c, founding, at_ms).await? {
        return Ok(Ending::Rollback(Founded::NotMember));
    }
    let tx = next_change(c).await?;
    insert_rows(c, founding, at_ms, tx).await?;
    let founder = Join { device: founding.device, welcome: None };
    let others = founding.joins.iter().filter(|join| join.device != founding.device).cloned();
    let entry = Entry {
        conversation: founding.conversation,
        seq: FIRST,
        by: founding.device,
        tree: &founding.tree,
        tx,
        joins: &std::iter::once(founder).chain(others).collect::<Vec<_>>(),
    };
    Ok(match mailbox::let_in(c, &entry).await? {
        Some(mailboxes) => Ending::Commit(Founded::Made { stored: first_row(founding, at_ms), mailboxes }),
        None => Ending::Rollback(Founded::NotMember),
    })
}

/// The pair's conversation, if it has one: this very founding, or (where it was asked for) another.
async fn existing(c: &mut SqliteConnection, founding: &NewDirect, other: bool) -> Fallible<Option<Founded>> {
    let (low, high) = pair(founding.account, founding.peer);
    let row = sqlx::query(
        "SELECT p.conversation, p.founder, p.at_ms, c.revision
         FROM direct_pairs p JOIN conversations c ON c.id = p.conversation WHERE p.low = $1 AND p.high = $2",
    )
    .bind(low.as_bytes().as_slice())
    .bind(high.as_bytes().as_slice())
    .fetch_optional(c)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let (conversation, founder) = (row.id::<ConversationId>("conversation")?, row.id::<DeviceId>("founder")?);
    if conversation == founding.conversation && founder == founding.device {
        let first = Stored { revision: row.number("revision")?, ..first_row(founding, row.number("at_ms")?) };
        return Ok(Some(Founded::Duplicate(first)));
    }
    Ok(other.then_some(Founded::Existing(conversation)))
}

async fn may_found(c: &mut SqliteConnection, founding: &NewDirect) -> Fallible<bool> {
    sqlx::query("SELECT EXISTS (SELECT 1 FROM devices WHERE id = $1 AND account = $2 AND NOT revoked) AS may")
        .bind(founding.device.as_bytes().as_slice())
        .bind(founding.account.as_bytes().as_slice())
        .fetch_one(c)
        .await?
        .flag("may")
}

/// False if the id is another conversation's.
async fn insert_conversation(c: &mut SqliteConnection, founding: &NewDirect, at_ms: u64) -> Fallible<bool> {
    let (low, high) = pair(founding.account, founding.peer);
    let made = sqlx::query(
        "INSERT INTO conversations (id, kind, low, high, suite, generation, epoch, fence, head, revision)
         VALUES ($1, 1, $2, $3, $4, $5, $6, $6, 1, 1) ON CONFLICT DO NOTHING",
    )
    .bind(founding.conversation.as_bytes().as_slice())
    .bind(low.as_bytes().as_slice())
    .bind(high.as_bytes().as_slice())
    .bind(i32::from(founding.suite))
    .bind(i64::from(founding.epoch.generation))
    .bind(stored(founding.epoch.number))
    .execute(&mut *c)
    .await?;
    sqlx::query(
        "INSERT INTO direct_pairs (low, high, conversation, founder, at_ms) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(low.as_bytes().as_slice())
    .bind(high.as_bytes().as_slice())
    .bind(founding.conversation.as_bytes().as_slice())
    .bind(founding.device.as_bytes().as_slice())
    .bind(stored(at_ms))
    .execute(c)
    .await?;
    Ok(made.rows_affected() == 1)
}

async fn insert_rows(c: &mut SqliteConnection, founding: &NewDirect, at_ms: u64, tx: i64) -> Fallible<()> {
    for account in [founding.account, founding.peer] {
        // The second time, in a conversation with oneself, there is nothing to do. Whom the founder has
        // blocked may read what it says, and not answer.
        let query = sqlx::query(
            "INSERT INTO members (conversation, account, from_seq, barred)
             VALUES ($1, $2, 1, EXISTS (SELECT 1 FROM blocks WHERE account = $3 AND blocked = $2))
             ON CONFLICT DO NOTHING",
        )
        .bind(founding.conversation.as_bytes().as_slice())
        .bind(account.as_bytes().as_slice())
        .bind(founding.account.as_bytes().as_slice());
        query.execute(&mut *c).await?;
    }
    insert_row(c, &Row::first(founding.conversation, founding.device, at_ms, tx)).await?;
    put_state(c, founding.conversation, [&founding.group_info, &founding.state, &founding.tree]).await
}

fn first_row(founding: &NewDirect, at_ms: u64) -> Stored {
    let (low, high) = pair(founding.account, founding.peer);
    Stored { seq: FIRST, at_ms, audience: Audience::Pair(low, high), revision: 1 }
}

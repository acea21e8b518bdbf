//! The hot path: batches of envelopes, and cursors.

use super::super::{
    Append, Outcome, Result, StoreError,
    receipts::CursorMoved,
    rows::{Columns, Fallible, Fault, stored},
};
use super::{
    Postgres, plain,
    senders::{self, Key, Sender, key},
};
use fastchat_protocol::{ConversationId, Counter, DeviceId, Seq};
use sqlx::{PgConnection, postgres::PgRow};
use std::{collections::HashMap, time::Instant};

/// Conversations whose part of the batch is plain go the short way ([`plain`]), the others are judged by
/// `append_envelopes`. A batch of both is two transactions, and never parts a conversation.
pub(super) async fn append(store: &Postgres, batch: &[Append]) -> Result<Vec<Outcome>> {
    let mut appending = Appending { batch, outcomes: vec![None; batch.len()], unread: false };
    let mut opened = 0;
    let work = async |c: &mut PgConnection| {
        opened = store.writer.opened();
        let known = store.senders.of(batch, opened, Instant::now());
        appending.run(c, known).await
    };
    let worked = store.append_by(work).await;
    let Appending { outcomes, unread, .. } = appending;
    store.senders.learn(batch, &outcomes, opened);
    // Refusals and duplicates stored nothing: whoever is refused again and again spoils no others.
    let some = unread || outcomes.iter().flatten().any(|outcome| matches!(outcome, Outcome::Stored(_)));
    match worked {
        Err(StoreError::Unavailable(error)) if some => Err(StoreError::Unknown(error)),
        Err(error) => Err(error),
        Ok(()) => {
            let whole: Option<Vec<Outcome>> = outcomes.into_iter().collect();
            let missing = Fault::corrupt("append", "an envelope without an outcome");
            whole.ok_or_else(|| missing.named(StoreError::Unknown))
        }
    }
}

/// A batch on its way.
struct Appending<'a> {
    batch: &'a [Append],
    outcomes: Vec<Option<Outcome>>,
    /// An answer could not be read: what it is about may be stored.
    unread: bool,
}

impl Appending<'_> {
    async fn run(&mut self, c: &mut PgConnection, mut known: HashMap<Key, Sender>) -> Fallible<()> {
        // A first message has no sender that anybody knows.
        let unknown = self.batch.iter().filter(|item| item.counter > Counter(1)).map(key);
        let unknown: Vec<Key> = unknown.filter(|key| !known.contains_key(key)).collect();
        if !unknown.is_empty() {
            known.extend(senders::ask(c, &unknown).await?);
        }
        let (parts, rest) = plain::split(self.batch, &known);
        // First what may fail by one of its items: the error then says that nothing is stored.
        self.judge(c, rest).await?;
        if parts.is_empty() {
            return Ok(());
        }
        let left = match plain::append(c, self.batch, &parts).await {
            Ok((stored, left)) => {
                for (place, stored) in stored {
                    self.outcomes[place] = Some(Outcome::Stored(stored));
                }
                left
            }
            // A counter was used before: by way of another gateway, or it is a retry.
            Err(Fault::Sql(sqlx::Error::Database(error))) if error.is_unique_violation() => {
                parts.into_iter().flat_map(|part| part.places).collect()
            }
            Err(fault) => {
                // What Postgres refused is not stored; anything else may come of reading its answer.
                self.unread = !matches!(fault, Fault::Sql(sqlx::Error::Database(_)));
                return Err(fault);
            }
        };
        self.judge(c, left).await
    }

    async fn judge(&mut self, c: &mut PgConnection, mut places: Vec<usize>) -> Fallible<()> {
        if places.is_empty() {
            return Ok(());
        }
        // In the order of arrival.
        places.sort_unstable();
        let items: Vec<&Append> = places.iter().map(|&place| &self.batch[place]).collect();
        let rows = append_envelopes(c, &items).await?;
        let outcomes: Fallible<Vec<Outcome>> = rows.iter().map(outcome).collect();
        self.unread = outcomes.is_err();
        for (place, outcome) in places.into_iter().zip(outcomes?) {
            self.outcomes[place] = Some(outcome);
        }
        Ok(())
    }
}

async fn append_envelopes(c: &mut PgConnection, batch: &[&Append]) -> Fallible<Vec<PgRow>> {
    let column = |f: fn(&Append) -> i64| batch.iter().copied().map(f).collect::<Vec<_>>();
    let query = sqlx::query("SELECT * FROM append_envelopes($1, $2, $3, $4, $5, $6)")
        .bind(batch.iter().map(|item| item.conversation.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(batch.iter().map(|item| item.device.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(column(|item| stored(item.counter.0)))
        .bind(column(|item| item.epoch.generation.into()))
        .bind(column(|item| stored(item.epoch.number)))
        .bind(batch.iter().map(|item| item.envelope.as_ref()).collect::<Vec<_>>());
    Ok(query.fetch_all(c).await?)
}

/// The numbers are explained at `append_envelopes`.
fn outcome(row: &PgRow) -> Fallible<Outcome> {
    let stored = || {
        Ok::<_, Fault>(super::Stored {
            seq: row.seq("seq")?,
            at_ms: row.number("at_ms")?,
            audience: row.audience()?,
            revision: row.number("revision")?,
        })
    };
    Ok(match row.number("verdict")? {
        1 => Outcome::Stored(stored()?),
        2 => Outcome::Duplicate(stored()?),
        3 => Outcome::Conflict(row.seq("seq")?),
        4 => Outcome::Expired,
        5 => Outcome::OutOfOrder(Counter(row.number("expected")?)),
        6 => Outcome::Stale(row.epoch()?),
        7 => Outcome::NotMember,
        8 => Outcome::NotAccepted,
        other => return Err(Fault::corrupt("append_envelopes.verdict", other)),
    })
}

/// Locks in the order of keys, so that two gateways that move the same cursors never wait in a circle.
pub(super) async fn set_cursors(
    c: &mut PgConnection,
    cursors: &[(DeviceId, ConversationId, Seq)],
) -> Fallible<Vec<CursorMoved>> {
    let rows = sqlx::query(
        "WITH moved AS (
             SELECT r.conversation, r.device, max(m.seq) AS seq, max(r.revision) AS revision,
                    bool_and(r.to_seq IS NULL) AS live
             FROM unnest($1::bytea[], $2::bytea[], $3::bigint[]) AS m (device, conversation, seq)
             JOIN readable r ON r.conversation = m.conversation AND r.device = m.device
             WHERE m.seq <= r.head GROUP BY r.conversation, r.device
         ), locked AS MATERIALIZED (
             SELECT u.conversation, u.device, m.seq, m.revision, m.live
             FROM cursors u JOIN moved m ON m.conversation = u.conversation AND m.device = u.device
             WHERE m.seq > u.cursor
             ORDER BY u.conversation, u.device FOR NO KEY UPDATE OF u
         )
         UPDATE cursors u SET cursor = l.seq FROM locked l
         WHERE u.conversation = l.conversation AND u.device = l.device AND u.cursor < l.seq
         RETURNING u.conversation, u.device, u.account, u.cursor AS seq, l.revision, l.live",
    )
    .bind(cursors.iter().map(|(device, ..)| device.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(cursors.iter().map(|(_, conversation, _)| conversation.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(cursors.iter().map(|(.., seq)| stored(seq.0)).collect::<Vec<_>>())
    .fetch_all(c)
    .await?;
    let mut moved =
        rows.iter().filter_map(|row| row.cursor_moved().transpose()).collect::<Fallible<Vec<_>>>()?;
    moved.sort();
    Ok(moved)
}

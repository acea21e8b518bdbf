//! How far accounts are, when they were here, and who may be told.

use super::{
    super::{
        receipts::{Acquaintance, Circle, ReadMark, circle},
        rows::{Columns, Fallible, stored},
    },
    blocks,
};
use fastchat_protocol::{AccountId, ConversationId, limits::MAX_RECEIPT_MEMBERS};
use sqlx::PgConnection;

/// Of each mark the membership revision under which it was believed; none if it was not.
pub(super) async fn mark_read(c: &mut PgConnection, marks: &[ReadMark]) -> Fallible<Vec<Option<u64>>> {
    let rows = sqlx::query(
        "WITH believed AS MATERIALIZED (
             SELECT w.place, r.conversation, r.account, r.revision, w.seq, w.shared
             FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bool[]) WITH ORDINALITY
                 AS w (device, conversation, seq, shared, place)
             JOIN readable r ON r.conversation = w.conversation AND r.device = w.device AND r.to_seq IS NULL
             JOIN members m ON m.conversation = r.conversation AND m.account = r.account
             WHERE w.seq BETWEEN m.from_seq AND r.head
         ), written AS (
             INSERT INTO read_positions AS p (conversation, account, seq, shared_seq)
             SELECT conversation, account, max(seq), coalesce(max(seq) FILTER (WHERE shared), 0)
             FROM believed GROUP BY conversation, account ORDER BY conversation, account
             ON CONFLICT (conversation, account) DO UPDATE
             SET seq = greatest(p.seq, excluded.seq), shared_seq = greatest(p.shared_seq, excluded.shared_seq)
             WHERE p.seq < excluded.seq OR p.shared_seq < excluded.shared_seq
         )
         SELECT place, revision FROM believed",
    )
    .bind(marks.iter().map(|mark| mark.device.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| mark.conversation.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| stored(mark.seq.0)).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| mark.shared).collect::<Vec<_>>())
    .fetch_all(c)
    .await?;
    let mut believed = vec![None; marks.len()];
    for row in rows {
        let place: usize = row.small("place")?;
        if let Some(mark) = believed.get_mut(place - 1) {
            *mark = Some(row.number("revision")?);
        }
    }
    Ok(believed)
}

pub(super) async fn circles(
    c: &mut PgConnection,
    conversations: &[ConversationId],
) -> Fallible<Vec<(ConversationId, Circle)>> {
    let rows = sqlx::query(
        "SELECT c.id, c.low, c.high,
                (SELECT count(*) FROM (
                     SELECT 1 FROM members WHERE conversation = c.id AND to_seq IS NULL LIMIT $2) m) AS present,
                c.kind = 1 AND EXISTS (SELECT 1 FROM members WHERE conversation = c.id AND barred) AS barred
         FROM conversations c WHERE c.id = ANY ($1) ORDER BY c.id",
    )
    .bind(conversations.iter().map(|id| id.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(MAX_RECEIPT_MEMBERS as i64 + 1)
    .fetch_all(c)
    .await?;
    rows.iter().map(|row| Ok((row.id("id")?, circle(row)?))).collect()
}

pub(super) async fn acquaintances(
    c: &mut PgConnection,
    account: AccountId,
    others: &[AccountId],
) -> Fallible<Vec<Acquaintance>> {
    let known = blocks::acquainted(&mut *c, account, others).await?;
    let rows = sqlx::query(
        "SELECT a.id, CASE WHEN a.shares_last_seen THEN l.at_ms END AS at_ms
         FROM accounts a LEFT JOIN last_seen l ON l.account = a.id
         WHERE a.id = ANY ($1) AND a.visible ORDER BY a.id",
    )
    .bind(known.iter().map(|other| other.as_bytes().as_slice()).collect::<Vec<_>>())
    .fetch_all(c)
    .await?;
    rows.iter()
        .map(|row| Ok(Acquaintance { account: row.id("id")?, last_seen_ms: row.optional_number("at_ms")? }))
        .collect()
}

pub(super) async fn note_seen(c: &mut PgConnection, seen: &[(AccountId, u64)]) -> Fallible<()> {
    sqlx::query(
        "INSERT INTO last_seen AS l (account, at_ms)
         SELECT a.id, max(s.at_ms) FROM unnest($1::bytea[], $2::bigint[]) AS s (account, at_ms)
         JOIN accounts a ON a.id = s.account AND a.shares_last_seen AND NOT a.deleted
         GROUP BY a.id ORDER BY a.id
         ON CONFLICT (account) DO UPDATE SET at_ms = greatest(l.at_ms, excluded.at_ms)",
    )
    .bind(seen.iter().map(|(account, _)| account.as_bytes().as_slice()).collect::<Vec<_>>())
    .bind(seen.iter().map(|(_, at_ms)| stored(*at_ms)).collect::<Vec<_>>())
    .execute(c)
    .await?;
    Ok(())
}

//! How far accounts are, when they were here, and who may be told.

use super::{
    super::{
        receipts::{Acquaintance, Circle, ReadMark, circle},
        rows::{Columns, Ending, Fallible, Fault, stored},
    },
    blocks,
    table::table,
};
use fastchat_protocol::{AccountId, ConversationId, limits::MAX_RECEIPT_MEMBERS};
use serde_json::json;
use sqlx::SqliteConnection;

/// Of each mark the membership revision under which it was believed; none if it was not.
pub(super) async fn mark_read(
    c: &mut SqliteConnection,
    marks: &[ReadMark],
) -> Fallible<Ending<Vec<Option<u64>>>> {
    let wanted = marks
        .iter()
        .map(|mark| json!([mark.device.to_string(), mark.conversation.to_string(), stored(mark.seq.0)]));
    let rows = sqlx::query(
        "WITH wanted AS (
             SELECT key AS place, unhex(value ->> 0) AS device, unhex(value ->> 1) AS conversation,
                    value ->> 2 AS seq
             FROM json_each($1))
         SELECT w.place, r.account, r.revision
         FROM wanted w
         CROSS JOIN readable r ON r.device = w.device AND r.conversation = w.conversation
         JOIN members m ON m.conversation = r.conversation AND m.account = r.account
         WHERE r.to_seq IS NULL AND w.seq BETWEEN m.from_seq AND r.head",
    )
    .bind(table(wanted))
    .fetch_all(&mut *c)
    .await?;
    let (mut believed, mut positions) = (vec![None; marks.len()], Vec::with_capacity(rows.len()));
    for row in &rows {
        let (place, account): (usize, AccountId) = (row.small("place")?, row.id("account")?);
        let mark = marks.get(place).ok_or_else(|| Fault::corrupt("place", place))?;
        let (conversation, seq) = (mark.conversation.to_string(), stored(mark.seq.0));
        positions.push(json!([conversation, account.to_string(), seq, mark.shared]));
        believed[place] = Some(row.number("revision")?);
    }
    if positions.is_empty() {
        return Ok(Ending::Rollback(believed));
    }
    sqlx::query(
        "INSERT INTO read_positions (conversation, account, seq, shared_seq)
         SELECT unhex(value ->> 0), unhex(value ->> 1), value ->> 2, iif(value ->> 3, value ->> 2, 0)
         FROM json_each($1) WHERE true
         ON CONFLICT (conversation, account) DO UPDATE
         SET seq = max(seq, excluded.seq), shared_seq = max(shared_seq, excluded.shared_seq)",
    )
    .bind(table(positions))
    .execute(c)
    .await?;
    Ok(Ending::Commit(believed))
}

pub(super) async fn circles(
    c: &mut SqliteConnection,
    conversations: &[ConversationId],
) -> Fallible<Vec<(ConversationId, Circle)>> {
    let rows = sqlx::query(
        "SELECT c.id, c.low, c.high,
                (SELECT count(*) FROM (
                     SELECT 1 FROM members WHERE conversation = c.id AND to_seq IS NULL LIMIT $2)) AS present,
                c.kind = 1 AND EXISTS (SELECT 1 FROM members WHERE conversation = c.id AND barred) AS barred
         FROM json_each($1) CROSS JOIN conversations c ON c.id = unhex(value ->> 0)",
    )
    .bind(table(conversations.iter().map(|conversation| json!([conversation.to_string()]))))
    .bind(MAX_RECEIPT_MEMBERS as i64 + 1)
    .fetch_all(c)
    .await?;
    let mut circles = Vec::with_capacity(rows.len());
    for row in &rows {
        circles.push((row.id("id")?, circle(row)?));
    }
    circles.sort_by_key(|(conversation, _)| *conversation);
    circles.dedup();
    Ok(circles)
}

pub(super) async fn acquaintances(
    c: &mut SqliteConnection,
    account: AccountId,
    others: &[AccountId],
) -> Fallible<Vec<Acquaintance>> {
    let mut acquaintances = Vec::new();
    for other in blocks::acquainted(&mut *c, account, others).await? {
        let row = sqlx::query(
            "SELECT CASE WHEN a.shares_last_seen THEN l.at_ms END AS at_ms
             FROM accounts a LEFT JOIN last_seen l ON l.account = a.id WHERE a.id = $1 AND a.visible",
        )
        .bind(other.as_bytes().as_slice())
        .fetch_optional(&mut *c)
        .await?;
        if let Some(row) = row {
            acquaintances.push(Acquaintance { account: other, last_seen_ms: row.optional_number("at_ms")? });
        }
    }
    Ok(acquaintances)
}

pub(super) async fn note_seen(c: &mut SqliteConnection, seen: &[(AccountId, u64)]) -> Fallible<Ending<()>> {
    sqlx::query(
        "INSERT INTO last_seen (account, at_ms)
         SELECT a.id, e.value ->> 1 FROM json_each($1) e CROSS JOIN accounts a ON a.id = unhex(e.value ->> 0)
         WHERE a.shares_last_seen AND NOT a.deleted
         ON CONFLICT (account) DO UPDATE SET at_ms = max(at_ms, excluded.at_ms)",
    )
    .bind(table(seen.iter().map(|(account, at_ms)| json!([account.to_string(), stored(*at_ms)]))))
    .execute(c)
    .await?;
    Ok(Ending::Commit(()))
}

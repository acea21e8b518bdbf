//! How far the members of a conversation are, and what an account shares of itself.

use super::Connection;
use crate::store::{
    receipts::told,
    rows::{Ending, Fallible},
};
use fastchat_protocol::{AccountId, ConversationId, DeviceId, server::MemberReceipt};

pub(in crate::store) async fn receipts(
    c: &mut Connection,
    device: DeviceId,
    conversation: ConversationId,
) -> Fallible<Option<Vec<MemberReceipt>>> {
    let rows = sqlx::query(
        "SELECT x.account AS asker, m.account, m.barred, c.kind = 1 AS direct, a.shares_delivered,
                coalesce(u.from_seq, m.from_seq) AS from_seq, u.cursor, p.seq, p.shared_seq
         FROM admissible x
         JOIN conversations c ON c.id = x.conversation
         JOIN members m ON m.conversation = x.conversation AND m.to_seq IS NULL
         JOIN accounts a ON a.id = m.account
         LEFT JOIN (
             SELECT account, min(join_seq) AS from_seq, max(cursor) AS cursor
             FROM readable WHERE conversation = $2 AND to_seq IS NULL GROUP BY account
         ) u ON u.account = m.account
         LEFT JOIN read_positions p ON p.conversation = m.conversation AND p.account = m.account
         WHERE x.device = $1 AND x.conversation = $2 ORDER BY m.account",
    )
    .bind(device.as_bytes().as_slice())
    .bind(conversation.as_bytes().as_slice())
    .fetch_all(c)
    .await?;
    told(&rows)
}

pub(in crate::store) async fn set_sharing(
    c: &mut Connection,
    account: AccountId,
    delivered: bool,
    last_seen: bool,
) -> Fallible<Ending<()>> {
    sqlx::query("UPDATE accounts SET shares_delivered = $2, shares_last_seen = $3 WHERE id = $1")
        .bind(account.as_bytes().as_slice())
        .bind(delivered)
        .bind(last_seen)
        .execute(&mut *c)
        .await?;
    if !last_seen {
        let forget = sqlx::query("DELETE FROM last_seen WHERE account = $1");
        forget.bind(account.as_bytes().as_slice()).execute(c).await?;
    }
    Ok(Ending::Commit(()))
}

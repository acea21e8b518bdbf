//! Devices that connect, in one snapshot.

use super::{
    super::{
        Arrival, Device,
        rows::{Columns, Fallible},
    },
    key_packages, read,
    table::table,
};
use fastchat_protocol::{AccountId, ConversationId, DeviceId};
use serde_json::json;
use sqlx::SqliteConnection;

pub(super) async fn devices(
    c: &mut SqliteConnection,
    devices: &[DeviceId],
) -> Fallible<Vec<(DeviceId, Device)>> {
    let rows = sqlx::query(
        "SELECT d.id, d.account, a.name, d.key, d.revoked, a.disabled, a.visible, q.sends_per_second,
                a.shares_delivered, a.shares_last_seen, coalesce(h.head, 0) AS head
         FROM json_each($1) e CROSS JOIN devices d ON d.id = unhex(e.value ->> 0)
         JOIN accounts a ON a.id = d.account LEFT JOIN mailbox_heads h ON h.device = d.id
         LEFT JOIN quotas q ON q.account = d.account
         ORDER BY e.key",
    )
    .bind(table(devices.iter().map(|device| json!([device.to_string()]))))
    .fetch_all(c)
    .await?;
    rows.iter().map(|row| row.device()).collect()
}

pub(super) async fn arrivals(
    c: &mut SqliteConnection,
    ids: &[DeviceId],
) -> Fallible<Vec<(DeviceId, Arrival)>> {
    let incarnation = read::incarnation(c).await?;
    let mut arrivals = Vec::with_capacity(ids.len());
    for (id, device) in devices(c, ids).await? {
        let groups = groups(c, id).await?;
        let key_packages = key_packages::left(c, id).await?;
        let sole = is_sole(c, id, device.account).await?;
        arrivals.push((id, Arrival { device, sole, incarnation, groups, key_packages }));
    }
    Ok(arrivals)
}

async fn is_sole(c: &mut SqliteConnection, device: DeviceId, account: AccountId) -> Fallible<bool> {
    let query = sqlx::query("SELECT 1 FROM devices WHERE account = $1 AND id <> $2 AND NOT revoked LIMIT 1")
        .bind(account.as_bytes().as_slice())
        .bind(device.as_bytes().as_slice());
    Ok(query.fetch_optional(c).await?.is_none())
}

async fn groups(c: &mut SqliteConnection, device: DeviceId) -> Fallible<Vec<ConversationId>> {
    let query = sqlx::query(
        "SELECT conversation FROM readable WHERE device = $1 AND low IS NULL AND to_seq IS NULL
         ORDER BY conversation",
    );
    let rows = query.bind(device.as_bytes().as_slice()).fetch_all(c).await?;
    rows.iter().map(|row| row.id("conversation")).collect()
}

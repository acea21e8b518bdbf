//! The directory of key packages.

use super::super::{
    Claimed,
    rows::{Columns, Ending, Fallible},
};
use bytes::Bytes;
use fastchat_protocol::{AccountId, DeviceId, limits::MAX_STORED_KEY_PACKAGES, server::KeyPackagesLeft};
use sqlx::{PgConnection, postgres::PgRow};

pub(super) async fn publish(
    c: &mut PgConnection,
    device: DeviceId,
    suite: u16,
    one_time: &[Bytes],
    last_resort: Option<&Bytes>,
) -> Fallible<Ending<KeyPackagesLeft>> {
    // Two publishers of one device would both count before they insert.
    let lock = sqlx::query("SELECT 1 FROM devices WHERE id = $1 FOR NO KEY UPDATE");
    lock.bind(device.as_bytes().as_slice()).execute(&mut *c).await?;
    sqlx::query(
        "INSERT INTO key_packages (device, suite, package)
         SELECT $1, $2, package FROM unnest($3::bytea[]) WITH ORDINALITY AS p (package, place)
         WHERE place <= $4 - (SELECT count(*) FROM key_packages WHERE device = $1 AND suite = $2)
         ORDER BY place",
    )
    .bind(device.as_bytes().as_slice())
    .bind(i32::from(suite))
    .bind(one_time.iter().map(Bytes::as_ref).collect::<Vec<_>>())
    .bind(i64::from(MAX_STORED_KEY_PACKAGES))
    .execute(&mut *c)
    .await?;
    if let Some(package) = last_resort {
        sqlx::query(
            "INSERT INTO last_resort_packages (device, suite, package) VALUES ($1, $2, $3)
             ON CONFLICT (device, suite) DO UPDATE SET package = excluded.package",
        )
        .bind(device.as_bytes().as_slice())
        .bind(i32::from(suite))
        .bind(package.as_ref())
        .execute(&mut *c)
        .await?;
    }
    let left = left(c, device).await?.into_iter().find(|left| left.suite == suite);
    Ok(Ending::Commit(left.unwrap_or(KeyPackagesLeft { suite, left: 0, last_resort: false })))
}

/// A package that another claim has locked is passed over; one that it deleted is not seen. So each is
/// given out once, and claims of one device do not wait for each other. A block is a row without a device.
pub(super) async fn claim(
    c: &mut PgConnection,
    by: AccountId,
    account: AccountId,
    suite: u16,
) -> Fallible<Claimed> {
    let rows = sqlx::query(
        "WITH block AS MATERIALIZED (
             SELECT 1 FROM blocks WHERE account = $1 AND blocked = $3
         ), live AS MATERIALIZED (
             SELECT id FROM devices WHERE account = $1 AND NOT revoked AND NOT EXISTS (SELECT 1 FROM block)
         ), picked AS MATERIALIZED (
             SELECT l.id AS device, p.number FROM live l CROSS JOIN LATERAL (
                 SELECT number FROM key_packages WHERE device = l.id AND suite = $2
                 ORDER BY number LIMIT 1 FOR UPDATE SKIP LOCKED
             ) p
         ), taken AS (
             DELETE FROM key_packages k USING picked p
             WHERE k.device = p.device AND k.suite = $2 AND k.number = p.number
             RETURNING k.device, k.package
         )
         SELECT device, package FROM taken
         UNION ALL
         SELECT r.device, r.package FROM last_resort_packages r JOIN live l ON l.id = r.device
         WHERE r.suite = $2 AND NOT EXISTS (SELECT 1 FROM taken t WHERE t.device = r.device)
         UNION ALL SELECT NULL, NULL FROM block
         ORDER BY device",
    )
    .bind(account.as_bytes().as_slice())
    .bind(i32::from(suite))
    .bind(by.as_bytes().as_slice())
    .fetch_all(c)
    .await?;
    let mut packages = Vec::with_capacity(rows.len());
    for row in rows {
        if row.optional_blob("device")?.is_none() {
            return Ok(Claimed::NotAccepted);
        }
        packages.push((row.id("device")?, row.bytes("package")?));
    }
    Ok(Claimed::Packages(packages))
}

pub(super) async fn left(c: &mut PgConnection, device: DeviceId) -> Fallible<Vec<KeyPackagesLeft>> {
    let rows = sqlx::query(
        "SELECT suite::bigint, count(*) FILTER (WHERE one_time) AS one_time, bool_or(NOT one_time) AS last_resort
         FROM (SELECT suite, true AS one_time FROM key_packages WHERE device = $1
               UNION ALL SELECT suite, false FROM last_resort_packages WHERE device = $1) AS packages
         GROUP BY suite ORDER BY suite",
    )
    .bind(device.as_bytes().as_slice())
    .fetch_all(c)
    .await?;
    let left = |row: &PgRow| {
        Ok(KeyPackagesLeft {
            suite: row.small("suite")?,
            left: row.small("one_time")?,
            last_resort: row.flag("last_resort")?,
        })
    };
    rows.iter().map(left).collect()
}

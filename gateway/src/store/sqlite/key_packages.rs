//! The directory of key packages.

use super::{
    super::{
        Claimed,
        rows::{Columns, Ending, Fallible},
    },
    blocks,
};
use bytes::Bytes;
use fastchat_protocol::{AccountId, DeviceId, limits::MAX_STORED_KEY_PACKAGES, server::KeyPackagesLeft};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

pub(super) async fn publish(
    c: &mut SqliteConnection,
    device: DeviceId,
    suite: u16,
    one_time: &[Bytes],
    last_resort: Option<&Bytes>,
) -> Fallible<Ending<KeyPackagesLeft>> {
    let stored = left(c, device).await?.into_iter().find(|left| left.suite == suite);
    let room = MAX_STORED_KEY_PACKAGES.saturating_sub(stored.map_or(0, |stored| stored.left));
    for package in one_time.iter().take(room as usize) {
        sqlx::query("INSERT INTO key_packages (device, suite, package) VALUES ($1, $2, $3)")
            .bind(device.as_bytes().as_slice())
            .bind(i32::from(suite))
            .bind(package.as_ref())
            .execute(&mut *c)
            .await?;
    }
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

/// One statement deletes what it returns, and statements that write come one after the other.
pub(super) async fn claim(
    c: &mut SqliteConnection,
    by: AccountId,
    account: AccountId,
    suite: u16,
) -> Fallible<Ending<Claimed>> {
    if blocks::has_blocked(c, account, by).await? {
        return Ok(Ending::Rollback(Claimed::NotAccepted));
    }
    let devices = sqlx::query("SELECT id FROM devices WHERE account = $1 AND NOT revoked ORDER BY id")
        .bind(account.as_bytes().as_slice())
        .fetch_all(&mut *c)
        .await?;
    let mut claimed = Vec::with_capacity(devices.len());
    for device in devices {
        let device: DeviceId = device.id("id")?;
        if let Some(package) = claim_one(c, device, suite).await? {
            claimed.push((device, package));
        }
    }
    Ok(Ending::Commit(Claimed::Packages(claimed)))
}

async fn claim_one(c: &mut SqliteConnection, device: DeviceId, suite: u16) -> Fallible<Option<Bytes>> {
    let one_time = sqlx::query(
        "DELETE FROM key_packages WHERE number = (
             SELECT number FROM key_packages WHERE device = $1 AND suite = $2 ORDER BY number LIMIT 1)
         RETURNING package",
    );
    let last_resort =
        sqlx::query("SELECT package FROM last_resort_packages WHERE device = $1 AND suite = $2");
    for query in [one_time, last_resort] {
        let query = query.bind(device.as_bytes().as_slice()).bind(i32::from(suite));
        if let Some(row) = query.fetch_optional(&mut *c).await? {
            return row.bytes("package").map(Some);
        }
    }
    Ok(None)
}

pub(super) async fn left(c: &mut SqliteConnection, device: DeviceId) -> Fallible<Vec<KeyPackagesLeft>> {
    let rows = sqlx::query(
        "SELECT suite, sum(one_time) AS one_time, min(one_time) = 0 AS last_resort
         FROM (SELECT suite, 1 AS one_time FROM key_packages WHERE device = $1
               UNION ALL SELECT suite, 0 FROM last_resort_packages WHERE device = $1)
         GROUP BY suite ORDER BY suite",
    )
    .bind(device.as_bytes().as_slice())
    .fetch_all(c)
    .await?;
    let left = |row: &SqliteRow| {
        Ok(KeyPackagesLeft {
            suite: row.small("suite")?,
            left: row.small("one_time")?,
            last_resort: row.flag("last_resort")?,
        })
    };
    rows.iter().map(left).collect()
}

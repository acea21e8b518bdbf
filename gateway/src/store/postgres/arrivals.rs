//! Devices that connect: one question for as many as come at once.

use super::super::{
    Arrival, Device,
    rows::{Columns, Fallible, Fault},
};
use fastchat_protocol::{ConversationId, DeviceId, server::KeyPackagesLeft};
use sqlx::{PgConnection, Row, postgres::PgRow};

pub(super) async fn devices(c: &mut PgConnection, devices: &[DeviceId]) -> Fallible<Vec<(DeviceId, Device)>> {
    let query = sqlx::query(
        "SELECT d.id, d.account, a.name, d.key, d.revoked, a.disabled, a.visible, q.sends_per_second,
                a.shares_delivered, a.shares_last_seen, coalesce(h.head, 0) AS head
         FROM devices d JOIN accounts a ON a.id = d.account LEFT JOIN mailbox_heads h ON h.device = d.id
         LEFT JOIN quotas q ON q.account = d.account
         WHERE d.id = ANY ($1)",
    );
    query.bind(ids(devices)).fetch_all(c).await?.iter().map(Columns::device).collect()
}

/// One statement, one snapshot. Groups and key packages come as arrays, so that a device is one row.
///
/// `OFFSET 0` keeps the planner to the way that always leads to few rows: from the device's own cursors,
/// by keys alone. With statistics of when the tables were empty it went through all members of all groups
/// for each device (0.5 s for 64 devices and a group of 1,000).
pub(super) async fn arrivals(
    c: &mut PgConnection,
    devices: &[DeviceId],
) -> Fallible<Vec<(DeviceId, Arrival)>> {
    let query = sqlx::query(
        "SELECT d.id, d.account, a.name, d.key, d.revoked, a.disabled, a.visible, q.sends_per_second,
                a.shares_delivered, a.shares_last_seen, coalesce(h.head, 0) AS head,
                NOT EXISTS (SELECT FROM devices o
                            WHERE o.account = d.account AND o.id <> d.id AND NOT o.revoked) AS sole,
                (SELECT incarnation FROM settings) AS incarnation,
                ARRAY (SELECT own.conversation::bytea
                       FROM (SELECT u.conversation FROM cursors u WHERE u.device = d.id OFFSET 0) AS own
                       CROSS JOIN LATERAL (
                           SELECT r.low, r.to_seq FROM readable r
                           WHERE r.conversation = own.conversation AND r.device = d.id OFFSET 0) AS r
                       WHERE r.low IS NULL AND r.to_seq IS NULL
                       ORDER BY own.conversation) AS groups,
                k.suites, k.one_time, k.last_resort
         FROM devices d JOIN accounts a ON a.id = d.account LEFT JOIN mailbox_heads h ON h.device = d.id
         LEFT JOIN quotas q ON q.account = d.account
         CROSS JOIN LATERAL (
             SELECT array_agg(suite::bigint ORDER BY suite) AS suites,
                    array_agg(one_time ORDER BY suite) AS one_time,
                    array_agg(last_resort ORDER BY suite) AS last_resort
             FROM (SELECT suite, count(*) FILTER (WHERE one_time) AS one_time,
                          bool_or(NOT one_time) AS last_resort
                   FROM (SELECT suite, true AS one_time FROM key_packages WHERE device = d.id
                         UNION ALL
                         SELECT suite, false FROM last_resort_packages WHERE device = d.id) AS packages
                   GROUP BY suite) AS by_suite
         ) AS k
         WHERE d.id = ANY ($1)",
    );
    query.bind(ids(devices)).fetch_all(c).await?.iter().map(arrival).collect()
}

fn ids(devices: &[DeviceId]) -> Vec<&[u8]> {
    devices.iter().map(|device| device.as_bytes().as_slice()).collect()
}

fn arrival(row: &PgRow) -> Fallible<(DeviceId, Arrival)> {
    let (id, device) = row.device()?;
    let groups = row.try_get::<Vec<Vec<u8>>, _>("groups")?;
    let group = |id: &Vec<u8>| {
        ConversationId::try_from(id.as_slice()).map_err(|_| Fault::corrupt("conversations.id", "not an id"))
    };
    Ok((
        id,
        Arrival {
            device,
            sole: row.flag("sole")?,
            incarnation: row.small("incarnation")?,
            groups: groups.iter().map(group).collect::<Fallible<_>>()?,
            key_packages: key_packages(row)?,
        },
    ))
}

/// Three columns of one length, or null without any.
fn key_packages(row: &PgRow) -> Fallible<Vec<KeyPackagesLeft>> {
    let suites = row.try_get::<Option<Vec<i64>>, _>("suites")?.unwrap_or_default();
    let one_time = row.try_get::<Option<Vec<i64>>, _>("one_time")?.unwrap_or_default();
    let last_resort = row.try_get::<Option<Vec<bool>>, _>("last_resort")?.unwrap_or_default();
    let small = |_| Fault::corrupt("key_packages.suite", "not a suite, or too many packages");
    let left = |((suite, left), last_resort)| {
        Ok(KeyPackagesLeft {
            suite: u16::try_from(suite).map_err(small)?,
            left: u32::try_from(left).map_err(small)?,
            last_resort,
        })
    };
    suites.into_iter().zip(one_time).zip(last_resort).map(left).collect()
}

//! Retention: rows of logs that are past their time, devices that are about, leases.

use super::{Connection, Database, now};
use crate::store::{
    Result,
    retain::{Fronts, IDLE_DAYS, LOOK_AT, ROWS_AT_A_TIME, Retain, SEEN_HOURS},
    rows::{Columns, Ending, Fallible, stored},
};
use async_trait::async_trait;
use fastchat_protocol::{ConversationId, DeviceId, GatewayId, Seq};
use sqlx::AssertSqlSafe;
use std::collections::BTreeSet;

const HOUR_MS: i64 = 3_600_000;
/// Devices in one statement.
const DEVICES: usize = 256;

#[async_trait]
impl Retain for Database {
    async fn hold_lease(&self, name: &str, holder: GatewayId, lasts_s: u32) -> Result<bool> {
        self.transaction(async |c| hold_lease(c, name, holder, lasts_s).await).await
    }

    async fn devices_seen(&self, devices: &[DeviceId]) -> Result<()> {
        // Each once, and in one order: two gateways that say the same do not wait for each other.
        let devices: Vec<_> = devices.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        for some in devices.chunks(DEVICES) {
            self.transaction(async |c| seen(c, some).await).await?;
        }
        Ok(())
    }

    async fn fronts(&self, after: Option<ConversationId>, log_days: u32) -> Result<Fronts> {
        self.read(async |c| fronts(c, after, log_days).await).await
    }

    async fn retire_rows(
        &self,
        conversation: ConversationId,
        log_days: u32,
        below_cursors: bool,
    ) -> Result<u64> {
        self.transaction(async |c| retire_rows(c, conversation, log_days, below_cursors).await).await
    }

    async fn least_cursor(&self, conversation: ConversationId) -> Result<Option<Seq>> {
        self.read(async |c| least_cursor(c, conversation).await).await
    }
}

async fn hold_lease(
    c: &mut Connection,
    name: &str,
    holder: GatewayId,
    lasts_s: u32,
) -> Fallible<Ending<bool>> {
    let now = now(c).await?;
    let query = sqlx::query(
        "INSERT INTO leases (name, holder, until_ms) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms
         WHERE leases.holder = excluded.holder OR leases.until_ms < $4",
    );
    let query = query.bind(name).bind(holder.as_bytes().as_slice());
    let query = query.bind(now + i64::from(lasts_s) * 1000).bind(now);
    Ok(Ending::Commit(query.execute(c).await?.rows_affected() == 1))
}

async fn seen(c: &mut Connection, devices: &[DeviceId]) -> Fallible<Ending<()>> {
    let now = now(c).await?;
    // Only numbers of parameters go into the text. Not kept prepared: few have the same length.
    let values: Vec<_> = (0..devices.len()).map(|n| format!("(${}, $1)", n + 3)).collect();
    let sql = format!(
        "INSERT INTO device_seen (device, at_ms) VALUES {}
         ON CONFLICT (device) DO UPDATE SET at_ms = excluded.at_ms WHERE device_seen.at_ms < $2",
        values.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
    query = query.bind(now).bind(now - stored(SEEN_HOURS) * HOUR_MS);
    for device in devices {
        query = query.bind(device.as_bytes().as_slice());
    }
    query.execute(c).await?;
    Ok(Ending::Commit(()))
}

fn before_ms(now: i64, log_days: u32) -> i64 {
    now - i64::from(log_days) * 24 * HOUR_MS
}

async fn fronts(c: &mut Connection, after: Option<ConversationId>, log_days: u32) -> Fallible<Fronts> {
    let before = before_ms(now(c).await?, log_days);
    // Every id is greater than no bytes.
    let after = after.map_or_else(Vec::new, |after| after.as_bytes().to_vec());
    let query = sqlx::query(
        "SELECT c.id, (SELECT l.at_ms FROM log l WHERE l.conversation = c.id ORDER BY l.seq LIMIT 1) AS at_ms
         FROM conversations c WHERE c.id > $1 ORDER BY c.id LIMIT $2",
    );
    let rows = query.bind(after).bind(LOOK_AT).fetch_all(c).await?;
    let mut fronts = Fronts::default();
    for row in &rows {
        if row.optional_i64("at_ms")?.is_some_and(|at_ms| at_ms < before) {
            fronts.old.push(row.id("id")?);
        }
    }
    if rows.len() as i64 == LOOK_AT {
        fronts.last = rows.last().map(|row| row.id("id")).transpose()?;
    }
    Ok(fronts)
}

async fn retire_rows(
    c: &mut Connection,
    conversation: ConversationId,
    log_days: u32,
    below_cursors: bool,
) -> Fallible<Ending<u64>> {
    let before = before_ms(now(c).await?, log_days);
    let query = sqlx::query("SELECT seq, at_ms FROM log WHERE conversation = $1 ORDER BY seq LIMIT $2");
    let rows = query.bind(conversation.as_bytes().as_slice()).bind(ROWS_AT_A_TIME).fetch_all(&mut *c).await?;
    let mut last = None;
    for row in &rows {
        // Up to the first that is younger: there is no hole between what stays.
        if stored(row.number("at_ms")?) >= before {
            break;
        }
        last = Some(row.seq("seq")?);
    }
    if let (true, Some(cursor)) = (below_cursors, least_cursor(c, conversation).await?) {
        last = last.map(|last| last.min(cursor));
    }
    let Some(last) = last else { return Ok(Ending::Rollback(0)) };
    let query = sqlx::query("DELETE FROM log WHERE conversation = $1 AND seq <= $2");
    let query = query.bind(conversation.as_bytes().as_slice()).bind(stored(last.0));
    Ok(Ending::Commit(query.execute(c).await?.rows_affected()))
}

async fn least_cursor(c: &mut Connection, conversation: ConversationId) -> Fallible<Option<Seq>> {
    let since = now(c).await? - stored(IDLE_DAYS) * 24 * HOUR_MS;
    // A device that has connected to no gateway yet which would note it counts as one that will.
    let query = sqlx::query(
        "SELECT min(r.cursor) AS least FROM readable r LEFT JOIN device_seen s ON s.device = r.device
         WHERE r.conversation = $1 AND r.to_seq IS NULL AND (s.at_ms IS NULL OR s.at_ms >= $2)",
    );
    let row = query.bind(conversation.as_bytes().as_slice()).bind(since).fetch_one(c).await?;
    Ok(row.optional_number("least")?.map(Seq))
}

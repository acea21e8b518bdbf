//! What running gateways are to do at once.

use super::{Connection, now};
use crate::store::{
    operate::{NOTICE_MINUTES, Notice, NoticeKind},
    rows::{Columns, Fallible, Fault},
};
use fastchat_protocol::{AccountId, DeviceId};

pub(in crate::store) async fn post(
    c: &mut Connection,
    account: AccountId,
    device: Option<DeviceId>,
    kind: NoticeKind,
) -> Fallible<()> {
    let at_ms = now(c).await?;
    sqlx::query("INSERT INTO notices (at_ms, account, device, kind) VALUES ($1, $2, $3, $4)")
        .bind(at_ms)
        .bind(account.as_bytes().as_slice())
        .bind(device.as_ref().map(|device| device.as_bytes().as_slice()))
        .bind(kind as i64)
        .execute(c)
        .await?;
    Ok(())
}

pub(in crate::store) async fn after(c: &mut Connection, number: i64) -> Fallible<Vec<Notice>> {
    let query =
        sqlx::query("SELECT number, account, device, kind FROM notices WHERE number > $1 ORDER BY number");
    query.bind(number).fetch_all(c).await?.iter().map(notice).collect()
}

fn notice(row: &impl Columns) -> Fallible<Notice> {
    let kind = row.number("kind")?;
    Ok(Notice {
        number: row.optional_i64("number")?.ok_or_else(|| Fault::corrupt("notices.number", "null"))?,
        account: row.id("account")?,
        device: row.optional_blob("device")?.map(|_| row.id("device")).transpose()?,
        kind: kind.try_into().map_err(|kind| Fault::corrupt("notices.kind", kind))?,
    })
}

pub(in crate::store) async fn sweep(c: &mut Connection) -> Fallible<()> {
    let old = now(c).await? - NOTICE_MINUTES * 60_000;
    sqlx::query("DELETE FROM notices WHERE at_ms < $1").bind(old).execute(c).await?;
    Ok(())
}

//! What is allowed to one account instead of the deployment's settings.

use super::{Connection, audit};
use crate::store::{
    operate::{Act, Note, Quotas},
    rows::{Columns, Ending, Fallible, stored},
};
use fastchat_protocol::AccountId;

pub(in crate::store) async fn get(c: &mut Connection, account: AccountId) -> Fallible<Quotas> {
    let query = sqlx::query(
        "SELECT devices, slot_bytes, blob_bytes, sends_per_second FROM quotas WHERE account = $1",
    );
    let row = query.bind(account.as_bytes().as_slice()).fetch_optional(c).await?;
    let Some(row) = row else { return Ok(Quotas::default()) };
    let small = |column| row.optional_number(column)?.map(|_| row.small(column)).transpose();
    Ok(Quotas {
        devices: small("devices")?,
        slot_bytes: row.optional_number("slot_bytes")?,
        blob_bytes: row.optional_number("blob_bytes")?,
        sends_per_second: small("sends_per_second")?,
    })
}

pub(in crate::store) async fn set(
    c: &mut Connection,
    by: &str,
    account: AccountId,
    quotas: &Quotas,
) -> Fallible<Ending<()>> {
    let Quotas { devices, slot_bytes, blob_bytes, sends_per_second } = quotas;
    sqlx::query(
        "INSERT INTO quotas (account, devices, slot_bytes, sends_per_second, blob_bytes)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (account) DO UPDATE SET devices = excluded.devices,
             slot_bytes = excluded.slot_bytes, sends_per_second = excluded.sends_per_second,
             blob_bytes = excluded.blob_bytes",
    )
    .bind(account.as_bytes().as_slice())
    .bind(devices.map(i64::from))
    .bind(slot_bytes.map(stored))
    .bind(sends_per_second.map(i64::from))
    .bind(blob_bytes.map(stored))
    .execute(&mut *c)
    .await?;
    let detail = format!(
        "devices {}, slot bytes {}, blob bytes {}, sends per second {}",
        said(devices),
        said(slot_bytes),
        said(blob_bytes),
        said(sends_per_second)
    );
    audit::note(c, &Note { actor: by.into(), act: Act::QuotasSet, account: Some(account), detail }).await?;
    Ok(Ending::Commit(()))
}

fn said(quota: &Option<impl ToString>) -> String {
    quota.as_ref().map_or_else(|| "default".into(), ToString::to_string)
}

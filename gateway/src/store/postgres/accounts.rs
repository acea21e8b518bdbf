//! Accounts, manifests, devices.

use super::super::{
    Account, Device, NewAccount, NewManifest, Registered,
    rows::{Columns, Ending, Fallible, Fault, stored},
};
use fastchat_protocol::{AccountId, AccountName, DeviceId};
use sqlx::{PgConnection, postgres::PgRow};

pub(super) async fn register(c: &mut PgConnection, new: &NewAccount) -> Fallible<Ending<Registered>> {
    let made = sqlx::query(
        "INSERT INTO accounts (id, name, password_hash) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(new.account.as_bytes().as_slice())
    .bind(new.name.as_str())
    .bind(&new.password_hash)
    .execute(&mut *c)
    .await?;
    if made.rows_affected() == 0 {
        // A repeated registration finds its own id: that says more than the name.
        let id_taken = password_hash(c, new.account).await?.is_some();
        return Ok(Ending::Rollback(if id_taken { Registered::IdTaken } else { Registered::NameTaken }));
    }
    Ok(match store_manifest(c, new.account, &new.manifest).await? {
        true => Ending::Commit(Registered::Made),
        false => Ending::Rollback(Registered::IdTaken),
    })
}

pub(super) async fn find(c: &mut PgConnection, name: &AccountName) -> Fallible<Option<Account>> {
    let query = sqlx::query(
        "SELECT a.id, a.name, m.bytes FROM accounts a JOIN manifests m ON m.account = a.id
         WHERE a.name = $1 ORDER BY m.version DESC LIMIT 1",
    );
    let row = query.bind(name.as_str()).fetch_optional(c).await?;
    row.as_ref().map(account).transpose()
}

pub(super) async fn get(c: &mut PgConnection, id: AccountId) -> Fallible<Option<Account>> {
    let query = sqlx::query(
        "SELECT a.id, a.name, m.bytes FROM accounts a JOIN manifests m ON m.account = a.id
         WHERE a.id = $1 ORDER BY m.version DESC LIMIT 1",
    );
    let row = query.bind(id.as_bytes().as_slice()).fetch_optional(c).await?;
    row.as_ref().map(account).transpose()
}

pub(super) async fn password_hash(c: &mut PgConnection, account: AccountId) -> Fallible<Option<String>> {
    let query = sqlx::query("SELECT password_hash FROM accounts WHERE id = $1");
    let row = query.bind(account.as_bytes().as_slice()).fetch_optional(c).await?;
    row.map(|row| row.string("password_hash")).transpose()
}

pub(super) async fn set_password_hash(
    c: &mut PgConnection,
    account: AccountId,
    old: &str,
    new: &str,
) -> Fallible<bool> {
    let query = sqlx::query("UPDATE accounts SET password_hash = $3 WHERE id = $1 AND password_hash = $2");
    let done = query.bind(account.as_bytes().as_slice()).bind(old).bind(new).execute(c).await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn put_manifest(
    c: &mut PgConnection,
    account: AccountId,
    next: &NewManifest,
) -> Fallible<Ending<bool>> {
    // Versions of one account are made one after the other.
    let lock = sqlx::query("SELECT 1 FROM accounts WHERE id = $1 FOR NO KEY UPDATE");
    lock.bind(account.as_bytes().as_slice()).execute(&mut *c).await?;
    let query =
        sqlx::query("SELECT version, bytes FROM manifests WHERE account = $1 ORDER BY version DESC LIMIT 1");
    let Some(newest) = query.bind(account.as_bytes().as_slice()).fetch_optional(&mut *c).await? else {
        return Ok(Ending::Rollback(false));
    };
    let version = newest.number("version")?;
    if version == next.version {
        // The answer to the first try was lost, or somebody else was first.
        return Ok(Ending::Rollback(newest.bytes("bytes")? == next.bytes));
    }
    if version.checked_add(1) != Some(next.version) {
        return Ok(Ending::Rollback(false));
    }
    Ok(match store_manifest(c, account, next).await? {
        true => Ending::Commit(true),
        false => Ending::Rollback(false),
    })
}

pub(super) async fn device(c: &mut PgConnection, device: DeviceId) -> Fallible<Option<Device>> {
    let query = sqlx::query(
        "SELECT d.account, a.name, d.key, d.revoked, coalesce(h.head, 0) AS head
         FROM devices d JOIN accounts a ON a.id = d.account LEFT JOIN mailbox_heads h ON h.device = d.id
         WHERE d.id = $1",
    );
    let Some(row) = query.bind(device.as_bytes().as_slice()).fetch_optional(c).await? else {
        return Ok(None);
    };
    Ok(Some(Device {
        account: row.id("account")?,
        name: name(&row)?,
        key: row.blob("key")?.try_into().map_err(|_| Fault::corrupt("devices.key", "not 32 bytes"))?,
        revoked: row.flag("revoked")?,
        visible: true,
        mailbox_head: row.seq("head")?,
    }))
}

pub(super) async fn revoked(c: &mut PgConnection, devices: &[DeviceId]) -> Fallible<Vec<DeviceId>> {
    let ids: Vec<_> = devices.iter().map(|device| device.as_bytes().as_slice()).collect();
    let query = sqlx::query("SELECT id FROM devices WHERE id = ANY ($1) AND revoked");
    query.bind(&ids).fetch_all(c).await?.iter().map(|row| row.id("id")).collect()
}

/// False if a device is another account's, or is known by another key: neither ever changes.
async fn store_manifest(c: &mut PgConnection, account: AccountId, manifest: &NewManifest) -> Fallible<bool> {
    sqlx::query("INSERT INTO manifests (account, version, bytes) VALUES ($1, $2, $3)")
        .bind(account.as_bytes().as_slice())
        .bind(stored(manifest.version))
        .bind(manifest.bytes.as_ref())
        .execute(&mut *c)
        .await?;
    for (device, key) in &manifest.devices {
        let stored = sqlx::query(
            "INSERT INTO devices AS d (id, account, key) VALUES ($1, $2, $3)
             ON CONFLICT (id) DO UPDATE SET key = excluded.key
             WHERE d.account = excluded.account AND d.key = excluded.key",
        )
        .bind(device.as_bytes().as_slice())
        .bind(account.as_bytes().as_slice())
        .bind(key.as_slice())
        .execute(&mut *c)
        .await?;
        if stored.rows_affected() == 0 {
            return Ok(false);
        }
    }
    revoke(c, account, &manifest.revoked).await?;
    Ok(true)
}

async fn revoke(c: &mut PgConnection, account: AccountId, devices: &[DeviceId]) -> Fallible<()> {
    let devices: Vec<_> = devices.iter().map(|device| device.as_bytes().as_slice()).collect();
    sqlx::query("UPDATE devices SET revoked = true WHERE account = $1 AND id = ANY ($2) AND NOT revoked")
        .bind(account.as_bytes().as_slice())
        .bind(&devices)
        .execute(c)
        .await?;
    Ok(())
}

fn account(row: &PgRow) -> Fallible<Account> {
    Ok(Account { id: row.id("id")?, name: name(row)?, manifest: row.bytes("bytes")? })
}

fn name(row: &PgRow) -> Fallible<AccountName> {
    row.string("name")?.parse().map_err(|error| Fault::corrupt("accounts.name", error))
}

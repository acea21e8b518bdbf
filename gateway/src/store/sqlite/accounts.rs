//! Accounts, manifests, devices.

use super::{
    super::{
        Account, NewAccount, NewManifest, Registered,
        operate::ShutOut,
        rows::{Columns, Ending, Fallible, stored},
    },
    deletion, members,
};
use fastchat_protocol::{AccountId, AccountName, DeviceId};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

pub(super) async fn register(c: &mut SqliteConnection, new: &NewAccount) -> Fallible<Ending<Registered>> {
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
        let id_taken = get(c, new.account).await?.is_some();
        return Ok(Ending::Rollback(if id_taken { Registered::IdTaken } else { Registered::NameTaken }));
    }
    Ok(match store_manifest(c, new.account, &new.manifest).await? {
        true => Ending::Commit(Registered::Made),
        false => Ending::Rollback(Registered::IdTaken),
    })
}

pub(super) async fn find(c: &mut SqliteConnection, name: &AccountName) -> Fallible<Option<Account>> {
    let query = sqlx::query(
        "SELECT a.id, a.name, m.bytes FROM accounts a JOIN manifests m ON m.account = a.id
         WHERE a.name = $1 AND NOT a.deleted ORDER BY m.version DESC LIMIT 1",
    );
    let row = query.bind(name.as_str()).fetch_optional(c).await?;
    row.as_ref().map(account).transpose()
}

pub(super) async fn get(c: &mut SqliteConnection, id: AccountId) -> Fallible<Option<Account>> {
    let query = sqlx::query(
        "SELECT a.id, a.name, m.bytes FROM accounts a JOIN manifests m ON m.account = a.id
         WHERE a.id = $1 ORDER BY m.version DESC LIMIT 1",
    );
    let row = query.bind(id.as_bytes().as_slice()).fetch_optional(c).await?;
    row.as_ref().map(account).transpose()
}

pub(super) async fn all(c: &mut SqliteConnection, ids: &[AccountId]) -> Fallible<Vec<Account>> {
    let mut all = Vec::with_capacity(ids.len());
    for id in ids {
        all.extend(get(c, *id).await?);
    }
    Ok(all)
}

pub(super) async fn password_hash(c: &mut SqliteConnection, account: AccountId) -> Fallible<Option<String>> {
    let query = sqlx::query("SELECT password_hash FROM accounts WHERE id = $1 AND NOT deleted");
    let row = query.bind(account.as_bytes().as_slice()).fetch_optional(c).await?;
    row.map(|row| row.string("password_hash")).transpose()
}

pub(super) async fn put_manifest(
    c: &mut SqliteConnection,
    account: AccountId,
    next: &NewManifest,
) -> Fallible<Ending<bool>> {
    Ok(match follow(c, account, next).await? {
        Followed::Stored => Ending::Commit(true),
        Followed::InForce => Ending::Rollback(true),
        Followed::Refused => Ending::Rollback(false),
    })
}

pub(super) async fn restore(
    c: &mut SqliteConnection,
    account: AccountId,
    next: &NewManifest,
    password_hash: &str,
) -> Fallible<Ending<bool>> {
    if let Followed::Refused = follow(c, account, next).await? {
        return Ok(Ending::Rollback(false));
    }
    let query = sqlx::query("UPDATE accounts SET password_hash = $2 WHERE id = $1");
    query.bind(account.as_bytes().as_slice()).bind(password_hash).execute(c).await?;
    Ok(Ending::Commit(true))
}

/// What became of a manifest.
enum Followed {
    Stored,
    /// It was the one in force: the answer to the first try was lost.
    InForce,
    /// Somebody else was first, or it is another account's device, or there is no account.
    Refused,
}

async fn follow(c: &mut SqliteConnection, account: AccountId, next: &NewManifest) -> Fallible<Followed> {
    if !members::are_there(c, &[account], &[]).await? {
        return Ok(Followed::Refused);
    }
    let query =
        sqlx::query("SELECT version, bytes FROM manifests WHERE account = $1 ORDER BY version DESC LIMIT 1");
    let Some(newest) = query.bind(account.as_bytes().as_slice()).fetch_optional(&mut *c).await? else {
        return Ok(Followed::Refused);
    };
    let version = newest.number("version")?;
    if version == next.version && newest.bytes("bytes")? == next.bytes {
        return Ok(Followed::InForce);
    }
    if version.checked_add(1) != Some(next.version) || !store_manifest(c, account, next).await? {
        return Ok(Followed::Refused);
    }
    Ok(Followed::Stored)
}

pub(super) async fn set_visible(
    c: &mut SqliteConnection,
    account: AccountId,
    visible: bool,
) -> Fallible<Ending<()>> {
    let query = sqlx::query("UPDATE accounts SET visible = $2 WHERE id = $1");
    query.bind(account.as_bytes().as_slice()).bind(visible).execute(c).await?;
    Ok(Ending::Commit(()))
}

pub(super) async fn shut_out(
    c: &mut SqliteConnection,
    devices: &[DeviceId],
) -> Fallible<Vec<(DeviceId, ShutOut)>> {
    // Those of one small deployment are few: all of them, and those that were asked for.
    let rows = sqlx::query(
        "SELECT d.id, d.revoked FROM devices d JOIN accounts a ON a.id = d.account
         WHERE d.revoked OR a.disabled",
    );
    let all = rows.fetch_all(c).await?.iter().map(shut_out_row).collect::<Fallible<Vec<_>>>()?;
    Ok(all.into_iter().filter(|(device, _)| devices.contains(device)).collect())
}

fn shut_out_row(row: &SqliteRow) -> Fallible<(DeviceId, ShutOut)> {
    let why = if row.flag("revoked")? { ShutOut::Revoked } else { ShutOut::Disabled };
    Ok((row.id("id")?, why))
}

/// Whoever ends a device or an account holds the account's row first; here, the file.
pub(super) async fn hold(_: &mut SqliteConnection, _: AccountId) -> Fallible<()> {
    std::future::ready(Ok(())).await
}

/// False if a device is another account's, or is known by another key: neither ever changes.
async fn store_manifest(
    c: &mut SqliteConnection,
    account: AccountId,
    manifest: &NewManifest,
) -> Fallible<bool> {
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

pub(super) async fn revoke(
    c: &mut SqliteConnection,
    account: AccountId,
    devices: &[DeviceId],
) -> Fallible<()> {
    for device in devices {
        let query =
            sqlx::query("UPDATE devices SET revoked = 1 WHERE account = $1 AND id = $2 AND NOT revoked");
        let query = query.bind(account.as_bytes().as_slice()).bind(device.as_bytes().as_slice());
        if query.execute(&mut *c).await?.rows_affected() == 1 {
            deletion::retire(c, *device).await?;
        }
    }
    Ok(())
}

fn account(row: &SqliteRow) -> Fallible<Account> {
    Ok(Account { id: row.id("id")?, name: row.name()?, manifest: row.bytes("bytes")? })
}

//! What people do themselves, with its row in the audit log.

use super::{Connection, accounts, audit, deletion, invites};
use crate::store::{
    NewAccount, NewManifest, Recovery, Registered,
    operate::{Act, Note},
    rows::{Ending, Fallible},
};
use fastchat_protocol::AccountId;

pub(in crate::store) async fn register(c: &mut Connection, new: &NewAccount) -> Fallible<Ending<Registered>> {
    match accounts::register(c, new).await? {
        Ending::Commit(Registered::Made) => {}
        refused => return Ok(refused),
    }
    let mut detail = format!("as {}", new.name);
    if let Some(invite) = &new.invite {
        // Last, so that an invite's row is held for a moment only.
        if !invites::take(c, invite).await? {
            return Ok(Ending::Rollback(Registered::BadInvite));
        }
        detail += &format!(" by invite {}", invites::short(invite));
    }
    own(c, Act::Registered, new.account, detail).await?;
    Ok(Ending::Commit(Registered::Made))
}

pub(in crate::store) async fn set_password_hash(
    c: &mut Connection,
    account: AccountId,
    old: &str,
    new: &str,
) -> Fallible<Ending<bool>> {
    let query = sqlx::query(
        "UPDATE accounts SET password_hash = $3 WHERE id = $1 AND password_hash = $2 AND NOT deleted",
    );
    let set = query.bind(account.as_bytes().as_slice()).bind(old).bind(new).execute(&mut *c).await?;
    if set.rows_affected() == 0 {
        return Ok(Ending::Rollback(false));
    }
    own(c, Act::PasswordChanged, account, String::new()).await?;
    Ok(Ending::Commit(true))
}

pub(in crate::store) async fn put_manifest(
    c: &mut Connection,
    account: AccountId,
    next: &NewManifest,
) -> Fallible<Ending<bool>> {
    let ending = accounts::put_manifest(c, account, next).await?;
    if let Ending::Commit(true) = ending {
        own(c, Act::DevicesChanged, account, devices(next)).await?;
    }
    Ok(ending)
}

pub(in crate::store) async fn restore(
    c: &mut Connection,
    account: AccountId,
    next: &NewManifest,
    password_hash: &str,
) -> Fallible<Ending<bool>> {
    let ending = accounts::restore(c, account, next, password_hash).await?;
    if let Ending::Commit(true) = ending {
        own(c, Act::Recovered, account, devices(next)).await?;
    }
    Ok(ending)
}

pub(in crate::store) async fn delete_account(
    c: &mut Connection,
    account: AccountId,
) -> Fallible<Ending<bool>> {
    let ending = deletion::delete_account(c, account).await?;
    if let Ending::Commit(true) = ending {
        own(c, Act::Deleted, account, String::new()).await?;
    }
    Ok(ending)
}

pub(in crate::store) async fn set_recovery(
    c: &mut Connection,
    account: AccountId,
    recovery: &Recovery,
) -> Fallible<Ending<()>> {
    let query = sqlx::query(
        "INSERT INTO recoveries (account, key_hash, sealed)
         SELECT id, $2, $3 FROM accounts WHERE id = $1 AND NOT deleted
         ON CONFLICT (account) DO UPDATE SET key_hash = excluded.key_hash, sealed = excluded.sealed",
    );
    let query = query.bind(account.as_bytes().as_slice());
    let query = query.bind(recovery.key_hash.as_slice()).bind(recovery.sealed.as_ref());
    if query.execute(&mut *c).await?.rows_affected() == 1 {
        own(c, Act::RecoverySet, account, String::new()).await?;
    }
    Ok(Ending::Commit(()))
}

fn devices(next: &NewManifest) -> String {
    format!("version {}: {} devices, {} revoked", next.version, next.devices.len(), next.revoked.len())
}

async fn own(c: &mut Connection, act: Act, account: AccountId, detail: String) -> Fallible<()> {
    audit::note(c, &Note { actor: "account".into(), act, account: Some(account), detail }).await
}

//! Accounts, manifests, key packages, passwords.

use super::{Answer, done, refuse, restricted::newly_revoked, store_error};
use crate::{
    gateway::Gateway,
    passwords::PasswordError,
    refusal,
    session::Me,
    store::{self, Claimed, NewManifest},
};
use fastchat_delivery::{key_package, manifest::VerifiedManifest, suite::Suite};
use fastchat_protocol::{
    AccountId, AccountName, Bytes, Code, Refusal, ServerFrame,
    client::{ChangePassword, ClaimKeyPackages, FindAccount, GetAccount, PublishKeyPackages, PutManifest},
    limits,
    server::{Account, KeyPackage, KeyPackages},
};

pub(super) async fn find(gateway: &Gateway, request: &FindAccount) -> Answer {
    shown(gateway.store.find_account(&request.name).await.map_err(store_error)?)
}

pub(super) async fn get(gateway: &Gateway, request: &GetAccount) -> Answer {
    shown(gateway.store.account(request.account).await.map_err(store_error)?)
}

fn shown(account: Option<store::Account>) -> Answer {
    match account {
        Some(store::Account { id, name, manifest }) => {
            Ok(ServerFrame::Account(Account { account: id, name, manifest }))
        }
        None => Err(no_account()),
    }
}

pub(super) fn no_account() -> Refusal {
    Refusal::new(Code::NoAccount, "there is no such account")
}

pub(super) async fn publish(gateway: &Gateway, me: &Me, request: PublishKeyPackages) -> Answer {
    let PublishKeyPackages { suite, one_time, last_resort } = request;
    if one_time.len() > limits::MAX_KEY_PACKAGES {
        return refuse(
            Code::TooLarge,
            format!("at most {} key packages at a time", limits::MAX_KEY_PACKAGES),
        );
    }
    let suite = known_suite(suite)?;
    let (one_time, last_resort) = {
        let me = me.clone();
        // Signatures of a few dozen packages take milliseconds: not on the reactor.
        let checked = tokio::task::spawn_blocking(move || {
            one_time.iter().try_for_each(|package| check_package(&me, suite, package, false))?;
            last_resort.iter().try_for_each(|package| check_package(&me, suite, package, true))?;
            Ok((one_time, last_resort))
        });
        checked.await.unwrap_or_else(|_| refuse(Code::BadKeyPackage, "a key package could not be checked"))?
    };
    let left =
        gateway.store.publish_key_packages(me.device, suite.code(), &one_time, last_resort.as_ref()).await;
    Ok(ServerFrame::KeyPackagesLeft(left.map_err(store_error)?))
}

fn check_package(me: &Me, suite: Suite, package: &Bytes, last_resort: bool) -> Result<(), Refusal> {
    let info = key_package::verify(package).map_err(|e| Refusal::new(Code::BadKeyPackage, e.to_string()))?;
    if info.device != me.device || info.account != me.account {
        return refuse(Code::BadKeyPackage, "a key package belongs to another device");
    }
    if info.suite != suite || info.last_resort != last_resort {
        return refuse(
            Code::BadKeyPackage,
            "a key package is of another suite or kind than it is said to be",
        );
    }
    Ok(())
}

pub(super) async fn claim(gateway: &Gateway, me: &Me, request: &ClaimKeyPackages) -> Answer {
    let suite = known_suite(request.suite)?;
    gateway.limiters.claim(me.account, request.account).map_err(rate_limited)?;
    let claimed = gateway
        .store
        .claim_key_packages(me.account, request.account, suite.code())
        .await
        .map_err(store_error)?;
    let Claimed::Packages(claimed) = claimed else { return Err(refusal::not_accepted()) };
    if claimed.is_empty() && gateway.store.account(request.account).await.map_err(store_error)?.is_none() {
        return Err(no_account());
    }
    let packages = claimed.into_iter().map(|(device, package)| KeyPackage { device, package }).collect();
    Ok(ServerFrame::KeyPackages(KeyPackages { packages }))
}

fn known_suite(code: u16) -> Result<Suite, Refusal> {
    Suite::try_from(code).map_err(|e| Refusal::new(Code::BadKeyPackage, e.to_string()))
}

pub(super) async fn put_manifest(gateway: &Gateway, me: &Me, request: &PutManifest) -> Answer {
    let next = checked_manifest(&request.manifest)?;
    let current = current_manifest(gateway, me.account).await?;
    if next.bytes() == current.bytes() {
        // A request that is repeated because its answer was lost.
        return done();
    }
    current.verify_successor(&next).map_err(|e| Refusal::new(Code::BadManifest, e.to_string()))?;
    check_devices(gateway, &current, &next).await?;
    let revoked = newly_revoked(&current, &next);
    let put = gateway.store.put_manifest(me.account, new_manifest(&next)).await;
    // Whatever became of it: a device that was added may connect anywhere.
    gateway.registry.accompany(me.account);
    if !put.map_err(store_error)? {
        return refuse(Code::BadManifest, "another manifest came first");
    }
    for device in revoked {
        gateway.fanout.revoked(me.account, Some(device), None);
    }
    done()
}

/// Whether the operator lets the account in; asked where no device is known that would say so.
pub(crate) async fn check_enabled(gateway: &Gateway, name: &AccountName) -> Result<(), Refusal> {
    let user = gateway.store.user(name.as_str()).await.map_err(store_error)?;
    if user.is_some_and(|user| user.disabled) { Err(refusal::disabled()) } else { Ok(()) }
}

/// An account has as many devices as its quota says; who has more already may still revoke some.
pub(super) async fn check_devices(
    gateway: &Gateway,
    current: &VerifiedManifest,
    next: &VerifiedManifest,
) -> Result<(), Refusal> {
    if next.devices().len() <= current.devices().len() {
        return Ok(());
    }
    let quotas = gateway.store.quotas(next.account()).await.map_err(store_error)?;
    match quotas.devices {
        Some(most) if next.devices().len() > most as usize => refuse(
            Code::Forbidden,
            format!("this account may have {most} devices: revoke one first, or ask the operator"),
        ),
        _ => Ok(()),
    }
}

/// Reads a manifest that a client sent.
pub(crate) fn checked_manifest(bytes: &[u8]) -> Result<VerifiedManifest, Refusal> {
    if bytes.len() > limits::MAX_MANIFEST {
        return refuse(Code::TooLarge, format!("a manifest has at most {} bytes", limits::MAX_MANIFEST));
    }
    VerifiedManifest::verify(bytes).map_err(|e| Refusal::new(Code::BadManifest, e.to_string()))
}

/// A checked manifest as the store wants it.
pub(crate) fn new_manifest(manifest: &VerifiedManifest) -> NewManifest {
    NewManifest {
        version: manifest.version(),
        bytes: Bytes::copy_from_slice(manifest.bytes()),
        devices: manifest.devices().iter().map(|device| (device.id, device.key)).collect(),
        revoked: manifest.manifest().revoked.clone(),
    }
}

/// The account's manifest in force. What the store has was checked when it came in.
pub(super) async fn current_manifest(
    gateway: &Gateway,
    account: AccountId,
) -> Result<VerifiedManifest, Refusal> {
    let account = gateway.store.account(account).await.map_err(store_error)?.ok_or_else(no_account)?;
    VerifiedManifest::verify(&account.manifest).map_err(|error| {
        tracing::error!(%error, "a stored manifest cannot be verified");
        Refusal::new(Code::Internal, "a stored manifest cannot be verified")
    })
}

pub(super) async fn change_password(gateway: &Gateway, me: &Me, request: &ChangePassword) -> Answer {
    gateway.limiters.login_to(me.name.as_str()).map_err(rate_limited)?;
    let hash = gateway.store.password_hash(me.account).await.map_err(store_error)?;
    if !gateway.passwords.check(&request.old, hash.clone()).await.map_err(password_error)? {
        return refuse(Code::BadCredentials, "the password in force is another one");
    }
    let new = gateway.passwords.hash(&request.new).await.map_err(password_error)?;
    let old = hash.unwrap_or_default();
    if !gateway.store.set_password_hash(me.account, &old, &new).await.map_err(store_error)? {
        return refuse(Code::BadCredentials, "the password was changed elsewhere at the same moment");
    }
    gateway.fanout.revoked(me.account, None, Some(me.device));
    done()
}

/// What a client hears of a password that was not hashed.
pub(crate) fn password_error(error: PasswordError) -> Refusal {
    match error {
        PasswordError::Busy => {
            Refusal { wait_ms: Some(2_000), ..Refusal::new(Code::RateLimited, "too many logins at once") }
        }
        PasswordError::Malformed => Refusal::new(Code::BadCredentials, error.to_string()),
        PasswordError::Failed => {
            tracing::error!("a password could not be hashed or a stored hash could not be read");
            Refusal::new(Code::Internal, "a password could not be checked")
        }
    }
}

/// What a client hears that tries too often.
pub(crate) fn rate_limited(rate: crate::rate::TooOften) -> Refusal {
    let wait_ms = u32::try_from(rate.0.as_millis()).unwrap_or(u32::MAX).max(1);
    Refusal {
        wait_ms: Some(wait_ms),
        ..Refusal::new(Code::RateLimited, "too many attempts: wait before the next")
    }
}

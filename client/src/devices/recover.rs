//! An account back from its recovery code alone: the identity keys, a new device, a new password.
//!
//! The keys and the next manifest are stored before the server is told, so that a repetition goes on
//! where it was: a manifest that is in force already is not put again.

use super::{archive, handover::ArchiveRef, link::shown_manifest, pointer};
use crate::{
    account::{begun_otherwise, check_password, own},
    api::{ApiError, ErrorKind},
    engine::archive::{Import, adopt_backup},
    failpoint,
    link::{Destination, LinkError, Pick, RestrictedSession, Servers, Way},
    profile::{Cost, Profile, Settings, Unfinished, derive},
    store::{Contact, Store, StoreError},
};
use fastchat_delivery::VerifiedManifest;
use fastchat_e2ee::{
    Device, Identity, RecoveryCode, StoreKey, Zeroizing, identity::IdentityError, password::PasswordKeys,
};
use fastchat_protocol::{AccountName, Bytes, ClientFrame, DeviceId, client};
use std::path::PathBuf;

/// Limit: contacts and conversations of an account, in parts.
const MAX_PARTS: u32 = 64;

/// What a recovery needs.
#[derive(Clone)]
pub struct Recovery {
    /// The account's name.
    pub name: AccountName,
    /// What was written down.
    pub code: RecoveryCode,
    /// The password to come.
    pub password: Zeroizing<String>,
    /// The server.
    pub server: Servers,
    /// Certificates to trust instead of the platform's.
    pub ca: Option<PathBuf>,
    /// A plain connection to another machine is wanted.
    pub insecure: bool,
    /// What a guess at the password costs.
    pub cost: Cost,
}

/// What came of it.
#[derive(Debug)]
pub struct Recovered {
    /// The store's key.
    pub key: StoreKey,
    /// Devices that were revoked.
    pub revoked: usize,
    /// The backup of the history, if there is one: how many messages of it are here already (the engine
    /// goes on with the rest), or why it cannot be had.
    pub backup: Result<Option<u64>, String>,
}

/// Contacts and conversations from the backup, and where its history goes on.
struct Backup {
    archive: ArchiveRef,
    parts: Vec<Zeroizing<Vec<u8>>>,
    whole: bool,
}

/// Brings the account back onto this machine. The profile holds no account, or the beginning of this.
pub async fn recover(profile: &Profile, recovery: &Recovery) -> Result<Recovered, ApiError> {
    check_password(&recovery.password)?;
    let before = profile.location.settings()?;
    if let Some(settings) = &before {
        check_unfinished(settings, recovery)?;
    }
    let Recovery { name, server, ca, insecure, .. } = recovery;
    let deployment = before.as_ref().map(|settings| settings.deployment.clone());
    let known = Some(profile.location.gateways_file());
    let (ca, insecure, servers) = (ca.clone(), *insecure, server.clone());
    let mut way = Way::new(Destination { ca, deployment, insecure, known, ..Destination::new(servers) });
    let recovery_key = client::AuthKey::new(recovery.code.recovery_key().as_str());
    let proof = ClientFrame::Recover(client::Recover { name: name.as_str().to_owned(), recovery_key });
    let mut session = way.restrict(proof).await?;
    let deployment = session.hello().deployment.clone();
    let shown = shown_manifest(&session)?;
    let identity = open_identity(&recovery.code, &session, &shown)?;
    let keys = derive(&recovery.password, &deployment, name.as_str(), recovery.cost).await?;

    let backup = find_backup(&mut session, &identity, shown.account()).await;
    let kept = before.map(|settings| find_kept(profile, settings, &keys, &shown)).transpose()?.flatten();
    let (mut settings, key, next) = match kept {
        Some(kept) => kept,
        None => begin(profile, recovery, deployment, &keys, &identity, &shown)?,
    };
    failpoint::pass("recovery-begun");
    if shown.hash() != next.hash() {
        let manifest = Bytes::copy_from_slice(next.bytes());
        let auth_key = client::AuthKey::new(keys.auth_key.as_str());
        session.call(ClientFrame::Restore(client::Restore { manifest, auth_key })).await?;
    }
    failpoint::pass("restored");
    session.close().await;
    let mut store = profile.store(StoreKey::from_bytes(key.expose()))?;
    let backup = backup.and_then(|found| match found {
        Some(found) => keep_backup(&mut store, shown.account(), found).map(Some),
        None => Ok(None),
    });
    drop(store);
    (settings.registered, settings.unfinished) = (true, None);
    profile.location.put_settings(&settings)?;
    profile.location.remember_key(&key)?;
    let revoked =
        next.manifest().revoked.len() - shown.manifest().revoked.len().min(next.manifest().revoked.len());
    Ok(Recovered { key, revoked, backup })
}

fn open_identity(
    code: &RecoveryCode,
    session: &RestrictedSession,
    shown: &VerifiedManifest,
) -> Result<Identity, ApiError> {
    let untrusted = |message: String| ApiError::new(ErrorKind::Untrusted, message);
    let sealed = session.account().recovery.as_ref();
    let sealed = sealed.ok_or_else(|| untrusted("the server has nothing that the code opens".into()))?;
    let identity = code
        .open(sealed)
        .map_err(|e| untrusted(format!("the code does not open what the server has kept: {e}")))?;
    match identity.fingerprint() {
        Ok(fingerprint) if fingerprint == shown.identity_fingerprint() => Ok(identity),
        Ok(_) => Err(untrusted(
            "the server shows another identity than the recovered one: nothing was changed".into(),
        )),
        Err(error) => Err(ApiError::internal(error)),
    }
}

fn check_unfinished(settings: &Settings, recovery: &Recovery) -> Result<(), ApiError> {
    let usage = |message: String| Err(ApiError::new(ErrorKind::Usage, message));
    let same = settings.name == recovery.name.as_str() && settings.server == recovery.server.to_string();
    match settings.unfinished {
        _ if settings.registered => usage(format!(
            "this profile already belongs to {}: use --profile for the recovered account",
            settings.name
        )),
        None => usage(format!(
            "the registration of {} was interrupted here: finish it, or use --profile",
            settings.name
        )),
        Some(Unfinished::Recovery) if same => Ok(()),
        Some(unfinished) => usage(begun_otherwise(settings, unfinished)),
    }
}

/// Keys and manifest of an attempt that was interrupted, if they can still be used.
fn find_kept(
    profile: &Profile,
    settings: Settings,
    keys: &PasswordKeys,
    shown: &VerifiedManifest,
) -> Result<Option<(Settings, StoreKey, VerifiedManifest)>, ApiError> {
    let Ok((_, key)) = settings.unwrap_key(&keys.unlock_key) else { return Ok(None) };
    let Ok(kept) = own(&profile.store(StoreKey::from_bytes(key.expose()))?) else { return Ok(None) };
    let planned = kept.contact.manifest;
    let usable = shown.hash() == planned.hash() || shown.verify_successor(&planned).is_ok();
    Ok(usable.then_some((settings, key, planned)))
}

/// Makes the device and the manifest that lists it alone, and stores them with the identity keys.
fn begin(
    profile: &Profile,
    recovery: &Recovery,
    deployment: String,
    keys: &PasswordKeys,
    identity: &Identity,
    shown: &VerifiedManifest,
) -> Result<(Settings, StoreKey, VerifiedManifest), ApiError> {
    let (account, fingerprint) = (shown.account(), shown.identity_fingerprint());
    let device = Device::generate(&mut rand::rng(), account, DeviceId::new(rand::random()), fingerprint);
    let mut revoked = shown.manifest().revoked.clone();
    revoked.extend(shown.devices().iter().map(|device| device.id));
    let next = identity.sign_successor(&mut rand::rng(), shown, vec![device.manifest_entry()], revoked);
    let next = next.map_err(|e| ApiError::new(ErrorKind::Refused, e.to_string()))?;
    let name = recovery.name.as_str().to_owned();
    let contact = Contact { account, name, manifest: next.clone(), changed: None, verified: true };
    let key = StoreKey::generate(&mut rand::rng());
    let place = &profile.location;
    place.clear()?;
    let mut store =
        Store::open(&place.store_file(), StoreKey::from_bytes(key.expose())).map_err(ApiError::internal)?;
    let written = store.write(|tx| {
        device.save(&tx.vault()).map_err(IdentityError::from)?;
        identity.save(&tx.vault())?;
        tx.put_contact(&contact)?;
        Ok::<_, SaveError>(())
    });
    written.map_err(ApiError::internal)?;
    let settings = Settings {
        v: 1,
        server: recovery.server.to_string(),
        deployment,
        name: contact.name,
        ca: recovery.ca.clone(),
        insecure: recovery.insecure,
        pick: Pick::default(),
        repick_every: None,
        registered: false,
        unfinished: Some(Unfinished::Recovery),
        wraps: vec![hex::encode(key.wrap(&keys.unlock_key).map_err(ApiError::internal)?)],
    };
    place.put_settings(&settings)?;
    Ok((settings, key, next))
}

/// The identity keys or the store would not be written.
#[derive(Debug, thiserror::Error)]
enum SaveError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Contacts and conversations of the backup: they are wanted before anything is sent, because they say
/// which identities were believed. A backup that cannot be had stops nothing.
async fn find_backup(
    session: &mut RestrictedSession,
    identity: &Identity,
    account: fastchat_protocol::AccountId,
) -> Result<Option<Backup>, String> {
    let text = |e: LinkError| e.to_string();
    let Some(pointer) = session.get_slot(pointer::slot(account), 0).await.map_err(text)? else {
        return Ok(None);
    };
    let archive = pointer::open(identity, &pointer).map_err(|e| e.to_string())?;
    let mut backup = Backup { archive, parts: Vec::new(), whole: false };
    for part in 0..MAX_PARTS {
        let sealed = session.get_slot(backup.archive.slot, part).await.map_err(text)?;
        let sealed = sealed.ok_or("the backup is not whole on the server")?;
        let (plain, last) = backup.archive.open(part, &sealed).map_err(|e| e.to_string())?;
        let history = archive::holds_history(&plain).map_err(|e| e.to_string())?;
        backup.parts.push(plain);
        backup.whole = last;
        if last || history {
            break;
        }
    }
    Ok(Some(backup))
}

/// Takes in what is here of the backup; the engine goes on with the rest.
fn keep_backup(
    store: &mut Store,
    account: fastchat_protocol::AccountId,
    backup: Backup,
) -> Result<u64, String> {
    let Backup { archive, parts, whole } = backup;
    let written = store.write(|tx| {
        let mut entries = 0;
        for part in &parts {
            entries += archive::import(tx, account, part)?.entries;
        }
        adopt_backup(tx, archive.slot)?;
        let rest = Import::from_backup(archive, parts.len() as u32, entries);
        tx.set_setting(Import::NAME, &(!whole).then_some(rest))?;
        Ok::<_, archive::ArchiveError>(entries)
    });
    written.map_err(|e| e.to_string())
}

impl std::fmt::Debug for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recovery").field("name", &self.name).finish_non_exhaustive()
    }
}

//! Registration, login and the change of a password: what needs the password itself.
//!
//! Each of them may be interrupted anywhere and repeated: keys are stored before the server hears of
//! them, and both wrapped keys are kept until the server has confirmed a new password.

use crate::{
    api::{ApiError, ErrorKind},
    link::{Destination, LinkError, Pick, Servers, Way},
    profile::{Cost, Location, Profile, Settings, Unfinished, derive},
    store::{Contact, Store, StoreError},
};
use fastchat_e2ee::{Device, Identity, StoreKey, password::PasswordKeys};
use fastchat_protocol::{
    AccountId, AccountName, Bytes, ClientFrame, Code, DeviceId,
    client::{AuthKey, Link, Login, Register, Resume},
    server::Session,
};
use std::path::PathBuf;

/// Limit: characters of a password; longer ones are a mistake (a file piped in).
const MAX_PASSWORD: usize = 1024;

/// What a registration needs.
#[derive(Clone)]
pub struct Registration {
    /// The name that others will type.
    pub name: AccountName,
    /// The password.
    pub password: fastchat_e2ee::Zeroizing<String>,
    /// The server.
    pub server: Servers,
    /// Certificates to trust instead of the platform's.
    pub ca: Option<PathBuf>,
    /// A plain connection to another machine is wanted.
    pub insecure: bool,
    /// Where registration is by invite.
    pub invite: Option<String>,
    /// What a guess at the password costs.
    pub cost: Cost,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration")
            .field("name", &self.name)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// What a profile knows of itself.
pub(crate) struct Own {
    pub(crate) device: Device,
    pub(crate) contact: Contact,
}

/// Whether a text can be a password.
pub fn check_password(password: &str) -> Result<(), ApiError> {
    let message = match password.chars().count() {
        0 => "an empty password protects nothing",
        1..8 => "the password is too short: at least 8 characters",
        n if n > MAX_PASSWORD => "the password is too long: at most 1024 characters",
        _ => return Ok(()),
    };
    Err(ApiError::new(ErrorKind::Usage, message))
}

/// Makes an account, or finishes making it. Afterwards the profile is registered.
pub async fn register(profile: &Profile, registration: &Registration) -> Result<StoreKey, ApiError> {
    let place = &profile.location;
    let before = place.settings()?;
    let first = before.is_none();
    if let Some(settings) = &before {
        check_unfinished(settings, registration)?;
    }
    check_password(&registration.password)?;
    let Registration { server, ca, insecure, .. } = registration;
    let deployment = before.as_ref().map(|settings| settings.deployment.clone());
    let known = Some(place.gateways_file());
    let (ca, insecure, servers) = (ca.clone(), *insecure, server.clone());
    let mut way = Way::new(Destination { ca, deployment, insecure, known, ..Destination::new(servers) });
    let deployment = way.open().await?.hello().deployment.clone();
    let keys =
        derive(&registration.password, &deployment, registration.name.as_str(), registration.cost).await?;
    let (mut settings, key) = match before {
        Some(settings) => {
            let (_, key) = settings.unwrap_key(&keys.unlock_key)?;
            (settings, key)
        }
        None => begin(place, registration, deployment, &keys).await?,
    };
    let own = own(&profile.store(StoreKey::from_bytes(key.expose()))?)?;
    if let Err(NotAnnounced { error, refused, resumed }) = announce(&mut way, registration, &keys, &own).await
    {
        if nothing_exists(first, refused, resumed) {
            // So another name may be tried.
            place.clear()?;
        }
        return Err(error);
    }
    settings.registered = true;
    place.put_settings(&settings)?;
    place.remember_key(&key)?;
    Ok(key)
}

fn check_unfinished(settings: &Settings, registration: &Registration) -> Result<(), ApiError> {
    let error = |message| Err(ApiError::new(ErrorKind::Usage, message));
    if settings.registered {
        return error(format!(
            "this profile already belongs to {}: use --profile for another account",
            settings.name
        ));
    }
    if let Some(unfinished) = settings.unfinished {
        return error(begun_otherwise(settings, unfinished));
    }
    if settings.name != registration.name.as_str() || settings.server != registration.server.to_string() {
        return error(format!(
            "the registration of {} at {} was interrupted here: repeat it, or use --profile for another account",
            settings.name, settings.server
        ));
    }
    Ok(())
}

/// What to say where something else was begun in this profile.
pub(crate) fn begun_otherwise(settings: &Settings, unfinished: Unfinished) -> String {
    let (what, command) = match unfinished {
        Unfinished::Link => ("linking this device to", "device link"),
        Unfinished::Recovery => ("recovering", "recover"),
    };
    format!(
        "{what} {0} was interrupted here: repeat it (`fastchat {command} {0}`), or use --profile",
        settings.name
    )
}

/// Makes all keys and stores them. Nothing has been sent.
async fn begin(
    place: &Location,
    registration: &Registration,
    deployment: String,
    keys: &PasswordKeys,
) -> Result<(Settings, StoreKey), ApiError> {
    let identity = tokio::task::spawn_blocking(|| Identity::generate(&mut rand::rng()));
    let identity = identity.await.map_err(ApiError::internal)?.map_err(ApiError::internal)?;
    let key = StoreKey::generate(&mut rand::rng());
    let fingerprint = identity.fingerprint().map_err(ApiError::internal)?;
    let (account, id) = (AccountId::new(rand::random()), DeviceId::new(rand::random()));
    let device = Device::generate(&mut rand::rng(), account, id, fingerprint);
    let manifest = identity
        .sign_first(&mut rand::rng(), account, vec![device.manifest_entry()])
        .map_err(ApiError::internal)?;
    // A store of an attempt that got no further has another key.
    place.clear()?;
    let mut store =
        Store::open(&place.store_file(), StoreKey::from_bytes(key.expose())).map_err(ApiError::internal)?;
    let contact = Contact {
        account,
        name: registration.name.as_str().to_owned(),
        manifest,
        changed: None,
        verified: true,
    };
    let written: Result<(), StoreError> = store.write(|tx| {
        device.save(&tx.vault())?;
        identity.save(&tx.vault()).map_err(|e| {
            StoreError::Vault(match e {
                fastchat_e2ee::identity::IdentityError::Vault(error) => error,
                _ => fastchat_e2ee::VaultError::Encode,
            })
        })?;
        tx.put_contact(&contact)
    });
    written.map_err(ApiError::internal)?;
    let wrap = key.wrap(&keys.unlock_key).map_err(ApiError::internal)?;
    let settings = Settings {
        v: 1,
        server: registration.server.to_string(),
        deployment,
        name: contact.name,
        ca: registration.ca.clone(),
        insecure: registration.insecure,
        pick: Pick::default(),
        repick_every: None,
        registered: false,
        unfinished: None,
        wraps: vec![hex::encode(wrap)],
    };
    place.put_settings(&settings)?;
    Ok((settings, key))
}

/// Why the server was not told of the account.
struct NotAnnounced {
    error: ApiError,
    /// What `Register` was refused with.
    refused: Option<Code>,
    /// What `Resume` was refused with after that.
    resumed: Option<Code>,
}

impl From<LinkError> for NotAnnounced {
    fn from(error: LinkError) -> Self {
        let refused = refused_with(&error);
        Self { error: error.into(), refused, resumed: None }
    }
}

fn refused_with(error: &LinkError) -> Option<Code> {
    match error {
        LinkError::Refused(refusal) => Some(refusal.code),
        _ => None,
    }
}

/// Whether it is certain that the server has nothing of this registration. The keys here are the only
/// ones: an earlier attempt whose answer was lost may have made the account.
fn nothing_exists(first: bool, refused: Option<Code>, resumed: Option<Code>) -> bool {
    match (refused, resumed) {
        (Some(Code::NameTaken), Some(Code::BadCredentials)) => true,
        (Some(Code::BadName | Code::RegistrationClosed | Code::BadManifest), None) => first,
        _ => false,
    }
}

/// Tells the server of the account, unless it knows already.
async fn announce(
    way: &mut Way,
    registration: &Registration,
    keys: &PasswordKeys,
    own: &Own,
) -> Result<Session, NotAnnounced> {
    let opened = way.open().await?;
    let frame = Register {
        name: registration.name.as_str().to_owned(),
        auth_key: AuthKey::new(keys.auth_key.as_str()),
        device: own.device.id(),
        signature: opened.sign(&own.device),
        manifest: Bytes::copy_from_slice(own.contact.manifest.bytes()),
        invite: registration.invite.clone(),
    };
    match opened.prove(ClientFrame::Register(frame)).await {
        Ok(session) => Ok(session),
        // Perhaps by ourselves, and only the answer was lost: then this device can resume.
        Err(LinkError::Refused(refusal)) if refusal.code == Code::NameTaken => {
            let opened = way.open().await?;
            let resume = Resume { device: own.device.id(), signature: opened.sign(&own.device) };
            opened.prove(ClientFrame::Resume(resume)).await.map_err(|error| {
                let resumed = refused_with(&error);
                let error = match resumed {
                    Some(Code::BadCredentials) => {
                        let message = format!("the name {} is somebody's already", registration.name);
                        ApiError::new(ErrorKind::Refused, message)
                    }
                    _ => error.into(),
                };
                NotAnnounced { error, refused: Some(Code::NameTaken), resumed }
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// The own device and account, from a store that has them.
pub(crate) fn own(store: &Store) -> Result<Own, ApiError> {
    let missing = || ApiError::internal("the local store has no device: it is damaged");
    store.read(|tx| {
        let device = Device::load(&tx.vault()).map_err(ApiError::internal)?.ok_or_else(missing)?;
        let contacts = tx.contacts().map_err(ApiError::internal)?;
        let contact =
            contacts.into_iter().find(|contact| contact.account == device.account()).ok_or_else(missing)?;
        Ok(Own { device, contact })
    })
}

/// What came of a login.
#[derive(Debug)]
pub struct Unlocked {
    /// The store's key.
    pub key: StoreKey,
    /// Why the server could not be asked whether the password is still the account's.
    pub unconfirmed: Option<ApiError>,
}

/// Opens the store by the password and asks the server whether it is the account's.
pub async fn login(profile: &Profile, password: &str, cost: Cost) -> Result<Unlocked, ApiError> {
    let mut settings = profile.settings()?;
    let keys = derive(password, &settings.deployment, &settings.name, cost).await?;
    let (at, key) = settings.unwrap_key(&keys.unlock_key)?;
    let own = own(&profile.store(StoreKey::from_bytes(key.expose()))?)?;
    let mut way = Way::new(settings.destination(&profile.location)?);
    let unconfirmed = match prove_password(&mut way, &settings.name, &keys, &own.device).await {
        Ok(()) => {
            if settings.wraps.len() > 1 {
                settings.wraps = vec![settings.wraps.swap_remove(at)];
                profile.location.put_settings(&settings)?;
            }
            None
        }
        Err(error) if error.kind == ErrorKind::Auth && settings.wraps.len() > 1 => {
            let message =
                "a change of the password was interrupted, and the server knows the other one of the two";
            return Err(ApiError::new(ErrorKind::Auth, message));
        }
        Err(error) if error.kind == ErrorKind::Network => Some(error),
        Err(error) if error.kind == ErrorKind::Auth && resumes(&mut way, &own.device).await => {
            let message = "the account's password was changed on another device; this one still opens with the old one: \
                 `fastchat passwd --this-device` makes it the same";
            Some(ApiError::new(ErrorKind::Auth, message))
        }
        Err(error) => return Err(error),
    };
    profile.location.remember_key(&key)?;
    Ok(Unlocked { key, unconfirmed })
}

/// Whether the server knows the device, whatever it thinks of the password.
async fn resumes(way: &mut Way, device: &Device) -> bool {
    let Ok(opened) = way.open().await else { return false };
    let resume = Resume { device: device.id(), signature: opened.sign(device) };
    opened.prove(ClientFrame::Resume(resume)).await.is_ok()
}

/// After the password was changed on another device: this one opens with the new one, too, which the
/// server is asked about. `old` opens this device now.
pub async fn follow_change(place: &Location, old: &str, new: &str, cost: Cost) -> Result<(), ApiError> {
    let mut settings = place.settings()?.ok_or_else(|| crate::profile::no_account(place))?;
    let old = derive(old, &settings.deployment, &settings.name, cost).await?;
    let (_, key) = settings.unwrap_key(&old.unlock_key)?;
    let new = derive(new, &settings.deployment, &settings.name, cost).await?;
    let proof = Link { name: settings.name.clone(), auth_key: AuthKey::new(new.auth_key.as_str()) };
    let mut way = Way::new(settings.destination(place)?);
    way.restrict(ClientFrame::Link(proof)).await?.close().await;
    settings.wraps = vec![hex::encode(key.wrap(&new.unlock_key).map_err(ApiError::internal)?)];
    place.put_settings(&settings)
}

async fn prove_password(
    way: &mut Way,
    name: &str,
    keys: &PasswordKeys,
    device: &Device,
) -> Result<(), ApiError> {
    let opened = way.open().await?;
    let signature = opened.sign(device);
    let auth_key = AuthKey::new(keys.auth_key.as_str());
    let login = Login { name: name.to_owned(), auth_key, device: device.id(), signature };
    opened.prove(ClientFrame::Login(login)).await?;
    Ok(())
}

/// A change of the password, step by step: the caller sends the two auth keys between
/// [`begin_change`] and [`Settings`] with one wrap again ([`end_change`]).
pub struct PasswordChange {
    /// The auth key in force.
    pub old: String,
    /// The auth key to come.
    pub new: String,
    new_wrap: String,
}

/// Checks the old password and stores the key wrapped by both.
pub async fn begin_change(
    place: &Location,
    old: &str,
    new: &str,
    cost: Cost,
) -> Result<PasswordChange, ApiError> {
    check_password(new)?;
    let mut settings = place.settings()?.ok_or_else(|| crate::profile::no_account(place))?;
    let old = derive(old, &settings.deployment, &settings.name, cost).await?;
    let (_, key) = settings.unwrap_key(&old.unlock_key)?;
    let new = derive(new, &settings.deployment, &settings.name, cost).await?;
    let new_wrap = hex::encode(key.wrap(&new.unlock_key).map_err(ApiError::internal)?);
    // All earlier ones stay: after an interrupted change it is not known which one the server has.
    settings.wraps.push(new_wrap.clone());
    place.put_settings(&settings)?;
    crate::failpoint::pass("password-wrapped");
    Ok(PasswordChange { old: old.auth_key.to_string(), new: new.auth_key.to_string(), new_wrap })
}

/// The server has confirmed: the old password opens nothing any more.
pub fn end_change(place: &Location, change: &PasswordChange) -> Result<(), ApiError> {
    crate::failpoint::pass("password-changed");
    let mut settings = place.settings()?.ok_or_else(|| crate::profile::no_account(place))?;
    settings.wraps = vec![change.new_wrap.clone()];
    place.put_settings(&settings)
}

/// The server has refused: only the old password is good.
pub fn abort_change(place: &Location, change: &PasswordChange) -> Result<(), ApiError> {
    let mut settings = place.settings()?.ok_or_else(|| crate::profile::no_account(place))?;
    settings.wraps.retain(|wrap| *wrap != change.new_wrap);
    place.put_settings(&settings)
}

impl std::fmt::Debug for PasswordChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordChange(..)")
    }
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own").field("device", &self.device).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only keys of an account that may exist are not thrown away.
    #[test]
    fn regression_keys_go_only_where_nothing_exists() {
        use Code::{
            BadCredentials, BadManifest, BadName, NameTaken, RateLimited, RegistrationClosed, Revoked,
            Unavailable,
        };
        let cases = [
            (false, Some(NameTaken), Some(BadCredentials), true),
            (true, Some(NameTaken), Some(BadCredentials), true),
            (false, Some(NameTaken), Some(RateLimited), false),
            (false, Some(NameTaken), Some(Unavailable), false),
            (false, Some(NameTaken), Some(Revoked), false),
            (false, Some(NameTaken), None, false),
            (true, Some(BadName), None, true),
            (true, Some(RegistrationClosed), None, true),
            (true, Some(BadManifest), None, true),
            (false, Some(BadName), None, false),
            (false, Some(RegistrationClosed), None, false),
            (true, Some(RateLimited), None, false),
            (false, Some(RateLimited), None, false),
            (true, Some(Unavailable), None, false),
            (true, None, None, false),
        ];
        for (first, refused, resumed, want) in cases {
            assert_eq!(nothing_exists(first, refused, resumed), want, "{first} {refused:?} {resumed:?}");
        }
    }
}

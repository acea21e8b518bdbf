//! The new machine's side of linking: prove the password, show a code, wait for the grant, keep what it
//! brings.
//!
//! Each step may be interrupted and repeated. The device's key is stored before its offer leaves, so a
//! repetition is the same device with another code: whoever has listed it already hands over again
//! and lists nothing. Nothing else is stored before the grant was accepted.

use super::{
    HANDOVER_SECONDS, archive,
    handover::{self, Grant},
};
use crate::{
    account::{begun_otherwise, own},
    api::{ApiError, ErrorKind},
    engine::{archive::Import, manifest::HOLDER},
    failpoint,
    link::{Destination, LinkError, Pick, RestrictedSession, Servers, Way},
    profile::{Cost, Profile, Settings, Unfinished, derive},
    store::{Contact, Store, StoreError},
};
use fastchat_delivery::VerifiedManifest;
use fastchat_e2ee::{
    Device, LinkCode, LinkOffer, LinkSecret, StoreKey, Zeroizing,
    link::{confirmation, open_grant},
    password::PasswordKeys,
};
use fastchat_protocol::{AccountName, Bytes, ClientFrame, DeviceId, client};
use std::{path::PathBuf, time::Duration};
use tokio::time::{Instant, sleep};

/// Between two looks for the grant.
const LOOK: Duration = Duration::from_secs(1);
/// Limit: contacts and conversations of an account, in parts.
const MAX_PARTS: u32 = 64;

/// What linking needs.
#[derive(Clone)]
pub struct LinkRequest {
    /// The account's name.
    pub name: AccountName,
    /// The account's password, which becomes this device's as well.
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

/// How linking begins.
#[derive(Debug)]
pub enum Begun {
    /// The code is to be shown.
    Waiting(Box<Linking>),
    /// An earlier attempt was interrupted after the grant: the device is linked.
    Finished(Profile, StoreKey),
}

/// A device that waits for its grant.
pub struct Linking {
    profile: Profile,
    way: Way,
    settings: Settings,
    keys: PasswordKeys,
    key: StoreKey,
    device: Device,
    code: LinkCode,
    secret: LinkSecret,
    offer: Bytes,
    session: RestrictedSession,
    until: Instant,
    granted: Option<Brought>,
}

/// What a grant has brought, with the parts of the people's archive. Nothing of it is stored yet.
struct Brought {
    grant: Grant,
    manifest: VerifiedManifest,
    people: Vec<Zeroizing<Vec<u8>>>,
}

/// What the other device has handed over, to be looked at by a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The account's name.
    pub name: String,
    /// SHA-256 of the account's identity key.
    pub identity: [u8; 32],
    /// The device that has let this one in.
    pub by: DeviceId,
    /// History follows.
    pub with_history: bool,
}

impl Linking {
    /// Proves the password and leaves the offer. The profile holds no account, or the beginning of this.
    pub async fn begin(profile: Profile, request: &LinkRequest) -> Result<Begun, ApiError> {
        let before = profile.location.settings()?;
        if let Some(settings) = &before {
            check_unfinished(settings, request)?;
        }
        let LinkRequest { server, ca, insecure, .. } = request;
        let deployment = before.as_ref().map(|settings| settings.deployment.clone());
        let known = Some(profile.location.gateways_file());
        let (ca, insecure, servers) = (ca.clone(), *insecure, server.clone());
        let mut way = Way::new(Destination { ca, deployment, insecure, known, ..Destination::new(servers) });
        let deployment = way.open().await?.hello().deployment.clone();
        let name = request.name.as_str();
        let keys = derive(&request.password, &deployment, name, request.cost).await?;
        let mut session = prove(&mut way, name, &keys).await?;
        let manifest = shown_manifest(&session)?;

        let kept = before.and_then(|settings| Kept::find(&profile, settings, &keys, &manifest).transpose());
        let Kept { settings, key, device } = match kept.transpose()? {
            Some(kept) if own(&profile.store(StoreKey::from_bytes(kept.key.expose()))?).is_ok() => {
                let key = finish(&profile, kept.settings, kept.key)?;
                return Ok(Begun::Finished(profile, key));
            }
            Some(kept) => kept,
            None => Kept::make(&profile, request, deployment, &keys, &manifest)?,
        };
        failpoint::pass("link-begun");
        let code = LinkCode::generate(&mut rand::rng());
        let offered = LinkOffer::generate(&mut rand::rng(), device.manifest_entry());
        let (offer, secret) = offered.map_err(ApiError::internal)?;
        let offer = Bytes::from(offer.seal(&code).map_err(ApiError::internal)?);
        session.put_slot(code.slot(), handover::OFFER, offer.clone(), HANDOVER_SECONDS).await?;
        failpoint::pass("link-offered");
        let until = Instant::now() + Duration::from_secs(HANDOVER_SECONDS.into());
        Ok(Begun::Waiting(Box::new(Self {
            profile,
            way,
            settings,
            keys,
            key,
            device,
            code,
            secret,
            offer,
            session,
            until,
            granted: None,
        })))
    }

    /// What a person types on the other device.
    pub fn code(&self) -> String {
        self.code.to_string()
    }

    /// This device.
    pub fn device(&self) -> DeviceId {
        self.device.id()
    }

    /// Six digits; the other device shows the same ones.
    pub async fn confirmation(&self) -> Result<String, ApiError> {
        let (code, offer) = (self.code.clone(), self.offer.clone());
        let worked = tokio::task::spawn_blocking(move || confirmation(&code, &offer)).await;
        worked.map_err(ApiError::internal)?.map_err(ApiError::internal)
    }

    /// Waits for the grant and reads what belongs to it. Nothing is stored.
    pub async fn granted(&mut self) -> Result<Granted, ApiError> {
        loop {
            let looked = self.session.get_slot(self.code.slot(), handover::GRANT).await;
            match looked {
                Ok(Some(sealed)) => {
                    let granted = self.read(&sealed).await?;
                    return Ok(granted);
                }
                Ok(None) => {}
                Err(error) if error.is_final() => return Err(error.into()),
                Err(error) => self.dial_again(&error).await?,
            }
            if Instant::now() >= self.until {
                let message =
                    "the code has expired and nobody has typed it: run the command again for another one";
                return Err(ApiError::new(ErrorKind::Timeout, message));
            }
            sleep(LOOK).await;
        }
    }

    async fn dial_again(&mut self, error: &LinkError) -> Result<(), ApiError> {
        tracing::info!(%error, "the connection is gone while waiting");
        sleep(error.wait().unwrap_or(LOOK)).await;
        match prove(&mut self.way, &self.settings.name, &self.keys).await {
            Ok(session) => self.session = session,
            Err(error) if error.kind == ErrorKind::Network => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn read(&mut self, sealed: &[u8]) -> Result<Granted, ApiError> {
        let untrusted = |message: String| ApiError::new(ErrorKind::Untrusted, message);
        let plain = open_grant(&self.code, &self.secret, sealed)
            .map_err(|e| untrusted(format!("what the other device has left cannot be used: {e}")))?;
        let grant = Grant::decode(&plain).map_err(untrusted)?;
        let manifest = VerifiedManifest::verify(&grant.manifest).map_err(|e| untrusted(e.to_string()))?;
        check_grant(&self.device, &self.settings.name, &grant, &manifest)
            .map_err(|why| untrusted(why.into()))?;
        let mut people = Vec::new();
        for part in 0..MAX_PARTS {
            let missing = || untrusted("what the other device has handed over is not whole".into());
            let sealed = self.session.get_slot(grant.people.slot, part).await?.ok_or_else(missing)?;
            let (plain, last) = grant.people.open(part, &sealed).map_err(|e| untrusted(e.to_string()))?;
            people.push(plain);
            if last {
                break;
            }
        }
        failpoint::pass("link-granted");
        let granted = Granted {
            name: grant.name.clone(),
            identity: manifest.identity_fingerprint(),
            by: grant.holder,
            with_history: grant.with_history,
        };
        self.granted = Some(Brought { grant, manifest, people });
        Ok(granted)
    }

    /// Keeps what the grant brings. From here on the device is one of the account's.
    pub async fn accept(self) -> Result<(Profile, StoreKey), ApiError> {
        let Self { profile, settings, key, code, granted, session, .. } = self;
        let Brought { grant, manifest, people } =
            granted.ok_or_else(|| ApiError::internal("nothing was granted yet"))?;
        let mut store = profile.store(StoreKey::from_bytes(key.expose()))?;
        let contact =
            Contact { account: grant.account, name: grant.name, manifest, changed: None, verified: true };
        let import = Import::from_device(grant.history, code.slot(), grant.with_history);
        let written = store.write(|tx| {
            for part in &people {
                archive::import(tx, grant.account, part)?;
            }
            tx.put_contact(&contact)?;
            tx.set_setting(HOLDER, &grant.holder)?;
            tx.set_setting(Import::NAME, &Some(import))?;
            Ok::<_, archive::ArchiveError>(())
        });
        written.map_err(ApiError::internal)?;
        drop(store);
        failpoint::pass("link-kept");
        session.close().await;
        let key = finish(&profile, settings, key)?;
        Ok((profile, key))
    }
}

/// Whether a grant is for this device, from whom it was expected.
fn check_grant(
    device: &Device,
    name: &str,
    grant: &Grant,
    manifest: &VerifiedManifest,
) -> Result<(), &'static str> {
    if grant.account != device.account() || manifest.account() != grant.account || grant.name != name {
        return Err("the other device belongs to another account");
    }
    if manifest.identity_fingerprint() != device.identity_fingerprint() {
        return Err(
            "the server shows another identity of this account than the other device has: nothing was kept",
        );
    }
    if manifest.device(device.id()) != Some(&device.manifest_entry()) {
        return Err("the other device has not listed this one");
    }
    Ok(())
}

/// A device that was made here and has not been let in yet.
struct Kept {
    settings: Settings,
    key: StoreKey,
    device: Device,
}

impl Kept {
    /// From an attempt that was interrupted. One that is of no use is forgotten: its device was never let
    /// in, or was revoked since.
    fn find(
        profile: &Profile,
        settings: Settings,
        keys: &PasswordKeys,
        shown: &VerifiedManifest,
    ) -> Result<Option<Self>, ApiError> {
        let Ok((_, key)) = settings.unwrap_key(&keys.unlock_key) else { return Ok(None) };
        let store = profile.store(StoreKey::from_bytes(key.expose()))?;
        let device = store.read(|tx| Device::load(&tx.vault())).map_err(ApiError::internal)?;
        let fits = |device: &Device| {
            device.account() == shown.account()
                && device.identity_fingerprint() == shown.identity_fingerprint()
                && !shown.is_revoked(device.id())
        };
        Ok(device.filter(fits).map(|device| Self { settings, key, device }))
    }

    fn make(
        profile: &Profile,
        request: &LinkRequest,
        deployment: String,
        keys: &PasswordKeys,
        shown: &VerifiedManifest,
    ) -> Result<Self, ApiError> {
        let key = StoreKey::generate(&mut rand::rng());
        let id = DeviceId::new(rand::random());
        let device = Device::generate(&mut rand::rng(), shown.account(), id, shown.identity_fingerprint());
        let place = &profile.location;
        place.clear()?;
        let mut store = Store::open(&place.store_file(), StoreKey::from_bytes(key.expose()))
            .map_err(ApiError::internal)?;
        let saved: Result<(), StoreError> = store.write(|tx| Ok(device.save(&tx.vault())?));
        saved.map_err(ApiError::internal)?;
        let wrap = key.wrap(&keys.unlock_key).map_err(ApiError::internal)?;
        let settings = Settings {
            v: 1,
            server: request.server.to_string(),
            deployment,
            name: request.name.as_str().to_owned(),
            ca: request.ca.clone(),
            insecure: request.insecure,
            pick: Pick::default(),
            repick_every: None,
            registered: false,
            unfinished: Some(Unfinished::Link),
            wraps: vec![hex::encode(wrap)],
        };
        place.put_settings(&settings)?;
        Ok(Self { settings, key, device })
    }
}

fn finish(profile: &Profile, mut settings: Settings, key: StoreKey) -> Result<StoreKey, ApiError> {
    (settings.registered, settings.unfinished) = (true, None);
    profile.location.put_settings(&settings)?;
    profile.location.remember_key(&key)?;
    Ok(key)
}

fn check_unfinished(settings: &Settings, request: &LinkRequest) -> Result<(), ApiError> {
    let usage = |message: String| Err(ApiError::new(ErrorKind::Usage, message));
    if settings.registered {
        return usage(format!(
            "this profile already belongs to {}: use --profile for another device or account",
            settings.name
        ));
    }
    match settings.unfinished {
        None => usage(format!(
            "the registration of {} was interrupted here: finish it, or use --profile",
            settings.name
        )),
        Some(Unfinished::Recovery) => usage(begun_otherwise(settings, Unfinished::Recovery)),
        Some(Unfinished::Link)
            if settings.name != request.name.as_str() || settings.server != request.server.to_string() =>
        {
            usage(begun_otherwise(settings, Unfinished::Link))
        }
        Some(Unfinished::Link) => Ok(()),
    }
}

async fn prove(way: &mut Way, name: &str, keys: &PasswordKeys) -> Result<RestrictedSession, ApiError> {
    let auth_key = client::AuthKey::new(keys.auth_key.as_str());
    let proof = ClientFrame::Link(client::Link { name: name.to_owned(), auth_key });
    Ok(way.restrict(proof).await?)
}

/// The account's manifest as the server shows it. Believed only as far as the grant confirms it.
pub(super) fn shown_manifest(session: &RestrictedSession) -> Result<VerifiedManifest, ApiError> {
    let shown = session.account();
    let manifest = VerifiedManifest::verify(&shown.manifest).map_err(|e| {
        ApiError::new(ErrorKind::Untrusted, format!("the server's account is not valid: {e}"))
    })?;
    match manifest.account() == shown.account {
        true => Ok(manifest),
        false => Err(ApiError::new(ErrorKind::Untrusted, "the server shows the devices of another account")),
    }
}

impl std::fmt::Debug for Linking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linking").field("device", &self.device).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for LinkRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

//! From an unidentified socket to a session.
//!
//! - `Hello`: a version that both speak, the host that was dialled, a fresh challenge.
//! - Then one proof: `Register`, `Login` or `Resume`, each with the device's signature; or `Link` or
//!   `Recover`, by which somebody without a device becomes a [`Guest`].
//! - [`Unidentified`] is consumed by a proof: a socket without one has no way to be served.
//!
//! A challenge is good for one answer within its time. Whatever is wrong with name, password or
//! device, the answer is the same and takes the same work.

use crate::{
    config::Registration,
    fleet::admission,
    gateway::Gateway,
    invites, metrics,
    rate::TooOften,
    refusal,
    service::{check_enabled, checked_manifest, new_manifest, password_error, rate_limited, store_error},
    session::Me,
    store::{
        Account, Device, NewAccount, Registered,
        operate::{Act, Note},
    },
};
use ed25519_dalek::{Signature, VerifyingKey};
use fastchat_protocol::{
    AccountId, AccountName, Bytes, ClientFrame, Code, DeviceId, Refusal, ServerFrame, VERSIONS, challenge,
    client::{Hello, Link, Login, Recover, Register, Resume},
    limits, server,
};
use sha2::{Digest, Sha256};
use std::{net::IpAddr, sync::Arc, time::Instant};
use subtle::ConstantTimeEq;

/// Asked for where a name is nobody's, so that the store has the same work.
const NOBODY: AccountId = AccountId::new([0; 16]);

/// A socket of which nothing is known but where it comes from.
#[derive(Debug)]
pub struct Unidentified {
    /// The peer's address, for limits.
    pub address: IpAddr,
    /// The request's Host, if it had one.
    pub host: Option<String>,
}

/// A socket that has said hello and owes a proof.
#[derive(Debug)]
pub struct Challenged {
    address: IpAddr,
    host: String,
    nonce: [u8; 32],
    since: Instant,
}

/// A known device.
#[derive(Debug)]
pub struct Identified {
    /// Who.
    pub me: Me,
}

/// Somebody who proved a password or a recovery code, and no device: a device that is to be linked, or
/// an owner who lost all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// The account.
    pub account: AccountId,
    /// By the recovery code, so that the account may be restored.
    pub recovers: bool,
}

/// Who connects.
#[derive(Debug)]
pub enum Proved {
    /// A device: a session begins.
    Device(Identified),
    /// Nobody's device, with the answer that it gets.
    Guest(Guest, Box<server::Restricted>),
}

impl Unidentified {
    /// Deals with the first frame.
    pub async fn hello(
        self,
        gateway: &Gateway,
        hello: Hello,
        nonce: [u8; 32],
        now: Instant,
    ) -> Result<(Challenged, ServerFrame), Refusal> {
        let Some(version) = VERSIONS.iter().find(|version| hello.versions.contains(version)) else {
            let detail = format!(
                "this gateway serves protocol versions {VERSIONS:?}, the client speaks {:?}",
                hello.versions.iter().take(8).collect::<Vec<_>>()
            );
            return Err(Refusal {
                versions: VERSIONS.to_vec(),
                ..Refusal::new(Code::UnsupportedVersion, detail)
            });
        };
        if self.host.is_some_and(|host| host != hello.host) || !gateway.config.serves_host(&hello.host) {
            return Err(Refusal::new(
                Code::WrongHost,
                "the host that the client dialled is not one of this deployment",
            ));
        }
        admission::admit(gateway, hello.ticket.as_deref())?;
        let incarnation = gateway.incarnation().await?;
        let frame = ServerFrame::Hello(server::Hello {
            version: *version,
            deployment: gateway.config.deployment.clone(),
            nonce,
            incarnation,
            max_frame: limits::MAX_FRAME as u32,
            max_envelope: limits::MAX_ENVELOPE as u32,
        });
        Ok((Challenged { address: self.address, host: hello.host, nonce, since: now }, frame))
    }
}

impl Challenged {
    /// Deals with the second frame.
    pub async fn proof(self, gateway: &Gateway, frame: ClientFrame, now: Instant) -> Result<Proved, Refusal> {
        let kind = frame.name();
        let started = Instant::now();
        let proved = self.prove(gateway, frame, now).await;
        let result = proved.as_ref().map_or_else(|refusal| refusal.code.label(), |_| "ok");
        metrics::authenticated(kind_label(kind), result, started.elapsed());
        proved
    }

    async fn prove(self, gateway: &Gateway, frame: ClientFrame, now: Instant) -> Result<Proved, Refusal> {
        if now.duration_since(self.since) > gateway.config.challenge_timeout {
            return Err(Refusal::new(
                Code::BadChallenge,
                "the challenge was answered too late: connect again",
            ));
        }
        if !matches!(frame, ClientFrame::Resume(_) | ClientFrame::Login(_)) {
            // Of a device that is known, its session compares it (see `Connection::welcome`).
            gateway.on_incarnation(gateway.store.incarnation().await.map_err(store_error)?)?;
        }
        match frame {
            ClientFrame::Resume(resume) => self.resume(gateway, &resume).await.map(Proved::Device),
            ClientFrame::Login(login) => self.login(gateway, login).await.map(Proved::Device),
            ClientFrame::Register(register) => self.register(gateway, register).await.map(Proved::Device),
            ClientFrame::Link(link) => self.link(gateway, &link).await,
            ClientFrame::Recover(recover) => self.recover(gateway, &recover).await,
            _ => Err(Refusal::new(Code::Unexpected, "the second frame proves who connects")),
        }
    }

    async fn resume(self, gateway: &Gateway, resume: &Resume) -> Result<Identified, Refusal> {
        let device = gateway.arrivals.device(resume.device).await?;
        // An unknown device costs a verification too.
        let key = device.as_ref().map_or([0; 32], |device| device.key);
        let signed = self.signed(gateway, resume.device, &key, &resume.signature);
        match device {
            Some(device) if signed => identified(resume.device, device),
            _ => Err(Refusal::new(
                Code::BadCredentials,
                "this device is not known here, or its signature is wrong",
            )),
        }
    }

    async fn login(self, gateway: &Gateway, login: Login) -> Result<Identified, Refusal> {
        gateway.limiters.login_from(self.address).map_err(rate_limited)?;
        let device = gateway.arrivals.device(login.device).await?;
        let device = device.filter(|device| device.name.as_str() == login.name);
        let hash = match &device {
            Some(device) => gateway.store.password_hash(device.account).await.map_err(store_error)?,
            None => None,
        };
        let key = device.as_ref().map_or([0; 32], |device| device.key);
        let signed = self.signed(gateway, login.device, &key, &login.signature);
        if signed && device.is_some() {
            // Guesses count where the device is known, so that a stranger cannot use an account's up.
            gateway.limiters.login_to(&login.name).map_err(|often| limited(gateway, &login.name, often))?;
        }
        let right = gateway.passwords.check(&login.auth_key, hash).await.map_err(password_error)?;
        match device {
            Some(device) if right && signed => identified(login.device, device),
            _ => Err(Refusal::new(Code::BadCredentials, "name, password or device is wrong")),
        }
    }

    async fn register(self, gateway: &Gateway, register: Register) -> Result<Identified, Refusal> {
        gateway.limiters.login_from(self.address).map_err(rate_limited)?;
        let invite = invite(gateway.config.registration, register.invite.as_deref())?;
        let name: AccountName = register
            .name
            .parse()
            .map_err(|e: fastchat_protocol::name::NameError| Refusal::new(Code::BadName, e.to_string()))?;
        let manifest = checked_manifest(&register.manifest)?;
        let bad = |detail| Refusal::new(Code::BadManifest, detail);
        if manifest.version() != 1 {
            return Err(bad("a registration begins with version 1 of the manifest"));
        }
        let device = manifest
            .device(register.device)
            .ok_or_else(|| bad("the manifest does not list the device that registers"))?;
        if !self.signed(gateway, device.id, &device.key, &register.signature) {
            return Err(Refusal::new(Code::BadChallenge, "the device's signature is wrong"));
        }
        let password_hash = gateway.passwords.hash(&register.auth_key).await.map_err(password_error)?;
        let new = NewAccount {
            account: manifest.account(),
            name: name.clone(),
            password_hash,
            manifest: new_manifest(&manifest),
            invite,
        };
        match gateway.store.register(new).await.map_err(store_error)? {
            Registered::Made => {
                let me = Me { account: manifest.account(), name, device: register.device };
                Ok(Identified { me })
            }
            Registered::BadInvite => Err(bad_invite()),
            Registered::NameTaken => Err(Refusal::new(Code::NameTaken, "this name is taken")),
            Registered::IdTaken => {
                Err(Refusal::new(Code::NameTaken, "this account or device is registered already"))
            }
        }
    }

    async fn link(&self, gateway: &Gateway, link: &Link) -> Result<Proved, Refusal> {
        let account = self.account_of(gateway, &link.name).await?;
        let asked = account.as_ref().map_or(NOBODY, |account| account.id);
        let hash = gateway.store.password_hash(asked).await.map_err(store_error)?;
        let right = gateway.passwords.check(&link.auth_key, hash).await.map_err(password_error)?;
        match account {
            Some(account) if right => guest(gateway, account, None).await,
            _ => Err(Refusal::new(Code::BadCredentials, "name or password is wrong")),
        }
    }

    async fn recover(&self, gateway: &Gateway, recover: &Recover) -> Result<Proved, Refusal> {
        let account = self.account_of(gateway, &recover.name).await?;
        let asked = account.as_ref().map_or(NOBODY, |account| account.id);
        let recovery = gateway.store.recovery(asked).await.map_err(store_error)?;
        let shown: [u8; 32] = Sha256::digest(recover.recovery_key.expose()).into();
        // What is not there is compared too.
        let kept = recovery.as_ref().map_or([0; 32], |recovery| recovery.key_hash);
        let right = bool::from(shown.ct_eq(&kept));
        match account.zip(recovery) {
            Some((account, recovery)) if right => guest(gateway, account, Some(recovery.sealed)).await,
            _ => Err(Refusal::new(Code::BadCredentials, "name or recovery code is wrong")),
        }
    }

    /// The account of a name that somebody without a device claims. Guesses count for every name, known
    /// or not, and take the same questions to the store.
    async fn account_of(&self, gateway: &Gateway, name: &str) -> Result<Option<Account>, Refusal> {
        gateway.limiters.login_from(self.address).map_err(rate_limited)?;
        // What is no name is nobody's.
        let Ok(name) = name.parse::<AccountName>() else { return Ok(None) };
        gateway.limiters.guest_of(name.as_str()).map_err(|often| limited(gateway, name.as_str(), often))?;
        gateway.store.find_account(&name).await.map_err(store_error)
    }

    fn signed(&self, gateway: &Gateway, device: DeviceId, key: &[u8; 32], signature: &[u8]) -> bool {
        let statement = challenge::signed_bytes(&gateway.config.deployment, &self.host, device, &self.nonce);
        let (Ok(key), Ok(signature)) = (VerifyingKey::from_bytes(key), Signature::from_slice(signature))
        else {
            return false;
        };
        key.verify_strict(&statement, &signature).is_ok()
    }
}

fn identified(id: DeviceId, device: Device) -> Result<Identified, Refusal> {
    if let Some(why) = device.shut_out() {
        return Err(refusal::of_shut_out(why));
    }
    let me = Me { account: device.account, name: device.name, device: id };
    Ok(Identified { me })
}

async fn guest(gateway: &Gateway, account: Account, recovery: Option<Bytes>) -> Result<Proved, Refusal> {
    check_enabled(gateway, &account.name).await?;
    let guest = Guest { account: account.id, recovers: recovery.is_some() };
    let Account { id: account, name, manifest } = account;
    Ok(Proved::Guest(guest, Box::new(server::Restricted { account, name, manifest, recovery })))
}

/// The hash of the invite that a registration uses up, if it needs one.
fn invite(registration: Registration, typed: Option<&str>) -> Result<Option<[u8; 32]>, Refusal> {
    let closed = |detail| Err(Refusal::new(Code::RegistrationClosed, detail));
    match (registration, typed) {
        (Registration::Open, _) => Ok(None),
        (Registration::Closed, _) => closed("this deployment takes no registrations"),
        (Registration::Invite, None) => closed("registration here needs an invite: ask the operator for one"),
        (Registration::Invite, Some(typed)) => invites::hash(typed).map(Some).ok_or_else(bad_invite),
    }
}

fn bad_invite() -> Refusal {
    Refusal::new(
        Code::RegistrationClosed,
        "this invite is not one, or it is used up, expired or withdrawn: ask the operator for another",
    )
}

/// Somebody tries too often. The audit log gets a row now and then, behind the answer's back: whether
/// the name is anybody's must not show in how long it takes.
fn limited(gateway: &Gateway, name: &str, often: TooOften) -> Refusal {
    if gateway.limiters.is_worth_a_note(name) {
        let (store, name) = (Arc::clone(&gateway.store), name.to_owned());
        tokio::spawn(async move {
            let Ok(Some(user)) = store.user(&name).await else { return };
            let detail = "too many tries of a password or recovery code".to_owned();
            let note = Note {
                actor: "gateway".into(),
                act: Act::LoginsLimited,
                account: Some(user.account),
                detail,
            };
            if let Err(error) = store.note(note).await {
                tracing::warn!(%error, "the audit log lacks a row about too many logins");
            }
        });
    }
    rate_limited(often)
}

fn kind_label(frame: &'static str) -> &'static str {
    match frame {
        "Register" | "Login" | "Resume" | "Link" | "Recover" => frame,
        _ => "other",
    }
}

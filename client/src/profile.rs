//! Where a profile's files are, who owns them, and how they are unlocked.
//!
//! - Data: `$XDG_DATA_HOME/fastchat/<profile>/` (or `<data dir>/<profile>/`): `profile.json` (server,
//!   own name, wrapped keys), `store.db` (sealed), `lock`, `gateways.json` (those named last).
//! - Runtime: `$XDG_RUNTIME_DIR/fastchat/`: the owner's socket and the key of this login session.
//!   Without a runtime directory, both are in the data directory.
//! - One process owns a profile by a lock on a file: two processes with one ratchet lose messages.
//!
//! Invariant: the store's key is on disk only wrapped by the password, or in the runtime directory
//! between `login` and `logout`.

mod location;
mod settings;

use crate::{
    api::{ApiError, ErrorKind},
    link::Destination,
    store::Store,
};
use fastchat_e2ee::{StoreKey, UnlockKey, Zeroizing, password, password::PasswordKeys};
use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
};

pub use location::Location;
pub(crate) use location::replace;
pub use password::Cost;
pub use settings::{Settings, Unfinished};

/// A profile that this process owns until it is dropped.
#[derive(Debug)]
pub struct Profile {
    /// Where it is.
    pub location: Location,
    /// Held for its lock.
    _lock: File,
}

impl Profile {
    /// Takes the profile; `None` if another process has it.
    pub fn lock(location: &Location) -> Result<Option<Self>, ApiError> {
        location.make()?;
        let path = location.lock_file();
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(|e| at(&path, &e))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { location: location.clone(), _lock: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(at(&path, &error)),
        }
    }

    /// What is known without a key; an error that says what to do if there is no account here.
    pub fn settings(&self) -> Result<Settings, ApiError> {
        self.location
            .settings()?
            .filter(|settings| settings.registered)
            .ok_or_else(|| no_account(&self.location))
    }

    /// Opens the store.
    pub fn store(&self, key: StoreKey) -> Result<Store, ApiError> {
        Store::open(&self.location.store_file(), key).map_err(ApiError::internal)
    }
}

impl Settings {
    /// Where this profile's server is. What is learnt on the way is kept at `place`.
    pub fn destination(&self, place: &Location) -> Result<Destination, ApiError> {
        let servers = self.server.parse().map_err(|e| ApiError::internal(format!("profile.json: {e}")))?;
        Ok(Destination {
            servers,
            ca: self.ca.clone(),
            deployment: Some(self.deployment.clone()),
            insecure: self.insecure,
            pick: self.pick,
            repick_every: self.repick_every,
            known: Some(place.gateways_file()),
            incarnation: None,
        })
    }

    /// Opens one of the wrapped keys. Which one is returned too: after a change of the password that
    /// broke off there are two.
    pub fn unwrap_key(&self, unlock: &UnlockKey) -> Result<(usize, StoreKey), ApiError> {
        let opened = self.wraps.iter().enumerate().find_map(|(at, wrap)| {
            let wrap = hex::decode(wrap).ok()?;
            StoreKey::unwrap(&wrap, unlock).ok().map(|key| (at, key))
        });
        opened.ok_or_else(|| ApiError::new(ErrorKind::Auth, "wrong password"))
    }
}

/// Derives the two keys of a password, where it may block.
pub async fn derive(
    password: &str,
    deployment: &str,
    name: &str,
    cost: Cost,
) -> Result<PasswordKeys, ApiError> {
    let (password, deployment, name) =
        (Zeroizing::new(password.to_owned()), deployment.to_owned(), name.to_owned());
    tokio::task::spawn_blocking(move || password::derive(&password, &deployment, &name, cost))
        .await
        .map_err(ApiError::internal)?
        .map_err(ApiError::internal)
}

/// The error of a command that needs an account where there is none.
pub fn no_account(location: &Location) -> ApiError {
    let message = format!(
        "there is no account in profile {:?}: make one with `fastchat register NAME --server URL`",
        location.name()
    );
    ApiError::new(ErrorKind::Auth, message)
}

/// The error of a command that needs the key while the profile is locked.
pub fn locked() -> ApiError {
    ApiError::new(ErrorKind::Auth, "the profile is locked: run `fastchat login`, or give --password-file")
}

fn at(path: &std::path::Path, error: &io::Error) -> ApiError {
    ApiError::internal(format!("{}: {error}", path.display()))
}

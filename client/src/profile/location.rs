//! Paths, and the files that are read before any key is there.

use super::{Settings, at};
use crate::api::{ApiError, ErrorKind};
use fastchat_e2ee::{StoreKey, Zeroizing};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Limit: a socket's path has at most 107 bytes on Linux.
const MAX_SOCKET_PATH: usize = 100;

/// Where a profile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    name: String,
    dir: PathBuf,
    runtime: PathBuf,
    /// Names of runtime files begin with it; two profiles of one name in two places differ.
    tag: String,
}

impl Location {
    /// The place of `profile` under `data_dir`, or under the user's data directory.
    pub fn find(profile: &str, data_dir: Option<&Path>) -> Result<Self, ApiError> {
        let usage = |message: String| ApiError::new(ErrorKind::Usage, message);
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if profile.is_empty()
            || profile.len() > 64
            || profile.starts_with('.')
            || !profile.chars().all(allowed)
        {
            return Err(usage(format!(
                "{profile:?} cannot be a profile: use letters, digits, dot, underscore, hyphen"
            )));
        }
        let data = match data_dir {
            Some(dir) => std::path::absolute(dir).map_err(|e| at(dir, &e))?,
            None => home_dir("XDG_DATA_HOME", ".local/share")
                .ok_or_else(|| usage("neither XDG_DATA_HOME nor HOME is set: give --data-dir".into()))?
                .join("fastchat"),
        };
        Ok(Self::at(
            profile,
            data.join(profile),
            absolute_env("XDG_RUNTIME_DIR").map(|dir| dir.join("fastchat")),
        ))
    }

    /// A profile in exactly this directory; its socket is there too unless `runtime` is given.
    pub fn at(name: &str, dir: PathBuf, runtime: Option<PathBuf>) -> Self {
        let tag = hex::encode(&Sha256::digest(dir.as_os_str().as_encoded_bytes())[..8]);
        let runtime = runtime.unwrap_or_else(|| dir.clone());
        Self { name: name.to_owned(), dir, runtime, tag }
    }

    /// The profile's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its data is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where socket and session key are.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Whether the session key rests beside the data, for want of a runtime directory.
    pub fn runtime_is_on_disk(&self) -> bool {
        self.runtime == self.dir
    }

    pub(super) fn lock_file(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// The sealed store.
    pub fn store_file(&self) -> PathBuf {
        self.dir.join("store.db")
    }

    /// What is readable without a key.
    pub fn settings_file(&self) -> PathBuf {
        self.dir.join("profile.json")
    }

    /// The gateways that were named last.
    pub fn gateways_file(&self) -> PathBuf {
        self.dir.join("gateways.json")
    }

    fn key_file(&self) -> PathBuf {
        self.runtime.join(format!("{}.key", self.tag))
    }

    /// The owner's socket. Too long a path is replaced by one in a directory of the user's own below
    /// the system's temporary directory.
    pub fn socket_file(&self) -> PathBuf {
        let path = self.runtime.join(format!("{}.sock", self.tag));
        if path.as_os_str().len() <= MAX_SOCKET_PATH {
            return path;
        }
        std::env::temp_dir().join(format!("fastchat-{}", self.tag)).join("sock")
    }

    /// Makes the directories, for their owner alone.
    pub fn make(&self) -> Result<(), ApiError> {
        private_dir(&self.dir)?;
        private_dir(&self.runtime)?;
        let owner = fs::metadata(&self.dir).map_err(|e| at(&self.dir, &e))?.uid();
        if let Some(socket_dir) = self.socket_file().parent() {
            private_dir(socket_dir)?;
            // The temporary directory is everybody's: somebody may have been there first.
            let found = fs::symlink_metadata(socket_dir).map_err(|e| at(socket_dir, &e))?;
            if found.uid() != owner || !found.is_dir() {
                return Err(ApiError::internal(format!("{} belongs to somebody else", socket_dir.display())));
            }
        }
        Ok(())
    }

    /// Whether only the owner can look into the profile's directory.
    pub fn is_private(&self) -> bool {
        fs::metadata(&self.dir).is_ok_and(|found| found.permissions().mode() & 0o077 == 0)
    }

    /// What is known without a key; `None` if there is no profile.
    pub fn settings(&self) -> Result<Option<Settings>, ApiError> {
        let path = self.settings_file();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| ApiError::internal(format!("{}: {e}", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path, &error)),
        }
    }

    /// Replaces what is known without a key, whole or not at all.
    pub fn put_settings(&self, settings: &Settings) -> Result<(), ApiError> {
        let bytes = serde_json::to_vec_pretty(settings).map_err(ApiError::internal)?;
        replace(&self.settings_file(), &bytes)
    }

    /// Removes what an unfinished registration has left.
    pub fn clear(&self) -> Result<(), ApiError> {
        for name in ["profile.json", "store.db", "store.db-wal", "store.db-shm"] {
            let path = self.dir.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path, &error)),
                _ => {}
            }
        }
        self.forget_key()
    }

    /// Keeps the store's key for this login session.
    pub fn remember_key(&self, key: &StoreKey) -> Result<(), ApiError> {
        let text = Zeroizing::new(hex::encode(key.expose()));
        replace(&self.key_file(), text.as_bytes())
    }

    /// The store's key, if this login session has it.
    pub fn remembered_key(&self) -> Result<Option<StoreKey>, ApiError> {
        let path = self.key_file();
        let text = match fs::read(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path, &error)),
        };
        let mut key = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.as_slice(), key.as_mut()).map_err(|_| {
            ApiError::new(ErrorKind::Auth, format!("{} is damaged: run `fastchat login`", path.display()))
        })?;
        Ok(Some(StoreKey::from_bytes(&key)))
    }

    /// Forgets the session's key.
    pub fn forget_key(&self) -> Result<(), ApiError> {
        let path = self.key_file();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path, &error)),
            _ => Ok(()),
        }
    }
}

fn absolute_env(name: &str) -> Option<PathBuf> {
    // The XDG specification: relative paths are invalid and to be ignored.
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn home_dir(variable: &str, below_home: &str) -> Option<PathBuf> {
    absolute_env(variable).or_else(|| Some(absolute_env("HOME")?.join(below_home)))
}

fn private_dir(path: &Path) -> Result<(), ApiError> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| at(path, &e))
}

/// Writes beside, flushes, and renames: after a crash there is the old file or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), ApiError> {
    let beside = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
    };
    write().map_err(|e| at(path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_a_plain_name() {
        for name in ["", ".", "..", "a/b", "../x", "a b", ".hidden", "ä"] {
            assert!(Location::find(name, Some(Path::new("/x"))).is_err(), "{name:?}");
        }
        let place = Location::find("work", Some(Path::new("/x"))).unwrap();
        assert_eq!(place.dir(), Path::new("/x/work"));
    }

    #[test]
    fn long_paths_get_a_short_socket_and_a_key_is_remembered_until_forgotten() {
        let base = tempfile::tempdir().unwrap();
        let place = Location::at("p", base.path().join("x".repeat(120)), None);
        place.make().unwrap();
        assert!(place.socket_file().as_os_str().len() <= MAX_SOCKET_PATH);
        assert!(place.is_private());
        assert!(place.remembered_key().unwrap().is_none());
        place.remember_key(&StoreKey::from_bytes(&[7; 32])).unwrap();
        assert_eq!(place.remembered_key().unwrap().unwrap().expose(), &[7; 32]);
        let mode = fs::metadata(place.key_file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        place.forget_key().unwrap();
        assert!(place.remembered_key().unwrap().is_none());
    }
}

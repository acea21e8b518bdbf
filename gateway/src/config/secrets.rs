//! Secrets in files.

use super::{ConfigError, Settings, StoreChoice, wrong};
use crate::passwords::Pepper;
use std::path::Path;

impl Settings {
    pub(super) fn pepper(
        &self,
        data_dir: &Path,
        store: &StoreChoice,
        make: bool,
    ) -> Result<Pepper, ConfigError> {
        let path = match (&self.pepper_file, store) {
            (Some(path), _) => path.clone(),
            (None, StoreChoice::Sqlite(_)) => data_dir.join("pepper"),
            (None, StoreChoice::Postgres(_)) => {
                return wrong(
                    "pepper_file",
                    "is needed with Postgres: one file with 64 hexadecimal digits for all gateways (openssl rand -hex 32)",
                );
            }
        };
        if !path.exists() && self.pepper_file.is_none() {
            if !make {
                return Ok(Pepper::new([0; 32]));
            }
            make_secret(&path)
                .map_err(|e| ConfigError::new("data_dir", format!("{}: {e}", path.display())))?;
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(secret("pepper_file", &path)?, &mut bytes).map_err(|_| {
            ConfigError::new("pepper_file", format!("{} does not hold 64 hexadecimal digits", path.display()))
        })?;
        Ok(Pepper::new(bytes))
    }
}

fn make_secret(path: &Path) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| std::io::Error::other(e.to_string()))?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(hex::encode(bytes).as_bytes())?;
    file.sync_all()
}

pub(super) fn secret(key: &'static str, path: &Path) -> Result<String, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => wrong(key, format!("{} is empty", path.display())),
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => wrong(key, format!("{}: {error}", path.display())),
    }
}

//! The files of infra/ and the secrets of a deployment, as an operator has them.

use anyhow::{Context, Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// The root of the tree.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a command that is to succeed; returns what it wrote to standard output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?}: {} {}", said(), String::from_utf8_lossy(&output.stdout));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What `scripts/secrets` makes.
pub(crate) struct Secrets(TempDir);

impl Secrets {
    pub(crate) fn make(options: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fastchat-secrets-").tempdir()?;
        run(Command::new(root().join("scripts/secrets")).args(options).arg(folder.path()))?;
        Ok(Self(folder))
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    pub(crate) fn read(&self, name: &str) -> Result<String> {
        let path = self.path(name);
        Ok(std::fs::read_to_string(&path).context(path)?.trim().to_owned())
    }
}

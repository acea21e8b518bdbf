//! What operators changed, kept in a small file if one is named: the strategy and who is drained.
//!
//! Replaced as a whole: a crash leaves the old file or the new one.

use crate::strategy::Strategy;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{ErrorKind, Write},
    path::Path,
};

/// Limit: gateways that are kept.
const MAX_GATEWAYS: usize = 1_024;

/// What the file holds. Gateways by their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The strategy that a person chose; absent if nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// They get no new clients.
    pub drained: BTreeSet<String>,
    /// Of these, those whose sessions move elsewhere.
    pub emptied: BTreeSet<String>,
}

impl Kept {
    /// Reads the file; a missing one is empty. The error says what is wrong and names the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let wrong = |problem: String| format!("{}: {problem}", path.display());
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(wrong(error.to_string())),
            Ok(text) => text,
        };
        let kept: Self = serde_json::from_str(&text).map_err(|error| {
            wrong(format!("{error}: repair it, or remove it to forget drains and strategy"))
        })?;
        let ids = || kept.drained.iter().chain(&kept.emptied);
        if ids().count() > 2 * MAX_GATEWAYS {
            return Err(wrong(format!("names more than {MAX_GATEWAYS} gateways")));
        }
        match ids().find(|id| id.parse::<fastchat_protocol::GatewayId>().is_err()) {
            Some(id) => Err(wrong(format!("{id:?} is not the id of a gateway"))),
            None => Ok(kept),
        }
    }

    /// Replaces the file.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let fresh = folder.join(format!(".{name}.{}.new", std::process::id()));
        let write = || {
            let mut file = File::create(&fresh)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&fresh, path)?;
            File::open(folder)?.sync_all()
        };
        let written = write();
        if written.is_err() {
            let _ = std::fs::remove_file(&fresh);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_broken_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.json");
        assert_eq!(Kept::read(&path), Ok(Kept::default()));
        let kept = Kept {
            strategy: Some(Strategy::Weighted),
            drained: BTreeSet::from(["ab".repeat(16), "cd".repeat(16)]),
            emptied: BTreeSet::from(["cd".repeat(16)]),
        };
        kept.write(&path).expect("written");
        assert_eq!(Kept::read(&path), Ok(kept));
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("a folder").count(),
            1,
            "nothing is left beside it"
        );
        for broken in [
            "",
            "{",
            "[]",
            r#"{"drained":["ab"],"emptied":[]}"#,
            r#"{"drained":[],"emptied":[],"more":1}"#,
            r#"{"strategy":"best","drained":[],"emptied":[]}"#,
        ] {
            std::fs::write(&path, broken).expect("written");
            let error = Kept::read(&path).expect_err(broken);
            assert!(error.contains("state.json"), "{error}");
        }
        assert!(Kept::default().write(&folder.path().join("missing/state.json")).is_err());
    }
}

//! `gateways.json` in the profile's folder: the gateways that were named last, for when nobody can be asked.
//!
//! A convenience: a file that is damaged, or belongs to another server, is as good as none.

use super::{servers::Servers, url::ServerUrl};
use crate::profile::replace;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

/// Limit: bytes of the file; ours have some kilobytes.
const MAX_BYTES: u64 = 64 * 1024;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    v: u8,
    /// Whose gateways they are.
    servers: String,
    /// Tells balancers that it is the same profile that asks. Drawn at random; says nothing else.
    pub(super) word: String,
    pub(super) gateways: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<String>,
}

impl Known {
    pub(super) fn none(servers: &Servers) -> Self {
        Self {
            v: 1,
            servers: servers.to_string(),
            word: hex::encode(rand::random::<[u8; 16]>()),
            gateways: Vec::new(),
            last: None,
        }
    }

    /// Reads the file, if it is about these servers.
    pub(super) fn read(path: &Path, servers: &Servers) -> Option<Self> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
        if let Err(error) = read {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "the known gateways cannot be read");
            }
            return None;
        }
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(known) if known.v == 1 && known.servers == servers.to_string() && known.word.len() <= 64 => {
                Some(known)
            }
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the known gateways are damaged: ignored");
                None
            }
        }
    }

    /// Replaces the file, whole or not at all.
    pub(super) fn write(&self, path: &Path) {
        let written = serde_json::to_vec_pretty(self).map_err(|e| e.to_string());
        if let Err(error) = written.and_then(|bytes| replace(path, &bytes).map_err(|e| e.to_string())) {
            tracing::warn!(path = %path.display(), error, "the known gateways cannot be kept");
        }
    }

    pub(super) fn urls(&self) -> Vec<ServerUrl> {
        self.gateways.iter().filter_map(|url| url.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_or_of_another_server_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateways.json");
        let (here, there): (Servers, Servers) = ("https://a".parse().unwrap(), "https://b".parse().unwrap());
        assert_eq!(Known::read(&path, &here), None);
        let mut known = Known::none(&here);
        known.gateways = vec!["wss://g1".into(), "nonsense".into()];
        known.write(&path);
        assert_eq!(Known::read(&path, &here), Some(known.clone()));
        assert_eq!(known.urls(), ["wss://g1".parse().unwrap()]);
        assert_eq!(Known::read(&path, &there), None);
        let whole = std::fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() / 2], b"", b"[]", &[0xff; 100_000]] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(Known::read(&path, &here), None);
        }
    }
}

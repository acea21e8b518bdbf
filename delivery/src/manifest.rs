//! An account's signed list of its devices.
//!
//! - Signed by the account's identity key: RSA-3072, PSS with SHA-256 and a salt of 32 bytes.
//! - Each manifest names the hash of the one before, so the history cannot be rewritten.
//! - The signed bytes are kept as they came and never encoded again: what was signed is what is read.
//!
//! Invariant: a [`VerifiedManifest`] has passed every check that needs no other manifest.

use fastchat_protocol::{AccountId, DeviceId, codec, limits};
use rsa::{
    RsaPublicKey,
    pkcs8::{DecodePublicKey, EncodePublicKey},
    pss::{Signature, VerifyingKey},
    signature::Verifier,
    traits::PublicKeyParts,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, fmt, sync::Arc};

/// Begins what the identity key signs, so that the signature can be used for nothing else.
pub const LABEL: &[u8] = b"fastchat/v1/manifest\0";
/// Bits of the account's two RSA keys; no other size is accepted.
pub const RSA_BITS: u32 = 3072;
/// Limit: devices of one account.
pub const MAX_DEVICES: usize = 32;
/// Limit: revoked devices that a manifest lists, so that it stays under [`limits::MAX_MANIFEST`].
pub const MAX_REVOKED: usize = 192;

const FORMAT: u8 = 1;
const MAX_SPKI_BYTES: usize = 512;

/// The content of a manifest. Not evidence of anything: see [`VerifiedManifest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Whose it is.
    pub account: AccountId,
    /// 1, 2, 3, ...
    pub version: u64,
    /// [`VerifiedManifest::hash`] of the version before; none in the first.
    pub previous: Option<[u8; 32]>,
    /// The RSA-3072 identity key (SPKI, DER).
    pub identity: Vec<u8>,
    /// The RSA-3072 backup key (SPKI, DER).
    pub backup_key: Vec<u8>,
    /// The devices that speak for the account; at least one.
    pub devices: Vec<ManifestDevice>,
    /// Devices that no longer do.
    pub revoked: Vec<DeviceId>,
}

/// A device in a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestDevice {
    /// Its id.
    #[serde(rename = "i")]
    pub id: DeviceId,
    /// Its Ed25519 key.
    #[serde(rename = "k", with = "serde_bytes")]
    pub key: [u8; 32],
}

/// Why bytes are not a manifest that can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Longer than [`limits::MAX_MANIFEST`].
    #[error("a manifest of {0} bytes is too large")]
    TooLarge(usize),
    /// Not the expected CBOR.
    #[error("a manifest cannot be read: {0}")]
    Malformed(String),
    /// A form that this build does not know.
    #[error("a manifest of form {0} is not known here")]
    Form(u8),
    /// One of the two RSA keys.
    #[error("the manifest's {0} is not an RSA key of 3072 bits with exponent 65537")]
    Key(&'static str),
    /// The signature is not the identity key's.
    #[error("the manifest's signature is wrong")]
    Signature,
    /// The content contradicts itself.
    #[error("the manifest {0}")]
    Content(&'static str),
    /// Not the successor of the manifest at hand.
    #[error("the manifest is not the successor: {0}")]
    Successor(&'static str),
}

#[derive(Serialize, Deserialize)]
struct Body {
    #[serde(rename = "v")]
    form: u8,
    #[serde(rename = "a")]
    account: AccountId,
    #[serde(rename = "n")]
    version: u64,
    #[serde(rename = "p", with = "serde_bytes", default, skip_serializing_if = "Option::is_none")]
    previous: Option<[u8; 32]>,
    #[serde(rename = "i", with = "serde_bytes")]
    identity: Vec<u8>,
    #[serde(rename = "k", with = "serde_bytes")]
    backup_key: Vec<u8>,
    #[serde(rename = "d")]
    devices: Vec<ManifestDevice>,
    #[serde(rename = "r")]
    revoked: Vec<DeviceId>,
}

#[derive(Serialize, Deserialize)]
struct Signed<'a> {
    #[serde(rename = "b", with = "serde_bytes", borrow)]
    body: &'a [u8],
    #[serde(rename = "s", with = "serde_bytes", borrow)]
    signature: &'a [u8],
}

impl Manifest {
    /// The exact bytes that are signed (behind [`LABEL`]).
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&Body {
            form: FORMAT,
            account: self.account,
            version: self.version,
            previous: self.previous,
            identity: self.identity.clone(),
            backup_key: self.backup_key.clone(),
            devices: self.devices.clone(),
            revoked: self.revoked.clone(),
        })
    }

    fn decode(body: &[u8]) -> Result<Self, ManifestError> {
        let Body { form, account, version, previous, identity, backup_key, devices, revoked } =
            codec::decode(body).map_err(|e| ManifestError::Malformed(e.to_string()))?;
        match form {
            FORMAT => Ok(Self { account, version, previous, identity, backup_key, devices, revoked }),
            other => Err(ManifestError::Form(other)),
        }
    }

    fn check(&self) -> Result<(), ManifestError> {
        use ManifestError::Content;
        if self.version == 0 || self.previous.is_none() != (self.version == 1) {
            return Err(Content("has a version that does not fit its predecessor"));
        }
        if self.devices.is_empty() || self.devices.len() > MAX_DEVICES || self.revoked.len() > MAX_REVOKED {
            return Err(Content("lists no device or too many"));
        }
        let ids: BTreeSet<_> =
            self.devices.iter().map(|device| device.id).chain(self.revoked.iter().copied()).collect();
        let keys: BTreeSet<_> = self.devices.iter().map(|device| device.key).collect();
        if ids.len() != self.devices.len() + self.revoked.len() || keys.len() != self.devices.len() {
            return Err(Content("lists a device or a key twice"));
        }
        if self.identity == self.backup_key {
            return Err(Content("uses one key for two purposes"));
        }
        rsa_key(&self.backup_key, "backup key").map(|_| ())
    }
}

/// Puts body and signature together; the result is what [`VerifiedManifest::verify`] reads.
pub fn assemble(body: &[u8], signature: &[u8]) -> Vec<u8> {
    codec::encode(&Signed { body, signature })
}

/// What the identity key signs for a body.
pub fn signed_bytes(body: &[u8]) -> Vec<u8> {
    [LABEL, body].concat()
}

/// A manifest whose signature and content were checked. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifiedManifest(Arc<Inner>);

#[derive(PartialEq, Eq)]
struct Inner {
    manifest: Manifest,
    bytes: Vec<u8>,
    hash: [u8; 32],
    fingerprint: [u8; 32],
}

impl VerifiedManifest {
    /// Checks size, form, content, keys, and that the identity key in the manifest has signed it.
    /// Whether this identity is the right one is for pinning and safety numbers to say.
    pub fn verify(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > limits::MAX_MANIFEST {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let Signed { body, signature } =
            codec::decode(bytes).map_err(|e| ManifestError::Malformed(e.to_string()))?;
        let manifest = Manifest::decode(body)?;
        let identity = rsa_key(&manifest.identity, "identity key")?;
        let signature = Signature::try_from(signature).map_err(|_| ManifestError::Signature)?;
        VerifyingKey::<Sha256>::new(identity)
            .verify(&signed_bytes(body), &signature)
            .map_err(|_| ManifestError::Signature)?;
        manifest.check()?;
        let fingerprint = Sha256::digest(&manifest.identity).into();
        let hash = Sha256::digest(body).into();
        Ok(Self(Arc::new(Inner { manifest, bytes: bytes.to_vec(), hash, fingerprint })))
    }

    /// Checks that `next` follows this manifest: same account and identity, next version, names this
    /// one's hash, and no device disappears or changes its key without being revoked.
    pub fn verify_successor(&self, next: &Self) -> Result<(), ManifestError> {
        use ManifestError::Successor;
        let (old, new) = (&self.0.manifest, &next.0.manifest);
        if new.account != old.account {
            return Err(Successor("another account"));
        }
        if new.identity != old.identity {
            return Err(Successor("another identity key"));
        }
        if Some(new.version) != old.version.checked_add(1) || new.previous != Some(self.0.hash) {
            return Err(Successor("it does not follow this version"));
        }
        if !old.revoked.iter().all(|id| new.revoked.contains(id)) {
            return Err(Successor("a revocation was taken back"));
        }
        let kept = |device: &ManifestDevice| new.devices.contains(device) || new.revoked.contains(&device.id);
        if !old.devices.iter().all(kept) {
            return Err(Successor("a device disappeared or changed its key"));
        }
        Ok(())
    }

    /// Whose it is.
    pub fn account(&self) -> AccountId {
        self.0.manifest.account
    }

    /// 1, 2, 3, ...
    pub fn version(&self) -> u64 {
        self.0.manifest.version
    }

    /// The devices that speak for the account.
    pub fn devices(&self) -> &[ManifestDevice] {
        &self.0.manifest.devices
    }

    /// The device of that id, if it speaks for the account.
    pub fn device(&self, id: DeviceId) -> Option<&ManifestDevice> {
        self.devices().iter().find(|device| device.id == id)
    }

    /// Whether the manifest says that this device no longer speaks for the account.
    pub fn is_revoked(&self, id: DeviceId) -> bool {
        self.0.manifest.revoked.contains(&id)
    }

    /// SHA-256 of the identity key (SPKI): what credentials name and safety numbers show.
    pub fn identity_fingerprint(&self) -> [u8; 32] {
        self.0.fingerprint
    }

    /// SHA-256 of the signed body: what the successor names.
    pub fn hash(&self) -> [u8; 32] {
        self.0.hash
    }

    /// The signed bytes as they came.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// The content, to make a successor of.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }
}

impl fmt::Debug for VerifiedManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedManifest")
            .field("account", &self.account())
            .field("version", &self.version())
            .field("devices", &self.devices().len())
            .finish_non_exhaustive()
    }
}

/// Reads an RSA key of the only accepted size, in its only accepted spelling.
fn rsa_key(spki: &[u8], what: &'static str) -> Result<RsaPublicKey, ManifestError> {
    let error = ManifestError::Key(what);
    if spki.len() > MAX_SPKI_BYTES {
        return Err(error);
    }
    let Ok(key) = RsaPublicKey::from_public_key_der(spki) else { return Err(error) };
    let exponent = key.e().to_be_bytes_trimmed_vartime();
    let canonical = key.to_public_key_der().is_ok_and(|der| der.as_bytes() == spki);
    if key.n().bits() != RSA_BITS || *exponent != [1, 0, 1] || !canonical {
        return Err(error);
    }
    Ok(key)
}

#[cfg(test)]
mod tests;

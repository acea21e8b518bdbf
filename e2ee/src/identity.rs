//! The account's identity key and backup key, both RSA-3072.
//!
//! The identity key (PSS-SHA256) signs manifests and nothing else; its fingerprint is what safety
//! numbers show. The backup key (OAEP-SHA256) will wrap history keys, together with a post-quantum
//! KEM. No remote party ever sees the result of a private operation, which is why the timing issue
//! RUSTSEC-2023-0071 has nobody to exploit it here.

use crate::store::{KeyValue, Vault, VaultError};
use fastchat_delivery::{Manifest, ManifestDevice, ManifestError, VerifiedManifest, manifest};
use fastchat_protocol::{AccountId, DeviceId};
use rand::CryptoRng;
use rsa::{
    RsaPrivateKey, RsaPublicKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey},
    pss::SigningKey,
    signature::{RandomizedSigner, SignatureEncoding},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

const LABEL: &str = "identity";
/// The version of the safety number's form; another form gives other digits.
const SAFETY_VERSION: u16 = 1;
const SAFETY_ROUNDS: usize = 5_200;
const SAFETY_LABEL: &[u8] = b"fastchat/v1/safety-number\0";

/// The two private keys of an account.
pub struct Identity {
    identity: RsaPrivateKey,
    backup: RsaPrivateKey,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(with = "serde_bytes")]
    i: Vec<u8>,
    #[serde(with = "serde_bytes")]
    b: Vec<u8>,
}

/// Why identity keys cannot be made, kept or used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// See the source.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The RSA library refuses.
    #[error("the identity keys cannot be used: {0}")]
    Rsa(String),
    /// What was signed does not pass its own check.
    #[error("the manifest would not be valid")]
    Manifest(#[from] ManifestError),
}

impl IdentityError {
    fn rsa(error: impl fmt::Display) -> Self {
        Self::Rsa(error.to_string())
    }
}

impl Identity {
    /// Makes both keys. Takes about a second: run it where it may block.
    pub fn generate<R: CryptoRng>(rng: &mut R) -> Result<Self, IdentityError> {
        let bits = manifest::RSA_BITS as usize;
        let identity = RsaPrivateKey::new(rng, bits).map_err(IdentityError::rsa)?;
        let backup = RsaPrivateKey::new(rng, bits).map_err(IdentityError::rsa)?;
        Ok(Self { identity, backup })
    }

    /// Writes the keys into the vault of the primary device.
    pub fn save<K: KeyValue>(&self, vault: &Vault<'_, K>) -> Result<(), IdentityError> {
        let der = |key: &RsaPrivateKey| {
            key.to_pkcs8_der().map(|der| der.as_bytes().to_vec()).map_err(IdentityError::rsa)
        };
        let mut stored = Stored { i: der(&self.identity)?, b: der(&self.backup)? };
        let written = vault.write(LABEL, &[], &stored);
        stored.i.zeroize();
        stored.b.zeroize();
        Ok(written?)
    }

    /// The keys of this vault; none on a device that is not the primary one.
    pub fn load<K: KeyValue>(vault: &Vault<'_, K>) -> Result<Option<Self>, IdentityError> {
        let Some(Stored { i, b }) = vault.read(LABEL, &[])? else { return Ok(None) };
        let (i, b) = (Zeroizing::new(i), Zeroizing::new(b));
        let key = |der: &[u8]| RsaPrivateKey::from_pkcs8_der(der).map_err(IdentityError::rsa);
        Ok(Some(Self { identity: key(&i)?, backup: key(&b)? }))
    }

    /// SHA-256 of the identity key's public half (SPKI): what credentials name.
    pub fn fingerprint(&self) -> Result<[u8; 32], IdentityError> {
        Ok(Sha256::digest(spki(&self.identity)?).into())
    }

    /// Signs the account's first manifest.
    pub fn sign_first<R: CryptoRng>(
        &self,
        rng: &mut R,
        account: AccountId,
        devices: Vec<ManifestDevice>,
    ) -> Result<VerifiedManifest, IdentityError> {
        let (identity, backup_key) = (spki(&self.identity)?, spki(&self.backup)?);
        let manifest = Manifest {
            account,
            version: 1,
            previous: None,
            identity,
            backup_key,
            devices,
            revoked: Vec::new(),
        };
        self.sign(rng, &manifest)
    }

    /// Signs the successor of a manifest: with these devices, and these revoked for good.
    pub fn sign_successor<R: CryptoRng>(
        &self,
        rng: &mut R,
        previous: &VerifiedManifest,
        devices: Vec<ManifestDevice>,
        revoked: Vec<DeviceId>,
    ) -> Result<VerifiedManifest, IdentityError> {
        let manifest = Manifest {
            version: previous.version().saturating_add(1),
            previous: Some(previous.hash()),
            devices,
            revoked,
            ..previous.manifest().clone()
        };
        let signed = self.sign(rng, &manifest)?;
        previous.verify_successor(&signed)?;
        Ok(signed)
    }

    fn sign<R: CryptoRng>(
        &self,
        rng: &mut R,
        manifest: &Manifest,
    ) -> Result<VerifiedManifest, IdentityError> {
        let body = manifest.encode();
        let signature = SigningKey::<Sha256>::new(self.identity.clone())
            .try_sign_with_rng(rng, &manifest::signed_bytes(&body))
            .map_err(IdentityError::rsa)?;
        Ok(VerifiedManifest::verify(&manifest::assemble(&body, &signature.to_bytes()))?)
    }
}

fn spki(key: &RsaPrivateKey) -> Result<Vec<u8>, IdentityError> {
    let der = RsaPublicKey::from(key).to_public_key_der().map_err(IdentityError::rsa)?;
    Ok(der.into_vec())
}

/// Sixty digits that two people compare, the same on both sides: thirty for each account and its
/// identity fingerprint, the smaller thirty first. Show them in groups of five.
pub fn safety_number(one: (AccountId, [u8; 32]), other: (AccountId, [u8; 32])) -> String {
    let mut sides = [one, other].map(|(account, fingerprint)| safety_half(account, &fingerprint));
    sides.sort();
    sides.concat()
}

fn safety_half(account: AccountId, fingerprint: &[u8; 32]) -> String {
    let key = [account.as_bytes().as_slice(), fingerprint].concat();
    let mut hash = Sha512::new_with_prefix(SAFETY_LABEL)
        .chain_update(SAFETY_VERSION.to_be_bytes())
        .chain_update(&key)
        .finalize();
    // Iterated, so that a key with nearly the same digits is that much more expensive to find.
    for _ in 1..SAFETY_ROUNDS {
        hash = Sha512::new().chain_update(hash).chain_update(&key).finalize();
    }
    let group = |bytes: &[u8]| bytes.iter().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte)) % 100_000;
    hash.chunks(5).take(6).map(|bytes| format!("{:05}", group(bytes))).collect()
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

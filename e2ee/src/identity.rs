//! The account's identity key and backup key, both RSA-3072, and the seed of its hybrid key.
//!
//! The identity key (PSS-SHA256) signs manifests and nothing else; its fingerprint is what safety
//! numbers show. The backup key (OAEP-SHA256) wraps history keys, always together with the hybrid key
//! (ML-KEM-768 and X25519): see [`crate::archive`]. No remote party ever sees the result of a private
//! operation, which is why the timing issue RUSTSEC-2023-0071 has nobody to exploit it here.

use crate::{
    hybrid::KeyPair,
    store::{KeyValue, Vault, VaultError},
};
use fastchat_delivery::{Manifest, ManifestDevice, ManifestError, VerifiedManifest, manifest};
use fastchat_protocol::{AccountId, DeviceId, codec};
use rand::CryptoRng;
use rsa::{
    Oaep, RsaPrivateKey, RsaPublicKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey},
    pss::SigningKey,
    signature::{RandomizedSigner, SignatureEncoding},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

const LABEL: &str = "identity";
const VERSION: u8 = 1;
/// The version of the safety number's form; another form gives other digits.
const SAFETY_VERSION: u16 = 1;
const SAFETY_ROUNDS: usize = 5_200;
const SAFETY_LABEL: &[u8] = b"fastchat/v1/safety-number\0";

/// The private keys of an account.
pub struct Identity {
    identity: RsaPrivateKey,
    backup: RsaPrivateKey,
    seed: Zeroizing<[u8; 32]>,
}

/// What others need in order to wrap a key for the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupPublic {
    /// The RSA-3072 backup key (SPKI, DER), as the manifest has it.
    #[serde(rename = "r", with = "serde_bytes")]
    pub rsa: Vec<u8>,
    /// The hybrid public key, 1216 bytes.
    #[serde(rename = "h", with = "serde_bytes")]
    pub hybrid: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u8,
    #[serde(with = "serde_bytes")]
    i: Vec<u8>,
    #[serde(with = "serde_bytes")]
    b: Vec<u8>,
    #[serde(with = "serde_bytes")]
    s: [u8; 32],
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.i.zeroize();
        self.b.zeroize();
        self.s.zeroize();
    }
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
    /// The stored bytes are not an identity.
    #[error("the identity keys cannot be read")]
    Form,
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
    /// Makes the keys. Takes about a second: run it where it may block.
    pub fn generate<R: CryptoRng>(rng: &mut R) -> Result<Self, IdentityError> {
        let bits = manifest::RSA_BITS as usize;
        let identity = RsaPrivateKey::new(rng, bits).map_err(IdentityError::rsa)?;
        let backup = RsaPrivateKey::new(rng, bits).map_err(IdentityError::rsa)?;
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        Ok(Self { identity, backup, seed })
    }

    /// Writes the keys into the vault of the primary device.
    pub fn save<K: KeyValue>(&self, vault: &Vault<'_, K>) -> Result<(), IdentityError> {
        Ok(vault.put(LABEL, &[], &self.to_bytes()?)?)
    }

    /// The keys of this vault; none on a device that is not the primary one.
    pub fn load<K: KeyValue>(vault: &Vault<'_, K>) -> Result<Option<Self>, IdentityError> {
        vault.get(LABEL, &[])?.map(|bytes| Self::from_bytes(&bytes)).transpose()
    }

    /// The keys as they are sealed: CBOR `{v, i, b, s}`, about 3.6 KB.
    pub(crate) fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        let der = |key: &RsaPrivateKey| {
            key.to_pkcs8_der().map(|der| der.as_bytes().to_vec()).map_err(IdentityError::rsa)
        };
        let stored = Stored { v: VERSION, i: der(&self.identity)?, b: der(&self.backup)?, s: *self.seed };
        Ok(Zeroizing::new(codec::encode(&stored)))
    }

    /// The reverse of [`to_bytes`](Self::to_bytes).
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, IdentityError> {
        let stored: Stored = codec::decode(bytes).map_err(|_| IdentityError::Form)?;
        if stored.v != VERSION {
            return Err(IdentityError::Form);
        }
        let key = |der: &[u8]| RsaPrivateKey::from_pkcs8_der(der).map_err(IdentityError::rsa);
        Ok(Self { identity: key(&stored.i)?, backup: key(&stored.b)?, seed: Zeroizing::new(stored.s) })
    }

    /// What is needed in order to wrap a key for this account.
    pub fn backup_public(&self) -> Result<BackupPublic, IdentityError> {
        let pair = KeyPair::derive(&self.seed).map_err(IdentityError::rsa)?;
        Ok(BackupPublic { rsa: spki(&self.backup)?, hybrid: pair.public })
    }

    /// Opens the two shares of a wrapped key, each with its label.
    pub(crate) fn open_shares<R: CryptoRng>(
        &self,
        rng: &mut R,
        (oaep_label, first): (&[u8], &[u8]),
        (info, second): (&[u8], &[u8]),
    ) -> Option<Zeroizing<[u8; 64]>> {
        let first = self.backup.decrypt_blinded(rng, Oaep::<Sha256>::new_with_label(oaep_label), first);
        let first = Zeroizing::new(first.ok()?);
        let second = KeyPair::derive(&self.seed).ok()?.open(info, second).ok()?;
        let mut shares = Zeroizing::new([0; 64]);
        let (one, other) = shares.split_at_mut(32);
        if first.len() != one.len() || second.len() != other.len() {
            return None;
        }
        one.copy_from_slice(&first);
        other.copy_from_slice(&second);
        Some(shares)
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

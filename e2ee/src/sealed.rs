//! AES-256-GCM for data at rest, and the keys for it.
//!
//! `K_store` is random and lives in the keyring or wrapped by the password. From it come, by HKDF,
//! one key for values and one for lookup keys: the database file shows sizes and counts, nothing else.

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use rand::CryptoRng;
use sha2::Sha256;
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const WRAP_AAD: &[u8] = b"fastchat/v1/store-key";
const VALUE_LABEL: &[u8] = b"fastchat/v1/store/value";
const INDEX_LABEL: &[u8] = b"fastchat/v1/store/index";

/// Why something sealed stays closed. Which of wrong key and altered bytes it was cannot be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Shorter than any sealed value, or of a form that this build does not know.
    #[error("this is not a sealed value, or one of a newer version")]
    Form,
    /// Wrong key, wrong place, or altered bytes.
    #[error("it does not open: the key is wrong or the bytes were altered")]
    Closed,
    /// The system gives no random numbers, or the cipher refused (more than 64 GiB at once).
    #[error("nothing can be sealed: the system gives no random numbers")]
    Random,
}

/// The key that a password gives for the local store.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct UnlockKey([u8; 32]);

impl UnlockKey {
    /// Wraps 32 secret bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for an agent or a keyring.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// `K_store`: what opens everything that this device keeps.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct StoreKey {
    root: [u8; 32],
    value: [u8; 32],
    index: [u8; 32],
}

impl StoreKey {
    /// A new store's key.
    pub fn generate<R: CryptoRng>(rng: &mut R) -> Self {
        let mut root = Zeroizing::new([0; 32]);
        rng.fill_bytes(root.as_mut());
        Self::from_bytes(&root)
    }

    /// The key as a keyring gives it back.
    pub fn from_bytes(root: &[u8; 32]) -> Self {
        let hkdf = Hkdf::<Sha256>::new(None, root);
        let mut key = Self { root: *root, value: [0; 32], index: [0; 32] };
        // 32 bytes are far below what HKDF-SHA256 can give, so this cannot fail.
        let _ = hkdf.expand(VALUE_LABEL, &mut key.value);
        let _ = hkdf.expand(INDEX_LABEL, &mut key.index);
        key
    }

    /// The bytes, for a keyring.
    pub fn expose(&self) -> &[u8; 32] {
        &self.root
    }

    /// Seals this key under the password's: 61 bytes (version, nonce, ciphertext, tag).
    pub fn wrap(&self, unlock: &UnlockKey) -> Result<Vec<u8>, SealError> {
        seal(&unlock.0, WRAP_AAD, &self.root)
    }

    /// The reverse of [`wrap`](Self::wrap); fails if the password was another.
    pub fn unwrap(wrapped: &[u8], unlock: &UnlockKey) -> Result<Self, SealError> {
        let root = open(&unlock.0, WRAP_AAD, wrapped)?;
        let root = <&[u8; 32]>::try_from(root.as_slice()).map_err(|_| SealError::Form)?;
        Ok(Self::from_bytes(root))
    }

    /// Seals a value for the place that `aad` names (the lookup key): 29 bytes longer than it was.
    /// Limit: 2^32 values under one key (random nonces); a lifetime of heavy use stays far below.
    pub fn seal_value(&self, aad: &[u8], value: &[u8]) -> Result<Vec<u8>, SealError> {
        seal(&self.value, aad, value)
    }

    /// The reverse of [`seal_value`](Self::seal_value); fails at another place.
    pub fn open_value(&self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        open(&self.value, aad, sealed)
    }

    /// The lookup key under which a value is stored: HMAC-SHA256 of label and key.
    pub fn index(&self, label: &str, key: &[u8]) -> [u8; 32] {
        // HMAC takes a key of any size, so this cannot fail; zeros would be found by no one.
        let Ok(mut mac) = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&self.index) else {
            return [0; 32];
        };
        mac.update(&(label.len() as u64).to_be_bytes());
        mac.update(label.as_bytes());
        mac.update(key);
        mac.finalize().into_bytes().into()
    }
}

/// Version, random nonce, ciphertext and tag: 29 bytes longer than `plain`.
pub(crate) fn seal(key: &[u8; 32], aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|_| SealError::Random)?;
    let sealed = Aes256Gcm::new(key.into())
        .encrypt((&nonce).into(), Payload { msg: plain, aad })
        .map_err(|_| SealError::Random)?;
    Ok([&[VERSION], nonce.as_slice(), &sealed].concat())
}

/// The reverse of [`seal`], for the same `aad`.
pub(crate) fn open(key: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (version, rest) = sealed.split_first().ok_or(SealError::Form)?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Form)?;
    if *version != VERSION || sealed.len() < TAG_BYTES {
        return Err(SealError::Form);
    }
    Aes256Gcm::new(key.into())
        .decrypt(nonce.into(), Payload { msg: sealed, aad })
        .map(Zeroizing::new)
        .map_err(|_| SealError::Closed)
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(..)")
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKey(..)")
    }
}

#[cfg(test)]
mod tests;

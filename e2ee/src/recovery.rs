//! The recovery code: 160 random bits that a person keeps on paper.
//!
//! It opens a blob on the server that holds the account's identity, and it proves itself to the server
//! by a key of its own. The two keys come from it by HKDF, so the server, which sees one, cannot
//! compute the other. Nothing is stretched: there is nothing to guess in 160 random bits.

use crate::{
    crockford,
    identity::{Identity, IdentityError},
    sealed::{self, SealError},
};
use fastchat_protocol::limits;
use hkdf::Hkdf;
use rand::CryptoRng;
use sha2::Sha256;
use std::{fmt, str::FromStr};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const CHARACTERS: usize = 32;
const GROUP: usize = 4;
const AUTH_LABEL: &[u8] = b"fastchat/v1/recovery/auth-key";
const SEAL_LABEL: &[u8] = b"fastchat/v1/recovery/seal";
const BLOB_AAD: &[u8] = b"fastchat/v1/recovery/blob";

/// What recovers an account when every device is lost. Shown as eight groups of four characters.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct RecoveryCode([u8; 20]);

/// Why a code recovers nothing.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// Not 32 characters of the alphabet.
    #[error("a recovery code has 32 letters and digits")]
    Code,
    /// Another code's blob, or altered bytes.
    #[error("the recovery code does not open what the server keeps")]
    Sealed(#[from] SealError),
    /// More than [`limits::MAX_RECOVERY`].
    #[error("what the server keeps for the recovery code is too large")]
    TooLarge,
    /// It opened, but holds no identity.
    #[error("what the recovery code opens is not an identity")]
    Identity(#[from] IdentityError),
}

impl RecoveryCode {
    /// A new code.
    pub fn generate<R: CryptoRng>(rng: &mut R) -> Self {
        let mut bytes = [0; 20];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// What the server gets in place of the password: 43 characters of base64url.
    pub fn recovery_key(&self) -> Zeroizing<String> {
        crate::password::base64url(self.key(AUTH_LABEL).as_ref())
    }

    /// Seals the account's identity for the server to keep: about 4 KB.
    pub fn seal(&self, identity: &Identity) -> Result<Vec<u8>, RecoveryError> {
        let sealed = sealed::seal(&self.key(SEAL_LABEL), BLOB_AAD, &identity.to_bytes()?)?;
        if sealed.len() > limits::MAX_RECOVERY { Err(RecoveryError::TooLarge) } else { Ok(sealed) }
    }

    /// The reverse of [`seal`](Self::seal).
    pub fn open(&self, blob: &[u8]) -> Result<Identity, RecoveryError> {
        if blob.len() > limits::MAX_RECOVERY {
            return Err(RecoveryError::TooLarge);
        }
        Ok(Identity::from_bytes(&sealed::open(&self.key(SEAL_LABEL), BLOB_AAD, blob)?)?)
    }

    fn key(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
        derive(&self.0, label)
    }
}

/// One key for one purpose from a secret of full entropy: HKDF-SHA256 without salt.
pub(crate) fn derive(secret: &[u8], label: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    // 32 bytes are far below what HKDF-SHA256 can give, so this cannot fail.
    let _ = Hkdf::<Sha256>::new(None, secret).expand(label, key.as_mut());
    key
}

impl fmt::Display for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crockford::write(&self.0, CHARACTERS, GROUP))
    }
}

impl FromStr for RecoveryCode {
    type Err = RecoveryError;

    fn from_str(text: &str) -> Result<Self, RecoveryError> {
        crockford::read(text, CHARACTERS).map(|bytes| Self(*bytes)).ok_or(RecoveryError::Code)
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(..)")
    }
}

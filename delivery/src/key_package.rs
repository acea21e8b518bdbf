//! Admission of key packages to the directory.

use crate::{
    credential::LeafCredential,
    leaf::{Leaf, LeafError, capabilities},
    suite::{Suite, UnknownSuite},
};
use fastchat_protocol::{AccountId, DeviceId};
use openmls::prelude::{DeserializeBytes, KeyPackage, MlsMessageBodyIn, MlsMessageIn, ProtocolVersion};
use openmls_rust_crypto::RustCrypto;

/// Limit: bytes of one key package; ours have up to 2.8 KB.
pub const MAX_BYTES: usize = 8 * 1024;

/// What a valid key package says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPackageInfo {
    /// The device that made it.
    pub device: DeviceId,
    /// Its account.
    pub account: AccountId,
    /// The suite that it is good for.
    pub suite: Suite,
    /// May be given out more than once.
    pub last_resort: bool,
    /// The Ed25519 key of the device.
    pub signature_key: [u8; 32],
    /// SHA-256 of the account's identity key.
    pub identity_fingerprint: [u8; 32],
}

/// Why a key package is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyPackageError {
    /// Not an MLS key package, or too large.
    #[error("not an MLS key package")]
    Malformed,
    /// A signature, the lifetime or an extension is wrong.
    #[error("the key package is not valid: {0}")]
    Invalid(String),
    /// See the source.
    #[error(transparent)]
    Suite(#[from] UnknownSuite),
    /// See the source.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The leaf declares more or less than one suite, basic credentials and last resort.
    #[error("the key package declares other capabilities than this suite's")]
    Capabilities,
}

/// Checks everything that can be seen: both signatures, the lifetime, the capabilities.
/// The caller compares device, account and key with the session that publishes it.
pub fn verify(bytes: &[u8]) -> Result<KeyPackageInfo, KeyPackageError> {
    let (package, info) = parse(bytes)?;
    let limited = package.leaf_node().capabilities() == &capabilities(info.suite)
        && package.leaf_node().extensions().iter().next().is_none();
    if limited { Ok(info) } else { Err(KeyPackageError::Capabilities) }
}

/// The validated MLS object and what it says; for the client that adds the device.
pub fn parse(bytes: &[u8]) -> Result<(KeyPackage, KeyPackageInfo), KeyPackageError> {
    if bytes.len() > MAX_BYTES {
        return Err(KeyPackageError::Malformed);
    }
    let message = MlsMessageIn::tls_deserialize_exact_bytes(bytes).map_err(|_| KeyPackageError::Malformed)?;
    let MlsMessageBodyIn::KeyPackage(package) = message.extract() else {
        return Err(KeyPackageError::Malformed);
    };
    let package = package
        .validate(&RustCrypto::default(), ProtocolVersion::Mls10)
        .map_err(|e| KeyPackageError::Invalid(e.to_string()))?;
    let suite = Suite::try_from(package.ciphersuite())?;
    let Leaf { account, device, key, identity_fingerprint } = Leaf::from_node(package.leaf_node())?;
    let last_resort = package.last_resort();
    let info =
        KeyPackageInfo { device, account, suite, last_resort, signature_key: key, identity_fingerprint };
    Ok((package, info))
}

impl From<&KeyPackageInfo> for Leaf {
    fn from(info: &KeyPackageInfo) -> Self {
        Self {
            account: info.account,
            device: info.device,
            key: info.signature_key,
            identity_fingerprint: info.identity_fingerprint,
        }
    }
}

impl From<&KeyPackageInfo> for LeafCredential {
    fn from(info: &KeyPackageInfo) -> Self {
        Self { account: info.account, device: info.device, identity: info.identity_fingerprint }
    }
}

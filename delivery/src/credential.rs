//! What a leaf of the tree says about its owner.
//!
//! The credential names; it proves nothing. The proof is the account's manifest, which lists device
//! and key under a signature of the identity key: see [`crate::policy`].

use fastchat_protocol::{AccountId, DeviceId, codec};
use openmls::prelude::{BasicCredential, Credential};
use serde::{Deserialize, Serialize};

/// The version of the credential's form.
const VERSION: u8 = 1;
/// Limit: bytes of a credential; ours have 78.
const MAX_BYTES: usize = 128;

/// The content of a leaf's basic credential: CBOR `{v, a, d, i}`, about 78 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeafCredential {
    /// Whose device this is.
    pub account: AccountId,
    /// Which device.
    pub device: DeviceId,
    /// SHA-256 of the account's identity key (SPKI).
    pub identity: [u8; 32],
}

/// A credential that is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a leaf's credential is not one of FastChat's: {0}")]
pub struct CredentialError(String);

#[derive(Serialize, Deserialize)]
struct Encoded {
    v: u8,
    a: AccountId,
    d: DeviceId,
    #[serde(with = "serde_bytes")]
    i: [u8; 32],
}

impl LeafCredential {
    /// The bytes that the basic credential carries.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&Encoded { v: VERSION, a: self.account, d: self.device, i: self.identity })
    }

    /// As MLS wants it.
    pub fn to_mls(&self) -> Credential {
        BasicCredential::new(self.encode()).into()
    }

    /// Reads the bytes of a basic credential.
    pub fn parse(bytes: &[u8]) -> Result<Self, CredentialError> {
        if bytes.len() > MAX_BYTES {
            return Err(CredentialError(format!("{} bytes", bytes.len())));
        }
        let Encoded { v, a, d, i } = codec::decode(bytes).map_err(|e| CredentialError(e.to_string()))?;
        if v != VERSION {
            return Err(CredentialError(format!("version {v}")));
        }
        Ok(Self { account: a, device: d, identity: i })
    }

    /// Reads the credential of a leaf.
    pub fn from_mls(credential: &Credential) -> Result<Self, CredentialError> {
        let basic =
            BasicCredential::try_from(credential.clone()).map_err(|e| CredentialError(e.to_string()))?;
        Self::parse(basic.identity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> LeafCredential {
        LeafCredential { account: AccountId::new([1; 16]), device: DeviceId::new([2; 16]), identity: [3; 32] }
    }

    #[test]
    fn golden_bytes() {
        let mut want = vec![0xa4, 0x61, b'v', 1, 0x61, b'a', 0x50];
        want.extend([1; 16]);
        want.extend([0x61, b'd', 0x50]);
        want.extend([2; 16]);
        want.extend([0x61, b'i', 0x58, 32]);
        want.extend([3; 32]);
        assert_eq!(example().encode(), want);
        assert_eq!(LeafCredential::parse(&want).unwrap(), example());
        let reference: serde_cbor::Value = serde_cbor::from_slice(&want).unwrap();
        assert!(matches!(reference, serde_cbor::Value::Map(map) if map.len() == 4));
    }

    #[test]
    fn refuses_another_version_and_other_bytes() {
        let mut bytes = example().encode();
        bytes[3] = 2;
        assert!(LeafCredential::parse(&bytes).is_err());
        assert!(LeafCredential::parse(b"alice").is_err());
        assert!(LeafCredential::parse(&[0; 200]).is_err());
    }
}

//! A device's place in the tree, reduced to what the rules look at.

use crate::{
    credential::{CredentialError, LeafCredential},
    group_data,
    suite::Suite,
};
use fastchat_protocol::{AccountId, DeviceId};
use openmls::prelude::{Capabilities, CredentialType, ExtensionType, LeafNode, Member, ProtocolVersion};

/// A member device, or one that is about to become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// Whose device it says to be.
    pub account: AccountId,
    /// Which device.
    pub device: DeviceId,
    /// Its Ed25519 key.
    pub key: [u8; 32],
    /// SHA-256 of the account's identity key (SPKI).
    pub identity_fingerprint: [u8; 32],
}

/// A leaf that cannot be one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// See the source.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The signature key is not an Ed25519 key.
    #[error("a leaf's signature key has {0} bytes instead of 32")]
    Key(usize),
}

impl Leaf {
    fn new(credential: LeafCredential, key: &[u8]) -> Result<Self, LeafError> {
        let LeafCredential { account, device, identity } = credential;
        let key = key.try_into().map_err(|_| LeafError::Key(key.len()))?;
        Ok(Self { account, device, key, identity_fingerprint: identity })
    }

    /// Reads a leaf node.
    pub fn from_node(node: &LeafNode) -> Result<Self, LeafError> {
        Self::new(LeafCredential::from_mls(node.credential())?, node.signature_key().as_slice())
    }

    /// Reads a member of a group.
    pub fn from_member(member: &Member) -> Result<Self, LeafError> {
        Self::new(LeafCredential::from_mls(&member.credential)?, &member.signature_key)
    }
}

/// The capabilities that every leaf of ours declares: one suite, basic credentials, last resort, and
/// the group's roles.
///
/// A last-resort key package can only be added if its leaf lists that extension, and to a group only if
/// it lists ours, so all do.
pub fn capabilities(suite: Suite) -> Capabilities {
    Capabilities::new(
        Some(&[ProtocolVersion::Mls10]),
        Some(&[suite.ciphersuite()]),
        Some(&[ExtensionType::LastResort, ExtensionType::Unknown(group_data::EXTENSION)]),
        Some(&[]),
        Some(&[CredentialType::Basic]),
    )
}

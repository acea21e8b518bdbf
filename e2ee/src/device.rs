//! One installation: an Ed25519 key that is its MLS leaf key, answers the gateway's challenge and
//! signs its key packages. The account's manifest lists the public half.

use crate::store::{KeyValue, Vault, VaultError, provider::Mls};
use ed25519_dalek::{Signer as _, SigningKey};
use fastchat_delivery::{Leaf, LeafCredential, Leave, ManifestDevice, Suite, leaf::capabilities};
use fastchat_protocol::{AccountId, Bytes, DeviceId, challenge};
use openmls::prelude::{CredentialWithKey, KeyPackage, KeyPackageBuilder, MlsMessageOut};
use openmls_traits::{
    signatures::{Signer, SignerError},
    types::SignatureScheme,
};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

const LABEL: &str = "device";

/// This device: who it is, and its key.
pub struct Device {
    account: AccountId,
    id: DeviceId,
    identity_fingerprint: [u8; 32],
    key: SigningKey,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    a: AccountId,
    d: DeviceId,
    #[serde(with = "serde_bytes")]
    i: [u8; 32],
    #[serde(with = "serde_bytes")]
    k: [u8; 32],
}

/// Why there is no key package.
#[derive(Debug, thiserror::Error)]
pub enum KeyPackageError {
    /// See the source.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// OpenMLS refuses.
    #[error("no key package could be made: {0}")]
    Mls(String),
}

impl Device {
    /// A new device of an account. Not stored yet: see [`save`](Self::save).
    pub fn generate<R: CryptoRng>(
        rng: &mut R,
        account: AccountId,
        id: DeviceId,
        identity_fingerprint: [u8; 32],
    ) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(secret.as_mut());
        Self { account, id, identity_fingerprint, key: SigningKey::from_bytes(&secret) }
    }

    /// Writes the device into its vault, which holds one.
    pub fn save<K: KeyValue>(&self, vault: &Vault<'_, K>) -> Result<(), VaultError> {
        let key = Zeroizing::new(self.key.to_bytes());
        let mut stored = Stored { a: self.account, d: self.id, i: self.identity_fingerprint, k: *key };
        let written = vault.write(LABEL, &[], &stored);
        zeroize::Zeroize::zeroize(&mut stored.k);
        written
    }

    /// The device of this vault.
    pub fn load<K: KeyValue>(vault: &Vault<'_, K>) -> Result<Option<Self>, VaultError> {
        let Some(stored) = vault.read::<Stored>(LABEL, &[])? else { return Ok(None) };
        let secret = Zeroizing::new(stored.k);
        let key = SigningKey::from_bytes(&secret);
        Ok(Some(Self { account: stored.a, id: stored.d, identity_fingerprint: stored.i, key }))
    }

    /// Whose device this is.
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// Its id.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// SHA-256 of the account's identity key.
    pub fn identity_fingerprint(&self) -> [u8; 32] {
        self.identity_fingerprint
    }

    /// The public half of its key.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// Its entry in the manifest.
    pub fn manifest_entry(&self) -> ManifestDevice {
        ManifestDevice { id: self.id, key: self.public_key() }
    }

    /// Its leaf, as the rules see it.
    pub fn leaf(&self) -> Leaf {
        let Self { account, id, identity_fingerprint, .. } = *self;
        Leaf { account, device: id, key: self.public_key(), identity_fingerprint }
    }

    /// Answers a gateway's challenge for the host as it was dialled.
    pub fn sign_challenge(&self, deployment: &str, host: &str, nonce: &[u8; 32]) -> [u8; 64] {
        self.key.sign(&challenge::signed_bytes(deployment, host, self.id, nonce)).to_bytes()
    }

    /// Signs the statement that this device's account leaves a group. The caller fills it in for this
    /// device; a statement for another one is good for nothing.
    pub fn sign_leave(&self, leave: &Leave) -> Bytes {
        let (body, signed) = leave.to_sign();
        Leave::assemble(&body, &self.key.sign(&signed).to_bytes()).into()
    }

    /// Makes `count` key packages that are good for one use each; their private halves go into the
    /// vault. To be published in the same step.
    pub fn key_packages<K: KeyValue>(
        &self,
        vault: &Vault<'_, K>,
        suite: Suite,
        count: usize,
    ) -> Result<Vec<Bytes>, KeyPackageError> {
        (0..count).map(|_| self.key_package(vault, suite, KeyPackage::builder())).collect()
    }

    /// Makes the key package that is given out when the others are used up.
    pub fn last_resort_key_package<K: KeyValue>(
        &self,
        vault: &Vault<'_, K>,
        suite: Suite,
    ) -> Result<Bytes, KeyPackageError> {
        self.key_package(vault, suite, KeyPackage::builder().mark_as_last_resort())
    }

    fn key_package<K: KeyValue>(
        &self,
        vault: &Vault<'_, K>,
        suite: Suite,
        builder: KeyPackageBuilder,
    ) -> Result<Bytes, KeyPackageError> {
        let mls = |e: &dyn fmt::Display| KeyPackageError::Mls(e.to_string());
        let bundle = builder
            .leaf_node_capabilities(capabilities(suite))
            .build(suite.ciphersuite(), &Mls::new(*vault), self, self.credential())
            .map_err(|e| mls(&e))?;
        let bytes = MlsMessageOut::from(bundle.into_key_package()).to_bytes().map_err(|e| mls(&e))?;
        Ok(bytes.into())
    }

    pub(crate) fn credential(&self) -> CredentialWithKey {
        let Self { account, id, identity_fingerprint: identity, .. } = *self;
        CredentialWithKey {
            credential: LeafCredential { account, device: id, identity }.to_mls(),
            signature_key: self.public_key().as_slice().into(),
        }
    }
}

impl Signer for Device {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        self.key
            .try_sign(payload)
            .map(|signature| signature.to_bytes().to_vec())
            .map_err(|_| SignerError::SigningError)
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("account", &self.account).field("id", &self.id).finish_non_exhaustive()
    }
}

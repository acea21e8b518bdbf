//! OpenMLS's storage, as values in a [`Vault`].
//!
//! Each entity is CBOR, sealed, at the place that its label and its key name. Groups have one value
//! for each part of their state; key packages, keys and proposals one each.

use super::{KeyValue, Vault, VaultError};
use fastchat_protocol::codec;
use openmls_rust_crypto::RustCrypto;
use openmls_traits::{
    OpenMlsProvider,
    storage::{CURRENT_VERSION, StorageProvider, traits},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;

const V: u16 = CURRENT_VERSION;

/// What OpenMLS needs for one operation: its cryptography, and the vault as its storage.
pub(crate) struct Mls<'a, K: KeyValue> {
    crypto: RustCrypto,
    storage: Storage<'a, K>,
}

impl<'a, K: KeyValue> Mls<'a, K> {
    pub(crate) fn new(vault: Vault<'a, K>) -> Self {
        Self { crypto: RustCrypto::default(), storage: Storage(vault) }
    }

    pub(crate) fn vault(&self) -> &Vault<'a, K> {
        &self.storage.0
    }
}

impl<'a, K: KeyValue> OpenMlsProvider for Mls<'a, K> {
    type CryptoProvider = RustCrypto;
    type RandProvider = RustCrypto;
    type StorageProvider = Storage<'a, K>;

    fn storage(&self) -> &Storage<'a, K> {
        &self.storage
    }

    fn crypto(&self) -> &RustCrypto {
        &self.crypto
    }

    fn rand(&self) -> &RustCrypto {
        &self.crypto
    }
}

/// See the module.
pub(crate) struct Storage<'a, K: KeyValue>(Vault<'a, K>);

impl<K: KeyValue> Storage<'_, K> {
    fn put<T: Serialize + ?Sized>(
        &self,
        label: &str,
        key: &impl Serialize,
        value: &T,
    ) -> Result<(), VaultError> {
        self.0.write(label, &codec::encode(key), value)
    }

    fn get<T: DeserializeOwned>(&self, label: &str, key: &impl Serialize) -> Result<Option<T>, VaultError> {
        self.0.read(label, &codec::encode(key))
    }

    fn drop_value(&self, label: &str, key: &impl Serialize) -> Result<(), VaultError> {
        self.0.delete(label, &codec::encode(key))
    }

    /// A list is one value; the lists here have a handful of entries at most.
    fn list<T: DeserializeOwned>(&self, label: &str, key: &impl Serialize) -> Result<Vec<T>, VaultError> {
        let list: Vec<ByteBuf> = self.get(label, key)?.unwrap_or_default();
        Ok(list.iter().map(|item| codec::decode_local(item)).collect::<Result<_, _>>()?)
    }

    fn append(&self, label: &str, key: &impl Serialize, item: &impl Serialize) -> Result<(), VaultError> {
        let mut list: Vec<ByteBuf> = self.get(label, key)?.unwrap_or_default();
        list.push(ByteBuf::from(codec::encode(item)));
        self.put(label, key, &list)
    }

    fn remove(&self, label: &str, key: &impl Serialize, item: &impl Serialize) -> Result<(), VaultError> {
        let mut list: Vec<ByteBuf> = self.get(label, key)?.unwrap_or_default();
        let item = codec::encode(item);
        list.retain(|stored| **stored != item);
        self.put(label, key, &list)
    }
}

const PROPOSAL: &str = "mls/proposal";
const PROPOSAL_REFS: &str = "mls/proposal-refs";
const OWN_LEAVES: &str = "mls/own-leaves";
const EPOCH_KEYS: &str = "mls/epoch-keys";

impl<K: KeyValue> StorageProvider<V> for Storage<'_, K> {
    type Error = VaultError;

    fn write_mls_join_config<G: traits::GroupId<V>, T: traits::MlsGroupJoinConfig<V>>(
        &self,
        group: &G,
        value: &T,
    ) -> Result<(), VaultError> {
        self.put("mls/config", group, value)
    }

    fn mls_group_join_config<G: traits::GroupId<V>, T: traits::MlsGroupJoinConfig<V>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, VaultError> {
        self.get("mls/config", group)
    }

    fn delete_group_config<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), VaultError> {
        self.drop_value("mls/config", group)
    }

    fn write_tree<G: traits::GroupId<V>, T: traits::TreeSync<V>>(
        &self,
        group: &G,
        value: &T,
    ) -> Result<(), VaultError> {
        self.put("mls/tree", group, value)
    }

    fn tree<G: traits::GroupId<V>, T: traits::TreeSync<V>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, VaultError> {
        self.get("mls/tree", group)
    }

    fn delete_tree<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), VaultError> {
        self.drop_value("mls/tree", group)
    }

    fn write_interim_transcript_hash<G: traits::GroupId<V>, T: traits::InterimTranscriptHash<V>>(
        &self,
        group: &G,
        value: &T,
    ) -> Result<(), VaultError> {
        self.put("mls/transcript", group, value)
    }

    fn interim_transcript_hash<G: traits::GroupId<V>, T: traits::InterimTranscriptHash<V>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, VaultError> {
        self.get("mls/transcript", group)
    }

    fn delete_interim_transcript_hash<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), VaultError> {
        self.drop_value("mls/transcript", group)
    }

    fn write_context<G: traits::GroupId<V>, T: traits::GroupContext<V>>(
        &self,
        group: &G,
        value: &T,
    ) -> Result<(), VaultError> {
        self.put("mls/context", group, value)
    }

    fn group_context<G: traits::GroupId<V>, T: traits::GroupContext<V>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, VaultError> {
        self.get("mls/context", group)
    }

    fn delete_context<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), VaultError> {
        self.drop_value("mls/context", group)
    }

    fn write_confirmation_tag<G: traits::GroupId<V>, T: traits::ConfirmationTag<V>>(
        &self,
        group: &G,
        value: &T,
    ) -> Result<(), VaultError> {
        self.put("mls/tag", group, value)
    }

    fn confirmation_tag<G: traits::GroupId<V>, T: traits::ConfirmationTag<V>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, VaultError> {
        self.get("mls/tag", group)
    }

    fn delete_confirmation_tag<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), VaultError> {
        self.drop_value("mls/tag", group)
    }

    fn write_group_state<T: traits::GroupState<V>, G: traits::GroupId<V>>(
        &self,
        group: &G,
        value: &T,
    ) -> Result<(), VaultError> {
        self.put("mls/state", group, value)
    }

    fn group_state<T: traits::GroupState<V>, G: traits::GroupId<V>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, VaultError> {
        self.get("mls/state", group)
    }

    fn delete_group_state<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), VaultError> {
        self.drop_value("mls/state", group)
    }

    fn write_message_secrets<G: traits::GroupId<V>, T: traits::MessageSecrets<V>>(
        &self,
        group: &G,
        value: &T,
    ) -> Result<(), VaultError> {
        self.put("mls/message-secrets", group, value)
    }

    fn message_secrets<G: traits::GroupId<V>, T: traits::MessageSecrets<V>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, VaultError> {
        self.get("mls/message-secrets", group)
    }

    fn delete_message_secrets<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), VaultError> {
        self.drop_value("mls/message-secrets", group)
    }

    fn write_resumption_psk_store<G: traits::GroupId<V>, T: traits::ResumptionPskStore<V>>(
        &self,
        group: &G,
        value: &T,
    ) -> Result<(), VaultError> {
        self.put("mls/resumption", group, value)
    }

    fn resumption_psk_store<G: traits::GroupId<V>, T: traits::ResumptionPskStore<V>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, VaultError> {
        self.get("mls/resumption", group)
    }

    fn delete_all_resumption_psk_secrets<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), VaultError> {
        self.drop_value("mls/resumption", group)
    }

    fn write_own_leaf_index<G: traits::GroupId<V>, T: traits::LeafNodeIndex<V>>(
        &self,
        group: &G,
        value: &T,
    ) -> Result<(), VaultError> {
        self.put("mls/own-leaf", group, value)
    }

    fn own_leaf_index<G: traits::GroupId<V>, T: traits::LeafNodeIndex<V>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, VaultError> {
        self.get("mls/own-leaf", group)
    }

    fn delete_own_leaf_index<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), VaultError> {
        self.drop_value("mls/own-leaf", group)
    }

    fn write_group_epoch_secrets<G: traits::GroupId<V>, T: traits::GroupEpochSecrets<V>>(
        &self,
        group: &G,
        value: &T,
    ) -> Result<(), VaultError> {
        self.put("mls/epoch-secrets", group, value)
    }

    fn group_epoch_secrets<G: traits::GroupId<V>, T: traits::GroupEpochSecrets<V>>(
        &self,
        group: &G,
    ) -> Result<Option<T>, VaultError> {
        self.get("mls/epoch-secrets", group)
    }

    fn delete_group_epoch_secrets<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), VaultError> {
        self.drop_value("mls/epoch-secrets", group)
    }

    fn write_signature_key_pair<I: traits::SignaturePublicKey<V>, T: traits::SignatureKeyPair<V>>(
        &self,
        id: &I,
        value: &T,
    ) -> Result<(), VaultError> {
        self.put("mls/signature-key", id, value)
    }

    fn signature_key_pair<I: traits::SignaturePublicKey<V>, T: traits::SignatureKeyPair<V>>(
        &self,
        id: &I,
    ) -> Result<Option<T>, VaultError> {
        self.get("mls/signature-key", id)
    }

    fn delete_signature_key_pair<I: traits::SignaturePublicKey<V>>(&self, id: &I) -> Result<(), VaultError> {
        self.drop_value("mls/signature-key", id)
    }

    fn write_encryption_key_pair<I: traits::EncryptionKey<V>, T: traits::HpkeKeyPair<V>>(
        &self,
        id: &I,
        value: &T,
    ) -> Result<(), VaultError> {
        self.put("mls/encryption-key", id, value)
    }

    fn encryption_key_pair<T: traits::HpkeKeyPair<V>, I: traits::EncryptionKey<V>>(
        &self,
        id: &I,
    ) -> Result<Option<T>, VaultError> {
        self.get("mls/encryption-key", id)
    }

    fn delete_encryption_key_pair<I: traits::EncryptionKey<V>>(&self, id: &I) -> Result<(), VaultError> {
        self.drop_value("mls/encryption-key", id)
    }

    fn write_key_package<I: traits::HashReference<V>, T: traits::KeyPackage<V>>(
        &self,
        id: &I,
        value: &T,
    ) -> Result<(), VaultError> {
        self.put("mls/key-package", id, value)
    }

    fn key_package<I: traits::HashReference<V>, T: traits::KeyPackage<V>>(
        &self,
        id: &I,
    ) -> Result<Option<T>, VaultError> {
        self.get("mls/key-package", id)
    }

    fn delete_key_package<I: traits::HashReference<V>>(&self, id: &I) -> Result<(), VaultError> {
        self.drop_value("mls/key-package", id)
    }

    fn write_psk<I: traits::PskId<V>, T: traits::PskBundle<V>>(
        &self,
        id: &I,
        value: &T,
    ) -> Result<(), VaultError> {
        self.put("mls/psk", id, value)
    }

    fn psk<T: traits::PskBundle<V>, I: traits::PskId<V>>(&self, id: &I) -> Result<Option<T>, VaultError> {
        self.get("mls/psk", id)
    }

    fn delete_psk<I: traits::PskId<V>>(&self, id: &I) -> Result<(), VaultError> {
        self.drop_value("mls/psk", id)
    }

    fn append_own_leaf_node<G: traits::GroupId<V>, T: traits::LeafNode<V>>(
        &self,
        group: &G,
        leaf: &T,
    ) -> Result<(), VaultError> {
        self.append(OWN_LEAVES, group, leaf)
    }

    fn own_leaf_nodes<G: traits::GroupId<V>, T: traits::LeafNode<V>>(
        &self,
        group: &G,
    ) -> Result<Vec<T>, VaultError> {
        self.list(OWN_LEAVES, group)
    }

    fn delete_own_leaf_nodes<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), VaultError> {
        self.drop_value(OWN_LEAVES, group)
    }

    fn write_encryption_epoch_key_pairs<
        G: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        T: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
        pairs: &[T],
    ) -> Result<(), VaultError> {
        self.put(EPOCH_KEYS, &(group, epoch, leaf), pairs)
    }

    fn encryption_epoch_key_pairs<
        G: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        T: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
    ) -> Result<Vec<T>, VaultError> {
        Ok(self.get(EPOCH_KEYS, &(group, epoch, leaf))?.unwrap_or_default())
    }

    fn delete_encryption_epoch_key_pairs<G: traits::GroupId<V>, E: traits::EpochKey<V>>(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
    ) -> Result<(), VaultError> {
        self.drop_value(EPOCH_KEYS, &(group, epoch, leaf))
    }

    fn queue_proposal<G: traits::GroupId<V>, R: traits::ProposalRef<V>, T: traits::QueuedProposal<V>>(
        &self,
        group: &G,
        reference: &R,
        proposal: &T,
    ) -> Result<(), VaultError> {
        self.put(PROPOSAL, &(group, reference), proposal)?;
        self.append(PROPOSAL_REFS, group, reference)
    }

    fn queued_proposal_refs<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
    ) -> Result<Vec<R>, VaultError> {
        self.list(PROPOSAL_REFS, group)
    }

    fn queued_proposals<G: traits::GroupId<V>, R: traits::ProposalRef<V>, T: traits::QueuedProposal<V>>(
        &self,
        group: &G,
    ) -> Result<Vec<(R, T)>, VaultError> {
        let mut proposals = Vec::new();
        for reference in self.list::<R>(PROPOSAL_REFS, group)? {
            if let Some(proposal) = self.get(PROPOSAL, &(group, &reference))? {
                proposals.push((reference, proposal));
            }
        }
        Ok(proposals)
    }

    fn remove_proposal<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
        reference: &R,
    ) -> Result<(), VaultError> {
        self.remove(PROPOSAL_REFS, group, reference)?;
        self.drop_value(PROPOSAL, &(group, reference))
    }

    fn clear_proposal_queue<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
    ) -> Result<(), VaultError> {
        for reference in self.list::<R>(PROPOSAL_REFS, group)? {
            self.drop_value(PROPOSAL, &(group, &reference))?;
        }
        self.drop_value(PROPOSAL_REFS, group)
    }
}

//! Loading groups, and the frame around every operation.

use super::{ConversationError, Info};
use crate::store::{KeyValue, Overlay, Vault, VaultError, Writes, provider::Mls};
use fastchat_delivery::{
    GroupData, GroupDataError, Leaf, Suite,
    change::leaves,
    header::{group_id, parse_group_id},
};
use fastchat_protocol::{ConversationId, Epoch};
use openmls::prelude::{
    Ciphersuite, MlsGroup, MlsGroupJoinConfig, PURE_PLAINTEXT_WIRE_FORMAT_POLICY, SenderRatchetConfiguration,
};
use openmls_traits::OpenMlsProvider;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Epochs before the current one whose messages still open.
pub(super) const MAX_PAST_EPOCHS: u64 = 2;
/// Ciphertexts are padded to a multiple of this, so that lengths say little.
pub(super) const PADDING_BYTES: usize = 256;
/// Messages of one sender that may arrive late.
const OUT_OF_ORDER: u32 = 5;
/// Messages of one sender that may be missing before one that opens.
const FORWARD: u32 = 1000;

const RECORD: &str = "conversation";
const RESYNC: &str = "conversation/resync";

/// What is known of a conversation besides its group.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(rename = "g")]
    pub(super) generation: u32,
    /// The MLS epoch in which this device came in. After an external commit OpenMLS keeps made-up
    /// secrets for the epoch before, with which nothing opens: that must not look like tampering.
    #[serde(rename = "s")]
    pub(super) since: u64,
}

/// An external commit that waits: the state after it is kept aside until the log has the commit.
#[derive(Serialize, Deserialize)]
pub(super) struct Waiting {
    /// The epoch in which it was made.
    #[serde(rename = "e")]
    pub(super) base: Epoch,
    /// SHA-256 of the commit.
    #[serde(rename = "c", with = "serde_bytes")]
    pub(super) commit: [u8; 32],
    /// The state.
    #[serde(rename = "w")]
    pub(super) writes: Writes,
}

/// Runs an operation on a copy and makes its writes only if it succeeds.
pub(super) fn transact<K: KeyValue, T, E: From<VaultError>>(
    vault: &Vault<'_, K>,
    operation: impl FnOnce(&Mls<'_, Overlay<'_, K>>) -> Result<T, E>,
) -> Result<T, E> {
    let (result, writes) = set_aside(vault, operation)?;
    writes.apply(vault)?;
    Ok(result)
}

/// Runs an operation on a copy and gives its writes back.
pub(super) fn set_aside<K: KeyValue, T, E>(
    vault: &Vault<'_, K>,
    operation: impl FnOnce(&Mls<'_, Overlay<'_, K>>) -> Result<T, E>,
) -> Result<(T, Writes), E> {
    let overlay = Overlay::new(vault);
    let result = operation(&Mls::new(overlay.vault(vault.key())))?;
    Ok((result, overlay.into_writes()))
}

/// How our groups behave.
pub(super) fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        // Handshake messages in the clear for the delivery service; application messages never are.
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .padding_size(PADDING_BYTES)
        .max_past_epochs(MAX_PAST_EPOCHS as usize)
        .use_ratchet_tree_extension(false)
        .sender_ratchet_configuration(ratchet_config())
        .build()
}

pub(super) fn ratchet_config() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(OUT_OF_ORDER, FORWARD)
}

pub(super) fn record<K: KeyValue>(
    vault: &Vault<'_, K>,
    id: ConversationId,
) -> Result<Option<Record>, VaultError> {
    vault.read(RECORD, id.as_bytes())
}

/// Notes that this device came into a conversation in `epoch`.
pub(super) fn write_record<K: KeyValue>(
    vault: &Vault<'_, K>,
    id: ConversationId,
    epoch: Epoch,
) -> Result<(), VaultError> {
    vault.write(RECORD, id.as_bytes(), &Record { generation: epoch.generation, since: epoch.number })
}

pub(super) fn delete_record<K: KeyValue>(vault: &Vault<'_, K>, id: ConversationId) -> Result<(), VaultError> {
    vault.delete(RECORD, id.as_bytes())
}

pub(super) fn waiting<K: KeyValue>(
    vault: &Vault<'_, K>,
    id: ConversationId,
) -> Result<Option<Waiting>, VaultError> {
    vault.read(RESYNC, id.as_bytes())
}

pub(super) fn write_waiting<K: KeyValue>(
    vault: &Vault<'_, K>,
    id: ConversationId,
    waiting: &Waiting,
) -> Result<(), VaultError> {
    vault.write(RESYNC, id.as_bytes(), waiting)
}

pub(super) fn delete_waiting<K: KeyValue>(
    vault: &Vault<'_, K>,
    id: ConversationId,
) -> Result<(), VaultError> {
    vault.delete(RESYNC, id.as_bytes())
}

/// The group of a conversation, if this device has one.
pub(super) fn load<K: KeyValue>(
    mls: &Mls<'_, K>,
    id: ConversationId,
) -> Result<Option<MlsGroup>, VaultError> {
    let Some(Record { generation, .. }) = record(mls.vault(), id)? else { return Ok(None) };
    MlsGroup::load(mls.storage(), &group_id(id, generation))
}

/// The group of a conversation, of which this device must be a member.
pub(super) fn member<K: KeyValue>(
    mls: &Mls<'_, K>,
    id: ConversationId,
) -> Result<MlsGroup, ConversationError> {
    let group = load(mls, id)?.ok_or(ConversationError::NotJoined(id))?;
    if group.is_active() { Ok(group) } else { Err(ConversationError::Removed(id)) }
}

pub(super) fn epoch(group: &MlsGroup) -> Epoch {
    let generation = parse_group_id(group.group_id().as_slice()).map_or(0, |(_, generation)| generation);
    Epoch { generation, number: group.epoch().as_u64() }
}

pub(super) fn suite_of(suite: Ciphersuite) -> Result<Suite, ConversationError> {
    Suite::try_from(suite).map_err(ConversationError::invalid)
}

pub(super) fn members(group: &MlsGroup) -> Result<Vec<Leaf>, ConversationError> {
    Ok(leaves(group.members())?)
}

/// What a group declares; `None` for a direct conversation.
pub(super) fn data(group: &MlsGroup) -> Result<Option<GroupData>, GroupDataError> {
    GroupData::from_extensions(group.extensions())
}

/// How a conversation stands on this device; `None` if the device has no keys for it.
pub fn info<K: KeyValue>(
    vault: &Vault<'_, K>,
    conversation: ConversationId,
) -> Result<Option<Info>, ConversationError> {
    let waits = waiting(vault, conversation)?.is_some();
    let Some(group) = load(&Mls::new(*vault), conversation)? else { return Ok(None) };
    let hash: [u8; 32] = Sha256::digest(group.epoch_authenticator().as_slice()).into();
    let mut epoch_authenticator_hash = [0; 8];
    epoch_authenticator_hash.iter_mut().zip(hash).for_each(|(short, byte)| *short = byte);
    Ok(Some(Info {
        epoch: epoch(&group),
        suite: suite_of(group.ciphersuite())?,
        members: members(&group)?,
        data: data(&group)?,
        epoch_authenticator_hash,
        pending: waits || group.pending_commit().is_some(),
        active: group.is_active(),
    }))
}

//! Into a conversation by founding it or by a Welcome, and out of one that lost a race.

use super::{
    ConversationError, Founding, Joined,
    generation::succeed,
    state::{
        delete_record, delete_waiting, epoch, join_config, load, members, ratchet_config, suite_of, transact,
        write_record,
    },
};
use crate::{
    device::Device,
    store::{KeyValue, Vault, provider::Mls},
};
use fastchat_delivery::{
    GroupData, KeyPackageInfo, Leaf, Policy, Suite,
    header::{group_id, parse_group_id},
    key_package,
    leaf::capabilities,
};
use fastchat_protocol::{Bytes, ConversationId, DeviceId, Epoch, client::Welcome};
use openmls::prelude::{
    DeserializeBytes, KeyPackage, MlsGroup, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut,
    PURE_PLAINTEXT_WIRE_FORMAT_POLICY, ProcessedWelcome, RatchetTreeIn, StagedWelcome,
    tls_codec::Serialize as _,
};
use openmls_traits::OpenMlsProvider;

/// Founds a conversation with the devices whose key packages are given (none: with oneself, on this
/// device alone). `data` declares the roles of a group; a direct conversation has none. The gateway
/// decides whether it stands: [`discard`] it if another was first.
pub fn found<K: KeyValue>(
    vault: &Vault<'_, K>,
    me: &Device,
    conversation: ConversationId,
    suite: Suite,
    packages: &[Bytes],
    data: Option<&GroupData>,
    policy: &Policy<'_>,
) -> Result<Founding, ConversationError> {
    let packages = parse_packages(packages, suite)?;
    let mut leaves = vec![me.leaf()];
    leaves.extend(packages.iter().map(|(_, info)| Leaf::from(info)));
    suite.check_devices(leaves.len())?;
    policy.check_founding(me.account(), data)?;
    policy.check_members(&leaves, data)?;
    transact(vault, |mls| {
        if load(mls, conversation)?.is_some() {
            return Err(ConversationError::AlreadyJoined(conversation));
        }
        let group = create(mls, me, (conversation, 0), suite, data)?;
        founded(mls, me, group, conversation, packages)
    })
}

/// Adds everybody to a new group and puts together what the gateway needs.
pub(super) fn founded<K: KeyValue>(
    mls: &Mls<'_, K>,
    me: &Device,
    mut group: MlsGroup,
    conversation: ConversationId,
    packages: Vec<(KeyPackage, KeyPackageInfo)>,
) -> Result<Founding, ConversationError> {
    let welcomes = if packages.is_empty() { Vec::new() } else { add_all(mls, me, &mut group, packages)? };
    let info = group.export_group_info(mls.crypto(), me, false).map_err(ConversationError::mls)?;
    write_record(mls.vault(), conversation, epoch(&group))?;
    let tree = group.export_ratchet_tree().tls_serialize_detached().map_err(ConversationError::mls)?;
    Ok(Founding {
        conversation,
        epoch: epoch(&group),
        group_info: bytes(&info)?,
        tree: tree.into(),
        welcomes,
    })
}

pub(super) fn create<K: KeyValue>(
    mls: &Mls<'_, K>,
    me: &Device,
    (conversation, generation): (ConversationId, u32),
    suite: Suite,
    data: Option<&GroupData>,
) -> Result<MlsGroup, ConversationError> {
    MlsGroup::builder()
        .with_group_context_extensions(data.map(GroupData::to_extensions).unwrap_or_default())
        .with_group_id(group_id(conversation, generation))
        .ciphersuite(suite.ciphersuite())
        .with_capabilities(capabilities(suite))
        .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .padding_size(super::state::PADDING_BYTES)
        .max_past_epochs(super::state::MAX_PAST_EPOCHS as usize)
        .sender_ratchet_configuration(ratchet_config())
        .use_ratchet_tree_extension(false)
        .build(mls, me, me.credential())
        .map_err(ConversationError::mls)
}

fn add_all<K: KeyValue>(
    mls: &Mls<'_, K>,
    me: &Device,
    group: &mut MlsGroup,
    packages: Vec<(KeyPackage, KeyPackageInfo)>,
) -> Result<Vec<Welcome>, ConversationError> {
    let devices = packages.iter().map(|(_, info)| info.device).collect();
    let bundle = group
        .commit_builder()
        .propose_adds(packages.into_iter().map(|(package, _)| package))
        .load_psks(mls.storage())
        .map_err(ConversationError::mls)?
        .build(mls.rand(), mls.crypto(), me, |_| true)
        .map_err(ConversationError::mls)?
        .stage_commit(mls)
        .map_err(ConversationError::mls)?;
    // Nobody else is in the group yet, so this commit can lose to no other and need not be sent.
    group.merge_pending_commit(mls).map_err(ConversationError::mls)?;
    welcomes(bundle.to_welcome_msg(), devices)
}

pub(super) fn welcomes(
    message: Option<MlsMessageOut>,
    devices: Vec<DeviceId>,
) -> Result<Vec<Welcome>, ConversationError> {
    let Some(message) = message else { return Ok(Vec::new()) };
    Ok(vec![Welcome { devices, welcome: bytes(&message)? }])
}

pub(super) fn bytes(message: &MlsMessageOut) -> Result<Bytes, ConversationError> {
    Ok(message.to_bytes().map_err(ConversationError::mls)?.into())
}

pub(super) fn parse_packages(
    packages: &[Bytes],
    suite: Suite,
) -> Result<Vec<(KeyPackage, KeyPackageInfo)>, ConversationError> {
    let parsed = packages.iter().map(|bytes| key_package::parse(bytes)).collect::<Result<Vec<_>, _>>()?;
    match parsed.iter().find(|(_, info)| info.suite != suite) {
        Some((_, info)) => Err(ConversationError::Suite(info.suite)),
        None => Ok(parsed),
    }
}

/// Forgets a conversation and its keys: it lost a creation race, or this device was removed.
pub fn discard<K: KeyValue>(
    vault: &Vault<'_, K>,
    conversation: ConversationId,
) -> Result<(), ConversationError> {
    transact(vault, |mls| {
        if let Some(mut group) = load(mls, conversation)? {
            group.delete(mls.storage())?;
        }
        delete_record(mls.vault(), conversation)?;
        Ok(delete_waiting(mls.vault(), conversation)?)
    })
}

/// Joins by a Welcome and the tree that belongs to it (a wrong tree fails by its MLS hash).
/// Uses up the key package that the Welcome was made for, unless it is the last resort.
///
/// A device that has an older generation gives it up, so it must have read the log up to the founding
/// of this one first; the new members and roles are judged by the old ones.
pub fn join<K: KeyValue>(
    vault: &Vault<'_, K>,
    me: &Device,
    welcome: &[u8],
    tree: &[u8],
    policy: &Policy<'_>,
) -> Result<Joined, ConversationError> {
    let message = MlsMessageIn::tls_deserialize_exact_bytes(welcome).map_err(ConversationError::invalid)?;
    let MlsMessageBodyIn::Welcome(welcome) = message.extract() else {
        return Err(ConversationError::Invalid("not a welcome".into()));
    };
    let tree = RatchetTreeIn::tls_deserialize_exact_bytes(tree).map_err(ConversationError::invalid)?;
    transact(vault, |mls| {
        let processed = ProcessedWelcome::new_from_welcome(mls, &join_config(), welcome)
            .map_err(ConversationError::invalid)?;
        let context = processed.unverified_group_info().group_context();
        let (conversation, generation) = parse_group_id(context.group_id().as_slice())
            .ok_or_else(|| ConversationError::Invalid("not a conversation's group".into()))?;
        let data = GroupData::from_extensions(context.extensions())?;
        // Only a conversation that this device has left may be entered again, or a newer generation.
        let old = load(mls, conversation)?;
        if old.as_ref().is_some_and(|group| group.is_active() && epoch(group).generation >= generation) {
            return Err(ConversationError::AlreadyJoined(conversation));
        }
        let number = context.epoch().as_u64();
        // A server that repeats an old welcome (for a last-resort key package) takes nobody back.
        if old.as_ref().is_some_and(|group| epoch(group) >= Epoch { generation, number }) {
            return Err(ConversationError::Invalid("a welcome of before this device was removed".into()));
        }
        let staged = openmls::group::JoinBuilder::new(mls, processed)
            .with_ratchet_tree(tree)
            .skip_lifetime_validation()
            .replace_old_group()
            .build()
            .map_err(ConversationError::invalid)?;
        let by = sender(&staged)?;
        let group = staged.into_group(mls).map_err(ConversationError::mls)?;
        let members = members(&group)?;
        if !members.contains(&me.leaf()) {
            return Err(ConversationError::Invalid("the welcome is not for this device".into()));
        }
        let suite = suite_of(group.ciphersuite())?;
        suite.check_devices(members.len())?;
        policy.check_entry(&me.leaf(), &members, data.as_ref())?;
        policy.check_welcome(me.account(), &by, data.as_ref())?;
        // In the first epoch that has a welcome, whoever made it is the founder.
        if epoch(&group) == (Epoch { generation: 0, number: 1 }) {
            policy.check_founding(by.account, data.as_ref())?;
        }
        succeed(mls, old, &group, &by, policy)?;
        write_record(mls.vault(), conversation, epoch(&group))?;
        delete_waiting(mls.vault(), conversation)?;
        Ok(Joined { conversation, epoch: epoch(&group), suite, by, members, data })
    })
}

fn sender(staged: &StagedWelcome) -> Result<Leaf, ConversationError> {
    Ok(Leaf::from_node(staged.welcome_sender().map_err(ConversationError::mls)?)?)
}

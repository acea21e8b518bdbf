//! Commits of our own.
//!
//! A commit by a member is staged by OpenMLS and merged when the log shows it. An external commit is
//! merged by OpenMLS at once; so it is made on a copy, and the copy waits (see [`Waiting`]).

use super::{
    ConversationError, PendingCommit,
    entry::{bytes, parse_packages, welcomes},
    state::{
        Waiting, data, delete_waiting, epoch, join_config, load, member, members, set_aside, suite_of,
        transact, waiting, write_record, write_waiting,
    },
};
use crate::{
    device::Device,
    store::{KeyValue, Vault, provider::Mls},
};
use fastchat_delivery::{
    Change, GroupData, Leaf, Policy,
    change::leaves,
    header::{aad, parse_group_id},
    leaf::capabilities,
};
use fastchat_protocol::{Bytes, ConversationId, Counter, DeviceId, Epoch};
use openmls::prelude::{
    DeserializeBytes, LeafNodeIndex, LeafNodeParameters, MlsGroup, MlsMessageBodyIn, MlsMessageIn,
    RatchetTreeIn,
};
use openmls_traits::OpenMlsProvider;
use sha2::{Digest, Sha256};

/// Replaces this device's keys, so that whoever had stolen the old ones is locked out.
pub fn update_keys<K: KeyValue>(
    vault: &Vault<'_, K>,
    me: &Device,
    conversation: ConversationId,
    counter: Counter,
) -> Result<PendingCommit, ConversationError> {
    transact(vault, |mls| {
        let mut group = member(mls, conversation)?;
        commit(mls, me, &mut group, counter, Vec::new(), Vec::new(), None)
    })
}

/// What is to change about the members of a conversation.
#[derive(Debug, Clone, Default)]
pub struct Members<'a> {
    /// Key packages of devices that come.
    pub add: &'a [Bytes],
    /// Devices that go.
    pub remove: &'a [DeviceId],
    /// What the group declares from now on, if that changes. Whoever has a device in the group must be
    /// declared, and nobody else.
    pub data: Option<GroupData>,
}

/// Changes devices and roles, within what the policy allows.
pub fn change_members<K: KeyValue>(
    vault: &Vault<'_, K>,
    me: &Device,
    conversation: ConversationId,
    counter: Counter,
    change: &Members<'_>,
    policy: &Policy<'_>,
) -> Result<PendingCommit, ConversationError> {
    transact(vault, |mls| {
        let mut group = member(mls, conversation)?;
        let (indices, removed) = find_all(&group, change.remove)?;
        let suite = suite_of(group.ciphersuite())?;
        let added = parse_packages(change.add, suite)?;
        let before = members(&group)?;
        suite.check_devices((before.len() + added.len()).saturating_sub(removed.len()))?;
        let judged = Change {
            committer: me.leaf(),
            external: false,
            added: added.iter().map(|(_, info)| info.into()).collect(),
            removed,
            data: change.data.clone(),
        };
        policy.check_commit(&before, data(&group)?.as_ref(), &judged)?;
        commit(mls, me, &mut group, counter, added, indices, change.data.as_ref())
    })
}

type Packages = Vec<(openmls::prelude::KeyPackage, fastchat_delivery::KeyPackageInfo)>;

fn commit<K: KeyValue>(
    mls: &Mls<'_, K>,
    me: &Device,
    group: &mut MlsGroup,
    counter: Counter,
    add: Packages,
    remove: Vec<LeafNodeIndex>,
    data: Option<&GroupData>,
) -> Result<PendingCommit, ConversationError> {
    if group.pending_commit().is_some() {
        return Err(ConversationError::Pending);
    }
    let devices = add.iter().map(|(_, info)| info.device).collect();
    group.set_aad(aad(counter));
    let mut builder = group
        .commit_builder()
        .force_self_update(true)
        .propose_adds(add.into_iter().map(|(package, _)| package))
        .propose_removals(remove);
    if let Some(data) = data {
        builder =
            builder.propose_group_context_extensions(data.to_extensions()).map_err(ConversationError::mls)?;
    }
    let bundle = builder
        .load_psks(mls.storage())
        .map_err(ConversationError::mls)?
        .create_group_info(true)
        .use_ratchet_tree_extension(false)
        .build(mls.rand(), mls.crypto(), me, |_| true)
        .map_err(ConversationError::mls)?
        .stage_commit(mls)
        .map_err(ConversationError::mls)?;
    let mut next = epoch(group);
    next.number = next.number.saturating_add(1);
    let (commit, welcome, group_info) = bundle.into_messages();
    let group_info = group_info.ok_or_else(|| ConversationError::Mls("no group information".into()))?;
    Ok(PendingCommit {
        commit: bytes(&commit)?,
        group_info: bytes(&group_info)?,
        welcomes: welcomes(welcome, devices)?,
        epoch: next,
    })
}

fn find_all(
    group: &MlsGroup,
    devices: &[DeviceId],
) -> Result<(Vec<LeafNodeIndex>, Vec<Leaf>), ConversationError> {
    let mut found = (Vec::new(), Vec::new());
    for device in devices {
        let leaf = group.members().find_map(|member| {
            Leaf::from_member(&member)
                .ok()
                .filter(|leaf| leaf.device == *device)
                .map(|leaf| (member.index, leaf))
        });
        let (index, leaf) = leaf.ok_or(ConversationError::NoSuchDevice(*device))?;
        found.0.push(index);
        found.1.push(leaf);
    }
    Ok(found)
}

/// A conversation's public state, as the gateway shows it.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Signed GroupInfo.
    pub group_info: &'a [u8],
    /// Its ratchet tree.
    pub tree: &'a [u8],
    /// It may lie before the keys at hand: those are of a log that is gone, because the server's store
    /// was restored from a backup. Otherwise that is [`ConversationError::RolledBack`].
    pub supersedes: bool,
}

/// Joins a conversation anew by an external commit, replacing this device's old leaf: after lost
/// state, or where there never was any (a newly linked device). What is shown is the gateway's
/// newest. Until the log shows the commit, the old state (if any) stays in use.
pub fn resync<K: KeyValue>(
    vault: &Vault<'_, K>,
    me: &Device,
    conversation: ConversationId,
    shown: &Shown<'_>,
    counter: Counter,
    policy: &Policy<'_>,
) -> Result<PendingCommit, ConversationError> {
    let Shown { group_info, tree, supersedes } = *shown;
    let message =
        MlsMessageIn::tls_deserialize_exact_bytes(group_info).map_err(ConversationError::invalid)?;
    let MlsMessageBodyIn::GroupInfo(info) = message.extract() else {
        return Err(ConversationError::Invalid("not group information".into()));
    };
    let tree = RatchetTreeIn::tls_deserialize_exact_bytes(tree).map_err(ConversationError::invalid)?;
    let (of, generation) =
        parse_group_id(info.group_id().as_slice())
            .filter(|(of, _)| *of == conversation)
            .ok_or_else(|| ConversationError::Invalid("group information of another conversation".into()))?;
    let data = GroupData::from_extensions(info.group_context().extensions())?;
    let base = Epoch { generation, number: info.epoch().as_u64() };
    let suite = suite_of(info.ciphersuite())?;
    let known = load(&Mls::new(*vault), conversation)?.map(|group| epoch(&group));
    if let Some(known) = known.filter(|known| !supersedes && base < *known) {
        return Err(ConversationError::RolledBack { shown: base.number, known: known.number });
    }
    let (pending, writes) = set_aside(vault, |mls| {
        let leaf = LeafNodeParameters::builder().with_capabilities(capabilities(suite)).build();
        let (group, bundle) = MlsGroup::external_commit_builder()
            .with_ratchet_tree(tree)
            .with_config(join_config())
            .with_aad(aad(counter))
            .skip_lifetime_validation()
            .build_group(mls, info, me.credential())
            .map_err(ConversationError::invalid)?
            .leaf_node_parameters(leaf)
            .load_psks(mls.storage())
            .map_err(ConversationError::mls)?
            .create_group_info(true)
            .use_ratchet_tree_extension(false)
            .build(mls.rand(), mls.crypto(), me, |_| true)
            .map_err(ConversationError::mls)?
            .finalize(mls)
            .map_err(ConversationError::mls)?;
        let members = leaves(group.members())?;
        suite.check_devices(members.len())?;
        policy.check_entry(&me.leaf(), &members, data.as_ref())?;
        if let Some(mut old) = load(mls, of)?.filter(|old| epoch(old).generation != generation) {
            old.delete(mls.storage())?;
        }
        write_record(mls.vault(), of, epoch(&group))?;
        let (commit, _, group_info) = bundle.into_messages();
        let group_info = group_info.ok_or_else(|| ConversationError::Mls("no group information".into()))?;
        let (commit, group_info) = (bytes(&commit)?, bytes(&group_info)?);
        Ok::<_, ConversationError>(PendingCommit {
            commit,
            group_info,
            welcomes: Vec::new(),
            epoch: epoch(&group),
        })
    })?;
    let commit = Sha256::digest(&pending.commit).into();
    write_waiting(vault, conversation, &Waiting { base, commit, writes })?;
    Ok(pending)
}

/// Forgets a commit of ours that was refused or lost its race. Not an error if there is none.
pub fn clear_pending<K: KeyValue>(
    vault: &Vault<'_, K>,
    conversation: ConversationId,
) -> Result<(), ConversationError> {
    transact(vault, |mls| {
        if let Some(mut group) = load(mls, conversation)? {
            group.clear_pending_commit(mls.storage())?;
        }
        Ok(delete_waiting(mls.vault(), conversation)?)
    })
}

/// Merges a commit of ours that is known to be accepted, without reading it back: the new epoch, or
/// `None` if nothing was waiting. [`super::open`] does this by itself when it meets the commit.
pub fn merge_pending<K: KeyValue>(
    vault: &Vault<'_, K>,
    conversation: ConversationId,
) -> Result<Option<Epoch>, ConversationError> {
    transact(vault, |mls| {
        if let Some(waiting) = waiting(mls.vault(), conversation)? {
            waiting.writes.apply(mls.vault())?;
            delete_waiting(mls.vault(), conversation)?;
            return Ok(load(mls, conversation)?.map(|group| epoch(&group)));
        }
        let mut group = member(mls, conversation)?;
        if group.pending_commit().is_none() {
            return Ok(None);
        }
        group.merge_pending_commit(mls).map_err(ConversationError::mls)?;
        Ok(Some(epoch(&group)))
    })
}

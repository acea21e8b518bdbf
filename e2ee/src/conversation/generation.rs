//! The next generation of a group: the same conversation, founded anew with another suite.
//!
//! The founder makes it on a copy, which waits as an external commit does; it takes the old
//! generation's place when the log shows that it was first. The others come in by [`super::join`],
//! each after it has read the log up to there with the old keys.

use super::{
    ConversationError, Founding,
    entry::{create, founded, parse_packages},
    state::{
        Waiting, data, delete_waiting, epoch, load, member, members, set_aside, transact, waiting,
        write_waiting,
    },
};
use crate::{
    device::Device,
    store::{KeyValue, Vault, provider::Mls},
};
use fastchat_delivery::{GroupData, Leaf, Policy, PolicyError, Suite};
use fastchat_protocol::{Bytes, ConversationId, Epoch};
use openmls::prelude::MlsGroup;
use openmls_traits::OpenMlsProvider;
use sha2::{Digest, Sha256};

/// Founds the next generation of a group with the devices whose key packages are given: every other
/// device of its members, and those of people who come in with it. Until [`enter_next`] nothing
/// changes here. The epoch that it takes the place of is the one of [`super::info`] before the call.
pub fn found_next<K: KeyValue>(
    vault: &Vault<'_, K>,
    me: &Device,
    conversation: ConversationId,
    suite: Suite,
    packages: &[Bytes],
    next: &GroupData,
    policy: &Policy<'_>,
) -> Result<Founding, ConversationError> {
    let packages = parse_packages(packages, suite)?;
    let mut leaves = vec![me.leaf()];
    leaves.extend(packages.iter().map(|(_, info)| Leaf::from(info)));
    suite.check_devices(leaves.len())?;
    policy.check_members(&leaves, Some(next))?;
    let waits = waiting(vault, conversation)?.is_some();
    let ((founding, base), writes) = set_aside(vault, |mls| {
        let mut old = member(mls, conversation)?;
        if waits || old.pending_commit().is_some() {
            return Err(ConversationError::Pending);
        }
        let before = data(&old)?.ok_or(PolicyError::Kind)?;
        policy.check_generation((&members(&old)?, &before), (&leaves, next), &me.leaf())?;
        let base = epoch(&old);
        old.delete(mls.storage())?;
        let group = create(mls, me, (conversation, base.generation.saturating_add(1)), suite, Some(next))?;
        Ok((founded(mls, me, group, conversation, packages)?, base))
    })?;
    let commit = Sha256::digest(&founding.group_info).into();
    write_waiting(vault, conversation, &Waiting { base, commit, writes })?;
    Ok(founding)
}

/// The generation with which a conversation goes on.
#[derive(Debug, Clone, Copy)]
pub struct Next<'a> {
    /// The server's epoch, of which it takes the place.
    pub base: Epoch,
    /// Its number.
    pub generation: u32,
    /// Its suite.
    pub suite: Suite,
    /// What a group declares; `None` for a direct conversation.
    pub data: Option<&'a GroupData>,
}

/// Founds the generation with which a conversation goes on after the server's store was restored from a
/// backup that is older than the keys here. These are of a log that is gone, so they judge nothing. As
/// after [`found_next`], nothing changes here until [`enter_next`].
pub fn refound<K: KeyValue>(
    vault: &Vault<'_, K>,
    me: &Device,
    conversation: ConversationId,
    next: &Next<'_>,
    packages: &[Bytes],
    policy: &Policy<'_>,
) -> Result<Founding, ConversationError> {
    let Next { base, generation, suite, data } = *next;
    let packages = parse_packages(packages, suite)?;
    let mut leaves = vec![me.leaf()];
    leaves.extend(packages.iter().map(|(_, info)| Leaf::from(info)));
    suite.check_devices(leaves.len())?;
    policy.check_members(&leaves, data)?;
    if waiting(vault, conversation)?.is_some() {
        return Err(ConversationError::Pending);
    }
    let (founding, writes) = set_aside(vault, |mls| {
        if let Some(mut old) = load(mls, conversation)? {
            if epoch(&old).generation >= generation {
                return Err(ConversationError::AlreadyJoined(conversation));
            }
            old.delete(mls.storage())?;
        }
        let group = create(mls, me, (conversation, generation), suite, data)?;
        founded(mls, me, group, conversation, packages)
    })?;
    let commit = Sha256::digest(&founding.group_info).into();
    write_waiting(vault, conversation, &Waiting { base, commit, writes })?;
    Ok(founding)
}

/// The log says that a next generation was founded, by the SHA-256 of its group information. If it is
/// ours, it takes the old one's place: its first epoch. Otherwise whatever waited here has lost, and
/// this device comes in by its welcome: `None`.
pub fn enter_next<K: KeyValue>(
    vault: &Vault<'_, K>,
    conversation: ConversationId,
    group_info_hash: &[u8; 32],
) -> Result<Option<Epoch>, ConversationError> {
    transact(vault, |mls| {
        let Some(waiting) = waiting(mls.vault(), conversation)? else { return Ok(None) };
        delete_waiting(mls.vault(), conversation)?;
        if waiting.commit != *group_info_hash {
            return Ok(None);
        }
        waiting.writes.apply(mls.vault())?;
        Ok(load(mls, conversation)?.map(|group| epoch(&group)))
    })
}

/// Judges the generation that a device enters against the one it knows, and gives that up.
pub(super) fn succeed<K: KeyValue>(
    mls: &Mls<'_, K>,
    old: Option<MlsGroup>,
    next: &MlsGroup,
    by: &Leaf,
    policy: &Policy<'_>,
) -> Result<(), ConversationError> {
    let Some(mut old) = old.filter(|old| epoch(old).generation != epoch(next).generation) else {
        return Ok(());
    };
    // Whoever was removed does not know what became of the group since, and is added as anybody is.
    if old.is_active() {
        let (before, after) = (data(&old)?, data(next)?);
        let (old_leaves, leaves) = (members(&old)?, members(next)?);
        // The next one is one more; what follows a restored store has the number of its incarnation.
        let follows = epoch(&old).generation.checked_add(1) == Some(epoch(next).generation);
        match (before, after) {
            (Some(before), Some(after)) if follows => {
                policy.check_generation((&old_leaves, &before), (&leaves, &after), by)?;
            }
            (before, after) => {
                policy.check_successor((&old_leaves, before.as_ref()), (&leaves, after.as_ref()), by)?;
            }
        }
    }
    Ok(old.delete(mls.storage())?)
}

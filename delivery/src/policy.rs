//! Who may be in a conversation and who may change that: pure, and the same on both sides.
//!
//! The gateway asks before it stores a commit, every client before it merges one. A gateway that
//! lies can therefore not smuggle a device in: it would need a signature of the account's identity.
//!
//! Only direct conversations have rules so far. Groups add a variant of [`Rules`] that carries the
//! members' roles; nothing else here changes.

use crate::{change::Change, leaf::Leaf, manifest::VerifiedManifest};
use fastchat_protocol::{AccountId, DeviceId};
use std::{collections::BTreeSet, fmt};

/// What kind of conversation it is, with what the rules of that kind need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rules {
    /// Between these two accounts (twice the same: with oneself).
    Direct([AccountId; 2]),
    /// A direct conversation of this account with whoever else is in it: for a joiner who does not
    /// know yet who has begun it.
    DirectOf(AccountId),
}

/// The rules, and where to look an account's newest verified manifest up.
#[derive(Clone, Copy)]
pub struct Policy<'a> {
    /// What kind of conversation it is.
    pub rules: Rules,
    /// `None` for an account whose manifest is not at hand.
    pub manifests: &'a dyn Fn(AccountId) -> Option<VerifiedManifest>,
}

/// Why members or a change are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Fetch it and ask again.
    #[error("the manifest of account {0} is needed first")]
    ManifestNeeded(AccountId),
    /// The account takes no part in the conversation.
    #[error("account {0} takes no part in this conversation")]
    Account(AccountId),
    /// The manifest at hand does not list the device with that key. A newer one may.
    #[error("device {device} is not in version {version} of the manifest of account {account}")]
    NotListed {
        /// Whose device it says to be.
        account: AccountId,
        /// The device.
        device: DeviceId,
        /// The version that was asked.
        version: u64,
    },
    /// One device, two leaves.
    #[error("device {0} would be in the conversation twice")]
    Twice(DeviceId),
    /// A device that joins by itself may remove nothing but its own old leaf.
    #[error("device {0} joins by itself and removes another device")]
    JoinerRemoves(DeviceId),
    /// Only a device of the own account, or one that its manifest no longer lists, may be removed.
    #[error("device {by} may not remove device {removed}")]
    MayNotRemove {
        /// Who wants to.
        by: DeviceId,
        /// Whom.
        removed: DeviceId,
    },
    /// Nobody would be left.
    #[error("the conversation would have no members")]
    Empty,
}

impl PolicyError {
    /// The account whose newest manifest should be fetched before asking again.
    pub fn wants_manifest(&self) -> Option<AccountId> {
        match self {
            Self::ManifestNeeded(account) | Self::NotListed { account, .. } => Some(*account),
            _ => None,
        }
    }
}

impl Policy<'_> {
    /// Judges the members of a conversation that one founds, joins or begins to follow.
    pub fn check_members(&self, members: &[Leaf]) -> Result<(), PolicyError> {
        if members.is_empty() {
            return Err(PolicyError::Empty);
        }
        self.check_accounts(members)?;
        check_unique(members)?;
        members.iter().try_for_each(|leaf| self.check_listed(leaf))
    }

    /// Judges a change to a conversation that has `members`.
    pub fn check_commit(&self, members: &[Leaf], change: &Change) -> Result<(), PolicyError> {
        let Change { committer, external, added, removed } = change;
        let after: Vec<Leaf> =
            members.iter().filter(|leaf| !removed.contains(leaf)).chain(added).copied().collect();
        if after.is_empty() {
            return Err(PolicyError::Empty);
        }
        self.check_accounts(&after)?;
        check_unique(&after)?;
        added.iter().try_for_each(|leaf| self.check_listed(leaf))?;
        if *external {
            // OpenMLS removes by key; the same device under another key would be a second leaf.
            return match removed
                .iter()
                .all(|leaf| leaf.device == committer.device && leaf.account == committer.account)
            {
                true => Ok(()),
                false => Err(PolicyError::JoinerRemoves(committer.device)),
            };
        }
        removed.iter().try_for_each(|leaf| self.check_removal(committer, leaf))
    }

    /// The members that no manifest at hand lists any more. The next who sends removes them first.
    pub fn unlisted(&self, members: &[Leaf]) -> Vec<DeviceId> {
        let revoked =
            |leaf: &&Leaf| (self.manifests)(leaf.account).is_some_and(|manifest| !is_listed(&manifest, leaf));
        members.iter().filter(revoked).map(|leaf| leaf.device).collect()
    }

    fn check_accounts(&self, members: &[Leaf]) -> Result<(), PolicyError> {
        match self.rules {
            Rules::Direct(parties) => members
                .iter()
                .find(|leaf| !parties.contains(&leaf.account))
                .map_or(Ok(()), |leaf| Err(PolicyError::Account(leaf.account))),
            Rules::DirectOf(own) => {
                let others: BTreeSet<_> =
                    members.iter().map(|leaf| leaf.account).filter(|account| *account != own).collect();
                others.into_iter().nth(1).map_or(Ok(()), |third| Err(PolicyError::Account(third)))
            }
        }
    }

    fn check_listed(&self, leaf: &Leaf) -> Result<(), PolicyError> {
        let Leaf { account, device, .. } = *leaf;
        let manifest = (self.manifests)(account).ok_or(PolicyError::ManifestNeeded(account))?;
        match is_listed(&manifest, leaf) {
            true => Ok(()),
            false => Err(PolicyError::NotListed { account, device, version: manifest.version() }),
        }
    }

    fn check_removal(&self, by: &Leaf, leaf: &Leaf) -> Result<(), PolicyError> {
        if by.account == leaf.account {
            return Ok(());
        }
        let manifest = (self.manifests)(leaf.account).ok_or(PolicyError::ManifestNeeded(leaf.account))?;
        match is_listed(&manifest, leaf) {
            true => Err(PolicyError::MayNotRemove { by: by.device, removed: leaf.device }),
            false => Ok(()),
        }
    }
}

/// The function form of [`Policy::check_commit`].
pub fn check_commit(policy: &Policy<'_>, members: &[Leaf], change: &Change) -> Result<(), PolicyError> {
    policy.check_commit(members, change)
}

/// Whether the manifest lists exactly this leaf: account, identity, device and key.
pub fn is_listed(manifest: &VerifiedManifest, leaf: &Leaf) -> bool {
    manifest.account() == leaf.account
        && manifest.identity_fingerprint() == leaf.identity_fingerprint
        && manifest.device(leaf.device).is_some_and(|device| device.key == leaf.key)
}

fn check_unique(members: &[Leaf]) -> Result<(), PolicyError> {
    let mut seen = BTreeSet::new();
    members
        .iter()
        .find(|leaf| !seen.insert(leaf.device))
        .map_or(Ok(()), |leaf| Err(PolicyError::Twice(leaf.device)))
}

impl fmt::Debug for Policy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("rules", &self.rules).finish_non_exhaustive()
    }
}

//! Who may be in a conversation and who may change that: pure, and the same on both sides.
//!
//! - The gateway asks before it stores a commit, every client before it merges one. A gateway that
//!   lies can therefore not smuggle a device in: it would need a signature of the account's identity.
//! - Roles come from the group's own authenticated state ([`GroupData`]), never from who asks.
//! - Every account of a group has a leaf and every leaf is of one of its accounts.

use crate::{change::Change, group_data::GroupData, leaf::Leaf, manifest::VerifiedManifest};
use fastchat_protocol::{AccountId, DeviceId, Role};
use std::{collections::BTreeSet, fmt};

/// What kind of conversation it is, with what the rules of that kind need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules<'a> {
    /// Between these two accounts (twice the same: with oneself).
    Direct([AccountId; 2]),
    /// A group. Its roles are in its own state.
    Group {
        /// Accounts whose statement that they leave was verified, and whose leaves are still there:
        /// any member may remove those, all at once. Until then they may do nothing and be given
        /// nothing; the commit that removes them takes them off this list.
        left: &'a BTreeSet<AccountId>,
    },
    /// Of this account, which joins and does not know yet what it is: a direct conversation with
    /// whoever has begun it, or a group.
    Joiner(AccountId),
}

/// The rules, and where to look an account's newest verified manifest up.
#[derive(Clone, Copy)]
pub struct Policy<'a> {
    /// What kind of conversation it is.
    pub rules: Rules<'a>,
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
    /// A device that joins by itself may bring nobody else.
    #[error("device {0} joins by itself and brings another device")]
    JoinerAdds(DeviceId),
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
    /// A direct conversation with roles, or a group without.
    #[error("a direct conversation has no roles, and a group has them")]
    Kind,
    /// The roles and the tree do not name the same accounts.
    #[error("account {0} is in the group's list or among its devices, but not in both")]
    Undeclared(AccountId),
    /// Its role does not allow the committer what it does.
    #[error("{what} is not for a {role}")]
    Forbidden {
        /// The committer's role.
        role: Role,
        /// What it does.
        what: &'static str,
    },
    /// Whoever comes in begins as a member.
    #[error("account {0} would come in with a role")]
    ComesWithRole(AccountId),
    /// It has left, and may do nothing and be given nothing any more.
    #[error("account {0} has left this conversation")]
    Left(AccountId),
    /// It has left, and its devices are still there: they go before anybody comes.
    #[error("account {0} has left, and its devices go before anybody comes")]
    Lingers(AccountId),
    /// Only a member device founds the next generation.
    #[error("device {0} is not in the conversation")]
    NoMember(DeviceId),
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
    /// Judges the members of a conversation that one founds or begins to follow. `data` is what the
    /// group declares; a direct conversation declares nothing.
    pub fn check_members(&self, members: &[Leaf], data: Option<&GroupData>) -> Result<(), PolicyError> {
        self.check_set(members, data)?;
        members.iter().try_for_each(|leaf| self.check_listed(leaf))
    }

    /// Judges the members of a conversation that the device `own` enters. Others' devices that were
    /// revoked since do not keep it out (nobody may have sent since, or the account may have no other
    /// device there): whoever sends first removes what [`unlisted`](Self::unlisted) names.
    pub fn check_entry(
        &self,
        own: &Leaf,
        members: &[Leaf],
        data: Option<&GroupData>,
    ) -> Result<(), PolicyError> {
        self.check_set(members, data)?;
        self.check_listed(own)?;
        members.iter().try_for_each(|leaf| match self.check_listed(leaf) {
            Err(PolicyError::NotListed { .. }) if self.is_revoked(leaf) => Ok(()),
            judged => judged,
        })
    }

    /// Judges a new group: the founder owns it.
    pub fn check_founding(&self, founder: AccountId, data: Option<&GroupData>) -> Result<(), PolicyError> {
        match data.map(|data| (data.role(founder), founder)) {
            None | Some((Some(Role::Owner), _)) => Ok(()),
            Some((role, founder)) => Err(role.map_or(PolicyError::Undeclared(founder), |role| {
                PolicyError::Forbidden { role, what: "founding a group" }
            })),
        }
    }

    /// Judges who let the own device in: a device of its own account, or somebody who may add.
    pub fn check_welcome(
        &self,
        own: AccountId,
        by: &Leaf,
        data: Option<&GroupData>,
    ) -> Result<(), PolicyError> {
        let Some(data) = data.filter(|_| by.account != own) else { return Ok(()) };
        let role = data.role(by.account).ok_or(PolicyError::Undeclared(by.account))?;
        allow(role >= Role::Admin, role, "adding people")
    }

    /// Judges the next generation of a group against the last epoch of the one before.
    pub fn check_generation(
        &self,
        (members, data): (&[Leaf], &GroupData),
        (next, next_data): (&[Leaf], &GroupData),
        founder: &Leaf,
    ) -> Result<(), PolicyError> {
        let role = data.role(founder.account).ok_or(PolicyError::Account(founder.account))?;
        allow(role >= Role::Admin, role, "changing the encryption of a group")?;
        if !members.contains(founder) {
            return Err(PolicyError::NoMember(founder.device));
        }
        self.check_successor((members, Some(data)), (next, Some(next_data)), founder)
    }

    /// Judges the generation with which a conversation goes on after the store was restored from a
    /// backup, against what is known of it here. Whoever founds it may change no more by it than by a
    /// commit; that it is founded at all takes no role, because it gives nobody anything.
    pub fn check_successor(
        &self,
        (members, data): (&[Leaf], Option<&GroupData>),
        (next, next_data): (&[Leaf], Option<&GroupData>),
        founder: &Leaf,
    ) -> Result<(), PolicyError> {
        if data.is_none() != next_data.is_none() {
            return Err(PolicyError::Kind);
        }
        let Some((data, next_data)) = data.zip(next_data) else {
            // Between two, the same two.
            let parties: BTreeSet<_> = members.iter().map(|leaf| leaf.account).collect();
            let other = next.iter().find(|leaf| !parties.contains(&leaf.account));
            return other.map_or(Ok(()), |leaf| Err(PolicyError::Account(leaf.account)));
        };
        if let Some(leaf) = next.iter().find(|leaf| self.has_left(leaf.account)) {
            return Err(PolicyError::Left(leaf.account));
        }
        let change = Change {
            committer: *founder,
            external: false,
            added: next.iter().filter(|leaf| !members.contains(leaf)).copied().collect(),
            removed: members.iter().filter(|leaf| !next.contains(leaf)).copied().collect(),
            data: Some(next_data.clone()),
        };
        self.check_commit(members, Some(data), &change)
    }

    /// Judges a change to a conversation that has `members` and declares `data`.
    pub fn check_commit(
        &self,
        members: &[Leaf],
        data: Option<&GroupData>,
        change: &Change,
    ) -> Result<(), PolicyError> {
        let Change { committer, external, added, removed, data: new_data } = change;
        let after: Vec<Leaf> =
            members.iter().filter(|leaf| !removed.contains(leaf)).chain(added).copied().collect();
        self.check_set(&after, new_data.as_ref().or(data))?;
        added.iter().try_for_each(|leaf| self.check_listed(leaf))?;
        if let Some(data) = data {
            self.check_roles(committer.account, data, new_data.as_ref().unwrap_or(data), *external)?;
            self.check_added(committer.account, data, added)?;
            self.check_newcomers(data, &after, added)?;
        }
        if *external {
            return check_external(committer, added, removed);
        }
        let gone = |leaf: &&Leaf| after.iter().all(|other| other.account != leaf.account);
        // An account that goes altogether was judged by its role.
        removed
            .iter()
            .filter(|leaf| data.is_none() || !gone(leaf))
            .try_for_each(|leaf| self.check_removal(committer, leaf))
    }

    /// The devices that no manifest at hand lists any more. The next who sends removes them first.
    ///
    /// In a group an account keeps a device as long as none that is listed has come in its place:
    /// without any it could not come back by itself. The gateway has barred the device already.
    pub fn unlisted(&self, members: &[Leaf]) -> Vec<DeviceId> {
        let listed = |leaf: &Leaf| (self.manifests)(leaf.account).map(|manifest| is_listed(&manifest, leaf));
        let replaced = |account| {
            matches!(self.rules, Rules::Direct(_))
                || members.iter().any(|leaf| leaf.account == account && listed(leaf) == Some(true))
        };
        members
            .iter()
            .filter(|leaf| listed(leaf) == Some(false) && replaced(leaf.account))
            .map(|leaf| leaf.device)
            .collect()
    }

    /// What can be said of a set of members without their manifests.
    fn check_set(&self, members: &[Leaf], data: Option<&GroupData>) -> Result<(), PolicyError> {
        if members.is_empty() {
            return Err(PolicyError::Empty);
        }
        self.check_accounts(members, data)?;
        check_unique(members)
    }

    fn check_accounts(&self, members: &[Leaf], data: Option<&GroupData>) -> Result<(), PolicyError> {
        match (self.rules, data) {
            (Rules::Direct(_), Some(_)) | (Rules::Group { .. }, None) => Err(PolicyError::Kind),
            (Rules::Direct(parties), None) => members
                .iter()
                .find(|leaf| !parties.contains(&leaf.account))
                .map_or(Ok(()), |leaf| Err(PolicyError::Account(leaf.account))),
            (Rules::Joiner(own), None) => {
                let others: BTreeSet<_> =
                    members.iter().map(|leaf| leaf.account).filter(|account| *account != own).collect();
                others.into_iter().nth(1).map_or(Ok(()), |third| Err(PolicyError::Account(third)))
            }
            (Rules::Group { .. } | Rules::Joiner(_), Some(data)) => check_declared(members, data),
        }
    }

    /// Judges what becomes of the roles.
    fn check_roles(
        &self,
        by: AccountId,
        before: &GroupData,
        after: &GroupData,
        external: bool,
    ) -> Result<(), PolicyError> {
        let role = before.role(by).ok_or(PolicyError::Account(by))?;
        if self.has_left(by) {
            return Err(PolicyError::Left(by));
        }
        if external && before != after {
            return Err(PolicyError::Forbidden { role, what: "changing a group by joining it" });
        }
        if before.timer_s() != after.timer_s() {
            allow(role >= Role::Admin, role, "setting how long messages are kept")?;
        }
        for (account, new) in after.roles() {
            match before.role(*account) {
                Some(old) if old == *new => {}
                Some(_) if self.has_left(*account) => return Err(PolicyError::Left(*account)),
                Some(_) => allow(role == Role::Owner, role, "giving roles")?,
                None if *new != Role::Member => return Err(PolicyError::ComesWithRole(*account)),
                None => allow(role >= Role::Admin, role, "adding people")?,
            }
        }
        for (account, old) in before.roles().iter().filter(|(account, _)| after.role(**account).is_none()) {
            if self.has_left(*account) {
                continue;
            }
            // Nobody commits the own removal: that is what a statement to leave is for.
            allow(*account != by && may_remove(role, *old), role, "removing this member")?;
        }
        Ok(())
    }

    /// Own devices are everybody's own business, those of others an admin's.
    fn check_added(&self, by: AccountId, data: &GroupData, added: &[Leaf]) -> Result<(), PolicyError> {
        let role = data.role(by).ok_or(PolicyError::Account(by))?;
        added.iter().try_for_each(|leaf| match leaf.account {
            account if self.has_left(account) => Err(PolicyError::Left(account)),
            account => allow(account == by || role >= Role::Admin, role, "adding another's device"),
        })
    }

    /// Who comes in has not seen the statements of those who left before: their leaves go first, or a
    /// newcomer could not tell that removal from one that nobody may make.
    fn check_newcomers(&self, data: &GroupData, after: &[Leaf], added: &[Leaf]) -> Result<(), PolicyError> {
        let lingers = after.iter().find(|leaf| self.has_left(leaf.account));
        let newcomer = added.iter().any(|leaf| data.role(leaf.account).is_none());
        match lingers {
            Some(leaf) if newcomer => Err(PolicyError::Lingers(leaf.account)),
            _ => Ok(()),
        }
    }

    fn is_revoked(&self, leaf: &Leaf) -> bool {
        (self.manifests)(leaf.account).is_some_and(|manifest| {
            manifest.identity_fingerprint() == leaf.identity_fingerprint && manifest.is_revoked(leaf.device)
        })
    }

    fn has_left(&self, account: AccountId) -> bool {
        matches!(self.rules, Rules::Group { left } if left.contains(&account))
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

/// Whether one role may take a member of the other out of a group.
pub fn may_remove(by: Role, member: Role) -> bool {
    by >= Role::Admin && by > member
}

/// Whether the manifest lists exactly this leaf: account, identity, device and key.
pub fn is_listed(manifest: &VerifiedManifest, leaf: &Leaf) -> bool {
    manifest.account() == leaf.account
        && manifest.identity_fingerprint() == leaf.identity_fingerprint
        && manifest.device(leaf.device).is_some_and(|device| device.key == leaf.key)
}

/// A device that (re)joins brings itself and takes nothing but its own old leaf.
fn check_external(committer: &Leaf, added: &[Leaf], removed: &[Leaf]) -> Result<(), PolicyError> {
    if added != [*committer] {
        return Err(PolicyError::JoinerAdds(committer.device));
    }
    // OpenMLS removes by key; the same device under another key would be a second leaf.
    let own = |leaf: &Leaf| leaf.device == committer.device && leaf.account == committer.account;
    if removed.iter().all(own) { Ok(()) } else { Err(PolicyError::JoinerRemoves(committer.device)) }
}

fn allow(allowed: bool, role: Role, what: &'static str) -> Result<(), PolicyError> {
    if allowed { Ok(()) } else { Err(PolicyError::Forbidden { role, what }) }
}

/// The accounts that are declared are those that have devices.
fn check_declared(members: &[Leaf], data: &GroupData) -> Result<(), PolicyError> {
    let present: BTreeSet<AccountId> = members.iter().map(|leaf| leaf.account).collect();
    let declared: BTreeSet<AccountId> = data.roles().keys().copied().collect();
    present
        .symmetric_difference(&declared)
        .next()
        .map_or(Ok(()), |account| Err(PolicyError::Undeclared(*account)))
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

//! What a commit does to a group, reduced to what the rules look at.
//!
//! Gateway and client both read it from OpenMLS's staged commit, so that they judge the same thing.

use crate::{
    group_data::{GroupData, GroupDataError},
    leaf::{Leaf, LeafError},
};
use openmls::prelude::{LeafNodeIndex, Member, Proposal, Sender, StagedCommit};

/// What a commit does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Who made it. For an external commit the leaf that it brings.
    pub committer: Leaf,
    /// A device (re)joined by itself. It is then in `added`, and its old leaf, if any, in `removed`.
    pub external: bool,
    /// New leaves.
    pub added: Vec<Leaf>,
    /// Leaves that go.
    pub removed: Vec<Leaf>,
    /// What the group declares from now on, if that changes.
    pub data: Option<GroupData>,
}

/// Why a commit's effect is refused before any rule is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// See the source.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The sender is no member and no joiner.
    #[error("the commit's sender is neither a member nor a device that joins")]
    Sender,
    /// The commit removes a leaf that is not there.
    #[error("the commit removes a leaf that is not there")]
    Removed,
    /// Only additions, removals and roles are known; anything else is refused until it has rules.
    #[error("the commit contains a proposal that is not allowed: {0}")]
    Proposal(String),
    /// The committer's leaf changed its credential or signature key.
    #[error("the commit changes its sender's credential")]
    Credential,
    /// An external commit without a leaf.
    #[error("the commit brings no leaf")]
    NoLeaf,
    /// See the source.
    #[error(transparent)]
    Data(#[from] GroupDataError),
}

/// The members as the rules see them.
pub fn leaves(members: impl Iterator<Item = Member>) -> Result<Vec<Leaf>, LeafError> {
    members.map(|member| Leaf::from_member(&member)).collect()
}

impl Change {
    /// Reads what `staged` does to the group that has `members`.
    pub fn read(members: &[Member], sender: &Sender, staged: &StagedCommit) -> Result<Self, ChangeError> {
        let path = staged.update_path_leaf_node().map(Leaf::from_node).transpose()?;
        let (committer, external) = match sender {
            Sender::Member(index) => (leaf_at(members, *index)?.ok_or(ChangeError::Sender)?, false),
            Sender::NewMemberCommit => (path.ok_or(ChangeError::NoLeaf)?, true),
            _ => return Err(ChangeError::Sender),
        };
        if path.is_some_and(|leaf| leaf != committer) {
            return Err(ChangeError::Credential);
        }
        let mut added = if external { vec![committer] } else { Vec::new() };
        let (mut removed, mut data) = (Vec::new(), None);
        for queued in staged.queued_proposals() {
            match queued.proposal() {
                Proposal::Add(add) => added.push(Leaf::from_node(add.key_package().leaf_node())?),
                Proposal::Remove(remove) => {
                    removed.push(leaf_at(members, remove.removed())?.ok_or(ChangeError::Removed)?);
                }
                Proposal::GroupContextExtensions(proposal) if !external => {
                    let declared = GroupData::from_extensions(proposal.extensions())?;
                    data = Some(declared.ok_or(GroupDataError::Extensions)?);
                }
                Proposal::ExternalInit(_) if external => {}
                other => return Err(ChangeError::Proposal(format!("{:?}", other.proposal_type()))),
            }
        }
        Ok(Self { committer, external, added, removed, data })
    }

    /// Whether leaves come or go, so that messages of older epochs may no longer be accepted.
    pub fn moves_leaves(&self) -> bool {
        !(self.added.is_empty() && self.removed.is_empty())
    }
}

fn leaf_at(members: &[Member], index: LeafNodeIndex) -> Result<Option<Leaf>, LeafError> {
    members.iter().find(|member| member.index == index).map(Leaf::from_member).transpose()
}

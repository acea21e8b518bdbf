//! The public half of a group, as the gateway keeps it.
//!
//! - [`PublicState::found`] begins to follow a conversation, [`PublicState::found_next`] the next
//!   generation of a group.
//! - [`PublicState::apply_commit`] judges a commit and goes one epoch on; on an error nothing moves,
//!   because the state is passed by value and stored only after the whole transaction.
//! - [`PublicState::to_bytes`] and [`PublicState::from_bytes`] are for the gateway's own storage:
//!   bytes from elsewhere must come through `found`.

mod info;
mod storage;

use crate::{
    change::{Change, ChangeError, leaves},
    group_data::{GroupData, GroupDataError},
    header::{self, Kind},
    leaf::{Leaf, LeafError},
    policy::{Policy, PolicyError},
    suite::{Suite, TooManyDevices, UnknownSuite},
};
use fastchat_protocol::{AccountId, ConversationId, DeviceId, Epoch, codec::DecodeError};
use openmls::prelude::tls_codec::Serialize as _;
use openmls::prelude::{
    DeserializeBytes, LeafNodeIndex, MlsMessageBodyIn, MlsMessageIn, ProcessedMessageContent, ProposalStore,
    ProtocolMessage, PublicGroup, RatchetTreeIn, Sender, StagedCommit,
};
use openmls_rust_crypto::RustCrypto;
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, fmt};
use storage::Slots;

pub use info::InfoError;
pub use storage::StorageError;

/// The public state of a conversation's newest epoch.
pub struct PublicState {
    group: PublicGroup,
    /// Invariant: holds what `group` is; OpenMLS writes it with every step.
    slots: Slots,
    suite: Suite,
    conversation: ConversationId,
    generation: u32,
}

/// A commit whose signatures are verified, and which no rule has judged yet.
pub struct ReadCommit {
    state: PublicState,
    sender: Sender,
    staged: StagedCommit,
    before: Vec<Leaf>,
    change: Change,
}

/// What an accepted commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitSummary {
    /// The epoch that it made.
    pub epoch: Epoch,
    /// A device (re)joined by itself; it is in `added`, and its old leaf, if any, in `removed`.
    pub external: bool,
    /// Who made it.
    pub committer: Leaf,
    /// New leaves, with their accounts.
    pub added: Vec<Leaf>,
    /// Leaves that went.
    pub removed: Vec<Leaf>,
    /// What the group declared before and declares now, if that changed.
    pub data: Option<(GroupData, GroupData)>,
}

impl CommitSummary {
    /// What `change` did to a group that declared `data`, and that is in `epoch` now.
    pub fn new(epoch: Epoch, data: Option<GroupData>, change: Change) -> Self {
        let Change { committer, external, added, removed, data: new } = change;
        let data = data.zip(new).filter(|(before, after)| before != after);
        Self { epoch, external, committer, added, removed, data }
    }

    /// Whether leaves came or went: older epochs' messages must then be refused.
    pub fn moves_leaves(&self) -> bool {
        !(self.added.is_empty() && self.removed.is_empty())
    }
}

/// Why a conversation cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// Not an MLS GroupInfo.
    #[error("the group information cannot be read")]
    GroupInfo,
    /// Not an MLS ratchet tree.
    #[error("the ratchet tree cannot be read")]
    Tree,
    /// OpenMLS refuses the pair: a signature, a hash or a leaf is wrong.
    #[error("group information and tree do not make a group: {0}")]
    Invalid(String),
    /// See the source.
    #[error(transparent)]
    Suite(#[from] UnknownSuite),
    /// The group id is not a conversation's.
    #[error("the MLS group id is not a conversation's")]
    GroupId,
    /// A new conversation begins with generation 0, and a next generation is one more.
    #[error("generation {0} of the group cannot be founded now")]
    Generation(u32),
    /// The next generation of another conversation.
    #[error("the next generation belongs to another conversation")]
    Conversation,
    /// Only a group has generations.
    #[error("a direct conversation has no next generation")]
    Direct,
    /// See the source.
    #[error(transparent)]
    Data(#[from] GroupDataError),
    /// See the source.
    #[error(transparent)]
    Size(#[from] TooManyDevices),
    /// See the source.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// See the source.
    #[error(transparent)]
    Info(#[from] InfoError),
    /// The founder is not a member.
    #[error("device {0} does not belong to the group that it founds")]
    Founder(DeviceId),
    /// See the source.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Why a commit is refused.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Not a commit in a PublicMessage.
    #[error("not a commit")]
    NotACommit,
    /// Made in another epoch: the client rebases and tries again.
    #[error("the commit was made in epoch {made:?}, the conversation is in {current:?}")]
    Epoch {
        /// Where it was made.
        made: Epoch,
        /// Where the conversation is.
        current: Epoch,
    },
    /// Of another conversation.
    #[error("the commit belongs to another conversation")]
    Conversation,
    /// OpenMLS refuses it.
    #[error("the commit is not valid: {0}")]
    Invalid(String),
    /// See the source.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The leaf that commits is not the device that sends.
    #[error("device {sender} sent a commit of device {committer}")]
    Committer {
        /// The authenticated device.
        sender: DeviceId,
        /// The device whose leaf commits.
        committer: DeviceId,
    },
    /// See the source.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// See the source.
    #[error(transparent)]
    Info(#[from] InfoError),
    /// See the source.
    #[error(transparent)]
    Size(#[from] TooManyDevices),
}

/// The gateway's own copy of a public state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// See the source.
    #[error("the stored group state cannot be read")]
    Decode(#[from] DecodeError),
    /// See the source.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A part is missing.
    #[error("the stored group state is not whole")]
    Incomplete,
    /// See the source.
    #[error(transparent)]
    Suite(#[from] UnknownSuite),
}

/// SHA-256 of a tree's bytes: the name under which a joiner asks for it.
pub fn tree_hash(tree: &[u8]) -> [u8; 32] {
    Sha256::digest(tree).into()
}

impl PublicState {
    /// Begins to follow a new conversation: the tree fits the GroupInfo, the founder is a member, has
    /// signed it and owns it if it is a group, every leaf passes the policy.
    pub fn found(
        group_info: &[u8],
        tree: &[u8],
        founder: DeviceId,
        policy: &Policy<'_>,
    ) -> Result<Self, FoundError> {
        let (state, by) = Self::read(group_info, tree, founder, policy)?;
        if state.generation != 0 {
            return Err(FoundError::Generation(state.generation));
        }
        policy.check_founding(by.account, state.data().as_ref())?;
        Ok(state)
    }

    /// Begins to follow the next generation of a group, which takes this state's place: as
    /// [`found`](Self::found), judged by the members and roles of the epoch that it replaces.
    ///
    /// In a store that was restored from a backup, a conversation (of two as well) goes on in a
    /// generation with the number of the `incarnation`: no device has keys of a later one.
    pub fn found_next(
        &self,
        group_info: &[u8],
        tree: &[u8],
        founder: DeviceId,
        incarnation: u32,
        policy: &Policy<'_>,
    ) -> Result<Self, FoundError> {
        let (next, by) = Self::read(group_info, tree, founder, policy)?;
        if next.conversation != self.conversation {
            return Err(FoundError::Conversation);
        }
        let restored = self.generation < incarnation && next.generation == incarnation;
        if !restored && self.generation.checked_add(1) != Some(next.generation) {
            return Err(FoundError::Generation(next.generation));
        }
        let (Some(data), Some(next_data)) = (self.data(), next.data()) else {
            if !restored {
                return Err(FoundError::Direct);
            }
            policy.check_successor(
                (&self.members(), self.data().as_ref()),
                (&next.members(), next.data().as_ref()),
                &by,
            )?;
            return Ok(next);
        };
        policy.check_generation((&self.members(), &data), (&next.members(), &next_data), &by)?;
        Ok(next)
    }

    /// A state that is right in itself, and who founded it.
    fn read(
        group_info: &[u8],
        tree: &[u8],
        founder: DeviceId,
        policy: &Policy<'_>,
    ) -> Result<(Self, Leaf), FoundError> {
        let crypto = RustCrypto::default();
        let info = info::read(group_info).map_err(|_| FoundError::GroupInfo)?;
        let tree = RatchetTreeIn::tls_deserialize_exact_bytes(tree).map_err(|_| FoundError::Tree)?;
        let suite = Suite::try_from(info.ciphersuite())?;
        let (conversation, generation) =
            header::parse_group_id(info.group_id().as_slice()).ok_or(FoundError::GroupId)?;
        let data = GroupData::from_extensions(info.group_context().extensions())?;
        let slots = Slots::default();
        let (group, _) = PublicGroup::from_external(&crypto, &slots, tree, info, ProposalStore::new())
            .map_err(|e| FoundError::Invalid(e.to_string()))?;
        let state = Self { group, slots, suite, conversation, generation };
        let members = leaves(state.group.members())?;
        let by = members.iter().find(|leaf| leaf.device == founder).copied();
        let by = by.ok_or(FoundError::Founder(founder))?;
        let index = state.index_of(founder).ok_or(FoundError::Founder(founder))?;
        info::check(&crypto, &state.group, group_info, index)?;
        suite.check_devices(members.len())?;
        policy.check_members(&members, data.as_ref())?;
        Ok((state, by))
    }

    /// Reads the gateway's own storage.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        let (slots, conversation, generation) = Slots::read(bytes)?;
        let group = PublicGroup::load(&slots, &header::group_id(conversation, generation))?;
        let group = group.ok_or(StateError::Incomplete)?;
        let suite = Suite::try_from(group.ciphersuite())?;
        Ok(Self { group, slots, suite, conversation, generation })
    }

    /// Writes for the gateway's own storage.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.slots.write(self.conversation, self.generation)
    }

    /// Which conversation this is.
    pub fn conversation(&self) -> ConversationId {
        self.conversation
    }

    /// The newest epoch.
    pub fn epoch(&self) -> Epoch {
        Epoch { generation: self.generation, number: self.group.group_context().epoch().as_u64() }
    }

    /// The suite.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The member devices. Leaves that are no longer readable cannot be in a state that was checked.
    pub fn members(&self) -> Vec<Leaf> {
        self.group.members().filter_map(|member| Leaf::from_member(&member).ok()).collect()
    }

    /// What the group declares; `None` for a direct conversation. What is not readable cannot be in a
    /// state that was checked.
    pub fn data(&self) -> Option<GroupData> {
        GroupData::from_extensions(self.group.group_context().extensions()).ok().flatten()
    }

    /// The ratchet tree in MLS's encoding, for joiners. Name it by [`tree_hash`].
    pub fn tree_bytes(&self) -> Vec<u8> {
        // Limit: a tree of more than 2^30 bytes could not be encoded, and would not fit a frame.
        self.group.export_ratchet_tree().tls_serialize_detached().unwrap_or_default()
    }

    /// Judges a commit and the GroupInfo that comes with it, and goes one epoch on.
    ///
    /// `committer` is the device that the session authenticated.
    pub fn apply_commit(
        self,
        commit: &[u8],
        group_info: &[u8],
        committer: DeviceId,
        policy: &Policy<'_>,
    ) -> Result<(Self, CommitSummary), CommitError> {
        self.read_commit(commit, committer)?.apply(group_info, policy)
    }

    /// Reads a commit and verifies its signatures, without judging it yet: what it does says whose
    /// manifests the rules will ask for.
    pub fn read_commit(self, commit: &[u8], committer: DeviceId) -> Result<ReadCommit, CommitError> {
        let (sender, staged) = self.stage(&RustCrypto::default(), commit)?;
        let members: Vec<_> = self.group.members().collect();
        let change = Change::read(&members, &sender, &staged)?;
        if change.committer.device != committer {
            return Err(CommitError::Committer { sender: committer, committer: change.committer.device });
        }
        let before = leaves(members.into_iter()).map_err(ChangeError::from)?;
        Ok(ReadCommit { state: self, sender, staged, before, change })
    }

    fn stage(&self, crypto: &RustCrypto, commit: &[u8]) -> Result<(Sender, StagedCommit), CommitError> {
        let seen = header::peek(commit).map_err(|_| CommitError::NotACommit)?;
        if seen.kind == Kind::Application {
            return Err(CommitError::NotACommit);
        }
        if seen.conversation != self.conversation {
            return Err(CommitError::Conversation);
        }
        if seen.epoch != self.epoch() {
            return Err(CommitError::Epoch { made: seen.epoch, current: self.epoch() });
        }
        let message =
            MlsMessageIn::tls_deserialize_exact_bytes(commit).map_err(|_| CommitError::NotACommit)?;
        let MlsMessageBodyIn::PublicMessage(message) = message.extract() else {
            return Err(CommitError::NotACommit);
        };
        let processed = self
            .group
            .process_message(crypto, ProtocolMessage::from(message))
            .map_err(|e| CommitError::Invalid(e.to_string()))?;
        let sender = processed.sender().clone();
        match processed.into_content() {
            ProcessedMessageContent::StagedCommitMessage(staged) => Ok((sender, *staged)),
            _ => Err(CommitError::NotACommit),
        }
    }

    fn index_of(&self, device: DeviceId) -> Option<LeafNodeIndex> {
        self.group
            .members()
            .find(|member| Leaf::from_member(member).is_ok_and(|leaf| leaf.device == device))
            .map(|member| member.index)
    }
}

impl ReadCommit {
    /// What it does.
    pub fn change(&self) -> &Change {
        &self.change
    }

    /// The accounts whose manifests [`apply`](Self::apply) asks for: of those who come in, and of those
    /// that lose some of their devices by somebody else.
    pub fn judged(&self) -> BTreeSet<AccountId> {
        let Change { committer, added, removed, .. } = &self.change;
        let stays = |leaf: &Leaf| {
            self.before.iter().any(|other| other.account == leaf.account && !removed.contains(other))
        };
        let by_others = removed.iter().filter(|leaf| leaf.account != committer.account);
        let direct = self.state.data().is_none();
        added.iter().chain(by_others.filter(|leaf| direct || stays(leaf))).map(|leaf| leaf.account).collect()
    }

    /// Judges it and the GroupInfo that comes with it, and goes one epoch on.
    pub fn apply(
        self,
        group_info: &[u8],
        policy: &Policy<'_>,
    ) -> Result<(PublicState, CommitSummary), CommitError> {
        let Self { mut state, sender, staged, before, change } = self;
        let data = state.data();
        policy.check_commit(&before, data.as_ref(), &change)?;
        let invalid = |e: &dyn fmt::Display| CommitError::Invalid(e.to_string());
        let index = match sender {
            Sender::Member(index) => index,
            _ => state.group.ext_commit_sender_index(&staged).map_err(|e| invalid(&e))?,
        };
        state.group.merge_commit(&state.slots, staged).map_err(|e| invalid(&e))?;
        info::check(&RustCrypto::default(), &state.group, group_info, index)?;
        state.suite.check_devices(state.group.members().count())?;
        let summary = CommitSummary::new(state.epoch(), data, change);
        Ok((state, summary))
    }
}

/// What a GroupInfo says of itself, not verified: where it belongs, and the accounts that it declares
/// (none in a direct conversation). Good for knowing which manifests [`PublicState::found`] will ask for.
pub fn declared(group_info: &[u8]) -> Result<(ConversationId, Option<GroupData>), FoundError> {
    let info = info::read(group_info).map_err(|_| FoundError::GroupInfo)?;
    let (conversation, _) = header::parse_group_id(info.group_id().as_slice()).ok_or(FoundError::GroupId)?;
    Ok((conversation, GroupData::from_extensions(info.group_context().extensions())?))
}

impl fmt::Debug for ReadCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadCommit").field("change", &self.change).finish_non_exhaustive()
    }
}

impl fmt::Debug for PublicState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicState")
            .field("conversation", &self.conversation)
            .field("epoch", &self.epoch())
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

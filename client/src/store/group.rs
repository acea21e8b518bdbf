//! What a device keeps of a group besides its keys, and what is wanted of its members.

use fastchat_delivery::Rules;
use fastchat_protocol::{AccountId, Bytes, Epoch, Role, Seq};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Between whom a conversation is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Party {
    /// With this account; the own one in a conversation with oneself.
    Direct(AccountId),
    /// A group.
    Group(Box<GroupRecord>),
}

/// A group as this device sees it. Who its members are, its keys say; what is here is for display,
/// for judging leavers, and for what has to be told again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// As the last profile said; empty before the first.
    pub name: String,
    /// As the last profile said.
    #[serde(default)]
    pub picture: Option<StoredPicture>,
    /// Who sent that profile.
    #[serde(default)]
    pub profile_from: Option<AccountId>,
    /// Devices came in that have not heard the profile: whoever may, says it again.
    #[serde(default)]
    pub profile_due: bool,
    /// The members and their roles when last seen.
    #[serde(default)]
    pub roles: BTreeMap<AccountId, Role>,
    /// Accounts that have left and whose leaves are still there.
    #[serde(default)]
    pub left: BTreeSet<AccountId>,
    /// The last epoch that a change of leaves has made: older statements to leave are void.
    #[serde(default)]
    pub fence: Epoch,
    /// Who let this account in.
    #[serde(default)]
    pub invited_by: Option<AccountId>,
    /// Who came in while this device was here, the last at the end, at most [`MAX_CAME`]: what is handed
    /// to them is from before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub came: Vec<Came>,
    /// The row that let this device in: what is handed to it is from before.
    #[serde(default)]
    pub joined: Option<(u32, Seq)>,
    /// How often history was handed to this device since.
    #[serde(default)]
    pub taken: u32,
}

/// Limit: accounts of which a device remembers when they came into a group.
const MAX_CAME: usize = 64;

/// An account that came into a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Came {
    /// Which.
    pub account: AccountId,
    /// The incarnation of the log.
    pub incarnation: u32,
    /// The row that let it in.
    pub seq: Seq,
}

/// A group's picture.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPicture {
    /// What kind of picture.
    pub mime: String,
    /// Its bytes.
    pub bytes: Bytes,
}

/// What somebody wants to change about the members of a conversation. It is kept until it is done or
/// impossible: the loser of a race makes its commit anew from this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberChange {
    /// These accounts come in, with all their devices.
    Add {
        /// They.
        accounts: Vec<AccountId>,
        /// The suite may go classical where the group outgrows the post-quantum one.
        leave_post_quantum: bool,
        /// So many of the last messages are handed to them; 0: none.
        #[serde(default)]
        history: u32,
    },
    /// These accounts go.
    Remove(Vec<AccountId>),
    /// The account gets this role: member or admin.
    Role(AccountId, Role),
    /// The account owns the group from now on; the owner gets this role.
    Transfer(AccountId, Role),
    /// Leaves go that no manifest lists any more, or whose account has left.
    Evict,
    /// This account goes, by its own statement.
    Leave,
    /// Messages are kept for so many seconds from now on; 0: they stay.
    Timer(u32),
}

impl GroupRecord {
    /// Notes who came in by a row.
    pub fn note_came(&mut self, accounts: impl Iterator<Item = AccountId>, (incarnation, seq): (u32, Seq)) {
        for account in accounts {
            self.came.retain(|came| came.account != account);
            self.came.push(Came { account, incarnation, seq });
        }
        let over = self.came.len().saturating_sub(MAX_CAME);
        self.came.drain(..over);
    }

    /// The row that let an account in, if this device was here.
    pub fn came(&self, account: AccountId) -> Option<(u32, Seq)> {
        self.came.iter().find(|came| came.account == account).map(|came| (came.incarnation, came.seq))
    }
}

impl Party {
    /// The rules by which changes are judged.
    pub fn rules(&self, own: AccountId) -> Rules<'_> {
        match self {
            Self::Direct(peer) => Rules::Direct([own, *peer]),
            Self::Group(group) => Rules::Group { left: &group.left },
        }
    }
}

impl fmt::Debug for StoredPicture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredPicture({}, {} bytes)", self.mime, self.bytes.len())
    }
}

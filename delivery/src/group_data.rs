//! What a group declares of itself: its members' roles, in an extension of the MLS group context.
//!
//! Every member signs and confirms the group context with each commit, so that a gateway can neither
//! add an account nor change a role. It is readable by the gateway, which applies the same rules;
//! names and pictures of groups are sealed and not here. A direct conversation has no such extension.

use fastchat_protocol::{AccountId, Role, codec, limits};
use openmls::prelude::{
    Extension, ExtensionType, Extensions, GroupContext, RequiredCapabilitiesExtension, UnknownExtension,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The extension's type, of the range for private use (RFC 9420, section 17.3).
pub const EXTENSION: u16 = 0xF0FC;
const FORMAT: u8 = 1;

/// Members and roles. Invariant: exactly one owner, and at most [`limits::MAX_MEMBERS`] accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupData {
    roles: BTreeMap<AccountId, Role>,
}

/// Roles that no group can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupDataError {
    /// Not the expected CBOR.
    #[error("the group's members and roles cannot be read")]
    Malformed,
    /// None, or several.
    #[error("a group has one owner, not {0}")]
    Owners(usize),
    /// An account twice, or not in order.
    #[error("the group's members are not in order")]
    Order,
    /// See [`limits::MAX_MEMBERS`].
    #[error("a group has at most {max} accounts, not {0}", max = limits::MAX_MEMBERS)]
    TooMany(usize),
    /// Another extension, or ours without being required.
    #[error("the group has extensions that are not allowed")]
    Extensions,
}

#[derive(Serialize, Deserialize)]
struct Body {
    #[serde(rename = "v")]
    format: u8,
    #[serde(rename = "r")]
    roles: Vec<(AccountId, Role)>,
}

impl GroupData {
    /// Checks what a group must be.
    pub fn new(roles: BTreeMap<AccountId, Role>) -> Result<Self, GroupDataError> {
        let owners = roles.values().filter(|role| **role == Role::Owner).count();
        match (owners, roles.len()) {
            (_, members) if members > limits::MAX_MEMBERS => Err(GroupDataError::TooMany(members)),
            (1, _) => Ok(Self { roles }),
            (owners, _) => Err(GroupDataError::Owners(owners)),
        }
    }

    /// The role of an account, if it is a member.
    pub fn role(&self, account: AccountId) -> Option<Role> {
        self.roles.get(&account).copied()
    }

    /// Members and their roles, in the order of ids.
    pub fn roles(&self) -> &BTreeMap<AccountId, Role> {
        &self.roles
    }

    /// The one owner.
    pub fn owner(&self) -> Option<AccountId> {
        self.roles.iter().find(|(_, role)| **role == Role::Owner).map(|(account, _)| *account)
    }

    /// The same group with another role for an account: `None` takes it out.
    pub fn with(&self, account: AccountId, role: Option<Role>) -> Result<Self, GroupDataError> {
        let mut roles = self.roles.clone();
        match role {
            Some(role) => drop(roles.insert(account, role)),
            None => drop(roles.remove(&account)),
        }
        Self::new(roles)
    }

    /// The bytes inside the extension.
    pub fn encode(&self) -> Vec<u8> {
        let roles = self.roles.iter().map(|(account, role)| (*account, *role)).collect();
        codec::encode(&Body { format: FORMAT, roles })
    }

    /// Reads the bytes inside the extension. There is one spelling of a group.
    pub fn decode(bytes: &[u8]) -> Result<Self, GroupDataError> {
        let Body { format, roles } = codec::decode(bytes).map_err(|_| GroupDataError::Malformed)?;
        if format != FORMAT {
            return Err(GroupDataError::Malformed);
        }
        if !roles.is_sorted_by(|(one, _), (next, _)| one < next) {
            return Err(GroupDataError::Order);
        }
        Self::new(roles.into_iter().collect())
    }

    /// As the extensions of a group context.
    pub fn to_extensions(&self) -> Extensions<GroupContext> {
        let ours = ExtensionType::Unknown(EXTENSION);
        let required = RequiredCapabilitiesExtension::new(&[ours], &[], &[]);
        // Neither is of a kind that a group context may not have, and none is there twice.
        Extensions::from_vec(vec![
            Extension::RequiredCapabilities(required),
            Extension::Unknown(EXTENSION, UnknownExtension(self.encode())),
        ])
        .unwrap_or_default()
    }

    /// Reads the extensions of a group context: none at all is a direct conversation.
    pub fn from_extensions(extensions: &Extensions<GroupContext>) -> Result<Option<Self>, GroupDataError> {
        if extensions.iter().next().is_none() {
            return Ok(None);
        }
        let bytes = &extensions.unknown(EXTENSION).ok_or(GroupDataError::Extensions)?.0;
        let data = Self::decode(bytes)?;
        // One spelling, and nothing beside it.
        match data.to_extensions() == *extensions {
            true => Ok(Some(data)),
            false => Err(GroupDataError::Extensions),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(n: u8) -> AccountId {
        AccountId::new([n; 16])
    }

    fn example() -> GroupData {
        GroupData::new([(account(2), Role::Owner), (account(1), Role::Member)].into()).unwrap()
    }

    #[test]
    fn golden_bytes() {
        let mut want = vec![0xa2, 0x61, b'v', 1, 0x61, b'r', 0x82, 0x82, 0x50];
        want.extend([1; 16]);
        want.extend([1, 0x82, 0x50]);
        want.extend([2; 16]);
        want.push(3);
        assert_eq!(example().encode(), want);
        assert_eq!(GroupData::decode(&want), Ok(example()));
        let reference: serde_cbor::Value = serde_cbor::from_slice(&want).unwrap();
        assert!(matches!(reference, serde_cbor::Value::Map(map) if map.len() == 2));
    }

    #[test]
    fn there_is_one_spelling_of_a_group() {
        let spelled = |roles: Vec<(AccountId, Role)>| {
            GroupData::decode(&codec::encode(&Body { format: FORMAT, roles }))
        };
        let (owner, member) = ((account(1), Role::Owner), (account(2), Role::Member));
        assert!(spelled(vec![owner, member]).is_ok());
        assert_eq!(spelled(vec![member, owner]), Err(GroupDataError::Order));
        assert_eq!(spelled(vec![owner, owner]), Err(GroupDataError::Order));
        assert_eq!(spelled(vec![member]), Err(GroupDataError::Owners(0)));
        assert_eq!(spelled(vec![owner, (account(2), Role::Owner)]), Err(GroupDataError::Owners(2)));
        assert_eq!(example().with(account(2), None), Err(GroupDataError::Owners(0)));
        assert_eq!(example().with(account(1), None).unwrap().roles().len(), 1);
    }

    #[test]
    fn extensions_are_ours_alone_or_none() {
        let extensions = example().to_extensions();
        assert_eq!(extensions.iter().count(), 2);
        assert_eq!(GroupData::from_extensions(&extensions), Ok(Some(example())));
        assert_eq!(GroupData::from_extensions(&Extensions::empty()), Ok(None));
        let unknown = |kind, bytes| Extension::Unknown(kind, UnknownExtension(bytes));
        let bare = Extensions::single(unknown(EXTENSION, example().encode())).unwrap();
        assert_eq!(GroupData::from_extensions(&bare), Err(GroupDataError::Extensions));
        let other = Extensions::single(unknown(0xF0FD, Vec::new())).unwrap();
        assert_eq!(GroupData::from_extensions(&other), Err(GroupDataError::Extensions));
    }
}

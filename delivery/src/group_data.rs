//! What a group declares of itself: its members' roles and how long messages are kept, in an extension of
//! the MLS group context.
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
/// Limit: seconds for which a timer keeps messages, a year.
pub const MAX_TIMER: u32 = 366 * 24 * 3600;

/// Members and roles. Invariant: exactly one owner, and at most [`limits::MAX_MEMBERS`] accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupData {
    roles: BTreeMap<AccountId, Role>,
    /// 0: messages stay.
    timer_s: u32,
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
    /// See [`MAX_TIMER`].
    #[error("messages are kept for 1 second to {MAX_TIMER} seconds, not {0}")]
    Timer(u32),
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
    /// Absent: messages stay.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    timer_s: Option<u32>,
}

impl GroupData {
    /// Checks what a group must be.
    pub fn new(roles: BTreeMap<AccountId, Role>) -> Result<Self, GroupDataError> {
        let owners = roles.values().filter(|role| **role == Role::Owner).count();
        match (owners, roles.len()) {
            (_, members) if members > limits::MAX_MEMBERS => Err(GroupDataError::TooMany(members)),
            (1, _) => Ok(Self { roles, timer_s: 0 }),
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

    /// Seconds for which messages are kept from now on; 0: they stay.
    pub fn timer_s(&self) -> u32 {
        self.timer_s
    }

    /// The same group with another timer; 0 turns it off.
    pub fn with_timer(&self, timer_s: u32) -> Result<Self, GroupDataError> {
        match timer_s > MAX_TIMER {
            true => Err(GroupDataError::Timer(timer_s)),
            false => Ok(Self { timer_s, ..self.clone() }),
        }
    }

    /// The same group with these members.
    pub fn with_roles(&self, roles: BTreeMap<AccountId, Role>) -> Result<Self, GroupDataError> {
        Ok(Self { timer_s: self.timer_s, ..Self::new(roles)? })
    }

    /// The same group with another role for an account: `None` takes it out.
    pub fn with(&self, account: AccountId, role: Option<Role>) -> Result<Self, GroupDataError> {
        let mut roles = self.roles.clone();
        match role {
            Some(role) => drop(roles.insert(account, role)),
            None => drop(roles.remove(&account)),
        }
        self.with_roles(roles)
    }

    /// The bytes inside the extension.
    pub fn encode(&self) -> Vec<u8> {
        let roles = self.roles.iter().map(|(account, role)| (*account, *role)).collect();
        let timer_s = Some(self.timer_s).filter(|seconds| *seconds > 0);
        codec::encode(&Body { format: FORMAT, roles, timer_s })
    }

    /// Reads the bytes inside the extension. There is one spelling of a group.
    pub fn decode(bytes: &[u8]) -> Result<Self, GroupDataError> {
        let Body { format, roles, timer_s } = codec::decode(bytes).map_err(|_| GroupDataError::Malformed)?;
        if format != FORMAT {
            return Err(GroupDataError::Malformed);
        }
        if !roles.is_sorted_by(|(one, _), (next, _)| one < next) {
            return Err(GroupDataError::Order);
        }
        let data = Self::new(roles.into_iter().collect())?;
        match timer_s {
            None => Ok(data),
            // That it is off has one spelling.
            Some(0) => Err(GroupDataError::Timer(0)),
            Some(seconds) => data.with_timer(seconds),
        }
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
    fn golden_bytes_of_a_timer() {
        let kept = example().with_timer(86_400).unwrap();
        let mut want = example().encode();
        want[0] = 0xa3;
        want.extend([0x61, b't', 0x1a, 0x00, 0x01, 0x51, 0x80]);
        assert_eq!(kept.encode(), want);
        assert_eq!(GroupData::decode(&want), Ok(kept.clone()));
        assert_eq!(GroupData::from_extensions(&kept.to_extensions()), Ok(Some(kept.clone())));
        assert_eq!(kept.with_timer(0).unwrap(), example(), "off is as if it had never been on");
        assert_eq!(kept.with(account(1), None).unwrap().timer_s(), 86_400, "members come and go under it");
        let spelled = |timer_s| {
            let roles = vec![(account(1), Role::Owner)];
            GroupData::decode(&codec::encode(&Body { format: FORMAT, roles, timer_s })).map(|d| d.timer_s())
        };
        assert_eq!(
            (spelled(None), spelled(Some(1)), spelled(Some(MAX_TIMER))),
            (Ok(0), Ok(1), Ok(MAX_TIMER))
        );
        for wrong in [0, MAX_TIMER + 1] {
            assert_eq!(spelled(Some(wrong)), Err(GroupDataError::Timer(wrong)));
        }
        assert!(example().with_timer(MAX_TIMER + 1).is_err());
    }

    #[test]
    fn there_is_one_spelling_of_a_group() {
        let spelled = |roles: Vec<(AccountId, Role)>| {
            GroupData::decode(&codec::encode(&Body { format: FORMAT, roles, timer_s: None }))
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

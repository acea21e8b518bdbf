//! What a member may do in a group.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A member's role in a group; the greater one may do what the lesser one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Role {
    /// Reads and writes, and may leave.
    Member,
    /// Also adds people, removes members, and names the group.
    Admin,
    /// Also removes admins, gives roles, and hands the group over. A group has exactly one.
    Owner,
}

/// Not the number of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not the number of a role")]
pub struct UnknownRole(pub u8);

impl TryFrom<u8> for Role {
    type Error = UnknownRole;

    fn try_from(number: u8) -> Result<Self, UnknownRole> {
        match number {
            1 => Ok(Self::Member),
            2 => Ok(Self::Admin),
            3 => Ok(Self::Owner),
            other => Err(UnknownRole(other)),
        }
    }
}

impl From<Role> for u8 {
    fn from(role: Role) -> Self {
        match role {
            Role::Member => 1,
            Role::Admin => 2,
            Role::Owner => 3,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        })
    }
}

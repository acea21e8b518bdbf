//! The two cipher suites that FastChat speaks.

use fastchat_protocol::limits;
use openmls::prelude::Ciphersuite;

/// An MLS cipher suite. It is stored with the conversation and never changes in silence.
///
/// The post-quantum code point is provisional (draft-ietf-mls-pq-ciphersuites): assume no interop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Suite {
    /// `MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519`: the default, up to 64 devices.
    #[default]
    PostQuantum,
    /// `MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519`: for larger groups.
    Classic,
}

/// A code point that this build does not speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cipher suite {0:#06x} is not spoken here")]
pub struct UnknownSuite(pub u16);

/// More devices than a suite carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a conversation with {suite} has at most {max} devices, not {devices}", max = suite.max_devices())]
pub struct TooManyDevices {
    /// The conversation's suite.
    pub suite: Suite,
    /// How many there would be.
    pub devices: usize,
}

impl Suite {
    /// Member devices that a conversation of this suite may have.
    pub const fn max_devices(self) -> usize {
        match self {
            Self::PostQuantum => limits::MAX_PQ_DEVICES,
            Self::Classic => limits::MAX_GROUP_DEVICES,
        }
    }

    /// Checks [`max_devices`](Self::max_devices).
    pub const fn check_devices(self, devices: usize) -> Result<(), TooManyDevices> {
        if devices <= self.max_devices() { Ok(()) } else { Err(TooManyDevices { suite: self, devices }) }
    }

    /// All suites, the preferred one first.
    pub const ALL: [Self; 2] = [Self::PostQuantum, Self::Classic];

    /// The MLS code point, as it travels in frames.
    pub const fn code(self) -> u16 {
        match self {
            Self::PostQuantum => 0x004E,
            Self::Classic => 0x0001,
        }
    }

    /// OpenMLS's name for it.
    pub const fn ciphersuite(self) -> Ciphersuite {
        match self {
            Self::PostQuantum => Ciphersuite::MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519,
            Self::Classic => Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
        }
    }
}

impl TryFrom<u16> for Suite {
    type Error = UnknownSuite;

    fn try_from(code: u16) -> Result<Self, UnknownSuite> {
        Self::ALL.into_iter().find(|suite| suite.code() == code).ok_or(UnknownSuite(code))
    }
}

impl TryFrom<Ciphersuite> for Suite {
    type Error = UnknownSuite;

    fn try_from(suite: Ciphersuite) -> Result<Self, UnknownSuite> {
        Self::try_from(u16::from(suite))
    }
}

impl From<Suite> for u16 {
    fn from(suite: Suite) -> Self {
        suite.code()
    }
}

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PostQuantum => "ML-KEM-768 + X25519, AES-256-GCM",
            Self::Classic => "X25519, AES-128-GCM",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_points_are_those_of_openmls() {
        for suite in Suite::ALL {
            assert_eq!(u16::from(suite.ciphersuite()), suite.code());
            assert_eq!(Suite::try_from(suite.code()), Ok(suite));
        }
        assert_eq!(Suite::try_from(0x004F), Err(UnknownSuite(0x004F)));
    }
}

//! Identifiers and counters. Every one is a newtype, so that an account cannot be passed for a device.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// Not an id: the text or bytes have another length or alphabet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 16 bytes, written as 32 lower-case hexadecimal digits")]
pub struct IdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Wraps 16 bytes that the caller drew at random or read from a store.
            pub const fn new(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                bytes.try_into().map(Self).map_err(|_| IdError)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| IdError)?;
                // Upper case would give one id two spellings.
                if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    return Err(IdError);
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let bytes: serde_bytes::ByteArray<16> = Deserialize::deserialize(deserializer)?;
                Ok(Self(bytes.into_array()))
            }
        }
    };
}

id! {
    /// A person. Chosen at random by the client that registers.
    AccountId
}
id! {
    /// One installation with keys of its own, belonging to one account.
    DeviceId
}
id! {
    /// A thread of two or many, with one log.
    ConversationId
}
id! {
    /// A place where one device of an account leaves something sealed for another.
    SlotId
}
id! {
    /// A file's sealed bytes, kept beside a conversation. Drawn by the client that puts it.
    BlobId
}
id! {
    /// A gateway's process. Drawn at random when it starts.
    GatewayId
}

id! {
    /// A process of the balancer. Drawn when it starts; of several, the lowest asks gateways to shed.
    BalancerId
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Position in a conversation's log: 1..=head without a hole.
    Seq(u64)
}
number! {
    /// A device's own count of what it sent to one conversation: 1, 2, 3, ...
    /// Together with conversation and device it is the client message id.
    Counter(u64)
}
number! {
    /// Matches an answer to its request on one connection; 0 marks a frame that nobody asked for.
    RequestId(u32)
}

impl Seq {
    /// The place after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Counter {
    /// The count after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A conversation's key generation: a conversation that changes its suite goes on in a new
/// generation, whose MLS epochs begin again. Ordered by generation first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// Raised when the conversation is founded anew (another suite, a restored backup).
    #[serde(rename = "g")]
    pub generation: u32,
    /// The MLS epoch (RFC 9420) inside the generation.
    #[serde(rename = "e")]
    pub number: u64,
}

//! How a frame is numbered and laid out: `[number, request, body]`.
//!
//! - `number` says which body follows. Numbers are never used again; retired ones stay listed.
//! - `request` is the client's number of its request and comes back in the answer; 0 means that
//!   nobody asked.
//! - `body` is a map with short keys. Unknown keys are ignored, missing ones take their default, so
//!   that either side may be older.

use crate::{codec, ids::RequestId};

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Well formed, but of a number that this side does not know. It is answered with an error.
    #[error("frame number {number} is not known")]
    Unknown {
        /// The number.
        number: u16,
        /// The request to answer.
        request: RequestId,
    },
    /// Not a frame at all.
    #[error(transparent)]
    Malformed(#[from] codec::DecodeError),
}

/// Declares the frames of one direction: an enum, its numbers, its encoder and decoder.
macro_rules! frames {
    (
        $(#[$doc:meta])*
        pub enum $name:ident {
            $( $(#[$frame_doc:meta])* $number:literal => $frame:ident($body:ty), )+
        }
        retired: [$($retired:literal),*]
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name {
            $( $(#[$frame_doc])* $frame($body), )+
        }

        impl $name {
            /// Every number in use and its frame's name.
            pub const NUMBERS: &'static [(u16, &'static str)] = &[$(($number, stringify!($frame)),)+];
            /// Numbers that had a meaning once and get no other.
            pub const RETIRED: &'static [u16] = &[$($retired),*];

            /// The frame's number.
            pub const fn number(&self) -> u16 {
                match self { $( Self::$frame(_) => $number, )+ }
            }

            /// The frame's name, for logs and metrics.
            pub const fn name(&self) -> &'static str {
                match self { $( Self::$frame(_) => stringify!($frame), )+ }
            }

            /// The frame's bytes, as an answer to `request`.
            pub fn encode(&self, request: $crate::ids::RequestId) -> bytes::Bytes {
                match self {
                    $( Self::$frame(body) => $crate::codec::encode(&($number as u16, request, body)), )+
                }.into()
            }

            /// Reads a frame of this direction.
            pub fn decode(bytes: &[u8]) -> Result<($crate::ids::RequestId, Self), $crate::frame::FrameError> {
                struct Visitor;

                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = (u16, $crate::ids::RequestId, Option<$name>);

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an array of frame number, request and body")
                    }

                    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                        let missing = serde::de::Error::invalid_length;
                        let number: u16 = seq.next_element()?.ok_or_else(|| missing(0, &self))?;
                        let request = seq.next_element()?.ok_or_else(|| missing(1, &self))?;
                        let frame = match number {
                            $( $number => Some($name::$frame(seq.next_element()?.ok_or_else(|| missing(2, &self))?)), )+
                            _ => {
                                seq.next_element::<serde::de::IgnoredAny>()?;
                                None
                            }
                        };
                        Ok((number, request, frame))
                    }
                }

                struct Frame((u16, $crate::ids::RequestId, Option<$name>));

                impl<'de> serde::Deserialize<'de> for Frame {
                    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                        deserializer.deserialize_tuple(3, Visitor).map(Self)
                    }
                }

                let Frame((number, request, frame)) = $crate::codec::decode(bytes)?;
                let frame = frame.ok_or($crate::frame::FrameError::Unknown { number, request })?;
                Ok((request, frame))
            }
        }
    };
}

pub(crate) use frames;

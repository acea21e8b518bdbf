//! What an envelope holds: a CBOR map `{v, k, ...}` in which `k` says the kind.
//!
//! A kind that this build does not know is shown as such, not dropped: an older client says that
//! there was something, and a newer one can read the same bytes again.

use fastchat_protocol::codec;
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;
const TEXT: &str = "text";

/// The content of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// Text as typed. It must pass the client's filter before it meets a terminal.
    Text(String),
    /// A kind of a newer program.
    Unknown {
        /// Its name.
        kind: String,
    },
}

/// The plaintext of an envelope is not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// Not the expected CBOR.
    #[error("the message cannot be read")]
    Decode(#[from] codec::DecodeError),
    /// A text message without text.
    #[error("a message of kind {0} lacks what its kind needs")]
    Incomplete(String),
}

#[derive(Serialize, Deserialize)]
struct Encoded {
    v: u8,
    k: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    t: Option<String>,
}

impl Content {
    /// The plaintext to seal. An unknown kind has no content of its own and is not for sending.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, text) = match self {
            Self::Text(text) => (TEXT, Some(text.clone())),
            Self::Unknown { kind } => (kind.as_str(), None),
        };
        codec::encode(&Encoded { v: VERSION, k: kind.into(), t: text })
    }

    /// Reads an opened plaintext. Unknown kinds and versions are not errors.
    pub fn decode(plaintext: &[u8]) -> Result<Self, ContentError> {
        let Encoded { v, k, t } = codec::decode(plaintext)?;
        if v != VERSION || k != TEXT {
            return Ok(Self::Unknown { kind: k });
        }
        t.map(Self::Text).ok_or(ContentError::Incomplete(k))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_a_text() {
        let bytes = Content::Text("hi".into()).encode();
        assert_eq!(bytes, b"\xa3\x61v\x01\x61k\x64text\x61t\x62hi");
        let reference: std::collections::BTreeMap<String, serde_cbor::Value> =
            serde_cbor::from_slice(&bytes).unwrap();
        assert_eq!(reference["t"], serde_cbor::Value::Text("hi".into()));
        assert_eq!(Content::decode(&bytes).unwrap(), Content::Text("hi".into()));
    }

    #[test]
    fn a_newer_kind_is_named_and_not_an_error() {
        let newer = b"\xa3\x61v\x01\x61k\x65reply\x62of\x07";
        assert_eq!(Content::decode(newer).unwrap(), Content::Unknown { kind: "reply".into() });
        assert!(Content::decode(b"\xa2\x61v\x01\x61k\x64text").is_err());
        assert!(Content::decode(b"hello").is_err());
    }
}

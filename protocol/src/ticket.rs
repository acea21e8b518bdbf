//! The balancer's ticket: it names a gateway and grants admission there, for a short time.
//!
//! It says nothing of who holds it, and proves nothing about them. This is the layout only: balancers
//! sign it, `fastchat-delivery` checks it for gateways, and no key is known here.

use crate::{
    codec::{self, DecodeError},
    ids::GatewayId,
};
use serde::{Deserialize, Serialize};

/// Begins what is signed, so that this signature can be used for nothing else.
const LABEL: &[u8] = b"fastchat/v1/ticket\0";
/// Limit: bytes of a ticket; ours have about 130.
pub const MAX_BYTES: usize = 256;
/// Limit: how far ahead a ticket may expire, in milliseconds. A stolen key does not make eternal ones.
pub const MAX_LIFE_MS: u64 = 10 * 60_000;

/// What a ticket says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Where it is good.
    #[serde(rename = "g")]
    pub gateway: GatewayId,
    /// Until when, in milliseconds since 1970 by the balancer's clock.
    #[serde(rename = "x")]
    pub expires_at_ms: u64,
    /// Random: no two tickets are the same, and a gateway can tell a second use.
    #[serde(rename = "n", with = "serde_bytes")]
    pub nonce: [u8; 16],
}

/// A ticket and its signature, not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed<'a> {
    /// An encoded [`Ticket`]: the signature is over these very bytes.
    #[serde(rename = "b", with = "serde_bytes", borrow)]
    pub body: &'a [u8],
    /// 64 bytes of Ed25519 over [`to_sign`].
    #[serde(rename = "s", with = "serde_bytes", borrow)]
    pub signature: &'a [u8],
}

impl Ticket {
    /// The body.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(body)
    }
}

impl<'a> Signed<'a> {
    /// What travels.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads what travelled.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        match bytes.len() {
            0..=MAX_BYTES => codec::decode(bytes),
            long => Err(DecodeError::Malformed(format!("{long} bytes are no ticket"))),
        }
    }
}

/// The bytes that the balancer signs for a body.
pub fn to_sign(body: &[u8]) -> Vec<u8> {
    [LABEL, body].concat()
}

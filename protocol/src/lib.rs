//! The bytes that FastChat's parts exchange: frames between client and gateway, records on the bus.
//!
//! - [`frame`] numbers every frame; direction is a type: [`ClientFrame`] and [`ServerFrame`].
//! - [`codec`] is the only place where CBOR is read or written.
//! - [`limits`] names every bound, [`error`] every refusal and whether a retry helps.
//! - [`bus`] is what gateways say to each other, [`fleet`] what they tell balancers; they are the only
//!   constructors of subjects. [`ticket`] is what a balancer signs for a client.
//!
//! Nothing here knows a socket, a database or a clock, and nothing here can open an envelope.
//! The format is written down as CDDL in docs/protocol.md; tests/vectors holds annotated bytes.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod bus;
pub mod challenge;
pub mod client;
pub mod codec;
pub mod error;
pub mod fleet;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod name;
pub mod role;
pub mod server;
pub mod ticket;

pub use bytes::Bytes;
pub use client::ClientFrame;
pub use error::{Code, Refusal, Retry};
pub use ids::{
    AccountId, BalancerId, BlobId, ConversationId, Counter, DeviceId, Epoch, GatewayId, RequestId, Seq,
    SlotId,
};
pub use name::AccountName;
pub use role::Role;
pub use server::ServerFrame;

/// The protocol versions that this build can serve, best first.
pub const VERSIONS: &[u16] = &[1];

//! Several devices of one account: linking, recovery, and what is handed from one to another.
//!
//! - [`link`] is the new machine's side of `device link`; the other side is the engine's, because it
//!   has the identity keys and may be in use.
//! - [`recover`] makes a device with nothing but the recovery code.
//! - [`handover`] is what the two sides of a link say to each other.
//! - [`archive`] and [`people`] are what a device hands on: who is known, which conversations there
//!   are, and the history, in sealed parts.
//!
//! Invariant: whatever leaves this device is sealed for the other one; the server sees sizes.

pub mod archive;
pub mod handover;
pub mod link;
pub mod people;
pub(crate) mod pointer;
pub mod recover;

use fastchat_protocol::limits;

/// Why a conversation is entered by a device that was never in it.
pub(crate) const NEW_DEVICE: &str = "this device is new";
/// How long what is handed from device to device stays on the server.
pub(crate) const HANDOVER_SECONDS: u32 = 600;
/// Limit: bytes of a part before it is sealed; what a single entry adds beyond fits as well.
pub(crate) const PART_BYTES: usize = limits::MAX_SLOT_PART - 128 * 1024;

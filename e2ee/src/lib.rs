//! The only crate that can open an envelope. Linked by client, laboratory and tests, never by a gateway.
//!
//! - [`password`] turns a password into what the server may see and what it may not.
//! - [`sealed`] and [`store`]: everything at rest goes through a [`Vault`](store::Vault).
//! - [`identity`] signs the account's manifest; [`device`] is one installation and its key.
//! - [`conversation`] is what a client does with an MLS group; [`content`] is what an envelope holds.
//! - [`link`] lets a new device in, [`recovery`] brings an account back, [`archive`] carries history.
//!
//! The flow of an operation: the caller opens a transaction of its database, makes a `Vault` on it,
//! calls one function here, stores what it got (plaintext, cursor, outbox row) and commits. Nothing
//! is cached between calls, so a transaction that is rolled back leaves no trace, and every
//! operation here writes all of its state or none.
//!
//! Nothing here reads a clock (OpenMLS does, for the lifetime of key packages) or talks to a network.
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test says what it expects by failing"))]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod archive;
pub mod content;
pub mod conversation;
mod crockford;
pub mod device;
mod hybrid;
pub mod identity;
pub mod link;
pub mod password;
pub mod recovery;
pub mod sealed;
pub mod store;

pub use archive::{ArchiveError, ArchiveKey, ArchiveReader};
pub use content::{
    Content, FileInfo, GroupProfile, HistoryShare, MAX_PREVIEW, ManifestView, Message, MessageRef, Picture,
    Preview, Text,
};
pub use device::Device;
pub use fastchat_delivery::{
    Change, CommitSummary, GroupData, GroupDataError, Leaf, Leave, Manifest, ManifestDevice, ManifestError,
    Policy, PolicyError, Rules, Suite, VerifiedManifest,
};
pub use identity::{BackupPublic, Identity, safety_number};
pub use link::{LinkCode, LinkError, LinkOffer, LinkSecret};
pub use recovery::{RecoveryCode, RecoveryError};
pub use sealed::{StoreKey, UnlockKey};
pub use store::{KeyValue, MemoryStore, Vault, VaultError};
pub use zeroize::Zeroizing;

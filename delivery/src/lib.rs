//! What the gateway must know of MLS in order to be the delivery service, and nothing more.
//!
//! - [`header::peek`] reads the routing header of an envelope, without group state.
//! - [`group::PublicState`] follows the public half of a group and judges commits against it.
//! - [`manifest`] and [`credential`] tie a leaf of the tree to a device that an account has signed.
//! - [`policy`] says who may change what; the clients run the same function before every merge.
//! - [`key_package::verify`] admits a key package to the directory, [`ticket::verify`] a client that a
//!   balancer sent.
//!
//! No private key exists here and nothing here can open an envelope: the gateway may touch MLS
//! through this crate only. The crate `e2ee` builds on it, so both sides mean the same by each rule.
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test says what it expects by failing"))]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod change;
pub mod credential;
pub mod group;
pub mod group_data;
pub mod header;
pub mod key_package;
pub mod leaf;
pub mod leave;
pub mod manifest;
pub mod policy;
pub mod suite;
pub mod ticket;
mod tls;

pub use change::Change;
pub use credential::LeafCredential;
pub use group::{CommitError, CommitSummary, FoundError, PublicState};
pub use group_data::{GroupData, GroupDataError};
pub use header::{Header, Kind};
pub use key_package::KeyPackageInfo;
pub use leaf::Leaf;
pub use leave::Leave;
pub use manifest::{Manifest, ManifestDevice, ManifestError, VerifiedManifest};
pub use policy::{Policy, PolicyError, Rules};
pub use suite::Suite;

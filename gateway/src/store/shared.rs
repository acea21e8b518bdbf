//! Statements that both databases understand as they are. The file is a module of each store, which
//! says what `Connection` and `Database` are: administration is rare work of many small statements, and
//! writing each twice would only let them drift apart.

#[expect(clippy::duplicate_mod, reason = "a module of each store")]
#[path = "shared/audit.rs"]
pub(super) mod audit;
#[expect(clippy::duplicate_mod, reason = "a module of each store")]
#[path = "shared/blob_sweep.rs"]
mod blob_sweep;
#[expect(clippy::duplicate_mod, reason = "a module of each store")]
#[path = "shared/blob_transfers.rs"]
mod blob_transfers;
#[expect(clippy::duplicate_mod, reason = "a module of each store")]
#[path = "shared/blobs.rs"]
mod blobs;
#[expect(clippy::duplicate_mod, reason = "a module of each store")]
#[path = "shared/invites.rs"]
pub(super) mod invites;
#[expect(clippy::duplicate_mod, reason = "a module of each store")]
#[path = "shared/noted.rs"]
pub(super) mod noted;
#[expect(clippy::duplicate_mod, reason = "a module of each store")]
#[path = "shared/notices.rs"]
pub(super) mod notices;
#[expect(clippy::duplicate_mod, reason = "a module of each store")]
#[path = "shared/operate.rs"]
mod operate;
#[expect(clippy::duplicate_mod, reason = "a module of each store")]
#[path = "shared/quotas.rs"]
pub(super) mod quotas;
#[expect(clippy::duplicate_mod, reason = "a module of each store")]
#[path = "shared/receipts.rs"]
pub(super) mod receipts;
#[expect(clippy::duplicate_mod, reason = "a module of each store")]
#[path = "shared/retain.rs"]
mod retain;
#[expect(clippy::duplicate_mod, reason = "a module of each store")]
#[path = "shared/users.rs"]
pub(super) mod users;

use super::{
    Connection, Database, FOR_KEY_SHARE, FOR_UPDATE, MADE_AT_S, SKIP_LOCKED, accounts, deletion, now,
};

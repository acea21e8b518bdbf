//! What the engine does by itself, a step at a time, once it has caught up: evict own devices that are
//! no longer listed, tell the server of a recovery code, hand history over, take it in, back it up.
//!
//! Each chore keeps what it needs in the store, so that it goes on after a restart.

use super::{
    Engine, Halt,
    archive::{Backup, Import, Sharing},
    session::CallError,
};
use crate::{
    api::{ApiError, ImportView},
    devices::archive::Exporter,
    link::LinkError,
};
use fastchat_protocol::{ClientFrame, ServerFrame};
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks at what another device has left.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// After a refusal that may pass.
const AGAIN: Duration = Duration::from_secs(10);

/// What is to be done, and when.
#[derive(Debug, Default)]
pub(super) struct Chores {
    /// Own devices may have been revoked since conversations were looked at.
    pub(super) evict: bool,
    /// The server has not confirmed the recovery code.
    pub(super) recovery: bool,
    pub(super) sharing: Option<Sharing>,
    /// Makes the part of this number next.
    pub(super) exporter: Option<(u32, Exporter)>,
    pub(super) import: Option<Import>,
    /// What came of the last import.
    pub(super) imported: Option<ImportView>,
    pub(super) backup: Backup,
    at: Option<Instant>,
}

impl Chores {
    /// Something is to be done at once.
    pub(super) fn now(&mut self) {
        self.at = Some(Instant::now());
    }

    /// When the engine has to wake for a chore.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let now = self.evict.then(Instant::now);
        [now, self.at].into_iter().flatten().min()
    }
}

impl Engine {
    /// What was begun before.
    pub(super) fn load_chores(&mut self) -> Result<(), crate::store::StoreError> {
        let (recovery, sharing, import, backup) = self.store.read(|tx| {
            Ok::<_, crate::store::StoreError>((
                super::recovery::pending(tx)?.is_some(),
                tx.setting(Sharing::NAME)?.flatten(),
                tx.setting(Import::NAME)?.flatten(),
                tx.setting(Backup::NAME)?.unwrap_or_default(),
            ))
        })?;
        self.chores = Chores { evict: true, recovery, sharing, import, backup, ..Chores::default() };
        self.chores.now();
        Ok(())
    }

    pub(super) async fn do_chores(&mut self) -> Result<(), Halt> {
        if !self.synced {
            return Ok(());
        }
        if std::mem::take(&mut self.chores.evict) {
            self.evict_unlisted()?;
        }
        if self.chores.at.is_none_or(|at| at > Instant::now()) {
            return Ok(());
        }
        self.chores.at = None;
        let pauses = [
            self.recovery_due().await?,
            self.sharing_due().await?,
            self.import_due().await?,
            self.backup_due().await?,
        ];
        self.chores.at = pauses.into_iter().flatten().min().map(|pause| Instant::now() + pause);
        Ok(())
    }

    /// A call whose refusal is an answer like another.
    pub(super) async fn ask(&mut self, frame: ClientFrame) -> Result<Result<ServerFrame, ApiError>, Halt> {
        match self.call(frame).await {
            Ok(answer) => Ok(Ok(answer)),
            Err(CallError::Down) => Err(Halt::Down),
            Err(CallError::Refused(refusal)) => Ok(Err(LinkError::from(refusal).into())),
        }
    }
}

/// The pause after something was refused.
pub(super) fn again(error: &ApiError) -> Option<Duration> {
    tracing::warn!(%error, "a chore was refused");
    Some(AGAIN)
}

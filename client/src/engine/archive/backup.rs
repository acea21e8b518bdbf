//! The backup of the history: everything that is here, sealed for the account's identity keys.
//!
//! A new one goes into a slot of its own; then the pointer names it, and the old one goes. Whatever
//! breaks off leaves the old one in force.

use crate::{
    api::{ApiError, BackupAction, BackupView, ErrorKind, Response},
    devices::{
        archive::{Exporter, Share},
        handover::ArchiveRef,
        pointer,
    },
    engine::{Engine, Halt, parked::Answer, state::now_ms},
    store::StoreError,
};
use fastchat_protocol::{SlotId, limits};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const DAY_MS: u64 = 24 * 3600 * 1000;
/// After an attempt that came to nothing, the next one by itself is not before.
const RETRY_MS: u64 = 3600 * 1000;
/// Between two looks whether a backup is due.
const LOOK: Duration = Duration::from_secs(600);
/// Limit: bytes of a backup. The old one stays until the new one is there, so an account has room for
/// two, and for what devices hand over.
const MAX_BYTES: u64 = (limits::MAX_SLOTS as u64 - 4 * 1024 * 1024) / 2;

/// How backups stand. All but the running one is stored.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::engine) struct Backup {
    on: bool,
    /// The one that the pointer names.
    slot: Option<SlotId>,
    /// Begun and not finished.
    unfinished: Option<SlotId>,
    /// Of no use any more: to be removed.
    #[serde(default)]
    leftover: Vec<SlotId>,
    /// What was here when it was made.
    mark: u64,
    made_ms: Option<u64>,
    tried_ms: u64,
    bytes: u64,
    problem: Option<String>,
    #[serde(skip)]
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    archive: ArchiveRef,
    exporter: Exporter,
    mark: u64,
    parts: u32,
    bytes: u64,
    /// All parts are there.
    whole: bool,
}

impl Backup {
    pub(in crate::engine) const NAME: &str = "backup";

    fn is_due(&self, mark: u64, now_ms: u64) -> bool {
        let old = self.made_ms.is_none_or(|made| now_ms.saturating_sub(made) >= DAY_MS);
        let rested = self.problem.is_none() || now_ms.saturating_sub(self.tried_ms) >= RETRY_MS;
        self.on && old && rested && self.mark != mark
    }

    fn view(&self) -> BackupView {
        BackupView {
            on: self.on,
            running: self.running.is_some(),
            parts: self.running.as_ref().map_or(0, |running| running.parts),
            made_ms: self.made_ms,
            bytes: self.bytes,
            problem: self.problem.clone(),
        }
    }
}

impl Engine {
    pub(in crate::engine) async fn on_backup(&mut self, action: BackupAction) -> Result<Answer, Halt> {
        if !matches!(action, BackupAction::Status | BackupAction::Off) {
            if let Err(error) = self.identity()? {
                return Ok(Err(error));
            }
            if self.session.is_none() {
                return Err(Halt::Down);
            }
            if self.chores.import.is_some() && action != BackupAction::Delete {
                let message = "history is still being taken in: try again when that is done";
                return Ok(Err(ApiError::new(ErrorKind::Refused, message)));
            }
        }
        match action {
            BackupAction::Status => {}
            BackupAction::Off => {
                self.chores.backup.on = false;
                self.keep_backup()?;
            }
            BackupAction::On => {
                self.chores.backup.on = true;
                self.begin_backup()?;
            }
            BackupAction::Now => self.begin_backup()?,
            BackupAction::Delete => {
                if let Err(error) = self.delete_backup().await? {
                    return Ok(Err(error));
                }
            }
        }
        Ok(Ok(Response::Backup(self.chores.backup.view())))
    }

    fn keep_backup(&mut self) -> Result<(), Halt> {
        Ok(self.store.write(|tx| tx.set_setting(Backup::NAME, &self.chores.backup))?)
    }

    /// The backup could not be taken in whole: it stays until somebody says that it may be replaced.
    pub(super) fn keep_old_backup(&mut self) -> Result<(), Halt> {
        self.chores.backup.on = false;
        let problem = "the last backup could not be read whole; it is kept until you say `backup now`";
        self.chores.backup.problem = Some(problem.to_owned());
        self.keep_backup()
    }

    /// What is here, as a number that changes with it.
    fn mark(&self) -> u64 {
        let place = |thread: &super::Thread| thread.record.cursor.0.wrapping_add(1);
        let places = self.threads.values().map(place).fold(0, u64::wrapping_add);
        places.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.contacts.len() as u64)
    }

    fn begin_backup(&mut self) -> Result<(), Halt> {
        if self.chores.backup.running.is_none() {
            let archive = ArchiveRef::generate();
            let exporter = self.store.read(|tx| Exporter::plan(tx, true, Share::All))?;
            let (mark, slot) = (self.mark(), archive.slot);
            let backup = &mut self.chores.backup;
            backup.running = Some(Running { archive, exporter, mark, parts: 0, bytes: 0, whole: false });
            (backup.tried_ms, backup.problem) = (now_ms(), None);
            // What an earlier attempt has left is removed first.
            if let Some(left) = backup.unfinished.replace(slot) {
                backup.leftover.push(left);
            }
            self.keep_backup()?;
        }
        self.chores.now();
        Ok(())
    }

    /// The next step of a backup, and the beginning of one that is due.
    pub(in crate::engine) async fn backup_due(&mut self) -> Result<Option<Duration>, Halt> {
        while let Some(left) = self.chores.backup.leftover.pop() {
            self.drop_slot(left).await?;
            self.keep_backup()?;
        }
        if self.chores.backup.running.is_none() {
            // The old one may hold what is not here yet.
            if self.chores.import.is_some() {
                return Ok(self.chores.backup.on.then_some(LOOK));
            }
            if !self.chores.backup.is_due(self.mark(), now_ms()) {
                return Ok(self.chores.backup.on.then_some(LOOK));
            }
            self.begin_backup()?;
        }
        let Some(running) = self.chores.backup.running.take() else { return Ok(None) };
        match self.backup_step(running).await? {
            Ok(Some(running)) => {
                self.chores.backup.running = Some(running);
                return Ok(Some(Duration::ZERO));
            }
            Ok(None) => {}
            Err(error) => self.chores.backup.problem = Some(error.message),
        }
        self.keep_backup()?;
        Ok(self.chores.backup.on.then_some(LOOK))
    }

    /// One part more, or the pointer. `None`: it is done.
    async fn backup_step(&mut self, mut running: Running) -> Result<Result<Option<Running>, ApiError>, Halt> {
        if running.whole {
            return Ok(self.point_to(running).await?.map(|()| None));
        }
        let (plain, last) = self.store.read(|tx| running.exporter.next_part(tx))?;
        let sealed = running.archive.seal(running.parts, last, &plain);
        let sealed = sealed.map_err(ApiError::internal).map_err(Halt::Fatal)?;
        running.bytes += sealed.len() as u64;
        if running.bytes > MAX_BYTES {
            let message = format!(
                "the history is larger than the {} MiB that a backup may have; the last one stays as it is",
                MAX_BYTES >> 20
            );
            return Ok(Err(ApiError::new(ErrorKind::Refused, message)));
        }
        if let Err(error) = self.put_slot(running.archive.slot, running.parts, sealed, 0).await? {
            return Ok(Err(error));
        }
        crate::failpoint::pass("backup-part");
        running.parts += 1;
        running.whole = last;
        Ok(Ok(Some(running)))
    }

    /// From here on the new one is in force.
    async fn point_to(&mut self, running: Running) -> Result<Result<(), ApiError>, Halt> {
        let identity = match self.identity()? {
            Ok(identity) => identity,
            Err(error) => return Ok(Err(error)),
        };
        let public = identity.backup_public().map_err(ApiError::internal).map_err(Halt::Fatal)?;
        let sealed = pointer::seal(&running.archive, &public);
        let sealed = sealed.map_err(ApiError::internal).map_err(Halt::Fatal)?;
        if let Err(error) = self.put_slot(pointer::slot(self.me.account()), 0, sealed, 0).await? {
            return Ok(Err(error));
        }
        let backup = &mut self.chores.backup;
        backup.leftover.extend(backup.slot.replace(running.archive.slot));
        backup.unfinished = None;
        (backup.mark, backup.made_ms, backup.bytes) = (running.mark, Some(now_ms()), running.bytes);
        self.keep_backup()?;
        Ok(Ok(()))
    }

    async fn delete_backup(&mut self) -> Result<Result<(), ApiError>, Halt> {
        // The pointer first: without it the parts are nothing.
        let frame = fastchat_protocol::client::DropSlot { slot: pointer::slot(self.me.account()) };
        if let Err(error) = self.ask(fastchat_protocol::ClientFrame::DropSlot(frame)).await? {
            return Ok(Err(error));
        }
        let old = std::mem::take(&mut self.chores.backup);
        let leftover = [old.slot, old.unfinished].into_iter().flatten().chain(old.leftover);
        self.chores.backup.leftover = leftover.collect();
        self.keep_backup()?;
        self.chores.now();
        Ok(Ok(()))
    }
}

/// After a recovery: the backup that was found stays in force until it was taken in and another one is
/// made.
pub(crate) fn adopt(tx: &crate::store::Tx<'_>, slot: SlotId) -> Result<(), StoreError> {
    let backup = Backup { on: true, slot: Some(slot), ..Backup::default() };
    tx.set_setting(Backup::NAME, &backup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_backup_is_made_by_itself() {
        let day = DAY_MS;
        let made = |on, made_ms| Backup { on, made_ms, mark: 7, ..Backup::default() };
        let cases = [
            ("off", made(false, None), 8, false),
            ("the first one", made(true, None), 8, true),
            ("nothing new", made(true, Some(0)), 7, false),
            ("made today", made(true, Some(10 * day - 1)), 8, false),
            ("made yesterday", made(true, Some(9 * day)), 8, true),
            (
                "failed just now",
                Backup { problem: Some("full".into()), tried_ms: 10 * day - 1, ..made(true, None) },
                8,
                false,
            ),
            ("failed before", Backup { problem: Some("full".into()), ..made(true, None) }, 8, true),
        ];
        for (what, backup, mark, want) in cases {
            assert_eq!(backup.is_due(mark, 10 * day), want, "{what}");
        }
    }
}

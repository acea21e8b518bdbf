//! Archives out and in: history for a device that was let in, history from another device or from the
//! backup.
//!
//! Invariant: what is promised or expected is in the store; what a part brings and that it was taken in
//! are one transaction.

mod backup;

use super::{
    Engine, Halt,
    chores::{LOOK, again},
    state::{Thread, now_ms},
};
use crate::{
    api::{ApiError, ImportView, Response},
    devices::{
        HANDOVER_SECONDS,
        archive::{self, Exporter, Plan, Share},
        handover::{self, ArchiveRef},
    },
    store::{Standing, StoreError, Tx},
};
use fastchat_protocol::{Bytes, DeviceId, SlotId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub(super) use backup::Backup;
pub(crate) use backup::adopt as adopt_backup;

/// How long the other device may be silent: as long as what was handed over is kept.
const PATIENCE_MS: u64 = HANDOVER_SECONDS as u64 * 1000;
/// A conversation that cannot be joined does not keep the history of all others away for longer.
const JOINING_MS: u64 = 60_000;

/// History that was promised to a new device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sharing {
    /// The slot of the code.
    pub(super) link: SlotId,
    device: DeviceId,
    pub(super) people: ArchiveRef,
    pub(super) history: ArchiveRef,
    pub(super) share: Share,
    until_ms: u64,
    joined: bool,
    /// What is still to be sent, once the other device has joined.
    plan: Option<Plan>,
    /// Parts that are on the server.
    pub(super) parts: u32,
    sent: bool,
}

/// An archive that is being taken in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Import {
    archive: ArchiveRef,
    /// From another device, which waits in this slot for a word; else from the backup.
    link: Option<SlotId>,
    /// History comes.
    with_history: bool,
    /// The next part.
    next: u32,
    entries: u64,
    since_ms: u64,
    until_ms: u64,
    announced: bool,
}

impl Sharing {
    pub(super) const NAME: &str = "sharing";

    pub(super) fn new(link: SlotId, device: DeviceId, share: Share, now_ms: u64) -> Self {
        Self {
            link,
            device,
            people: ArchiveRef::generate(),
            history: ArchiveRef::generate(),
            share,
            until_ms: now_ms + PATIENCE_MS,
            joined: false,
            plan: None,
            parts: 0,
            sent: false,
        }
    }

    pub(super) fn state(&self) -> &'static str {
        if self.joined { "sending" } else { "waiting" }
    }
}

impl Import {
    pub(crate) const NAME: &str = "import";

    /// From the device that has let this one in.
    pub(crate) fn from_device(archive: ArchiveRef, link: SlotId, with_history: bool) -> Self {
        Self {
            link: Some(link),
            with_history,
            until_ms: now_ms() + PATIENCE_MS,
            ..Self::from_backup(archive, 0, 0)
        }
    }

    /// From the backup; so many parts and entries are here already.
    pub(crate) fn from_backup(archive: ArchiveRef, next: u32, entries: u64) -> Self {
        let since_ms = now_ms();
        Self {
            archive,
            link: None,
            with_history: true,
            next,
            entries,
            since_ms,
            until_ms: 0,
            announced: false,
        }
    }
}

/// All parts of a small archive.
pub(super) fn in_parts(exporter: &mut Exporter, tx: &Tx<'_>) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut parts = Vec::new();
    loop {
        let (part, last) = exporter.next_part(tx)?;
        parts.push(part);
        if last {
            return Ok(parts);
        }
    }
}

impl Engine {
    pub(super) fn keep_sharing(&mut self, sharing: Option<Sharing>) -> Result<(), Halt> {
        self.store.write(|tx| tx.set_setting(Sharing::NAME, &sharing))?;
        self.chores.sharing = sharing;
        Ok(())
    }

    fn keep_import(&mut self, import: Option<Import>) -> Result<(), Halt> {
        self.store.write(|tx| tx.set_setting(Import::NAME, &import))?;
        self.chores.import = import;
        Ok(())
    }

    /// The next step of handing history over.
    pub(super) async fn sharing_due(&mut self) -> Result<Option<Duration>, Halt> {
        let Some(mut sharing) = self.chores.sharing.clone() else { return Ok(None) };
        if now_ms() > sharing.until_ms {
            tracing::info!(device = %sharing.device, "the new device did not take what was handed over");
            self.drop_slot(sharing.history.slot).await?;
            self.keep_sharing(None)?;
            return Ok(None);
        }
        let said = if sharing.joined { handover::DONE } else { handover::JOINED };
        if !sharing.joined || sharing.sent {
            let note = match self.get_slot(sharing.link, said).await? {
                Ok(note) => note.filter(|note| sharing.history.is_note(said, note)),
                Err(error) => return Ok(again(&error)),
            };
            match (note, sharing.sent) {
                (None, _) => return Ok(Some(LOOK)),
                (Some(_), true) => {
                    for slot in [sharing.link, sharing.people.slot, sharing.history.slot] {
                        self.drop_slot(slot).await?;
                    }
                    self.keep_sharing(None)?;
                    return Ok(None);
                }
                (Some(_), false) => {
                    sharing.joined = true;
                    sharing.until_ms = now_ms() + PATIENCE_MS;
                    // What was sent before the other device joined has to be here before it is handed on.
                    self.sync_wanted = true;
                    sharing.sent = sharing.share == Share::None;
                    self.keep_sharing(Some(sharing))?;
                    return Ok(Some(LOOK));
                }
            }
        }
        if self.sync_wanted
            || self.threads.values().any(|thread| thread.window.is_behind(thread.record.cursor))
        {
            return Ok(Some(LOOK));
        }
        self.share_next(sharing).await
    }

    /// Puts the next part.
    async fn share_next(&mut self, mut sharing: Sharing) -> Result<Option<Duration>, Halt> {
        let plan = match sharing.plan.take() {
            Some(plan) => plan,
            None => self.store.read(|tx| Plan::of(tx, sharing.share))?,
        };
        let kept = self.chores.exporter.take().filter(|(number, _)| *number == sharing.parts);
        let (part, last, exporter) = self.store.read(|tx| {
            let mut exporter = match kept {
                Some((_, exporter)) => exporter,
                None => Exporter::new(plan),
            };
            let (part, last) = exporter.next_part(tx)?;
            Ok::<_, StoreError>((part, last, exporter))
        })?;
        let sealed = sharing.history.seal(sharing.parts, last, &part);
        let sealed = sealed.map_err(ApiError::internal).map_err(Halt::Fatal)?;
        if let Err(error) =
            self.put_slot(sharing.history.slot, sharing.parts, sealed, HANDOVER_SECONDS).await?
        {
            return Ok(again(&error));
        }
        sharing.parts += 1;
        sharing.plan = Some(exporter.rest());
        self.chores.exporter = Some((sharing.parts, exporter));
        sharing.sent = last;
        sharing.until_ms = now_ms() + PATIENCE_MS;
        self.keep_sharing(Some(sharing))?;
        Ok(Some(if last { LOOK } else { Duration::ZERO }))
    }

    /// The next step of taking in.
    pub(super) async fn import_due(&mut self) -> Result<Option<Duration>, Halt> {
        let Some(mut import) = self.chores.import.clone() else { return Ok(None) };
        if let (Some(link), false) = (import.link, import.announced) {
            let joining = |thread: &Thread| matches!(thread.record.standing, Standing::Rejoining(_));
            let waited = now_ms().saturating_sub(import.since_ms) > JOINING_MS;
            if self.threads.values().any(joining) && !waited {
                return Ok(Some(LOOK));
            }
            if let Err(error) = self.leave_note(link, &import.archive, handover::JOINED).await? {
                return Ok(again(&error));
            }
            import.announced = true;
            import.until_ms = now_ms() + PATIENCE_MS;
            self.keep_import(Some(import.clone()))?;
            if !import.with_history {
                return self.import_ended(&import, Ok(())).await;
            }
        }
        let sealed = match self.get_slot(import.archive.slot, import.next).await? {
            Ok(sealed) => sealed,
            Err(error) => return Ok(again(&error)),
        };
        match sealed {
            Some(sealed) => self.take_in(import, &sealed).await,
            None if now_ms() < import.until_ms => Ok(Some(LOOK)),
            None => {
                let why = match import.link {
                    Some(_) => "the other device has not sent all of the history in time",
                    None => "the backup is not whole on the server",
                };
                self.import_ended(&import, Err(why.to_owned())).await
            }
        }
    }

    async fn take_in(&mut self, mut import: Import, sealed: &Bytes) -> Result<Option<Duration>, Halt> {
        let (plain, last) = match import.archive.open(import.next, sealed) {
            Ok(opened) => opened,
            Err(error) => return self.import_ended(&import, Err(error.to_string())).await,
        };
        let own = self.me.account();
        import.next += 1;
        import.until_ms = if import.link.is_some() { now_ms() + PATIENCE_MS } else { 0 };
        let taken = self.store.write(|tx| {
            let taken = archive::import(tx, own, &plain)?;
            import.entries += taken.entries;
            tx.set_setting(Import::NAME, &Some(import.clone()))?;
            Ok::<_, archive::ArchiveError>(taken)
        });
        let taken = match taken {
            Ok(taken) => taken,
            Err(archive::ArchiveError::Store(error)) => return Err(error.into()),
            Err(error) => return self.import_ended(&import, Err(error.to_string())).await,
        };
        crate::failpoint::pass("part-taken");
        for contact in taken.contacts {
            self.contacts.insert(contact.account, contact);
        }
        for record in taken.records {
            self.threads.entry(record.id).or_insert_with(|| Thread::new(record));
        }
        self.chores.import = Some(import.clone());
        match last {
            true => self.import_ended(&import, Ok(())).await,
            false => Ok(Some(Duration::ZERO)),
        }
    }

    async fn import_ended(
        &mut self,
        import: &Import,
        outcome: Result<(), String>,
    ) -> Result<Option<Duration>, Halt> {
        if let (Some(link), Ok(())) = (import.link, &outcome)
            && let Err(error) = self.leave_note(link, &import.archive, handover::DONE).await?
        {
            return Ok(again(&error));
        }
        let reason = outcome.err();
        if let Some(reason) = &reason {
            tracing::warn!(reason, "not all of the history came");
            if import.link.is_none() {
                self.keep_old_backup()?;
            }
        }
        let state = if reason.is_some() { "failed" } else { "done" };
        self.keep_import(None)?;
        self.chores.imported = Some(ImportView { state: state.to_owned(), entries: import.entries, reason });
        Ok(None)
    }

    async fn leave_note(
        &mut self,
        link: SlotId,
        archive: &ArchiveRef,
        part: u32,
    ) -> Result<Result<(), ApiError>, Halt> {
        let note = archive.note(part).map_err(ApiError::internal).map_err(Halt::Fatal)?;
        self.put_slot(link, part, note, HANDOVER_SECONDS).await
    }

    pub(super) fn view_unsettled(&self) -> Response {
        let unsettled = |thread: &&Thread| {
            let record = &thread.record;
            matches!(record.standing, Standing::Rejoining(_))
                || (record.standing == Standing::Ready
                    && (!record.changes.is_empty() || record.commit.is_some()))
        };
        let conversations = self.threads.values().filter(unsettled).count();
        Response::Unsettled { conversations: conversations + usize::from(self.chores.evict) }
    }

    pub(super) fn view_import(&self) -> Response {
        let none = || ImportView { state: "none".to_owned(), entries: 0, reason: None };
        Response::Import(match &self.chores.import {
            None => self.chores.imported.clone().unwrap_or_else(none),
            Some(import) => {
                let state = match (import.link.is_some() && !import.announced, import.next) {
                    (true, _) => "joining",
                    (false, 0) => "waiting",
                    (false, _) => "reading",
                };
                ImportView { state: state.to_owned(), entries: import.entries, reason: None }
            }
        })
    }
}

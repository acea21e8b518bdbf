//! Files on their way, as the engine sees them: what is stored, who moves parts, what follows.
//!
//! - A transfer is in the store before anything of it is done, until its file is here or its message is in
//!   the outbox: going on after a crash is beginning again, and the server (or the disk) says what is there.
//! - At most [`RUNNING`] tasks move parts ([`crate::files::transfer`]). They ask here for grants.
//! - A file that was sent becomes a message in the transaction that forgets the transfer, under one id:
//!   there is one message, whatever dies when.

mod ask;
mod history;

use super::{
    Engine, Halt,
    parked::Reply,
    session::{CallError, passes},
    state::{Waiter, now_ms},
};
use crate::{
    api::{ApiError, ErrorKind, Event},
    failpoint,
    files::{
        place::Place,
        shape::Shape,
        transfer::{Desk, Grant, Moved, REPORTS, Report, download, download_bytes, upload, upload_bytes},
    },
    link::LinkError,
    store::{Direction, Item, ItemId, ItemState, Standing, StoreError, Transfer, What},
};
use fastchat_e2ee::{HistoryShare, Zeroizing};
use fastchat_protocol::{BlobId, ClientFrame, Code, ConversationId, Refusal, ServerFrame, client};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

/// Limit: files that move at once.
const RUNNING: usize = 2;
/// Limit: how often a file is begun anew because the server has lost what was there of it.
const MAX_ANEW: u8 = 3;
/// Before something is asked again that was refused for a while.
const PAUSE: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Files {
    transfers: BTreeMap<ItemId, Transfer>,
    running: HashMap<ItemId, Running>,
    /// Tasks that wait for a grant.
    wanted: Vec<(ItemId, oneshot::Sender<Result<Grant, ApiError>>)>,
    /// All parts are there; the server has not said so yet.
    sent: BTreeSet<ItemId>,
    /// Blobs that nobody needs any more.
    drops: Vec<(ConversationId, [u8; 16])>,
    anew: HashMap<ItemId, u8>,
    waiters: Vec<FileWaiter>,
    reports: mpsc::Receiver<Report>,
    desk: mpsc::Sender<Report>,
    /// Nothing is asked before: it was refused for a while.
    at: Option<Instant>,
}

/// A task.
struct Running {
    done: u64,
    /// How far it was when that was last said.
    said: u64,
    _task: AbortOnDropHandle<()>,
}

/// Somebody waits for a file.
struct FileWaiter {
    id: ItemId,
    deadline: Instant,
    reply: Reply,
    /// The answer is this group, and not the message's place.
    group: Option<ConversationId>,
}

impl Default for Files {
    fn default() -> Self {
        let (desk, reports) = mpsc::channel(REPORTS);
        Self {
            transfers: BTreeMap::new(),
            running: HashMap::new(),
            wanted: Vec::new(),
            sent: BTreeSet::new(),
            drops: Vec::new(),
            anew: HashMap::new(),
            waiters: Vec::new(),
            reports,
            desk,
            at: None,
        }
    }
}

impl Files {
    /// What a task says next. Cancel safety: nothing is lost.
    pub(super) async fn next(&mut self) -> Report {
        match self.reports.recv().await {
            Some(report) => report,
            // There is a sender here, so this cannot be.
            None => std::future::pending().await,
        }
    }

    /// When something is to be asked again, or somebody to be answered.
    pub(super) fn next_at(&self, online: bool) -> Option<Instant> {
        let again = self.at.filter(|_| online);
        self.waiters.iter().map(|waiter| waiter.deadline).chain(again).min()
    }

    /// The names of those to whom files go, and with whom there is no conversation yet.
    pub(super) fn unrouted(&self) -> BTreeSet<String> {
        let names = self.transfers.values().filter_map(|transfer| match &transfer.direction {
            Direction::Out { to, .. } if transfer.conversation.is_none() && transfer.failed.is_none() => {
                Some(to.clone())
            }
            _ => None,
        });
        names.collect()
    }

    fn of(&self, fits: impl Fn(&Transfer) -> bool) -> Vec<ItemId> {
        self.transfers.values().filter(|transfer| fits(transfer)).map(|transfer| transfer.id).collect()
    }
}

impl Engine {
    /// What was begun before.
    pub(super) fn load_files(&mut self) -> Result<(), StoreError> {
        let transfers = self.store.read(|tx| tx.transfers())?;
        self.files.transfers = transfers.into_iter().map(|transfer| (transfer.id, transfer)).collect();
        self.files.drops = self.store.read(|tx| tx.unwanted())?;
        Ok(())
    }

    pub(super) fn keep_transfer(&mut self, transfer: Transfer) -> Result<(), Halt> {
        self.store.write(|tx| tx.put_transfer(&transfer))?;
        self.files.transfers.insert(transfer.id, transfer);
        Ok(())
    }

    /// Files to `name` go to this conversation.
    pub(super) fn assign_files(&mut self, name: &str, id: ConversationId) -> Result<(), Halt> {
        let named = |t: &Transfer| {
            t.conversation.is_none() && matches!(&t.direction, Direction::Out { to, .. } if to == name)
        };
        for file in self.files.of(named) {
            let Some(mut transfer) = self.files.transfers.get(&file).cloned() else { continue };
            transfer.conversation = Some(id);
            self.keep_transfer(transfer)?;
        }
        Ok(())
    }

    /// The conversation is not to be: its files look for another one.
    pub(super) fn unassign_files(&mut self, id: ConversationId) -> Result<(), Halt> {
        for file in self.files.of(|transfer| transfer.conversation == Some(id)) {
            let Some(mut transfer) = self.files.transfers.get(&file).cloned() else { continue };
            self.files.running.remove(&file);
            transfer.conversation = None;
            self.keep_transfer(transfer)?;
        }
        Ok(())
    }

    /// The conversation cannot be begun, for good: neither can its files go.
    pub(super) fn fail_files_of(&mut self, id: ConversationId, error: &ApiError) -> Result<(), Halt> {
        for file in self.files.of(|transfer| transfer.conversation == Some(id)) {
            self.files.running.remove(&file);
            self.fail_file(file, error)?;
        }
        Ok(())
    }

    /// Files to `name` cannot go: for good, or for now.
    pub(super) fn files_not_started(&mut self, name: &str, error: &ApiError, good: bool) -> Result<(), Halt> {
        let named = |t: &Transfer| {
            t.conversation.is_none() && matches!(&t.direction, Direction::Out { to, .. } if to == name)
        };
        for file in self.files.of(named) {
            match good {
                true => self.fail_file(file, error)?,
                false => self.say_transfer(file, Some(error.message.clone())),
            }
        }
        Ok(())
    }

    /// Whatever can be done for files now.
    pub(super) async fn files_due(&mut self) -> Result<(), Halt> {
        if !self.synced {
            return Ok(());
        }
        self.start_files()?;
        if self.files.at.is_some_and(|at| at > Instant::now()) {
            return Ok(());
        }
        self.files.at = None;
        for _ in 0..self.files.wanted.len() {
            self.grant_next().await?;
        }
        for id in self.files.sent.clone() {
            self.finish_file(id).await?;
        }
        self.drop_blobs().await
    }

    /// Asks once for each; what is not answered is asked again in the next session.
    async fn drop_blobs(&mut self) -> Result<(), Halt> {
        while let Some((conversation, blob)) = self.files.drops.first().copied() {
            failpoint::pass("before-drop");
            let drop = client::DropBlob { conversation, blob: BlobId::new(blob) };
            match self.call(ClientFrame::DropBlob(drop)).await {
                Err(CallError::Down) => return Err(Halt::Down),
                Err(CallError::Refused(refusal)) if passes(refusal.code) => {
                    let wait = refusal.wait_ms.map_or(PAUSE, |ms| Duration::from_millis(ms.into()));
                    self.files.at = self.files.at.max(Some(Instant::now() + wait));
                    return Ok(());
                }
                Err(CallError::Refused(refusal)) => {
                    tracing::info!(%refusal, "a blob that nobody needs stays until its time is over");
                }
                Ok(_) => {}
            }
            self.files.drops.remove(0);
            self.store.write(|tx| tx.forget_unwanted(blob))?;
        }
        Ok(())
    }

    /// Nobody needs a blob any more.
    pub(super) fn drop_blob(&mut self, conversation: ConversationId, blob: [u8; 16]) {
        self.files.drops.push((conversation, blob));
    }

    fn start_files(&mut self) -> Result<(), Halt> {
        let mut waiting = self.files.of(|transfer| transfer.failed.is_none());
        waiting.retain(|id| !self.files.running.contains_key(id) && !self.files.sent.contains(id));
        waiting.sort_by_key(|id| self.files.transfers.get(id).map(|transfer| transfer.at_ms));
        for id in waiting {
            if self.files.running.len() >= RUNNING {
                break;
            }
            let Some(transfer) = self.files.transfers.get(&id).cloned() else { continue };
            let Some(thread) = transfer.conversation.and_then(|id| self.threads.get(&id)) else { continue };
            let out = transfer.direction.is_out();
            let (requested, history) =
                (thread.record.request.is_some(), matches!(transfer.direction, Direction::HistoryIn { .. }));
            match thread.record.standing {
                // From strangers nothing is fetched before somebody has said yes.
                Standing::Ready | Standing::Rejoining(_) if history && requested => {}
                Standing::Removed if history => self.drop_file(&transfer)?,
                Standing::Ready | Standing::Rejoining(_) => self.start_file(transfer)?,
                Standing::Removed if out => {
                    let message = format!("you are not in {} any more", self.title(&thread.record));
                    self.fail_file(id, &ApiError::new(ErrorKind::Refused, message))?;
                }
                // What was there before is asked for.
                Standing::Removed => self.start_file(transfer)?,
                Standing::Founding(_) | Standing::Restoring(_) => {}
            }
        }
        Ok(())
    }

    fn start_file(&mut self, transfer: Transfer) -> Result<(), Halt> {
        let (transfer, bytes) = match transfer.direction {
            Direction::HistoryOut { .. } => match self.pack_history(transfer)? {
                Some((transfer, bytes)) => (transfer, bytes),
                None => return Ok(()),
            },
            _ => (transfer, Zeroizing::default()),
        };
        let Transfer { id, file, direction, .. } = transfer;
        let desk = Desk { id, reports: self.files.desk.clone() };
        let task = tokio::spawn(async move {
            let outcome = match direction {
                Direction::Out { path, measured, .. } => {
                    upload(desk.clone(), file, Path::new(&path), measured).await.map(|()| Moved::Out)
                }
                Direction::In { folder, .. } => {
                    let place = Place::new(Path::new(&folder), &file.name, &hex::encode(&file.blob[..8]));
                    download(desk.clone(), &file, place).await.map(Moved::File)
                }
                Direction::HistoryOut { .. } => {
                    upload_bytes(desk.clone(), file, &bytes).await.map(|()| Moved::Out)
                }
                Direction::HistoryIn { .. } => download_bytes(desk.clone(), &file).await.map(Moved::Bytes),
            };
            let _ = desk.reports.send(Report::Over { id, outcome }).await;
        });
        let running = Running { done: 0, said: 0, _task: AbortOnDropHandle::new(task) };
        self.files.running.insert(id, running);
        self.say_transfer(id, None);
        Ok(())
    }

    /// A task has said something.
    pub(super) fn on_report(&mut self, report: Report) -> Result<(), Halt> {
        match report {
            Report::Measured { id, size, hash } => {
                let Some(mut transfer) = self.files.transfers.get(&id).cloned() else { return Ok(()) };
                (transfer.file.size, transfer.file.hash) = (size, hash);
                if let Direction::Out { measured, .. } = &mut transfer.direction {
                    *measured = true;
                }
                self.keep_transfer(transfer)?;
            }
            Report::Moved { id, done } => {
                let size = self.files.transfers.get(&id).map_or(0, |transfer| transfer.file.size);
                let Some(running) = self.files.running.get_mut(&id) else { return Ok(()) };
                running.done = done;
                if done - running.said.min(done) >= size / 64 || done >= size {
                    running.said = done;
                    self.say_transfer(id, None);
                }
            }
            Report::Want { id, reply } => self.files.wanted.push((id, reply)),
            Report::Over { id, outcome } => {
                if self.files.running.remove(&id).is_none() || !self.files.transfers.contains_key(&id) {
                    return Ok(());
                }
                match outcome {
                    Ok(Moved::Out) => drop(self.files.sent.insert(id)),
                    Ok(Moved::File(path)) => self.file_here(id, &path)?,
                    Ok(Moved::Bytes(bytes)) => self.history_here(id, &bytes)?,
                    Err(error) => self.fail_file(id, &error)?,
                }
            }
        }
        Ok(())
    }

    /// Answers the first task that wants a grant, or puts it behind the others.
    async fn grant_next(&mut self) -> Result<(), Halt> {
        if self.files.wanted.is_empty() {
            return Ok(());
        }
        let (id, reply) = self.files.wanted.remove(0);
        if reply.is_closed() {
            return Ok(());
        }
        let Some(transfer) = self.files.transfers.get(&id).cloned() else { return Ok(()) };
        let Some((frame, conversation)) = ask_for(&transfer) else {
            let _ = reply.send(Err(ApiError::new(ErrorKind::Usage, "the file is too large to be sent")));
            return Ok(());
        };
        let refusal = match self.call(frame).await {
            Ok(ServerFrame::BlobGrant(grant)) => {
                let _ = reply.send(self.grant_of(&transfer, grant));
                return Ok(());
            }
            Ok(_) | Err(CallError::Down) => {
                self.files.wanted.push((id, reply));
                return Err(Halt::Down);
            }
            Err(CallError::Refused(refusal)) => refusal,
        };
        if passes(refusal.code) {
            self.files_later(id, &refusal);
            self.files.wanted.push((id, reply));
            return Ok(());
        }
        if refusal.code == Code::Conflict && self.draw_anew(&transfer, conversation)? {
            return Ok(());
        }
        let _ = reply.send(Err(LinkError::from(refusal).into()));
        Ok(())
    }

    fn grant_of(
        &self,
        transfer: &Transfer,
        grant: fastchat_protocol::server::BlobGrant,
    ) -> Result<Grant, ApiError> {
        if !grant.complete && !transfer.direction.is_out() {
            let message = "its sender has not put all of the file on the server yet";
            return Err(ApiError::new(ErrorKind::NotFound, message));
        }
        let url = self.gateway.clone().ok_or_else(|| self.offline())?;
        Ok(Grant {
            url,
            ca: self.destination.ca.clone(),
            token: hex::encode(grant.token.expose()),
            sizes: (grant.size_bytes, grant.parts),
            have: (!grant.complete).then(|| grant.have.unwrap_or_default()),
        })
    }

    /// The server has something else under the blob's id (a conversation that is over, another device):
    /// another id and another key. False if that was tried too often.
    fn draw_anew(&mut self, transfer: &Transfer, old: ConversationId) -> Result<bool, Halt> {
        let anew = self.files.anew.entry(transfer.id).or_default();
        *anew += 1;
        if *anew > MAX_ANEW || !transfer.direction.is_out() {
            return Ok(false);
        }
        self.files.running.remove(&transfer.id);
        self.files.drops.push((old, transfer.file.blob));
        let mut transfer = transfer.clone();
        (transfer.file.blob, transfer.file.key) = (rand::random(), rand::random());
        self.keep_transfer(transfer)?;
        self.files.at = Some(Instant::now());
        Ok(true)
    }

    fn files_later(&mut self, id: ItemId, refusal: &Refusal) {
        let wait = refusal.wait_ms.map_or(PAUSE, |ms| Duration::from_millis(ms.into()));
        self.files.at = self.files.at.max(Some(Instant::now() + wait));
        self.say_transfer(id, Some(refusal.to_string()));
    }

    /// All parts were put: the blob is finished, and its message goes into the outbox.
    async fn finish_file(&mut self, id: ItemId) -> Result<(), Halt> {
        let Some(transfer) = self.files.transfers.get(&id).cloned() else {
            self.files.sent.remove(&id);
            return Ok(());
        };
        let Some(conversation) = transfer.conversation else {
            self.files.sent.remove(&id);
            return Ok(());
        };
        let finish = client::FinishBlob { conversation, blob: BlobId::new(transfer.file.blob) };
        let refusal = match self.call(ClientFrame::FinishBlob(finish)).await {
            Ok(_) => return self.file_sent(transfer),
            Err(CallError::Down) => return Err(Halt::Down),
            Err(CallError::Refused(refusal)) => refusal,
        };
        if passes(refusal.code) {
            self.files_later(id, &refusal);
            return Ok(());
        }
        self.files.sent.remove(&id);
        let anew = self.files.anew.entry(id).or_default();
        *anew += 1;
        match refusal.code {
            // It is begun again, and what is missing is put.
            Code::PartsMissing | Code::NoBlob if *anew <= MAX_ANEW => Ok(()),
            _ => self.fail_file(id, &LinkError::from(refusal).into()),
        }
    }

    fn file_sent(&mut self, transfer: Transfer) -> Result<(), Halt> {
        failpoint::pass("file-finished");
        let Transfer { id, conversation, file, direction, .. } = transfer;
        let (to, text, what, spool) = match direction {
            Direction::Out { to, path, spooled, .. } => {
                let text = file.caption.clone().unwrap_or_default();
                (to, text, What::File(Box::new(file)), spooled.then_some(path))
            }
            Direction::HistoryOut { accounts, count, .. } => {
                let to = conversation.and_then(|id| self.threads.get(&id));
                let to = to.map(|thread| self.title(&thread.record)).unwrap_or_default();
                let text = self.words(|words| words.of_history(self.me.account(), count, &accounts));
                (to, text, What::History(Box::new(HistoryShare { file, count, accounts })), None)
            }
            Direction::In { .. } | Direction::HistoryIn { .. } => return Ok(()),
        };
        let item = Item {
            id,
            to,
            conversation,
            text,
            at_ms: now_ms(),
            state: ItemState::Draft,
            what,
            expires_s: None,
        };
        let added = self.store.write(|tx| {
            tx.delete_transfer(id)?;
            tx.add_item(&item)
        })?;
        failpoint::pass("file-queued");
        self.forget_file(id);
        if let Some(path) = spool {
            let _ = std::fs::remove_file(path);
        }
        if let Some(position) = added {
            self.queued(position, item);
        }
        // Whoever waits for the file waits for its message now.
        for FileWaiter { id, deadline, reply, group } in self.take_file_waiters(id) {
            self.waiters.push(Waiter { id, deadline, reply, group });
        }
        Ok(())
    }

    fn file_here(&mut self, id: ItemId, path: &Path) -> Result<(), Halt> {
        let Some(transfer) = self.files.transfers.get(&id).cloned() else { return Ok(()) };
        self.store.write(|tx| tx.delete_transfer(id))?;
        let saved = ask::saved(&transfer, path);
        self.forget_file(id);
        for waiter in self.take_file_waiters(id) {
            let _ = waiter.reply.send(Ok(crate::api::Response::Saved(saved.clone())));
        }
        Ok(())
    }

    /// The file will not go or come. That stays written down unless somebody is told.
    fn fail_file(&mut self, id: ItemId, error: &ApiError) -> Result<(), Halt> {
        // The task may be gone because everything is: the file goes on next time.
        if error.kind == ErrorKind::Gone {
            return Ok(());
        }
        let Some(mut transfer) = self.files.transfers.get(&id).cloned() else { return Ok(()) };
        if matches!(transfer.direction, Direction::HistoryOut { .. } | Direction::HistoryIn { .. }) {
            return self.history_failed(&transfer, error);
        }
        let waiters = self.take_file_waiters(id);
        let heard = waiters.iter().any(|waiter| !waiter.reply.is_closed());
        transfer.failed = Some(error.message.clone());
        self.files.transfers.insert(id, transfer.clone());
        self.say_transfer(id, Some(error.message.clone()));
        match heard {
            true => self.drop_file(&transfer)?,
            false => self.keep_transfer(transfer)?,
        }
        for waiter in waiters {
            let _ = waiter.reply.send(Err(error.clone()));
        }
        Ok(())
    }

    /// Nothing of it stays: here, on disk, or on the server.
    fn drop_file(&mut self, transfer: &Transfer) -> Result<(), Halt> {
        self.store.write(|tx| tx.delete_transfer(transfer.id))?;
        self.forget_file(transfer.id);
        match &transfer.direction {
            Direction::Out { path, spooled, .. } => {
                if *spooled {
                    let _ = std::fs::remove_file(path);
                }
                self.files.drops.extend(transfer.conversation.map(|id| (id, transfer.file.blob)));
            }
            Direction::In { folder, .. } => {
                let id = hex::encode(&transfer.file.blob[..8]);
                Place::new(Path::new(folder), &transfer.file.name, &id).discard();
            }
            Direction::HistoryOut { .. } if transfer.file.size == 0 => {}
            Direction::HistoryOut { .. } => {
                self.files.drops.extend(transfer.conversation.map(|id| (id, transfer.file.blob)));
            }
            Direction::HistoryIn { .. } => {}
        }
        Ok(())
    }

    fn forget_file(&mut self, id: ItemId) {
        self.files.transfers.remove(&id);
        self.files.running.remove(&id);
        self.files.sent.remove(&id);
        self.files.anew.remove(&id);
    }

    fn take_file_waiters(&mut self, id: ItemId) -> Vec<FileWaiter> {
        self.files.waiters.extract_if(.., |waiter| waiter.id == id).collect()
    }

    fn say_transfer(&self, id: ItemId, reason: Option<String>) {
        if let Some(transfer) = self.files.transfers.get(&id) {
            self.say(Event::Transfer(self.view_transfer(transfer, reason)));
        }
    }
}

/// The question for a grant; `None` if the file is too large.
fn ask_for(transfer: &Transfer) -> Option<(ClientFrame, ConversationId)> {
    let (conversation, blob) = (transfer.conversation?, BlobId::new(transfer.file.blob));
    let frame = match transfer.direction.is_out() {
        false => ClientFrame::GetBlob(client::GetBlob { conversation, blob }),
        true => {
            let shape = Shape::of(transfer.file.size)?;
            let (size_bytes, parts) = (shape.sealed_bytes(), shape.parts());
            ClientFrame::BeginBlob(client::BeginBlob { conversation, blob, size_bytes, parts })
        }
    };
    Some((frame, conversation))
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").field("transfers", &self.transfers.len()).finish_non_exhaustive()
    }
}

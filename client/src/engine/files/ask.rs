//! What is asked about files.

use super::{
    super::{
        Engine, Halt,
        parked::{Answer, Reply, Then},
        requests::parse_id,
        state::now_ms,
        views::message_of_name,
    },
    FileWaiter,
};
use crate::{
    api::{
        ApiError, ErrorKind, FilesView, PictureView, PreviewView, Request, Response, SavedView, SentView,
        TransferView, WaitingView,
    },
    store::{Direction, Entry, EntryKind, ItemId, StoreError, Transfer},
};
use fastchat_e2ee::{FileInfo, Preview};
use fastchat_protocol::{AccountName, ConversationId, Seq};
use std::path::Path;
use tokio::time::Instant;

/// Entries that are looked through for files.
const MAX_ENTRIES: usize = 10_000;

impl Engine {
    /// A file that is to be sent.
    pub(in super::super) fn send_file(&mut self, request: &Request) -> Result<Then, Halt> {
        let Request::FileSend { id, to, path, spooled, .. } = request else {
            return Ok(Then::now(Err(ApiError::internal("not a file to send"))));
        };
        let (id, file) = match parse_id(id).and_then(|id| Ok((id, self.new_file(request)?))) {
            Ok(checked) => checked,
            Err(error) => return Ok(Then::now(Err(error))),
        };
        if let Some((conversation, seq, at_ms)) = self.store.read(|tx| tx.recall_sent(id))? {
            let (id, conversation) = (id.to_string(), conversation.to_string());
            return Ok(Then::now(Ok(Response::Sent(SentView { id, conversation, seq, at_ms }))));
        }
        if self.items.values().any(|item| item.id == id) {
            return Ok(Then::Item { item: id, group: None });
        }
        let conversation = match self.sendable(to) {
            Ok(conversation) => conversation,
            Err(error) => return Ok(Then::now(Err(error))),
        };
        if let Some(name) = self.distrusted(to, conversation) {
            return Ok(Then::now(Err(self.untrusted(&name))));
        }
        if let Some(conversation) = conversation {
            self.accept_by_writing(conversation)?;
        }
        if !self.files.transfers.contains_key(&id) {
            let (to, path, spooled) = (to.clone(), path.clone(), *spooled);
            let direction = Direction::Out { to, path, spooled, measured: false };
            let at_ms = now_ms();
            self.keep_transfer(Transfer { id, at_ms, conversation, file, direction, failed: None })?;
        }
        Ok(Then::File(id, None))
    }

    /// Checks what is to be said of a file, and draws its key.
    fn new_file(&self, request: &Request) -> Result<FileInfo, ApiError> {
        let usage = |message: String| ApiError::new(ErrorKind::Usage, message);
        let Request::FileSend { to, path, name, mime, caption, preview, .. } = request else {
            return Err(ApiError::internal("not a file to send"));
        };
        if !matches!(self.find(to), Ok(Some(_)) | Err(_)) {
            to.parse::<AccountName>()
                .map_err(|e| usage(format!("{to:?} cannot be an account's name: {e}")))?;
        }
        let found = std::fs::metadata(path).map_err(|e| usage(format!("{path}: {e}")))?;
        if !found.is_file() || !Path::new(path).is_absolute() {
            return Err(usage(format!("{path} is no file (what comes from a pipe is sent with `-`)")));
        }
        let preview = preview.clone().map(|view| {
            let PreviewView { width, height, bytes } = view;
            Preview { width, height, bytes }
        });
        let file = FileInfo {
            blob: rand::random(),
            key: rand::random(),
            size: found.len(),
            hash: [0; 32],
            name: name.clone(),
            mime: mime.clone(),
            preview,
            caption: caption.clone().filter(|caption| !caption.is_empty()),
        };
        file.check().map_err(|e| usage(e.to_string()))?;
        Ok(file)
    }

    /// A file that is to be fetched. The same one into the same folder is fetched once.
    pub(in super::super) fn get_file(
        &mut self,
        with: &str,
        message: &str,
        folder: String,
    ) -> Result<Then, Halt> {
        let (conversation, file) = match self.find_file(with, message)? {
            Ok(found) => found,
            Err(error) => return Ok(Then::now(Err(error))),
        };
        if !Path::new(&folder).is_absolute() || !Path::new(&folder).is_dir() {
            let message = format!("{folder} is no folder");
            return Ok(Then::now(Err(ApiError::new(ErrorKind::Usage, message))));
        }
        let same = |t: &&mut Transfer| {
            t.file.blob == file.blob
                && matches!(&t.direction, Direction::In { folder: to, .. } if *to == folder)
        };
        if let Some(transfer) = self.files.transfers.values_mut().find(same) {
            // One that failed is tried once more.
            transfer.failed = None;
            return Ok(Then::File(transfer.id, None));
        }
        let (id, from) = (ItemId(rand::random()), with.to_owned());
        let (direction, at_ms) = (Direction::In { folder, from }, now_ms());
        let conversation = Some(conversation);
        self.keep_transfer(Transfer { id, at_ms, conversation, file, direction, failed: None })?;
        Ok(Then::File(id, None))
    }

    /// Somebody waits for a file.
    pub(in super::super) fn wait_for_file(
        &mut self,
        (id, group): (ItemId, Option<ConversationId>),
        deadline: Instant,
        reply: Reply,
    ) {
        self.files.waiters.push(FileWaiter { id, deadline, reply, group });
    }

    /// Whoever has waited long enough hears why.
    pub(in super::super) fn answer_file_waiters(&mut self) {
        let (now, ended) = (Instant::now(), self.ended.clone());
        let due = |waiter: &mut FileWaiter| waiter.deadline <= now || ended.is_some();
        let due: Vec<FileWaiter> = self.files.waiters.extract_if(.., due).collect();
        for FileWaiter { id, reply, .. } in due {
            let answer = match &ended {
                Some(error) => Err(ApiError::new(error.kind(), format!("{error}; the file is kept"))),
                None => Ok(Response::Waiting(WaitingView { id: id.to_string(), reason: self.reason(id) })),
            };
            let _ = reply.send(answer);
        }
    }

    pub(in super::super) fn view_files(&self, with: Option<&str>, limit: usize) -> Result<Answer, Halt> {
        let ids = match with.map(|with| self.conversations_named(with)) {
            Some(Ok(ids)) => ids,
            Some(Err(error)) => return Ok(Err(error)),
            None => {
                let shown = self.threads.values().filter(|thread| !self.is_hidden(&thread.record));
                shown.map(|thread| thread.record.id).collect()
            }
        };
        let mut view = FilesView::default();
        for id in &ids {
            let Some(thread) = self.threads.get(id) else { continue };
            let entries = self.store.read(|tx| tx.last_entries(*id, limit.min(MAX_ENTRIES)))?;
            let files = entries.iter().filter(|entry| entry.kind == EntryKind::File);
            view.files.extend(files.map(|entry| self.view_entry(&thread.record, entry)));
        }
        view.files.sort_by_key(|file| file.at_ms);
        let mut transfers: Vec<&Transfer> = self.files.transfers.values().collect();
        transfers
            .retain(|transfer| with.is_none() || transfer.conversation.is_none_or(|id| ids.contains(&id)));
        transfers.sort_by_key(|transfer| transfer.at_ms);
        view.transfers = transfers.into_iter().map(|t| self.view_transfer(t, None)).collect();
        Ok(Ok(Response::Files(view)))
    }

    pub(in super::super) fn view_transfer(
        &self,
        transfer: &Transfer,
        reason: Option<String>,
    ) -> TransferView {
        let Transfer { id, file, direction, failed, .. } = transfer;
        let running = self.files.running.get(id);
        let title = || {
            let thread = transfer.conversation.and_then(|id| self.threads.get(&id));
            thread.map(|thread| self.title(&thread.record)).unwrap_or_default()
        };
        let (direction, with) = match direction {
            Direction::Out { to, .. } => ("out", to.clone()),
            Direction::In { from, .. } => ("in", from.clone()),
            Direction::HistoryOut { .. } => ("out", title()),
            Direction::HistoryIn { .. } => ("in", title()),
        };
        let state = match (failed, running) {
            (Some(_), _) => "failed",
            (None, Some(_)) => "running",
            (None, None) => "waiting",
        };
        TransferView {
            id: id.to_string(),
            direction: direction.to_owned(),
            with,
            name: file.name.clone(),
            done: running.map_or(0, |running| running.done),
            size: file.size,
            state: state.to_owned(),
            reason: reason.or_else(|| failed.clone()),
        }
    }

    pub(in super::super) fn cancel_file(&mut self, prefix: &str) -> Result<Answer, Halt> {
        let found = self.files.of(|transfer| transfer.id.to_string().starts_with(prefix));
        let [id] = found.as_slice() else {
            let message = match found.len() {
                0 => format!("no file {prefix} is on its way (`fastchat file list` shows them)"),
                _ => format!("{prefix} begins the ids of several files: give more of it"),
            };
            let kind = if found.is_empty() { ErrorKind::NotFound } else { ErrorKind::Usage };
            return Ok(Err(ApiError::new(kind, message)));
        };
        if let Some(transfer) = self.files.transfers.get(id).cloned() {
            self.files.running.remove(id);
            self.drop_file(&transfer)?;
        }
        for waiter in self.take_file_waiters(*id) {
            let _ = waiter.reply.send(Err(ApiError::new(ErrorKind::Interrupted, "the file was given up")));
        }
        self.files.at = Some(Instant::now());
        Ok(Ok(Response::Done))
    }

    pub(in super::super) fn preview_of(&self, with: &str, message: &str) -> Result<Answer, Halt> {
        Ok(self.find_file(with, message)?.map(|(_, file)| {
            let picture = file.preview.map(|preview| {
                let mime = if preview.bytes.starts_with(b"\x89PNG") { "image/png" } else { "image/jpeg" };
                PictureView { mime: mime.to_owned(), bytes: preview.bytes }
            });
            Response::Picture { picture }
        }))
    }

    /// The file of a message that is named by its id or its seq.
    fn find_file(
        &self,
        with: &str,
        message: &str,
    ) -> Result<Result<(ConversationId, FileInfo), ApiError>, Halt> {
        let ids = match self.conversations_named(with) {
            Ok(ids) => ids,
            Err(error) => return Ok(Err(error)),
        };
        for id in ids.into_iter().rev() {
            let Some(entry) = self.find_entry(id, message)? else { continue };
            let message = match entry {
                Entry { extra, .. } if extra.deleted.is_some() => "the file was deleted",
                Entry { kind: EntryKind::File, extra, .. } => match extra.file {
                    Some(file) => return Ok(Ok((id, *file))),
                    None => "the file was deleted",
                },
                _ => "that message is no file (`fastchat file list` shows files)",
            };
            return Ok(Err(ApiError::new(ErrorKind::NotFound, message)));
        }
        let message = format!("there is no message {message} with {with} on this device");
        Ok(Err(ApiError::new(ErrorKind::NotFound, message)))
    }

    fn find_entry(&self, id: ConversationId, message: &str) -> Result<Option<Entry>, StoreError> {
        let Some(record) = self.threads.get(&id).map(|thread| &thread.record) else { return Ok(None) };
        if let Ok(seq) = message.parse() {
            return self.store.read(|tx| tx.entry_at(id, (record.incarnation, Seq(seq), 0)));
        }
        match message_of_name(message) {
            Some(named) => self.store.read(|tx| tx.find_message(id, named)),
            None => Ok(None),
        }
    }
}

pub(super) fn saved(transfer: &Transfer, path: &Path) -> SavedView {
    SavedView {
        id: transfer.id.to_string(),
        path: path.display().to_string(),
        size: transfer.file.size,
        sha256: hex::encode(transfer.file.hash),
    }
}

//! The store as others see it.

use super::{Engine, group_views::standing_name};
use crate::{
    api::{
        ApiError, ConversationView, ExcerptView, FileView, MessageKind, MessageView, OutboxView, Response,
        StatusView, WhoAmI,
    },
    link::LinkError,
    store::{Conversation, Entry, EntryKind, Item, ItemState, StoreError, What},
};
use fastchat_e2ee::{FileInfo, MessageRef};
use fastchat_protocol::Counter;

/// Limit: characters of a message that an answer shows.
const MAX_EXCERPT: usize = 80;

impl Engine {
    pub(super) fn view_entry(&self, record: &Conversation, entry: &Entry) -> MessageView {
        let extra = &entry.extra;
        let from = entry.from.map(|(account, _)| self.name_of(account)).unwrap_or_default();
        MessageView {
            with: self.title(record),
            conversation: record.id.to_string(),
            incarnation: entry.incarnation,
            seq: entry.seq.0,
            kind: match entry.kind {
                EntryKind::Text => MessageKind::Text,
                EntryKind::File => MessageKind::File,
                EntryKind::Unknown => MessageKind::Unknown,
                EntryKind::Notice => MessageKind::Notice,
                EntryKind::Quarantine => MessageKind::Quarantine,
            },
            from,
            own: entry.from.is_some_and(|(account, _)| account == self.me.account()),
            text: entry.text.clone(),
            at_ms: entry.at_ms,
            request: record.request.is_some(),
            id: entry.reference().map(name_of_message),
            reply_to: extra.reply.map(name_of_message),
            reply: extra.reply.and_then(|name| self.excerpt(record, name)),
            mentions: extra.mentions.iter().map(|account| self.name_of(*account)).collect(),
            edited: extra.edited.is_some(),
            deleted: extra.deleted.is_some(),
            deleted_by: self.other_deleter(entry),
            reactions: extra.reactions.iter().map(|(by, what)| (self.name_of(*by), what.clone())).collect(),
            file: extra.file.as_deref().map(view_file),
            expires_at_ms: extra.expires_at_ms,
            shared_by: extra.shared_by.map(|account| self.name_of(account)),
        }
    }

    /// How a message begins, if it is here.
    fn excerpt(&self, record: &Conversation, name: MessageRef) -> Option<ExcerptView> {
        // What cannot be read now is as what is not here: the answer is shown all the same.
        let original = self.store.read(|tx| tx.find_message(record.id, name)).ok().flatten()?;
        let text = match (&original.extra.file, original.text.is_empty()) {
            (Some(file), true) => &file.name,
            _ => &original.text,
        };
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let from = original.from.map(|(account, _)| self.name_of(account)).unwrap_or_default();
        let deleted = original.extra.deleted.is_some();
        Some(ExcerptView { from, text: line.chars().take(MAX_EXCERPT).collect(), deleted })
    }

    fn other_deleter(&self, entry: &Entry) -> Option<String> {
        let by = entry.extra.deleted?.by;
        entry.from.filter(|(author, _)| *author != by).map(|_| self.name_of(by))
    }

    pub(super) fn view_conversations(&self) -> Result<Response, StoreError> {
        let mut views = Vec::new();
        for thread in self.threads.values().filter(|thread| !self.is_hidden(&thread.record)) {
            let record = &thread.record;
            let last = self.store.read(|tx| tx.last_entries(record.id, 1))?.pop();
            views.push(ConversationView {
                conversation: record.id.to_string(),
                with: self.title(record),
                kind: if record.group().is_some() { "group" } else { "direct" }.to_owned(),
                request: record.request.is_some(),
                unread: record.unread,
                seq: record.cursor.0,
                state: standing_name(&record.standing).to_owned(),
                timer_s: record.timer_s,
                last: last.map(|entry| self.view_entry(record, &entry)),
            });
        }
        views.sort_by_key(|view| std::cmp::Reverse(view.last.as_ref().map_or(0, |last| last.at_ms)));
        Ok(Response::Conversations { conversations: views, unread: self.view_unread() })
    }

    pub(super) fn view_outbox(&self) -> Response {
        let items = self.items.values().map(|item| self.view_item(item)).collect();
        Response::Outbox { items }
    }

    fn view_item(&self, item: &Item) -> OutboxView {
        let (state, reason) = match &item.state {
            ItemState::Draft => ("waiting", Some(self.reason(item.id))),
            ItemState::Sealed { .. } => ("offered", Some(self.reason(item.id))),
            ItemState::Acked { .. } => ("sent", None),
            ItemState::Failed { reason } => ("failed", Some(reason.clone())),
        };
        OutboxView {
            id: item.id.to_string(),
            to: item.to.clone(),
            text: match &item.what {
                What::File(file) => file.name.clone(),
                _ => item.text.clone(),
            },
            state: state.to_owned(),
            reason,
            at_ms: item.at_ms,
        }
    }

    pub(super) fn view_whoami(&self) -> Response {
        Response::WhoAmI(WhoAmI {
            name: self.name.clone(),
            account: self.me.account().to_string(),
            device: self.me.id().to_string(),
            server: self.destination.servers.to_string(),
            deployment: self.destination.deployment.clone().unwrap_or_default(),
            identity: hex::encode(self.me.identity_fingerprint()),
        })
    }

    pub(super) fn status(&self) -> Result<StatusView, StoreError> {
        let state =
            |wanted: fn(&ItemState) -> bool| self.items.values().filter(|item| wanted(&item.state)).count();
        Ok(StatusView {
            connected: self.session.is_some() && self.older.is_none(),
            gateway: self.gateway.as_ref().filter(|_| self.session.is_some()).map(ToString::to_string),
            synced: self.synced,
            reason: self.older.clone().or_else(|| self.down.clone().filter(|_| self.session.is_none())),
            ended: self.ended.as_ref().map(LinkError::kind),
            key_packages: self.key_packages,
            waiting: state(|state| matches!(state, ItemState::Draft | ItemState::Sealed { .. })),
            failed: state(|state| matches!(state, ItemState::Failed { .. })),
            quarantined: self.store.read(|tx| tx.quarantined())?,
        })
    }

    pub(super) fn view_status(&self) -> Result<Response, ApiError> {
        self.status().map(Response::Status).map_err(ApiError::internal)
    }
}

/// A message's name as people copy it.
pub(super) fn name_of_message(MessageRef { device, counter }: MessageRef) -> String {
    format!("{device}-{}", counter.0)
}

/// The reverse of [`name_of_message`].
pub(super) fn message_of_name(text: &str) -> Option<MessageRef> {
    let (device, counter) = text.split_once('-')?;
    Some(MessageRef { device: device.parse().ok()?, counter: Counter(counter.parse().ok()?) })
}

fn view_file(file: &FileInfo) -> FileView {
    FileView {
        name: file.name.clone(),
        mime: file.mime.clone(),
        size: file.size,
        sha256: hex::encode(file.hash),
        preview: file.preview.is_some(),
    }
}

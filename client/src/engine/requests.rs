//! What is asked of the engine.

use super::{
    Command, Engine, Halt,
    parked::{Answer, MAX_WAIT, Reply},
    session::CallError,
    state::{SyncWaiter, Waiter, now_ms},
};
use crate::{
    api::{ApiError, ErrorKind, MessageView, Request, Response, SafetyView, SentView},
    link::LinkError,
    store::{Contact, Conversation, Item, ItemId, ItemState},
    trust,
};
use fastchat_e2ee::safety_number;
use fastchat_protocol::{
    AccountName, ClientFrame, Code, ConversationId, Seq,
    client::{AuthKey, ChangePassword},
};
use std::time::Duration;
use tokio::time::Instant;

/// Limit: bytes of one message's text, so that its envelope stays under the protocol's 64 KiB.
const MAX_TEXT_BYTES: usize = 60 * 1024;
/// Entries of one answer.
const MAX_ENTRIES: usize = 10_000;

impl Engine {
    pub(super) async fn on_command(&mut self, Command { request, reply }: Command) -> Result<(), Halt> {
        let request = self.as_group_change(request);
        let Some((request, reply)) = self.on_patient(request, reply).await? else { return Ok(()) };
        let answer = match request {
            Request::Send { id, to, text, reply: answers, wait_ms } => {
                return self.on_send(&id, to, text, answers, wait_ms, reply);
            }
            Request::ChangeMessage { id, with, target, change, wait_ms } => {
                return self.on_change_message(&id, (&with, &target), change, wait_ms, reply);
            }
            Request::SetTimer { id, with, seconds, wait_ms } => {
                return self.on_set_timer(&id, with, seconds, wait_ms, reply);
            }
            Request::Message { with, target, around } => self.on_message(with.as_deref(), &target, around),
            Request::UpdateKeys { with } => return self.on_update_keys(&with, reply),
            Request::Synced { wait_ms } => return self.on_synced(wait_ms, reply),
            Request::AwaitDelivered { with, seq, wait_ms } => {
                self.await_delivered(&with, seq, wait_ms, reply);
                return Ok(());
            }
            Request::Verify { name, accept } => self.on_verify(&name, accept).await,
            Request::ChangePassword { old, new } => self.on_change_password(&old, &new).await,
            Request::WhoAmI => Ok(Ok(self.view_whoami())),
            Request::History { with, limit, page } => {
                self.on_history(with.as_deref(), limit.min(MAX_ENTRIES), &page)
            }
            Request::Export { with, after } => self.on_export(with.as_deref(), after.as_deref()),
            Request::Import { account, lines } => self.on_import(&account, &lines),
            Request::Search(query) => self.on_search(&query),
            Request::Unread { limit } => self.on_unread(limit.min(MAX_ENTRIES)).map(Ok),
            Request::MarkRead { conversation, seq } => self.on_mark_read(&conversation, Seq(seq)),
            Request::Read { with, seq } => self.on_read(&with, seq),
            Request::MarkUnread { with } => self.on_mark_unread(&with),
            Request::Conversations => Ok(Ok(self.view_conversations()?)),
            Request::Outbox => Ok(Ok(self.view_outbox())),
            Request::OutboxCancel { id } => self.on_cancel(&id),
            Request::OutboxRetry { id } => self.on_retry(id.as_deref()),
            Request::Devices => self.on_devices().await,
            Request::RevokeDevice { id } => self.on_revoke(&id).await,
            Request::LinkOffer { code } => self.on_link_offer(&code).await,
            Request::LinkGrant { code, confirmation, history } => {
                self.on_link_grant(&code, &confirmation, history).await
            }
            Request::LinkProgress => Ok(Ok(self.view_handover())),
            Request::ImportProgress => Ok(Ok(self.view_import())),
            Request::Unsettled => Ok(Ok(self.view_unsettled())),
            Request::SetRecovery { code } => self.on_set_recovery(&code).await,
            Request::Backup { action } => self.on_backup(action).await,
            Request::DeleteAccount { auth_key } => self.on_delete_account(auth_key).await,
            Request::Files { with, limit } => self.view_files(with.as_deref(), limit),
            Request::FileCancel { id } => self.cancel_file(&id),
            Request::FilePreview { with, message } => self.preview_of(&with, &message),
            Request::Groups => Ok(self.on_groups()),
            Request::GroupInfo { group } => Ok(self.on_group_info(&group)),
            Request::GroupPicture { group } => Ok(self.on_group_picture(&group)),
            Request::Requests => self.view_requests(),
            Request::RequestPolicy { policy } => self.request_policy(policy.as_deref()),
            Request::Blocked => Ok(Ok(self.view_blocked())),
            Request::Status => Ok(self.view_status()),
            Request::Shutdown => {
                self.stopping = true;
                Ok(Ok(Response::Done))
            }
            other => Ok(Err(ApiError::internal(format!("{other:?} waits, and is not answered here")))),
        };
        // A call that lost its session is an answer, too; the engine goes on.
        let answer = match answer {
            Ok(answer) => answer,
            Err(Halt::Down) => Err(self.offline()),
            Err(fatal) => return Err(fatal),
        };
        let _ = reply.send(answer);
        Ok(())
    }

    /// Why nothing can be asked of the server now.
    pub(super) fn offline(&self) -> ApiError {
        match &self.ended {
            Some(error) => ApiError::from(error.clone()),
            None => ApiError::new(
                ErrorKind::Network,
                self.down.clone().unwrap_or_else(|| "not connected yet".to_owned()),
            ),
        }
    }

    pub(super) fn on_send(
        &mut self,
        id: &str,
        to: String,
        text: String,
        answers: Option<String>,
        wait_ms: u64,
        reply: Reply,
    ) -> Result<(), Halt> {
        let id = match self.check_send(id, &to, &text) {
            Ok(id) => id,
            Err(error) => {
                let _ = reply.send(Err(error));
                return Ok(());
            }
        };
        let Some(reply) = self.sent_before(id, reply)? else { return Ok(()) };
        // Behind earlier ones that have no conversation yet, or the order would change.
        let behind = self.unrouted.iter().any(|at| self.items.get(at).is_some_and(|item| item.to == to));
        let known = match self.sendable(&to) {
            Ok(known) => known,
            Err(error) if error.kind != ErrorKind::Usage && !self.synced && self.ended.is_none() => {
                let id = id.to_string();
                let request = Request::Send { id, to, text, reply: answers, wait_ms };
                self.park_send(request, wait_ms, reply);
                return Ok(());
            }
            Err(error) => {
                let _ = reply.send(Err(error));
                return Ok(());
            }
        };
        let what = match self.said(known, &text, answers.as_deref())? {
            Ok(what) => what,
            Err(error) => {
                let _ = reply.send(Err(error));
                return Ok(());
            }
        };
        let (conversation, at_ms) = (known.filter(|_| !behind), now_ms());
        let state = ItemState::Draft;
        self.post(Item { id, to, conversation, text, at_ms, state, what, expires_s: None }, wait_ms, reply)
    }

    /// Answers whoever asks again for what was sent; gives the others back.
    pub(super) fn sent_before(&self, id: ItemId, reply: Reply) -> Result<Option<Reply>, Halt> {
        let Some((conversation, seq, at_ms)) = self.store.read(|tx| tx.recall_sent(id))? else {
            return Ok(Some(reply));
        };
        let (id, conversation) = (id.to_string(), conversation.to_string());
        let _ = reply.send(Ok(Response::Sent(SentView { id, conversation, seq, at_ms })));
        Ok(None)
    }

    /// Stores a message, and answers once the server has it.
    pub(super) fn post(&mut self, item: Item, wait_ms: u64, reply: Reply) -> Result<(), Halt> {
        let (id, conversation) = (item.id, item.conversation);
        let changed = self.distrusted(&item.to, conversation);
        if let Some(id) = conversation {
            self.accept_by_writing(id)?;
        }
        if let Some(position) = self.store.write(|tx| tx.add_item(&item))? {
            match conversation.and_then(|id| self.threads.get_mut(&id)) {
                Some(thread) => thread.lane.push(position),
                None => self.unrouted.push_back(position),
            }
            self.items.insert(position, item);
        }
        if let Some(name) = changed {
            let _ = reply.send(Err(self.untrusted(&name)));
            return Ok(());
        }
        let deadline = Instant::now() + Duration::from_millis(wait_ms).min(MAX_WAIT);
        self.waiters.push(Waiter { id, deadline, reply, group: None });
        self.hurry();
        if self.session.is_none() && self.down.is_some() {
            self.tell_waiters();
        }
        Ok(())
    }

    fn check_send(&self, id: &str, to: &str, text: &str) -> Result<ItemId, ApiError> {
        let usage = |message: String| ApiError::new(ErrorKind::Usage, message);
        let id = parse_id(id)?;
        if !matches!(self.find(to), Ok(Some(_)) | Err(_)) {
            to.parse::<AccountName>()
                .map_err(|e| usage(format!("{to:?} cannot be an account's name: {e}")))?;
        }
        check_text(text).map(|()| id)
    }

    /// Where a message to `to` goes, if it is known; an error where nothing can go.
    pub(super) fn sendable(&self, to: &str) -> Result<Option<ConversationId>, ApiError> {
        let found = self.find(to)?;
        let group = |id: &ConversationId| self.threads.get(id).is_some_and(|t| t.record.group().is_some());
        match found.filter(group).and_then(|id| self.not_usable(id)) {
            Some(error) => Err(error),
            None => Ok(found),
        }
    }

    /// The name of somebody there whose identity changed: nothing goes out before somebody has looked.
    pub(super) fn distrusted(&self, to: &str, conversation: Option<ConversationId>) -> Option<String> {
        let changed = |account| self.contacts.get(&account).filter(|contact| contact.changed.is_some());
        match conversation.and_then(|id| self.threads.get(&id)) {
            Some(thread) => thread.record.people().into_iter().find_map(changed),
            None => self.contact_named(to).filter(|contact| contact.changed.is_some()),
        }
        .map(|contact| contact.name.clone())
    }

    fn on_update_keys(&mut self, with: &str, reply: Reply) -> Result<(), Halt> {
        match self.find_known(with) {
            Ok(id) => {
                if let Some(thread) = self.threads.get_mut(&id) {
                    thread.commit_failures = 0;
                    thread.update.get_or_insert_default().push(reply);
                }
            }
            Err(error) => drop(reply.send(Err(error))),
        }
        Ok(())
    }

    fn on_synced(&mut self, wait_ms: u64, reply: Reply) -> Result<(), Halt> {
        if self.synced || self.ended.is_some() {
            let _ = reply.send(self.view_status());
            return Ok(());
        }
        let deadline = Instant::now() + Duration::from_millis(wait_ms).min(MAX_WAIT);
        self.sync_waiters.push(SyncWaiter { deadline, reply });
        self.hurry();
        Ok(())
    }

    /// A person is waiting: a pause between attempts is cut short.
    pub(super) fn hurry(&self) {
        if let (None, Some(link)) = (&self.session, &self.link) {
            link.hurry();
        }
    }

    pub(super) fn answer_sync_waiters(&mut self, now: Instant) {
        let all = self.ended.is_some();
        for at in (0..self.sync_waiters.len()).rev() {
            if all || self.sync_waiters[at].deadline <= now {
                let _ = self.sync_waiters.swap_remove(at).reply.send(self.view_status());
            }
        }
    }

    async fn on_verify(&mut self, name: &str, accept: bool) -> Result<Answer, Halt> {
        // What the server shows now, if it can be asked; but what is accepted is what was shown before.
        if self.session.is_some() && !(accept && self.contact_named(name).is_some()) {
            match self.look_up_answer(name).await? {
                Ok(_) => {}
                Err(refusal) if refusal.code == Code::NoAccount && self.contact_named(name).is_none() => {
                    return Ok(Err(ApiError::new(
                        ErrorKind::NotFound,
                        format!("there is no account named {name}"),
                    )));
                }
                Err(refusal) => tracing::warn!(%refusal, "the server could not be asked"),
            }
        }
        let Some(mut contact) = self.contact_named(name).cloned() else { return Ok(Err(self.offline())) };
        if accept {
            let old = contact.account;
            trust::accept(&mut contact);
            if contact.account != old {
                // The name stands for another account now; the old one keeps its history under its id.
                self.rename_contact(old)?;
                self.route_anew(name)?;
            }
            self.keep_contact(&contact)?;
            self.route_wait.remove(name);
        }
        Ok(Ok(Response::Safety(self.safety(&contact)?)))
    }

    /// Drafts to a name go to the account that it stands for when they are sent.
    fn route_anew(&mut self, name: &str) -> Result<(), Halt> {
        let draft = |item: &Item| item.to == name && item.state == ItemState::Draft;
        let drafts: Vec<i64> = self.items.iter().filter(|(_, item)| draft(item)).map(|(at, _)| *at).collect();
        for position in drafts {
            let Some(item) = self.items.get_mut(&position) else { continue };
            let Some(id) = item.conversation.take() else { continue };
            let item = item.clone();
            self.store.write(|tx| tx.put_item(&item))?;
            if let Some(thread) = self.threads.get_mut(&id) {
                thread.lane.remove(position);
            }
            self.unrouted.push_back(position);
        }
        self.unrouted.make_contiguous().sort_unstable();
        Ok(())
    }

    fn rename_contact(&mut self, account: fastchat_protocol::AccountId) -> Result<(), Halt> {
        let Some(mut contact) = self.contacts.get(&account).cloned() else { return Ok(()) };
        contact.changed = None;
        contact.name = format!("{} (former)", contact.name);
        self.keep_contact(&contact)
    }

    fn safety(&self, contact: &Contact) -> Result<SafetyView, Halt> {
        let own = (self.me.account(), self.me.identity_fingerprint());
        let number = |manifest: &fastchat_delivery::VerifiedManifest| {
            let digits = safety_number(own, (manifest.account(), manifest.identity_fingerprint()));
            let groups: Vec<String> = digits
                .as_bytes()
                .chunks(5)
                .map(|group| String::from_utf8_lossy(group).into_owned())
                .collect();
            groups.join(" ")
        };
        let trust = match (&contact.changed, contact.verified) {
            (Some(_), _) => "changed",
            (None, true) => "verified",
            (None, false) => "unverified",
        };
        Ok(SafetyView {
            name: contact.name.clone(),
            number: number(&contact.manifest),
            trust: trust.to_owned(),
            changed_number: contact.changed.as_ref().map(number),
            devices: self.devices_of(contact)?,
        })
    }

    async fn on_change_password(&mut self, old: &str, new: &str) -> Result<Answer, Halt> {
        let frame = ChangePassword { old: AuthKey::new(old), new: AuthKey::new(new) };
        match self.call(ClientFrame::ChangePassword(frame)).await {
            Ok(_) => Ok(Ok(Response::Done)),
            Err(CallError::Down) => Err(Halt::Down),
            Err(CallError::Refused(refusal)) => Ok(Err(ApiError::from(LinkError::from(refusal)))),
        }
    }

    fn on_unread(&self, limit: usize) -> Result<Response, Halt> {
        let mut messages: Vec<(u64, MessageView)> = Vec::new();
        for thread in self.threads.values().filter(|thread| !self.is_hidden(&thread.record)) {
            let record = &thread.record;
            let entries = self.store.read(|tx| tx.entries_after(record.id, (record.read_in, record.read)))?;
            // Clocks of gateways may differ; a conversation keeps its order, so that who marks each message
            // as read after the other leaves none out.
            let mut latest = 0;
            messages.extend(entries.iter().map(|entry| {
                latest = entry.at_ms.max(latest);
                (latest, self.view_entry(record, entry))
            }));
        }
        messages.sort_by_key(|(at_ms, _)| *at_ms);
        let newer = messages.len() > limit;
        messages.truncate(limit);
        let messages = messages.into_iter().map(|(_, view)| view).collect();
        Ok(Response::Messages { messages, older: false, newer })
    }

    fn on_mark_read(&mut self, conversation: &str, seq: Seq) -> Result<Answer, Halt> {
        let id = conversation.parse::<ConversationId>().ok().filter(|id| self.threads.contains_key(id));
        let Some(thread) = id.and_then(|id| self.threads.get(&id)) else {
            return Ok(Err(no_conversation(conversation)));
        };
        let record = thread.record.clone();
        if record.read_in == record.incarnation && seq <= record.read {
            return Ok(Ok(Response::Done));
        }
        let id = record.id;
        self.mark_read(record, seq)?;
        self.was_read(id);
        Ok(Ok(Response::Done))
    }

    /// Everything up to a place was seen, as far as it is here.
    pub(super) fn mark_read(&mut self, mut record: Conversation, seq: Seq) -> Result<(), Halt> {
        (record.read, record.read_in) = (seq.min(record.cursor), record.incarnation);
        self.recount(record)
    }

    /// Counts what is unread behind the place that was read, and stores both.
    pub(super) fn recount(&mut self, mut record: Conversation) -> Result<(), Halt> {
        let own = self.me.account();
        self.store.write(|tx| {
            let after = tx.entries_after(record.id, (record.read_in, record.read))?;
            let unread = after.iter().filter(|entry| entry.from.is_some_and(|(account, _)| account != own));
            record.unread = unread.count() as u64;
            tx.put_conversation(&record)
        })?;
        self.set_record(record);
        Ok(())
    }

    /// The one item whose id begins so.
    fn find_item(&self, prefix: &str) -> Result<i64, ApiError> {
        let mut found = self.items.iter().filter(|(_, item)| item.id.to_string().starts_with(prefix));
        match (found.next(), found.next()) {
            (Some((position, _)), None) => Ok(*position),
            (None, _) => {
                Err(ApiError::new(ErrorKind::NotFound, format!("the outbox has no message {prefix}")))
            }
            _ => Err(ApiError::new(
                ErrorKind::Usage,
                format!("{prefix} begins the ids of several messages: give more of it"),
            )),
        }
    }

    fn on_cancel(&mut self, prefix: &str) -> Result<Answer, Halt> {
        let position = match self.find_item(prefix) {
            Ok(position) => position,
            Err(error) => return Ok(Err(error)),
        };
        let Some(item) = self.items.get(&position) else { return Ok(Err(no_item())) };
        let id = item.id;
        if matches!(item.state, ItemState::Sealed { .. } | ItemState::Acked { .. }) {
            let message =
                "a gateway may have this message already: it cannot be taken back, and will be sent";
            return Ok(Err(ApiError::new(ErrorKind::Refused, message)));
        }
        let conversation = item.conversation;
        self.store.write(|tx| tx.delete_item(id))?;
        self.items.remove(&position);
        self.unrouted.retain(|at| *at != position);
        if let Some(thread) = conversation.and_then(|id| self.threads.get_mut(&id)) {
            thread.lane.remove(position);
        }
        self.answer(id, &Err(ApiError::new(ErrorKind::Interrupted, "the message was taken back")));
        Ok(Ok(Response::Done))
    }

    fn on_retry(&mut self, prefix: Option<&str>) -> Result<Answer, Halt> {
        let failed = |item: &Item| matches!(item.state, ItemState::Failed { .. });
        let positions = match prefix.map(|prefix| self.find_item(prefix)) {
            Some(Ok(position)) => vec![position],
            Some(Err(error)) => return Ok(Err(error)),
            None => {
                self.items.iter().filter(|(_, item)| failed(item)).map(|(position, _)| *position).collect()
            }
        };
        for position in positions {
            let Some(item) = self.items.get_mut(&position).filter(|item| failed(item)) else { continue };
            item.state = ItemState::Draft;
            let still = item.conversation.filter(|id| self.threads.contains_key(id));
            item.conversation = still;
            let item = item.clone();
            self.store.write(|tx| tx.put_item(&item))?;
            match still.and_then(|id| self.threads.get_mut(&id)) {
                Some(thread) => thread.lane.push(position),
                None => self.unrouted.push_back(position),
            }
        }
        self.route_wait.clear();
        Ok(Ok(Response::Done))
    }
}

/// Whether a text can be sent.
pub(super) fn check_text(text: &str) -> Result<(), ApiError> {
    let usage = |message: String| ApiError::new(ErrorKind::Usage, message);
    match text.len() {
        0 => Err(usage("there is nothing to send: the message is empty".into())),
        n if n > MAX_TEXT_BYTES => {
            Err(usage(format!("the message has {n} bytes; at most {MAX_TEXT_BYTES} can be sent at once")))
        }
        _ => Ok(()),
    }
}

/// The caller's id of a message.
pub(super) fn parse_id(text: &str) -> Result<ItemId, ApiError> {
    let mut id = [0; 16];
    let parsed = hex::decode_to_slice(text, &mut id).map(|()| ItemId(id));
    parsed.map_err(|_| ApiError::new(ErrorKind::Usage, "an id has 32 hexadecimal digits"))
}

fn no_item() -> ApiError {
    ApiError::new(ErrorKind::NotFound, "the outbox has no such message")
}

fn no_conversation(with: &str) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("there is no conversation with {with}"))
}

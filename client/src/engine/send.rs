//! Messages out: seal, store, offer, and what the answers do. The rules are in [`crate::outbox`].

use super::{
    Engine, Halt,
    error::OpError,
    rejoin::ROLLED_BACK,
    session::{Asked, CallError},
    state::Arrived,
};
use crate::{
    api::{ApiError, ErrorKind, Event, FailedView, Response, SentView, WaitingView},
    failpoint,
    link::LinkError,
    outbox::{Action, Verdict},
    store::{Item, ItemId, ItemState, Standing, What},
};
use fastchat_delivery::VerifiedManifest;
use fastchat_e2ee::{
    Content, GroupProfile, ManifestView, Message, Picture, Text,
    conversation::{self, ConversationError},
};
use fastchat_protocol::{
    Bytes, ClientFrame, ConversationId, Counter, Refusal, Seq, client,
    server::{LogKind, LogRow, Sent},
};
use std::time::Duration;
use tokio::time::Instant;

/// The longest pause between attempts.
const MAX_PAUSE: Duration = Duration::from_secs(30);

impl Engine {
    pub(super) async fn pump_all(&mut self) -> Result<(), Halt> {
        let ids: Vec<ConversationId> = self.threads.keys().copied().collect();
        for id in ids {
            self.pump(id).await?;
        }
        Ok(())
    }

    /// Sends what may be sent to one conversation.
    async fn pump(&mut self, id: ConversationId) -> Result<(), Halt> {
        loop {
            let now = Instant::now();
            let in_step = self.in_step(id);
            let Some(thread) = self.threads.get_mut(&id).filter(|_| in_step) else { return Ok(()) };
            let usable = matches!(thread.record.standing, Standing::Ready | Standing::Rejoining(_));
            if !usable || !thread.may_try(now) || thread.lane.is_empty() {
                return Ok(());
            }
            let behind = thread.wanted_epoch.is_some() && thread.window.is_behind(thread.record.cursor);
            let changing = thread.record.commit.is_some()
                || thread.update.is_some()
                || !thread.record.changes.is_empty();
            let changed =
                |account| self.contacts.get(account).is_some_and(|contact| contact.changed.is_some());
            let blocked = thread.record.people().iter().any(changed);
            thread.lane.sealing_held = behind || changing || blocked || !thread.is_ready();
            let (position, envelope) = match thread.lane.next() {
                None => return Ok(()),
                Some(Action::Offer(position, _)) => (position, self.stored_envelope(position)),
                Some(Action::Seal(..)) if self.audit(id)? => continue,
                Some(Action::Seal(position, counter)) => match self.seal(id, position, counter)? {
                    Some(envelope) => (position, Some(envelope)),
                    None => continue,
                },
            };
            let Some(envelope) = envelope else {
                // Without bytes there is nothing to offer; the store and memory would differ.
                return Err(Halt::Fatal(ApiError::internal("a sealed message has no bytes")));
            };
            self.offer(id, position, envelope).await?;
        }
    }

    fn stored_envelope(&self, position: i64) -> Option<(Counter, Bytes)> {
        match &self.items.get(&position)?.state {
            ItemState::Sealed { counter, envelope } => Some((*counter, envelope.clone())),
            _ => None,
        }
    }

    /// Counter, ratchet step and envelope in one transaction. `None` if it could not be sealed; then
    /// the lane was changed so that this is not tried again at once.
    fn seal(
        &mut self,
        id: ConversationId,
        position: i64,
        counter: Counter,
    ) -> Result<Option<(Counter, Bytes)>, Halt> {
        let (Some(thread), Some(item)) = (self.threads.get(&id), self.items.get(&position)) else {
            return Ok(None);
        };
        let (mut record, mut item, me) = (thread.record.clone(), item.clone(), self.me.clone());
        let old = match &item.state {
            ItemState::Sealed { counter, .. } => Some(*counter),
            _ => None,
        };
        let epoch = match thread.epoch {
            Some(epoch) => Some(epoch),
            None => self.info_of(id)?.map(|(info, _)| info.epoch),
        };
        let manifest = match epoch == record.gossiped {
            true => None,
            false => self.manifest(me.account()).map(|manifest| view_of(&manifest)),
        };
        record.gossiped = epoch;
        if let What::Timer { seconds } = item.what {
            // What is typed behind it is sealed before it is read in the log.
            record.timer_s = seconds;
        }
        item.expires_s = (record.timer_s > 0 && item.what.expires()).then_some(record.timer_s);
        let message = Message { manifest, expires_s: item.expires_s, ..Message::new(content_of(&item)) };
        let plaintext = fastchat_e2ee::Zeroizing::new(message.encode());
        let sealed = self.store.write(|tx| {
            let sealed = conversation::seal(&tx.vault(), &me, id, counter, &plaintext)?;
            item.state = ItemState::Sealed { counter, envelope: sealed.envelope.clone() };
            tx.put_item(&item)?;
            record.counter = counter.max(record.counter);
            record.sealed = record.sealed.saturating_add(1);
            tx.put_conversation(&record)?;
            Ok::<_, OpError>(sealed.envelope)
        });
        let envelope = match sealed {
            Ok(envelope) => envelope,
            Err(OpError::Store(error)) => return Err(error.into()),
            Err(OpError::Mls(error)) => {
                self.not_sealed(id, &error)?;
                return Ok(None);
            }
        };
        failpoint::pass("sealed");
        self.items.insert(position, item);
        if let Some(old) = old.filter(|old| self.by_counter.get(&(id, *old)) == Some(&position)) {
            self.by_counter.remove(&(id, old));
        }
        self.by_counter.insert((id, counter), position);
        self.set_record(record);
        if let Some(thread) = self.threads.get_mut(&id) {
            thread.lane.sealed(position, counter);
            thread.epoch = epoch;
        }
        Ok(Some((counter, envelope)))
    }

    fn not_sealed(&mut self, id: ConversationId, error: &ConversationError) -> Result<(), Halt> {
        match error {
            ConversationError::Removed(_) => {
                self.note(id, error.to_string())?;
                self.set_standing(id, Standing::Removed)
            }
            ConversationError::Pending => {
                // The record says that none is pending, so the library's one is of no use to anybody.
                self.store
                    .write(|tx| conversation::clear_pending(&tx.vault(), id).map_err(OpError::from))
                    .map_err(|e| match e {
                        OpError::Store(error) => Halt::from(error),
                        OpError::Mls(error) => Halt::Fatal(ApiError::internal(error)),
                    })?;
                self.pause(id, None);
                Ok(())
            }
            other => self.want_rejoin(id, &other.to_string()),
        }
    }

    pub(super) fn set_standing(&mut self, id: ConversationId, standing: Standing) -> Result<(), Halt> {
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        let mut record = thread.record.clone();
        record.standing = standing;
        self.store.write(|tx| tx.put_conversation(&record))?;
        self.set_record(record);
        Ok(())
    }

    async fn offer(
        &mut self,
        id: ConversationId,
        position: i64,
        (counter, envelope): (Counter, Bytes),
    ) -> Result<(), Halt> {
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(()) };
        let attempt = thread.lane.offered(position);
        failpoint::pass("before-send");
        let frame = ClientFrame::Send(client::Send { conversation: id, counter, envelope });
        match self.transmit(&frame, Asked::Send(id, attempt)).await {
            Ok(_) => {
                failpoint::pass("sent");
                Ok(())
            }
            Err(CallError::Down) => Err(Halt::Down),
            Err(CallError::Refused(refusal)) => self.on_send_answer(id, attempt, Err(refusal)),
        }
    }

    pub(super) fn on_send_answer(
        &mut self,
        id: ConversationId,
        attempt: u64,
        answer: Result<Sent, Refusal>,
    ) -> Result<(), Halt> {
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(()) };
        let wanted = answer.as_ref().err().map(|refusal| (refusal.epoch, refusal.expected, refusal.seq));
        let Some((position, verdict)) =
            thread.lane.on_answer(attempt, answer.map(|sent| (sent.seq, sent.at_ms)))
        else {
            return Ok(());
        };
        match verdict {
            Verdict::Acked { seq, at_ms } => {
                thread.failures = 0;
                self.on_acked(id, position, seq, at_ms)
            }
            Verdict::Expired => self.on_expired(position, wanted.and_then(|(_, _, seq)| seq)),
            Verdict::CatchUp => {
                // At least one more page, whatever is known of the head.
                thread.wanted_epoch =
                    wanted.and_then(|(epoch, ..)| epoch).or(thread.wanted_epoch).or(Some(Default::default()));
                thread.window.want();
                thread.failures += 1;
                match thread.failures {
                    0..8 => Ok(()),
                    // Read to the end again and again, and still in another epoch.
                    _ => self.want_rejoin(id, "the server is in another epoch than the log"),
                }
            }
            Verdict::Settled => Ok(()),
            Verdict::RolledBack => {
                self.on_rolled_back(id, position, wanted.and_then(|(_, expected, _)| expected))
            }
            Verdict::Later(refusal) => {
                self.pause(id, refusal.wait_ms.map(|ms| Duration::from_millis(ms.into())));
                self.waits(position, refusal.to_string());
                Ok(())
            }
            Verdict::Failed(refusal) => {
                let error = LinkError::from(refusal);
                self.fail(position, ApiError::new(error.kind(), error.to_string()), true)
            }
        }
    }

    /// The server has it. It is shown when the cursor gets there, which is at once unless others
    /// were faster.
    fn on_acked(&mut self, id: ConversationId, position: i64, seq: Seq, at_ms: u64) -> Result<(), Halt> {
        let (Some(thread), Some(item)) = (self.threads.get_mut(&id), self.items.get_mut(&position)) else {
            return Ok(());
        };
        let ItemState::Sealed { counter, envelope } = item.state.clone() else { return Ok(()) };
        let row = LogRow {
            seq,
            sender: self.me.id(),
            counter,
            kind: LogKind::Application,
            at_ms,
            envelope: Some(envelope.clone()),
        };
        let next = thread.record.cursor.next() == seq;
        thread.window.offer(thread.record.cursor, seq, Arrived { row, from_log: true });
        if next {
            return Ok(());
        }
        item.state = ItemState::Acked { counter, envelope, seq, at_ms };
        let (id_of_item, item) = (item.id, item.clone());
        self.store.write(|tx| {
            tx.put_item(&item)?;
            tx.remember_sent(id_of_item, &(id, seq.0, at_ms))
        })?;
        self.announce_sent(id_of_item, id, seq.0, at_ms);
        Ok(())
    }

    /// Stored once, and past retention by now.
    fn on_expired(&mut self, position: i64, seq: Option<Seq>) -> Result<(), Halt> {
        let Some(item) = self.items.remove(&position) else { return Ok(()) };
        let Some(id) = item.conversation else { return Ok(()) };
        let seq = seq.unwrap_or_default().0;
        self.store.write(|tx| {
            tx.delete_item(item.id)?;
            tx.remember_sent(item.id, &(id, seq, 0))
        })?;
        self.by_counter.retain(|_, at| *at != position);
        self.announce_sent(item.id, id, seq, 0);
        self.note(id, format!("a message of ours was stored at {seq} and is past the server's retention"))
    }

    /// The server has other bytes under this counter. The message gets another one once the
    /// conversation was entered anew.
    fn on_rolled_back(
        &mut self,
        id: ConversationId,
        position: i64,
        expected: Option<Counter>,
    ) -> Result<(), Halt> {
        self.make_drafts(id, &[position])?;
        match expected {
            Some(expected) => self.advance_counter(id, Counter(expected.0.saturating_sub(1)))?,
            // The sync says which counters are taken.
            None => self.sync_wanted = true,
        }
        self.want_rejoin(id, ROLLED_BACK)
    }

    /// These messages are as if they had never been sealed.
    pub(super) fn make_drafts(&mut self, id: ConversationId, positions: &[i64]) -> Result<(), Halt> {
        let mut changed = Vec::new();
        for position in positions {
            let Some(item) = self.items.get_mut(position) else { continue };
            item.state = ItemState::Draft;
            changed.push(item.clone());
            self.by_counter.retain(|(of, _), at| *of != id || at != position);
        }
        self.store.write(|tx| changed.iter().try_for_each(|item| tx.put_item(item)))?;
        Ok(())
    }

    /// Waits before the next attempt: as long as asked, or longer each time.
    pub(super) fn pause(&mut self, id: ConversationId, wish: Option<Duration>) {
        let Some(thread) = self.threads.get_mut(&id) else { return };
        let ceiling = Duration::from_millis(250).saturating_mul(1 << thread.failures.min(8)).min(MAX_PAUSE);
        thread.failures += 1;
        let wait = wish.unwrap_or_else(|| ceiling.mul_f64(0.5 + rand::random::<f64>() / 2.0));
        thread.retry_at = Some(Instant::now() + wait);
    }

    /// Says that a message waits, and why.
    pub(super) fn waits(&mut self, position: i64, reason: String) {
        let Some(item) = self.items.get(&position) else { return };
        let id = item.id;
        if self.problems.insert(id, reason.clone()).as_ref() != Some(&reason) {
            self.say(Event::Waiting(WaitingView { id: id.to_string(), reason }));
        }
    }

    /// The message will not be sent. It stays in the outbox as failed, unless `keep` is false and
    /// somebody is there to be told.
    pub(super) fn fail(&mut self, position: i64, error: ApiError, keep: bool) -> Result<(), Halt> {
        let Some(mut item) = self.items.remove(&position) else { return Ok(()) };
        self.by_counter.retain(|_, at| *at != position);
        self.unrouted.retain(|at| *at != position);
        self.problems.remove(&item.id);
        let id = item.id;
        let heard = self.waiters.iter().any(|waiter| waiter.id == id && !waiter.reply.is_closed());
        if heard && !keep {
            self.store.write(|tx| tx.delete_item(id))?;
        } else {
            item.state = ItemState::Failed { reason: error.message.clone() };
            self.store.write(|tx| tx.put_item(&item))?;
            self.items.insert(position, item);
        }
        self.say(Event::Failed(FailedView { id: id.to_string(), reason: error.message.clone() }));
        self.answer(id, &Err(error));
        Ok(())
    }

    pub(super) fn announce_sent(&mut self, id: ItemId, conversation: ConversationId, seq: u64, at_ms: u64) {
        let view = SentView { id: id.to_string(), conversation: conversation.to_string(), seq, at_ms };
        self.say(Event::Sent(view.clone()));
        self.answer(id, &Ok(Response::Sent(view)));
    }

    /// Tells everybody who waits for this message.
    pub(super) fn answer(&mut self, id: ItemId, answer: &Result<Response, ApiError>) {
        for at in (0..self.waiters.len()).rev() {
            if self.waiters[at].id == id {
                let waiter = self.waiters.swap_remove(at);
                let answer = match (answer, waiter.group) {
                    (Ok(Response::Sent(_)), Some(group)) => self.view_group(group),
                    _ => answer.clone(),
                };
                let _ = waiter.reply.send(answer);
            }
        }
    }

    /// Answers those who have waited long enough, and all of them if no retry can help.
    pub(super) fn answer_waiters(&mut self) {
        let now = Instant::now();
        let ended = self.ended.clone();
        for at in (0..self.waiters.len()).rev() {
            let due = self.waiters[at].deadline <= now;
            if !due && ended.is_none() {
                continue;
            }
            let waiter = self.waiters.swap_remove(at);
            let answer = match &ended {
                Some(error) => {
                    Err(ApiError::new(error.kind(), format!("{error}; the message is kept in the outbox")))
                }
                None => Ok(Response::Waiting(WaitingView {
                    id: waiter.id.to_string(),
                    reason: self.reason(waiter.id),
                })),
            };
            let _ = waiter.reply.send(answer);
        }
        self.answer_sync_waiters(now);
        self.answer_change_waiters();
        self.answer_presence();
        self.answer_file_waiters();
    }

    /// Why a message is still here.
    pub(super) fn reason(&self, id: ItemId) -> String {
        let offline = self.session.is_none().then(|| self.down.clone()).flatten();
        let offline = self.older.clone().or(offline);
        offline.or_else(|| self.problems.get(&id).cloned()).unwrap_or_else(|| match self.session {
            Some(_) => "the server has not answered yet".to_owned(),
            None => "not connected yet".to_owned(),
        })
    }

    /// The connection is gone: whoever waits for a message hears why.
    pub(super) fn tell_waiters(&self) {
        for waiter in &self.waiters {
            self.say(Event::Waiting(WaitingView {
                id: waiter.id.to_string(),
                reason: self.reason(waiter.id),
            }));
        }
    }

    /// A message to an account whose identity changed: nothing goes out before somebody has looked.
    pub(super) fn untrusted(&self, name: &str) -> ApiError {
        ApiError::new(
            ErrorKind::Untrusted,
            format!(
                "the identity key of {name} has changed: nothing is sent until you have compared the new safety number \
                 (`fastchat verify {name}`) and accepted it (`fastchat verify {name} --accept`); the message is kept in the outbox"
            ),
        )
    }
}

/// What an item says.
pub(super) fn content_of(item: &Item) -> Content {
    match &item.what {
        What::Text => Content::Text(item.text.as_str().into()),
        What::File(file) => Content::File(file.clone()),
        What::Profile { name, picture } => Content::Profile(GroupProfile {
            name: name.clone(),
            picture: picture
                .as_ref()
                .map(|picture| Picture { mime: picture.mime.clone(), bytes: picture.bytes.to_vec() }),
        }),
        What::Accepted => Content::Accepted,
        What::Said { reply, mentions } => {
            Content::Text(Text { text: item.text.clone(), reply: *reply, mentions: mentions.clone() })
        }
        What::Edit { target, mentions } => Content::Edit {
            target: *target,
            text: Text { text: item.text.clone(), reply: None, mentions: mentions.clone() },
        },
        What::Delete { target } => Content::Delete { target: *target },
        What::Reaction { target, emoji } => Content::Reaction { target: *target, emoji: emoji.clone() },
        What::Timer { seconds } => Content::Timer { seconds: *seconds },
        What::History(share) => Content::History(share.clone()),
    }
}

/// What the others are told about the own devices.
fn view_of(manifest: &VerifiedManifest) -> ManifestView {
    let mut hash = [0; 8];
    hash.iter_mut().zip(manifest.hash()).for_each(|(short, byte)| *short = byte);
    ManifestView { version: manifest.version(), hash }
}

/// An id as logs show it.
pub(super) fn short_of(id: &ItemId) -> String {
    id.to_string()[..8].to_owned()
}

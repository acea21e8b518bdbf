//! How far others are, as far as they tell, and what the server is told of this account.
//!
//! - What is known of a conversation is kept sealed ([`Kept`]) and outlives the session. Live receipts
//!   are hints; the server is asked only for what somebody looks at or waits for, and at the beginning of
//!   a session for a few conversations with something unread: another device may have read it.
//! - What a person has seen is told once, with each session until the server has said yes; privately, if
//!   this device keeps it to itself or nobody has said yes to the conversation.
//! - All of it is the server's word: a lying server can claim that a message was read.

use super::{
    Engine, Halt,
    parked::{Answer, MAX_WAIT, Reply, Then},
    session::{Asked, CallError, passes},
};
use crate::{
    api::{
        ApiError, ErrorKind, Event, PrivacyChange, PrivacyView, ReceiptView, ReceiptsView, Response,
        TypingView,
    },
    link::LinkError,
    store::{Conversation, Standing, StoreError},
};
use fastchat_protocol::{
    AccountId, ClientFrame, ConversationId, Refusal, Seq, ServerFrame, client,
    limits::MAX_RECEIPT_MEMBERS,
    server::{self, MemberReceipt, Sharing},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};
use tokio::time::Instant;

/// The setting that keeps read positions to this account.
const PRIVATE: &str = "read-privately";
/// Between questions for a conversation that somebody waits for: a live receipt may be lost.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// How long what changed waits to be written together.
const KEEP_DELAY: Duration = Duration::from_millis(500);
/// Limit: conversations with something unread that are asked for when a session begins.
const MAX_ASKED: usize = 16;
/// Entries among which the last own message is looked for.
const LOOK_BACK: usize = 500;

/// What is kept of a conversation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Kept {
    /// Places are meant in this incarnation of the log.
    incarnation: u32,
    members: BTreeMap<AccountId, Far>,
    /// The read position that the server has of this account.
    told: Seq,
    /// A person has marked the conversation as unread: read positions up to here say nothing.
    unread_up_to: Seq,
}

/// How far a member is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Far {
    from: Seq,
    delivered: Option<Seq>,
    read: Option<Seq>,
}

/// Somebody waits until everybody has a message.
#[derive(Debug)]
struct Waiter {
    conversation: ConversationId,
    seq: Seq,
    deadline: Instant,
    reply: Reply,
}

/// What the engine has to do with receipts.
#[derive(Debug, Default)]
pub(super) struct Book {
    kept: HashMap<ConversationId, Kept>,
    changed: BTreeSet<ConversationId>,
    keep_at: Option<Instant>,
    /// The server is to hear what was read there.
    due: BTreeSet<ConversationId>,
    /// Not before, because it said so.
    due_at: Option<Instant>,
    waiters: Vec<Waiter>,
    ask_at: Option<Instant>,
    /// Asked for in this session, and answered.
    fresh: HashSet<ConversationId>,
    begun: bool,
}

impl Book {
    /// The session is over.
    pub(super) fn forget_session(&mut self) {
        self.fresh.clear();
        (self.begun, self.due_at, self.ask_at) = (false, None, None);
    }

    /// When there is something to do, `online` or not.
    pub(super) fn next_at(&self, online: bool) -> Option<Instant> {
        let due = (!self.due.is_empty()).then(|| self.due_at.unwrap_or_else(Instant::now));
        let asks = (!self.waiters.is_empty()).then(|| self.ask_at.unwrap_or_else(Instant::now));
        let waiters = self.waiters.iter().map(|waiter| waiter.deadline).min();
        [due.filter(|_| online), asks.filter(|_| online), self.keep_at, waiters].into_iter().flatten().min()
    }

    fn take_waiters(&mut self, over: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
        self.waiters.extract_if(.., |waiter| over(waiter)).collect()
    }
}

impl Far {
    /// Takes news in; true if they are.
    fn advance(&mut self, delivered: Option<Seq>, read: Option<Seq>) -> bool {
        let before = *self;
        // What was read was received.
        self.delivered = self.delivered.max(delivered).max(read);
        self.read = self.read.max(read);
        *self != before
    }

    fn has(&self, seq: Seq) -> bool {
        self.delivered >= Some(seq)
    }
}

impl Engine {
    /// A member has received or read further, or another device of this account has read.
    pub(super) fn on_receipt(&mut self, told: &server::Receipt) -> Result<(), Halt> {
        let server::Receipt { conversation, account, delivered, read } = *told;
        if account == self.me.account() {
            return read.map_or(Ok(()), |seq| self.read_elsewhere(conversation, seq));
        }
        let Some(record) = self.shown_record(conversation).cloned() else { return Ok(()) };
        if !others(&record, self.me.account()).contains(&account) {
            return Ok(());
        }
        let from = self.kept(&record)?.members.get(&account).map_or(Seq(0), |far| far.from);
        self.advance(&record, MemberReceipt { account, from, delivered, read })
    }

    /// The server's answer: this is how far everybody is.
    pub(super) fn on_receipts(&mut self, receipts: &server::Receipts) -> Result<(), Halt> {
        let Some(record) = self.shown_record(receipts.conversation).cloned() else { return Ok(()) };
        let (own, listed) = (self.me.account(), others(&record, self.me.account()));
        for told in &receipts.members {
            match told.account {
                account if account == own => {
                    if let Some(seq) = told.read {
                        self.read_elsewhere(record.id, seq)?;
                    }
                }
                account if listed.contains(&account) => self.advance(&record, *told)?,
                _ => {}
            }
        }
        self.book.fresh.insert(record.id);
        Ok(())
    }

    fn advance(&mut self, record: &Conversation, told: MemberReceipt) -> Result<(), Halt> {
        let MemberReceipt { account, from, delivered, read } = told;
        let far = self.kept(record)?.members.entry(account).or_default();
        let moved = far.from != from;
        far.from = from;
        if !far.advance(delivered, read) {
            if moved {
                self.keep_later(record.id);
            }
            return Ok(());
        }
        let far = *far;
        self.keep_later(record.id);
        self.say(Event::Receipt(ReceiptView {
            with: self.title(record),
            conversation: record.id.to_string(),
            by: self.name_of(account),
            delivered: far.delivered.map(|seq| seq.0),
            read: far.read.map(|seq| seq.0),
        }));
        Ok(())
    }

    /// Another device of this account has read so far: nothing up to there is unread here either.
    fn read_elsewhere(&mut self, id: ConversationId, seq: Seq) -> Result<(), Halt> {
        let Some(record) = self.shown_record(id).cloned() else { return Ok(()) };
        let kept = self.kept(&record)?;
        if seq <= kept.told {
            return Ok(());
        }
        kept.told = seq;
        let again = seq > kept.unread_up_to;
        self.keep_later(id);
        match again {
            true => self.catch_up_reading(id),
            false => Ok(()),
        }
    }

    /// Applies what was read elsewhere, as far as the rows are here.
    fn catch_up_reading(&mut self, id: ConversationId) -> Result<(), Halt> {
        let Some(record) = self.threads.get(&id).map(|thread| thread.record.clone()) else { return Ok(()) };
        let told = self.kept(&record)?.told;
        if record.read < told.min(record.cursor) {
            self.mark_read(record, told)?;
        }
        Ok(())
    }

    /// Rows have come that another device has read already.
    pub(super) fn catch_up_all_reading(&mut self) -> Result<(), Halt> {
        let behind = |(id, kept): (&ConversationId, &Kept)| {
            let record = &self.threads.get(id)?.record;
            let wanted = kept.told.min(record.cursor);
            let behind = record.unread > 0 && record.read < wanted && wanted > kept.unread_up_to;
            behind.then_some(*id)
        };
        let ids: Vec<_> = self.book.kept.iter().filter_map(behind).collect();
        ids.into_iter().try_for_each(|id| self.catch_up_reading(id))
    }

    /// A person has seen something: the server is told in a moment.
    pub(super) fn was_read(&mut self, id: ConversationId) {
        self.book.due.insert(id);
    }

    /// Somebody types.
    pub(super) fn on_typing(&self, told: &server::Typing) {
        let server::Typing { conversation, account, typing } = *told;
        let Some(record) = self.shown_record(conversation) else { return };
        if others(record, self.me.account()).contains(&account) {
            let (with, by) = (self.title(record), self.name_of(account));
            self.say(Event::Typing(TypingView { with, conversation: conversation.to_string(), by, typing }));
        }
    }

    /// Tells and asks what is due, with a session.
    pub(super) async fn do_receipts(&mut self) -> Result<(), Halt> {
        if !std::mem::replace(&mut self.book.begun, true) {
            self.begin_receipts().await?;
        }
        if self.book.due_at.is_none_or(|at| at <= Instant::now()) {
            self.book.due_at = None;
            self.tell_read().await?;
        }
        if !self.book.waiters.is_empty() && self.book.ask_at.is_none_or(|at| at <= Instant::now()) {
            self.book.ask_at = Some(Instant::now() + ASK_AGAIN);
            let wanted: BTreeSet<_> = self.book.waiters.iter().map(|waiter| waiter.conversation).collect();
            self.ask_receipts(wanted).await?;
        }
        Ok(())
    }

    /// What was read while there was no session is told, and what others of ours have read is asked for.
    async fn begin_receipts(&mut self) -> Result<(), Halt> {
        let records: Vec<_> = self.threads.values().map(|thread| thread.record.clone()).collect();
        for record in records.iter().filter(|record| record.read_in == record.incarnation) {
            if record.read > self.kept(record)?.told {
                self.book.due.insert(record.id);
            }
        }
        let unread = records.iter().filter(|record| record.unread > 0 && record.request.is_none());
        self.ask_receipts(unread.map(|record| record.id).take(MAX_ASKED).collect()).await
    }

    async fn ask_receipts(&mut self, wanted: BTreeSet<ConversationId>) -> Result<(), Halt> {
        for id in wanted {
            // Of a log that is gone, or of a conversation that is not founded yet, there is nothing to say.
            if self.in_step(id) {
                let ask = ClientFrame::GetReceipts(client::GetReceipts { conversation: id });
                self.transmit(&ask, Asked::Receipts(id)).await?;
            }
        }
        Ok(())
    }

    /// Tells the server what was read; its answers come as events.
    pub(super) async fn tell_read(&mut self) -> Result<(), Halt> {
        let private = self.is_private()?;
        for id in std::mem::take(&mut self.book.due) {
            if let Some((seq, shared)) = self.due_mark(id, private)? {
                let mark = client::MarkRead { conversation: id, seq, shared };
                self.transmit(&ClientFrame::MarkRead(mark), Asked::Read(id, seq)).await?;
            }
        }
        Ok(())
    }

    fn due_mark(&mut self, id: ConversationId, private: bool) -> Result<Option<(Seq, bool)>, Halt> {
        let Some(record) = self.threads.get(&id).map(|thread| thread.record.clone()) else { return Ok(None) };
        let stands =
            record.standing == Standing::Ready && self.in_step(id) && record.read_in == record.incarnation;
        let told = self.kept(&record)?.told;
        // Whoever was not said yes to does not learn that they were read.
        let shared = !private && record.request.is_none() && !self.is_hidden(&record);
        Ok((stands && record.read > told).then_some((record.read, shared)))
    }

    /// The server's word about a read position.
    pub(super) fn on_read_answer(
        &mut self,
        id: ConversationId,
        seq: Seq,
        refusal: Option<&Refusal>,
    ) -> Result<(), Halt> {
        if let Some(refusal) = refusal.filter(|refusal| passes(refusal.code)) {
            let wait = Duration::from_millis(refusal.wait_ms.unwrap_or(1_000).into());
            self.book.due.insert(id);
            self.book.due_at = Some(Instant::now() + wait);
            return Ok(());
        }
        // One that was refused for good is not tried again.
        let Some(record) = self.threads.get(&id).map(|thread| thread.record.clone()) else { return Ok(()) };
        let kept = self.kept(&record)?;
        kept.told = kept.told.max(seq);
        self.keep_later(id);
        Ok(())
    }

    /// Marks everything from the last message of others on as unread, on this device.
    pub(super) fn on_mark_unread(&mut self, with: &str) -> Result<Answer, Halt> {
        let id = match self.find_known(with) {
            Ok(id) => id,
            Err(error) => return Ok(Err(error)),
        };
        let own = self.me.account();
        let entries = self.store.read(|tx| tx.last_entries(id, LOOK_BACK))?;
        let last = entries.iter().rev().find(|entry| entry.from.is_some_and(|(account, _)| account != own));
        let Some(last) = last else {
            let message = format!("{with} has sent nothing that could be unread");
            return Ok(Err(ApiError::new(ErrorKind::NotFound, message)));
        };
        let Some(mut record) = self.threads.get(&id).map(|thread| thread.record.clone()) else {
            return Ok(Ok(Response::Done));
        };
        let kept = self.kept(&record)?;
        kept.unread_up_to = kept.told.max(record.read).max(last.seq);
        self.keep_later(id);
        (record.read, record.read_in) = (Seq(last.seq.0.saturating_sub(1)), last.incarnation);
        self.recount(record)?;
        Ok(Ok(Response::Done))
    }

    /// Marks everything up to a place as read; `None`: all that is here.
    pub(super) fn on_read(&mut self, with: &str, seq: Option<u64>) -> Result<Answer, Halt> {
        let id = match self.find_known(with) {
            Ok(id) => id,
            Err(error) => return Ok(Err(error)),
        };
        let Some(record) = self.threads.get(&id).map(|thread| thread.record.clone()) else {
            return Ok(Ok(Response::Done));
        };
        let seq = seq.map_or(record.cursor, Seq);
        if record.read_in != record.incarnation || seq > record.read {
            self.mark_read(record, seq)?;
        }
        self.was_read(id);
        Ok(Ok(Response::Done))
    }

    /// Who has a message: asked for, then shown.
    pub(super) async fn look_at_receipts(&mut self, with: &str, seq: Option<u64>) -> Result<Then, Halt> {
        let id = match self.find_known(with) {
            Ok(id) => id,
            Err(error) => return Ok(Then::now(Err(error))),
        };
        let ask = ClientFrame::GetReceipts(client::GetReceipts { conversation: id });
        match self.call(ask).await {
            Ok(ServerFrame::Receipts(receipts)) if receipts.conversation == id => {
                self.on_receipts(&receipts)?
            }
            Ok(other) => {
                return Ok(Then::now(Err(ApiError::internal(format!("{} is no answer", other.name())))));
            }
            Err(CallError::Down) => return Err(Halt::Down),
            Err(CallError::Refused(refusal)) => return Ok(Then::now(Err(LinkError::from(refusal).into()))),
        }
        self.known_receipts(with, seq, true).map(Then::now)
    }

    /// Who has a message, as far as this device knows.
    pub(super) fn known_receipts(
        &mut self,
        with: &str,
        seq: Option<u64>,
        fresh: bool,
    ) -> Result<Answer, Halt> {
        let id = match self.find_known(with) {
            Ok(id) => id,
            Err(error) => return Ok(Err(error)),
        };
        let own = self.me.account();
        let seq = match seq {
            Some(seq) => Some(Seq(seq)),
            None => {
                let entries = self.store.read(|tx| tx.last_entries(id, LOOK_BACK))?;
                let sent = |from: (AccountId, _)| from.0 == own;
                entries.iter().rev().find(|entry| entry.from.is_some_and(sent)).map(|entry| entry.seq)
            }
        };
        let Some(seq) = seq else {
            let message = format!("you have sent nothing to {with} yet");
            return Ok(Err(ApiError::new(ErrorKind::NotFound, message)));
        };
        Ok(self.view_receipts(id, seq, fresh)?.map(Response::Receipts))
    }

    fn view_receipts(
        &mut self,
        id: ConversationId,
        seq: Seq,
        fresh: bool,
    ) -> Result<Result<ReceiptsView, ApiError>, Halt> {
        let Some(record) = self.threads.get(&id).map(|thread| thread.record.clone()) else {
            return Ok(Err(ApiError::new(ErrorKind::NotFound, "there is no such conversation")));
        };
        let members = self.kept(&record)?.members.clone();
        let (mut delivered, mut read, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for account in others(&record, self.me.account()) {
            let far = members.get(&account).copied().unwrap_or_default();
            let name = self.name_of(account);
            if far.read >= Some(seq) {
                read.push(name.clone());
            }
            match far.has(seq) {
                true => delivered.push(name),
                // What was said before somebody came in is not for them.
                false if far.from <= seq => waiting.push(name),
                false => {}
            }
        }
        [&mut delivered, &mut read, &mut waiting].into_iter().for_each(|names| names.sort());
        let (with, conversation) = (self.title(&record), id.to_string());
        Ok(Ok(ReceiptsView { with, conversation, seq: seq.0, delivered, read, waiting, fresh }))
    }

    /// Waits until everybody has a message.
    pub(super) fn await_delivered(&mut self, with: &str, seq: u64, wait_ms: u64, reply: Reply) {
        let conversation = match self.find_awaitable(with) {
            Ok(id) => id,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let deadline = Instant::now() + Duration::from_millis(wait_ms).min(MAX_WAIT);
        self.book.waiters.push(Waiter { conversation, seq: Seq(seq), deadline, reply });
        self.book.ask_at = None;
    }

    /// A conversation that is small enough to be told of.
    fn find_awaitable(&self, with: &str) -> Result<ConversationId, ApiError> {
        let id = self.find_known(with)?;
        let record = self.threads.get(&id).map(|thread| &thread.record);
        let members = record.map_or(0, |record| others(record, self.me.account()).len() + 1);
        if members <= MAX_RECEIPT_MEMBERS {
            return Ok(id);
        }
        let message = format!(
            "{with} has {members} members: with more than {MAX_RECEIPT_MEMBERS} nobody is told live who has a \
             message. It is sent; `fastchat receipts` asks"
        );
        Err(ApiError::new(ErrorKind::Refused, message))
    }

    /// Answers whoever waits for a delivery, if it is there or has been waited for long enough.
    pub(super) fn answer_delivery_waiters(&mut self) -> Result<(), Halt> {
        let now = Instant::now();
        let places: Vec<_> = self.book.waiters.iter().map(|one| (one.conversation, one.seq)).collect();
        let mut done = HashSet::new();
        for (id, seq) in places {
            let complete = self.view_receipts(id, seq, true)?.is_ok_and(|view| view.waiting.is_empty());
            if complete && self.book.fresh.contains(&id) {
                done.insert((id, seq));
            }
        }
        let ended = self.ended.is_some();
        let over = |waiter: &Waiter| {
            ended || waiter.deadline <= now || done.contains(&(waiter.conversation, waiter.seq))
        };
        for waiter in self.book.take_waiters(over) {
            let answer = self.view_receipts(waiter.conversation, waiter.seq, true)?;
            let _ = waiter.reply.send(answer.map(Response::Receipts));
        }
        Ok(())
    }

    /// Tells the others that a person types here.
    pub(super) async fn set_typing(&mut self, with: &str, typing: bool) -> Result<Answer, Halt> {
        let id = match self.find_known(with) {
            Ok(id) => id,
            Err(error) => return Ok(Err(error)),
        };
        let frame = ClientFrame::Typing(client::Typing { conversation: id, typing });
        self.tell(&frame).await.map_err(Halt::from)?;
        Ok(Ok(Response::Done))
    }

    /// Says, and changes, what others may learn.
    pub(super) async fn privacy(&mut self, change: PrivacyChange) -> Result<Answer, Halt> {
        let Some(now) = self.session.as_ref().and_then(|session| session.welcome.sharing) else {
            let message = "this server knows neither receipts nor last seen: it is to be updated";
            return Ok(Err(ApiError::new(ErrorKind::Refused, message)));
        };
        let PrivacyChange { read, delivered, last_seen, online } = change;
        let wanted = Sharing {
            online: online.unwrap_or(now.online),
            delivered: delivered.unwrap_or(now.delivered),
            last_seen: last_seen.unwrap_or(now.last_seen),
        };
        if let Some(read) = read {
            self.store.write(|tx| tx.set_setting(PRIVATE, &!read))?;
        }
        let mut frames = Vec::new();
        if (wanted.delivered, wanted.last_seen) != (now.delivered, now.last_seen) {
            let (delivered, last_seen) = (wanted.delivered, wanted.last_seen);
            frames.push(ClientFrame::SetSharing(client::SetSharing { delivered, last_seen }));
        }
        if wanted.online != now.online {
            frames.push(ClientFrame::SetVisible(client::SetVisible { visible: wanted.online }));
        }
        for frame in frames {
            match self.call(frame).await {
                Ok(_) => {}
                Err(CallError::Down) => return Err(Halt::Down),
                Err(CallError::Refused(refusal)) => return Ok(Err(LinkError::from(refusal).into())),
            }
        }
        if let Some(session) = &mut self.session {
            session.welcome.sharing = Some(wanted);
        }
        let Sharing { online, delivered, last_seen } = wanted;
        let read = !self.is_private()?;
        Ok(Ok(Response::Privacy(PrivacyView { read, delivered, last_seen, online })))
    }

    fn is_private(&self) -> Result<bool, StoreError> {
        Ok(self.store.read(|tx| tx.setting(PRIVATE))?.unwrap_or(false))
    }

    /// Writes what changed, once it has waited a moment; `now`: at once.
    pub(super) fn keep_receipts(&mut self, now: bool) -> Result<(), Halt> {
        if !now && self.book.keep_at.is_none_or(|at| at > Instant::now()) {
            return Ok(());
        }
        self.book.keep_at = None;
        let changed = std::mem::take(&mut self.book.changed);
        if changed.is_empty() {
            return Ok(());
        }
        let kept = &self.book.kept;
        self.store.write(|tx| {
            let all = changed.iter().filter_map(|id| Some((id, kept.get(id)?)));
            all.into_iter().try_for_each(|(id, kept)| tx.set_setting(&place(*id), kept))
        })?;
        Ok(())
    }

    fn keep_later(&mut self, id: ConversationId) {
        self.book.changed.insert(id);
        self.book.keep_at.get_or_insert_with(|| Instant::now() + KEEP_DELAY);
    }

    /// What is kept of a conversation; nothing of another incarnation of its log.
    fn kept(&mut self, record: &Conversation) -> Result<&mut Kept, StoreError> {
        if !self.book.kept.contains_key(&record.id) {
            let stored = self.store.read(|tx| tx.setting::<Kept>(&place(record.id)))?;
            self.book.kept.insert(record.id, stored.unwrap_or_default());
        }
        let kept = self.book.kept.entry(record.id).or_default();
        if kept.incarnation != record.incarnation {
            *kept = Kept { incarnation: record.incarnation, ..Kept::default() };
        }
        Ok(kept)
    }

    fn shown_record(&self, id: ConversationId) -> Option<&Conversation> {
        let record = self.threads.get(&id).map(|thread| &thread.record);
        record.filter(|record| !self.is_hidden(record))
    }
}

/// The members besides this account.
fn others(record: &Conversation, own: AccountId) -> BTreeSet<AccountId> {
    let group = record.group().into_iter().flat_map(|group| group.roles.keys().copied());
    record.peer().into_iter().chain(group).filter(|account| *account != own).collect()
}

fn place(id: ConversationId) -> String {
    format!("receipts-{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_was_received_and_nothing_goes_back() {
        let mut far = Far::default();
        assert!(far.advance(Some(Seq(4)), None) && far.has(Seq(4)) && !far.has(Seq(5)));
        assert!(far.advance(None, Some(Seq(6))) && far.has(Seq(6)));
        assert!(!far.advance(Some(Seq(3)), Some(Seq(2))));
        assert_eq!(far, Far { from: Seq(0), delivered: Some(Seq(6)), read: Some(Seq(6)) });
    }
}

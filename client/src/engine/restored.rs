//! After the server's store was restored from a backup: what this device has, beside what is left there.
//!
//! - Before anything else of a session, every conversation is compared with what the server says of it
//!   ([`Engine::reconcile`]), each in one transaction. Until then nothing of it is sent, read or acked.
//! - What was read stays, under its old incarnation. What was not surely stored is sealed anew.
//! - Where the keys are newer than the backup, the conversation waits ([`Standing::Restoring`]) until
//!   [`super::refound`] or somebody else has founded the next generation.
//! - A store that is older than what was seen here, and does not say so, is not served at all.
//!
//! Invariant: this device's own keys never go back, so no key seals twice, whatever the server has lost.

use super::{
    Engine, Halt,
    counts::Counts,
    error::OpError,
    mailbox,
    session::{CallError, passes},
    state::{Arrived, notice, now_ms},
};
use crate::{
    api::{ApiError, ErrorKind},
    outbox::{Lane, Slot, Stage},
    restored::{Held, Verdict, judge},
    store::{Conversation, Entry, Item, ItemState, Standing},
};
use fastchat_e2ee::conversation;
use fastchat_protocol::{
    Bytes, ClientFrame, ConversationId, Counter, Epoch, Seq, client,
    server::{ConversationState, Restored},
};
use std::collections::BTreeSet;

/// The newest incarnation that a server has shown to this profile.
pub(super) const INCARNATION: &str = "incarnation";

impl Engine {
    /// The incarnation of the session; 0 without one.
    pub(super) fn incarnation(&self) -> u32 {
        self.session.as_ref().map_or(0, |session| session.hello.incarnation)
    }

    /// Whether what this device has of a conversation is of the log that the session serves.
    pub(super) fn in_step(&self, id: ConversationId) -> bool {
        let incarnation = self.session.as_ref().map(|session| session.hello.incarnation);
        self.threads.get(&id).is_some_and(|thread| Some(thread.record.incarnation) == incarnation)
    }

    /// A session of another incarnation than the one before: the mailbox is read from its beginning.
    /// What is there still was not acknowledged in this log, and what was done before does no harm twice.
    pub(super) fn note_incarnation(&mut self, now: u32) -> Result<(), Halt> {
        let known = self.store.read(|tx| tx.setting::<u32>(INCARNATION))?;
        if known == Some(now) {
            return Ok(());
        }
        if let Some(known) = known {
            tracing::warn!(known, now, "the server's store was restored from a backup");
            self.manifest_due = true;
        }
        self.store.write(|tx| {
            if known.is_some() {
                tx.set_setting(mailbox::CURSOR, &Seq(0))?;
            }
            tx.set_setting(INCARNATION, &now)
        })?;
        Ok(())
    }

    /// Puts the account's newest list of devices again: who was revoked after the backup stays revoked. It
    /// is signed, so any device may; a server that has it already says yes.
    pub(super) async fn put_manifest_again(&mut self) -> Result<(), Halt> {
        let Some(manifest) = self.manifest(self.me.account()).filter(|_| self.manifest_due) else {
            return Ok(());
        };
        let frame = client::PutManifest { manifest: Bytes::copy_from_slice(manifest.bytes()) };
        match self.call(ClientFrame::PutManifest(frame)).await {
            Ok(_) => {}
            Err(CallError::Down) => return Err(Halt::Down),
            Err(CallError::Refused(refusal)) if passes(refusal.code) => return Ok(()),
            // More than one list has come since the backup, and the ones between are nowhere.
            Err(CallError::Refused(refusal)) => {
                tracing::error!(%refusal, "the restored server does not take the account's list of devices");
            }
        }
        self.manifest_due = false;
        Ok(())
    }

    /// All conversations beside what the server has of them. An error ends the session.
    pub(super) fn reconcile(&mut self, states: &[ConversationState]) -> Result<(), Halt> {
        if !self.compared {
            self.check_mailbox()?;
        }
        let now = self.incarnation();
        for state in states {
            match self.threads.get(&state.conversation).map(|thread| thread.record.incarnation) {
                Some(known) if known != now => self.compare_incarnations(state)?,
                _ => {}
            }
            self.check_head(state)?;
        }
        let listed: BTreeSet<_> = states.iter().map(|state| state.conversation).collect();
        let others = self.threads.values().map(|thread| &thread.record);
        let gone: Vec<_> = others
            .filter(|record| record.incarnation != now && !listed.contains(&record.id))
            .map(|record| record.id)
            .collect();
        gone.into_iter().try_for_each(|id| self.not_listed(id))?;
        (self.compared, self.older) = (true, None);
        Ok(())
    }

    fn compare_incarnations(&mut self, state: &ConversationState) -> Result<(), Halt> {
        let id = state.conversation;
        let keys = self.info_of(id)?.map(|(info, _)| info.epoch);
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        let record = &thread.record;
        let idle = matches!(record.standing, Standing::Founding(_) | Standing::Removed);
        let held = Held { incarnation: record.incarnation, last: self.last_of(record), epoch: keys };
        match judge(&held, &state.restored) {
            _ if idle => self.step_over(id),
            Verdict::Whole => self.step_over(id),
            Verdict::Shorter(back) => self.go_back(state, &back, false),
            Verdict::KeysGone(back) => self.go_back(state, &back, true),
        }
    }

    /// The last row that is here, or that the server has confirmed.
    fn last_of(&self, record: &Conversation) -> Seq {
        let acked = self.items.values().filter(|item| item.conversation == Some(record.id));
        let acked = acked.filter_map(|item| match item.state {
            ItemState::Acked { seq, .. } => Some(seq),
            _ => None,
        });
        acked.max().unwrap_or_default().max(record.cursor)
    }

    /// Nothing is missing: only the name of the log is another.
    fn step_over(&mut self, id: ConversationId) -> Result<(), Halt> {
        let now = self.incarnation();
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        let mut record = thread.record.clone();
        record.incarnation = now;
        self.store.write(|tx| tx.put_conversation(&record))?;
        self.set_record(record);
        Ok(())
    }

    /// The log goes on from the head of the backup: so does this device, and keeps what it has.
    fn go_back(&mut self, state: &ConversationState, back: &Restored, keys: bool) -> Result<(), Halt> {
        let (id, now) = (state.conversation, self.incarnation());
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        let before = thread.record.clone();
        let mut record = before.clone();
        (record.incarnation, record.cursor) = (now, before.cursor.min(back.head));
        (record.counter, record.commit, record.refused, record.gossiped) = (state.counter, None, false, None);
        if keys {
            (record.gone, record.standing) = (true, Standing::Restoring(now_ms()));
        }
        let drafts = self.unsettled(id, back.head);
        let written = self.store.write(|tx| {
            let after = (before.incarnation, back.head, u32::MAX);
            let mine =
                tx.entries_between(id, after, (before.incarnation, Seq(i64::MAX as u64)), usize::MAX >> 1)?;
            let text = said(&mine, back.head, keys);
            conversation::clear_pending(&tx.vault(), id)?;
            Counts::forget(tx, id)?;
            tx.put_conversation(&record)?;
            drafts.iter().try_for_each(|(_, item)| tx.put_item(item))?;
            Ok::<_, OpError>(notice(tx, &record, record.cursor, text, now_ms())?)
        });
        let entry = match written {
            Ok(entry) => entry,
            Err(OpError::Store(error)) => return Err(error.into()),
            Err(OpError::Mls(error)) => return Err(Halt::Fatal(ApiError::internal(error))),
        };
        self.begin_again(record, drafts);
        self.say_entry(id, &entry);
        Ok(())
    }

    /// Messages of which the server has nothing now: those that it has confirmed after the backup, too,
    /// unless they are in the history. The same bytes would have another counter, so they are sealed anew.
    fn unsettled(&self, id: ConversationId, head: Seq) -> Vec<(i64, Item)> {
        let of = self.items.iter().filter(|(_, item)| item.conversation == Some(id));
        let lost = of.filter(|(_, item)| match item.state {
            ItemState::Draft | ItemState::Sealed { .. } => true,
            ItemState::Acked { seq, .. } => seq > head,
            ItemState::Failed { .. } => false,
        });
        lost.map(|(position, item)| (*position, Item { state: ItemState::Draft, ..item.clone() })).collect()
    }

    /// Memory follows: nothing that came in the log before is waited for, and messages begin anew.
    fn begin_again(&mut self, record: Conversation, drafts: Vec<(i64, Item)>) {
        let (id, counter) = (record.id, record.counter);
        self.set_record(record);
        let slots = drafts.iter().map(|(position, _)| Slot::new(*position, Stage::Draft));
        if let Some(thread) = self.threads.get_mut(&id) {
            thread.lane = Lane::new(counter, slots);
            thread.window = crate::cursor::Window::<Arrived>::default();
            (thread.epoch, thread.wanted_epoch, thread.audit_due) = (None, None, true);
            (thread.welcome_wanted, thread.welcome_missed, thread.may_not_found) = (None, None, false);
            (thread.failures, thread.commit_failures, thread.in_flight) = (0, 0, false);
            // Whoever may found does not do it in the same instant as everybody else.
            let pause = std::time::Duration::from_millis(1_000).mul_f64(rand::random());
            thread.commit_at = Some(tokio::time::Instant::now() + pause);
            thread.window.want();
        }
        self.by_counter.retain(|(of, _), at| *of != id || !drafts.iter().any(|(position, _)| position == at));
        self.items.extend(drafts);
    }

    /// A conversation of before that the server does not list.
    fn not_listed(&mut self, id: ConversationId) -> Result<(), Halt> {
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        // Only a server that knows of other incarnations has forgotten something.
        let first = thread.record.incarnation == 0 && self.incarnation() == 1;
        match thread.record.standing {
            Standing::Founding(_) | Standing::Removed => self.step_over(id),
            _ if first => self.step_over(id),
            _ => self.forgotten(id),
        }
    }

    /// It was begun after the backup. What was said stays; with one other person it is begun anew as soon
    /// as somebody writes.
    fn forgotten(&mut self, id: ConversationId) -> Result<(), Halt> {
        let now = self.incarnation();
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        let mut record = thread.record.clone();
        (record.incarnation, record.standing, record.commit) = (now, Standing::Removed, None);
        // Whoever is let in again begins anew, wherever the log is by then.
        (record.cursor, record.counter, record.refused) = (Seq(0), Counter(0), false);
        record.changes.clear();
        let direct = record.peer().is_some();
        let text = match direct {
            true => {
                "the server was restored from a backup that does not know this conversation: what was said is kept here, and the next message begins it anew"
            }
            false => {
                "the server was restored from a backup in which you are not in this group yet: what was said is kept here. Whoever is in it can let you in again; if it is not there at all, begin a new one"
            }
        };
        let mut drafts = self.unsettled(id, Seq(0));
        let entry = self.store.write(|tx| {
            tx.put_conversation(&record)?;
            for (_, item) in drafts.iter_mut().filter(|_| direct) {
                item.conversation = None;
                tx.put_item(item)?;
            }
            notice(tx, &record, Seq(0), text.to_owned(), now_ms())
        })?;
        self.set_record(record);
        if let Some(thread) = self.threads.get_mut(&id) {
            thread.lane = Lane::default();
        }
        self.by_counter.retain(|(of, _), _| *of != id);
        self.say_entry(id, &entry);
        if direct {
            self.unrouted.extend(drafts.iter().map(|(position, _)| *position));
            self.unrouted.make_contiguous().sort_unstable();
            self.items.extend(drafts);
            return Ok(());
        }
        for (position, _) in drafts {
            self.fail(position, ApiError::new(ErrorKind::Refused, text), true)?;
        }
        Ok(())
    }

    /// The mailbox ends before what was taken out of it, in the same incarnation.
    fn check_mailbox(&mut self) -> Result<(), Halt> {
        let Some(head) = self.session.as_ref().map(|session| session.welcome.mailbox_head) else {
            return Err(Halt::Down);
        };
        let taken = self.store.read(|tx| tx.setting::<Seq>(mailbox::CURSOR))?.unwrap_or_default();
        match taken > head {
            true => Err(self.refuse_older(&format!("its mailbox ends at {head}, and {taken} were read"))),
            false => Ok(()),
        }
    }

    /// A log ends before what was read of it, in the same incarnation: going on would fill places anew
    /// that others know already.
    fn check_head(&mut self, state: &ConversationState) -> Result<(), Halt> {
        let id = state.conversation;
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        let cursor = thread.record.cursor;
        if !thread.is_ready() || state.head >= cursor {
            return Ok(());
        }
        let place = format!("shorter-{id}");
        if self.store.read(|tx| tx.setting(&place))? != Some(cursor) {
            self.store.write(|tx| tx.set_setting(&place, &cursor))?;
            let text = format!(
                "the server's log is shorter than what this device has read: it ends with message {}, and {cursor} \
                 were read. Nothing is sent until the server's operator has put that right",
                state.head
            );
            self.note(id, text)?;
        }
        let what = format!("a conversation ends with message {}, and {cursor} were read", state.head);
        Err(self.refuse_older(&what))
    }

    /// Ends the session, and says why until another one is good.
    fn refuse_older(&mut self, what: &str) -> Halt {
        let reason = crate::link::older_store(what);
        tracing::error!(reason);
        self.older = Some(reason);
        // Dropping the sender ends the connection; the link says so and dials again.
        self.session = None;
        Halt::Down
    }
}

/// What a person is told of a log that went back.
fn said(gone: &[Entry], head: Seq, keys: bool) -> String {
    let messages = gone.iter().filter(|entry| entry.from.is_some()).count();
    let lost = match messages {
        0 => "nothing that was said here is missing there".to_owned(),
        1 => format!("1 message after number {head} is only on the devices that have it"),
        n => format!("{n} messages after number {head} are only on the devices that have them"),
    };
    let next = if keys { "; the conversation goes on with new keys" } else { "" };
    format!("the server was restored from a backup: {lost}{next}")
}

/// Whether a generation is one that follows a restored store: its number is that of an incarnation, and
/// not just the next one.
pub(super) fn follows_a_restoration(before: Epoch, after: Epoch) -> bool {
    after.generation > before.generation.saturating_add(1)
}

/// What a person is told of the generation that follows.
pub(super) fn goes_on(who: &str) -> String {
    format!("the conversation goes on with new keys, by {who}: the server was restored from a backup")
}

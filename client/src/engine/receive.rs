//! Rows in order: from the window into the store, in batches of one transaction.

use super::{
    Engine, Halt,
    counts::Counts,
    row::{self, Effect, Env, Step},
    send::short_of,
    state::{Arrived, pause_after},
};
use crate::{
    api::Event,
    failpoint,
    store::{Entry, ItemState, MemberChange},
};
use fastchat_protocol::{AccountId, ConversationId};
use tokio::time::Instant;

/// Limit: rows in one transaction. A page takes four.
const BATCH: usize = 64;

/// What a batch came to.
struct Applied {
    effects: Vec<Effect>,
    /// How many rows were dealt with, and why the next one was not.
    count: usize,
    stopped: Option<Step>,
}

impl Engine {
    pub(super) async fn apply_all(&mut self) -> Result<(), Halt> {
        let ids: Vec<ConversationId> = self.threads.keys().copied().collect();
        for id in ids {
            self.apply(id).await?;
        }
        Ok(())
    }

    /// Applies whatever is there in order.
    pub(super) async fn apply(&mut self, id: ConversationId) -> Result<(), Halt> {
        let mut asked: Vec<AccountId> = Vec::new();
        loop {
            let rows = self.take_rows(id);
            if rows.is_empty() {
                return Ok(());
            }
            let Applied { effects, count, stopped } = self.apply_batch(id, &rows, &asked)?;
            if count > 0 {
                failpoint::pass("stored");
                self.ack_later(id);
            }
            self.after(id, effects)?;
            let Some(stopped) = stopped else { continue };
            let mut rest = rows.into_iter().skip(count);
            let refused = rest.next();
            match stopped {
                Step::NeedManifest(account) => {
                    asked.push(account);
                    self.put_back(id, refused.into_iter().chain(rest));
                    if let Err(refusal) = self.learn(account).await? {
                        self.stall(id, refusal.wait_ms);
                        return Ok(());
                    }
                    if let Some(thread) = self.threads.get_mut(&id) {
                        thread.stalls = 0;
                    }
                }
                Step::NeedWelcome => {
                    self.put_back(id, refused.into_iter().chain(rest));
                    if let Some(thread) = self.threads.get_mut(&id) {
                        thread.welcome_wanted = Some(thread.record.cursor.next());
                    }
                    self.mailbox_wanted = true;
                    return Ok(());
                }
                // Only the log's copy counts.
                Step::Refetch | Step::Done(_) => {
                    self.put_back(id, rest);
                    if let Some(thread) = self.threads.get_mut(&id) {
                        thread.window.want();
                    }
                    return Ok(());
                }
            }
        }
    }

    fn take_rows(&mut self, id: ConversationId) -> Vec<Arrived> {
        // Rows of another incarnation are not those that follow what is here.
        let in_step = self.in_step(id);
        let Some(thread) = self.threads.get_mut(&id).filter(|_| in_step) else { return Vec::new() };
        if thread.stalled_until.is_some_and(|at| at > Instant::now()) {
            return Vec::new();
        }
        thread.stalled_until = None;
        // The next row is for keys that are on their way.
        if thread.welcome_wanted.is_some() {
            return Vec::new();
        }
        // What arrives before the founding is settled is read from the log afterwards.
        if matches!(thread.record.standing, crate::store::Standing::Founding(_)) {
            return Vec::new();
        }
        let mut cursor = thread.record.cursor;
        let take = |_| {
            let row = thread.window.take(cursor)?;
            cursor = cursor.next();
            Some(row)
        };
        (0..BATCH).map_while(take).collect()
    }

    /// The row that is next stays where it is for a while; what follows it waits behind it.
    fn stall(&mut self, id: ConversationId, wait_ms: Option<u32>) {
        let Some(thread) = self.threads.get_mut(&id) else { return };
        thread.stalled_until = Some(Instant::now() + pause_after(thread.stalls, wait_ms));
        thread.stalls += 1;
    }

    fn put_back(&mut self, id: ConversationId, rows: impl Iterator<Item = Arrived>) {
        let Some(thread) = self.threads.get_mut(&id) else { return };
        for arrived in rows {
            thread.window.offer(thread.record.cursor, arrived.row.seq, arrived);
        }
    }

    /// Opened rows, ratchet state, plaintext, quarantine entries and cursor in one transaction.
    fn apply_batch(
        &mut self,
        id: ConversationId,
        rows: &[Arrived],
        asked: &[AccountId],
    ) -> Result<Applied, Halt> {
        let Some(thread) = self.threads.get(&id) else {
            return Ok(Applied { effects: Vec::new(), count: rows.len(), stopped: None });
        };
        let mut record = thread.record.clone();
        let mailbox_read =
            thread.welcome_wanted.is_none() && thread.welcome_missed == Some(record.cursor.next());
        let (me, contacts, items, by_counter) = (&self.me, &self.contacts, &self.items, &self.by_counter);
        let applied = self.store.write(|tx| {
            let mut applied = Applied { effects: Vec::new(), count: 0, stopped: None };
            let mut counts = Counts::load(tx, id)?;
            for arrived in rows {
                let own =
                    by_counter.get(&(id, arrived.row.counter)).and_then(|at| Some((*at, items.get(at)?)));
                let env = Env { me, contacts, own, asked, mailbox_read };
                match row::apply(tx, &env, &mut record, arrived)? {
                    Step::Done(effects) => {
                        let read = effects.iter().find_map(Effect::entry);
                        let wrong = counts.check(tx, &record, contacts, &arrived.row, read)?;
                        applied.effects.extend(effects);
                        applied.effects.extend(wrong.map(|entry| Effect::Entry(Box::new(entry))));
                    }
                    other => {
                        applied.stopped = Some(other);
                        break;
                    }
                }
                applied.count += 1;
            }
            counts.store(tx, id)?;
            tx.put_conversation(&record)?;
            failpoint::pass("before-store");
            Ok::<_, crate::store::StoreError>(applied)
        })?;
        self.set_record(record);
        Ok(applied)
    }

    /// What follows from rows that are stored for good.
    fn after(&mut self, id: ConversationId, effects: Vec<Effect>) -> Result<(), Halt> {
        for effect in effects {
            match effect {
                Effect::Entry(entry) => self.say_entry(id, &entry),
                Effect::Changed(entry) => self.say_changed(id, &entry),
                Effect::OwnSent(position) => self.own_sent(id, position),
                Effect::Fetch(transfer) => self.history_told(*transfer),
                Effect::Unwanted(conversation, blob) => self.drop_blob(conversation, blob),
                Effect::OwnCommit => self.own_commit_done(id),
                Effect::NewEpoch => {
                    if let Some(thread) = self.threads.get_mut(&id) {
                        thread.wanted_epoch = None;
                        thread.epoch = None;
                    }
                }
                Effect::Audit => {
                    if let Some(thread) = self.threads.get_mut(&id) {
                        thread.audit_due = true;
                    }
                }
                Effect::Left => self.after_leaving(id),
                Effect::Learn(account) => drop(self.to_learn.insert(account)),
                Effect::Split(account) => self.split_seen(account)?,
            }
        }
        Ok(())
    }

    /// Whoever waits for the own leaving hears of it, and nothing more goes out.
    fn after_leaving(&mut self, id: ConversationId) {
        let done = Ok(crate::api::Response::Done);
        self.answer_change(id, &MemberChange::Leave, &done);
    }

    /// Our message is in the history now; the outbox is done with it.
    fn own_sent(&mut self, id: ConversationId, position: i64) {
        let Some(item) = self.items.remove(&position) else { return };
        let counter = match &item.state {
            ItemState::Sealed { counter, .. } | ItemState::Acked { counter, .. } => Some(*counter),
            ItemState::Draft | ItemState::Failed { .. } => None,
        };
        if let Some(counter) = counter {
            self.by_counter.remove(&(id, counter));
        }
        if let Some(thread) = self.threads.get_mut(&id) {
            thread.lane.remove(position);
        }
        self.problems.remove(&item.id);
        // One that was acknowledged out of order was announced then.
        if !matches!(item.state, ItemState::Acked { .. }) {
            let sent = self.store.read(|tx| tx.recall_sent(item.id)).ok().flatten();
            if let Some((conversation, seq, at_ms)) = sent {
                self.announce_sent(item.id, conversation, seq, at_ms);
            }
        }
        tracing::debug!(id = short_of(&item.id), "in the log");
    }

    fn say_changed(&self, id: ConversationId, entry: &Entry) {
        if let Some(thread) = self.threads.get(&id).filter(|thread| !self.is_hidden(&thread.record)) {
            self.say(Event::Changed(self.view_entry(&thread.record, entry)));
        }
    }

    pub(super) fn say_entry(&self, id: ConversationId, entry: &Entry) {
        if let Some(thread) = self.threads.get(&id).filter(|thread| !self.is_hidden(&thread.record)) {
            self.say(Event::Message(self.view_entry(&thread.record, entry)));
        }
    }
}

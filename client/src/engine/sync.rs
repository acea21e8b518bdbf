//! What a session begins with, and how missing rows are had: the log is the truth.

use super::{
    Engine, Halt,
    counts::Counts,
    rejoin::ROLLED_BACK,
    session::CallError,
    state::{Arrived, SyncWaiter, Thread, notice, now_ms},
};
use crate::{
    api::Event,
    devices::{NEW_DEVICE, archive},
    failpoint,
    store::{CommitReason, Conversation, Party, Standing, StoreError},
};
use fastchat_protocol::{ClientFrame, Code, ConversationId, Seq, ServerFrame, client, limits, server};
use std::time::Duration;
use tokio::time::Instant;

/// Limit: a gateway that keeps asking for a sync gets one a second.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

impl Engine {
    pub(super) async fn sync_if_wanted(&mut self) -> Result<(), Halt> {
        if std::mem::take(&mut self.overflowed) {
            self.sync_wanted = true;
        }
        let now = Instant::now();
        if self.sync_wanted && self.sync_at.is_none_or(|at| at <= now) {
            self.sync_at = Some(now + SYNC_INTERVAL);
            self.sync().await?;
        }
        // What it lets in depends on what was compared.
        if self.mailbox_wanted && self.compared {
            self.fetch_mailbox().await?;
        }
        // A winner whose welcome may still be in the mailbox waits for it.
        if self.mailbox_wanted { Ok(()) } else { self.settle_races() }
    }

    /// Mailbox, heads, logs, key packages.
    async fn sync(&mut self) -> Result<(), Halt> {
        // Before anything is read, so that what asks for a sync meanwhile (a welcome, a `Resync`) gets one.
        self.sync_wanted = false;
        let Some(states) = self.list().await? else { return Ok(()) };
        // Before anything else: whether this is the log that was read here.
        self.reconcile(&states)?;
        self.put_manifest_again().await?;
        // A welcome explains conversations that are met next.
        self.fetch_mailbox().await?;
        let (known, unknown): (Vec<_>, Vec<_>) =
            states.into_iter().partition(|state| self.threads.contains_key(&state.conversation));
        for state in &known {
            self.compare(state)?;
        }
        // A mailbox that was not read to its end may yet explain them.
        let unexplained = self.mailbox_wanted;
        for state in &unknown {
            if !unexplained || self.threads.contains_key(&state.conversation) {
                self.meet(state).await?;
                self.compare(state)?;
            }
        }
        if unexplained && !unknown.is_empty() {
            // Not before the mailbox can be read: nothing would be different.
            self.sync_wanted = true;
            self.sync_at = self.sync_at.max(self.mailbox_at);
        }
        self.fetch_due().await?;
        self.learn_blocked().await?;
        self.refill_key_packages().await?;
        if !std::mem::replace(&mut self.synced, true) {
            self.say(Event::Synced);
        }
        let status = self.status()?;
        for SyncWaiter { reply, .. } in self.sync_waiters.drain(..) {
            let _ = reply.send(Ok(crate::api::Response::Status(status.clone())));
        }
        Ok(())
    }

    /// All conversations, as the server has them; `None` if it does not say now.
    async fn list(&mut self) -> Result<Option<Vec<server::ConversationState>>, Halt> {
        let (mut after, mut states) = (None, Vec::new());
        loop {
            let page = match self.call(ClientFrame::Sync(client::Sync { after })).await {
                Ok(ServerFrame::Conversations(page)) => page,
                Ok(_) | Err(CallError::Down) => return Err(Halt::Down),
                Err(CallError::Refused(refusal)) => {
                    // It stays wanted. What is known already goes on, if it was compared before.
                    self.sync_wanted = true;
                    tracing::warn!(%refusal, "no sync");
                    let wait = refusal.wait_ms.map(|ms| Duration::from_millis(ms.into()));
                    self.sync_at = Some(Instant::now() + wait.unwrap_or_default().max(SYNC_INTERVAL));
                    return Ok(None);
                }
            };
            after = page.list.last().map(|state| state.conversation);
            states.extend(page.list);
            if !page.more || after.is_none() {
                return Ok(Some(states));
            }
        }
    }

    /// The other party gets its name, so that what is said of the conversation is found by it.
    async fn meet(&mut self, state: &server::ConversationState) -> Result<(), Halt> {
        match state.peer.filter(|peer| !self.contacts.contains_key(peer)) {
            // Without an answer it goes by its number until it is judged.
            Some(peer) => self.learn(peer).await.map(drop),
            None => Ok(()),
        }
    }

    /// One conversation: what the server has of it, and what this device has.
    fn compare(&mut self, state: &server::ConversationState) -> Result<(), Halt> {
        let id = state.conversation;
        if !self.threads.contains_key(&id) {
            self.adopt(state)?;
        }
        self.come_back(state)?;
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(()) };
        let record = &thread.record;
        if state.head > record.cursor {
            thread.window.heard_of(state.head);
        }
        if state.cursor < record.cursor {
            self.dirty.insert(id);
            self.ack_at.get_or_insert_with(Instant::now);
        }
        if state.counter > record.counter && !matches!(record.standing, Standing::Founding(_)) {
            // The server has heard more from this device than the device remembers.
            let last = state.counter;
            self.advance_counter(id, last)?;
            self.want_rejoin(id, ROLLED_BACK)?;
        }
        Ok(())
    }

    /// The account was let in again, and this device has no welcome: it comes in by itself.
    fn come_back(&mut self, state: &server::ConversationState) -> Result<(), Halt> {
        let Some(thread) = self.threads.get(&state.conversation) else { return Ok(()) };
        if !state.unjoined || thread.record.standing != Standing::Removed {
            return Ok(());
        }
        let mut record = thread.record.clone();
        record.cursor = record.cursor.max(state.join_seq).max(state.cursor);
        record.standing = Standing::Rejoining("this account was let in again".to_owned());
        self.store.write(|tx| {
            Counts::forget(tx, record.id)?;
            tx.put_conversation(&record)
        })?;
        self.set_record(record);
        Ok(())
    }

    /// The server lists a conversation that this device knows nothing of, and the mailbox does not
    /// explain it: the keys are lost.
    fn adopt(&mut self, state: &server::ConversationState) -> Result<(), Halt> {
        // What the server calls a group is judged as one: its keys must declare roles.
        let party = state.peer.map_or_else(|| Party::Group(Box::default()), Party::Direct);
        let reason = match state.unjoined {
            true => NEW_DEVICE,
            false => "this device has no keys for the conversation",
        }
        .to_owned();
        let mut record = Conversation::new(
            state.conversation,
            party,
            Standing::Rejoining(reason),
            state.join_seq.max(state.cursor),
            now_ms(),
        );
        record.counter = state.counter;
        let mut record = record.of(self.incarnation());
        self.store.write(|tx| {
            archive::inherit(tx, &mut record)?;
            tx.put_conversation(&record)
        })?;
        self.threads.insert(record.id, Thread::new(record));
        Ok(())
    }

    /// Reads the log wherever something is missing.
    pub(super) async fn fetch_due(&mut self) -> Result<(), Halt> {
        let ids: Vec<ConversationId> = self.threads.keys().copied().collect();
        for id in ids {
            // A page at a time, until nothing is missing; a limit keeps one conversation from
            // keeping all others waiting.
            for _ in 0..64 {
                let now = self.clock();
                let Some(thread) = self.threads.get_mut(&id) else { break };
                let instant = Instant::now();
                if thread.fetch_at(now, instant).is_none_or(|at| at > instant) {
                    break;
                }
                self.fetch(id).await?;
                self.apply(id).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn fetch(&mut self, id: ConversationId) -> Result<(), Halt> {
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(()) };
        thread.window.asked();
        let after = thread.record.cursor;
        let fetch = client::Fetch { conversation: id, after, limit: limits::MAX_PAGE_ROWS };
        let page = match self.call(ClientFrame::Fetch(fetch)).await {
            Ok(ServerFrame::LogPage(page)) => page,
            Ok(_) | Err(CallError::Down) => return Err(Halt::Down),
            Err(CallError::Refused(refusal)) if refusal.code == Code::NotMember => return self.shut_out(id),
            Err(CallError::Refused(refusal)) => {
                tracing::warn!(%refusal, "the log cannot be read");
                self.back_off_fetch(id, refusal.wait_ms);
                return Ok(());
            }
        };
        failpoint::pass("received");
        self.skip_to(id, &page)?;
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(()) };
        thread.fetch_failures = 0;
        thread.window.heard_of(page.head);
        if page.rows.is_empty() {
            // The log ends here for this device, whatever a hint said.
            thread.window.limit_to(thread.record.cursor);
        }
        let cursor = thread.record.cursor;
        for row in page.rows {
            thread.window.offer(cursor, row.seq, Arrived { row, from_log: true });
        }
        Ok(())
    }

    fn back_off_fetch(&mut self, id: ConversationId, wait_ms: Option<u32>) {
        let Some(thread) = self.threads.get_mut(&id) else { return };
        thread.fetch_failures += 1;
        let wait = wait_ms.map_or(Duration::from_millis(250 << thread.fetch_failures.min(6)), |ms| {
            Duration::from_millis(ms.into())
        });
        thread.window.want();
        thread.retry_at = Some(Instant::now() + wait.mul_f64(0.5 + rand::random::<f64>() / 2.0));
    }

    /// Rows between the cursor and the page's first: retention took them, or they are from before
    /// this device (re)joined. They are not to be had, and the conversation says so.
    fn skip_to(&mut self, id: ConversationId, page: &server::LogPage) -> Result<(), Halt> {
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        let cursor = thread.record.cursor;
        let first = page.rows.first().map_or(page.first.min(page.head.next()), |row| row.seq);
        if first <= cursor.next() {
            return Ok(());
        }
        let last_missing = Seq(first.0 - 1);
        let mut record = thread.record.clone();
        record.cursor = last_missing;
        if matches!(&record.standing, Standing::Rejoining(why) if why == NEW_DEVICE) {
            // From before this device: another one hands it over, if it was wanted.
            self.store.write(|tx| tx.put_conversation(&record))?;
            self.set_record(record);
            self.ack_later(id);
            return Ok(());
        }
        let range = match cursor.next() == last_missing {
            true => format!("message {last_missing} is"),
            false => format!("messages {} to {last_missing} are", cursor.next()),
        };
        let text =
            format!("{range} not on the server for this device: past retention, or from before it joined");
        let at_ms = page.rows.first().map_or_else(now_ms, |row| row.at_ms);
        let entry = self.store.write(|tx| {
            tx.put_conversation(&record)?;
            Counts::forget(tx, id)?;
            notice(tx, &record, last_missing, text, at_ms)
        })?;
        self.set_record(record);
        self.say_entry(id, &entry);
        self.ack_later(id);
        Ok(())
    }

    /// The server does not let this device read: it was removed.
    fn shut_out(&mut self, id: ConversationId) -> Result<(), Halt> {
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        if thread.record.standing == Standing::Removed {
            return Ok(());
        }
        let rejoining =
            matches!(&thread.record.commit, Some(commit) if matches!(commit.reason, CommitReason::Rejoin(_)));
        if rejoining || matches!(thread.record.standing, Standing::Rejoining(_) | Standing::Restoring(_)) {
            // Readable again once the commit that lets the device in is stored.
            if let Some(thread) = self.threads.get_mut(&id) {
                thread.window.limit_to(thread.record.cursor);
            }
            return Ok(());
        }
        let mut record = thread.record.clone();
        record.standing = Standing::Removed;
        let text = "the server says that this device is not a member of the conversation any more".to_owned();
        let entry = self.store.write(|tx| {
            tx.put_conversation(&record)?;
            notice(tx, &record, record.cursor, text, now_ms())
        })?;
        self.set_record(record);
        self.say_entry(id, &entry);
        Ok(())
    }

    /// The record in memory follows the store.
    pub(super) fn set_record(&mut self, record: Conversation) {
        match self.threads.get_mut(&record.id) {
            Some(thread) => {
                thread.record = record;
            }
            None => drop(self.threads.insert(record.id, Thread::new(record))),
        }
    }

    /// The server's last counter is beyond ours.
    pub(super) fn advance_counter(
        &mut self,
        id: ConversationId,
        counter: fastchat_protocol::Counter,
    ) -> Result<(), StoreError> {
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(()) };
        thread.lane.advance_to(counter);
        let mut record = thread.record.clone();
        record.counter = thread.lane.last();
        self.store.write(|tx| tx.put_conversation(&record))?;
        thread.record = record;
        Ok(())
    }
}

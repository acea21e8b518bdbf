//! The mailbox: conversations that others have let this device into.

use super::{
    Engine, Halt,
    counts::Counts,
    error::OpError,
    group_rows,
    restored::{self, follows_a_restoration},
    session::{CallError, passes},
    state::{notice, now_ms, pause_after},
};
use crate::{
    failpoint,
    store::{Conversation, EntryKind, GroupRecord, Party, Standing},
};
use fastchat_delivery::{GroupData, Policy, Rules};
use fastchat_e2ee::conversation::{self, ConversationError, Info, Joined};
use fastchat_protocol::{
    AccountId, Bytes, ClientFrame, ConversationId, Seq, ServerFrame, client, codec, server,
};
use tokio::time::Instant;

pub(super) const CURSOR: &str = "mailbox";

/// What became of a mailbox item.
enum Handled {
    /// It needs no more attention.
    Done,
    /// The keys in it do not let this device in; joining by itself is the way.
    RejoinNeeded(String),
    /// It cannot be judged now: the server refuses what that takes, and how long it wants to be left alone.
    Later(Option<u32>),
}

impl Engine {
    /// Reads the mailbox to its end, unless it has to wait; until it is read it stays wanted.
    pub(super) async fn fetch_mailbox(&mut self) -> Result<(), Halt> {
        self.mailbox_wanted = true;
        if self.mailbox_at.is_some_and(|at| at > Instant::now()) {
            return Ok(());
        }
        // Whatever ends the attempt, the next one is not at once.
        self.mailbox_at = Some(Instant::now() + pause_after(self.mailbox_failures, None));
        // Before it is read, so that what wakes it meanwhile is not taken for what was read.
        self.mailbox_wanted = false;
        if let Some(wait_ms) = self.read_mailbox().await? {
            self.mailbox_wanted = true;
            self.mailbox_at = Some(Instant::now() + pause_after(self.mailbox_failures, wait_ms));
            self.mailbox_failures += 1;
            return Ok(());
        }
        (self.mailbox_at, self.mailbox_failures) = (None, 0);
        for thread in self.threads.values_mut() {
            // A welcome that is not there now does not come.
            if let Some(seq) = thread.welcome_wanted.take() {
                thread.welcome_missed = Some(seq);
            }
        }
        Ok(())
    }

    /// `Some` with the server's wish if an item, or the mailbox, has to wait.
    async fn read_mailbox(&mut self) -> Result<Option<Option<u32>>, Halt> {
        let mut after = self.store.read(|tx| tx.setting::<Seq>(CURSOR))?.unwrap_or_default();
        loop {
            let page = match self.call(ClientFrame::FetchMailbox(client::FetchMailbox { after })).await {
                Ok(ServerFrame::MailboxPage(page)) => page,
                Ok(_) | Err(CallError::Down) => return Err(Halt::Down),
                Err(CallError::Refused(refusal)) => {
                    tracing::warn!(%refusal, "the mailbox cannot be read");
                    return Ok(Some(refusal.wait_ms));
                }
            };
            let Some(last) = page.items.last().map(|item| item.seq) else { break };
            for item in page.items {
                let seq = item.seq;
                if let Some(wait_ms) = self.on_mailbox_item(item).await? {
                    return Ok(Some(wait_ms));
                }
                after = seq;
            }
            self.tell(&ClientFrame::AckMailbox(client::AckMailbox { seq: last })).await?;
            if last >= page.head {
                break;
            }
        }
        Ok(None)
    }

    async fn on_mailbox_item(&mut self, item: server::MailboxItem) -> Result<Option<Option<u32>>, Halt> {
        let seq = item.seq;
        match (item.kind, codec::decode::<server::Joining>(&item.body)) {
            (server::MAILBOX_JOINING, Ok(joining)) => match self.join(seq, &joining).await? {
                Handled::Done => {}
                Handled::RejoinNeeded(why) => self.join_failed(seq, &joining, &why)?,
                Handled::Later(wait_ms) => return Ok(Some(wait_ms)),
            },
            (kind, _) => {
                tracing::warn!(kind, "a mailbox item of a later version");
                self.store.write(|tx| tx.set_setting(CURSOR, &seq))?;
            }
        }
        Ok(None)
    }

    async fn join(&mut self, place: Seq, joining: &server::Joining) -> Result<Handled, Halt> {
        let id = joining.conversation;
        // One's own founding may have lost against this one, without having heard of it yet.
        let ready = self.threads.get(&id).is_some_and(|thread| thread.record.cursor >= joining.join_seq);
        if ready {
            self.store.write(|tx| tx.set_setting(CURSOR, &place))?;
            return Ok(Handled::Done);
        }
        if !self.read_before(id, joining.join_seq).await? {
            return Ok(Handled::Later(None));
        }
        let hash = joining.tree_hash.clone();
        let tree = match self.call(ClientFrame::GetTree(client::GetTree { conversation: id, hash })).await {
            Ok(ServerFrame::Tree(tree)) => tree.tree,
            Ok(_) | Err(CallError::Down) => return Err(Halt::Down),
            Err(CallError::Refused(refusal)) if passes(refusal.code) => {
                tracing::warn!(%refusal, "no tree for a welcome yet");
                return Ok(Handled::Later(refusal.wait_ms));
            }
            Err(CallError::Refused(refusal)) => return Ok(Handled::RejoinNeeded(refusal.to_string())),
        };
        let mut asked = Vec::new();
        loop {
            match self.try_join(place, joining, &tree)? {
                Ok(()) => return Ok(Handled::Done),
                Err(error) => match error.wants_manifest() {
                    // A manifest at a time; of a group, those that are not known are fetched together.
                    Some(account) if !asked.contains(&account) => {
                        asked.push(account);
                        if let Err(refusal) = self.learn(account).await? {
                            return Ok(Handled::Later(refusal.wait_ms));
                        }
                    }
                    _ => return Ok(Handled::RejoinNeeded(error.to_string())),
                },
            }
        }
    }

    /// Reads the log up to the row that lets this device in, while the old keys are here: what they
    /// open must not be lost by new ones. False if that has to wait.
    async fn read_before(&mut self, id: ConversationId, join_seq: Seq) -> Result<bool, Halt> {
        let last = Seq(join_seq.0.saturating_sub(1));
        loop {
            let Some(thread) = self.threads.get_mut(&id) else { return Ok(true) };
            let before = thread.record.cursor;
            if before >= last
                || thread.record.standing == Standing::Removed
                || thread.welcome_wanted.is_some()
            {
                return Ok(true);
            }
            thread.window.heard_of(last);
            self.fetch(id).await?;
            self.apply(id).await?;
            let Some(thread) = self.threads.get(&id) else { return Ok(true) };
            if thread.stalled_until.is_some() || thread.fetch_failures > 0 {
                return Ok(false);
            }
            if thread.record.cursor == before {
                // The log has no more for this device.
                return Ok(true);
            }
        }
    }

    /// Keys, conversation and mailbox cursor in one transaction.
    fn try_join(
        &mut self,
        place: Seq,
        joining: &server::Joining,
        tree: &Bytes,
    ) -> Result<Result<(), ConversationError>, Halt> {
        let (me, contacts) = (self.me.clone(), &self.contacts);
        let own = me.account();
        let manifests = |account: AccountId| contacts.get(&account).map(|contact| contact.manifest.clone());
        let policy = Policy { rules: Rules::Joiner(own), manifests: &manifests };
        let known = self.threads.get(&joining.conversation).map(|thread| thread.record.clone());
        let incarnation = self.incarnation();
        let joined = self.store.write(|tx| {
            let before = match &known {
                Some(record) => group_rows::info(tx, record)?,
                None => None,
            };
            if known.as_ref().is_some_and(|record| record.standing == Standing::Removed) {
                // Whoever has left has keys still, with which nothing opens any more.
                conversation::discard(&tx.vault(), joining.conversation)?;
            }
            let joined = conversation::join(&tx.vault(), &me, &joining.welcome, tree, &policy)?;
            if joined.conversation != joining.conversation {
                return Err(OpError::Mls(ConversationError::Invalid(
                    "a welcome to another conversation".into(),
                )));
            }
            let record = record_of(own, known, &joined, (incarnation, joining.join_seq));
            tx.put_conversation(&record)?;
            // The row that let this device in, and whatever came while it was out, is not read here.
            Counts::forget(tx, record.id)?;
            tx.set_setting(CURSOR, &place)?;
            Ok((record, before, joined))
        });
        match joined {
            Ok((record, before, joined)) => {
                failpoint::pass("joined");
                self.let_in(record, before, &joined)?;
                Ok(Ok(()))
            }
            Err(OpError::Mls(error)) => Ok(Err(error)),
            Err(OpError::Store(error)) => Err(error.into()),
        }
    }

    /// The keys are here: what follows in memory, and what a person is told.
    fn let_in(
        &mut self,
        mut record: Conversation,
        before: Option<Info>,
        joined: &Joined,
    ) -> Result<(), Halt> {
        let (id, join_seq, new) = (record.id, record.cursor, !self.threads.contains_key(&record.id));
        let by = joined.by.account;
        if new {
            record.request = self.request_of(by);
            self.store.write(|tx| tx.put_conversation(&record))?;
        }
        self.set_record(record);
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(()) };
        thread.window.heard_of(join_seq);
        // Live copies that came while the keys were not here were dropped: the log has them.
        thread.window.want();
        (thread.epoch, thread.audit_due) = (None, true);
        (thread.welcome_wanted, thread.welcome_missed) = (None, None);
        self.ack_later(id);
        let goes_on = before.filter(|info| info.active && info.epoch.generation < joined.epoch.generation);
        let own = self.me.account();
        let restored = goes_on.as_ref().is_some_and(|info| follows_a_restoration(info.epoch, joined.epoch));
        if restored || (goes_on.is_some() && joined.data.is_none()) {
            let text = self.words(|words| restored::goes_on(&words.who(by)));
            return self.note(id, text);
        }
        let Some(after) = &joined.data else { return Ok(()) };
        let text = match goes_on {
            Some(info) => {
                let before = info.data.unwrap_or_else(|| after.clone());
                self.words(|words| words.of_generation(by, &before, after).join("; "))
            }
            None if by == own => "your other device let this one in".to_owned(),
            None => format!("you were added by {}", self.name_of(by)),
        };
        self.note(id, text)
    }

    /// The welcome is of no use. If the conversation is not here, it is entered by an external commit.
    fn join_failed(&mut self, place: Seq, joining: &server::Joining, why: &str) -> Result<(), Halt> {
        tracing::warn!(conversation = %joining.conversation, why, "a welcome could not be used");
        self.store.write(|tx| tx.set_setting(CURSOR, &place))?;
        if self.threads.contains_key(&joining.conversation) {
            return Ok(());
        }
        // Who the other party is, the next sync says: it lists the conversation.
        self.sync_wanted = true;
        Ok(())
    }

    /// A notice, unless it was the last thing that was said.
    pub(super) fn note_once(&mut self, id: ConversationId, text: String) -> Result<(), Halt> {
        let last = self.store.read(|tx| tx.last_entries(id, 1))?.pop();
        if last.is_some_and(|entry| entry.kind == EntryKind::Notice && entry.text == text) {
            return Ok(());
        }
        self.note(id, text)
    }

    /// A notice in a conversation, by itself.
    pub(super) fn note(&mut self, id: ConversationId, text: String) -> Result<(), Halt> {
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        let record = thread.record.clone();
        let entry = self.store.write(|tx| notice(tx, &record, record.cursor, text, now_ms()))?;
        self.say_entry(id, &entry);
        Ok(())
    }
}

/// The record of a conversation into which this device was let: of a new one, or of one that goes on.
/// What was sent before counts on; what was on its way to other keys is made anew.
fn record_of(
    own: AccountId,
    known: Option<Conversation>,
    joined: &Joined,
    (incarnation, join_seq): (u32, Seq),
) -> Conversation {
    let mut new = new_record(own, joined, join_seq).of(incarnation);
    if let Some(group) = new.group_mut() {
        group.joined = Some((incarnation, join_seq));
    }
    let Some(old) = known else { return new };
    if let (Some(group), Some(before)) = (new.group_mut(), old.group()) {
        group.name.clone_from(&before.name);
        group.picture.clone_from(&before.picture);
        group.profile_from = before.profile_from;
        if old.standing != Standing::Removed {
            group.invited_by = before.invited_by;
            (group.joined, group.taken) = (before.joined, before.taken);
            group.came.clone_from(&before.came);
        }
    }
    Conversation {
        party: new.party,
        standing: Standing::Ready,
        cursor: join_seq.max(old.cursor),
        commit: None,
        updated_ms: now_ms(),
        sealed: 0,
        refused: false,
        gone: false,
        incarnation,
        // Of a group its state says it; between two what was read in the log.
        timer_s: joined.data.as_ref().map_or(old.timer_s, GroupData::timer_s),
        ..old
    }
}

fn new_record(own: AccountId, joined: &Joined, join_seq: Seq) -> Conversation {
    let other = || joined.members.iter().map(|leaf| leaf.account).find(|account| *account != own);
    let party = match &joined.data {
        None => Party::Direct(other().unwrap_or(own)),
        Some(data) => Party::Group(Box::new(GroupRecord {
            roles: data.roles().clone(),
            fence: joined.epoch,
            invited_by: Some(joined.by.account),
            ..GroupRecord::default()
        })),
    };
    let timer_s = joined.data.as_ref().map_or(0, GroupData::timer_s);
    let record = Conversation::new(joined.conversation, party, Standing::Ready, join_seq, now_ms());
    Conversation { timer_s, ..record }
}

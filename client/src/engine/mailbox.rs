//! The mailbox: conversations that others have let this device into.

use super::{
    Engine, Halt,
    error::OpError,
    session::{CallError, passes},
    state::{Thread, notice, now_ms, pause_after},
};
use crate::{
    failpoint,
    store::{Conversation, GroupRecord, Party, Standing},
};
use fastchat_delivery::{Policy, Rules};
use fastchat_e2ee::conversation::{self, ConversationError, Joined};
use fastchat_protocol::{
    AccountId, Bytes, ClientFrame, ConversationId, Seq, ServerFrame, client, codec, server,
};
use tokio::time::Instant;

const CURSOR: &str = "mailbox";

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
                    // A manifest at a time: two accounts at most.
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
        let joined = self.store.write(|tx| {
            let joined = conversation::join(&tx.vault(), &me, &joining.welcome, tree, &policy)?;
            if joined.conversation != joining.conversation {
                return Err(OpError::Mls(ConversationError::Invalid(
                    "a welcome to another conversation".into(),
                )));
            }
            let record = new_record(own, &joined, joining.join_seq);
            tx.put_conversation(&record)?;
            tx.set_setting(CURSOR, &place)?;
            Ok(record)
        });
        match joined {
            Ok(record) => {
                failpoint::pass("joined");
                let mut thread = Thread::new(record);
                thread.window.heard_of(joining.join_seq);
                // Live copies that came while the keys were not here were dropped: the log has them.
                thread.window.want();
                self.threads.insert(joining.conversation, thread);
                self.ack_later(joining.conversation);
                Ok(Ok(()))
            }
            Err(OpError::Mls(error)) => Ok(Err(error)),
            Err(OpError::Store(error)) => Err(error.into()),
        }
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

    /// A notice in a conversation, by itself.
    pub(super) fn note(&mut self, id: ConversationId, text: String) -> Result<(), Halt> {
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        let cursor = thread.record.cursor;
        let entry = self.store.write(|tx| notice(tx, id, cursor, text, now_ms()))?;
        self.say_entry(id, &entry);
        Ok(())
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
    Conversation::new(joined.conversation, party, Standing::Ready, join_seq, now_ms())
}

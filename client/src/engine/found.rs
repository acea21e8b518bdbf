//! From a name to a conversation: look up, pin, claim key packages, found; and what happens when the
//! other party founds at the same moment.

use super::{
    Engine, Halt,
    error::OpError,
    send::short_of,
    session::{Asked, CallError},
    state::{Thread, now_ms},
};
use crate::{
    api::{ApiError, ErrorKind},
    failpoint,
    link::LinkError,
    store::{Contact, Conversation, FoundingFrame, Item, ItemState, Party, Standing, What},
};
use fastchat_delivery::{Policy, Rules, Suite};
use fastchat_e2ee::conversation::{self, ConversationError};
use fastchat_protocol::{
    AccountId, Bytes, ClientFrame, Code, ConversationId, Counter, Refusal, Seq, ServerFrame, client,
    server::Sent,
};
use std::time::Duration;
use tokio::time::Instant;

/// What founding is refused with before the server is asked, and when it may be tried again.
enum Failed {
    /// No retry helps.
    Never(ApiError),
    /// Later, and why not now.
    Later(String, Duration),
    /// Somebody must look at the identity.
    Untrusted(ApiError),
}

const PAUSE: Duration = Duration::from_secs(2);

impl Engine {
    /// Finds (or founds) the conversations of drafts that have none.
    pub(super) async fn route(&mut self) -> Result<(), Halt> {
        let now = Instant::now();
        self.route_wait.retain(|_, (at, _)| *at > now);
        let mut tried: Vec<String> = Vec::new();
        let positions: Vec<i64> = self.unrouted.iter().copied().collect();
        for position in positions {
            let Some(name) = self.items.get(&position).map(|item| item.to.clone()) else { continue };
            if let Some(id) = self.known_conversation(&name) {
                self.assign(position, id)?;
                continue;
            }
            if tried.contains(&name) || self.route_wait.contains_key(&name) {
                continue;
            }
            tried.push(name.clone());
            match self.begin_with(&name).await? {
                Ok(id) => self.assign(position, id)?,
                Err(failed) => self.not_started(&name, failed)?,
            }
        }
        self.route_files(&tried).await
    }

    /// Finds (or founds) the conversations of files that have none.
    async fn route_files(&mut self, tried: &[String]) -> Result<(), Halt> {
        for name in self.files.unrouted() {
            if let Some(id) = self.known_conversation(&name) {
                self.assign_files(&name, id)?;
            } else if !tried.contains(&name) && !self.route_wait.contains_key(&name) {
                match self.begin_with(&name).await? {
                    Ok(id) => self.assign_files(&name, id)?,
                    Err(failed) => self.not_started(&name, failed)?,
                }
            }
        }
        Ok(())
    }

    /// The conversation with the account that the name is known for.
    fn known_conversation(&self, name: &str) -> Option<ConversationId> {
        let contact = self.contact_named(name)?;
        self.conversation_with(contact.account)
    }

    /// The draft goes to this conversation.
    fn assign(&mut self, position: i64, id: ConversationId) -> Result<(), Halt> {
        let (Some(item), Some(thread)) = (self.items.get_mut(&position), self.threads.get_mut(&id)) else {
            return Ok(());
        };
        item.conversation = Some(id);
        let item = item.clone();
        self.store.write(|tx| tx.put_item(&item))?;
        self.problems.remove(&item.id);
        thread.lane.push(position);
        self.unrouted.retain(|at| *at != position);
        tracing::debug!(id = short_of(&item.id), "routed");
        Ok(())
    }

    fn not_started(&mut self, name: &str, failed: Failed) -> Result<(), Halt> {
        let for_name = |engine: &Self| -> Vec<i64> {
            let named = |at: &&i64| engine.items.get(*at).is_some_and(|item| item.to == name);
            engine.unrouted.iter().filter(named).copied().collect()
        };
        match failed {
            Failed::Never(error) => {
                self.files_not_started(name, &error, true)?;
                for position in for_name(self) {
                    self.fail(position, error.clone(), false)?;
                }
            }
            Failed::Later(why, pause) => {
                let error = ApiError::new(ErrorKind::Network, why.clone());
                self.files_not_started(name, &error, false)?;
                for position in for_name(self) {
                    self.waits(position, why.clone());
                }
                self.route_wait.insert(name.to_owned(), (Instant::now() + pause, why));
            }
            Failed::Untrusted(error) => {
                self.files_not_started(name, &error, true)?;
                for position in for_name(self) {
                    self.waits(position, error.message.clone());
                    let Some(id) = self.items.get(&position).map(|item| item.id) else { continue };
                    self.answer(id, &Err(error.clone()));
                }
                self.route_wait.insert(name.to_owned(), (Instant::now() + PAUSE, error.message));
            }
        }
        Ok(())
    }

    /// Looks the name up and founds a conversation, unless there is one.
    async fn begin_with(&mut self, name: &str) -> Result<Result<ConversationId, Failed>, Halt> {
        let contact = match self.look_up(name).await? {
            Ok(contact) => contact,
            Err(failed) => return Ok(Err(failed)),
        };
        if contact.changed.is_some() {
            return Ok(Err(Failed::Untrusted(self.untrusted(name))));
        }
        if let Some(id) = self.conversation_with(contact.account) {
            return Ok(Ok(id));
        }
        let packages = match self.claim(&contact).await? {
            Ok(packages) => packages,
            Err(failed) => return Ok(Err(failed)),
        };
        self.found(contact.account, &packages)
    }

    async fn look_up(&mut self, name: &str) -> Result<Result<Contact, Failed>, Halt> {
        Ok(self.look_up_answer(name).await?.map_err(|refusal| match refusal.code {
            Code::NoAccount => {
                Failed::Never(ApiError::new(ErrorKind::NotFound, format!("there is no account named {name}")))
            }
            Code::BadManifest => Failed::Untrusted(ApiError::new(ErrorKind::Untrusted, refusal.to_string())),
            _ => Failed::Later(
                refusal.to_string(),
                refusal.wait_ms.map_or(PAUSE, |ms| Duration::from_millis(ms.into())),
            ),
        }))
    }

    /// A key package for each device of both accounts, but this one.
    async fn claim(&mut self, contact: &Contact) -> Result<Result<Vec<Bytes>, Failed>, Halt> {
        let own = self.me.account();
        let others = self.manifest(own).is_some_and(|manifest| manifest.devices().len() > 1);
        let mut packages = Vec::new();
        for account in [contact.account, own] {
            let wanted =
                if account == own { others && packages.is_empty() | (contact.account != own) } else { true };
            if !wanted {
                continue;
            }
            let claim = client::ClaimKeyPackages { account, suite: Suite::PostQuantum.code() };
            let got = match self.call(ClientFrame::ClaimKeyPackages(claim)).await {
                Ok(ServerFrame::KeyPackages(got)) => got.packages,
                Ok(_) | Err(CallError::Down) => return Err(Halt::Down),
                Err(CallError::Refused(refusal)) => {
                    let wait = refusal.wait_ms.map_or(PAUSE, |ms| Duration::from_millis(ms.into()));
                    return Ok(Err(Failed::Later(refusal.to_string(), wait)));
                }
            };
            let mine = self.me.id();
            let before = packages.len();
            packages.extend(
                got.into_iter().filter(|package| package.device != mine).map(|package| package.package),
            );
            if account != own && packages.len() == before {
                let why = format!("{} has no device that can be reached yet", contact.name);
                return Ok(Err(Failed::Later(why, PAUSE)));
            }
            if contact.account == own {
                break;
            }
        }
        Ok(Ok(packages))
    }

    /// Keys, conversation and what `Found` will carry in one transaction; then it is sent.
    fn found(&mut self, peer: AccountId, packages: &[Bytes]) -> Result<Result<ConversationId, Failed>, Halt> {
        let (me, id) = (self.me.clone(), ConversationId::new(rand::random()));
        let incarnation = self.incarnation();
        let contacts = &self.contacts;
        let manifests = |account: AccountId| contacts.get(&account).map(|contact| contact.manifest.clone());
        let policy = Policy { rules: Rules::Direct([me.account(), peer]), manifests: &manifests };
        let made = self.store.write(|tx| {
            let founding =
                conversation::found(&tx.vault(), &me, id, Suite::PostQuantum, packages, None, &policy)?;
            let frame = FoundingFrame {
                group_info: founding.group_info,
                tree: founding.tree,
                welcomes: founding.welcomes,
            };
            let record =
                Conversation::new(id, Party::Direct(peer), Standing::Founding(frame), Seq(0), now_ms())
                    .of(incarnation);
            tx.put_conversation(&record)?;
            Ok::<_, OpError>(record)
        });
        let record = match made {
            Ok(record) => record,
            Err(OpError::Store(error)) => return Err(error.into()),
            Err(OpError::Mls(error)) => {
                let name = self.name_of(peer);
                let kind = if matches!(error, ConversationError::Policy(_)) {
                    ErrorKind::Untrusted
                } else {
                    ErrorKind::Internal
                };
                let message = format!("no conversation with {name} could be begun: {error}");
                return Ok(Err(Failed::Never(ApiError::new(kind, message))));
            }
        };
        failpoint::pass("founded");
        self.threads.insert(id, Thread::new(record));
        Ok(Ok(id))
    }

    /// Sends `Found`, for the first time or again.
    pub(super) async fn send_found(&mut self, id: ConversationId) -> Result<(), Halt> {
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(()) };
        let Standing::Founding(frame) = thread.record.standing.clone() else { return Ok(()) };
        thread.in_flight = true;
        let party = thread.record.peer();
        let FoundingFrame { group_info, tree, welcomes } = frame;
        let found = match party {
            Some(peer) => {
                ClientFrame::Found(client::Found { conversation: id, peer, group_info, tree, welcomes })
            }
            None => ClientFrame::FoundGroup(client::FoundGroup {
                conversation: id,
                counter: Counter(0),
                replaces: None,
                group_info,
                tree,
                welcomes,
            }),
        };
        match self.transmit(&found, Asked::Found(id)).await {
            Ok(_) => Ok(()),
            Err(CallError::Down) => Err(Halt::Down),
            Err(CallError::Refused(refusal)) => self.on_found_answer(id, Err(refusal)),
        }
    }

    pub(super) fn on_found_answer(
        &mut self,
        id: ConversationId,
        answer: Result<Sent, Refusal>,
    ) -> Result<(), Halt> {
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(()) };
        thread.in_flight = false;
        let refusal = match answer {
            Ok(sent) => return self.on_founded(id, sent.seq),
            Err(refusal) => refusal,
        };
        if refusal.code == Code::ConversationExists {
            match refusal.conversation {
                Some(other) if other != id => return self.lost_founding(id, other),
                _ => return self.on_founded(id, Seq(1)),
            }
        }
        match LinkError::from(refusal.clone()).is_final() {
            false => {
                self.pause(id, refusal.wait_ms.map(|ms| Duration::from_millis(ms.into())));
                for position in self.positions_of(id) {
                    self.waits(position, refusal.to_string());
                }
                Ok(())
            }
            true => {
                let error = LinkError::from(refusal);
                let error = ApiError::new(error.kind(), error.to_string());
                self.fail_files_of(id, &error)?;
                for position in self.forget_founding(id)? {
                    self.fail(position, error.clone(), true)?;
                }
                Ok(())
            }
        }
    }

    fn on_founded(&mut self, id: ConversationId, seq: Seq) -> Result<(), Halt> {
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(()) };
        if !matches!(thread.record.standing, Standing::Founding(_)) {
            return Ok(());
        }
        let mut record = thread.record.clone();
        record.standing = Standing::Ready;
        record.cursor = seq;
        record.read = seq;
        self.store.write(|tx| tx.put_conversation(&record))?;
        thread.record = record;
        thread.failures = 0;
        // What came while the answer was on its way was not taken.
        thread.window.want();
        self.ack_later(id);
        let Some(group) = self.threads.get(&id).and_then(|thread| thread.record.group()) else {
            return Ok(());
        };
        let own = self.me.account();
        let others: Vec<AccountId> = group.roles.keys().copied().filter(|account| *account != own).collect();
        let text = self.words(|words| match others.is_empty() {
            true => "you began the group".to_owned(),
            false => format!("you began the group with {}", words.list(others)),
        });
        self.note(id, text)
    }

    /// The other party (or another device) was first. Our group goes; its drafts wait for the
    /// winner's welcome, which was stored together with the winner's conversation.
    fn lost_founding(&mut self, id: ConversationId, winner: ConversationId) -> Result<(), Halt> {
        let Some(peer) = self.threads.get(&id).and_then(|thread| thread.record.peer()) else { return Ok(()) };
        tracing::info!(%winner, "somebody else has founded the conversation first");
        self.forget_founding(id)?;
        self.mailbox_wanted = true;
        self.sync_wanted = true;
        if !self.threads.contains_key(&winner) {
            self.races.push((winner, peer));
        }
        Ok(())
    }

    /// After the mailbox was read: a winner that did not let this device in is entered by itself.
    pub(super) fn settle_races(&mut self) -> Result<(), Halt> {
        for (winner, peer) in std::mem::take(&mut self.races) {
            if self.threads.contains_key(&winner) {
                continue;
            }
            let why = "the conversation was begun without this device".to_owned();
            let record =
                Conversation::new(winner, Party::Direct(peer), Standing::Rejoining(why), Seq(0), now_ms())
                    .of(self.incarnation());
            self.store.write(|tx| tx.put_conversation(&record))?;
            self.threads.insert(winner, Thread::new(record));
        }
        Ok(())
    }

    /// Our group goes; its messages become drafts without a conversation. Returns them.
    fn forget_founding(&mut self, id: ConversationId) -> Result<Vec<i64>, Halt> {
        let positions = self.positions_of(id);
        let mut drafts = Vec::new();
        for position in &positions {
            let Some(item) = self.items.get_mut(position) else { continue };
            item.conversation = None;
            item.state = ItemState::Draft;
            drafts.push(item.clone());
        }
        // Nothing else than a group has a name to be told, and without the group nobody to tell it to.
        let nameless = |item: &Item| !matches!(item.what, What::Text | What::File(_));
        let written = self.store.write(|tx| {
            conversation::discard(&tx.vault(), id)?;
            tx.delete_conversation(id)?;
            drafts.iter().try_for_each(|item| match nameless(item) {
                true => tx.delete_item(item.id),
                false => tx.put_item(item),
            })?;
            Ok::<_, OpError>(())
        });
        match written {
            Ok(()) => {}
            Err(OpError::Store(error)) => return Err(error.into()),
            Err(OpError::Mls(error)) => return Err(Halt::Fatal(ApiError::internal(error))),
        }
        let message = "the conversation is being begun anew: try again";
        self.answer_update(id, &Err(ApiError::new(ErrorKind::Network, message)));
        self.threads.remove(&id);
        self.dirty.remove(&id);
        self.unassign_files(id)?;
        self.unrouted.extend(&positions);
        self.unrouted.make_contiguous().sort_unstable();
        Ok(positions)
    }

    /// Messages of a conversation that are not on the server yet.
    pub(super) fn positions_of(&self, id: ConversationId) -> Vec<i64> {
        let waiting = |state: &ItemState| matches!(state, ItemState::Draft | ItemState::Sealed { .. });
        let of = self.items.iter().filter(|(_, item)| item.conversation == Some(id) && waiting(&item.state));
        of.map(|(position, _)| *position).collect()
    }
}

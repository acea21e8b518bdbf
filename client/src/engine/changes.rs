//! What is wanted of a conversation's members, made into commits one after the other.
//!
//! The first wish is looked at whenever the conversation is up to date: it is done, impossible, or one
//! more commit. Whoever loses a race reads the winner and looks again, so nobody sees the race.

use super::{
    Engine, Halt,
    error::OpError,
    members::{self, Next, Plan, View},
    parked::Answer,
    rejoin::{own_commit, own_founding},
    state::{Waiter, pause_after},
};
use crate::{
    api::{ApiError, ErrorKind},
    store::{CommitReason, Conversation, ItemId, MemberChange, OwnCommit},
};
use fastchat_delivery::{Leave, Policy, Suite};
use fastchat_e2ee::conversation::{self, ConversationError, Info, Members};
use fastchat_protocol::{AccountId, Bytes, ConversationId, Counter, DeviceId};
use std::collections::BTreeSet;
use tokio::time::Instant;

type Made = Result<(Conversation, Counter), ConversationError>;

impl Engine {
    /// Stores a wish behind the others.
    pub(super) fn want_change(&mut self, id: ConversationId, change: MemberChange) -> Result<(), Halt> {
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(()) };
        thread.commit_failures = 0;
        if thread.record.changes.contains(&change) {
            return Ok(());
        }
        let mut record = thread.record.clone();
        match change {
            // Before anything else is sent, or anybody comes back.
            MemberChange::Evict => record.changes.insert(0, change),
            change => record.changes.push(change),
        }
        self.store.write(|tx| tx.put_conversation(&record))?;
        self.set_record(record);
        Ok(())
    }

    /// Looks at the first wish of a conversation that is ready and has no commit on its way.
    pub(super) async fn change_due(&mut self, id: ConversationId) -> Result<(), Halt> {
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        let waits = thread.commit_at.is_some_and(|at| at > Instant::now());
        if waits || thread.window.is_behind(thread.record.cursor) {
            return Ok(());
        }
        let Some(change) = thread.record.changes.first().cloned() else { return Ok(()) };
        match self.plan_for(id, &change)? {
            Err(error) => self.change_over(id, &change, &Err(error)),
            Ok(Next::Done) => self.change_over(id, &change, &Ok(())),
            Ok(Next::Leave) => self.leave(id).await,
            Ok(Next::Commit(plan)) => self.commit_members(id, change, plan).await,
            Ok(Next::Generation(accounts)) => self.next_generation(id, change, accounts).await,
        }
    }

    /// The next step towards a wish, from what this device has of the conversation now.
    pub(super) fn plan_for(
        &self,
        id: ConversationId,
        change: &MemberChange,
    ) -> Result<Result<Next, ApiError>, Halt> {
        let Some((info, unlisted)) = self.info_of(id)? else {
            let message = "this device has no keys for the conversation yet: try again";
            return Ok(Err(ApiError::new(ErrorKind::Network, message)));
        };
        let group = self.threads.get(&id).and_then(|thread| thread.record.group());
        let left = group.map(|group| group.left.clone()).unwrap_or_default();
        let view = View {
            own: self.me.account(),
            info: &info,
            left: &left,
            unlisted: &unlisted,
            devices: &|account| self.device_count(account),
            name: &|account| self.name_of(account),
        };
        Ok(members::plan(change, &view))
    }

    /// The keys' state, and the leaves that no manifest lists.
    pub(super) fn info_of(&self, id: ConversationId) -> Result<Option<(Info, Vec<DeviceId>)>, Halt> {
        let info = self.store.read(|tx| conversation::info(&tx.vault(), id));
        let info = info.map_err(|error| Halt::Fatal(ApiError::internal(error)))?;
        let Some(record) = self.threads.get(&id).map(|thread| &thread.record) else { return Ok(None) };
        let manifests = |account: AccountId| self.manifest(account);
        let policy = Policy { rules: record.party.rules(self.me.account()), manifests: &manifests };
        Ok(info.map(|info| {
            let unlisted = policy.unlisted(&info.members);
            (info, unlisted)
        }))
    }

    async fn commit_members(
        &mut self,
        id: ConversationId,
        change: MemberChange,
        plan: Plan,
    ) -> Result<(), Halt> {
        if !self.make_quiet(id)? {
            return Ok(());
        }
        let suite = self.suite_of(id)?;
        let packages = match self.claim_all(&plan.add, suite).await? {
            Ok(packages) => packages,
            Err(error) => return self.change_over(id, &change, &Err(error)),
        };
        self.make(id, &change, |engine| engine.try_commit(id, &change, &plan, &packages)).await
    }

    fn suite_of(&self, id: ConversationId) -> Result<Suite, Halt> {
        Ok(self.info_of(id)?.map(|(info, _)| info.suite).unwrap_or_default())
    }

    /// Makes a commit, fetching the manifests that it wants, and sends it.
    async fn make(
        &mut self,
        id: ConversationId,
        change: &MemberChange,
        mut attempt: impl FnMut(&mut Self) -> Result<Made, Halt>,
    ) -> Result<(), Halt> {
        let mut asked = BTreeSet::new();
        loop {
            let error = match attempt(self)? {
                Ok((record, counter)) => return self.commit_made(id, record, counter).await,
                Err(error) => error,
            };
            match error.wants_manifest() {
                Some(account) if asked.insert(account) => {
                    if let Err(refusal) = self.learn(account).await? {
                        self.change_later(id, refusal.wait_ms);
                        return Ok(());
                    }
                }
                _ => {
                    let error = ApiError::new(ErrorKind::Refused, error.to_string());
                    return self.change_over(id, change, &Err(error));
                }
            }
        }
    }

    fn change_later(&mut self, id: ConversationId, wait_ms: Option<u32>) {
        if let Some(thread) = self.threads.get_mut(&id) {
            thread.commit_at = Some(Instant::now() + pause_after(thread.commit_failures, wait_ms));
            thread.commit_failures += 1;
        }
    }

    fn try_commit(
        &mut self,
        id: ConversationId,
        change: &MemberChange,
        plan: &Plan,
        packages: &[Bytes],
    ) -> Result<Made, Halt> {
        let Some(thread) = self.threads.get(&id) else { return Err(Halt::Down) };
        let (mut record, counter, me) = (thread.record.clone(), thread.lane.last().next(), self.me.clone());
        let contacts = &self.contacts;
        let manifests = |account: AccountId| contacts.get(&account).map(|contact| contact.manifest.clone());
        let members = Members { add: packages, remove: &plan.remove, data: plan.data.clone() };
        let made = self.store.write(|tx| {
            let policy = Policy { rules: record.party.rules(me.account()), manifests: &manifests };
            let pending = conversation::change_members(&tx.vault(), &me, id, counter, &members, &policy)?;
            record.counter = counter;
            record.commit = Some(own_commit(pending, counter, CommitReason::Members(change.clone())));
            tx.put_conversation(&record)?;
            Ok::<_, OpError>(record)
        });
        settled(made, counter)
    }

    /// The statement takes the place of a commit: it has a counter and its fate is read in the log.
    async fn leave(&mut self, id: ConversationId) -> Result<(), Halt> {
        if !self.make_quiet(id)? {
            return Ok(());
        }
        let Some((info, _)) = self.info_of(id)? else { return Ok(()) };
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        let (mut record, counter) = (thread.record.clone(), thread.lane.last().next());
        let (account, device) = (self.me.account(), self.me.id());
        let leave = Leave { conversation: id, epoch: info.epoch, account, device, counter };
        record.counter = counter;
        record.commit = Some(OwnCommit {
            counter,
            commit: self.me.sign_leave(&leave),
            group_info: Bytes::new(),
            welcomes: Vec::new(),
            tree: Bytes::new(),
            reason: CommitReason::Leave,
        });
        self.store.write(|tx| tx.put_conversation(&record))?;
        self.commit_made(id, record, counter).await
    }

    /// All members are let in anew, by one founding in the other suite.
    async fn next_generation(
        &mut self,
        id: ConversationId,
        change: MemberChange,
        new: Vec<AccountId>,
    ) -> Result<(), Halt> {
        if !self.make_quiet(id)? {
            return Ok(());
        }
        let Some((info, _)) = self.info_of(id)? else { return Ok(()) };
        let left = self.threads.get(&id).and_then(|thread| thread.record.group()).map(|g| g.left.clone());
        let timer_s = info.data.as_ref().map_or(0, fastchat_delivery::GroupData::timer_s);
        let mut roles = info.data.map(|data| data.roles().clone()).unwrap_or_default();
        roles.retain(|account, _| !left.as_ref().is_some_and(|left| left.contains(account)));
        roles.extend(new.into_iter().map(|account| (account, fastchat_protocol::Role::Member)));
        let accounts: Vec<AccountId> = roles.keys().copied().collect();
        let data = fastchat_delivery::GroupData::new(roles);
        let data = match data.and_then(|data| data.with_timer(timer_s)) {
            Ok(data) => data,
            Err(error) => {
                let error = ApiError::new(ErrorKind::Refused, error.to_string());
                return self.change_over(id, &change, &Err(error));
            }
        };
        let packages = match self.claim_all(&accounts, Suite::Classic).await? {
            Ok(packages) => packages,
            Err(error) => return self.change_over(id, &change, &Err(error)),
        };
        let replaces = info.epoch;
        self.make(id, &change, |engine| {
            let Some(thread) = engine.threads.get(&id) else { return Err(Halt::Down) };
            let (mut record, counter, me) =
                (thread.record.clone(), thread.lane.last().next(), engine.me.clone());
            let contacts = &engine.contacts;
            let manifests =
                |account: AccountId| contacts.get(&account).map(|contact| contact.manifest.clone());
            let made = engine.store.write(|tx| {
                let policy = Policy { rules: record.party.rules(me.account()), manifests: &manifests };
                let vault = tx.vault();
                let founding =
                    conversation::found_next(&vault, &me, id, Suite::Classic, &packages, &data, &policy)?;
                record.counter = counter;
                let reason = CommitReason::Generation { replaces, change: change.clone() };
                record.commit = Some(own_founding(founding, counter, reason));
                tx.put_conversation(&record)?;
                Ok::<_, OpError>(record)
            });
            settled(made, counter)
        })
        .await
    }

    /// A wish is done, or impossible: it goes, and whoever waits hears of it.
    pub(super) fn change_over(
        &mut self,
        id: ConversationId,
        change: &MemberChange,
        outcome: &Result<(), ApiError>,
    ) -> Result<(), Halt> {
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        let mut record = thread.record.clone();
        record.changes.retain(|other| other != change);
        let order = match (outcome, change) {
            (Ok(()), MemberChange::Add { accounts, history, .. }) if *history > 0 => {
                Some(self.history_for(id, accounts, *history))
            }
            _ => None,
        };
        let (order, why_not) = match order {
            Some(Ok(order)) => (Some(order), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        self.store.write(|tx| {
            order.iter().try_for_each(|order| tx.put_transfer(order))?;
            tx.put_conversation(&record)
        })?;
        self.set_record(record);
        self.stirred = true;
        if let Some(error) = why_not {
            self.note(id, format!("the history was not shared: {error}"))?;
        }
        let order = order.map(|order| self.history_ordered(order));
        match outcome {
            Ok(()) => self.change_done(id, change, order),
            Err(error) => self.change_impossible(id, change, error),
        }
    }

    fn change_done(
        &mut self,
        id: ConversationId,
        change: &MemberChange,
        order: Option<ItemId>,
    ) -> Result<(), Halt> {
        // Who came in is told the name of the group right away; the answer waits for that.
        self.tell_profile(id)?;
        let telling = |item: &&crate::store::Item| {
            item.conversation == Some(id) && matches!(item.what, crate::store::What::Profile { .. })
        };
        let profile: Option<ItemId> = self.items.values().rfind(telling).map(|item| item.id);
        match (change, order, profile) {
            (MemberChange::Add { .. }, Some(order), _) => {
                for waiter in self.take_change_waiters(id, change) {
                    self.wait_for_file((order, Some(id)), waiter.deadline, waiter.reply);
                }
            }
            (MemberChange::Add { .. }, None, Some(item)) => {
                for waiter in self.take_change_waiters(id, change) {
                    let (deadline, reply) = (waiter.deadline, waiter.reply);
                    self.waiters.push(Waiter { id: item, deadline, reply, group: Some(id) });
                }
            }
            _ => {
                let answer: Answer = self.view_group(id);
                self.answer_change(id, change, &answer);
            }
        }
        Ok(())
    }

    fn change_impossible(
        &mut self,
        id: ConversationId,
        change: &MemberChange,
        error: &ApiError,
    ) -> Result<(), Halt> {
        let waiting = self.take_change_waiters(id, change);
        if waiting.is_empty() && *change != MemberChange::Evict {
            return self.note(id, format!("a change of members that was asked for earlier: {error}"));
        }
        tracing::info!(%error, ?change, "a change of members is over");
        for waiter in waiting {
            let _ = waiter.reply.send(Err(error.clone()));
        }
        Ok(())
    }

    /// Before anything is sealed: whoever has left and whatever was revoked goes first, and who came in
    /// without hearing the group's name is told. True if that has to be waited for.
    pub(super) fn audit(&mut self, id: ConversationId) -> Result<bool, Halt> {
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(false) };
        if !std::mem::take(&mut thread.audit_due) {
            return Ok(false);
        }
        if let Ok(Next::Commit(_)) = self.plan_for(id, &MemberChange::Evict)? {
            self.want_change(id, MemberChange::Evict)?;
            return Ok(true);
        }
        self.tell_profile(id)?;
        Ok(false)
    }

    /// Says a group's name and picture again, if somebody has not heard them and this account may.
    pub(super) fn tell_profile(&mut self, id: ConversationId) -> Result<(), Halt> {
        let own = self.me.account();
        let Some(group) = self.threads.get(&id).and_then(|thread| thread.record.group()) else {
            return Ok(());
        };
        let may = group.roles.get(&own).is_some_and(|role| *role >= fastchat_protocol::Role::Admin);
        if !group.profile_due || !may || group.name.is_empty() {
            return Ok(());
        }
        let item = self.profile_item(ItemId(rand::random()), id, group);
        let Some(mut record) = self.threads.get(&id).map(|thread| thread.record.clone()) else {
            return Ok(());
        };
        if let Some(group) = record.group_mut() {
            group.profile_due = false;
        }
        let position = self.store.write(|tx| {
            tx.put_conversation(&record)?;
            tx.add_item(&item)
        })?;
        self.set_record(record);
        if let Some(position) = position {
            self.queued(position, item);
        }
        Ok(())
    }
}

fn settled(made: Result<Conversation, OpError>, counter: Counter) -> Result<Made, Halt> {
    match made {
        Ok(record) => Ok(Ok((record, counter))),
        Err(OpError::Store(error)) => Err(error.into()),
        Err(OpError::Mls(error)) => Ok(Err(error)),
    }
}

//! Commits of our own: new keys, and entering a conversation anew.
//!
//! - A commit takes the next counter, so it waits until no message has an open one.
//! - It is stored before it is sent and goes out with the same bytes until its fate is known: read in
//!   the log (`OwnCommit`), or refused definitely, which gives the counter back.
//! - The loser of a race reads the winner from the log and makes its commit anew.

use super::{
    Engine, Halt,
    error::OpError,
    group_rows,
    row::REJOIN_INTERVAL_MS,
    session::{Asked, CallError},
    state::{Arrived, now_ms, pause_after},
};
use crate::{
    api::{ApiError, ErrorKind, Response},
    link::LinkError,
    store::{CommitReason, MemberChange, OwnCommit, Standing},
};
use fastchat_delivery::Policy;
use fastchat_e2ee::conversation::{self, Founding, PendingCommit};
use fastchat_protocol::{
    AccountId, Bytes, ClientFrame, Code, ConversationId, Counter, Refusal, Retry, Seq, ServerFrame, client,
    server::{GroupState, LogKind, LogRow, Sent},
};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::time::Instant;

/// Why a conversation is entered anew when the server knows more of this device than it does itself.
pub(super) const ROLLED_BACK: &str =
    "this profile is older than what the server has from it (restored from a backup?)";
/// Keys are made new after this many messages of ours, or this long.
const UPDATE_MESSAGES: u32 = 1_000;
const UPDATE_MS: u64 = 7 * 24 * 3600 * 1000;
/// Limit: a commit that loses this often gives up until it is wanted again.
const MAX_ATTEMPTS: u32 = 20;
/// Limit: pages of the log read in one go before an external commit.
const MAX_PAGES: usize = 64;

impl Engine {
    /// Foundings and commits that may go out now.
    pub(super) async fn commit_due(&mut self) -> Result<(), Halt> {
        let ids: Vec<ConversationId> = self.threads.keys().copied().collect();
        for id in ids {
            let now = Instant::now();
            let Some(thread) = self.threads.get(&id) else { continue };
            if thread.in_flight || !thread.may_try(now) || !self.in_step(id) {
                continue;
            }
            match (&thread.record.standing, &thread.record.commit) {
                (Standing::Founding(_), _) => self.send_found(id).await?,
                (_, Some(_)) => self.send_commit(id).await?,
                (Standing::Rejoining(why), None)
                    if thread.commit_at.is_none_or(|at| at <= now) && thread.stalled_until.is_none() =>
                {
                    let why = why.clone();
                    self.rejoin(id, why).await?;
                }
                (Standing::Restoring(since), None)
                    if thread.commit_at.is_none_or(|at| at <= now) && thread.stalled_until.is_none() =>
                {
                    let since = *since;
                    self.restore_due(id, since).await?;
                }
                (Standing::Ready, None) if !thread.record.changes.is_empty() => self.change_due(id).await?,
                (Standing::Ready, None) => self.update_if_due(id).await?,
                _ => {}
            }
        }
        Ok(())
    }

    async fn update_if_due(&mut self, id: ConversationId) -> Result<(), Halt> {
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(()) };
        let record = &thread.record;
        // Spread, so that a burst of conversations does not make a burst of commits.
        let spread = u64::from(id.as_bytes()[0]);
        let old = now_ms().saturating_sub(record.updated_ms) > UPDATE_MS + spread * UPDATE_MS / 2560;
        if old || record.sealed > UPDATE_MESSAGES + spread as u32 {
            thread.update.get_or_insert_default();
        }
        let waiting = thread.commit_at.is_some_and(|at| at > Instant::now());
        if thread.update.is_none() || waiting || thread.window.is_behind(thread.record.cursor) {
            return Ok(());
        }
        if !self.make_quiet(id)? {
            return Ok(());
        }
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        let (mut record, counter, me) = (thread.record.clone(), thread.lane.last().next(), self.me.clone());
        let made = self.store.write(|tx| {
            let pending = conversation::update_keys(&tx.vault(), &me, id, counter)?;
            record.counter = counter;
            record.commit = Some(own_commit(pending, counter, CommitReason::Update));
            tx.put_conversation(&record)?;
            Ok::<_, OpError>(())
        });
        match made {
            Ok(()) => {}
            Err(OpError::Store(error)) => return Err(error.into()),
            Err(OpError::Mls(error)) => {
                self.answer_update(id, &Err(ApiError::internal(&error)));
                return self.want_rejoin(id, &error.to_string());
            }
        }
        self.commit_made(id, record, counter).await
    }

    /// No message has an open counter. Refused ones give theirs back: they are sealed anew anyway.
    pub(super) fn make_quiet(&mut self, id: ConversationId) -> Result<bool, Halt> {
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(false) };
        let released = thread.lane.release();
        let quiet = thread.lane.is_quiet();
        if !released.is_empty() {
            let mut record = thread.record.clone();
            record.counter = thread.lane.last();
            self.store.write(|tx| tx.put_conversation(&record))?;
            self.set_record(record);
            self.make_drafts(id, &released)?;
        }
        Ok(quiet)
    }

    pub(super) async fn commit_made(
        &mut self,
        id: ConversationId,
        record: crate::store::Conversation,
        counter: Counter,
    ) -> Result<(), Halt> {
        self.set_record(record);
        if let Some(thread) = self.threads.get_mut(&id) {
            thread.lane.set_last(counter);
        }
        self.send_commit(id).await
    }

    async fn send_commit(&mut self, id: ConversationId) -> Result<(), Halt> {
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(()) };
        let Some(own) = thread.record.commit.clone() else { return Ok(()) };
        thread.in_flight = true;
        let frame = frame_of(id, own);
        match self.transmit(&frame, Asked::Commit(id)).await {
            Ok(_) => Ok(()),
            Err(CallError::Down) => Err(Halt::Down),
            Err(CallError::Refused(refusal)) => self.on_commit_answer(id, Err(refusal)),
        }
    }

    pub(super) fn on_commit_answer(
        &mut self,
        id: ConversationId,
        answer: Result<Sent, Refusal>,
    ) -> Result<(), Halt> {
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(()) };
        thread.in_flight = false;
        let Some(commit) = thread.record.commit.clone() else { return Ok(()) };
        let refusal = match answer {
            Ok(Sent { seq, at_ms, .. }) => {
                let (sender, envelope) = (self.me.id(), Some(commit.commit));
                let kind = match commit.reason {
                    CommitReason::Leave => LogKind::Left,
                    CommitReason::Generation { .. } | CommitReason::Restored { .. } => LogKind::Founded,
                    CommitReason::Update | CommitReason::Rejoin(_) | CommitReason::Members(_) => {
                        LogKind::Commit
                    }
                };
                let row = LogRow { seq, sender, counter: commit.counter, kind, at_ms, envelope };
                thread.window.offer(thread.record.cursor, seq, Arrived { row, from_log: true });
                return Ok(());
            }
            Err(refusal) => refusal,
        };
        match (refusal.code, refusal.code.retry()) {
            (_, Retry::Later | Retry::Unknown) => {
                self.pause(id, refusal.wait_ms.map(|ms| Duration::from_millis(ms.into())));
                Ok(())
            }
            (Code::CommitConflict | Code::StaleEpoch, _) => self.commit_lost(id, None),
            (code, _) if may_be_a_lost_race(code, &commit.reason, thread.commit_failures) => {
                self.commit_lost(id, None)
            }
            (Code::OutOfOrder, _) => {
                self.commit_lost(id, refusal.expected.map(|next| Counter(next.0.saturating_sub(1))))
            }
            (Code::Conflict | Code::DuplicateExpired, _) => {
                self.commit_lost(id, None)?;
                self.sync_wanted = true;
                let counter = commit.counter;
                self.advance_counter(id, counter)?;
                self.want_rejoin(id, ROLLED_BACK)
            }
            _ => self.commit_failed(id, &commit.reason, refusal),
        }
    }

    /// Nothing was stored: the commit goes, the log is read, and it is made anew if still wanted.
    fn commit_lost(&mut self, id: ConversationId, last: Option<Counter>) -> Result<(), Halt> {
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        let mut record = thread.record.clone();
        let Some(commit) = record.commit.take() else { return Ok(()) };
        record.counter = last.unwrap_or(Counter(commit.counter.0.saturating_sub(1)));
        let cleared = self.store.write(|tx| {
            conversation::clear_pending(&tx.vault(), id)?;
            tx.put_conversation(&record)?;
            Ok::<_, OpError>(())
        });
        match cleared {
            Ok(()) => {}
            Err(OpError::Store(error)) => return Err(error.into()),
            Err(OpError::Mls(error)) => return Err(Halt::Fatal(ApiError::internal(error))),
        }
        let last = record.counter;
        self.set_record(record);
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(()) };
        thread.lane.set_last(last);
        thread.window.want();
        thread.commit_failures += 1;
        let ceiling = Duration::from_millis(50 << thread.commit_failures.min(7));
        thread.commit_at = Some(Instant::now() + ceiling.mul_f64(rand::random()));
        if thread.commit_failures >= MAX_ATTEMPTS {
            let message = "others change the keys of this conversation all the time: try again later";
            self.answer_update(id, &Err(ApiError::new(ErrorKind::Network, message)));
        }
        Ok(())
    }

    /// A rule forbids it: trying again at once would be refused again.
    fn commit_failed(
        &mut self,
        id: ConversationId,
        reason: &CommitReason,
        refusal: Refusal,
    ) -> Result<(), Halt> {
        self.commit_lost(id, None)?;
        let what = match reason {
            CommitReason::Restored { .. } => return self.refound_refused(id, &refusal),
            CommitReason::Update => "new keys were refused",
            CommitReason::Rejoin(_) => "joining anew was refused",
            CommitReason::Members(change) | CommitReason::Generation { change, .. } => {
                return self.change_over(id, change, &Err(LinkError::from(refusal).into()));
            }
            CommitReason::Leave => {
                return self.change_over(id, &MemberChange::Leave, &Err(LinkError::from(refusal).into()));
            }
        };
        let text = format!("{what}: {refusal}");
        let error = LinkError::from(refusal);
        self.answer_update(id, &Err(ApiError::new(error.kind(), error.to_string())));
        if let Some(thread) = self.threads.get_mut(&id) {
            thread.commit_at = Some(Instant::now() + Duration::from_millis(REJOIN_INTERVAL_MS));
        }
        self.note(id, text)
    }

    /// Our commit is in the log.
    pub(super) fn own_commit_done(&mut self, id: ConversationId) {
        if let Some(thread) = self.threads.get_mut(&id) {
            thread.commit_failures = 0;
            thread.commit_at = None;
        }
        // A conversation that was just joined may still have devices that were revoked before.
        self.chores.evict = true;
        self.answer_update(id, &Ok(Response::Done));
    }

    pub(super) fn answer_update(&mut self, id: ConversationId, answer: &Result<Response, ApiError>) {
        let waiting = self.threads.get_mut(&id).and_then(|thread| thread.update.take());
        for reply in waiting.into_iter().flatten() {
            let _ = reply.send(answer.clone());
        }
    }

    /// The keys do not fit what the server has: the conversation is to be entered anew.
    pub(super) fn want_rejoin(&mut self, id: ConversationId, why: &str) -> Result<(), Halt> {
        let Some(thread) = self.threads.get_mut(&id) else { return Ok(()) };
        if !thread.is_ready() || thread.record.refused {
            return Ok(());
        }
        // Rate-limited: the last one is waited out.
        let since = now_ms().saturating_sub(thread.record.rejoined_ms);
        if since < REJOIN_INTERVAL_MS {
            let wait = Duration::from_millis(REJOIN_INTERVAL_MS - since);
            thread.commit_at = Some(Instant::now() + wait);
        }
        self.set_standing(id, Standing::Rejoining(why.to_owned()))
    }

    /// Makes an external commit on the server's newest public state.
    async fn rejoin(&mut self, id: ConversationId, why: String) -> Result<(), Halt> {
        if !self.make_quiet(id)? {
            return Ok(());
        }
        let state =
            match self.call(ClientFrame::GetGroupState(client::GetGroupState { conversation: id })).await {
                Ok(ServerFrame::GroupState(state)) => state,
                Ok(_) | Err(CallError::Down) => return Err(Halt::Down),
                Err(CallError::Refused(refusal)) => return self.rejoin_refused(id, &refusal),
            };
        if !self.read_up_to(id, state.head).await? {
            return Ok(());
        }
        let mut asked: Vec<AccountId> = Vec::new();
        loop {
            match self.try_rejoin(id, &why, &state)? {
                Ok((record, counter)) => return self.commit_made(id, record, counter).await,
                Err(error) => match error.wants_manifest() {
                    Some(account) if !asked.contains(&account) => {
                        asked.push(account);
                        if let Err(refusal) = self.learn(account).await? {
                            self.try_again(id, refusal.wait_ms);
                            return Ok(());
                        }
                    }
                    _ => return self.cannot_rejoin(id, &error),
                },
            }
        }
    }

    /// What the server has cannot be entered. Where the keys are still good, this device goes on with them;
    /// it tries again when a row or a refusal calls for it.
    fn cannot_rejoin(
        &mut self,
        id: ConversationId,
        error: &conversation::ConversationError,
    ) -> Result<(), Halt> {
        self.later(id);
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        let mut record = thread.record.clone();
        let keys = self.store.read(|tx| group_rows::info(tx, &record))?;
        let distrusted = matches!(
            error,
            conversation::ConversationError::Policy(_) | conversation::ConversationError::RolledBack { .. }
        );
        let mut text = format!("this device cannot join anew: {error}");
        // With keys that nobody shares, nothing goes on.
        if distrusted && !record.gone && keys.is_some_and(|info| info.active) {
            text += ". It goes on with the keys that it has";
            (record.standing, record.rejoined_ms) = (Standing::Ready, now_ms());
            self.store.write(|tx| tx.put_conversation(&record))?;
            self.set_record(record);
        }
        self.note_once(id, text)
    }

    /// Reads the log while the old keys are here: what they open must not be lost by new ones. True
    /// once the commit can be made; the log may have less for this device than the head says.
    pub(super) async fn read_up_to(&mut self, id: ConversationId, head: Seq) -> Result<bool, Halt> {
        for _ in 0..MAX_PAGES {
            let Some(before) = self.threads.get(&id).map(|thread| thread.record.cursor) else {
                return Ok(false);
            };
            if before < head {
                self.fetch(id).await?;
                self.apply(id).await?;
            }
            let Some(thread) = self.threads.get(&id) else { return Ok(false) };
            let waits = !thread.may_try(Instant::now()) || thread.stalled_until.is_some();
            if waits || !matches!(thread.record.standing, Standing::Rejoining(_) | Standing::Restoring(_)) {
                return Ok(false);
            }
            if thread.record.cursor >= head || thread.record.cursor == before {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn try_rejoin(
        &mut self,
        id: ConversationId,
        why: &str,
        state: &GroupState,
    ) -> Result<Result<(crate::store::Conversation, Counter), conversation::ConversationError>, Halt> {
        let Some(thread) = self.threads.get(&id) else { return Err(Halt::Down) };
        let (mut record, counter, me) = (thread.record.clone(), thread.lane.last().next(), self.me.clone());
        let contacts = &self.contacts;
        let manifests = |account: AccountId| contacts.get(&account).map(|contact| contact.manifest.clone());
        let made = self.store.write(|tx| {
            let vault = tx.vault();
            let policy = Policy { rules: record.party.rules(me.account()), manifests: &manifests };
            let (group_info, tree) = (&state.group_info, &state.tree);
            let shown = conversation::Shown { group_info, tree, supersedes: record.gone };
            let pending = conversation::resync(&vault, &me, id, &shown, counter, &policy)?;
            record.counter = counter;
            record.rejoined_ms = now_ms();
            record.commit = Some(own_commit(pending, counter, CommitReason::Rejoin(why.to_owned())));
            tx.put_conversation(&record)?;
            Ok::<_, OpError>(())
        });
        match made {
            Ok(()) => Ok(Ok((record, counter))),
            Err(OpError::Store(error)) => Err(error.into()),
            Err(OpError::Mls(error)) => Ok(Err(error)),
        }
    }

    fn rejoin_refused(&mut self, id: ConversationId, refusal: &Refusal) -> Result<(), Halt> {
        match refusal.code {
            Code::NotMember => {
                self.set_standing(id, Standing::Removed)?;
                self.note(
                    id,
                    "the server says that this account is not a member of the conversation".to_owned(),
                )
            }
            _ => {
                self.later(id);
                Ok(())
            }
        }
    }

    /// Nothing is known to be wrong: soon again, or when the server wants.
    fn try_again(&mut self, id: ConversationId, wait_ms: Option<u32>) {
        if let Some(thread) = self.threads.get_mut(&id) {
            thread.commit_at = Some(Instant::now() + pause_after(thread.commit_failures, wait_ms));
            thread.commit_failures += 1;
        }
    }

    fn later(&mut self, id: ConversationId) {
        if let Some(thread) = self.threads.get_mut(&id) {
            thread.commit_at = Some(Instant::now() + Duration::from_millis(REJOIN_INTERVAL_MS));
        }
    }
}

/// Whether a refused external commit was made on a state that another one has replaced since. If this
/// account is really no member, the next request for the state says so.
fn may_be_a_lost_race(code: Code, reason: &CommitReason, failures: u32) -> bool {
    code == Code::NotMember && matches!(reason, CommitReason::Rejoin(_)) && failures < MAX_ATTEMPTS
}

fn frame_of(id: ConversationId, own: OwnCommit) -> ClientFrame {
    let OwnCommit { counter, commit, group_info, welcomes, tree, reason } = own;
    match reason {
        CommitReason::Leave => {
            ClientFrame::Leave(client::Leave { conversation: id, counter, statement: commit })
        }
        CommitReason::Generation { replaces, .. } | CommitReason::Restored { replaces } => {
            ClientFrame::FoundGroup(client::FoundGroup {
                conversation: id,
                counter,
                replaces: Some(replaces),
                group_info,
                tree,
                welcomes,
            })
        }
        CommitReason::Update | CommitReason::Rejoin(_) | CommitReason::Members(_) => {
            ClientFrame::Commit(client::Commit { conversation: id, counter, commit, group_info, welcomes })
        }
    }
}

pub(super) fn own_commit(pending: PendingCommit, counter: Counter, reason: CommitReason) -> OwnCommit {
    let PendingCommit { commit, group_info, welcomes, .. } = pending;
    OwnCommit { counter, commit, group_info, welcomes, tree: Bytes::new(), reason }
}

/// A later generation's founding: its row in the log is the hash of the GroupInfo.
pub(super) fn own_founding(founding: Founding, counter: Counter, reason: CommitReason) -> OwnCommit {
    let Founding { group_info, tree, welcomes, .. } = founding;
    let commit = Bytes::copy_from_slice(&Sha256::digest(&group_info));
    OwnCommit { counter, commit, group_info, welcomes, tree, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_a_lost_race_is_no_refusal() {
        let rejoin = CommitReason::Rejoin("its keys were lost".to_owned());
        let cases = [
            (Code::NotMember, &rejoin, 0, true),
            (Code::NotMember, &rejoin, MAX_ATTEMPTS, false),
            (Code::NotMember, &CommitReason::Update, 0, false),
            (Code::BadCommit, &rejoin, 0, false),
        ];
        for (code, reason, failures, want) in cases {
            assert_eq!(may_be_a_lost_race(code, reason, failures), want, "{code:?} {reason:?} {failures}");
        }
    }
}

//! The next generation of a conversation whose keys are newer than the backup from which the server's
//! store was restored.
//!
//! - Between two, either founds it; in a group the owner, or an admin where that changes nobody's role.
//!   The first one wins; the others read its row, and come in by their welcome.
//! - Whoever was taken out since the backup stays out; whoever came in comes in again, as a member.
//! - Whoever may not found waits for those who may, and then comes in by itself, unless somebody would
//!   be in again whom this device has seen go.

use super::{
    Engine, Halt,
    error::OpError,
    rejoin::own_founding,
    session::CallError,
    state::{now_ms, pause_after},
};
use crate::{
    api::ApiError,
    store::{CommitReason, Conversation, Standing},
};
use fastchat_delivery::{GroupData, Policy, Suite, group, policy::may_remove};
use fastchat_e2ee::conversation::{self, Next};
use fastchat_protocol::{
    AccountId, Bytes, ClientFrame, Code, ConversationId, Counter, Refusal, Role, ServerFrame, client,
    server::GroupState,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

/// How long those who may found are waited for.
const PATIENCE_MS: u64 = 20_000;
/// Between looks at a conversation that waits.
const LOOK: Duration = Duration::from_secs(5);
const WAITS: &str =
    "the server was restored from a backup: this group goes on as soon as its owner or an admin is online";

/// What this device does about a conversation that waits.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Found it with these roles; `None` between two.
    Found(Option<BTreeMap<AccountId, Role>>),
    /// Others may, and this device waits.
    Wait,
    /// Others have not: come in by an external commit.
    Enter,
}

/// What that depends on.
struct View<'a> {
    own: AccountId,
    /// What the restored server has: the group's members and roles, `None` between two.
    server: Option<&'a GroupData>,
    /// What this device has seen: members and roles, without those who have left.
    seen: Option<&'a BTreeMap<AccountId, Role>>,
    /// The server has refused a founding of this device.
    refused: bool,
    patient: bool,
}

impl Engine {
    /// Looks at a conversation that waits for its next generation.
    pub(super) async fn restore_due(&mut self, id: ConversationId, since: u64) -> Result<(), Halt> {
        if !self.make_quiet(id)? {
            return Ok(());
        }
        let frame = ClientFrame::GetGroupState(client::GetGroupState { conversation: id });
        let state = match self.call(frame).await {
            Ok(ServerFrame::GroupState(state)) => state,
            Ok(_) | Err(CallError::Down) => return Err(Halt::Down),
            Err(CallError::Refused(refusal)) => return self.not_in_the_backup(id, &refusal),
        };
        if !self.read_up_to(id, state.head).await? {
            return Ok(());
        }
        if state.epoch.generation >= self.incarnation() {
            // Somebody has: the row says so, and the mailbox lets this device in.
            self.look_again(id, LOOK);
            return Ok(());
        }
        let Some((info, _)) = self.info_of(id)? else { return self.enter_restored(id) };
        let Some(thread) = self.threads.get(&id) else { return Ok(()) };
        let left = thread.record.group().map(|group| group.left.clone()).unwrap_or_default();
        let seen = info.data.as_ref().map(|data| {
            let here = data.roles().iter().filter(|(account, _)| !left.contains(*account));
            here.map(|(account, role)| (*account, *role)).collect::<BTreeMap<_, _>>()
        });
        let server = group::declared(&state.group_info).ok().and_then(|(_, data)| data);
        let view = View {
            own: self.me.account(),
            server: server.as_ref(),
            seen: seen.as_ref(),
            refused: thread.may_not_found,
            patient: now_ms().saturating_sub(since) < PATIENCE_MS,
        };
        match step(&view) {
            Step::Found(roles) => self.refound(id, &state, roles, server.as_ref(), info.suite).await,
            Step::Enter => self.enter_restored(id),
            Step::Wait => {
                self.look_again(id, LOOK);
                self.note_once(id, WAITS.to_owned())
            }
        }
    }

    fn look_again(&mut self, id: ConversationId, pause: Duration) {
        if let Some(thread) = self.threads.get_mut(&id) {
            thread.commit_at = Some(Instant::now() + pause);
        }
    }

    /// The account came in after the backup: somebody who is in has to let it in again.
    fn not_in_the_backup(&mut self, id: ConversationId, refusal: &Refusal) -> Result<(), Halt> {
        self.look_again(id, refusal.wait_ms.map_or(LOOK, |ms| Duration::from_millis(ms.into())));
        match refusal.code {
            Code::NotMember => self.note_once(
                id,
                "the server was restored from a backup in which this account is not in the conversation yet: \
                 it goes on when somebody lets it in again"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }

    /// By an external commit on what the server has.
    fn enter_restored(&mut self, id: ConversationId) -> Result<(), Halt> {
        self.look_again(id, Duration::ZERO);
        self.set_standing(id, Standing::Rejoining("the server was restored from a backup".to_owned()))
    }

    async fn refound(
        &mut self,
        id: ConversationId,
        state: &GroupState,
        mut roles: Option<BTreeMap<AccountId, Role>>,
        server: Option<&GroupData>,
        suite: Suite,
    ) -> Result<(), Halt> {
        let own = self.me.account();
        let (stay, come) = match (&roles, server) {
            (Some(roles), Some(server)) => {
                roles.keys().copied().partition(|account| server.role(*account).is_some())
            }
            _ => {
                let peer = self.threads.get(&id).and_then(|thread| thread.record.peer()).unwrap_or(own);
                (BTreeSet::from([own, peer]).into_iter().collect(), Vec::new())
            }
        };
        let stay: Vec<AccountId> = stay;
        let mut packages = match self.claim_all(&stay, suite).await? {
            Ok(packages) => packages,
            Err(error) => return self.cannot_refound(id, &error),
        };
        for account in come {
            match self.claim_all(&[account], suite).await? {
                Ok(more) => packages.extend(more),
                Err(error) => {
                    // Of after the backup, perhaps altogether: it can be added again when it is back.
                    tracing::warn!(%account, %error, "cannot be let in again");
                    roles.as_mut().and_then(|roles| roles.remove(&account));
                }
            }
        }
        // As this device has seen it: the others judge by the same.
        let timer_s = self.threads.get(&id).map_or(0, |thread| thread.record.timer_s);
        let declare = |roles| GroupData::new(roles)?.with_timer(timer_s);
        let data = match roles.map(declare).transpose() {
            Ok(data) => data,
            Err(error) => return self.cannot_refound(id, &ApiError::internal(error)),
        };
        let next = Next { base: state.epoch, generation: self.incarnation(), suite, data: data.as_ref() };
        let mut asked = BTreeSet::new();
        loop {
            let error = match self.try_refound(id, &next, &packages)? {
                Ok((record, counter)) => return self.commit_made(id, record, counter).await,
                Err(error) => error,
            };
            match error.wants_manifest() {
                Some(account) if asked.insert(account) => {
                    if let Err(refusal) = self.learn(account).await? {
                        let pause = pause_after(1, refusal.wait_ms);
                        self.look_again(id, pause);
                        return Ok(());
                    }
                }
                _ => return self.cannot_refound(id, &ApiError::internal(error)),
            }
        }
    }

    fn try_refound(
        &mut self,
        id: ConversationId,
        next: &Next<'_>,
        packages: &[Bytes],
    ) -> Result<Result<(Conversation, Counter), conversation::ConversationError>, Halt> {
        let Some(thread) = self.threads.get(&id) else { return Err(Halt::Down) };
        let (mut record, counter, me) = (thread.record.clone(), thread.lane.last().next(), self.me.clone());
        let contacts = &self.contacts;
        let manifests = |account: AccountId| contacts.get(&account).map(|contact| contact.manifest.clone());
        let made = self.store.write(|tx| {
            let policy = Policy { rules: record.party.rules(me.account()), manifests: &manifests };
            let founding = conversation::refound(&tx.vault(), &me, id, next, packages, &policy)?;
            record.counter = counter;
            let reason = CommitReason::Restored { replaces: next.base };
            record.commit = Some(own_founding(founding, counter, reason));
            tx.put_conversation(&record)?;
            Ok::<_, OpError>(())
        });
        match made {
            Ok(()) => Ok(Ok((record, counter))),
            Err(OpError::Store(error)) => Err(error.into()),
            Err(OpError::Mls(error)) => Ok(Err(error)),
        }
    }

    fn cannot_refound(&mut self, id: ConversationId, error: &ApiError) -> Result<(), Halt> {
        self.look_again(id, LOOK);
        self.note_once(id, format!("the conversation cannot go on yet: {error}"))
    }

    /// The server has refused the founding for good.
    pub(super) fn refound_refused(&mut self, id: ConversationId, refusal: &Refusal) -> Result<(), Halt> {
        tracing::warn!(%refusal, "a founding after a restoration was refused");
        if let Some(thread) = self.threads.get_mut(&id) {
            thread.may_not_found = true;
        }
        self.look_again(id, LOOK);
        Ok(())
    }
}

fn step(view: &View<'_>) -> Step {
    let otherwise = |somebody_comes_back: bool| match somebody_comes_back || view.patient {
        true => Step::Wait,
        false => Step::Enter,
    };
    let Some(server) = view.server else {
        return if view.refused { otherwise(false) } else { Step::Found(None) };
    };
    let Some(seen) = view.seen else { return otherwise(true) };
    match successor(view.own, server, seen).filter(|_| !view.refused) {
        Some(roles) => Step::Found(Some(roles)),
        None => otherwise(server.roles().keys().any(|account| !seen.contains_key(account))),
    }
}

/// Members and roles of the next generation, if this account may found it: who is in by what was seen
/// last, with roles that the restored server lets this account give.
fn successor(
    own: AccountId,
    server: &GroupData,
    seen: &BTreeMap<AccountId, Role>,
) -> Option<BTreeMap<AccountId, Role>> {
    let role = server.role(own).filter(|role| *role >= Role::Admin)?;
    let demoted = seen.get(&own).is_none_or(|now| *now < Role::Admin);
    if demoted && role != Role::Owner {
        return None;
    }
    let out = server.roles().iter().filter(|(account, _)| !seen.contains_key(*account));
    if out.into_iter().any(|(_, other)| !may_remove(role, *other)) {
        return None;
    }
    let given = |account: &AccountId, now: Role| match (server.role(*account), role) {
        (None, _) => Role::Member,
        (Some(_), Role::Owner) => now,
        (Some(then), _) => then,
    };
    let mut roles: BTreeMap<_, _> =
        seen.iter().map(|(account, now)| (*account, given(account, *now))).collect();
    if !roles.values().any(|role| *role == Role::Owner) {
        // The owner of now is not in the backup: whoever was it then hands the group over again.
        roles.insert(own, Role::Owner);
    }
    Some(roles)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AccountId = AccountId::new([1; 16]);
    const B: AccountId = AccountId::new([2; 16]);
    const C: AccountId = AccountId::new([3; 16]);

    fn roles(list: &[(AccountId, Role)]) -> BTreeMap<AccountId, Role> {
        list.iter().copied().collect()
    }

    #[test]
    fn who_founds_what() {
        use Role::{Admin, Member, Owner};
        type Roles<'a> = &'a [(AccountId, Role)];
        let cases: [(AccountId, Roles<'_>, Roles<'_>, Option<Roles<'_>>); 10] = [
            (A, &[(A, Owner), (B, Member)], &[(A, Owner), (B, Member)], Some(&[(A, Owner), (B, Member)])),
            (B, &[(A, Owner), (B, Member)], &[(A, Owner), (B, Member)], None),
            (B, &[(A, Owner), (B, Admin)], &[(A, Owner), (B, Admin)], Some(&[(A, Owner), (B, Admin)])),
            // Who came in since comes in again, as a member.
            (A, &[(A, Owner)], &[(A, Owner), (C, Admin)], Some(&[(A, Owner), (C, Member)])),
            // Who was taken out since stays out.
            (A, &[(A, Owner), (C, Member)], &[(A, Owner)], Some(&[(A, Owner)])),
            (B, &[(A, Owner), (B, Admin), (C, Admin)], &[(A, Owner), (B, Admin)], None),
            // An admin gives no roles, the owner does.
            (
                B,
                &[(A, Owner), (B, Admin), (C, Member)],
                &[(A, Owner), (B, Admin), (C, Admin)],
                Some(&[(A, Owner), (B, Admin), (C, Member)]),
            ),
            (A, &[(A, Owner), (B, Member)], &[(A, Member), (B, Owner)], Some(&[(A, Member), (B, Owner)])),
            (B, &[(A, Owner), (B, Member)], &[(A, Member), (B, Owner)], None),
            // The new owner came after the backup.
            (A, &[(A, Owner)], &[(A, Admin), (C, Owner)], Some(&[(A, Owner), (C, Member)])),
        ];
        for (own, server, seen, want) in cases {
            let server = GroupData::new(roles(server)).unwrap();
            assert_eq!(successor(own, &server, &roles(seen)), want.map(roles), "{own} {server:?} {seen:?}");
        }
    }

    #[test]
    fn who_waits_and_who_comes_in() {
        let server = GroupData::new(roles(&[(A, Role::Owner), (B, Role::Member)])).unwrap();
        let (both, alone) = (roles(&[(A, Role::Owner), (B, Role::Member)]), roles(&[(B, Role::Member)]));
        let cases = [
            (B, Some(&server), Some(&both), false, true, Step::Wait),
            (B, Some(&server), Some(&both), false, false, Step::Enter),
            // The one who was taken out would be in again.
            (B, Some(&server), Some(&alone), false, false, Step::Wait),
            (A, Some(&server), Some(&both), true, false, Step::Enter),
            (A, Some(&server), Some(&both), false, true, Step::Found(Some(both.clone()))),
            (A, None, None, false, true, Step::Found(None)),
            (A, None, None, true, false, Step::Enter),
        ];
        for (own, server, seen, refused, patient, want) in cases {
            let view = View { own, server, seen, refused, patient };
            assert_eq!(step(&view), want, "{own} {seen:?} {refused} {patient}");
        }
    }
}

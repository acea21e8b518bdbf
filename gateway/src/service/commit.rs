//! Commits: judged against the newest public state, stored if that is still the newest.
//!
//! The rules ask for manifests by account. A commit is read first, and only the manifests of those
//! whom it lets in, or of whom it removes a part, are loaded: a commit that only moves keys loads none,
//! however large the group is.

use super::{
    Answer,
    directory::rate_limited,
    judging::{
        bad, check_welcomed, conflict, joins, manifests_of, of_commit, off_reactor, public_state, too_large,
    },
    log::state_of,
    refuse, store_error,
};
use crate::{
    fanout::Committed,
    gateway::Gateway,
    refusal,
    session::Me,
    store::{self, Audience, GroupState, Join, NewCommit, Outcome},
};
use fastchat_delivery::{
    group::{CommitSummary, PublicState, ReadCommit},
    header::{self, Kind},
    policy::{Policy, Rules},
};
use fastchat_protocol::{
    AccountId, Bytes, Code, Epoch, Refusal, Role, ServerFrame, client::Commit, limits, server::LogKind,
};
use std::collections::BTreeSet;

pub(super) async fn commit(gateway: &Gateway, me: &Me, request: Commit) -> Answer {
    gateway.limiters.commit(me.account).map_err(rate_limited)?;
    too_large(&[(&request.commit, limits::MAX_COMMIT), (&request.group_info, limits::MAX_TREE)])?;
    let seen = header::peek(&request.commit).map_err(|e| Refusal::new(Code::BadCommit, e.to_string()))?;
    if seen.kind == Kind::Application
        || seen.conversation != request.conversation
        || seen.counter != request.counter
    {
        return bad("the commit was made for another conversation or counter");
    }
    let current = state_of(gateway, me, request.conversation).await?;
    if seen.epoch > current.epoch {
        return Err(conflict(current.epoch));
    }
    let joins = joins(&request.welcomes)?;
    let new = if seen.epoch < current.epoch {
        // Too late to be stored, but perhaps it was stored before: dedupe comes before all checks.
        // Invariant: epochs only rise, so the compare-and-set on this parent can never succeed.
        unjudged(me, &request, seen.epoch)
    } else {
        judged(gateway, me, &request, current, joins).await?
    };
    store(gateway, me, &request, new).await
}

async fn judged(
    gateway: &Gateway,
    me: &Me,
    request: &Commit,
    current: GroupState,
    joins: Vec<Join>,
) -> Result<NewCommit, Refusal> {
    let read = {
        let (bytes, device, current) = (request.commit.clone(), me.device, current.clone());
        off_reactor(move || public_state(&current)?.read_commit(&bytes, device).map_err(of_commit)).await?
    };
    let adds = read.change().added.len();
    if adds > limits::MAX_ADDS {
        let detail = format!("a commit adds at most {} devices, not {adds}: split it", limits::MAX_ADDS);
        return refuse(Code::TooLarge, detail);
    }
    let manifests = manifests_of(gateway, &read.judged()).await?;
    let (me, request) = (me.clone(), request.clone());
    off_reactor(move || {
        let left: BTreeSet<AccountId> = current.left.iter().copied().collect();
        let rules = match current.audience {
            Audience::Pair(low, high) => Rules::Direct([low, high]),
            Audience::Group => Rules::Group { left: &left },
        };
        let lookup = |account| manifests.get(&account).cloned();
        judge(&me, &request, read, &Policy { rules, manifests: &lookup }, joins)
    })
    .await
}

fn judge(
    me: &Me,
    request: &Commit,
    read: ReadCommit,
    policy: &Policy<'_>,
    mut joins: Vec<Join>,
) -> Result<NewCommit, Refusal> {
    let (state, summary) = read.apply(&request.group_info, policy).map_err(of_commit)?;
    let own_join = summary.external.then_some(me.device);
    check_welcomed(&summary.added, own_join, &joins)?;
    joins.extend(own_join.map(|device| Join { device, welcome: None }));
    Ok(new_commit(me, request, &state, &summary, joins))
}

fn new_commit(
    me: &Me,
    request: &Commit,
    state: &PublicState,
    summary: &CommitSummary,
    joins: Vec<Join>,
) -> NewCommit {
    let parent = header::peek(&request.commit).map_or_else(|_| Epoch::default(), |seen| seen.epoch);
    let rejoined = |device| joins.iter().any(|join| join.device == device);
    let removes =
        summary.removed.iter().map(|leaf| leaf.device).filter(|device| !rejoined(*device)).collect();
    NewCommit {
        conversation: request.conversation,
        device: me.device,
        counter: request.counter,
        parent,
        epoch: summary.epoch,
        commit: request.commit.clone(),
        group_info: request.group_info.clone(),
        tree: state.tree_bytes().into(),
        state: state.to_bytes().into(),
        membership_changed: summary.moves_leaves(),
        members: changed_members(summary),
        joins,
        removes,
    }
}

/// The accounts whose role changes, that come in, or that go. Whoever has left is out since the row of its
/// statement, and goes here as well: its leaves are gone, so it may be let in again.
fn changed_members(summary: &CommitSummary) -> Vec<(AccountId, Option<Role>)> {
    let Some((before, after)) = &summary.data else { return Vec::new() };
    let accounts: BTreeSet<AccountId> = before.roles().keys().chain(after.roles().keys()).copied().collect();
    accounts
        .into_iter()
        .filter(|account| before.role(*account) != after.role(*account))
        .map(|account| (account, after.role(account)))
        .collect()
}

async fn store(gateway: &Gateway, me: &Me, request: &Commit, new: NewCommit) -> Answer {
    let joined = new.joins.iter().any(|join| join.welcome.is_none());
    let store::Committed { outcome, mailboxes } =
        gateway.store.append_commit(new).await.map_err(store_error)?;
    if let Outcome::Stored(stored) = outcome {
        if stored.audience == Audience::Group {
            let by_welcome = mailboxes.iter().map(|(_, account, _)| *account);
            let accounts = by_welcome.chain(joined.then_some(me.account)).collect();
            gateway.fanout.joined(request.conversation, &accounts);
        }
        for (device, account, head) in mailboxes {
            gateway.fanout.mailbox(account, device, head);
        }
        gateway.fanout.committed(Committed {
            conversation: request.conversation,
            sender: me.device,
            counter: request.counter,
            kind: LogKind::Commit,
            envelope: request.commit.clone(),
            stored,
        });
    }
    match outcome {
        Outcome::Stale(epoch) => Err(conflict(epoch)),
        other => refusal::of_outcome(&other).map(ServerFrame::Sent),
    }
}

fn unjudged(me: &Me, request: &Commit, parent: Epoch) -> NewCommit {
    NewCommit {
        conversation: request.conversation,
        device: me.device,
        counter: request.counter,
        parent,
        epoch: parent,
        commit: request.commit.clone(),
        group_info: Bytes::new(),
        tree: Bytes::new(),
        state: Bytes::new(),
        membership_changed: false,
        joins: Vec::new(),
        removes: Vec::new(),
        members: Vec::new(),
    }
}

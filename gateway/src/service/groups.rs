//! Founding groups and their next generations, and leaving them.

use super::{
    Answer,
    directory::rate_limited,
    judging::{
        Manifests, bad, check_welcomed, conflict, joins, manifests_of, of_found, off_reactor, public_state,
        too_large,
    },
    log::state_of,
    refuse, store_error,
};
use crate::{
    fanout::Committed,
    gateway::Gateway,
    refusal,
    session::Me,
    store::{self, Audience, GroupState, Join, NewGroup, NewLeave, Outcome},
};
use fastchat_delivery::{
    group::{self, PublicState},
    group_data::GroupData,
    leave,
    policy::{Policy, Rules},
};
use fastchat_protocol::{
    AccountId, Bytes, Code, Counter, Epoch, Refusal, ServerFrame,
    client::{FoundGroup, Leave},
    limits,
    server::LogKind,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

pub(super) async fn found(gateway: &Gateway, me: &Me, request: FoundGroup) -> Answer {
    gateway.limiters.commit(me.account).map_err(rate_limited)?;
    too_large(&[(&request.group_info, limits::MAX_TREE), (&request.tree, limits::MAX_TREE)])?;
    if request.replaces.is_none() != (request.counter == Counter(0)) {
        return bad("a new group begins with counter 0, a new generation has the next one");
    }
    let joins = joins(&request.welcomes)?;
    let current = current_of(gateway, me, &request).await?;
    let late = |(current, replaced): (&GroupState, Epoch)| replaced < current.epoch;
    let founding = match current.as_ref().zip(request.replaces) {
        // As with a commit that is too late: only a repetition can find its row.
        Some(pair) if late(pair) => unjudged(me, &request),
        Some((current, replaced)) if replaced > current.epoch => return Err(conflict(current.epoch)),
        _ => judged(gateway, me, &request, current, joins).await?,
    };
    store_founding(gateway, me, &request, founding).await
}

/// The state that a new generation takes the place of.
async fn current_of(gateway: &Gateway, me: &Me, request: &FoundGroup) -> Result<Option<GroupState>, Refusal> {
    if request.replaces.is_none() {
        return Ok(None);
    }
    state_of(gateway, me, request.conversation).await.map(Some)
}

async fn judged(
    gateway: &Gateway,
    me: &Me,
    request: &FoundGroup,
    current: Option<GroupState>,
    joins: Vec<Join>,
) -> Result<NewGroup, Refusal> {
    let (conversation, data) = group::declared(&request.group_info).map_err(of_found)?;
    if conversation != request.conversation {
        return bad("the group was founded for another conversation");
    }
    // Between two there are no roles, and nothing but a generation that goes on.
    let accounts = match (data, current.as_ref().map(|current| current.audience)) {
        (Some(data), None | Some(Audience::Group)) => data.roles().keys().copied().collect(),
        (None, Some(Audience::Pair(low, high))) => BTreeSet::from([low, high]),
        (Some(_), Some(Audience::Pair(..))) => return bad("a direct conversation has no roles"),
        (None, _) => return bad("a group declares its members and their roles"),
    };
    let manifests = manifests_of(gateway, &accounts).await?;
    let incarnation = match current {
        Some(_) => gateway.store.incarnation().await.map_err(store_error)?,
        None => 0,
    };
    let (me, request) = (me.clone(), request.clone());
    off_reactor(move || judge(&me, &request, current.as_ref().map(|c| (c, incarnation)), &manifests, joins))
        .await
}

fn judge(
    me: &Me,
    request: &FoundGroup,
    current: Option<(&GroupState, u32)>,
    manifests: &Manifests,
    joins: Vec<Join>,
) -> Result<NewGroup, Refusal> {
    let left: BTreeSet<AccountId> =
        current.iter().flat_map(|(current, _)| current.left.iter().copied()).collect();
    let lookup = |account| manifests.get(&account).cloned();
    let rules = match current.map(|(current, _)| current.audience) {
        Some(Audience::Pair(low, high)) => Rules::Direct([low, high]),
        Some(Audience::Group) | None => Rules::Group { left: &left },
    };
    let policy = Policy { rules, manifests: &lookup };
    let state = match current {
        None => PublicState::found(&request.group_info, &request.tree, me.device, &policy),
        Some((current, incarnation)) => {
            let before = public_state(current)?;
            before.found_next(&request.group_info, &request.tree, me.device, incarnation, &policy)
        }
    };
    let state = state.map_err(of_found)?;
    new_group(me, request, &state, state.data().as_ref(), joins)
}

fn new_group(
    me: &Me,
    request: &FoundGroup,
    state: &PublicState,
    data: Option<&GroupData>,
    joins: Vec<Join>,
) -> Result<NewGroup, Refusal> {
    check_welcomed(&state.members(), Some(me.device), &joins)?;
    Ok(NewGroup {
        suite: state.suite().code(),
        epoch: state.epoch(),
        state: state.to_bytes().into(),
        tree: request.tree.clone(),
        members: data.iter().flat_map(|data| data.roles()).map(|(account, role)| (*account, *role)).collect(),
        joins,
        ..unjudged(me, request)
    })
}

/// What identifies a founding, and nothing that could be stored.
fn unjudged(me: &Me, request: &FoundGroup) -> NewGroup {
    NewGroup {
        conversation: request.conversation,
        device: me.device,
        counter: request.counter,
        parent: request.replaces,
        suite: 0,
        epoch: request.replaces.unwrap_or_default(),
        group_info: request.group_info.clone(),
        state: Bytes::new(),
        tree: Bytes::new(),
        members: Vec::new(),
        joins: Vec::new(),
    }
}

async fn store_founding(gateway: &Gateway, me: &Me, request: &FoundGroup, founding: NewGroup) -> Answer {
    let store::Committed { outcome, mailboxes } =
        gateway.store.found_group(founding).await.map_err(store_error)?;
    if let Outcome::Stored(stored) = outcome {
        if stored.audience == Audience::Group {
            let invited = mailboxes.iter().map(|(_, account, _)| *account);
            gateway.fanout.joined(request.conversation, &invited.chain([me.account]).collect());
        }
        for (device, account, head) in mailboxes {
            gateway.fanout.mailbox(account, device, head);
        }
        let envelope = match request.replaces {
            None => Bytes::new(),
            Some(_) => Bytes::copy_from_slice(&Sha256::digest(&request.group_info)),
        };
        let (conversation, counter) = (request.conversation, request.counter);
        gateway.fanout.committed(Committed {
            conversation,
            sender: me.device,
            counter,
            kind: LogKind::Founded,
            envelope,
            stored,
        });
    }
    match outcome {
        Outcome::Stale(epoch) => Err(conflict(epoch)),
        other => refusal::of_outcome(&other).map(ServerFrame::Sent),
    }
}

pub(super) async fn leave(gateway: &Gateway, me: &Me, request: Leave) -> Answer {
    gateway.limiters.commit(me.account).map_err(rate_limited)?;
    let device = gateway.store.device(me.device).await.map_err(store_error)?;
    let device = device.filter(|device| !device.revoked).ok_or_else(refusal::not_member)?;
    let said = leave::Leave::verify(&request.statement, &device.key)
        .map_err(|e| Refusal::new(Code::BadEnvelope, e.to_string()))?;
    let here = (request.conversation, me.account, me.device, request.counter);
    if (said.conversation, said.account, said.device, said.counter) != here {
        return refuse(Code::BadEnvelope, "the statement was made for another conversation or counter");
    }
    let new = NewLeave {
        conversation: request.conversation,
        device: me.device,
        counter: request.counter,
        epoch: said.epoch,
        statement: request.statement.clone(),
    };
    let outcome = gateway.store.leave(new).await.map_err(store_error)?;
    if let Outcome::Stored(stored) = outcome {
        gateway.fanout.committed(Committed {
            conversation: request.conversation,
            sender: me.device,
            counter: request.counter,
            kind: LogKind::Left,
            envelope: request.statement,
            stored,
        });
    }
    refusal::of_outcome(&outcome).map(ServerFrame::Sent)
}

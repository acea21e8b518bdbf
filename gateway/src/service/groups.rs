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
    let current = state_of(gateway, me, request.conversation).await?;
    match current.audience {
        Audience::Group => Ok(Some(current)),
        Audience::Pair(..) => bad("a direct conversation is not founded as a group"),
    }
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
    let Some(data) = data else { return bad("a group declares its members and their roles") };
    let manifests = manifests_of(gateway, &data.roles().keys().copied().collect()).await?;
    let (me, request) = (me.clone(), request.clone());
    off_reactor(move || judge(&me, &request, current.as_ref(), &manifests, joins)).await
}

fn judge(
    me: &Me,
    request: &FoundGroup,
    current: Option<&GroupState>,
    manifests: &Manifests,
    joins: Vec<Join>,
) -> Result<NewGroup, Refusal> {
    let left: BTreeSet<AccountId> = current.iter().flat_map(|current| current.left.iter().copied()).collect();
    let lookup = |account| manifests.get(&account).cloned();
    let policy = Policy { rules: Rules::Group { left: &left }, manifests: &lookup };
    let state = match current {
        None => PublicState::found(&request.group_info, &request.tree, me.device, &policy),
        Some(current) => {
            let before = public_state(current)?;
            before.found_next(&request.group_info, &request.tree, me.device, &policy)
        }
    };
    let state = state.map_err(of_found)?;
    let Some(data) = state.data() else { return bad("a group declares its members and their roles") };
    new_group(me, request, &state, &data, joins)
}

fn new_group(
    me: &Me,
    request: &FoundGroup,
    state: &PublicState,
    data: &GroupData,
    joins: Vec<Join>,
) -> Result<NewGroup, Refusal> {
    check_welcomed(&state.members(), Some(me.device), &joins)?;
    Ok(NewGroup {
        suite: state.suite().code(),
        epoch: state.epoch(),
        state: state.to_bytes().into(),
        tree: request.tree.clone(),
        members: data.roles().iter().map(|(account, role)| (*account, *role)).collect(),
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
        let invited = mailboxes.iter().map(|(_, account, _)| *account);
        gateway.fanout.joined(request.conversation, &invited.chain([me.account]).collect());
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

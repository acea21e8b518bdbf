//! Logs, mailboxes, foundings and commits.

use super::{Answer, directory::current_manifest, refuse, store_error};
use crate::{
    fanout::Committed,
    gateway::Gateway,
    refusal,
    session::Me,
    store::{self, Audience, Founded, GroupState, Join, NewCommit, NewDirect, Outcome},
};
use fastchat_delivery::{
    group::{CommitSummary, PublicState},
    header::{self, Kind},
    manifest::VerifiedManifest,
    policy::{Policy, Rules},
};
use fastchat_protocol::{
    AccountId, Bytes, Code, ConversationId, Counter, DeviceId, Epoch, Refusal, ServerFrame,
    client::{Commit, Fetch, FetchMailbox, Found, GetGroupState, GetTree, Sync, Welcome},
    limits,
    server::{self, Conversations, LogKind, LogPage, MailboxPage, Sent, Tree},
};
use std::collections::BTreeSet;

pub(super) async fn fetch(gateway: &Gateway, me: &Me, request: &Fetch) -> Answer {
    let limit = request.limit.clamp(1, limits::MAX_PAGE_ROWS);
    let page = gateway
        .store
        .fetch(me.device, request.conversation, request.after, limit)
        .await
        .map_err(store_error)?;
    let page = page.ok_or_else(refusal::not_member)?;
    Ok(ServerFrame::LogPage(LogPage {
        conversation: request.conversation,
        rows: page.rows,
        head: page.head,
        first: page.first,
    }))
}

pub(super) async fn fetch_mailbox(gateway: &Gateway, me: &Me, request: &FetchMailbox) -> Answer {
    let page = gateway.store.mailbox(me.device, request.after, limits::MAX_PAGE_ROWS).await;
    let (items, head) = page.map_err(store_error)?;
    Ok(ServerFrame::MailboxPage(MailboxPage { items, head }))
}

pub(super) async fn sync(gateway: &Gateway, me: &Me, request: &Sync) -> Answer {
    let limit = limits::MAX_SYNC_CONVERSATIONS;
    let list = gateway.store.conversations(me.device, request.after, limit).await.map_err(store_error)?;
    let more = list.len() == limit as usize;
    Ok(ServerFrame::Conversations(Conversations { list, more }))
}

pub(super) async fn group_state(gateway: &Gateway, me: &Me, request: &GetGroupState) -> Answer {
    let GroupState { epoch, head, group_info, tree, .. } =
        state_of(gateway, me, request.conversation).await?;
    Ok(ServerFrame::GroupState(server::GroupState { epoch, head, group_info, tree }))
}

pub(super) async fn tree(gateway: &Gateway, me: &Me, request: &GetTree) -> Answer {
    match gateway.store.tree(me.device, request.conversation, &request.hash).await.map_err(store_error)? {
        Some(tree) => Ok(ServerFrame::Tree(Tree { tree })),
        None => refuse(Code::NoTree, "there is no such tree for this device; join by an external commit"),
    }
}

async fn state_of(gateway: &Gateway, me: &Me, conversation: ConversationId) -> Result<GroupState, Refusal> {
    let state = gateway.store.group_state(me.device, conversation).await.map_err(store_error)?;
    state.ok_or_else(refusal::not_member)
}

pub(super) async fn found(gateway: &Gateway, me: &Me, request: Found) -> Answer {
    too_large(&[(&request.group_info, limits::MAX_TREE), (&request.tree, limits::MAX_TREE)])?;
    let manifests = manifests_of(gateway, [me.account, request.peer]).await?;
    let joins = joins(&request.welcomes)?;
    let founding = {
        let (me, request) = (me.clone(), request.clone());
        // Signatures of every leaf take a while: not on the reactor.
        let judged = tokio::task::spawn_blocking(move || judge_founding(&me, &request, &manifests, joins));
        judged.await.unwrap_or_else(|_| refuse(Code::BadCommit, "the group could not be checked"))?
    };
    match gateway.store.found_direct(founding).await.map_err(store_error)? {
        Founded::Made { stored, mailboxes } => {
            for (device, account, head) in mailboxes {
                gateway.fanout.mailbox(account, device, head);
            }
            gateway.fanout.committed(Committed {
                conversation: request.conversation,
                sender: me.device,
                counter: Counter(0),
                kind: LogKind::Founded,
                envelope: Bytes::new(),
                stored,
            });
            Ok(ServerFrame::Sent(Sent { seq: stored.seq, at_ms: stored.at_ms, duplicate: false }))
        }
        Founded::Duplicate(stored) => {
            Ok(ServerFrame::Sent(Sent { seq: stored.seq, at_ms: stored.at_ms, duplicate: true }))
        }
        Founded::Existing(conversation) => Err(Refusal {
            conversation: Some(conversation),
            ..Refusal::new(Code::ConversationExists, "these two already have a direct conversation")
        }),
        Founded::NotMember => Err(refusal::not_member()),
        Founded::NotAccepted => Err(refusal::not_accepted()),
    }
}

fn judge_founding(
    me: &Me,
    request: &Found,
    manifests: &[VerifiedManifest],
    joins: Vec<Join>,
) -> Result<NewDirect, Refusal> {
    let lookup = |account| manifests.iter().find(|manifest| manifest.account() == account).cloned();
    let policy = Policy { rules: Rules::Direct([me.account, request.peer]), manifests: &lookup };
    let state = PublicState::found(&request.group_info, &request.tree, me.device, &policy)
        .map_err(|e| Refusal::new(Code::BadCommit, e.to_string()))?;
    if state.conversation() != request.conversation {
        return refuse(Code::BadCommit, "the group was founded for another conversation");
    }
    let members: BTreeSet<DeviceId> =
        state.members().iter().map(|leaf| leaf.device).filter(|id| *id != me.device).collect();
    if members != joins.iter().map(|join| join.device).collect() {
        return refuse(Code::BadCommit, "every member but the founder needs a welcome, and nobody else");
    }
    Ok(NewDirect {
        conversation: request.conversation,
        device: me.device,
        account: me.account,
        peer: request.peer,
        suite: state.suite().code(),
        epoch: state.epoch(),
        group_info: request.group_info.clone(),
        state: state.to_bytes().into(),
        tree: request.tree.clone(),
        joins,
    })
}

pub(super) async fn commit(gateway: &Gateway, me: &Me, request: Commit) -> Answer {
    too_large(&[(&request.commit, limits::MAX_COMMIT), (&request.group_info, limits::MAX_TREE)])?;
    let seen = header::peek(&request.commit).map_err(|e| Refusal::new(Code::BadCommit, e.to_string()))?;
    if seen.kind == Kind::Application
        || seen.conversation != request.conversation
        || seen.counter != request.counter
    {
        return refuse(Code::BadCommit, "the commit was made for another conversation or counter");
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
        let rules = rules_of(current.audience)?;
        let manifests = manifests_of(gateway, accounts_of(rules)).await?;
        let (me, request) = (me.clone(), request.clone());
        let judged = tokio::task::spawn_blocking(move || {
            judge_commit(&me, &request, &current, rules, &manifests, joins)
        });
        judged.await.unwrap_or_else(|_| refuse(Code::BadCommit, "the commit could not be checked"))?
    };
    let (envelope, sender, counter) = (new.commit.clone(), new.device, new.counter);
    let store::Committed { outcome, mailboxes } =
        gateway.store.append_commit(new).await.map_err(store_error)?;
    if let Outcome::Stored(stored) = outcome {
        for (device, account, head) in mailboxes {
            gateway.fanout.mailbox(account, device, head);
        }
        let conversation = request.conversation;
        gateway.fanout.committed(Committed {
            conversation,
            sender,
            counter,
            kind: LogKind::Commit,
            envelope,
            stored,
        });
    }
    match outcome {
        Outcome::Stale(epoch) => Err(conflict(epoch)),
        other => refusal::of_outcome(&other).map(ServerFrame::Sent),
    }
}

fn conflict(epoch: Epoch) -> Refusal {
    Refusal {
        epoch: Some(epoch),
        ..Refusal::new(Code::CommitConflict, "another commit came first: apply it and try again")
    }
}

fn judge_commit(
    me: &Me,
    request: &Commit,
    current: &GroupState,
    rules: Rules<'_>,
    manifests: &[VerifiedManifest],
    mut joins: Vec<Join>,
) -> Result<NewCommit, Refusal> {
    let lookup = |account| manifests.iter().find(|manifest| manifest.account() == account).cloned();
    let policy = Policy { rules, manifests: &lookup };
    let state = PublicState::from_bytes(&current.state).map_err(|error| {
        tracing::error!(%error, "a stored group state cannot be read");
        Refusal::new(Code::Internal, "the stored group state cannot be read")
    })?;
    let bad = |e: String| Refusal::new(Code::BadCommit, e);
    let (state, summary) = state
        .apply_commit(&request.commit, &request.group_info, me.device, &policy)
        .map_err(|e| bad(e.to_string()))?;
    let CommitSummary { epoch, external, added, removed, .. } = summary;
    let welcomed: BTreeSet<DeviceId> = joins.iter().map(|join| join.device).collect();
    let own_join = external.then_some(me.device);
    let expected: BTreeSet<DeviceId> =
        added.iter().map(|leaf| leaf.device).filter(|id| Some(*id) != own_join).collect();
    if welcomed != expected {
        return Err(bad("every added device needs a welcome, and nobody else".into()));
    }
    joins.extend(own_join.map(|device| Join { device, welcome: None }));
    let rejoined = |device: &DeviceId| joins.iter().any(|join| join.device == *device);
    let removes = removed.iter().map(|leaf| leaf.device).filter(|device| !rejoined(device)).collect();
    Ok(NewCommit {
        conversation: request.conversation,
        device: me.device,
        counter: request.counter,
        parent: current.epoch,
        epoch,
        commit: request.commit.clone(),
        group_info: request.group_info.clone(),
        tree: state.tree_bytes().into(),
        state: state.to_bytes().into(),
        membership_changed: !added.is_empty() || !removed.is_empty(),
        joins,
        removes,
        members: Vec::new(),
    })
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

fn rules_of(audience: Audience) -> Result<Rules<'static>, Refusal> {
    match audience {
        Audience::Pair(low, high) => Ok(Rules::Direct([low, high])),
        Audience::Group => refuse(Code::BadCommit, "groups are not served by this version"),
    }
}

fn accounts_of(rules: Rules<'_>) -> [AccountId; 2] {
    match rules {
        Rules::Direct(pair) => pair,
        Rules::Joiner(account) => [account; 2],
        Rules::Group { .. } => [AccountId::new([0; 16]); 2],
    }
}

async fn manifests_of(gateway: &Gateway, accounts: [AccountId; 2]) -> Result<Vec<VerifiedManifest>, Refusal> {
    let mut manifests = vec![current_manifest(gateway, accounts[0]).await?];
    if accounts[1] != accounts[0] {
        manifests.push(current_manifest(gateway, accounts[1]).await?);
    }
    Ok(manifests)
}

fn joins(welcomes: &[Welcome]) -> Result<Vec<Join>, Refusal> {
    let mut seen = BTreeSet::new();
    let mut joins = Vec::new();
    for Welcome { devices, welcome } in welcomes {
        too_large(&[(welcome, limits::MAX_TREE)])?;
        for device in devices {
            if !seen.insert(*device) {
                return refuse(Code::BadCommit, "a device has two welcomes");
            }
            joins.push(Join { device: *device, welcome: Some(welcome.clone()) });
        }
    }
    Ok(joins)
}

fn too_large(parts: &[(&Bytes, usize)]) -> Result<(), Refusal> {
    match parts.iter().find(|(bytes, limit)| bytes.len() > *limit) {
        Some((_, limit)) => {
            refuse(Code::TooLarge, format!("a part of the request has more than {limit} bytes"))
        }
        None => Ok(()),
    }
}

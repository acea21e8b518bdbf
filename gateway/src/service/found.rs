//! Founding a direct conversation.

use super::{
    Answer,
    directory::rate_limited,
    judging::{Manifests, bad, check_welcomed, joins, manifests_of, of_found, off_reactor, too_large},
    store_error,
};
use crate::{
    fanout::Committed,
    gateway::Gateway,
    refusal,
    session::Me,
    store::{Founded, Join, NewDirect},
};
use fastchat_delivery::{
    group::PublicState,
    policy::{Policy, Rules},
};
use fastchat_protocol::{
    Bytes, Code, Counter, Refusal, ServerFrame,
    client::Found,
    limits,
    server::{LogKind, Sent},
};

pub(super) async fn found(gateway: &Gateway, me: &Me, request: Found) -> Answer {
    gateway.limiters.commit(me.account).map_err(rate_limited)?;
    too_large(&[(&request.group_info, limits::MAX_TREE), (&request.tree, limits::MAX_TREE)])?;
    let manifests = manifests_of(gateway, &[me.account, request.peer].into()).await?;
    if !manifests.contains_key(&request.peer) {
        return Err(super::directory::no_account());
    }
    let joins = joins(&request.welcomes)?;
    let conversation = request.conversation;
    let founding = {
        let me = me.clone();
        off_reactor(move || judge(&me, &request, &manifests, joins)).await?
    };
    match gateway.store.found_direct(founding).await.map_err(store_error)? {
        Founded::Made { stored, mailboxes } => {
            for (device, account, head) in mailboxes {
                gateway.fanout.mailbox(account, device, head);
            }
            gateway.fanout.committed(Committed {
                conversation,
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

fn judge(me: &Me, request: &Found, manifests: &Manifests, joins: Vec<Join>) -> Result<NewDirect, Refusal> {
    let lookup = |account| manifests.get(&account).cloned();
    let policy = Policy { rules: Rules::Direct([me.account, request.peer]), manifests: &lookup };
    // A group with roles is refused by these rules.
    let state =
        PublicState::found(&request.group_info, &request.tree, me.device, &policy).map_err(of_found)?;
    if state.conversation() != request.conversation {
        return bad("the group was founded for another conversation");
    }
    check_welcomed(&state.members(), Some(me.device), &joins)?;
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

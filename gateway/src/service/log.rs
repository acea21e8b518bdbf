//! Reading: logs, mailboxes, lists of conversations, public group states.

use super::{Answer, refuse, store_error};
use crate::{gateway::Gateway, metrics, refusal, session::Me, store::GroupState};
use fastchat_protocol::{
    Code, ConversationId, Refusal, ServerFrame,
    client::{Fetch, FetchMailbox, GetGroupState, GetTree, Sync},
    limits,
    server::{self, Conversations, LogPage, MailboxPage, Tree},
};

pub(super) async fn fetch(gateway: &Gateway, me: &Me, request: &Fetch) -> Answer {
    let limit = request.limit.clamp(1, limits::MAX_PAGE_ROWS);
    let page = gateway
        .store
        .fetch(me.device, request.conversation, request.after, limit)
        .await
        .map_err(store_error)?;
    let page = page.ok_or_else(refusal::not_member)?;
    if let Some(oldest) = page.rows.first() {
        metrics::fetched(oldest.at_ms);
    }
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
    let joined = list.iter().filter(|one| !one.unjoined);
    metrics::pending(joined.map(|one| one.head.0.saturating_sub(one.cursor.max(one.join_seq).0)).sum());
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

pub(super) async fn state_of(
    gateway: &Gateway,
    me: &Me,
    conversation: ConversationId,
) -> Result<GroupState, Refusal> {
    let state = gateway.store.group_state(me.device, conversation).await.map_err(store_error)?;
    state.ok_or_else(refusal::not_member)
}

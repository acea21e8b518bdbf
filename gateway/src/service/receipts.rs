//! How far others are, and what they may learn.

use super::{Answer, directory::rate_limited, done, store_error};
use crate::{gateway::Gateway, refusal, session::Me};
use fastchat_protocol::{
    ServerFrame,
    client::{GetReceipts, SetSharing},
    server::Receipts,
};

pub(super) async fn get(gateway: &Gateway, me: &Me, request: &GetReceipts) -> Answer {
    let conversation = request.conversation;
    let members = gateway.store.receipts(me.device, conversation).await.map_err(store_error)?;
    let members = members.ok_or_else(refusal::not_member)?;
    Ok(ServerFrame::Receipts(Receipts { conversation, members }))
}

pub(super) async fn set_sharing(gateway: &Gateway, me: &Me, request: &SetSharing) -> Answer {
    gateway.limiters.presence(me.account).map_err(rate_limited)?;
    let SetSharing { delivered, last_seen } = *request;
    gateway.store.set_sharing(me.account, delivered, last_seen).await.map_err(store_error)?;
    gateway.fanout.sharing(me, delivered, last_seen);
    done()
}

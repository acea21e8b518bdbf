//! Answers to requests that need the store: one function a request.
//!
//! Membership is decided by the store, in the transaction that answers. What a client claims of
//! groups and keys is checked here through the crate `delivery`, before the store sees it.

mod blobs;
mod commit;
mod directory;
mod found;
mod groups;
mod judging;
mod log;
mod people;
mod receipts;
mod restricted;
mod slots;

pub(crate) use directory::{check_enabled, checked_manifest, new_manifest, password_error, rate_limited};

use crate::{gateway::Gateway, handshake::Guest, metrics, refusal, session::Me, store::StoreError};
use fastchat_protocol::{ClientFrame, Code, Refusal, ServerFrame, server::Done};
use std::time::Instant;

/// What every request is answered with.
pub(crate) type Answer = Result<ServerFrame, Refusal>;

/// Answers one request of a known device.
pub async fn answer(gateway: &Gateway, me: &Me, frame: ClientFrame) -> ServerFrame {
    let (name, began) = (frame.name(), Instant::now());
    let answer = dispatch(gateway, me, frame).await;
    metrics::request(name, answer.as_ref().err().map(|refusal| refusal.code), began.elapsed());
    refusal::frame(answer)
}

/// Answers one request of somebody who proved no device.
pub async fn answer_guest(gateway: &Gateway, guest: &Guest, frame: ClientFrame) -> ServerFrame {
    let (name, began) = (frame.name(), Instant::now());
    let answer = restricted::dispatch(gateway, guest, frame).await;
    metrics::guest_request(name, answer.as_ref().err().map(|refusal| refusal.code), began.elapsed());
    refusal::frame(answer)
}

async fn dispatch(gateway: &Gateway, me: &Me, frame: ClientFrame) -> Answer {
    match frame {
        ClientFrame::Fetch(request) => log::fetch(gateway, me, &request).await,
        ClientFrame::FetchMailbox(request) => log::fetch_mailbox(gateway, me, &request).await,
        ClientFrame::Sync(request) => log::sync(gateway, me, &request).await,
        ClientFrame::Found(request) => found::found(gateway, me, request).await,
        ClientFrame::FoundGroup(request) => groups::found(gateway, me, request).await,
        ClientFrame::Leave(request) => groups::leave(gateway, me, request).await,
        ClientFrame::Commit(request) => commit::commit(gateway, me, request).await,
        ClientFrame::GetGroupState(request) => log::group_state(gateway, me, &request).await,
        ClientFrame::GetTree(request) => log::tree(gateway, me, &request).await,
        ClientFrame::FindAccount(request) => directory::find(gateway, &request).await,
        ClientFrame::GetAccount(request) => directory::get(gateway, &request).await,
        ClientFrame::PublishKeyPackages(request) => directory::publish(gateway, me, request).await,
        ClientFrame::ClaimKeyPackages(request) => directory::claim(gateway, me, &request).await,
        ClientFrame::PutManifest(request) => directory::put_manifest(gateway, me, &request).await,
        ClientFrame::ChangePassword(request) => directory::change_password(gateway, me, &request).await,
        ClientFrame::PutSlot(request) => slots::put(gateway, me.account, request).await,
        ClientFrame::GetSlot(request) => slots::get(gateway, me.account, &request).await,
        ClientFrame::DropSlot(request) => slots::drop_slot(gateway, me.account, &request).await,
        ClientFrame::SetRecovery(request) => slots::set_recovery(gateway, me.account, request).await,
        ClientFrame::Block(request) => people::block(gateway, me, &request).await,
        ClientFrame::GetBlocked(_) => people::blocked(gateway, me).await,
        ClientFrame::DeleteAccount(request) => people::delete(gateway, me, &request).await,
        ClientFrame::AskPresence(request) => people::ask_presence(gateway, me, &request).await,
        ClientFrame::SetVisible(request) => people::set_visible(gateway, me, &request).await,
        ClientFrame::GetReceipts(request) => receipts::get(gateway, me, &request).await,
        ClientFrame::SetSharing(request) => receipts::set_sharing(gateway, me, &request).await,
        ClientFrame::BeginBlob(request) => blobs::begin(gateway, me, &request).await,
        ClientFrame::FinishBlob(request) => blobs::finish(gateway, me, &request).await,
        ClientFrame::GetBlob(request) => blobs::get(gateway, me, &request).await,
        ClientFrame::DropBlob(request) => blobs::drop_blob(gateway, me, &request).await,
        ClientFrame::Restore(_) => refuse(Code::Unexpected, "only a recovery code can restore an account"),
        // The session deals with these itself.
        ClientFrame::Hello(_)
        | ClientFrame::Register(_)
        | ClientFrame::Login(_)
        | ClientFrame::Resume(_)
        | ClientFrame::Link(_)
        | ClientFrame::Recover(_)
        | ClientFrame::Send(_)
        | ClientFrame::Ack(_)
        | ClientFrame::MarkRead(_)
        | ClientFrame::Typing(_)
        | ClientFrame::AckMailbox(_) => Err(Refusal::new(Code::Unexpected, "not a request")),
    }
}

/// Logs a store's error, once, and says what the client hears.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
pub(crate) fn store_error(error: StoreError) -> Refusal {
    match &error {
        StoreError::Unavailable(_) | StoreError::Unknown(_) => {
            tracing::warn!(%error, "the store gave no outcome")
        }
        StoreError::Corrupt { .. } | StoreError::Schema(_) => {
            tracing::error!(%error, "the store holds a fault")
        }
    }
    refusal::of_store(&error)
}

pub(crate) fn done() -> Answer {
    Ok(ServerFrame::Done(Done {}))
}

pub(crate) fn refuse<T>(code: Code, detail: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(code, detail))
}

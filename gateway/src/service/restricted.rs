//! What somebody may ask who proved a password or a recovery code, but no device.

use super::{
    Answer,
    directory::{
        self, check_enabled, checked_manifest, current_manifest, new_manifest, no_account, password_error,
    },
    done, refuse, slots, store_error,
};
use crate::{gateway::Gateway, handshake::Guest};
use fastchat_delivery::manifest::VerifiedManifest;
use fastchat_protocol::{ClientFrame, Code, DeviceId, Refusal, client::Restore};

pub(super) async fn dispatch(gateway: &Gateway, guest: &Guest, frame: ClientFrame) -> Answer {
    match frame {
        ClientFrame::GetAccount(request) => directory::get(gateway, &request).await,
        ClientFrame::FindAccount(request) => directory::find(gateway, &request).await,
        ClientFrame::PutSlot(request) => slots::put(gateway, guest.account, request).await,
        ClientFrame::GetSlot(request) => slots::get(gateway, guest.account, &request).await,
        ClientFrame::DropSlot(request) => slots::drop_slot(gateway, guest.account, &request).await,
        ClientFrame::Restore(request) if guest.recovers => restore(gateway, guest, &request).await,
        _ => refuse(Code::Unexpected, "without a device, only accounts and slots can be asked for"),
    }
}

/// Puts the manifest of a recovered account in force, with a new password. Devices that it revokes, and
/// those that knew the old password, lose their connections everywhere.
async fn restore(gateway: &Gateway, guest: &Guest, request: &Restore) -> Answer {
    let account = gateway.store.account(guest.account).await.map_err(store_error)?;
    // The session may be older than the operator's decision.
    check_enabled(gateway, &account.ok_or_else(no_account)?.name).await?;
    let next = checked_manifest(&request.manifest)?;
    let current = current_manifest(gateway, guest.account).await?;
    // A request that is repeated because its answer was lost sets the same again.
    if next.bytes() != current.bytes() {
        current.verify_successor(&next).map_err(|e| Refusal::new(Code::BadManifest, e.to_string()))?;
    }
    let hash = gateway.passwords.hash(&request.auth_key).await.map_err(password_error)?;
    let restored = gateway.store.restore(guest.account, new_manifest(&next), &hash).await;
    if !restored.map_err(store_error)? {
        return refuse(Code::BadManifest, "another manifest came first");
    }
    for device in newly_revoked(&current, &next) {
        gateway.fanout.revoked(guest.account, Some(device), None);
    }
    gateway.fanout.revoked(guest.account, None, None);
    done()
}

/// The devices that the next manifest revokes and the one in force does not.
pub(super) fn newly_revoked(current: &VerifiedManifest, next: &VerifiedManifest) -> Vec<DeviceId> {
    next.manifest().revoked.iter().copied().filter(|id| !current.is_revoked(*id)).collect()
}

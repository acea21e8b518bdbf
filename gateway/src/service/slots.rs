//! Slots, where one device of an account leaves something sealed for another, and what a recovery code
//! opens. Full and restricted sessions use them alike.

use super::{Answer, directory::rate_limited, done, refuse, store_error};
use crate::{gateway::Gateway, limits::MAX_SLOT_PARTS, store::Recovery};
use fastchat_protocol::{
    AccountId, Code, ServerFrame,
    client::{DropSlot, GetSlot, PutSlot, SetRecovery},
    limits,
    server::Slot,
};
use sha2::{Digest, Sha256};

pub(super) async fn put(gateway: &Gateway, account: AccountId, request: PutSlot) -> Answer {
    gateway.limiters.slot(account).map_err(rate_limited)?;
    let PutSlot { slot, part, bytes, expires_in_s } = request;
    if bytes.len() > limits::MAX_SLOT_PART || bytes.is_empty() || part >= MAX_SLOT_PARTS {
        let detail = format!(
            "a slot has at most {MAX_SLOT_PARTS} parts, each of 1 to {} bytes",
            limits::MAX_SLOT_PART
        );
        return refuse(Code::TooLarge, detail);
    }
    // 0 keeps it; a hundred and thirty-six years are as good.
    let expires_in_s = if expires_in_s == 0 { u32::MAX } else { expires_in_s };
    match gateway.store.put_slot(account, slot, part, &bytes, expires_in_s).await.map_err(store_error)? {
        true => done(),
        false => refuse(
            Code::TooLarge,
            format!(
                "this account's slots are full ({} bytes, unless the operator says otherwise): drop something first",
                limits::MAX_SLOTS
            ),
        ),
    }
}

pub(super) async fn get(gateway: &Gateway, account: AccountId, request: &GetSlot) -> Answer {
    gateway.limiters.slot(account).map_err(rate_limited)?;
    let bytes = gateway.store.slot(account, request.slot, request.part).await.map_err(store_error)?;
    Ok(ServerFrame::Slot(Slot { bytes }))
}

pub(super) async fn drop_slot(gateway: &Gateway, account: AccountId, request: &DropSlot) -> Answer {
    gateway.limiters.slot(account).map_err(rate_limited)?;
    gateway.store.drop_slot(account, request.slot).await.map_err(store_error)?;
    done()
}

pub(super) async fn set_recovery(gateway: &Gateway, account: AccountId, request: SetRecovery) -> Answer {
    gateway.limiters.slot(account).map_err(rate_limited)?;
    let SetRecovery { recovery_key, sealed } = request;
    if recovery_key.expose().len() != limits::AUTH_KEY_CHARS {
        let detail = format!("a recovery key has {} characters", limits::AUTH_KEY_CHARS);
        return refuse(Code::BadCredentials, detail);
    }
    if sealed.len() > limits::MAX_RECOVERY {
        return refuse(Code::TooLarge, format!("at most {} bytes are kept", limits::MAX_RECOVERY));
    }
    let recovery = Recovery { key_hash: Sha256::digest(recovery_key.expose()).into(), sealed };
    gateway.store.set_recovery(account, recovery).await.map_err(store_error)?;
    done()
}

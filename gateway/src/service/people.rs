//! Blocking, presence, and the end of an account.

use super::{
    Answer,
    directory::{current_manifest, password_error, rate_limited},
    done, refuse, store_error,
};
use crate::{gateway::Gateway, metrics, session::Me};
use fastchat_protocol::{
    Code, ServerFrame,
    client::{AskPresence, Block, DeleteAccount, SetVisible},
    limits,
    server::Blocked,
};

pub(super) async fn block(gateway: &Gateway, me: &Me, request: &Block) -> Answer {
    gateway.limiters.commit(me.account).map_err(rate_limited)?;
    if request.account == me.account {
        return refuse(Code::Forbidden, "nobody can block themselves");
    }
    if gateway.store.account(request.account).await.map_err(store_error)?.is_none() {
        return Err(super::directory::no_account());
    }
    gateway.store.block(me.account, request.account, request.blocked).await.map_err(store_error)?;
    done()
}

pub(super) async fn blocked(gateway: &Gateway, me: &Me) -> Answer {
    let accounts = gateway.store.blocked(me.account).await.map_err(store_error)?;
    Ok(ServerFrame::Blocked(Blocked { accounts }))
}

pub(super) async fn set_visible(gateway: &Gateway, me: &Me, request: &SetVisible) -> Answer {
    gateway.limiters.presence(me.account).map_err(rate_limited)?;
    gateway.store.set_visible(me.account, request.visible).await.map_err(store_error)?;
    gateway.fanout.visible(me.account, request.visible);
    done()
}

/// Those who are acquainted and want it known are asked; whoever is online answers by itself.
pub(super) async fn ask_presence(gateway: &Gateway, me: &Me, request: &AskPresence) -> Answer {
    gateway.limiters.presence(me.account).map_err(rate_limited)?;
    if request.accounts.len() > limits::MAX_PRESENCE {
        return refuse(Code::TooLarge, format!("at most {} accounts at a time", limits::MAX_PRESENCE));
    }
    let known = gateway.store.acquaintances(me.account, &request.accounts).await.map_err(store_error)?;
    metrics::presence_asked(request.accounts.len());
    for handle in gateway.registry.find(me.account, Some(me.device)) {
        gateway.watches.ask(&handle, &known, request.watch_s);
    }
    done()
}

/// Ends the account. The caller closes the asking connection once it has its answer.
pub(super) async fn delete(gateway: &Gateway, me: &Me, request: &DeleteAccount) -> Answer {
    gateway.limiters.login_to(me.name.as_str()).map_err(rate_limited)?;
    let hash = gateway.store.password_hash(me.account).await.map_err(store_error)?;
    if !gateway.passwords.check(&request.auth_key, hash).await.map_err(password_error)? {
        return refuse(Code::BadCredentials, "the password in force is another one");
    }
    let manifest = current_manifest(gateway, me.account).await?;
    if !gateway.store.delete_account(me.account).await.map_err(store_error)? {
        return refuse(
            Code::Forbidden,
            "this account owns a group with other members: hand it over or empty it first",
        );
    }
    for device in manifest.devices().iter().filter(|device| device.id != me.device) {
        gateway.fanout.revoked(me.account, Some(device.id), None);
    }
    done()
}

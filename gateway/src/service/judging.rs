//! What foundings and commits have in common: whose manifests the rules need, who needs a welcome, and
//! what a client hears of a refusal.

use super::{refuse, store_error};
use crate::{
    gateway::Gateway,
    store::{GroupState, Join},
};
use fastchat_delivery::{
    group::{CommitError, FoundError, PublicState},
    group_data::GroupDataError,
    leaf::Leaf,
    manifest::VerifiedManifest,
    policy::PolicyError,
};
use fastchat_protocol::{AccountId, Bytes, Code, DeviceId, Epoch, Refusal, client::Welcome, limits};
use std::collections::{BTreeSet, HashMap};

/// Verified manifests by account.
pub(super) type Manifests = HashMap<AccountId, VerifiedManifest>;

/// Runs what takes milliseconds or more (signatures, trees) beside the reactor.
pub(super) async fn off_reactor<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| refuse(Code::BadCommit, "the change could not be checked"))
}

/// The manifests in force of these accounts. Those that do not exist are left out: the rules then
/// refuse what needs them.
pub(super) async fn manifests_of(
    gateway: &Gateway,
    accounts: &BTreeSet<AccountId>,
) -> Result<Manifests, Refusal> {
    if accounts.is_empty() {
        return Ok(Manifests::new());
    }
    // Limit: a group has no more accounts, so nothing that names more can be right.
    if accounts.len() > limits::MAX_MEMBERS {
        return refuse(Code::GroupFull, format!("a group has at most {} accounts", limits::MAX_MEMBERS));
    }
    let wanted: Vec<_> = accounts.iter().copied().collect();
    let found = gateway.store.accounts(&wanted).await.map_err(store_error)?;
    off_reactor(move || {
        let verified = found.into_iter().map(|account| {
            // What the store has was checked when it came in.
            let manifest = VerifiedManifest::verify(&account.manifest).map_err(|error| {
                tracing::error!(%error, "a stored manifest cannot be verified");
                Refusal::new(Code::Internal, "a stored manifest cannot be verified")
            })?;
            Ok((account.id, manifest))
        });
        verified.collect()
    })
    .await
}

/// Reads the gateway's own copy of a group.
pub(super) fn public_state(current: &GroupState) -> Result<PublicState, Refusal> {
    PublicState::from_bytes(&current.state).map_err(|error| {
        tracing::error!(%error, "a stored group state cannot be read");
        Refusal::new(Code::Internal, "the stored group state cannot be read")
    })
}

/// The devices that are let in, each with its welcome.
pub(super) fn joins(welcomes: &[Welcome]) -> Result<Vec<Join>, Refusal> {
    let mut seen = BTreeSet::new();
    let mut joins = Vec::new();
    for Welcome { devices, welcome } in welcomes {
        too_large(&[(welcome, limits::MAX_TREE)])?;
        for device in devices {
            if !seen.insert(*device) {
                return bad("a device has two welcomes");
            }
            joins.push(Join { device: *device, welcome: Some(welcome.clone()) });
        }
    }
    Ok(joins)
}

/// Checks that exactly these leaves, but not `except`, have a welcome.
pub(super) fn check_welcomed(
    leaves: &[Leaf],
    except: Option<DeviceId>,
    joins: &[Join],
) -> Result<(), Refusal> {
    let needed: BTreeSet<DeviceId> =
        leaves.iter().map(|leaf| leaf.device).filter(|device| Some(*device) != except).collect();
    match needed == joins.iter().map(|join| join.device).collect() {
        true => Ok(()),
        false => bad("every device that comes in needs a welcome, and nobody else"),
    }
}

pub(super) fn too_large(parts: &[(&Bytes, usize)]) -> Result<(), Refusal> {
    match parts.iter().find(|(bytes, limit)| bytes.len() > *limit) {
        Some((_, limit)) => {
            refuse(Code::TooLarge, format!("a part of the request has more than {limit} bytes"))
        }
        None => Ok(()),
    }
}

pub(super) fn bad<T>(detail: impl Into<String>) -> Result<T, Refusal> {
    refuse(Code::BadCommit, detail)
}

/// Another change of the conversation was stored before this one.
pub(super) fn conflict(epoch: Epoch) -> Refusal {
    Refusal {
        epoch: Some(epoch),
        ..Refusal::new(Code::CommitConflict, "another commit came first: apply it and try again")
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
pub(super) fn of_commit(error: CommitError) -> Refusal {
    let code = match &error {
        CommitError::Policy(error) => of_policy(error),
        CommitError::Size(_) => Code::GroupFull,
        CommitError::Change(fastchat_delivery::change::ChangeError::Data(GroupDataError::TooMany(_))) => {
            Code::GroupFull
        }
        _ => Code::BadCommit,
    };
    Refusal::new(code, error.to_string())
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
pub(super) fn of_found(error: FoundError) -> Refusal {
    let code = match &error {
        FoundError::Policy(error) => of_policy(error),
        FoundError::Size(_) | FoundError::Data(GroupDataError::TooMany(_)) => Code::GroupFull,
        _ => Code::BadCommit,
    };
    Refusal::new(code, error.to_string())
}

/// What a rule that was broken is on the wire.
fn of_policy(error: &PolicyError) -> Code {
    match error {
        PolicyError::Forbidden { .. }
        | PolicyError::ComesWithRole(_)
        | PolicyError::Left(_)
        | PolicyError::MayNotRemove { .. }
        | PolicyError::JoinerAdds(_)
        | PolicyError::NoMember(_)
        | PolicyError::JoinerRemoves(_) => Code::Forbidden,
        // Somebody left meanwhile: the sender reads the log, and makes another commit.
        PolicyError::Lingers(_) => Code::CommitConflict,
        // All manifests that there are were at hand.
        PolicyError::ManifestNeeded(_) => Code::NoAccount,
        _ => Code::BadCommit,
    }
}

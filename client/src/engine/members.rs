//! From what is wanted of a conversation's members to the next commit: pure.
//!
//! What is wanted is kept until it is done or impossible; the group may have changed since it was said,
//! by others or by the batch before. So a plan is made from the group as it is now, each time anew.

use crate::{
    api::{ApiError, ErrorKind},
    store::MemberChange,
};
use fastchat_delivery::{GroupData, Leaf, Suite, policy::may_remove};
use fastchat_e2ee::conversation::Info;
use fastchat_protocol::{AccountId, DeviceId, Role, limits};
use std::collections::{BTreeMap, BTreeSet};

/// A conversation and its people, as this device sees them now.
pub(super) struct View<'a> {
    pub(super) own: AccountId,
    pub(super) info: &'a Info,
    /// Accounts that have left and whose leaves are still there.
    pub(super) left: &'a BTreeSet<AccountId>,
    /// Leaves that no manifest lists any more.
    pub(super) unlisted: &'a [DeviceId],
    /// How many devices an account has.
    pub(super) devices: &'a dyn Fn(AccountId) -> usize,
    pub(super) name: &'a dyn Fn(AccountId) -> String,
}

/// What to do next about a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Make this commit; the wish is then looked at again.
    Commit(Plan),
    /// Found the next generation, without post-quantum encryption, with these accounts as well.
    Generation(Vec<AccountId>),
    /// State that this account leaves.
    Leave,
    /// Nothing is left to do.
    Done,
}

/// A commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Accounts whose devices come in.
    pub(super) add: Vec<AccountId>,
    pub(super) remove: Vec<DeviceId>,
    pub(super) data: Option<GroupData>,
}

/// The next step towards `change`, or why there is none.
pub(super) fn plan(change: &MemberChange, view: &View<'_>) -> Result<Next, ApiError> {
    let Some(data) = &view.info.data else {
        return match change {
            MemberChange::Evict => Ok(evict(view)),
            _ => Err(usage("this is a conversation of two: only groups have members to change")),
        };
    };
    let role = data.role(view.own).ok_or_else(|| refused("you are not in the group any more"))?;
    match change {
        MemberChange::Evict => Ok(evict(view)),
        MemberChange::Add { accounts, leave_post_quantum, .. } => {
            add(accounts, *leave_post_quantum, role, data, view)
        }
        MemberChange::Remove(accounts) => remove(accounts, role, data, view),
        MemberChange::Role(account, new) => give_role(*account, *new, role, data, view),
        MemberChange::Transfer(account, mine) => transfer(*account, *mine, role, data, view),
        MemberChange::Leave => leave(role, data, view),
        MemberChange::Timer(seconds) => timer(*seconds, role, data),
    }
}

fn add(
    accounts: &[AccountId],
    leave_post_quantum: bool,
    role: Role,
    data: &GroupData,
    view: &View<'_>,
) -> Result<Next, ApiError> {
    // Those who left go before anybody comes.
    if !view.left.is_empty() {
        return Ok(evict(view));
    }
    let new: Vec<AccountId> =
        accounts.iter().copied().filter(|account| data.role(*account).is_none()).collect();
    if new.is_empty() {
        return Ok(Next::Done);
    }
    if role < Role::Admin {
        return Err(refused("only the owner and admins add people to a group"));
    }
    if data.roles().len() + new.len() > limits::MAX_MEMBERS {
        let max = limits::MAX_MEMBERS;
        return Err(refused(format!("a group has at most {max} people, and would have more")));
    }
    let coming: usize = new.iter().map(|account| (view.devices)(*account)).sum();
    let (suite, devices) = (view.info.suite, view.info.members.len() + coming);
    match (suite.check_devices(devices), suite) {
        (Ok(()), _) => batch(&new, data, view),
        (Err(_), Suite::PostQuantum) if leave_post_quantum => Ok(Next::Generation(new)),
        (Err(_), suite) => Err(too_many(suite, devices)),
    }
}

/// A group that outgrows its encryption.
pub(super) fn too_many(suite: Suite, devices: usize) -> ApiError {
    let max = suite.max_devices();
    match suite {
        Suite::PostQuantum => refused(format!(
            "the group would have {devices} devices, and with post-quantum encryption it can have {max}: \
             `--leave-post-quantum` goes on without (X25519 and AES-128 alone; everybody is told, and there is no way back)"
        )),
        Suite::Classic => {
            refused(format!("the group would have {devices} devices, and a group can have {max}"))
        }
    }
}

/// As many as one commit may bring in, and at least one.
fn batch(new: &[AccountId], data: &GroupData, view: &View<'_>) -> Result<Next, ApiError> {
    let (mut add, mut devices) = (Vec::new(), 0);
    for account in new {
        devices += (view.devices)(*account);
        if !add.is_empty() && devices > limits::MAX_ADDS {
            break;
        }
        add.push(*account);
    }
    let mut roles = data.roles().clone();
    roles.extend(add.iter().map(|account| (*account, Role::Member)));
    Ok(Next::Commit(Plan { add, data: Some(declare(data, roles)?), ..Plan::default() }))
}

fn remove(accounts: &[AccountId], role: Role, data: &GroupData, view: &View<'_>) -> Result<Next, ApiError> {
    let going: BTreeSet<AccountId> =
        accounts.iter().copied().filter(|account| data.role(*account).is_some()).collect();
    if going.is_empty() {
        return Ok(Next::Done);
    }
    if going.contains(&view.own) {
        return Err(usage("nobody takes oneself out: `fastchat group leave` leaves"));
    }
    let forbidden = |account: &&AccountId| {
        !view.left.contains(account) && !data.role(**account).is_some_and(|other| may_remove(role, other))
    };
    if let Some(account) = going.iter().find(forbidden) {
        let name = (view.name)(*account);
        return Err(match (role, data.role(*account)) {
            (Role::Member, _) => refused("only the owner and admins take people out of a group"),
            (_, Some(Role::Owner)) => refused(format!("{name} owns the group and cannot be taken out")),
            _ => refused(format!("{name} is an admin: only the owner can take admins out")),
        });
    }
    Ok(Next::Commit(without(&going, data, &view.info.members)?))
}

fn give_role(
    account: AccountId,
    new: Role,
    role: Role,
    data: &GroupData,
    view: &View<'_>,
) -> Result<Next, ApiError> {
    let name = (view.name)(account);
    let old = data.role(account).ok_or_else(|| not_in(&name))?;
    if old == new {
        return Ok(Next::Done);
    }
    if role != Role::Owner {
        return Err(refused("only the owner of a group gives roles"));
    }
    if account == view.own {
        return Err(usage("the owner stays the owner: `fastchat group transfer` hands the group over"));
    }
    let roles = with(data, [(account, new)]);
    Ok(Next::Commit(Plan { data: Some(declare(data, roles)?), ..Plan::default() }))
}

fn transfer(
    account: AccountId,
    mine: Role,
    role: Role,
    data: &GroupData,
    view: &View<'_>,
) -> Result<Next, ApiError> {
    let name = (view.name)(account);
    if data.role(account).ok_or_else(|| not_in(&name))? == Role::Owner {
        return Ok(Next::Done);
    }
    if role != Role::Owner {
        return Err(refused("only the owner hands a group over"));
    }
    if view.left.contains(&account) {
        return Err(not_in(&name));
    }
    let roles = with(data, [(view.own, mine), (account, Role::Owner)]);
    Ok(Next::Commit(Plan { data: Some(declare(data, roles)?), ..Plan::default() }))
}

fn timer(seconds: u32, role: Role, data: &GroupData) -> Result<Next, ApiError> {
    if data.timer_s() == seconds {
        return Ok(Next::Done);
    }
    if role < Role::Admin {
        return Err(refused("only the owner and admins set how long a group's messages are kept"));
    }
    let data = data.with_timer(seconds).map_err(|error| refused(error.to_string()))?;
    Ok(Next::Commit(Plan { data: Some(data), ..Plan::default() }))
}

fn leave(role: Role, data: &GroupData, view: &View<'_>) -> Result<Next, ApiError> {
    let others = data.roles().keys().any(|account| *account != view.own && !view.left.contains(account));
    match role {
        Role::Owner if others => Err(refused(
            "you own the group: hand it over first (`fastchat group transfer GROUP NAME`), then leave",
        )),
        _ => Ok(Next::Leave),
    }
}

/// The leaves of those who have left, and those that no manifest lists any more. The last leaf of
/// somebody who has not left stays until a new device of that account is in: a group has no members
/// without devices.
fn evict(view: &View<'_>) -> Next {
    let members = &view.info.members;
    let listed = |leaf: &&Leaf| !view.unlisted.contains(&leaf.device);
    let reachable: BTreeSet<AccountId> = members.iter().filter(listed).map(|leaf| leaf.account).collect();
    let has_left = |leaf: &Leaf| view.left.contains(&leaf.account) && leaf.account != view.own;
    let goes = |leaf: &&Leaf| {
        let kept = view.info.data.is_some() && !reachable.contains(&leaf.account);
        has_left(leaf) || !(listed(leaf) || kept)
    };
    let remove: Vec<DeviceId> = members.iter().filter(goes).map(|leaf| leaf.device).collect();
    if remove.is_empty() {
        return Next::Done;
    }
    let mut roles = view.info.data.as_ref().map(|data| data.roles().clone()).unwrap_or_default();
    let before = roles.len();
    roles.retain(|account, _| *account == view.own || !view.left.contains(account));
    // Leaving is not for owners, so one is left.
    let left = view.info.data.as_ref().filter(|_| roles.len() != before);
    let data = left.and_then(|data| data.with_roles(roles).ok());
    Next::Commit(Plan { add: Vec::new(), remove, data })
}

fn without(going: &BTreeSet<AccountId>, data: &GroupData, members: &[Leaf]) -> Result<Plan, ApiError> {
    let mut roles = data.roles().clone();
    roles.retain(|account, _| !going.contains(account));
    let remove =
        members.iter().filter(|leaf| going.contains(&leaf.account)).map(|leaf| leaf.device).collect();
    Ok(Plan { add: Vec::new(), remove, data: Some(declare(data, roles)?) })
}

fn with<const N: usize>(data: &GroupData, new: [(AccountId, Role); N]) -> BTreeMap<AccountId, Role> {
    let mut roles = data.roles().clone();
    roles.extend(new);
    roles
}

fn declare(data: &GroupData, roles: BTreeMap<AccountId, Role>) -> Result<GroupData, ApiError> {
    data.with_roles(roles).map_err(|error| refused(error.to_string()))
}

fn not_in(name: &str) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("{name} is not in the group"))
}

fn refused(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::Refused, message)
}

fn usage(message: &str) -> ApiError {
    ApiError::new(ErrorKind::Usage, message)
}

#[cfg(test)]
mod tests;

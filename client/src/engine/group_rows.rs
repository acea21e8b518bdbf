//! Rows that only groups have, and what messages say about a group: inside the transaction that moves
//! the cursor past them.

use super::{
    row::{Effect, Env, Step, noted, quarantine, rejoin},
    state::now_ms,
};
use crate::store::{CommitReason, Conversation, GroupRecord, Standing, StoreError, StoredPicture, Tx};
use fastchat_delivery::{CommitSummary, GroupData, Leave};
use fastchat_e2ee::{
    GroupProfile,
    conversation::{self, ConversationError, Info},
};
use fastchat_protocol::{AccountId, Epoch, Role, server::LogRow};

/// What the keys say about a conversation; `None` without keys.
pub(super) fn info(tx: &Tx<'_>, record: &Conversation) -> Result<Option<Info>, StoreError> {
    match conversation::info(&tx.vault(), record.id) {
        Ok(info) => Ok(info),
        Err(ConversationError::Vault(error)) => Err(error.into()),
        Err(error) => {
            tracing::warn!(conversation = %record.id, %error, "the keys' state cannot be read");
            Ok(None)
        }
    }
}

/// A statement by which somebody has left.
pub(super) fn left(
    tx: &Tx<'_>,
    env: &Env<'_>,
    record: &mut Conversation,
    row: &LogRow,
) -> Result<Step, StoreError> {
    let keys = info(tx, record)?;
    let statement = row.envelope.clone().unwrap_or_default();
    let judged = keys.ok_or_else(|| "this device has no keys for the conversation".to_owned());
    let account = match judged.and_then(|info| judge_leave(record, row, &statement, &info)) {
        Ok(account) => account,
        Err(why) => {
            return quarantine(tx, record, row, format!("a statement to leave that does not hold: {why}"));
        }
    };
    let words = env.words(&Default::default(), |words| format!("{} left", words.who(account)));
    let own = account == env.me.account();
    if let Some(group) = record.group_mut() {
        group.left.insert(account);
    }
    let mut effects = vec![Effect::Audit];
    if own {
        record.standing = Standing::Removed;
        record.changes.clear();
        let ours = record.commit.take_if(|commit| {
            commit.reason == CommitReason::Leave && commit.counter == row.counter && row.sender == env.me.id()
        });
        if ours.is_some() {
            effects.push(Effect::OwnCommit);
        }
        record.commit = None;
        effects.push(Effect::Left);
    }
    record.cursor = row.seq;
    let Step::Done(more) = noted(tx, record, row, words)? else { return Ok(Step::Refetch) };
    effects.extend(more);
    Ok(Step::Done(effects))
}

/// The account that has left, if the statement is its own, of here and now.
fn judge_leave(
    record: &Conversation,
    row: &LogRow,
    statement: &[u8],
    info: &Info,
) -> Result<AccountId, String> {
    let group = record.group().ok_or("this is a conversation of two")?;
    let leaf = info.members.iter().find(|leaf| leaf.device == row.sender);
    let leaf = leaf.ok_or("the device is not in the group")?;
    let leave = Leave::verify(statement, &leaf.key).map_err(|error| error.to_string())?;
    if (leave.conversation, leave.counter) != (record.id, row.counter) {
        return Err("it was made for another place".to_owned());
    }
    if (leave.account, leave.device) != (leaf.account, leaf.device) {
        return Err("it names somebody else".to_owned());
    }
    if leave.epoch < group.fence {
        return Err("it is older than the last change of members".to_owned());
    }
    let owner = info.data.as_ref().and_then(GroupData::owner) == Some(leaf.account);
    let others = group.roles.keys().any(|other| *other != leaf.account && !group.left.contains(other));
    if owner && others {
        return Err("the owner cannot leave the others".to_owned());
    }
    Ok(leaf.account)
}

/// The row of a new generation.
pub(super) fn founded(
    tx: &Tx<'_>,
    env: &Env<'_>,
    record: &mut Conversation,
    row: &LogRow,
) -> Result<Step, StoreError> {
    let envelope = row.envelope.as_deref().unwrap_or_default();
    if envelope.is_empty() {
        // The first row of all.
        record.cursor = row.seq;
        return Ok(Step::Done(Vec::new()));
    }
    let Ok(hash) = <[u8; 32]>::try_from(envelope) else {
        return quarantine(
            tx,
            record,
            row,
            "something that the server calls a beginning, and that is none".to_owned(),
        );
    };
    let ours = record.commit.as_ref().is_some_and(|commit| {
        matches!(commit.reason, CommitReason::Generation { .. } | CommitReason::Restored { .. })
            && commit.counter == row.counter
            && commit.commit.as_ref() == hash
    });
    if ours && row.sender == env.me.id() {
        return enter(tx, env, record, row, &hash);
    }
    if !env.mailbox_read {
        // The welcome that lets this device in is (or will be) in the mailbox.
        return Ok(Step::NeedWelcome);
    }
    record.cursor = row.seq;
    if matches!(record.standing, Standing::Restoring(_)) {
        record.standing = Standing::Ready;
    }
    rejoin(record, "the conversation goes on with other keys, and this device was not let in");
    Ok(Step::Done(vec![Effect::NewEpoch]))
}

fn enter(
    tx: &Tx<'_>,
    env: &Env<'_>,
    record: &mut Conversation,
    row: &LogRow,
    hash: &[u8; 32],
) -> Result<Step, StoreError> {
    let before = info(tx, record)?.and_then(|info| info.data);
    let entered = match conversation::enter_next(&tx.vault(), record.id, hash) {
        Ok(entered) => entered,
        Err(ConversationError::Vault(error)) => return Err(error.into()),
        Err(error) => return quarantine(tx, record, row, error.to_string()),
    };
    record.cursor = row.seq;
    let restored =
        record.commit.take().is_some_and(|own| matches!(own.reason, CommitReason::Restored { .. }));
    let after = info(tx, record)?;
    if restored && let (Some(epoch), Some(after)) = (entered, &after) {
        (record.standing, record.gone, record.refused) = (Standing::Ready, false, false);
        (record.updated_ms, record.sealed) = (now_ms(), 0);
        follow(record, epoch, after.data.as_ref());
        if let Some(group) = record.group_mut() {
            group.left.clear();
            group.profile_due = true;
        }
        let Step::Done(mut effects) = noted(tx, record, row, super::restored::goes_on("you"))? else {
            return Ok(Step::Refetch);
        };
        effects.extend([Effect::OwnCommit, Effect::NewEpoch, Effect::Audit]);
        return Ok(Step::Done(effects));
    }
    let (Some(epoch), Some(after)) = (entered, after.and_then(|info| info.data)) else {
        rejoin(record, "the keys of the next generation are not here");
        return Ok(Step::Done(vec![Effect::OwnCommit, Effect::NewEpoch]));
    };
    let said = generation_notice(env, env.me.account(), before.as_ref(), &after);
    if let Some(before) = &before {
        note_came(record, row, before, &after);
    }
    follow(record, epoch, Some(&after));
    if let Some(group) = record.group_mut() {
        group.left.clear();
        group.profile_due = true;
    }
    let Step::Done(mut effects) = noted(tx, record, row, said)? else { return Ok(Step::Refetch) };
    effects.extend([Effect::OwnCommit, Effect::NewEpoch]);
    Ok(Step::Done(effects))
}

/// What the next generation of a group is in words.
pub(super) fn generation_notice(
    env: &Env<'_>,
    by: AccountId,
    before: Option<&GroupData>,
    after: &GroupData,
) -> String {
    env.words(&Default::default(), |words| words.of_generation(by, before.unwrap_or(after), after).join("; "))
}

/// What the record keeps of a change to a group that was applied.
pub(super) fn follow_commit(
    tx: &Tx<'_>,
    record: &mut Conversation,
    row: &LogRow,
    summary: &CommitSummary,
) -> Result<(), StoreError> {
    if record.group().is_none() {
        return Ok(());
    }
    if let Some((before, after)) = &summary.data {
        note_came(record, row, before, after);
    }
    let data = match (&summary.data, summary.external) {
        (Some((_, after)), _) => Some(after.clone()),
        // Whoever joins by itself has not seen the changes before.
        (None, true) => info(tx, record)?.and_then(|info| info.data),
        (None, false) => None,
    };
    if let Some(data) = &data {
        record.timer_s = data.timer_s();
    }
    if summary.moves_leaves() {
        follow(record, summary.epoch, data.as_ref());
    } else if let (Some(group), Some(data)) = (record.group_mut(), data) {
        group.roles = data.roles().clone();
    }
    let Some(group) = record.group_mut() else { return Ok(()) };
    if !summary.added.is_empty() {
        // An admin who lets people in says the name; devices that come in otherwise wait to be told.
        let told = group.roles.get(&summary.committer.account).is_some_and(|role| *role >= Role::Admin);
        group.profile_due |= summary.external || !told;
    }
    Ok(())
}

/// Who came in by a row, for what may be handed to them later.
fn note_came(record: &mut Conversation, row: &LogRow, before: &GroupData, after: &GroupData) {
    let place = (record.incarnation, row.seq);
    let came = after.roles().keys().filter(|account| before.role(**account).is_none());
    if let Some(group) = record.group_mut() {
        group.note_came(came.copied(), place);
    }
}

fn follow(record: &mut Conversation, epoch: Epoch, data: Option<&GroupData>) {
    let timer_s = data.map_or(record.timer_s, GroupData::timer_s);
    let Some(group) = record.group_mut() else { return };
    group.fence = epoch;
    if let Some(data) = data {
        group.roles = data.roles().clone();
    }
    let GroupRecord { left, roles, .. } = group;
    left.retain(|account| roles.contains_key(account));
    record.timer_s = timer_s;
}

/// A message that says a group's name and picture. Returns what a person is told, if anything is new.
pub(super) fn profile(
    env: &Env<'_>,
    record: &mut Conversation,
    by: AccountId,
    profile: GroupProfile,
) -> Result<Option<String>, String> {
    let own = env.me.account();
    let Some(group) = record.group_mut() else { return Err("a name for a conversation of two".to_owned()) };
    if group.roles.get(&by).is_none_or(|role| *role < Role::Admin) {
        return Err("somebody who is no admin wants to name the group".to_owned());
    }
    let name: String = profile.name.chars().take(super::groups::MAX_NAME).collect();
    let picture =
        profile.picture.map(|picture| StoredPicture { mime: picture.mime, bytes: picture.bytes.into() });
    let (named, pictured) = (group.name != name, group.picture != picture);
    let who = if by == own { "you".to_owned() } else { env.name(by) };
    let said = match (named, pictured, &picture) {
        (false, false, _) => None,
        (false, true, Some(_)) => Some(format!("{who} changed the group's picture")),
        (false, true, None) => Some(format!("{who} removed the group's picture")),
        (true, ..) => Some(format!("{who} named the group {name}")),
    };
    (group.name, group.picture, group.profile_from) = (name, picture, Some(by));
    group.profile_due = false;
    Ok(said)
}

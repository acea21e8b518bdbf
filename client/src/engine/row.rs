//! One row of a log, applied inside the transaction that moves the cursor past it.

use super::state::{Arrived, now_ms};
use crate::{
    failpoint,
    store::{
        CommitReason, Contact, Conversation, Entry, EntryKind, Item, ItemState, Standing, StoreError, Tx,
        quarantined,
    },
};
use fastchat_delivery::{CommitSummary, Policy};
use fastchat_e2ee::{
    Content, Device,
    conversation::{self, OpenError, Opened},
};
use fastchat_protocol::{
    AccountId, Bytes,
    server::{LogKind, LogRow},
};
use std::collections::HashMap;

/// How often a conversation may be entered anew: more would only burn keys.
pub(super) const REJOIN_INTERVAL_MS: u64 = 60_000;

/// What a row is judged by.
pub(super) struct Env<'a> {
    pub(super) me: &'a Device,
    pub(super) contacts: &'a HashMap<AccountId, Contact>,
    /// Our message under the row's counter, if the row claims to be ours.
    pub(super) own: Option<(i64, &'a Item)>,
    /// Whose newest manifests were fetched for this row already.
    pub(super) asked: &'a [AccountId],
}

/// What became of a row.
pub(super) enum Step {
    /// It is stored (or needs no storing), and the record's cursor is past it.
    Done(Vec<Effect>),
    /// Only the log's copy counts, and this is not it. Nothing was written.
    Refetch,
    /// The newest manifest of this account is needed to judge. Nothing was written.
    NeedManifest(AccountId),
}

/// What follows once the transaction is committed.
#[derive(Debug)]
pub(super) enum Effect {
    /// To be shown.
    Entry(Box<Entry>),
    /// Our message at this position of the outbox is in the log.
    OwnSent(i64),
    /// Our commit was accepted.
    OwnCommit,
    /// Keys changed: old refusals are settled.
    NewEpoch,
}

/// Applies a row. On `Done` the record is changed; the caller writes it in the same transaction.
pub(super) fn apply(
    tx: &Tx<'_>,
    env: &Env<'_>,
    record: &mut Conversation,
    arrived: &Arrived,
) -> Result<Step, StoreError> {
    let row = &arrived.row;
    let envelope = row.envelope.clone().unwrap_or_default();
    let step = match row.kind {
        LogKind::Founded => Step::Done(Vec::new()),
        LogKind::Application if row.sender == env.me.id() => own_message(tx, env, record, row, &envelope)?,
        LogKind::Application | LogKind::Commit => return opened(tx, env, record, arrived, &envelope),
        LogKind::Left => Step::Done(Vec::new()),
        LogKind::Other(kind) => {
            let reason =
                format!("something of a kind ({kind}) that this version does not know: update fastchat");
            quarantine(tx, record, row, reason)?
        }
    };
    record.cursor = row.seq;
    Ok(step)
}

/// An echo of what this device sent. Its text was stored when it was sealed.
fn own_message(
    tx: &Tx<'_>,
    env: &Env<'_>,
    record: &mut Conversation,
    row: &LogRow,
    envelope: &Bytes,
) -> Result<Step, StoreError> {
    let known = env.own.filter(|(_, item)| match &item.state {
        ItemState::Sealed { envelope: ours, .. } | ItemState::Acked { envelope: ours, .. } => {
            ours == envelope
        }
        ItemState::Draft | ItemState::Failed { .. } => false,
    });
    let Some((position, item)) = known else {
        let reason =
            "a message of this device whose text is not here: the profile was restored from an older copy";
        return quarantine(tx, record, row, reason.to_owned());
    };
    let from = Some((env.me.account(), env.me.id()));
    let entry = entry(row, EntryKind::Text, from, item.text.clone());
    tx.add_entry(record.id, &entry)?;
    tx.delete_item(item.id)?;
    tx.remember_sent(item.id, &(record.id, row.seq.0, row.at_ms))?;
    // What one has written, one has read, and with it what came before.
    Ok(Step::Done(vec![Effect::OwnSent(position), Effect::Entry(Box::new(entry))]))
}

fn opened(
    tx: &Tx<'_>,
    env: &Env<'_>,
    record: &mut Conversation,
    arrived: &Arrived,
    envelope: &Bytes,
) -> Result<Step, StoreError> {
    let row = &arrived.row;
    let manifests = |account: AccountId| env.contacts.get(&account).map(|contact| contact.manifest.clone());
    let policy = Policy { rules: record.party.rules(env.me.account()), manifests: &manifests };
    let result =
        conversation::open(&tx.vault(), env.me, record.id, row.sender, row.counter, envelope, &policy);
    let step = match result {
        Ok(Opened::Future { .. }) if !arrived.from_log => return Ok(Step::Refetch),
        Ok(outcome) => {
            failpoint::pass("opened");
            settle(tx, env, record, row, outcome)?
        }
        Err(OpenError::Vault(error)) => return Err(error.into()),
        Err(error) => {
            if let Some(account) = error.wants_manifest().filter(|account| !env.asked.contains(account)) {
                return Ok(Step::NeedManifest(account));
            }
            if !arrived.from_log {
                return Ok(Step::Refetch);
            }
            if error.resync_helps() {
                rejoin(record, &error.to_string());
            }
            quarantine(tx, record, row, unreadable(&error))?
        }
    };
    record.cursor = row.seq;
    Ok(step)
}

fn settle(
    tx: &Tx<'_>,
    env: &Env<'_>,
    record: &mut Conversation,
    row: &LogRow,
    outcome: Opened,
) -> Result<Step, StoreError> {
    match outcome {
        Opened::Message { account, device, epoch, plaintext } => {
            let (kind, text) = match Content::decode(&plaintext) {
                Ok(Content::Text(text)) => (EntryKind::Text, text),
                Ok(Content::Unknown { kind }) => (
                    EntryKind::Unknown,
                    format!("a message of kind {kind:?}, which this version cannot show: update fastchat"),
                ),
                Ok(_) => (
                    EntryKind::Unknown,
                    "a message that this version cannot show: update fastchat".to_owned(),
                ),
                Err(error) => return quarantine(tx, record, row, error.to_string()),
            };
            let entry = Entry { epoch: Some(epoch), ..entry(row, kind, Some((account, device)), text) };
            tx.add_entry(record.id, &entry)?;
            record.unread += 1;
            Ok(Step::Done(vec![Effect::Entry(Box::new(entry))]))
        }
        Opened::Commit { summary, .. } => changed(tx, env, record, row, &summary),
        Opened::OwnCommit(summary) => own_commit(tx, record, row, &summary),
        Opened::Removed(_) => {
            record.standing = Standing::Removed;
            noted(tx, record, row, "this device was removed from the conversation".to_owned())
        }
        // A commit that was applied before; nothing is lost.
        Opened::TooOld { .. } if row.kind == LogKind::Commit => Ok(Step::Done(Vec::new())),
        Opened::TooOld { .. } => {
            let reason = "sent before this device had the conversation's present keys; the old ones are gone";
            quarantine(tx, record, row, reason.to_owned())
        }
        Opened::Replay => {
            quarantine(tx, record, row, "a second copy of a message that was read before".to_owned())
        }
        Opened::OwnMessage => {
            quarantine(tx, record, row, "a message of this device in another one's name".to_owned())
        }
        Opened::Future { .. } => {
            let reason = "sealed with keys that this device has not seen";
            rejoin(record, reason);
            quarantine(tx, record, row, reason.to_owned())
        }
    }
}

fn changed(
    tx: &Tx<'_>,
    env: &Env<'_>,
    record: &mut Conversation,
    row: &LogRow,
    summary: &CommitSummary,
) -> Result<Step, StoreError> {
    let who =
        env.contacts.get(&summary.committer.account).map_or("somebody", |contact| contact.name.as_str());
    let text = match (summary.external, summary.added.len(), summary.removed.len()) {
        // New keys of a member: nothing that a person has to know.
        (_, 0, 0) => return Ok(Step::Done(vec![Effect::NewEpoch])),
        (true, ..) => format!("a device of {who} joined anew, with new keys"),
        (false, added, removed) => {
            format!("{who} changed the devices in this conversation: {added} came, {removed} went")
        }
    };
    let Step::Done(mut effects) = noted(tx, record, row, text)? else { return Ok(Step::Refetch) };
    effects.push(Effect::NewEpoch);
    Ok(Step::Done(effects))
}

fn own_commit(
    tx: &Tx<'_>,
    record: &mut Conversation,
    row: &LogRow,
    summary: &CommitSummary,
) -> Result<Step, StoreError> {
    let commit = record.commit.take();
    record.updated_ms = now_ms();
    record.sealed = 0;
    let mut effects = vec![Effect::OwnCommit, Effect::NewEpoch];
    if summary.external || matches!(record.standing, Standing::Rejoining(_)) {
        record.standing = Standing::Ready;
        let why = match commit.map(|commit| commit.reason) {
            Some(CommitReason::Rejoin(why)) => why,
            _ => "its keys were lost".to_owned(),
        };
        let text = format!(
            "this device joined anew: {why}. What it could not read before is marked above and lost to it."
        );
        if let Step::Done(more) = noted(tx, record, row, text)? {
            effects.extend(more);
        }
    }
    Ok(Step::Done(effects))
}

/// Marks the conversation for an external commit, unless there was one just now.
fn rejoin(record: &mut Conversation, why: &str) {
    let recently = now_ms().saturating_sub(record.rejoined_ms) < REJOIN_INTERVAL_MS;
    if record.standing == Standing::Ready && !recently {
        record.standing = Standing::Rejoining(why.to_owned());
    }
}

fn noted(tx: &Tx<'_>, record: &Conversation, row: &LogRow, text: String) -> Result<Step, StoreError> {
    let entry = entry(row, EntryKind::Notice, None, text);
    tx.add_entry(record.id, &entry)?;
    Ok(Step::Done(vec![Effect::Entry(Box::new(entry))]))
}

/// The row stays, with the reason, and the conversation shows that there was something.
fn quarantine(
    tx: &Tx<'_>,
    record: &mut Conversation,
    row: &LogRow,
    reason: String,
) -> Result<Step, StoreError> {
    tracing::warn!(conversation = %record.id, seq = %row.seq, reason, "a row cannot be read");
    tx.quarantine(&quarantined(record.id, row, reason.clone()))?;
    let entry = entry(row, EntryKind::Quarantine, None, reason);
    tx.add_entry(record.id, &entry)?;
    record.cursor = row.seq;
    Ok(Step::Done(vec![Effect::Entry(Box::new(entry))]))
}

fn entry(
    row: &LogRow,
    kind: EntryKind,
    from: Option<(AccountId, fastchat_protocol::DeviceId)>,
    text: String,
) -> Entry {
    Entry { seq: row.seq, part: 0, kind, from, text, at_ms: row.at_ms, epoch: None }
}

/// The reason as a person understands it.
fn unreadable(error: &OpenError) -> String {
    match error {
        OpenError::NotJoined => "sent while this device had no keys for the conversation".to_owned(),
        OpenError::Removed => "sent after this device was removed".to_owned(),
        other => other.to_string(),
    }
}

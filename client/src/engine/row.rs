//! One row of a log, applied inside the transaction that moves the cursor past it.

use super::{
    counts::Counts,
    group_rows, history_rows,
    kinds::{self, Deed},
    notices::Words,
    send::content_of,
    state::{Arrived, now_ms},
};
use crate::{
    devices::NEW_DEVICE,
    failpoint,
    store::{
        CommitReason, Contact, Conversation, Entry, EntryKind, Extra, Item, ItemState, Standing, StoreError,
        Transfer, Tx, quarantined,
    },
    trust::{self, Gossip},
};
use fastchat_delivery::{CommitSummary, Policy};
use fastchat_e2ee::{
    Content, Device, Message, Text,
    conversation::{self, OpenError, Opened},
};
use fastchat_protocol::{
    AccountId, Bytes, ConversationId, DeviceId, Epoch,
    server::{LogKind, LogRow},
};
use std::collections::{BTreeSet, HashMap};

/// How often a conversation may be entered anew: more would only burn keys.
pub(super) const REJOIN_INTERVAL_MS: u64 = 60_000;
/// Why a row does not open while the next generation of a restored conversation is waited for.
const KEYS_GONE: &str =
    "sent after the server was restored from a backup, with keys that are older than those of this device";

/// What a row is judged by.
pub(super) struct Env<'a> {
    pub(super) me: &'a Device,
    pub(super) contacts: &'a HashMap<AccountId, Contact>,
    /// Our message under the row's counter, if the row claims to be ours.
    pub(super) own: Option<(i64, &'a Item)>,
    /// Whose newest manifests were fetched for this row already.
    pub(super) asked: &'a [AccountId],
    /// The mailbox was read since the row was met: a welcome that is not there does not come.
    pub(super) mailbox_read: bool,
}

impl Env<'_> {
    /// The name of an account, as far as it is known.
    pub(super) fn name(&self, account: AccountId) -> String {
        match self.contacts.get(&account) {
            Some(contact) => contact.name.clone(),
            None => format!("account {}", &account.to_string()[..8]),
        }
    }

    /// Something in words of people. `left`: whose leaving was said before.
    pub(super) fn words<T>(&self, left: &BTreeSet<AccountId>, say: impl FnOnce(&Words<'_>) -> T) -> T {
        say(&Words { own: self.me.account(), left, name: &|account| self.name(account) })
    }
}

/// What became of a row.
pub(super) enum Step {
    /// It is stored (or needs no storing), and the record's cursor is past it.
    Done(Vec<Effect>),
    /// Only the log's copy counts, and this is not it. Nothing was written.
    Refetch,
    /// The newest manifest of this account is needed to judge. Nothing was written.
    NeedManifest(AccountId),
    /// The conversation goes on with other keys, which are in the mailbox. Nothing was written.
    NeedWelcome,
}

/// What follows once the transaction is committed.
#[derive(Debug)]
pub(super) enum Effect {
    /// To be shown.
    Entry(Box<Entry>),
    /// Something that was shown is different now.
    Changed(Box<Entry>),
    /// Our message at this position of the outbox is in the log.
    OwnSent(i64),
    /// History for this device is to be fetched.
    Fetch(Box<Transfer>),
    /// Nobody needs this blob of ours any more.
    Unwanted(ConversationId, [u8; 16]),
    /// Our commit was accepted.
    OwnCommit,
    /// Keys changed: old refusals are settled.
    NewEpoch,
    /// Somebody may have to be taken out before anything is sent.
    Audit,
    /// This account has left.
    Left,
    /// A newer manifest of this account exists.
    Learn(AccountId),
    /// The server shows this account's devices to others as it does not show them here.
    Split(AccountId),
}

impl Effect {
    /// What the row itself came to.
    pub(super) fn entry(&self) -> Option<&Entry> {
        if let Self::Entry(entry) = self { Some(entry) } else { None }
    }
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
        LogKind::Founded => return group_rows::founded(tx, env, record, row),
        LogKind::Application if row.sender == env.me.id() => match own_item(env, &envelope) {
            Some((position, item)) => own_message(tx, env, record, row, position, item)?,
            // Perhaps it is not ours at all: the keys know.
            None => return opened(tx, env, record, arrived, &envelope),
        },
        LogKind::Application | LogKind::Commit => return opened(tx, env, record, arrived, &envelope),
        LogKind::Left => return group_rows::left(tx, env, record, row),
        LogKind::Other(kind) => {
            let reason =
                format!("something of a kind ({kind}) that this version does not know: update fastchat");
            quarantine(tx, record, row, reason)?
        }
    };
    record.cursor = row.seq;
    Ok(step)
}

/// What this device has sent under the row's counter, if it is what the row holds.
fn own_item<'a>(env: &Env<'a>, envelope: &Bytes) -> Option<(i64, &'a Item)> {
    env.own.filter(|(_, item)| match &item.state {
        ItemState::Sealed { envelope: ours, .. } | ItemState::Acked { envelope: ours, .. } => {
            ours == envelope
        }
        ItemState::Draft | ItemState::Failed { .. } => false,
    })
}

/// Who says something, and what goes with it.
struct Said {
    account: AccountId,
    device: DeviceId,
    /// None for what this device has sent.
    epoch: Option<Epoch>,
    /// Seconds for which it is kept.
    expires_s: Option<u32>,
}

/// An echo of what this device sent. Its text was stored when it was sealed.
fn own_message(
    tx: &Tx<'_>,
    env: &Env<'_>,
    record: &mut Conversation,
    row: &LogRow,
    position: i64,
    item: &Item,
) -> Result<Step, StoreError> {
    let (account, device) = (env.me.account(), env.me.id());
    let said = Said { account, device, epoch: None, expires_s: item.expires_s };
    let step = match content_of(item) {
        Content::Profile(profile) => {
            let words = group_rows::profile(env, record, account, profile).unwrap_or_else(Some);
            words.map_or_else(|| Ok(Step::Done(Vec::new())), |words| noted(tx, record, row, words))?
        }
        other => content(tx, env, record, row, &said, other)?,
    };
    let Step::Done(effects) = step else { return Ok(Step::Refetch) };
    tx.delete_item(item.id)?;
    tx.remember_sent(item.id, &(record.id, row.seq.0, row.at_ms))?;
    Ok(Step::Done([Effect::OwnSent(position)].into_iter().chain(effects).collect()))
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
            if record.gone {
                quarantine(tx, record, row, KEYS_GONE.to_owned())?
            } else {
                record.refused |= breaks_a_rule(&error);
                quarantine(tx, record, row, unreadable(&error))?
            }
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
            if record.group().is_some_and(|group| group.left.contains(&account)) {
                return quarantine(tx, record, row, "sent by somebody who had left the group".to_owned());
            }
            let message = match Message::decode(&plaintext) {
                Ok(message) => message,
                Err(error) => return quarantine(tx, record, row, error.to_string()),
            };
            let heard = heard(env, account, &message);
            let said = Said { account, device, epoch: Some(epoch), expires_s: message.expires_s };
            let Step::Done(mut effects) = content(tx, env, record, row, &said, message.content)? else {
                return Ok(Step::Refetch);
            };
            effects.extend(heard);
            Ok(Step::Done(effects))
        }
        Opened::Commit { summary, .. } => changed(tx, env, record, row, &summary),
        Opened::OwnCommit(summary) => own_commit(tx, env, record, row, &summary),
        Opened::Removed(summary) => {
            record.standing = Standing::Removed;
            record.changes.clear();
            record.commit = None;
            let said = said(env, record, &summary);
            let text = match said.is_empty() {
                true => "this device was removed from the conversation".to_owned(),
                false => said,
            };
            noted(tx, record, row, text)
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
            let again = Counts::load(tx, record.id)?.has(env.me.id(), row.counter);
            let reason = match again {
                true => "a second copy of a message of this device",
                false => {
                    "a message of this device whose text is not here: the profile was restored from an older copy"
                }
            };
            quarantine(tx, record, row, reason.to_owned())
        }
        Opened::Future { .. } => {
            let reason = match record.refused {
                true => "sealed with keys of a change that this device has refused",
                false => "sealed with keys that this device has not seen",
            };
            rejoin(record, reason);
            quarantine(tx, record, row, reason.to_owned())
        }
    }
}

/// What the message of an epoch says of its sender's devices, beside what is known of them here.
fn heard(env: &Env<'_>, account: AccountId, message: &Message) -> Option<Effect> {
    let view = message.manifest.as_ref()?;
    match env.contacts.get(&account).map(|contact| trust::gossip(&contact.manifest, view)) {
        Some(Gossip::Nothing) => None,
        Some(Gossip::Newer) | None => Some(Effect::Learn(account)),
        Some(Gossip::Split) => Some(Effect::Split(account)),
    }
}

fn content(
    tx: &Tx<'_>,
    env: &Env<'_>,
    record: &mut Conversation,
    row: &LogRow,
    said: &Said,
    content: Content,
) -> Result<Step, StoreError> {
    let account = said.account;
    let own = account == env.me.account();
    if own {
        // Another device of this account writes here: it has said yes.
        record.request = None;
    }
    let mut extra = Extra { expires_at_ms: expires_at(said.expires_s, row.at_ms), ..Extra::default() };
    let (kind, text) = match content {
        Content::File(file) => {
            let text = file.caption.clone().unwrap_or_default();
            extra.file = Some(file);
            (EntryKind::File, text)
        }
        Content::Text(Text { text, reply, mentions }) => {
            (extra.reply, extra.mentions) = (reply, members_among(record, mentions));
            (EntryKind::Text, text)
        }
        Content::Edit { target, mut text } => {
            text.mentions = members_among(record, text.mentions);
            return kinds::apply(tx, env, record, row, account, target, &Deed::Edit(text));
        }
        Content::Delete { target } => {
            return kinds::apply(tx, env, record, row, account, target, &Deed::Delete);
        }
        Content::Reaction { target, emoji } => {
            return kinds::apply(tx, env, record, row, account, target, &Deed::React(emoji));
        }
        Content::Timer { seconds } => return kinds::timer(tx, env, record, row, account, seconds),
        Content::Profile(profile) => {
            return match group_rows::profile(env, record, account, profile) {
                Ok(Some(said)) => noted(tx, record, row, said),
                Ok(None) => Ok(Step::Done(Vec::new())),
                Err(reason) => quarantine(tx, record, row, reason),
            };
        }
        Content::Accepted if own || record.group().is_some() => return Ok(Step::Done(Vec::new())),
        Content::Accepted => {
            return noted(tx, record, row, format!("{} accepted your messages", env.name(account)));
        }
        Content::History(share) => return history_rows::told(tx, env, record, row, account, *share),
        Content::Unknown { kind } => (
            EntryKind::Unknown,
            format!("a message of kind {kind:?}, which this version cannot show: update fastchat"),
        ),
        _ => (EntryKind::Unknown, "a message that this version cannot show: update fastchat".to_owned()),
    };
    let entry = entry(record, row, kind, Some((account, said.device)), text);
    let entry = Entry { epoch: said.epoch, extra, ..entry };
    tx.add_entry(record.id, &entry)?;
    record.unread += u64::from(!own);
    Ok(Step::Done(vec![Effect::Entry(Box::new(entry))]))
}

/// When a message goes: counted from the server's time or this device's, whichever is earlier, so that a
/// server that says a later time keeps nothing for longer.
fn expires_at(expires_s: Option<u32>, at_ms: u64) -> Option<u64> {
    expires_s.map(|seconds| at_ms.min(now_ms()).saturating_add(u64::from(seconds) * 1000))
}

/// Those of these accounts who are in the group; between two, nobody has to be named.
pub(super) fn members_among(record: &Conversation, accounts: Vec<AccountId>) -> Vec<AccountId> {
    let Some(group) = record.group() else { return Vec::new() };
    let unique: BTreeSet<AccountId> = accounts.into_iter().collect();
    unique.into_iter().filter(|account| group.roles.contains_key(account)).collect()
}

/// What a commit did, in words; empty for new keys.
fn said(env: &Env<'_>, record: &Conversation, summary: &CommitSummary) -> String {
    let none = BTreeSet::new();
    let left = record.group().map_or(&none, |group| &group.left);
    env.words(left, |words| words.of_commit(summary).join("; "))
}

fn changed(
    tx: &Tx<'_>,
    env: &Env<'_>,
    record: &mut Conversation,
    row: &LogRow,
    summary: &CommitSummary,
) -> Result<Step, StoreError> {
    let text = said(env, record, summary);
    record.refused = false;
    group_rows::follow_commit(tx, record, row, summary)?;
    let mut effects = vec![Effect::NewEpoch, Effect::Audit];
    if !text.is_empty()
        && let Step::Done(more) = noted(tx, record, row, text)?
    {
        effects.extend(more);
    }
    Ok(Step::Done(effects))
}

fn own_commit(
    tx: &Tx<'_>,
    env: &Env<'_>,
    record: &mut Conversation,
    row: &LogRow,
    summary: &CommitSummary,
) -> Result<Step, StoreError> {
    let commit = record.commit.take();
    record.updated_ms = now_ms();
    record.sealed = 0;
    record.refused = false;
    let text = if summary.external { String::new() } else { said(env, record, summary) };
    group_rows::follow_commit(tx, record, row, summary)?;
    let mut effects = vec![Effect::OwnCommit, Effect::NewEpoch, Effect::Audit];
    if !(summary.added.is_empty() || summary.external)
        && let Some(group) = record.group_mut()
    {
        // Whoever lets people in says the name.
        group.profile_due = true;
    }
    if !text.is_empty()
        && let Step::Done(more) = noted(tx, record, row, text)?
    {
        effects.extend(more);
    }
    if summary.external
        && let (place, Some(group)) = ((record.incarnation, row.seq), record.group_mut())
    {
        group.joined.get_or_insert(place);
    }
    if summary.external || matches!(record.standing, Standing::Rejoining(_)) {
        (record.standing, record.gone) = (Standing::Ready, false);
        let why = match commit.map(|commit| commit.reason) {
            Some(CommitReason::Rejoin(why)) => why,
            _ => "its keys were lost".to_owned(),
        };
        let text = match why == NEW_DEVICE {
            true => "this device joined".to_owned(),
            false => format!(
                "this device joined anew: {why}. What it could not read before is marked above and lost to it."
            ),
        };
        if let Step::Done(more) = noted(tx, record, row, text)? {
            effects.extend(more);
        }
    }
    Ok(Step::Done(effects))
}

/// Whether a change is refused for good: no newer manifest would make it right.
fn breaks_a_rule(error: &OpenError) -> bool {
    let fault = matches!(error, OpenError::Policy(_) | OpenError::Change(_) | OpenError::Data(_));
    fault && error.wants_manifest().is_none()
}

/// Marks the conversation for an external commit, unless there was one just now.
pub(super) fn rejoin(record: &mut Conversation, why: &str) {
    let recently = now_ms().saturating_sub(record.rejoined_ms) < REJOIN_INTERVAL_MS;
    if record.standing == Standing::Ready && !recently && !record.refused {
        record.standing = Standing::Rejoining(why.to_owned());
    }
}

pub(super) fn noted(
    tx: &Tx<'_>,
    record: &Conversation,
    row: &LogRow,
    text: String,
) -> Result<Step, StoreError> {
    let entry = entry(record, row, EntryKind::Notice, None, text);
    tx.add_entry(record.id, &entry)?;
    Ok(Step::Done(vec![Effect::Entry(Box::new(entry))]))
}

/// The row stays, with the reason, and the conversation shows that there was something.
pub(super) fn quarantine(
    tx: &Tx<'_>,
    record: &mut Conversation,
    row: &LogRow,
    reason: String,
) -> Result<Step, StoreError> {
    tracing::warn!(conversation = %record.id, seq = %row.seq, reason, "a row cannot be read");
    tx.quarantine(&quarantined(record, row, reason.clone()))?;
    let entry = entry(record, row, EntryKind::Quarantine, None, reason);
    tx.add_entry(record.id, &entry)?;
    record.cursor = row.seq;
    Ok(Step::Done(vec![Effect::Entry(Box::new(entry))]))
}

fn entry(
    record: &Conversation,
    row: &LogRow,
    kind: EntryKind,
    from: Option<(AccountId, fastchat_protocol::DeviceId)>,
    text: String,
) -> Entry {
    let incarnation = record.incarnation;
    let (counter, extra) = (from.map(|_| row.counter), Extra::default());
    Entry {
        incarnation,
        seq: row.seq,
        part: 0,
        kind,
        from,
        text,
        at_ms: row.at_ms,
        epoch: None,
        counter,
        extra,
    }
}

/// The reason as a person understands it.
fn unreadable(error: &OpenError) -> String {
    match error {
        OpenError::NotJoined => "sent while this device had no keys for the conversation".to_owned(),
        OpenError::Removed => "sent after this device was removed".to_owned(),
        other => other.to_string(),
    }
}

//! Messages about messages: edits, deletions and reactions. What they may do is decided here, purely; the
//! account that asks is the one of the encryption, and so is the one that it is held against.
//!
//! What breaks a rule is kept as a row that cannot be read, with the reason, and changes nothing. What
//! comes too late (the message was taken back, or says something newer) changes nothing, and is no fault.

use super::{
    history_rows,
    row::{Effect, Env, Step, noted, quarantine},
};
use crate::store::{Changed, Conversation, Entry, EntryKind, Extra, StoreError, Tx};
use fastchat_e2ee::{MessageRef, Text};
use fastchat_protocol::{AccountId, Role, server::LogRow};

/// What is wanted of an earlier message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deed {
    /// It says this from now on.
    Edit(Text),
    /// It is taken back.
    Delete,
    /// What somebody thinks of it; `None` takes that back.
    React(Option<String>),
}

/// Why nothing comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Only its author may edit it.
    NotTheAuthor,
    /// Only its author, and of a group an admin or the owner, may take it back.
    MayNotDelete,
    /// It is of a kind that has no text.
    NoText,
    /// It is nothing that somebody has said.
    NoMessage,
    /// It was taken back.
    Deleted,
    /// It says something newer.
    Older,
}

/// Who asks, and by which row.
#[derive(Debug, Clone, Copy)]
pub(super) struct By {
    /// Who did it.
    pub(super) changed: Changed,
    /// An admin, or the owner, of this group.
    pub(super) moderates: bool,
}

impl By {
    /// An account, with the role that it has in a conversation now.
    pub(super) fn new(record: &Conversation, account: AccountId, row: &LogRow) -> Self {
        let (incarnation, seq, at_ms) = (record.incarnation, row.seq, row.at_ms);
        Self {
            changed: Changed { by: account, incarnation, seq, at_ms },
            moderates: moderates(record, account),
        }
    }
}

/// Whether an account may take back what others have said.
pub(super) fn moderates(record: &Conversation, account: AccountId) -> bool {
    let role = record.group().and_then(|group| group.roles.get(&account));
    role.is_some_and(|role| *role >= Role::Admin)
}

/// What becomes of a message.
pub(super) fn judge(original: &Entry, deed: &Deed, by: &By) -> Result<Entry, Why> {
    let Some((author, _)) = original.from.filter(|_| original.reference().is_some()) else {
        return Err(Why::NoMessage);
    };
    let own = author == by.changed.by;
    // A wrong wish is wrong also when it comes too late: all devices say the same of it.
    match deed {
        Deed::Edit(_) if !own => return Err(Why::NotTheAuthor),
        Deed::Delete if !own && !by.moderates => return Err(Why::MayNotDelete),
        _ if original.extra.deleted.is_some() => return Err(Why::Deleted),
        _ => {}
    }
    match deed {
        Deed::Edit(text) => edited(original, text, by.changed),
        Deed::Delete => Ok(deleted(original, by.changed)),
        Deed::React(emoji) => Ok(reacted(original, emoji.as_deref(), by.changed.by)),
    }
}

fn edited(original: &Entry, text: &Text, by: Changed) -> Result<Entry, Why> {
    if !matches!(original.kind, EntryKind::Text | EntryKind::File) {
        return Err(Why::NoText);
    }
    let later = |last: Changed| (last.incarnation, last.seq) > (by.incarnation, by.seq);
    if original.extra.edited.is_some_and(later) {
        return Err(Why::Older);
    }
    let mut entry = original.clone();
    entry.text.clone_from(&text.text);
    entry.extra.mentions.clone_from(&text.mentions);
    entry.extra.edited = Some(by);
    if let Some(file) = &mut entry.extra.file {
        file.caption = (!text.text.is_empty()).then(|| text.text.clone());
    }
    Ok(entry)
}

/// Nothing of it stays but that it was there, by whose word, and until when.
fn deleted(original: &Entry, by: Changed) -> Entry {
    let Extra { expires_at_ms, shared_by, .. } = original.extra;
    let extra = Extra { deleted: Some(by), expires_at_ms, shared_by, ..Extra::default() };
    Entry { text: String::new(), extra, ..original.clone() }
}

fn reacted(original: &Entry, emoji: Option<&str>, by: AccountId) -> Entry {
    let mut entry = original.clone();
    match emoji {
        Some(emoji) => drop(entry.extra.reactions.insert(by, emoji.to_owned())),
        None => drop(entry.extra.reactions.remove(&by)),
    }
    entry
}

/// A row that wants something of an earlier message.
pub(super) fn apply(
    tx: &Tx<'_>,
    env: &Env<'_>,
    record: &mut Conversation,
    row: &LogRow,
    by: AccountId,
    target: MessageRef,
    deed: &Deed,
) -> Result<Step, StoreError> {
    let Some(original) = tx.find_message(record.id, target)? else {
        history_rows::remember(tx, record, target, deed, By::new(record, by, row))?;
        return missing(tx, env, record, row, by, deed);
    };
    match judge(&original, deed, &By::new(record, by, row)) {
        Ok(entry) => {
            tx.update_entry(record.id, &entry)?;
            let mut effects = vec![Effect::Changed(Box::new(entry))];
            if let (Deed::Delete, Some(blob)) = (deed, own_blob(env, &original)) {
                tx.add_unwanted(record.id, blob)?;
                effects.push(Effect::Unwanted(record.id, blob));
            }
            Ok(Step::Done(effects))
        }
        Err(Why::Deleted | Why::Older) => Ok(Step::Done(Vec::new())),
        Err(why) => {
            let author = original.from.map(|(account, _)| env.name(account)).unwrap_or_default();
            quarantine(tx, record, row, refusal(&env.name(by), &author, original.seq.0, why))
        }
    }
}

/// The blob of a file that this very device has sent: nobody else asks the server to drop it.
fn own_blob(env: &Env<'_>, original: &Entry) -> Option<[u8; 16]> {
    let own = original.from.is_some_and(|(_, device)| device == env.me.id());
    original.extra.file.as_ref().filter(|_| own).map(|file| file.blob)
}

/// How long messages between two are kept from now on. Of a group its state says it.
pub(super) fn timer(
    tx: &Tx<'_>,
    env: &Env<'_>,
    record: &mut Conversation,
    row: &LogRow,
    by: AccountId,
    seconds: u32,
) -> Result<Step, StoreError> {
    if record.group().is_some() {
        let who = env.name(by);
        let reason =
            format!("{who} wanted to set the group's timer by a message, which is not how it is set");
        return quarantine(tx, record, row, reason);
    }
    let before = std::mem::replace(&mut record.timer_s, seconds);
    // One's own is in force since it was sealed, and is said all the same.
    if before == seconds && by != env.me.account() {
        return Ok(Step::Done(Vec::new()));
    }
    let text = env.words(&Default::default(), |words| words.of_timer(by, seconds));
    noted(tx, record, row, text)
}

/// The message is not on this device: it is from before this device came, or is gone.
fn missing(
    tx: &Tx<'_>,
    env: &Env<'_>,
    record: &Conversation,
    row: &LogRow,
    by: AccountId,
    deed: &Deed,
) -> Result<Step, StoreError> {
    let who = env.words(&Default::default(), |words| words.who(by));
    let text = match deed {
        Deed::React(_) => return Ok(Step::Done(Vec::new())),
        Deed::Edit(_) => format!("{who} edited a message that is not on this device"),
        Deed::Delete => format!("{who} deleted a message that is not on this device"),
    };
    noted(tx, record, row, text)
}

/// Why a row of somebody was not obeyed, for a person.
fn refusal(by: &str, author: &str, seq: u64, why: Why) -> String {
    match why {
        Why::NotTheAuthor => {
            format!("{by} wanted to edit message {seq}, which {author} has written: refused")
        }
        Why::MayNotDelete => {
            format!("{by} wanted to delete message {seq}, which {author} has written: refused")
        }
        _ => format!("{by} wanted to edit message {seq}, which has no text: refused"),
    }
}

/// Names in a text that begin with `@`, for those that `find` knows; each once, `limit` at most.
pub(super) fn mentions(text: &str, find: impl Fn(&str) -> Option<AccountId>, limit: usize) -> Vec<AccountId> {
    let of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    let mut found = Vec::new();
    for (at, _) in text.match_indices('@') {
        // `me@example.org` is an address.
        if text[..at].ends_with(|c: char| c.is_alphanumeric()) {
            continue;
        }
        let rest = &text[at + 1..];
        let end = rest.find(|c| !of_name(c)).unwrap_or(rest.len());
        // A name does not end with the full stop of a sentence.
        let name = rest[..end].trim_end_matches(['.', '-', '_']);
        if let Some(account) = find(name).filter(|account| !found.contains(account)) {
            found.push(account);
        }
        if found.len() == limit {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests;

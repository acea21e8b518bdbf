//! What a device hands on, in parts of bounded size: people first, then conversations, then history.
//!
//! The same form serves a device that is linked and the history backup. Each part can be taken in by
//! itself and twice; what is here already is never replaced.

use super::{
    PART_BYTES,
    people::{self, Person},
};
use crate::store::{Contact, Conversation, Entry, Standing, StoreError, Tx};
use fastchat_protocol::{AccountId, ConversationId, Seq, codec};
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

const FORM: u8 = 1;
/// Entries that are read from the store at a time.
const PAGE: usize = 256;

/// How much of the history is handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    /// Nothing.
    None,
    /// So many of the last entries of each conversation.
    Last(u32),
    /// Everything.
    All,
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" | "0" => Ok(Self::None),
            "all" => Ok(Self::All),
            number => number
                .parse()
                .map(Self::Last)
                .map_err(|_| format!("{text:?} is not none, all, or how many messages of each conversation")),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Last(number) => number.fmt(f),
            Self::All => f.write_str("all"),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Part {
    #[serde(rename = "v")]
    form: u8,
    #[serde(rename = "p", default)]
    people: Vec<Person>,
    #[serde(rename = "c", default)]
    heads: Vec<Conversation>,
    #[serde(rename = "e", default)]
    entries: Vec<(ConversationId, Entry)>,
}

/// Why a part cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// See the source.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Not the expected form.
    #[error("what the other device has handed over cannot be read: {0}")]
    Decode(#[from] codec::DecodeError),
    /// A form of a later version.
    #[error("what was handed over has form {0}, which this version does not know: update fastchat")]
    Form(u8),
}

/// Entries of one conversation that are still to be handed on.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Range {
    conversation: ConversationId,
    after: (Seq, u32),
    /// The incarnation in which `after` is meant.
    #[serde(default)]
    after_in: u32,
    upto: Seq,
    /// The incarnation in which `upto` is meant.
    #[serde(default)]
    upto_in: u32,
}

/// Which history is handed on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan(Vec<Range>);

impl Plan {
    /// What is here now, as much of it as `share` says.
    pub fn of(tx: &Tx<'_>, share: Share) -> Result<Self, StoreError> {
        let mut ranges = Vec::new();
        for Conversation { id, cursor, incarnation, .. } in tx.conversations()? {
            let (after_in, seq, part) = match share {
                Share::None => break,
                Share::All => (0, Seq(0), 0),
                Share::Last(number) => tx.place_before_last(id, number)?.unwrap_or((0, Seq(0), 0)),
            };
            let (upto, upto_in) = (cursor, incarnation);
            ranges.push(Range { conversation: id, after: (seq, part), after_in, upto, upto_in });
        }
        Ok(Self(ranges))
    }
}

/// Makes the parts, one at a time, of what was here when it was planned.
pub struct Exporter {
    people: VecDeque<Person>,
    heads: VecDeque<Conversation>,
    ranges: VecDeque<Range>,
    page: VecDeque<(ConversationId, Entry)>,
}

impl Exporter {
    /// History alone.
    pub fn new(plan: Plan) -> Self {
        Self { people: VecDeque::new(), heads: VecDeque::new(), ranges: plan.0.into(), page: VecDeque::new() }
    }

    /// History, and with `people` contacts and conversations before it.
    pub fn plan(tx: &Tx<'_>, people: bool, share: Share) -> Result<Self, StoreError> {
        let mut exporter = Self::new(Plan::of(tx, share)?);
        if people {
            exporter.people = tx.contacts()?.iter().map(Person::of).collect();
            exporter.heads = tx.conversations()?.into_iter().filter_map(head).collect();
        }
        Ok(exporter)
    }

    /// The next part and whether it is the last one. There is always at least one; calling again
    /// after the last one gives an empty part.
    pub fn next_part(&mut self, tx: &Tx<'_>) -> Result<(Vec<u8>, bool), StoreError> {
        let mut part = Part { form: FORM, people: Vec::new(), heads: Vec::new(), entries: Vec::new() };
        let mut room = PART_BYTES;
        take(&mut self.people, &mut part.people, &mut room);
        take(&mut self.heads, &mut part.heads, &mut room);
        while room > 0 && self.fill(tx)? {
            take(&mut self.page, &mut part.entries, &mut room);
        }
        let last = self.people.is_empty() && self.heads.is_empty() && !self.fill(tx)?;
        Ok((codec::encode(&part), last))
    }

    /// What is still to be handed on. After a restart it goes on from there: what was handed on may have
    /// changed since, so it cannot be counted again.
    pub fn rest(&self) -> Plan {
        let mut ranges = self.ranges.clone();
        if let (Some(range), Some((_, next))) = (ranges.front_mut(), self.page.front()) {
            range.after_in = next.incarnation;
            range.after = match next.part.checked_sub(1) {
                Some(part) => (next.seq, part),
                None => (Seq(next.seq.0.saturating_sub(1)), u32::MAX),
            };
        }
        Plan(ranges.into())
    }

    /// Reads on if nothing is at hand; false at the end.
    fn fill(&mut self, tx: &Tx<'_>) -> Result<bool, StoreError> {
        while self.page.is_empty() {
            let Some(range) = self.ranges.front_mut() else { return Ok(false) };
            let after = (range.after_in, range.after.0, range.after.1);
            let upto = (range.upto_in, range.upto);
            let entries = tx.entries_between(range.conversation, after, upto, PAGE)?;
            match entries.last() {
                Some(last) => (range.after_in, range.after) = (last.incarnation, (last.seq, last.part)),
                None => drop(self.ranges.pop_front()),
            }
            if let Some(id) = self.ranges.front().map(|range| range.conversation) {
                let kept = entries.into_iter().filter(|entry| !is_over(entry));
                self.page.extend(kept.map(|entry| (id, entry)));
            }
        }
        Ok(true)
    }
}

/// Moves what has room. An item that alone is larger than the room left still goes, as the last one.
fn take<T: Serialize>(from: &mut VecDeque<T>, to: &mut Vec<T>, room: &mut usize) {
    while *room > 0 {
        let Some(item) = from.pop_front() else { return };
        *room = room.saturating_sub(codec::encode(&item).len());
        to.push(item);
    }
}

/// A conversation as another device needs to know it: what it is, not how this device's keys stand.
pub(crate) fn head(mut conversation: Conversation) -> Option<Conversation> {
    if matches!(conversation.standing, Standing::Founding(_)) {
        return None;
    }
    if conversation.standing != Standing::Removed {
        conversation.standing = Standing::Rejoining(super::NEW_DEVICE.to_owned());
    }
    conversation.commit = None;
    conversation.changes = Vec::new();
    Some(conversation)
}

/// What a part has brought, for what is kept in memory.
#[derive(Debug, Default)]
pub struct Imported {
    /// Contacts that are new, or whose trust is another now.
    pub contacts: Vec<Contact>,
    /// Conversations that this account is out of, whose history can be read here from now on.
    pub records: Vec<Conversation>,
    /// How many entries were new.
    pub entries: u64,
}

/// Takes a part in. Nothing that is here already is replaced.
pub fn import(tx: &Tx<'_>, own: AccountId, bytes: &[u8]) -> Result<Imported, ArchiveError> {
    let Part { form, people, heads, entries } = codec::decode_local(bytes)?;
    if form != FORM {
        return Err(ArchiveError::Form(form));
    }
    let mut imported = Imported { contacts: people::import(tx, own, people)?, ..Imported::default() };
    let known = tx.conversations()?;
    for head in heads {
        if known.iter().any(|conversation| conversation.id == head.id) {
            continue;
        }
        match head.standing {
            Standing::Removed => {
                tx.put_conversation(&head)?;
                imported.records.push(head);
            }
            // The server says whether this account is still in it; then this is remembered.
            _ => tx.set_setting(&head_name(head.id), &head)?,
        }
    }
    for (conversation, entry) in entries.into_iter().filter(|(_, entry)| !is_over(entry)) {
        imported.entries += u64::from(tx.add_entry_if_new(conversation, &entry)?);
    }
    Ok(imported)
}

/// Whether an entry's time is over: it goes nowhere, and is nowhere taken in.
fn is_over(entry: &Entry) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    entry.extra.expires_at_ms.is_some_and(|at_ms| at_ms <= now)
}

/// Whether a part holds history: people and conversations are in the parts before it.
pub(crate) fn holds_history(bytes: &[u8]) -> Result<bool, codec::DecodeError> {
    codec::decode_local::<Part>(bytes).map(|part| !part.entries.is_empty())
}

/// What another device has told of a conversation that this one meets now.
pub(crate) fn inherit(tx: &Tx<'_>, record: &mut Conversation) -> Result<(), StoreError> {
    let Some(head) = tx.setting::<Conversation>(&head_name(record.id))? else { return Ok(()) };
    // Who the server says it is with decides; names and requests are the other device's to tell.
    if head.peer() == record.peer() {
        record.party = head.party;
        record.request = head.request;
        record.timer_s = head.timer_s;
    }
    Ok(())
}

fn head_name(id: ConversationId) -> String {
    format!("head/{id}")
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("ranges", &self.ranges.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! History for those who came into a group: which messages, in what form, and what is refused of it.
//!
//! - The form is its own and says no more than what a member could read: no notices, nothing that was
//!   taken back, nothing that itself came from somebody else's memory.
//! - [`unpack`] reads what somebody else has made. Numbers are counted while they are read, and one wrong
//!   entry refuses the whole. What passes is the sharer's word, and is marked as that.
//!
//! Invariant: nothing that is handed over stands at or behind the row that let this device in: that part
//! of the log is opened by its own keys alone.

use crate::store::{Changed, Entry, EntryKind, Extra, Place, StoreError, Tx};
use fastchat_e2ee::{
    FileInfo, MessageRef, Zeroizing,
    content::{MAX_MENTIONS, MAX_REACTION, MAX_SHARED, MAX_SHARED_BYTES, MAX_TIMER},
};
use fastchat_protocol::{AccountId, ConversationId, Counter, DeviceId, Seq, codec};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Visitor},
};
use std::{collections::BTreeSet, fmt, marker::PhantomData};

const FORM: u8 = 1;
/// Limit: reactions to a message that are handed over.
const MAX_REACTIONS: usize = 256;
/// Limit: bytes of a text, as of one that is sent.
const MAX_TEXT: usize = 60 * 1024;
/// Entries that are read from the store at a time, and at most.
const PAGE: usize = 256;
const MAX_READ: usize = 20_000;

/// Why what was handed over is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SharedError {
    /// Cut off, too much of something, or never an archive of messages.
    #[error("it cannot be read: {0}")]
    Decode(#[from] codec::DecodeError),
    /// A form of a later version.
    #[error("it has form {0}, which this version does not know: update fastchat")]
    Form(u8),
    /// Made for somewhere else.
    #[error("it is of another conversation")]
    Elsewhere,
    /// More than the message that came with it says.
    #[error("it has {0} messages, more than was said")]
    Count(usize),
    /// The order of the log.
    #[error("message {0} is not behind the one before it")]
    Order(Seq),
    /// This device reads that itself.
    #[error("message {0} is said to be from after this device came")]
    Later(Seq),
    /// Two entries are called the same.
    #[error("message {0} has the name of another one")]
    Twice(Seq),
    /// Longer than a message can be.
    #[error("message {0} is larger than a message can be")]
    Size(Seq),
    /// It was changed by somebody else than its author, or by a row that is not there yet.
    #[error("message {0} has an edit that cannot be")]
    Edit(Seq),
    /// Kept for longer than a timer can say.
    #[error("message {0} is kept for longer than a timer can say")]
    Expiry(Seq),
}

/// What an archive is held against.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Where.
    pub conversation: ConversationId,
    /// The row that let this device in.
    pub joined: (u32, Seq),
    /// By whom, and by which row.
    pub row: Changed,
    /// How many messages were announced.
    pub count: u32,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

/// An archive that can be sealed.
#[derive(Clone)]
pub struct Packed {
    /// It.
    pub bytes: Zeroizing<Vec<u8>>,
    /// How many messages are in it.
    pub count: u32,
}

#[derive(Serialize, Deserialize)]
struct Archive {
    v: u8,
    c: ConversationId,
    #[serde(deserialize_with = "few::<_, _, MESSAGES>")]
    e: Vec<Line>,
}

const MESSAGES: usize = MAX_SHARED as usize;

/// A message.
#[derive(Serialize, Deserialize)]
struct Line {
    /// Incarnation and seq.
    i: u32,
    q: Seq,
    /// Account, device and count of its author.
    a: AccountId,
    d: DeviceId,
    n: Counter,
    /// When, by the server's clock.
    w: u64,
    t: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    r: Option<MessageRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "few::<_, _, MAX_MENTIONS>")]
    m: Vec<AccountId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    f: Option<Box<FileInfo>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e: Option<Changed>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "few::<_, _, MAX_REACTIONS>")]
    l: Vec<(AccountId, String)>,
    /// When it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<u64>,
}

/// The last `count` messages before a place that may be handed over, oldest first.
pub fn select(
    tx: &Tx<'_>,
    conversation: ConversationId,
    before: (u32, Seq),
    count: u32,
    (own, now_ms): (AccountId, u64),
) -> Result<Vec<Entry>, StoreError> {
    let (mut place, mut read): (Place, _) = ((before.0, before.1, 0), 0);
    let mut found = Vec::new();
    while found.len() < count as usize && read < MAX_READ {
        let page = tx.entries_before(conversation, place, PAGE)?;
        let Some(first) = page.first() else { break };
        (place, read) = (first.place(), read + page.len());
        let wanted = count as usize - found.len();
        found.extend(page.into_iter().rev().filter(|entry| may_go(entry, own, now_ms)).take(wanted));
    }
    found.reverse();
    Ok(found)
}

/// Texts and files that are here by the encryption, or by an archive of one's own.
fn may_go(entry: &Entry, own: AccountId, now_ms: u64) -> bool {
    let extra = &entry.extra;
    let said = match entry.kind {
        EntryKind::Text => extra.file.is_none(),
        EntryKind::File => extra.file.is_some(),
        _ => false,
    };
    said && entry.part == 0
        && entry.reference().is_some()
        && entry.text.len() <= MAX_TEXT
        && extra.deleted.is_none()
        && extra.shared_by.is_none_or(|by| by == own)
        && extra.expires_at_ms.is_none_or(|at_ms| at_ms > now_ms)
}

/// As many of these messages as there is room for, the last ones. `None`: not one.
pub fn pack(conversation: ConversationId, entries: Vec<Entry>) -> Option<Packed> {
    let (mut lines, mut room) = (Vec::new(), MAX_SHARED_BYTES as usize - 64);
    for line in entries.into_iter().rev().filter_map(Line::of).take(MESSAGES) {
        let Some(left) = room.checked_sub(codec::encode(&line).len()) else { break };
        room = left;
        lines.push(line);
    }
    lines.reverse();
    let count = u32::try_from(lines.len()).ok().filter(|count| *count > 0)?;
    let bytes = Zeroizing::new(codec::encode(&Archive { v: FORM, c: conversation, e: lines }));
    Some(Packed { bytes, count })
}

/// The messages of an archive that somebody else has made, oldest first.
pub fn unpack(bytes: &[u8], bounds: &Bounds) -> Result<Vec<Entry>, SharedError> {
    /// What all forms have.
    #[derive(Deserialize)]
    struct Head {
        v: u8,
        c: ConversationId,
    }
    let Head { v, c } = codec::decode(bytes)?;
    if v != FORM {
        return Err(SharedError::Form(v));
    }
    if c != bounds.conversation {
        return Err(SharedError::Elsewhere);
    }
    let Archive { e: lines, .. } = codec::decode(bytes)?;
    if lines.len() > bounds.count as usize {
        return Err(SharedError::Count(lines.len()));
    }
    let (mut last, mut names, mut entries) = ((0, Seq(0)), BTreeSet::new(), Vec::new());
    for line in lines {
        if (line.i, line.q) <= last {
            return Err(SharedError::Order(line.q));
        }
        last = (line.i, line.q);
        if !names.insert(MessageRef { device: line.d, counter: line.n }) {
            return Err(SharedError::Twice(line.q));
        }
        line.check(bounds)?;
        let entry = line.into_entry(bounds);
        if entry.extra.expires_at_ms.is_none_or(|at_ms| at_ms > bounds.now_ms) {
            entries.push(entry);
        }
    }
    Ok(entries)
}

impl Line {
    fn of(entry: Entry) -> Option<Self> {
        let MessageRef { device: d, counter: n } = entry.reference()?;
        let Entry { incarnation: i, seq: q, from, text: t, at_ms: w, extra, .. } = entry;
        let Extra { reply: r, mut mentions, file: f, edited: e, reactions, expires_at_ms: x, .. } = extra;
        mentions.truncate(MAX_MENTIONS);
        let l = reactions.into_iter().take(MAX_REACTIONS).collect();
        Some(Self { i, q, a: from?.0, d, n, w, t, r, m: mentions, f, e, l, x })
    }

    fn check(&self, bounds: &Bounds) -> Result<(), SharedError> {
        let (at, row) = (self.q, bounds.row);
        if (self.i, self.q) >= bounds.joined {
            return Err(SharedError::Later(at));
        }
        let reaction = |(_, emoji): &(AccountId, String)| emoji.is_empty() || emoji.len() > MAX_REACTION;
        let file = self.f.as_ref().is_some_and(|file| file.check().is_err());
        if self.t.len() > MAX_TEXT || file || self.l.iter().any(reaction) {
            return Err(SharedError::Size(at));
        }
        // An edit of a row to come would keep all real ones away.
        let edit = |e: &Changed| {
            let place = (e.incarnation, e.seq);
            e.by == self.a && place > (self.i, self.q) && place < (row.incarnation, row.seq)
        };
        if !self.e.as_ref().is_none_or(edit) {
            return Err(SharedError::Edit(at));
        }
        let latest = bounds.now_ms.max(row.at_ms).saturating_add(u64::from(MAX_TIMER) * 1000);
        match self.x.is_some_and(|x| x > latest) {
            true => Err(SharedError::Expiry(at)),
            false => Ok(()),
        }
    }

    fn into_entry(self, bounds: &Bounds) -> Entry {
        let Self { i: incarnation, q: seq, a, d, n, w, t: text, r: reply, m: mentions, f: file, e, l, x } =
            self;
        let extra = Extra {
            reply,
            mentions,
            file,
            edited: e,
            reactions: l.into_iter().collect(),
            expires_at_ms: x,
            shared_by: Some(bounds.row.by),
            ..Extra::default()
        };
        let kind = if extra.file.is_some() { EntryKind::File } else { EntryKind::Text };
        // Nothing that was said before is newer than the word of it.
        let at_ms = w.min(bounds.row.at_ms);
        let (from, counter) = (Some((a, d)), Some(n));
        Entry { incarnation, seq, part: 0, kind, from, text, at_ms, epoch: None, counter, extra }
    }
}

/// At most `N` elements, counted before they are kept: a few bytes could say very many.
fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>, const N: usize>(from: D) -> Result<Vec<T>, D::Error> {
    struct Few<T, const N: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Few<T, N> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {N} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = from.next_element()? {
                if all.len() == N {
                    return Err(A::Error::custom(format!("more than {N} elements")));
                }
                all.push(one);
            }
            Ok(all)
        }
    }
    from.deserialize_seq(Few::<T, N>(PhantomData))
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed({} messages, {} bytes)", self.count, self.bytes.len())
    }
}

#[cfg(test)]
mod tests;

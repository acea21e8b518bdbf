//! What is looked for, and finding it.

use super::{BATCH, FILE, Posting, is_findable, sender, words};
use crate::store::{Entry, EntryKind, Result, Tx};
use fastchat_protocol::{AccountId, ConversationId, Seq};
use std::collections::{BTreeSet, HashMap};

/// Limit: entries that one question opens; what is left is said to be.
const MAX_OPENED: usize = 4_000;
/// Limit: waiting entries that one question opens. More wait only until an old profile is indexed.
const MAX_WAITING: usize = 4 * BATCH;
/// Limit: characters before a `*`.
const MIN_PREFIX: usize = 3;
/// Limit: words of a question.
const MAX_WORDS: usize = 32;

/// What must stand in an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// These words, one after the other.
    pub words: Vec<String>,
    /// The last one is only a word's beginning.
    pub prefix: bool,
}

/// What is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// All of these.
    pub clauses: Vec<Clause>,
    /// Sent by this account.
    pub from: Option<AccountId>,
    /// Only files.
    pub files: bool,
    /// Not before, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Not after, in milliseconds since 1970.
    pub until_ms: Option<u64>,
}

/// Why something cannot be looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Too many words would begin so.
    #[error("{0:?} may be the beginning of too many words: at least {MIN_PREFIX} letters before the *")]
    Prefix(String),
    /// See the message.
    #[error("at most {MAX_WORDS} words can be looked for at once")]
    TooMany,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest first.
    pub entries: Vec<(ConversationId, Entry)>,
    /// Older ones may fit, too.
    pub more: bool,
    /// So many entries (at most: about) were not looked at, because the index is still being made.
    pub unindexed: usize,
}

impl Query {
    /// Words, `"words in a row"` and `beginn*`, in this order of things: all must be there.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let mut clauses = Vec::new();
        for (at, quoted) in text.split('"').enumerate() {
            if at % 2 == 1 {
                clauses.extend(clause(quoted)?);
                continue;
            }
            for piece in quoted.split_whitespace() {
                clauses.extend(clause(piece)?);
            }
        }
        match clauses.iter().map(|clause| clause.words.len()).sum::<usize>() > MAX_WORDS {
            true => Err(QueryError::TooMany),
            false => Ok(Self { clauses, ..Self::default() }),
        }
    }

    /// Nothing is asked for that an index could find.
    pub fn is_empty(&self) -> bool {
        self.clauses.is_empty() && self.from.is_none() && !self.files
    }

    /// Whether an entry is one of those that are looked for.
    pub fn fits(&self, entry: &Entry, now_ms: u64) -> bool {
        let gone = entry.extra.expires_at_ms.is_some_and(|at| at <= now_ms) || !is_findable(entry);
        let early = self.since_ms.is_some_and(|since| entry.at_ms < since);
        let late = self.until_ms.is_some_and(|until| entry.at_ms > until);
        let other = self.from.is_some_and(|from| entry.from.is_none_or(|(account, _)| account != from));
        if gone || early || late || other || (self.files && entry.kind != EntryKind::File) {
            return false;
        }
        let text = words::words(&entry.text);
        let name = entry.extra.file.as_ref().map(|file| words::words(&file.name)).unwrap_or_default();
        self.clauses.iter().all(|clause| clause.is_in(&text) || clause.is_in(&name))
    }
}

impl Clause {
    /// Whether these words hold it.
    pub fn is_in(&self, text: &[String]) -> bool {
        text.windows(self.words.len()).any(|window| self.is_at(window))
    }

    /// Whether it stands at the beginning of these words.
    pub fn is_at(&self, text: &[String]) -> bool {
        let Some((last, before)) = self.words.split_last() else { return false };
        let end = text.get(before.len()).is_some_and(|word| match self.prefix {
            true => word.starts_with(last.as_str()),
            false => word == last,
        });
        end && text.starts_with(before)
    }
}

fn clause(piece: &str) -> Result<Option<Clause>, QueryError> {
    let piece = piece.trim();
    let prefix = piece.ends_with('*');
    let words = words::words(piece);
    match words.last() {
        Some(last) if prefix && last.chars().count() < MIN_PREFIX => {
            Err(QueryError::Prefix(piece.trim_end_matches('*').to_owned()))
        }
        Some(_) => Ok(Some(Clause { words, prefix })),
        None => Ok(None),
    }
}

impl Tx<'_> {
    /// Looks through these conversations; `limit` entries at most.
    pub fn search(
        &self,
        conversations: &[ConversationId],
        query: &Query,
        limit: usize,
        now_ms: u64,
    ) -> Result<Found> {
        let mut numbers = HashMap::new();
        let mut keys = HashMap::new();
        for id in conversations {
            let key = self.index("conversation", id.as_bytes());
            keys.insert(key, *id);
            if let Some(number) = self.conversation_number(&key)? {
                numbers.insert(number, *id);
            }
        }
        let mut found = Found::default();
        self.search_waiting_ones(&keys, query, now_ms, &mut found)?;
        let mut opened = 0;
        let mut fitting = 0;
        // From the newest on.
        for posting in self.candidates(query)?.into_iter().rev() {
            let Some(id) = numbers.get(&posting.conversation) else { continue };
            if fitting > limit || opened == MAX_OPENED {
                found.more = true;
                break;
            }
            opened += 1;
            let place = (posting.incarnation, Seq(posting.seq), posting.part);
            if let Some(entry) = self.entry_at(*id, place)?.filter(|entry| query.fits(entry, now_ms)) {
                found.entries.push((*id, entry));
                fitting += 1;
            }
        }
        found.entries.sort_by_key(|(id, entry)| {
            (std::cmp::Reverse(entry.at_ms), *id, std::cmp::Reverse(entry.place()))
        });
        found.more |= found.entries.len() > limit;
        found.entries.truncate(limit);
        Ok(found)
    }

    /// Entries that wait for the index are opened one by one.
    fn search_waiting_ones(
        &self,
        keys: &HashMap<[u8; 32], ConversationId>,
        query: &Query,
        now_ms: u64,
        found: &mut Found,
    ) -> Result<()> {
        for (key, place) in self.waiting(MAX_WAITING)? {
            let Some(id) = keys.get(&key) else { continue };
            if let Some(entry) = self.entry_of(&key, place)?.filter(|entry| query.fits(entry, now_ms)) {
                found.entries.push((*id, entry));
            }
        }
        found.unindexed = self.search_waiting(usize::MAX >> 1)?.saturating_sub(MAX_WAITING);
        Ok(())
    }

    /// Postings that all words of the question have, sorted by time.
    fn candidates(&self, query: &Query) -> Result<Vec<Posting>> {
        let low = Posting::from(query.since_ms.unwrap_or(0) / 1000);
        let high = Posting::upto(query.until_ms.map_or(u64::MAX, |until| until / 1000));
        let exact = query.clauses.iter().flat_map(|clause| {
            let whole = clause.words.len() - usize::from(clause.prefix);
            clause.words[..whole].iter().cloned()
        });
        let special = query.from.map(sender).into_iter().chain(query.files.then(|| FILE.to_owned()));
        let exact: BTreeSet<String> = exact.chain(special).collect();
        let mut common: Option<Vec<Posting>> = None;
        for word in &exact {
            let postings = self.postings((word, low), (word, high), false)?;
            common = Some(intersection(common, postings));
        }
        for clause in query.clauses.iter().filter(|clause| clause.prefix) {
            let Some(beginning) = clause.words.last() else { continue };
            // No word is greater than its beginning and the greatest character.
            let end = format!("{beginning}\u{10ffff}");
            let all = (beginning.as_str(), Posting::from(0), end.as_str(), Posting::upto(u64::MAX));
            let mut postings = self.postings((all.0, all.1), (all.2, all.3), true)?;
            postings.retain(|posting| *posting >= low && *posting <= high);
            common = Some(intersection(common, postings));
        }
        Ok(common.unwrap_or_default())
    }
}

/// What is in both; both are sorted.
fn intersection(common: Option<Vec<Posting>>, mut other: Vec<Posting>) -> Vec<Posting> {
    let Some(common) = common else { return other };
    let mut at = 0;
    other.retain(|posting| {
        while common.get(at).is_some_and(|held| held < posting) {
            at += 1;
        }
        common.get(at) == Some(posting)
    });
    other
}

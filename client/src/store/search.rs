//! Full text of the history: an index of sealed blocks (docs/decisions/0018-search.md).
//!
//! - An entry that is stored waits in `search_waiting`, in the transaction that stores it. Whoever searches
//!   looks at those by themselves; [`Tx::index_waiting`] takes them into a segment, [`FAN`] segments of a
//!   level become one of the next.
//! - A segment is sorted postings (word, time, place), cut into sealed blocks, and a sealed list of what
//!   each block begins with. A word is found by opening that list and the blocks that may hold it.
//! - What changes or goes is taken out of the blocks in the same transaction: nothing of a message that is
//!   gone stays here, not even sealed.
//!
//! Invariant: an entry with words either waits, or has exactly its words' postings in one segment.
//!
//! The file shows how many segments there are, and the number and sizes of their blocks.

mod blocks;
mod query;
#[cfg(test)]
mod tests;
pub mod words;

use super::{Entry, EntryKind, Place, Result, StoreError, Tx, history::number};
use blocks::{Builder, Header, Posting, Run};
use fastchat_protocol::{AccountId, Seq};
use rusqlite::{OptionalExtension, params};
use std::collections::{BTreeMap, BTreeSet};

pub use query::{Clause, Found, Query, QueryError};

/// Entries that are taken into the index at a time; as many may wait.
pub const BATCH: usize = 512;
/// Segments of a level that become one of the next.
const FAN: usize = 8;
/// The row of a segment that holds its header.
const HEADER: i64 = -1;
/// Before the id of an account: who sent an entry is found as a word is.
const SENDER: char = '\u{1}';
/// Every file has this word.
const FILE: &str = "\u{2}";
const FORM: &str = "search/form";

/// Entries that are not in the index yet, conversations by number, and the index.
pub(super) const TABLES: &str = "
CREATE TABLE search_waiting (
    conversation BLOB NOT NULL, incarnation INTEGER NOT NULL, seq INTEGER NOT NULL, part INTEGER NOT NULL,
    PRIMARY KEY (conversation, incarnation, seq, part)) WITHOUT ROWID;
CREATE TABLE search_conversations (number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE);
CREATE TABLE search_segments (number INTEGER PRIMARY KEY AUTOINCREMENT, level INTEGER NOT NULL);
CREATE TABLE search_blocks (
    segment INTEGER NOT NULL, block INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (segment, block)) WITHOUT ROWID;
";

/// What was stored before there was an index waits for it.
pub(super) const ALL_WAIT: &str =
    "INSERT OR IGNORE INTO search_waiting SELECT conversation, incarnation, seq, part FROM messages";

/// The words under which an entry is found.
fn terms(entry: &Entry) -> BTreeSet<String> {
    if !is_findable(entry) {
        return BTreeSet::new();
    }
    let name = entry.extra.file.iter().flat_map(|file| words::words(&file.name));
    let file = (entry.kind == EntryKind::File).then(|| FILE.to_owned());
    let sender = entry.from.map(|(account, _)| sender(account));
    words::words(&entry.text).into_iter().chain(name).chain(file).chain(sender).collect()
}

/// What people have said, and not taken back.
fn is_findable(entry: &Entry) -> bool {
    matches!(entry.kind, EntryKind::Text | EntryKind::File) && entry.extra.deleted.is_none()
}

fn sender(account: AccountId) -> String {
    format!("{SENDER}{account}")
}

fn second(entry: &Entry) -> u64 {
    entry.at_ms / 1000
}

impl Tx<'_> {
    /// An entry was stored: it waits for the index.
    pub(super) fn search_added(&self, key: &[u8; 32], entry: &Entry) -> Result<()> {
        if terms(entry).is_empty() {
            return Ok(());
        }
        let (incarnation, seq, part) = entry.place();
        let sql = "INSERT OR IGNORE INTO search_waiting VALUES (?1, ?2, ?3, ?4)";
        self.conn.prepare_cached(sql)?.execute(params![key, incarnation, number(seq), part])?;
        Ok(())
    }

    /// An entry takes the place of another.
    pub(super) fn search_changed(&self, key: &[u8; 32], old: &Entry, new: &Entry) -> Result<()> {
        if terms(old) == terms(new) && second(old) == second(new) {
            return Ok(());
        }
        self.search_forgotten(key, old)?;
        self.search_added(key, new)
    }

    /// An entry is not there any more: nor are its words.
    pub(super) fn search_forgotten(&self, key: &[u8; 32], entry: &Entry) -> Result<()> {
        let (incarnation, seq, part) = entry.place();
        let sql = "DELETE FROM search_waiting \
             WHERE conversation = ?1 AND incarnation = ?2 AND seq = ?3 AND part = ?4";
        let waited =
            self.conn.prepare_cached(sql)?.execute(params![key, incarnation, number(seq), part])? == 1;
        let Some(conversation) = self.conversation_number(key)?.filter(|_| !waited) else { return Ok(()) };
        let posting = Posting { at_s: second(entry), conversation, incarnation, seq: seq.0, part };
        let mut terms = terms(entry);
        for segment in self.segments()? {
            let header = self.header(segment)?;
            terms = self.take_out(segment, &header, terms, posting)?;
            if terms.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Takes postings out of a segment; gives back the words of which it had none.
    fn take_out(
        &self,
        segment: i64,
        header: &Header,
        terms: BTreeSet<String>,
        posting: Posting,
    ) -> Result<BTreeSet<String>> {
        let mut left = BTreeSet::new();
        for term in terms {
            let key = (term.as_str(), posting);
            let mut found = false;
            for block in header.covering(key, key) {
                let mut runs = self.block(segment, block)?;
                for (word, postings) in runs.iter_mut().filter(|(word, _)| *word == term) {
                    debug_assert!(!word.is_empty());
                    let before = postings.len();
                    postings.retain(|other| *other != posting);
                    found |= postings.len() < before;
                }
                if found {
                    self.put_block(segment, block as i64, &blocks::encode(&runs))?;
                }
            }
            if !found {
                left.insert(term);
            }
        }
        Ok(left)
    }

    /// How many entries wait for the index, up to `limit`.
    pub fn search_waiting(&self, limit: usize) -> Result<usize> {
        let sql = "SELECT count(*) FROM (SELECT 1 FROM search_waiting LIMIT ?1)";
        let count: i64 = self.conn.prepare_cached(sql)?.query_row(params![limit as i64], |row| row.get(0))?;
        Ok(count.unsigned_abs() as usize)
    }

    /// Takes a batch of entries into the index; how many. Fewer than [`BATCH`] stay where they are.
    pub fn index_waiting(&self) -> Result<usize> {
        if self.search_waiting(BATCH)? < BATCH {
            return Ok(0);
        }
        let mut runs: BTreeMap<String, Vec<Posting>> = BTreeMap::new();
        for (key, place) in self.waiting(BATCH)? {
            let conversation = self.number_conversation(&key)?;
            let Some(entry) = self.entry_of(&key, place)? else { continue };
            let (incarnation, seq, part) = place;
            let posting = Posting { at_s: second(&entry), conversation, incarnation, seq: seq.0, part };
            for term in terms(&entry) {
                runs.entry(term).or_default().push(posting);
            }
        }
        // The same first rows, in the order of the key.
        let sql = "DELETE FROM search_waiting WHERE (conversation, incarnation, seq, part) IN \
             (SELECT conversation, incarnation, seq, part FROM search_waiting \
              ORDER BY conversation, incarnation, seq, part LIMIT ?1)";
        self.conn.prepare_cached(sql)?.execute(params![BATCH as i64])?;
        let segment = self.new_segment(0)?;
        let mut writer = Writer::new(self, segment);
        for (word, mut postings) in runs {
            postings.sort_unstable();
            writer.push(&word, &postings)?;
        }
        writer.finish()?;
        self.merge_from(0)?;
        Ok(BATCH)
    }

    /// Levels that are full become a segment of the next.
    fn merge_from(&self, mut level: u32) -> Result<()> {
        loop {
            let sql = "SELECT number FROM search_segments WHERE level = ?1 ORDER BY number";
            let mut query = self.conn.prepare_cached(sql)?;
            let full: Vec<i64> =
                query.query_map(params![level], |row| row.get(0))?.collect::<Result<_, _>>()?;
            if full.len() < FAN {
                return Ok(());
            }
            self.merge(&full, level + 1)?;
            level += 1;
        }
    }

    /// In memory at a time: a block of each, and all postings of one word.
    fn merge(&self, segments: &[i64], level: u32) -> Result<()> {
        let merged = self.new_segment(level)?;
        let mut writer = Writer::new(self, merged);
        let mut sources: Vec<Reader> =
            segments.iter().map(|segment| Reader::new(self, *segment)).collect::<Result<_>>()?;
        while let Some(word) = sources.iter().filter_map(Reader::word).min().map(str::to_owned) {
            let mut postings = Vec::new();
            for source in &mut sources {
                while source.word() == Some(&word) {
                    postings.extend(source.take(self)?);
                }
            }
            postings.sort_unstable();
            writer.push(&word, &postings)?;
        }
        writer.finish()?;
        for segment in segments {
            self.conn
                .prepare_cached("DELETE FROM search_blocks WHERE segment = ?1")?
                .execute(params![segment])?;
            self.conn
                .prepare_cached("DELETE FROM search_segments WHERE number = ?1")?
                .execute(params![segment])?;
        }
        Ok(())
    }

    /// Postings of the words from `low` up to `high`, with one word at both ends: of that word.
    fn postings(&self, low: (&str, Posting), high: (&str, Posting), prefix: bool) -> Result<Vec<Posting>> {
        let mut found = Vec::new();
        for segment in self.segments()? {
            let header = self.header(segment)?;
            for block in header.covering(low, high) {
                for (word, postings) in self.block(segment, block)? {
                    if word == low.0 || (prefix && word.starts_with(low.0)) {
                        found.extend(postings.into_iter().filter(|p| *p >= low.1 && *p <= high.1));
                    }
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// With another form of the index it is made anew.
    pub(super) fn check_search_form(&self) -> Result<()> {
        if self.setting::<u32>(FORM)? == Some(words::FORM) {
            return Ok(());
        }
        self.conn.execute_batch("DELETE FROM search_blocks; DELETE FROM search_segments;")?;
        self.conn.execute_batch(ALL_WAIT)?;
        self.set_setting(FORM, &words::FORM)
    }

    fn waiting(&self, limit: usize) -> Result<Vec<([u8; 32], Place)>> {
        let sql = "SELECT conversation, incarnation, seq, part FROM search_waiting \
             ORDER BY conversation, incarnation, seq, part LIMIT ?1";
        let mut query = self.conn.prepare_cached(sql)?;
        let rows = query.query_map(params![limit as i64], |row| {
            Ok((row.get(0)?, (row.get(1)?, Seq(row.get::<_, i64>(2)?.unsigned_abs()), row.get(3)?)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn conversation_number(&self, key: &[u8; 32]) -> Result<Option<u32>> {
        let sql = "SELECT number FROM search_conversations WHERE key = ?1";
        Ok(self.conn.prepare_cached(sql)?.query_row(params![key], |row| row.get(0)).optional()?)
    }

    fn number_conversation(&self, key: &[u8; 32]) -> Result<u32> {
        let sql = "INSERT OR IGNORE INTO search_conversations (key) VALUES (?1)";
        self.conn.prepare_cached(sql)?.execute(params![key])?;
        self.conversation_number(key)?.ok_or(StoreError::Index)
    }

    fn segments(&self) -> Result<Vec<i64>> {
        let mut query =
            self.conn.prepare_cached("SELECT number FROM search_segments ORDER BY number DESC")?;
        let rows = query.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn new_segment(&self, level: u32) -> Result<i64> {
        self.conn
            .prepare_cached("INSERT INTO search_segments (level) VALUES (?1)")?
            .execute(params![level])?;
        Ok(self.conn.last_insert_rowid())
    }

    fn header(&self, segment: i64) -> Result<Header> {
        Header::decode(&self.open_block(segment, HEADER)?).ok_or(StoreError::Index)
    }

    fn block(&self, segment: i64, block: usize) -> Result<Vec<Run>> {
        blocks::decode(&self.open_block(segment, block as i64)?).ok_or(StoreError::Index)
    }

    fn open_block(&self, segment: i64, block: i64) -> Result<fastchat_e2ee::Zeroizing<Vec<u8>>> {
        let sql = "SELECT value FROM search_blocks WHERE segment = ?1 AND block = ?2";
        let value: Vec<u8> =
            self.conn.prepare_cached(sql)?.query_row(params![segment, block], |row| row.get(0))?;
        Ok(self.key.open_value(&block_name(segment, block), &value)?)
    }

    fn put_block(&self, segment: i64, block: i64, bytes: &[u8]) -> Result<()> {
        let value = self.key.seal_value(&block_name(segment, block), bytes)?;
        let sql = "INSERT OR REPLACE INTO search_blocks VALUES (?1, ?2, ?3)";
        self.conn.prepare_cached(sql)?.execute(params![segment, block, value])?;
        Ok(())
    }
}

/// What a block is sealed for: it opens nowhere else.
fn block_name(segment: i64, block: i64) -> Vec<u8> {
    [b"search/block".as_slice(), &segment.to_be_bytes(), &block.to_be_bytes()].concat()
}

/// Writes a segment as it comes.
struct Writer<'a> {
    tx: &'a Tx<'a>,
    segment: i64,
    next: i64,
    builder: Builder,
}

impl<'a> Writer<'a> {
    fn new(tx: &'a Tx<'a>, segment: i64) -> Self {
        Self { tx, segment, next: 0, builder: Builder::default() }
    }

    fn push(&mut self, word: &str, postings: &[Posting]) -> Result<()> {
        self.builder.push(word, postings);
        let full = self.builder.take_full();
        self.put(full)
    }

    fn put(&mut self, blocks: Vec<Vec<u8>>) -> Result<()> {
        for block in blocks {
            self.tx.put_block(self.segment, self.next, &block)?;
            self.next += 1;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        let (rest, header) = std::mem::take(&mut self.builder).finish();
        self.put(rest)?;
        self.tx.put_block(self.segment, HEADER, &header.encode())
    }
}

/// Reads a segment, a block at a time.
struct Reader {
    segment: i64,
    blocks: usize,
    next: usize,
    /// What is left of the block, the first run last.
    runs: Vec<Run>,
}

impl Reader {
    fn new(tx: &Tx<'_>, segment: i64) -> Result<Self> {
        let mut reader = Self { segment, blocks: tx.header(segment)?.blocks(), next: 0, runs: Vec::new() };
        reader.fill(tx)?;
        Ok(reader)
    }

    fn word(&self) -> Option<&str> {
        self.runs.last().map(|(word, _)| word.as_str())
    }

    fn take(&mut self, tx: &Tx<'_>) -> Result<Vec<Posting>> {
        let postings = self.runs.pop().map(|(_, postings)| postings).unwrap_or_default();
        self.fill(tx)?;
        Ok(postings)
    }

    /// A block may be empty: what it held has been taken out.
    fn fill(&mut self, tx: &Tx<'_>) -> Result<()> {
        while self.runs.is_empty() && self.next < self.blocks {
            self.runs = tx.block(self.segment, self.next)?;
            self.runs.reverse();
            self.next += 1;
        }
        Ok(())
    }
}

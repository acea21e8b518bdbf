//! The bytes of a segment: sorted postings in blocks, and a list of what each block begins with.
//!
//! Pure: what is sealed, and where it is kept, is the caller's.

use std::ops::Range;

/// Limit: plaintext bytes of a block, about: with the seal it fits into a page of the file.
const BLOCK_BYTES: usize = 3_900;

/// An entry that has a word: its time in seconds, and its place. Sorted by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Posting {
    /// Seconds since 1970 by the server's clock.
    pub(super) at_s: u64,
    /// The conversation's number in this store.
    pub(super) conversation: u32,
    /// The incarnation of the log.
    pub(super) incarnation: u32,
    /// The place in the log.
    pub(super) seq: u64,
    /// Which of the entries there.
    pub(super) part: u32,
}

impl Posting {
    /// Before all others of this second.
    pub(super) fn from(at_s: u64) -> Self {
        Self { at_s, conversation: 0, incarnation: 0, seq: 0, part: 0 }
    }

    /// After all others of this second.
    pub(super) fn upto(at_s: u64) -> Self {
        Self { at_s, conversation: u32::MAX, incarnation: u32::MAX, seq: u64::MAX, part: u32::MAX }
    }
}

/// Postings of one word, sorted.
pub(super) type Run = (String, Vec<Posting>);

/// Cuts sorted runs into blocks.
#[derive(Debug, Default)]
pub(super) struct Builder {
    block: Vec<u8>,
    full: Vec<Vec<u8>>,
    firsts: Vec<(String, Posting)>,
}

impl Builder {
    /// Adds a word that comes after those before it, with its postings, sorted.
    pub(super) fn push(&mut self, word: &str, mut postings: &[Posting]) {
        while let Some(first) = postings.first() {
            if self.block.is_empty() {
                self.firsts.push((word.to_owned(), *first));
            }
            let room = BLOCK_BYTES.saturating_sub(self.block.len() + word.len());
            let (count, bytes) = encode_some(postings, room);
            put(&mut self.block, word.len() as u64);
            self.block.extend_from_slice(word.as_bytes());
            put(&mut self.block, count as u64);
            self.block.extend_from_slice(&bytes);
            postings = &postings[count..];
            if self.block.len() + word.len() >= BLOCK_BYTES {
                self.full.push(std::mem::take(&mut self.block));
            }
        }
    }

    /// Blocks that are full, in order; each is given once.
    pub(super) fn take_full(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.full)
    }

    /// The rest of the blocks, and what each block of all begins with.
    pub(super) fn finish(mut self) -> (Vec<Vec<u8>>, Header) {
        if !self.block.is_empty() {
            self.full.push(self.block);
        }
        (self.full, Header(self.firsts))
    }
}

/// As many as have room, at least one.
fn encode_some(postings: &[Posting], room: usize) -> (usize, Vec<u8>) {
    let (mut bytes, mut count, mut last) = (Vec::new(), 0, 0);
    for posting in postings {
        if count > 0 && bytes.len() >= room {
            break;
        }
        put(&mut bytes, posting.at_s - last);
        last = posting.at_s;
        put_place(&mut bytes, posting);
        count += 1;
    }
    (count, bytes)
}

/// The runs of a block; `None` if these are not the bytes of one.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Vec<Run>> {
    let mut runs = Vec::new();
    while !bytes.is_empty() {
        let word = get_word(&mut bytes)?;
        let count = get(&mut bytes)?;
        let (mut postings, mut at_s) = (Vec::new(), 0_u64);
        for _ in 0..count {
            at_s = at_s.checked_add(get(&mut bytes)?)?;
            postings.push(get_place(&mut bytes, at_s)?);
        }
        runs.push((word, postings));
    }
    Some(runs)
}

/// The bytes of runs, in one block of whatever size: for one of which something was taken out.
pub(super) fn encode(runs: &[Run]) -> Vec<u8> {
    let mut block = Vec::new();
    for (word, postings) in runs.iter().filter(|(_, postings)| !postings.is_empty()) {
        put(&mut block, word.len() as u64);
        block.extend_from_slice(word.as_bytes());
        put(&mut block, postings.len() as u64);
        block.extend_from_slice(&encode_some(postings, usize::MAX).1);
    }
    block
}

/// What each block begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header(Vec<(String, Posting)>);

impl Header {
    /// How many blocks there are.
    pub(super) fn blocks(&self) -> usize {
        self.0.len()
    }

    /// The blocks that may hold something from `low` up to `high`.
    pub(super) fn covering(&self, low: (&str, Posting), high: (&str, Posting)) -> Range<usize> {
        let not_after =
            |key: (&str, Posting)| self.0.partition_point(|(word, posting)| (word.as_str(), *posting) <= key);
        not_after(low).saturating_sub(1)..not_after(high)
    }

    /// Its bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (word, posting) in &self.0 {
            put(&mut bytes, word.len() as u64);
            bytes.extend_from_slice(word.as_bytes());
            put(&mut bytes, posting.at_s);
            put_place(&mut bytes, posting);
        }
        bytes
    }

    /// The reverse.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut firsts = Vec::new();
        while !bytes.is_empty() {
            let word = get_word(&mut bytes)?;
            let at_s = get(&mut bytes)?;
            firsts.push((word, get_place(&mut bytes, at_s)?));
        }
        Some(Self(firsts))
    }
}

/// Incarnation and part are nearly always 0 and then take no byte.
fn put_place(bytes: &mut Vec<u8>, posting: &Posting) {
    let (incarnation, part) = (posting.incarnation != 0, posting.part != 0);
    put(bytes, u64::from(posting.conversation) << 2 | u64::from(incarnation) << 1 | u64::from(part));
    put(bytes, posting.seq);
    if incarnation {
        put(bytes, u64::from(posting.incarnation));
    }
    if part {
        put(bytes, u64::from(posting.part));
    }
}

fn get_place(bytes: &mut &[u8], at_s: u64) -> Option<Posting> {
    let tag = get(bytes)?;
    let seq = get(bytes)?;
    let mut optional = |there| if there { u32::try_from(get(bytes)?).ok() } else { Some(0) };
    let (incarnation, part) = (optional(tag & 2 != 0)?, optional(tag & 1 != 0)?);
    Some(Posting { at_s, conversation: u32::try_from(tag >> 2).ok()?, incarnation, seq, part })
}

fn get_word(bytes: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(get(bytes)?).ok()?;
    let (word, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(std::str::from_utf8(word).ok()?.to_owned())
}

/// LEB128: seven bits a byte, the lowest first.
fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn get(bytes: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn postings() -> impl Strategy<Value = Vec<Posting>> {
        let one = (0..5_000_000_000_u64, 0..40_u32, 0..3_u32, 0..100_000_u64, 0..3_u32).prop_map(
            |(at_s, conversation, incarnation, seq, part)| Posting {
                at_s,
                conversation,
                incarnation,
                seq,
                part,
            },
        );
        prop::collection::btree_set(one, 1..400).prop_map(|set| set.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_goes_in_comes_out_of_the_blocks_that_the_header_names(
            runs in prop::collection::btree_map("[a-z]{1,9}", postings(), 1..30)
        ) {
            let mut builder = Builder::default();
            for (word, postings) in &runs {
                builder.push(word, postings);
            }
            let (blocks, header) = builder.finish();
            prop_assert_eq!(header.blocks(), blocks.len());
            prop_assert_eq!(Header::decode(&header.encode()), Some(header.clone()));
            for (word, postings) in &runs {
                let low = (word.as_str(), Posting::from(0));
                let high = (word.as_str(), Posting::upto(u64::MAX));
                let mut found = Vec::new();
                for block in header.covering(low, high) {
                    let decoded = decode(&blocks[block]).unwrap();
                    prop_assert_eq!(&decode(&encode(&decoded)).unwrap(), &decoded);
                    found.extend(decoded.into_iter().filter(|(w, _)| w == word).flat_map(|(_, p)| p));
                }
                prop_assert_eq!(&found, postings);
                let one = (word.as_str(), postings[postings.len() / 2]);
                prop_assert!(header.covering(one, one).len() <= 1, "a posting is in one block");
            }
            prop_assert!(blocks.iter().all(|block| block.len() < 2 * BLOCK_BYTES));
        }

        #[test]
        fn other_bytes_are_refused_or_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (decode(&bytes), Header::decode(&bytes));
        }
    }
}

//! Searching a device's history: `measure-search [N] [DIR]`; scripts/measure-search runs it.
//!
//! Stores N messages (100,000) in ten conversations, with words as frequent as Zipf's law has them (a
//! vocabulary of 50,000, 3 to 24 words each), takes them into the index as the client does, and asks 200
//! questions of each kind through the functions that `fastchat search` uses. Prints median and maximum.
#![expect(clippy::print_stdout, reason = "a table is what this program is for")]

use anyhow::{Context, Result};
use fastchat_client::store::{
    Entry, EntryKind, Extra, Store,
    search::{BATCH, Query},
};
use fastchat_e2ee::StoreKey;
use fastchat_protocol::{AccountId, ConversationId, Counter, DeviceId, Seq};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::time::{Duration, Instant};

const VOCABULARY: usize = 50_000;
const CONVERSATIONS: u64 = 10;
const QUESTIONS: usize = 200;
const LIMIT: usize = 20;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let n: u64 = arguments.next().map_or(Ok(100_000), |n| n.parse()).context("usage: measure-search [N]")?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("store");
    let mut rng = StdRng::seed_from_u64(1);
    let zipf = Zipf::new();
    let mut store = Store::open(&path, StoreKey::from_bytes(&[1; 32]))?;
    let started = Instant::now();
    let mut longest = Duration::ZERO;
    for first in (0..n).step_by(BATCH) {
        store.write(|tx| {
            (first..n.min(first + BATCH as u64)).try_for_each(|number| {
                tx.add_entry(conversation(number), &entry(number, zipf.sentence(&mut rng)))
            })
        })?;
        let began = Instant::now();
        store.write(|tx| tx.index_waiting())?;
        longest = longest.max(began.elapsed());
    }
    let bytes = std::fs::metadata(&path)?.len();
    println!(
        "{n} messages stored and indexed in {:.1} s; {} MB; the longest step of the index {} ms",
        started.elapsed().as_secs_f64(),
        bytes / 1_000_000,
        longest.as_millis()
    );
    let all: Vec<_> = (0..CONVERSATIONS).map(conversation).collect();
    for (kind, question) in kinds() {
        let mut times = Vec::new();
        let mut found = 0;
        for number in 0..QUESTIONS {
            let query = Query::parse(&question(number, &mut rng))?;
            let began = Instant::now();
            found += store.read(|tx| tx.search(&all, &query, LIMIT, 0))?.entries.len();
            times.push(began.elapsed());
        }
        times.sort_unstable();
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let (median, max) = (ms(times[QUESTIONS / 2]), ms(times[QUESTIONS - 1]));
        println!("{kind:<18} median {median:>7.2} ms   max {max:>7.2} ms   {found} found in {QUESTIONS}");
    }
    Ok(())
}

type Question = fn(usize, &mut StdRng) -> String;

/// Words by rank: 0 is the most frequent one.
fn kinds() -> [(&'static str, Question); 6] {
    [
        ("common word", |number, _| word(number % 20)),
        ("middling word", |_, rng| word(rng.random_range(200..2_000))),
        ("rare word", |_, rng| word(rng.random_range(10_000..VOCABULARY))),
        ("two words", |number, rng| format!("{} {}", word(number % 50), word(rng.random_range(0..500)))),
        ("phrase", |number, _| format!("\"{} {}\"", word(number % 15), word(number % 14))),
        ("beginning", |_, rng| format!("{}*", &word(rng.random_range(0..5_000))[..3])),
    ]
}

/// A word that can be read: syllables by the digits of its rank.
fn word(rank: usize) -> String {
    const SYLLABLES: [&str; 20] = [
        "ka", "lo", "mi", "ren", "tus", "va", "shi", "bor", "el", "nu", "pra", "dge", "fo", "ti", "qua",
        "gle", "wy", "ost", "hun", "ce",
    ];
    let (mut rest, mut word) = (rank + 400, String::new());
    while rest > 0 {
        word.push_str(SYLLABLES[rest % SYLLABLES.len()]);
        rest /= SYLLABLES.len();
    }
    word
}

struct Zipf(Vec<f64>);

impl Zipf {
    fn new() -> Self {
        let mut sum = 0.0;
        let sums = (1..=VOCABULARY).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Self(sums.collect())
    }

    fn sentence(&self, rng: &mut StdRng) -> String {
        let all = self.0.last().copied().unwrap_or_default();
        let words = (0..rng.random_range(3..25)).map(|_| {
            let at = rng.random_range(0.0..all);
            word(self.0.partition_point(|sum| *sum < at))
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

fn conversation(number: u64) -> ConversationId {
    ConversationId::new([(number % CONVERSATIONS) as u8; 16])
}

fn entry(number: u64, text: String) -> Entry {
    let sender = (number % 7) as u8;
    Entry {
        incarnation: 1,
        seq: Seq(number / CONVERSATIONS + 1),
        part: 0,
        kind: EntryKind::Text,
        from: Some((AccountId::new([sender; 16]), DeviceId::new([sender; 16]))),
        text,
        // One in two minutes.
        at_ms: 1_700_000_000_000 + number * 120_000,
        epoch: None,
        counter: Some(Counter(number)),
        extra: Extra::default(),
    }
}

//! The index against a plain look at every entry, through all that can happen to entries.

use super::*;
use crate::store::{Changed, Extra, Store};
use fastchat_e2ee::StoreKey;
use fastchat_protocol::{ConversationId, Counter, DeviceId};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};

const WORDS: [&str; 24] = [
    "apple",
    "banana",
    "cherry",
    "appliance",
    "application",
    "band",
    "bandage",
    "chess",
    "zebra",
    "quartz",
    "harbour",
    "lighthouse",
    "midnight",
    "paper",
    "paperclip",
    "river",
    "stone",
    "thunder",
    "umbrella",
    "violin",
    "window",
    "winter",
    "yellow",
    "über",
];

fn key() -> StoreKey {
    StoreKey::from_bytes(&[7; 32])
}

fn id(number: u8) -> ConversationId {
    ConversationId::new([number; 16])
}

fn account(number: u8) -> AccountId {
    AccountId::new([number; 16])
}

fn entry(seq: u64, at_ms: u64, from: u8, text: &str) -> Entry {
    Entry {
        incarnation: (seq % 2) as u32,
        seq: Seq(seq),
        part: 0,
        kind: EntryKind::Text,
        from: Some((account(from), DeviceId::new([from; 16]))),
        text: text.to_owned(),
        at_ms,
        epoch: None,
        counter: Some(Counter(seq)),
        extra: Extra::default(),
    }
}

fn sentence(rng: &mut StdRng) -> String {
    let words: Vec<&str> =
        (0..rng.random_range(1..9)).map(|_| WORDS[rng.random_range(0..WORDS.len())]).collect();
    words.join(" ")
}

/// All that is stored, in the way of a plain look.
type Model = BTreeMap<(ConversationId, Place), Entry>;

fn compare(store: &Store, model: &Model, question: &str, change: impl Fn(&mut Query)) {
    let mut query = Query::parse(question).unwrap();
    change(&mut query);
    let found = store.read(|tx| tx.search(&[id(1), id(2)], &query, 1_000_000, 50)).unwrap();
    let mut got: Vec<_> = found.entries.iter().map(|(id, entry)| (*id, entry.place())).collect();
    got.sort_unstable();
    let want: Vec<_> = model.iter().filter(|(_, e)| query.fits(e, 50)).map(|(at, _)| *at).collect();
    assert_eq!(got, want, "{question}");
    assert!(!found.more);
    assert!(found.entries.is_sorted_by_key(|(_, entry)| std::cmp::Reverse(entry.at_ms)), "newest first");
}

fn compare_all(store: &Store, model: &Model) {
    for question in [
        "zebra",
        "app*",
        "apple banana",
        "\"river stone\"",
        "UBER",
        "paper* winter",
        "\"stone win*\"",
        "nothing",
    ] {
        compare(store, model, question, |_| {});
    }
    compare(store, model, "violin", |query| query.from = Some(account(2)));
    compare(store, model, "", |query| query.from = Some(account(1)));
    compare(store, model, "", |query| query.files = true);
    compare(store, model, "window", |query| {
        (query.since_ms, query.until_ms) = (Some(200_000), Some(900_500))
    });
}

#[test]
fn the_index_finds_what_a_look_at_everything_finds() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("store"), key()).unwrap();
    let mut rng = StdRng::seed_from_u64(5);
    let mut model = Model::new();
    for round in 0..10_u64 {
        // Enough rounds for a merge.
        store
            .write(|tx| {
                for number in 0..BATCH as u64 {
                    let seq = round * BATCH as u64 + number + 1;
                    let at_ms = rng.random_range(0..1_000_000);
                    let mut entry = entry(seq, at_ms, rng.random_range(1..4), &sentence(&mut rng));
                    entry.extra.expires_at_ms = (number % 50 == 0).then_some(number);
                    let conversation = id(1 + (seq % 2) as u8);
                    tx.add_entry(conversation, &entry)?;
                    model.insert((conversation, entry.place()), entry);
                }
                Ok::<_, StoreError>(())
            })
            .unwrap();
        let indexed = if round == 9 { 0 } else { store.write(|tx| tx.index_waiting()).unwrap() };
        assert_eq!(indexed, if round == 9 { 0 } else { BATCH });
    }
    compare_all(&store, &model);
    let levels: Vec<u32> = store.read(|tx| {
        let mut query = tx.conn.prepare("SELECT level FROM search_segments ORDER BY number").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    });
    assert_eq!(levels, [1, 0], "eight were merged");

    // Edited, taken back, gone: in waiting ones and in both kinds of segments.
    let places: Vec<_> = model.keys().copied().collect();
    store
        .write(|tx| {
            for (number, at) in places.iter().enumerate().filter(|(number, _)| number % 7 < 3) {
                let entry = model.get_mut(at).unwrap();
                match number % 7 {
                    0 => entry.text = sentence(&mut rng),
                    1 => {
                        entry.text.clear();
                        entry.extra.deleted =
                            Some(Changed { by: account(1), incarnation: 0, seq: Seq(1), at_ms: 1 });
                    }
                    _ => {
                        let key = tx.index("conversation", at.0.as_bytes());
                        tx.forget(&key, Some(at.0), entry)?;
                        model.remove(at);
                        continue;
                    }
                }
                tx.update_entry(at.0, entry)?;
            }
            Ok::<_, StoreError>(())
        })
        .unwrap();
    compare(&store, &model, "application", |_| {});
    while store.write(|tx| tx.index_waiting()).unwrap() > 0 {}
    compare_all(&store, &model);

    // The index holds exactly the words of what is here.
    let postings: usize = store.read(|tx| {
        let all = ("", Posting::from(0), "\u{10ffff}", Posting::upto(u64::MAX));
        let segments = tx.segments().unwrap();
        let runs = segments.iter().flat_map(|segment| {
            let header = tx.header(*segment).unwrap();
            header
                .covering((all.0, all.1), (all.2, all.3))
                .flat_map(|block| tx.block(*segment, block).unwrap())
        });
        runs.map(|(_, postings)| postings.len()).sum()
    });
    let waiting: BTreeSet<_> = store.read(|tx| tx.waiting(10_000)).unwrap().into_iter().collect();
    let waits = |(conversation, place): &(ConversationId, Place)| {
        store.read(|tx| waiting.contains(&(tx.index("conversation", conversation.as_bytes()), *place)))
    };
    let want: usize = model.iter().filter(|(at, _)| !waits(at)).map(|(_, entry)| terms(entry).len()).sum();
    assert_eq!(postings, want);
}

#[test]
fn an_old_profile_waits_for_the_index_and_is_searched_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut store = Store::open(&path, key()).unwrap();
    store
        .write(|tx| {
            (1..=600).try_for_each(|seq| tx.add_entry(id(1), &entry(seq, seq, 1, "a lighthouse")))?;
            tx.set_setting(FORM, &0_u32)
        })
        .unwrap();
    store.write(|tx| tx.conn.execute_batch("DELETE FROM search_waiting").map_err(StoreError::from)).unwrap();
    drop(store);
    let mut store = Store::open(&path, key()).unwrap();
    let find = |store: &Store| {
        let query = Query::parse("lighthouse").unwrap();
        store.read(|tx| tx.search(&[id(1)], &query, 1_000, 0)).unwrap().entries.len()
    };
    assert_eq!(find(&store), 600);
    assert_eq!(store.write(|tx| tx.index_waiting()).unwrap(), BATCH);
    assert_eq!(store.read(|tx| tx.search_waiting(1_000)).unwrap(), 600 - BATCH);
    assert_eq!(find(&store), 600);
}

/// Messages, search terms and their plain hashes: none of them may be in any file.
#[test]
fn the_files_hold_no_word_and_no_hash_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("store"), key()).unwrap();
    let mut rng = StdRng::seed_from_u64(9);
    store
        .write(|tx| {
            (1..=BATCH as u64 + 20)
                .try_for_each(|seq| tx.add_entry(id(1), &entry(seq, seq * 1_000, 1, &sentence(&mut rng))))?;
            tx.index_waiting()
        })
        .unwrap();
    // The log of what was written is there as long as the file is open.
    for query in ["umbrella", "paper*", "neverwritten"] {
        let query = Query::parse(query).unwrap();
        store.read(|tx| tx.search(&[id(1)], &query, 10, 0)).unwrap();
    }
    // Each byte as a character: then the search of `str` does the work.
    let text = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
    let all = |what: &str| {
        let files = std::fs::read_dir(dir.path()).unwrap();
        let bytes: Vec<u8> = files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
        assert!(bytes.len() > 50_000, "{what}: {}", bytes.len());
        let held = [text(&bytes), text(&bytes.to_ascii_lowercase())];
        for word in WORDS.iter().copied().chain(["uber", "neverwritten"]).filter(|word| word.len() > 3) {
            let hash = Sha256::digest(word);
            for secret in [word.as_bytes(), &hash[..8], &hex::encode(hash).as_bytes()[..16]] {
                let secret = text(secret);
                assert!(held.iter().all(|held| !held.contains(&secret)), "{what}: {word}");
            }
        }
    };
    all("open");
    drop(store);
    all("closed");
}

#[test]
fn questions_are_understood_or_refused_with_a_reason() {
    let query = |text| Query::parse(text).unwrap().clauses;
    let clause =
        |words: &[&str], prefix| Clause { words: words.iter().map(|w| w.to_string()).collect(), prefix };
    assert_eq!(
        query("One \"two  THREE\" fou*"),
        [clause(&["one"], false), clause(&["two", "three"], false), clause(&["fou"], true),]
    );
    assert_eq!(query("don't \"open"), [clause(&["don", "t"], false), clause(&["open"], false)]);
    assert_eq!(query("… !"), []);
    assert_eq!(Query::parse("ab*"), Err(QueryError::Prefix("ab".into())));
    assert_eq!(Query::parse(&"x ".repeat(33)), Err(QueryError::TooMany));
}

use super::*;
use crate::store::Store;
use fastchat_e2ee::StoreKey;
use std::collections::BTreeMap;

const ALICE: AccountId = AccountId::new([1; 16]);
const BOB: AccountId = AccountId::new([2; 16]);
const DAVE: AccountId = AccountId::new([4; 16]);
const TEAM: ConversationId = ConversationId::new([9; 16]);
/// The row that let the newcomer in, and the one that speaks of the archive.
const JOINED: (u32, Seq) = (0, Seq(100));
const ROW: Changed = Changed { by: ALICE, incarnation: 0, seq: Seq(110), at_ms: 5_000 };
const BOUNDS: Bounds = Bounds { conversation: TEAM, joined: JOINED, row: ROW, count: 10, now_ms: 6_000 };

fn entry(seq: u64) -> Entry {
    Entry {
        incarnation: 0,
        seq: Seq(seq),
        part: 0,
        kind: EntryKind::Text,
        from: Some((BOB, DeviceId::new([22; 16]))),
        text: format!("text {seq}"),
        at_ms: 1_000 + seq.min(1_000),
        epoch: None,
        counter: Some(Counter(seq)),
        extra: Extra::default(),
    }
}

fn with(seq: u64, extra: Extra) -> Entry {
    Entry { extra, ..entry(seq) }
}

fn file() -> Box<FileInfo> {
    let (name, mime) = ("../a.txt".to_owned(), "text/plain".to_owned());
    let (preview, caption) = (None, None);
    Box::new(FileInfo { blob: [5; 16], key: [6; 32], size: 7, hash: [8; 32], name, mime, preview, caption })
}

fn change(by: AccountId, seq: u64) -> Option<Changed> {
    Some(Changed { by, incarnation: 0, seq: Seq(seq), at_ms: 2_000 })
}

/// What comes out of an archive of these, whoever has packed them.
fn through(entries: Vec<Entry>) -> Result<Vec<Entry>, SharedError> {
    unpack(&pack(TEAM, entries).unwrap().bytes, &BOUNDS)
}

#[test]
fn what_may_go_goes_and_comes_back_as_the_sharers_word() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("store.db"), StoreKey::from_bytes(&[9; 32])).unwrap();
    let whole = Extra {
        reply: Some(MessageRef { device: DeviceId::new([22; 16]), counter: Counter(1) }),
        mentions: vec![DAVE],
        edited: change(BOB, 105),
        reactions: BTreeMap::from([(ALICE, "👍".to_owned())]),
        expires_at_ms: Some(7_000),
        ..Extra::default()
    };
    let sent = Entry { kind: EntryKind::File, ..with(7, Extra { file: Some(file()), ..Extra::default() }) };
    let own_import = with(8, Extra { shared_by: Some(ALICE), ..Extra::default() });
    let goes = [entry(5), with(6, whole), sent, own_import];
    let stays = [
        Entry { kind: EntryKind::Notice, from: None, counter: None, ..entry(1) },
        Entry { kind: EntryKind::Quarantine, ..entry(2) },
        Entry { kind: EntryKind::Unknown, ..entry(3) },
        with(4, Extra { deleted: change(BOB, 50), ..Extra::default() }),
        with(9, Extra { shared_by: Some(DAVE), ..Extra::default() }),
        with(10, Extra { expires_at_ms: Some(6_000), ..Extra::default() }),
        Entry { part: 1, ..entry(11) },
        Entry { counter: None, ..entry(12) },
        entry(100),
        entry(101),
    ];
    let stored: Result<(), StoreError> =
        store.write(|tx| goes.iter().chain(&stays).try_for_each(|entry| tx.add_entry(TEAM, entry)));
    stored.unwrap();
    let found = store.read(|tx| select(tx, TEAM, JOINED, 1000, (ALICE, 6_000))).unwrap();
    assert_eq!(found, goes);
    let last = store.read(|tx| select(tx, TEAM, JOINED, 2, (ALICE, 6_000))).unwrap();
    assert_eq!(last, goes[2..], "the last ones that may go, not the last ones");
    let packed = pack(TEAM, found).unwrap();
    assert_eq!(packed.count, 4);
    let came = unpack(&packed.bytes, &BOUNDS).unwrap();
    let marked = goes.map(|entry| {
        let extra = Extra { shared_by: Some(ALICE), ..entry.extra };
        Entry { extra, ..entry }
    });
    assert_eq!(came, marked);
    assert!(pack(TEAM, stays[..1].to_vec()).is_none(), "nothing is not packed");
}

#[test]
fn what_cannot_be_is_refused_whole() {
    let refused = |entries: Vec<Entry>| through(entries).unwrap_err();
    let long = "x".repeat(MAX_TEXT + 1);
    let emoji = BTreeMap::from([(ALICE, "x".repeat(MAX_REACTION + 1))]);
    let named = Some(Box::new(FileInfo { name: "x".repeat(256), ..*file() }));
    let year = u64::from(MAX_TIMER) * 1000;
    let extra = Extra::default;
    let cases = [
        ("of the row that let it in", refused(vec![entry(5), entry(100)]), SharedError::Later(Seq(100))),
        ("later", refused(vec![entry(u64::MAX)]), SharedError::Later(Seq(u64::MAX))),
        (
            "of a later incarnation",
            refused(vec![Entry { incarnation: 1, ..entry(1) }]),
            SharedError::Later(Seq(1)),
        ),
        ("back and forth", refused(vec![entry(6), entry(5)]), SharedError::Order(Seq(5))),
        (
            "one place twice",
            refused(vec![entry(5), Entry { counter: Some(Counter(6)), ..entry(5) }]),
            SharedError::Order(Seq(5)),
        ),
        (
            "one name twice",
            refused(vec![entry(5), Entry { counter: Some(Counter(5)), ..entry(6) }]),
            SharedError::Twice(Seq(6)),
        ),
        ("a book", refused(vec![Entry { text: long, ..entry(5) }]), SharedError::Size(Seq(5))),
        ("a long name", refused(vec![with(5, Extra { file: named, ..extra() })]), SharedError::Size(Seq(5))),
        (
            "a long reaction",
            refused(vec![with(5, Extra { reactions: emoji, ..extra() })]),
            SharedError::Size(Seq(5)),
        ),
        (
            "edited by another",
            refused(vec![with(5, Extra { edited: change(DAVE, 6), ..extra() })]),
            SharedError::Edit(Seq(5)),
        ),
        (
            "edited for ever",
            refused(vec![with(5, Extra { edited: change(BOB, 110), ..extra() })]),
            SharedError::Edit(Seq(5)),
        ),
        (
            "kept for ever",
            refused(vec![with(5, Extra { expires_at_ms: Some(6_001 + year), ..extra() })]),
            SharedError::Expiry(Seq(5)),
        ),
        ("more than said", refused((1..=11).map(entry).collect()), SharedError::Count(11)),
    ];
    for (what, error, want) in cases {
        assert_eq!(error, want, "{what}");
    }
    let clocks = through(vec![Entry { at_ms: u64::MAX, ..entry(5) }]).unwrap();
    assert_eq!(clocks[0].at_ms, ROW.at_ms, "a later time is not believed");
    let over = through(vec![with(5, Extra { expires_at_ms: Some(6_000), ..extra() }), entry(6)]).unwrap();
    assert_eq!(over.len(), 1, "what has disappeared on the way is not there");
}

#[test]
fn bytes_that_are_no_archive_are_refused() {
    let good = pack(TEAM, vec![entry(5)]).unwrap().bytes;
    for length in 0..good.len() {
        assert!(matches!(unpack(&good[..length], &BOUNDS), Err(SharedError::Decode(_))), "{length}");
    }
    let elsewhere = Bounds { conversation: ConversationId::new([8; 16]), ..BOUNDS };
    assert_eq!(unpack(&good, &elsewhere), Err(SharedError::Elsewhere));
    let newer = codec::encode(&Archive { v: 2, c: TEAM, e: Vec::new() });
    assert_eq!(unpack(&newer, &BOUNDS), Err(SharedError::Form(2)));
    // What is nested deeply, or says that more comes than there is.
    let mut deep =
        b"\xa3\x61v\x01\x61c\x50\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x61e"
            .to_vec();
    let begin = deep.len();
    deep.extend([0x81; 100_000]);
    assert!(matches!(unpack(&deep, &BOUNDS), Err(SharedError::Decode(_))));
    deep.truncate(begin);
    deep.extend(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff");
    assert!(matches!(unpack(&deep, &BOUNDS), Err(SharedError::Decode(_))));
}

/// Many small things in few bytes are counted before they are kept.
#[test]
fn no_number_of_small_things_fills_the_memory() {
    let refused = |lines: Vec<Line>| {
        let bytes = codec::encode(&Archive { v: FORM, c: TEAM, e: lines });
        unpack(&bytes, &Bounds { count: u32::MAX, ..BOUNDS }).unwrap_err().to_string()
    };
    let line = |seq| Line::of(entry(seq)).unwrap();
    let joined = Bounds { joined: (0, Seq(5_000)), ..BOUNDS };
    let most = pack(TEAM, (1..=1_100).map(entry).collect()).unwrap();
    assert_eq!(most.count, MAX_SHARED);
    assert_eq!(unpack(&most.bytes, &Bounds { count: MAX_SHARED, ..joined }).unwrap()[0].seq, Seq(101));
    assert!(refused((1..=1_001).map(line).collect()).contains("more than 1000 elements"));
    let mentions = Line { m: vec![ALICE; 65], ..line(1) };
    assert!(refused(vec![mentions]).contains("more than 64 elements"));
    let reactions = Line { l: vec![(ALICE, "x".to_owned()); 257], ..line(1) };
    assert!(refused(vec![reactions]).contains("more than 256 elements"));
    let large = (1..=1_000).map(|seq| Entry { text: "x".repeat(MAX_TEXT), ..entry(seq) });
    let packed = pack(TEAM, large.collect()).unwrap();
    assert!(
        (200..300).contains(&packed.count) && packed.bytes.len() as u64 <= MAX_SHARED_BYTES,
        "{packed:?}"
    );
    assert_eq!(
        unpack(&packed.bytes, &Bounds { count: 1000, ..joined }).unwrap().last().unwrap().seq,
        Seq(1000)
    );
}

/// A name that was taken by somebody's word goes to the message itself when that comes.
#[test]
fn a_shared_message_cannot_stand_in_for_one_to_come() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("store.db"), StoreKey::from_bytes(&[9; 32])).unwrap();
    let claimed = Entry { counter: Some(Counter(120)), ..entry(5) };
    let name = claimed.reference().unwrap();
    let claimed = through(vec![claimed]).unwrap().remove(0);
    let real = entry(120);
    let stored: Result<(), StoreError> = store.write(|tx| {
        assert!(tx.add_entry_if_new(TEAM, &claimed)?);
        assert_eq!(tx.find_message(TEAM, name)?.unwrap().seq, Seq(5));
        tx.add_entry(TEAM, &real)?;
        assert_eq!(tx.find_message(TEAM, name)?.unwrap(), real);
        // And what is there is not taken by a claim that comes later.
        let again = Entry { seq: Seq(6), ..claimed.clone() };
        assert!(tx.add_entry_if_new(TEAM, &again)?);
        assert_eq!(tx.find_message(TEAM, name)?.unwrap(), real);
        Ok(())
    });
    stored.unwrap();
}

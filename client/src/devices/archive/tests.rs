use super::*;
use crate::store::{EntryKind, Party, Store};
use fastchat_e2ee::StoreKey;

const OWN: AccountId = AccountId::new([1; 16]);
const PEER: AccountId = AccountId::new([2; 16]);

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store.db"), StoreKey::from_bytes(&[9; 32])).unwrap();
    (dir, store)
}

fn id(number: u8) -> ConversationId {
    ConversationId::new([number; 16])
}

fn entry(seq: u64, text: &str) -> Entry {
    let (kind, from) = (EntryKind::Text, None);
    let (incarnation, epoch) = (0, None);
    Entry {
        incarnation,
        seq: Seq(seq),
        part: 0,
        kind,
        from,
        text: text.into(),
        at_ms: seq,
        epoch,
        counter: None,
        extra: Default::default(),
    }
}

/// Two conversations with `entries` messages of `bytes` bytes each; the second one was left.
fn filled(entries: u64, bytes: usize) -> (tempfile::TempDir, Store) {
    let (dir, mut store) = store();
    let written: Result<(), StoreError> = store.write(|tx| {
        for (number, standing) in [(1, Standing::Ready), (2, Standing::Removed)] {
            tx.put_conversation(&Conversation::new(
                id(number),
                Party::Direct(PEER),
                standing,
                Seq(entries),
                0,
            ))?;
            for seq in 1..=entries {
                tx.add_entry(id(number), &entry(seq, &"x".repeat(bytes)))?;
            }
        }
        Ok(())
    });
    written.unwrap();
    (dir, store)
}

fn parts(store: &Store, people: bool, share: Share) -> Vec<Vec<u8>> {
    store.read(|tx| {
        let mut exporter = Exporter::plan(tx, people, share).unwrap();
        let mut parts = Vec::new();
        loop {
            let (part, last) = exporter.next_part(tx).unwrap();
            parts.push(part);
            if last {
                return parts;
            }
        }
    })
}

fn count(store: &Store, number: u8) -> usize {
    store.read(|tx| tx.last_entries(id(number), 10_000).unwrap().len())
}

#[test]
fn everything_arrives_in_parts_of_bounded_size() {
    let (_dir, from) = filled(40, 60_000);
    let parts = parts(&from, true, Share::All);
    assert!(parts.len() > 5, "{}", parts.len());
    let largest = parts.iter().map(Vec::len).max().unwrap();
    assert!(largest + 1024 < fastchat_protocol::limits::MAX_SLOT_PART, "{largest}");

    let (_dir, mut to) = store();
    // The last part twice, as after a crash between storing and noting it.
    for part in parts.iter().chain(parts.last()) {
        to.write(|tx| import(tx, OWN, part)).unwrap();
    }
    assert_eq!((count(&to, 1), count(&to, 2)), (40, 40));
    let known = to.read(|tx| tx.conversations().unwrap());
    assert_eq!(known.len(), 1, "only the one that was left is here before the server speaks");
    let mut met = Conversation::new(id(1), Party::Direct(PEER), Standing::Ready, Seq(3), 0);
    to.read(|tx| inherit(tx, &mut met)).unwrap();
    assert_eq!(met.cursor, Seq(3), "where this device joins, the server says");
}

#[test]
fn as_much_history_as_was_asked_for() {
    let (_dir, from) = filled(10, 10);
    for (share, want) in [(Share::None, 0), (Share::Last(3), 3), (Share::Last(99), 10), (Share::All, 10)] {
        let (_dir, mut to) = store();
        let parts = parts(&from, false, share);
        assert_eq!(parts.len(), 1, "even nothing is one part");
        to.write(|tx| import(tx, OWN, &parts[0])).unwrap();
        assert_eq!(count(&to, 1), want, "{share}");
        assert!(to.read(|tx| tx.conversations().unwrap()).is_empty(), "no people were wanted");
    }
}

#[test]
fn what_is_here_is_not_replaced() {
    let (_dir, from) = filled(2, 10);
    let (_dir, mut to) = store();
    to.write(|tx| tx.add_entry(id(1), &entry(1, "as it was read here"))).unwrap();
    for part in parts(&from, false, Share::All) {
        let imported = to.write(|tx| import(tx, OWN, &part)).unwrap();
        assert_eq!(imported.entries, 3);
    }
    let entries = to.read(|tx| tx.last_entries(id(1), 10).unwrap());
    assert_eq!(entries[0].text, "as it was read here");
}

#[test]
fn how_much_is_read_as_typed() {
    for (text, want) in
        [("none", Share::None), ("0", Share::None), ("all", Share::All), ("20", Share::Last(20))]
    {
        assert_eq!(text.parse(), Ok(want));
    }
    assert!("some".parse::<Share>().is_err());
}

#[test]
fn what_is_over_is_not_handed_on_and_the_rest_keeps_its_time() {
    let (_dir, mut from) = filled(1, 10);
    let kept = |seq, at_ms| {
        let mut kept = entry(seq, "kept for a time");
        kept.extra.expires_at_ms = Some(at_ms);
        kept
    };
    from.write(|tx| {
        tx.add_entry(id(1), &kept(2, 1))?;
        let mut record = tx.conversations()?.into_iter().find(|record| record.id == id(1)).unwrap();
        (record.cursor, record.timer_s) = (Seq(3), 60);
        tx.put_conversation(&record)?;
        tx.add_entry(id(1), &kept(3, u64::MAX / 4))
    })
    .unwrap();
    let (_dir, mut to) = store();
    for part in parts(&from, true, Share::All) {
        to.write(|tx| import(tx, OWN, &part)).unwrap();
    }
    to.read(|tx| {
        let seqs: Vec<u64> = tx.last_entries(id(1), 10).unwrap().iter().map(|entry| entry.seq.0).collect();
        assert_eq!(seqs, [1, 3]);
        assert_eq!(tx.next_expiry().unwrap(), Some(u64::MAX / 4), "it goes here, too");
        let mut met = Conversation::new(id(1), Party::Direct(PEER), Standing::Ready, Seq(3), 0);
        inherit(tx, &mut met).unwrap();
        assert_eq!(met.timer_s, 60);
    });
    // What was fine when it was handed on may be over when it is taken in.
    let late = Part { form: FORM, people: vec![], heads: vec![], entries: vec![(id(1), kept(4, 1))] };
    assert_eq!(to.write(|tx| import(tx, OWN, &codec::encode(&late))).unwrap().entries, 0);
}

/// Whatever was edited or deleted meanwhile: nothing is left out, because it is not counted again.
#[test]
fn handing_on_goes_on_where_it_was_after_a_restart() {
    let (_dir, mut from) = filled(40, 60_000);
    let (_dir, mut to) = store();
    let mut plan = from.read(|tx| Plan::of(tx, Share::All)).unwrap();
    let mut parts = 0;
    loop {
        let (part, last, rest) = from.read(|tx| {
            let mut exporter = Exporter::new(plan.clone());
            let (part, last) = exporter.next_part(tx).unwrap();
            (part, last, exporter.rest())
        });
        to.write(|tx| import(tx, OWN, &part)).unwrap();
        from.write(|tx| tx.update_entry(id(1), &entry(parts + 1, "short"))).unwrap();
        (plan, parts) = (rest, parts + 1);
        if last {
            break;
        }
    }
    assert!(parts > 5, "{parts}");
    assert_eq!((count(&to, 1), count(&to, 2)), (40, 40));
}

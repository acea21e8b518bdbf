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

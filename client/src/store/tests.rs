use super::*;
use fastchat_e2ee::MessageRef;
use fastchat_protocol::{AccountId, Bytes, ConversationId, Counter, DeviceId, Seq};

const ID: ConversationId = ConversationId::new(*b"conversation-id!");
const PEER: AccountId = AccountId::new(*b"account-id-of-b!");
const MARKER: &str = "PLANTED-PLAINTEXT-MARKER";

fn key() -> StoreKey {
    StoreKey::from_bytes(&[7; 32])
}

fn entry(seq: u64, part: u32, text: &str) -> Entry {
    let from = Some((PEER, DeviceId::new([9; 16])));
    let (incarnation, kind, text) = (0, EntryKind::Text, text.to_owned());
    Entry {
        incarnation,
        seq: Seq(seq),
        part,
        kind,
        from,
        text,
        at_ms: 5,
        epoch: None,
        counter: None,
        extra: Extra::default(),
    }
}

fn item(id: u8, text: &str) -> Item {
    let state = ItemState::Sealed { counter: Counter(3), envelope: Bytes::from_static(b"sealed") };
    Item {
        id: ItemId([id; 16]),
        to: "bob-the-peer".into(),
        conversation: Some(ID),
        text: text.into(),
        at_ms: 1,
        state,
        what: What::default(),
        expires_s: None,
    }
}

fn write<T>(store: &mut Store, work: impl FnOnce(&Tx<'_>) -> Result<T>) -> T {
    store.write(work).unwrap()
}

/// Whatever the file says, it says nothing about people and what they wrote.
#[test]
fn nothing_can_be_read_without_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let mut store = Store::open(&path, key()).unwrap();
    write(&mut store, |tx| {
        tx.put_conversation(&Conversation::new(
            ID,
            Party::Direct(PEER),
            Standing::Rejoining(MARKER.into()),
            Seq(1),
            0,
        ))?;
        tx.add_entry(ID, &entry(1, 0, MARKER))?;
        tx.add_item(&item(1, MARKER))?;
        tx.quarantine(&Quarantined {
            conversation: ID,
            incarnation: 1,
            seq: Seq(2),
            reason: MARKER.into(),
            envelope: None,
        })?;
        tx.set_setting("mailbox", &MARKER)?;
        tx.vault().put("label-of-a-value", ID.as_bytes(), MARKER.as_bytes()).map_err(StoreError::from)
    });
    let mut files = 0;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        files += usize::from(!bytes.is_empty());
        let secrets: [&[u8]; 5] =
            [MARKER.as_bytes(), ID.as_bytes(), PEER.as_bytes(), b"bob-the-peer", b"label-of-a-value"];
        for secret in secrets {
            assert!(
                !bytes.windows(secret.len()).any(|window| window == secret),
                "{:?}",
                String::from_utf8_lossy(secret)
            );
        }
    }
    assert!(files >= 2, "the database and its log were looked at");
}

#[test]
fn what_was_committed_is_there_again_and_another_key_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let mut store = Store::open(&path, key()).unwrap();
    let record = Conversation::new(ID, Party::Direct(PEER), Standing::Ready, Seq(1), 7);
    let positions = write(&mut store, |tx| {
        tx.put_conversation(&record)?;
        tx.add_entry(ID, &entry(2, 0, "two"))?;
        tx.add_entry(ID, &entry(1, 0, "one"))?;
        tx.add_entry(ID, &entry(1, 1, "a notice"))?;
        Ok([
            tx.add_item(&item(2, "second"))?,
            tx.add_item(&item(1, "third"))?,
            tx.add_item(&item(2, "again"))?,
        ])
    });
    assert_eq!(positions, [Some(1), Some(2), None], "an id is taken once");
    drop(store);

    assert!(Store::open(&path, StoreKey::from_bytes(&[8; 32])).is_err());
    let store = Store::open(&path, key()).unwrap();
    store.read(|tx| {
        assert_eq!(tx.conversations().unwrap(), [record]);
        let texts = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.text).collect::<Vec<_>>();
        assert_eq!(texts(tx.last_entries(ID, 2).unwrap()), ["a notice", "two"]);
        assert_eq!(texts(tx.entries_after(ID, (0, Seq(1))).unwrap()), ["two"]);
        assert_eq!(tx.next_part(ID, 0, Seq(1)).unwrap(), 2);
        assert_eq!(tx.items().unwrap(), [(1, item(2, "second")), (2, item(1, "third"))]);
    });
    assert!(store.check().unwrap());
}

#[test]
fn a_transaction_that_fails_leaves_no_trace_and_no_row_is_stored_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("store.db"), key()).unwrap();
    write(&mut store, |tx| tx.add_entry(ID, &entry(1, 0, "one")));
    let failed: Result<()> = store.write(|tx| {
        tx.add_item(&item(1, "x"))?;
        tx.vault().put("ratchet", b"", b"moved").map_err(StoreError::from)?;
        tx.add_entry(ID, &entry(1, 0, "a second copy of row one"))
    });
    assert!(failed.is_err());
    store.read(|tx| {
        assert!(tx.items().unwrap().is_empty());
        assert!(tx.vault().get("ratchet", b"").unwrap().is_none());
        assert_eq!(tx.last_entries(ID, 10).unwrap(), [entry(1, 0, "one")]);
    });
}

/// A value moved to another place (by whoever can write the file) does not open there.
#[test]
fn a_sealed_value_opens_only_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("store.db"), key()).unwrap();
    write(&mut store, |tx| tx.add_entry(ID, &entry(1, 0, "one")));
    store.conn.execute("UPDATE messages SET seq = 2", []).unwrap();
    assert!(store.read(|tx| tx.last_entries(ID, 1)).is_err());
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    drop(Store::open(&path, key()).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", SCHEMA + 1).unwrap();
    assert!(matches!(Store::open(&path, key()), Err(StoreError::Schema(newer)) if newer == SCHEMA + 1));
}

/// A profile from before there were groups calls the party `peer`.
#[test]
fn regression_a_profile_from_before_groups_is_read() {
    let record = Conversation::new(ID, Party::Direct(PEER), Standing::Ready, Seq(1), 7);
    let mut map: std::collections::BTreeMap<String, serde_cbor::Value> =
        serde_cbor::from_slice(&codec::encode(&record)).unwrap();
    let party = map.remove("party").unwrap();
    map.insert("peer".into(), party);
    for field in ["request", "changes", "gossiped"] {
        map.remove(field).unwrap();
    }
    assert_eq!(codec::decode_local::<Conversation>(&serde_cbor::to_vec(&map).unwrap()).unwrap(), record);
}

#[test]
fn a_group_is_kept_with_all_that_is_known_of_it() {
    let picture = StoredPicture { mime: "image/png".into(), bytes: Bytes::from_static(b"png") };
    let group = GroupRecord {
        name: "team".into(),
        picture: Some(picture),
        roles: [(PEER, fastchat_protocol::Role::Owner)].into(),
        left: [PEER].into(),
        ..GroupRecord::default()
    };
    let mut record = Conversation::new(ID, Party::Group(Box::new(group)), Standing::Ready, Seq(1), 7);
    record.changes = vec![MemberChange::Remove(vec![PEER])];
    record.request = Some(MessageRequest { by: PEER, declined: true });
    let read = codec::decode_local::<Conversation>(&codec::encode(&record)).unwrap();
    assert_eq!((read.group().map(|group| group.name.as_str()), read == record), (Some("team"), true));
}

#[test]
fn a_seq_of_another_incarnation_is_another_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(&folder.path().join("store"), key()).unwrap();
    let of = |incarnation, seq, text| Entry { incarnation, ..entry(seq, 0, text) };
    write(&mut store, |tx| {
        tx.add_entry(ID, &of(7, 2, "new"))?;
        tx.add_entry(ID, &of(0, 1, "old"))?;
        tx.add_entry(ID, &of(5, 2, "lost"))?;
        tx.add_entry(ID, &of(5, 3, "lost too"))
    });
    store.read(|tx| {
        assert_eq!(texts(tx.last_entries(ID, 9).unwrap()), ["old", "lost", "lost too", "new"]);
        assert_eq!(texts(tx.entries_after(ID, (5, Seq(2))).unwrap()), ["lost too", "new"]);
        let page = tx.entries_between(ID, (0, Seq(1), 0), (5, Seq(9)), 9).unwrap();
        assert_eq!(texts(page), ["lost", "lost too"]);
        assert_eq!(tx.place_before_last(ID, 1).unwrap(), Some((5, Seq(3), 0)));
        assert_eq!((tx.next_part(ID, 5, Seq(2)).unwrap(), tx.next_part(ID, 6, Seq(2)).unwrap()), (1, 1));
    });
}

#[test]
fn a_message_is_found_by_its_name_and_only_by_that() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(&folder.path().join("store"), key()).unwrap();
    let named = |counter, seq| Entry { counter: Some(Counter(counter)), ..entry(seq, 0, "hi") };
    write(&mut store, |tx| {
        tx.add_entry(ID, &named(4, 7))?;
        tx.add_entry(ID, &entry(8, 0, "without a name"))
    });
    let name =
        |device, counter| MessageRef { device: DeviceId::new([device; 16]), counter: Counter(counter) };
    let other = ConversationId::new([1; 16]);
    store.read(|tx| {
        assert_eq!(tx.find_message(ID, name(9, 4)).unwrap(), Some(named(4, 7)));
        assert_eq!(tx.find_message(ID, name(9, 5)).unwrap(), None);
        assert_eq!(tx.find_message(ID, name(8, 4)).unwrap(), None);
        assert_eq!(tx.find_message(other, name(9, 4)).unwrap(), None);
    });
    write(&mut store, |tx| tx.update_entry(ID, &Entry { text: "changed".into(), ..named(4, 7) }));
    store.read(|tx| {
        assert_eq!(tx.find_message(ID, name(9, 4)).unwrap().unwrap().text, "changed");
        assert_eq!(tx.last_entries(ID, 9).unwrap().len(), 2);
    });
}

/// What profiles of form 1 hold is as it was.
#[test]
fn an_older_profile_keeps_its_history() {
    const FORM_1: &str = "
        ALTER TABLE messages RENAME TO m; ALTER TABLE quarantine RENAME TO q;
        CREATE TABLE messages (
            conversation BLOB NOT NULL, seq INTEGER NOT NULL, part INTEGER NOT NULL, value BLOB NOT NULL,
            PRIMARY KEY (conversation, seq, part)) WITHOUT ROWID;
        CREATE TABLE quarantine (
            conversation BLOB NOT NULL, seq INTEGER NOT NULL, value BLOB NOT NULL,
            PRIMARY KEY (conversation, seq)) WITHOUT ROWID;
        INSERT INTO messages SELECT conversation, seq, part, value FROM m;
        INSERT INTO quarantine SELECT conversation, seq, value FROM q;
        DROP TABLE m; DROP TABLE q; DROP TABLE refs; DROP TABLE expiries; DROP TABLE search_waiting;
             DROP TABLE search_conversations; DROP TABLE search_segments; DROP TABLE search_blocks; DROP TABLE transfers;
        PRAGMA user_version = 1;";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut store = Store::open(&path, key()).unwrap();
    let row = Quarantined {
        conversation: ID,
        incarnation: 0,
        seq: Seq(2),
        reason: "damaged".into(),
        envelope: None,
    };
    write(&mut store, |tx| {
        tx.add_entry(ID, &entry(1, 0, "one"))?;
        tx.quarantine(&row)
    });
    drop(store);
    rusqlite::Connection::open(&path).unwrap().execute_batch(FORM_1).unwrap();
    for _ in 0..2 {
        let store = Store::open(&path, key()).unwrap();
        store.read(|tx| {
            assert_eq!(texts(tx.last_entries(ID, 9).unwrap()), ["one"]);
            assert_eq!(tx.quarantined().unwrap(), 1);
        });
    }
}

fn texts(entries: Vec<Entry>) -> Vec<String> {
    entries.into_iter().map(|entry| entry.text).collect()
}

/// Every value of the file that can be opened with the key is not asked for: the file itself is, and what
/// was deleted or is over opens nowhere in it.
#[test]
fn what_is_over_or_taken_back_is_nowhere_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("store.db"), key()).unwrap();
    let of = |seq, expires_at_ms| {
        let extra = Extra { expires_at_ms, ..Extra::default() };
        Entry { counter: Some(Counter(seq)), extra, ..entry(seq, 0, MARKER) }
    };
    let row = Quarantined {
        conversation: ID,
        incarnation: 0,
        seq: Seq(2),
        reason: MARKER.into(),
        envelope: Some(Bytes::from_static(MARKER.as_bytes())),
    };
    write(&mut store, |tx| {
        for (seq, at_ms) in [(1, None), (2, Some(20)), (3, Some(10)), (4, Some(30))] {
            tx.add_entry(ID, &of(seq, at_ms))?;
        }
        tx.quarantine(&row)
    });
    let name = |seq| MessageRef { device: DeviceId::new([9; 16]), counter: Counter(seq) };
    assert_eq!(store.read(|tx| tx.next_expiry().unwrap()), Some(10));
    let gone = write(&mut store, |tx| tx.forget_due(9, [ID].into_iter(), 10));
    assert!(gone.is_empty());
    let gone = write(&mut store, |tx| tx.forget_due(20, [ID].into_iter(), 10));
    assert_eq!(gone.iter().map(|(_, entry)| entry.seq.0).collect::<Vec<_>>(), [3, 2], "the earlier first");
    store.read(|tx| {
        assert_eq!(tx.next_expiry().unwrap(), Some(30));
        assert_eq!(tx.quarantined().unwrap(), 0);
        assert!(tx.find_message(ID, name(2)).unwrap().is_none());
        assert_eq!(tx.last_entries(ID, 10).unwrap().len(), 2);
    });
    // Of a conversation that nothing is known of, it goes all the same.
    assert!(write(&mut store, |tx| tx.forget_due(30, [].into_iter(), 10)).is_empty());
    // What was taken back keeps its place and nothing of what it said.
    let taken = Entry { text: String::new(), ..of(1, None) };
    write(&mut store, |tx| tx.update_entry(ID, &taken));
    assert_eq!(values(&store).iter().filter(|value| holds(value, MARKER)).count(), 0);
    store.read(|tx| assert_eq!(tx.find_message(ID, name(1)).unwrap(), Some(taken)));
    assert_eq!(count(&store, "SELECT count(*) FROM refs") - 1, 1, "the one of the unknown, and the one here");
    assert_eq!(count(&store, "SELECT count(*) FROM expiries"), 0);
}

fn count(store: &Store, sql: &str) -> i64 {
    store.conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn holds(value: &[u8], text: &str) -> bool {
    value.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Everything that the file has about messages, opened.
fn values(store: &Store) -> Vec<Vec<u8>> {
    let key = key().index("conversation", ID.as_bytes());
    let sql = "SELECT incarnation, seq, part, value FROM messages WHERE conversation = ?1";
    let entries = store.read(|tx| tx.entries(&key, sql, params![key]).unwrap());
    entries.iter().map(codec::encode).collect()
}

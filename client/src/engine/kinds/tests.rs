use super::*;
use fastchat_e2ee::FileInfo;
use fastchat_protocol::{Counter, DeviceId, Seq};

const ALICE: AccountId = AccountId::new([1; 16]);
const BOB: AccountId = AccountId::new([2; 16]);

fn message(kind: EntryKind) -> Entry {
    Entry {
        incarnation: 1,
        seq: Seq(5),
        part: 0,
        kind,
        from: Some((ALICE, DeviceId::new([7; 16]))),
        text: "hello".into(),
        at_ms: 10,
        epoch: None,
        counter: Some(Counter(3)),
        extra: Extra {
            mentions: vec![BOB],
            reactions: [(BOB, "👍".to_owned())].into(),
            expires_at_ms: Some(99),
            ..Extra::default()
        },
    }
}

fn by(account: AccountId, seq: u64, moderates: bool) -> By {
    By { changed: Changed { by: account, incarnation: 1, seq: Seq(seq), at_ms: 20 }, moderates }
}

fn file() -> Entry {
    let file = FileInfo {
        blob: [1; 16],
        key: [2; 32],
        size: 1,
        hash: [3; 32],
        name: "a.txt".into(),
        mime: String::new(),
        preview: None,
        caption: Some("hello".into()),
    };
    let mut entry = message(EntryKind::File);
    entry.extra.file = Some(Box::new(file));
    entry
}

#[test]
fn who_may_do_what() {
    let (edit, delete, react) = (Deed::Edit("new".into()), Deed::Delete, Deed::React(Some("🎉".to_owned())));
    let text = message(EntryKind::Text);
    let gone = judge(&text, &delete, &by(ALICE, 6, false)).unwrap();
    let notice = Entry { from: None, counter: None, ..message(EntryKind::Notice) };
    let old = Entry { counter: None, ..message(EntryKind::Text) };
    let unknown = message(EntryKind::Unknown);
    let newer = judge(&text, &edit, &by(ALICE, 9, false)).unwrap();
    let cases: [(&Entry, &Deed, By, Result<(), Why>); 18] = [
        (&text, &edit, by(ALICE, 6, false), Ok(())),
        (&text, &edit, by(BOB, 6, false), Err(Why::NotTheAuthor)),
        (&text, &edit, by(BOB, 6, true), Err(Why::NotTheAuthor)),
        (&text, &delete, by(ALICE, 6, false), Ok(())),
        (&text, &delete, by(BOB, 6, false), Err(Why::MayNotDelete)),
        (&text, &delete, by(BOB, 6, true), Ok(())),
        (&text, &react, by(BOB, 6, false), Ok(())),
        (&unknown, &edit, by(ALICE, 6, false), Err(Why::NoText)),
        (&unknown, &delete, by(ALICE, 6, false), Ok(())),
        (&notice, &delete, by(ALICE, 6, true), Err(Why::NoMessage)),
        (&notice, &react, by(ALICE, 6, true), Err(Why::NoMessage)),
        (&old, &edit, by(ALICE, 6, false), Err(Why::NoMessage)),
        (&gone, &edit, by(ALICE, 7, false), Err(Why::Deleted)),
        (&gone, &edit, by(BOB, 7, false), Err(Why::NotTheAuthor)),
        (&gone, &delete, by(ALICE, 7, false), Err(Why::Deleted)),
        (&gone, &react, by(BOB, 7, false), Err(Why::Deleted)),
        (&newer, &edit, by(ALICE, 8, false), Err(Why::Older)),
        (&newer, &edit, by(ALICE, 10, false), Ok(())),
    ];
    for (at, (original, deed, by, want)) in cases.into_iter().enumerate() {
        assert_eq!(judge(original, deed, &by).map(drop), want, "{at}: {deed:?} {by:?}");
    }
    // The log of a restored server counts anew.
    let mut restored = by(ALICE, 2, false);
    restored.changed.incarnation = 2;
    assert_eq!(judge(&newer, &edit, &restored).map(drop), Ok(()));
}

#[test]
fn what_becomes_of_a_message() {
    let text = message(EntryKind::Text);
    let edited = judge(&text, &Deed::Edit("new".into()), &by(ALICE, 6, false)).unwrap();
    assert_eq!((edited.text.as_str(), edited.extra.mentions.as_slice()), ("new", [].as_slice()));
    assert_eq!(edited.extra.reactions, text.extra.reactions, "what was thought of it stays");
    assert_eq!((edited.extra.expires_at_ms, edited.place()), (Some(99), text.place()));

    let more = judge(&edited, &Deed::React(Some("🎉".into())), &by(BOB, 7, false)).unwrap();
    assert_eq!(more.extra.reactions, [(BOB, "🎉".to_owned())].into(), "one of each, the last");
    let none = judge(&more, &Deed::React(None), &by(BOB, 8, false)).unwrap();
    assert!(none.extra.reactions.is_empty());

    let captioned = judge(&file(), &Deed::Edit("caption".into()), &by(ALICE, 6, false)).unwrap();
    assert_eq!(captioned.extra.file.as_ref().unwrap().caption.as_deref(), Some("caption"));
    assert_eq!(captioned.extra.file.unwrap().name, "a.txt");

    let gone = judge(&file(), &Deed::Delete, &by(BOB, 6, true)).unwrap();
    let Extra { deleted, expires_at_ms, .. } = gone.extra;
    assert_eq!(gone.extra, Extra { deleted, expires_at_ms, ..Extra::default() }, "nothing else is left");
    assert_eq!((gone.text.as_str(), deleted.unwrap().by, expires_at_ms), ("", BOB, Some(99)));
    assert_eq!(gone.reference(), file().reference(), "it can still be named");
}

#[test]
fn who_is_meant_by_a_text() {
    let known = |name: &str| match name {
        "bob" => Some(BOB),
        "alice.b" => Some(ALICE),
        _ => None,
    };
    let cases: [(&str, &[AccountId]); 10] = [
        ("hello", &[]),
        ("@bob look", &[BOB]),
        ("look, @bob.", &[BOB]),
        ("(@bob) and @alice.b: @bob", &[BOB, ALICE]),
        ("me@bob", &[]),
        ("@Bob", &[]),
        ("@bobby", &[]),
        ("@@bob", &[BOB]),
        ("ü@bob", &[]),
        ("@", &[]),
    ];
    for (text, want) in cases {
        assert_eq!(mentions(text, known, 64), want, "{text:?}");
    }
    assert_eq!(mentions("@bob @alice.b", known, 1), [BOB]);
}

#[test]
fn reasons_name_everybody() {
    let said = refusal("mallory", "alice", 5, Why::NotTheAuthor);
    assert_eq!(said, "mallory wanted to edit message 5, which alice has written: refused");
}

use super::*;
use std::collections::BTreeMap;

fn reference(bytes: &[u8]) -> BTreeMap<String, serde_cbor::Value> {
    serde_cbor::from_slice(bytes).unwrap()
}

fn profile(name: &str, picture: usize) -> GroupProfile {
    let picture = Picture { mime: "image/png".into(), bytes: vec![7; picture] };
    GroupProfile { name: name.into(), picture: Some(picture) }
}

#[test]
fn golden_bytes_of_a_text() {
    let bytes = Content::Text("hi".into()).encode();
    assert_eq!(bytes, b"\xa3\x61v\x01\x61k\x64text\x61t\x62hi");
    assert_eq!(reference(&bytes)["t"], serde_cbor::Value::Text("hi".into()));
    assert_eq!(Content::decode(&bytes).unwrap(), Content::Text("hi".into()));
}

#[test]
fn golden_bytes_of_the_other_kinds() {
    let accepted = Message {
        content: Content::Accepted,
        manifest: Some(ManifestView { version: 3, hash: *b"12345678" }),
        expires_s: None,
    };
    let want = b"\xa3\x61v\x01\x61k\x68accepted\x61m\xa2\x61n\x03\x61h\x4812345678";
    assert_eq!(accepted.encode(), want);
    assert_eq!(Message::decode(want).unwrap(), accepted);
    let named = Message::new(Content::Profile(profile("us", 2)));
    let want = b"\xa4\x61v\x01\x61k\x67profile\x61n\x62us\x61p\xa2\x61m\x69image/png\x61b\x42\x07\x07";
    assert_eq!(named.encode(), want);
    assert_eq!(Message::decode(want).unwrap(), named);
    assert_eq!(reference(want).len(), 4);
}

#[test]
fn a_newer_kind_is_named_and_not_an_error() {
    let newer = b"\xa3\x61v\x01\x61k\x65video\x62of\x07";
    assert_eq!(Content::decode(newer).unwrap(), Content::Unknown { kind: "video".into() });
    // Fields of ours with another type, and a manifest view of another form.
    let other = b"\xa5\x61v\x01\x61k\x65video\x61t\x07\x61p\x61x\x61m\x80";
    let read = Message::decode(other).unwrap();
    assert_eq!(read, Message::new(Content::Unknown { kind: "video".into() }));
    // Another version of a known kind, and a known kind with a field more.
    let later = b"\xa3\x61v\x02\x61k\x64text\x61t\x07";
    assert_eq!(Content::decode(later).unwrap(), Content::Unknown { kind: "text".into() });
    let more = b"\xa4\x61v\x01\x61k\x64text\x61t\x62hi\x61z\x83\x01\x02\x03";
    assert_eq!(Content::decode(more).unwrap(), Content::Text("hi".into()));
    assert!(Content::decode(b"\xa2\x61v\x01\x61k\x64text").is_err());
    assert!(Content::decode(b"\xa2\x61v\x01\x61k\x67profile").is_err());
    assert!(Content::decode(b"hello").is_err());
    let whole = Content::Text("hi".into()).encode();
    for length in 0..whole.len() {
        assert!(Message::decode(&whole[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn a_profile_has_limits() {
    let sixty_four = "ä".repeat(MAX_GROUP_NAME);
    let read = |profile: GroupProfile| Content::decode(&Content::Profile(profile).encode());
    assert!(read(profile(&sixty_four, MAX_PICTURE)).is_ok());
    for wrong in [profile(&format!("{sixty_four}x"), 0), profile("us", MAX_PICTURE + 1), profile(" ", 0)] {
        assert!(matches!(read(wrong), Err(ContentError::Limit(_))));
    }
    let long = Picture { mime: "x".repeat(65), bytes: vec![] };
    assert!(read(GroupProfile { name: "us".into(), picture: Some(long) }).is_err());
    let largest = Content::Profile(profile(&sixty_four, MAX_PICTURE)).encode();
    assert!(largest.len() + 1024 < fastchat_protocol::limits::MAX_ENVELOPE);
}

const TARGET: MessageRef = MessageRef { device: DeviceId::new([0xd1; 16]), counter: Counter(7) };

fn file() -> FileInfo {
    let preview = Preview { width: 2, height: 1, bytes: vec![9; 3] };
    FileInfo {
        blob: [0xb1; 16],
        key: [0x11; 32],
        size: 3,
        hash: [0x22; 32],
        name: "a.txt".into(),
        mime: "text/plain".into(),
        preview: Some(preview),
        caption: None,
    }
}

#[test]
fn golden_bytes_of_what_names_another_message() {
    let target = [b"\x61r\xa2\x61d\x50".as_slice(), &[0xd1; 16], b"\x61n\x07"].concat();
    let with = |head: &[u8], tail: &[u8]| [head, &target, tail].concat();
    let cases = [
        (Content::Delete { target: TARGET }, with(b"\xa3\x61v\x01\x61k\x66delete", b"")),
        (
            Content::Reaction { target: TARGET, emoji: Some("+".into()) },
            with(b"\xa4\x61v\x01\x61k\x68reaction", b"\x61e\x61+"),
        ),
        (Content::Reaction { target: TARGET, emoji: None }, with(b"\xa3\x61v\x01\x61k\x68reaction", b"")),
        (
            Content::Edit { target: TARGET, text: "hi".into() },
            with(b"\xa4\x61v\x01\x61k\x64edit\x61t\x62hi", b""),
        ),
        (
            Content::Text(Text { text: "hi".into(), reply: Some(TARGET), mentions: Vec::new() }),
            with(b"\xa4\x61v\x01\x61k\x64text\x61t\x62hi", b""),
        ),
        (Content::Timer { seconds: 60 }, b"\xa3\x61v\x01\x61k\x65timer\x61s\x18\x3c".to_vec()),
    ];
    for (content, want) in cases {
        assert_eq!(content.encode(), want, "{content:?}");
        assert_eq!(Content::decode(&want).unwrap(), content);
        assert!(reference(&want).len() >= 3);
    }
}

#[test]
fn files_and_shared_history_come_back_and_have_limits() {
    let share = |file, accounts| Content::History(Box::new(HistoryShare { file, count: 3, accounts }));
    let of = |file| Content::File(Box::new(file));
    for content in [of(file()), share(file(), vec![AccountId::new([3; 16])])] {
        assert_eq!(Content::decode(&content.encode()).unwrap(), content);
        assert!(!format!("{content:?}").contains("a.txt"), "names are not for logs");
        reference(&content.encode());
    }
    let large = |side, bytes| Preview { width: side, height: 1, bytes: vec![0; bytes] };
    let wrong = [
        of(FileInfo { name: "x".repeat(256), ..file() }),
        of(FileInfo { caption: Some("x".repeat(MAX_CAPTION + 1)), ..file() }),
        of(FileInfo { preview: Some(large(1, MAX_PREVIEW + 1)), ..file() }),
        of(FileInfo { preview: Some(large(513, 1)), ..file() }),
        share(file(), vec![AccountId::new([3; 16]); MAX_MENTIONS + 1]),
        share(FileInfo { size: MAX_SHARED_BYTES + 1, ..file() }, Vec::new()),
        Content::History(Box::new(HistoryShare {
            file: file(),
            count: MAX_SHARED + 1,
            accounts: Vec::new(),
        })),
        Content::Text(Text { mentions: vec![AccountId::new([3; 16]); MAX_MENTIONS + 1], ..Text::default() }),
        Content::Reaction { target: TARGET, emoji: Some("x".repeat(MAX_REACTION + 1)) },
        Content::Reaction { target: TARGET, emoji: Some(String::new()) },
        Content::Timer { seconds: MAX_TIMER + 1 },
    ];
    for content in wrong {
        assert!(matches!(Content::decode(&content.encode()), Err(ContentError::Limit(_))), "{content:?}");
    }
}

#[test]
fn a_message_says_how_long_it_is_kept_and_never_for_ever_by_mistake() {
    let kept = |expires_s| Message { expires_s, ..Message::new(Content::Text("hi".into())) };
    assert_eq!(Message::decode(&kept(Some(60)).encode()).unwrap(), kept(Some(60)));
    for wrong in [Some(0), Some(MAX_TIMER + 1)] {
        assert!(Message::decode(&kept(wrong).encode()).is_err());
    }
    assert!(Message::decode(b"\xa4\x61v\x01\x61k\x64text\x61t\x62hi\x61x\x61y").is_err());
}

mod arbitrary {
    use super::*;
    use fastchat_protocol::{Counter, DeviceId};
    use proptest::{collection::vec, option, prelude::*};

    fn target() -> impl Strategy<Value = MessageRef> {
        (any::<[u8; 16]>(), any::<u64>())
            .prop_map(|(device, n)| MessageRef { device: DeviceId::new(device), counter: Counter(n) })
    }

    fn text() -> impl Strategy<Value = Text> {
        let accounts = vec(any::<[u8; 16]>().prop_map(AccountId::new), 0..4);
        (".*", option::of(target()), accounts).prop_map(|(text, reply, mentions)| Text {
            text,
            reply,
            mentions,
        })
    }

    fn described() -> impl Strategy<Value = FileInfo> {
        let preview = (1..=512u16, 1..=512u16, vec(any::<u8>(), 0..64));
        let preview = preview.prop_map(|(width, height, bytes)| Preview { width, height, bytes });
        let fixed = (any::<[u8; 16]>(), any::<[u8; 32]>(), any::<u64>(), any::<[u8; 32]>());
        (fixed, "[^/]{1,40}", "[a-z/]{0,20}", option::of(preview), option::of(".{0,40}")).prop_map(
            |((blob, key, size, hash), name, mime, preview, caption)| FileInfo {
                blob,
                key,
                size,
                hash,
                name,
                mime,
                preview,
                caption,
            },
        )
    }

    fn content() -> impl Strategy<Value = Content> {
        let edited = text().prop_map(|text| Text { reply: None, ..text });
        let accounts = vec(any::<[u8; 16]>().prop_map(AccountId::new), 0..4);
        prop_oneof![
            text().prop_map(Content::Text),
            described().prop_map(|file| Content::File(Box::new(file))),
            (target(), edited).prop_map(|(target, text)| Content::Edit { target, text }),
            target().prop_map(|target| Content::Delete { target }),
            (target(), option::of(".{1,10}")).prop_map(|(target, emoji)| Content::Reaction { target, emoji }),
            (0..=MAX_TIMER).prop_map(|seconds| Content::Timer { seconds }),
            (described(), 0..=MAX_SHARED, 0..=MAX_SHARED_BYTES, accounts).prop_map(
                |(file, count, size, accounts)| {
                    let file = FileInfo { size, ..file };
                    Content::History(Box::new(HistoryShare { file, count, accounts }))
                }
            ),
            "[a-z][a-z ]{0,40}".prop_map(|name| Content::Profile(GroupProfile { name, picture: None })),
            Just(Content::Accepted),
        ]
    }

    proptest! {
        #[test]
        fn whatever_bytes_come_nothing_panics(bytes in vec(any::<u8>(), 0..300)) {
            let _ = Message::decode(&bytes);
            // Behind the beginning of each kind, too.
            for kind in ["text", "file", "edit", "delete", "reaction", "timer", "history", "profile"] {
                let mut known = b"\xa3\x61v\x01\x61k".to_vec();
                known.push(0x60 + kind.len() as u8);
                known.extend(kind.as_bytes());
                known.extend(&bytes);
                let _ = Message::decode(&known);
            }
        }

        #[test]
        fn whatever_is_said_comes_back(content in content(), expires in option::of(1..=MAX_TIMER)) {
            let message = Message { expires_s: expires, ..Message::new(content) };
            let bytes = message.encode();
            prop_assert_eq!(Message::decode(&bytes).unwrap(), message);
            for length in 0..bytes.len() {
                prop_assert!(Message::decode(&bytes[..length]).is_err(), "{} of {}", length, bytes.len());
            }
        }
    }
}

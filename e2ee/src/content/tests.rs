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
    let newer = b"\xa3\x61v\x01\x61k\x65reply\x62of\x07";
    assert_eq!(Content::decode(newer).unwrap(), Content::Unknown { kind: "reply".into() });
    // Fields of ours with another type, and a manifest view of another form.
    let other = b"\xa5\x61v\x01\x61k\x65reply\x61t\x07\x61p\x61x\x61m\x80";
    let read = Message::decode(other).unwrap();
    assert_eq!(read, Message::new(Content::Unknown { kind: "reply".into() }));
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

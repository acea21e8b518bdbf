//! The format does not move by accident: annotated bytes of every frame.
//!
//! Each is decoded by our codec and by serde_cbor, an independent one; what they read is the same, and
//! both write the same bytes again. The vectors were made by neither.

#[path = "support/vectors.rs"]
mod vectors;

use fastchat_protocol::{ClientFrame, RequestId, ServerFrame, bus::BusFrame, codec, fleet::FleetFrame};
use serde_cbor::Value;
use std::collections::BTreeSet;
use vectors::Vector;

/// A frame of any direction.
#[derive(Debug)]
enum Any {
    Client(ClientFrame),
    Server(ServerFrame),
    Bus(BusFrame),
    Fleet(FleetFrame),
}

/// Writes a frame with serde_cbor. A `match` of all frames, so that a new one cannot be left out.
macro_rules! reference {
    ($frame:expr, $request:expr, $direction:ident: $($name:ident)+) => {
        match $frame {
            $($direction::$name(body) => serde_cbor::to_vec(&($frame.number(), $request, body)),)+
        }
    };
}

impl Any {
    fn decode(vector: &Vector) -> (RequestId, Self) {
        let bytes = &vector.bytes;
        let decoded = match vector.direction.as_str() {
            "client" => ClientFrame::decode(bytes).map(|(request, frame)| (request, Self::Client(frame))),
            "server" => ServerFrame::decode(bytes).map(|(request, frame)| (request, Self::Server(frame))),
            "bus" => BusFrame::decode(bytes).map(|(request, frame)| (request, Self::Bus(frame))),
            "fleet" => FleetFrame::decode(bytes).map(|(request, frame)| (request, Self::Fleet(frame))),
            other => panic!("{}: no direction {other}", vector.file),
        };
        decoded.unwrap_or_else(|error| panic!("{}: {error}", vector.file))
    }

    fn number(&self) -> u16 {
        match self {
            Self::Client(frame) => frame.number(),
            Self::Server(frame) => frame.number(),
            Self::Bus(frame) => frame.number(),
            Self::Fleet(frame) => frame.number(),
        }
    }

    fn encode(&self, request: RequestId) -> Vec<u8> {
        match self {
            Self::Client(frame) => frame.encode(request),
            Self::Server(frame) => frame.encode(request),
            Self::Bus(frame) => frame.encode(request),
            Self::Fleet(frame) => frame.encode(request),
        }
        .into()
    }

    fn encode_by_serde_cbor(&self, request: RequestId) -> Vec<u8> {
        let bytes = match self {
            Self::Client(frame) => reference!(frame, request, ClientFrame:
                Hello Register Login Resume Send Commit Found Fetch Ack FetchMailbox AckMailbox Sync FindAccount
                GetAccount PublishKeyPackages ClaimKeyPackages GetGroupState GetTree PutManifest ChangePassword
                FoundGroup Leave Link Recover PutSlot GetSlot DropSlot SetRecovery Restore Block GetBlocked
                DeleteAccount AskPresence SetVisible BeginBlob FinishBlob GetBlob DropBlob
                MarkRead GetReceipts Typing SetSharing),
            Self::Server(frame) => reference!(frame, request, ServerFrame:
                Hello Session Done Refused Sent Deliver LogPage Heads MailboxPage Conversations Account
                KeyPackages KeyPackagesLeft GroupState Tree Resync Draining Move Closing
                Restricted Slot Blocked Presence BlobGrant Receipt Receipts Typing),
            Self::Bus(frame) => reference!(frame, request, BusFrame:
                Row Mailbox Connected Revoked Joined PresenceAsked PresenceTold Visible Receipt Typing),
            Self::Fleet(frame) => reference!(frame, request, FleetFrame: Heartbeat Shed Balancer),
        };
        bytes.expect("serde_cbor writes it")
    }

    /// What is in the frame, as text.
    fn text(&self) -> String {
        match self {
            Self::Client(frame) => format!("{frame:?}"),
            Self::Server(frame) => format!("{frame:?}"),
            Self::Bus(frame) => format!("{frame:?}"),
            Self::Fleet(frame) => format!("{frame:?}"),
        }
    }
}

#[test]
fn every_frame_has_a_vector() {
    let numbers = |direction: &str| -> BTreeSet<u16> {
        let all = vectors::load().into_iter().filter(|vector| vector.direction == direction);
        all.map(|vector| vector.number).collect()
    };
    let known =
        |numbers: &[(u16, &str)]| -> BTreeSet<u16> { numbers.iter().map(|(number, _)| *number).collect() };
    assert_eq!(numbers("client"), known(ClientFrame::NUMBERS));
    assert_eq!(numbers("server"), known(ServerFrame::NUMBERS));
    assert_eq!(numbers("bus"), known(BusFrame::NUMBERS));
    assert_eq!(numbers("fleet"), known(FleetFrame::NUMBERS));
}

#[test]
fn a_vector_decodes_to_what_it_says_and_encodes_to_itself() {
    for vector in vectors::load() {
        let (request, frame) = Any::decode(&vector);
        assert_eq!(frame.number(), vector.number, "{}", vector.file);
        assert_eq!(format!("{request:?} {}", frame.text()), vector.decoded, "{}", vector.file);
        assert_eq!(hex::encode(frame.encode(request)), hex::encode(&vector.bytes), "{}", vector.file);
    }
}

#[test]
fn serde_cbor_reads_and_writes_the_same() {
    for vector in vectors::load() {
        let theirs: Value = serde_cbor::from_slice(&vector.bytes).expect("serde_cbor reads it");
        let ours: Value = codec::decode(&vector.bytes).expect("our codec reads it");
        assert_eq!(ours, theirs, "{}", vector.file);
        let (request, frame) = Any::decode(&vector);
        assert_eq!(
            hex::encode(frame.encode_by_serde_cbor(request)),
            hex::encode(&vector.bytes),
            "{}",
            vector.file
        );
    }
}

#[test]
fn numbers_are_used_once_and_never_again() {
    for (numbers, retired) in [
        (ClientFrame::NUMBERS, ClientFrame::RETIRED),
        (ServerFrame::NUMBERS, ServerFrame::RETIRED),
        (BusFrame::NUMBERS, BusFrame::RETIRED),
        (FleetFrame::NUMBERS, FleetFrame::RETIRED),
    ] {
        let mut seen = BTreeSet::new();
        let all = numbers.iter().map(|(number, _)| number).chain(retired);
        all.for_each(|number| assert!(seen.insert(number), "{number} is used twice"));
    }
}

/// Keys do not show themselves in a `;=` line.
#[test]
fn a_recovery_key_is_no_auth_key() {
    let all = vectors::load();
    let of = |slug: &str| {
        let vector = all.iter().find(|vector| vector.file.contains(slug)).expect("a vector");
        let (_, Any::Client(frame)) = Any::decode(vector) else { panic!("another direction") };
        match frame {
            ClientFrame::Link(link) => link.auth_key,
            ClientFrame::Restore(restore) => restore.auth_key,
            ClientFrame::DeleteAccount(delete) => delete.auth_key,
            ClientFrame::Recover(recover) => recover.recovery_key,
            ClientFrame::SetRecovery(set) => set.recovery_key,
            other => panic!("{} has no key", other.name()),
        }
    };
    for slug in ["-link", "-restore", "-delete-account"] {
        assert_eq!(of(slug).expose(), "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA", "{slug}");
    }
    for slug in ["-recover", "-set-recovery"] {
        assert_eq!(of(slug).expose(), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", "{slug}");
    }
}

#[test]
fn the_old_auth_key_is_the_first() {
    let all = vectors::load();
    let vector = all.iter().find(|vector| vector.file.contains("change-password")).expect("a vector");
    let (_, Any::Client(ClientFrame::ChangePassword(change))) = Any::decode(vector) else {
        panic!("another frame")
    };
    assert_eq!(change.old.expose(), "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA");
    assert_eq!(change.new.expose(), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8");
}

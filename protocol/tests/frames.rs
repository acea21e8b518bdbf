//! What holds for every frame: it survives its bytes, and no bytes hurt.

#[path = "support/arbitrary.rs"]
mod arbitrary;
#[path = "support/vectors.rs"]
#[expect(dead_code, reason = "another test uses the rest")]
mod vectors;

use arbitrary::{bus_frame, client_frame, fleet_frame, request, server_frame};
use fastchat_protocol::{
    ClientFrame, RequestId, ServerFrame, VERSIONS, bus::BusFrame, client::Hello, fleet::FleetFrame,
    frame::FrameError, limits,
};
use proptest::prelude::*;
use serde_cbor::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Reads bytes in every direction. What is read must be written and read again unchanged: a decoder
/// that takes more than the encoder can say would let a gateway change what it passes on.
fn read_all(bytes: &[u8]) {
    if let Ok((request, frame)) = ClientFrame::decode(bytes) {
        assert_eq!(ClientFrame::decode(&frame.encode(request)), Ok((request, frame)));
    }
    if let Ok((request, frame)) = ServerFrame::decode(bytes) {
        assert_eq!(ServerFrame::decode(&frame.encode(request)), Ok((request, frame)));
    }
    if let Ok((request, frame)) = BusFrame::decode(bytes) {
        assert_eq!(BusFrame::decode(&frame.encode(request)), Ok((request, frame)));
    }
    if let Ok((request, frame)) = FleetFrame::decode(bytes) {
        assert_eq!(FleetFrame::decode(&frame.encode(request)), Ok((request, frame)));
    }
}

proptest! {
    #[test]
    fn a_client_frame_survives_its_bytes(request in request(), frame in client_frame()) {
        prop_assert_eq!(ClientFrame::decode(&frame.encode(request)), Ok((request, frame)));
    }

    #[test]
    fn a_server_frame_survives_its_bytes(request in request(), frame in server_frame()) {
        prop_assert_eq!(ServerFrame::decode(&frame.encode(request)), Ok((request, frame)));
    }

    #[test]
    fn a_bus_record_survives_its_bytes(request in request(), frame in bus_frame()) {
        prop_assert_eq!(BusFrame::decode(&frame.encode(request)), Ok((request, frame)));
    }

    #[test]
    fn a_record_of_the_fleet_survives_its_bytes(request in request(), frame in fleet_frame()) {
        prop_assert_eq!(FleetFrame::decode(&frame.encode(request)), Ok((request, frame)));
    }

    #[test]
    fn changed_bytes_never_panic(frame in client_frame(), at: prop::sample::Index, mask in 1..=255_u8) {
        let mut bytes = frame.encode(RequestId(7)).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= mask;
        read_all(&bytes);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&bytes);
        // The same behind a good beginning, so that the bodies are reached.
        for number in 1..=39_u8 {
            let number = if number < 24 { vec![number] } else { vec![0x18, number] };
            read_all(&[&[0x83], &number[..], &[0x07], &bytes].concat());
        }
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_every_vector_is_survived() {
    for vector in vectors::load() {
        for length in 0..vector.bytes.len() {
            let short = &vector.bytes[..length];
            read_all(short);
            let refused = match vector.direction.as_str() {
                "client" => ClientFrame::decode(short).is_err(),
                "server" => ServerFrame::decode(short).is_err(),
                "bus" => BusFrame::decode(short).is_err(),
                _ => FleetFrame::decode(short).is_err(),
            };
            assert!(refused, "{} is a frame without its last bytes", vector.file);
        }
        for bit in 0..vector.bytes.len() * 8 {
            let mut bytes = vector.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            read_all(&bytes);
        }
    }
}

#[test]
fn bytes_after_a_frame_are_refused() {
    for vector in vectors::load().iter().filter(|vector| vector.direction == "client") {
        let longer = [&vector.bytes[..], &[0]].concat();
        assert!(matches!(ClientFrame::decode(&longer), Err(FrameError::Malformed(_))), "{}", vector.file);
    }
}

/// Adds a field of a later version to every map of a value.
fn with_unknown_fields(value: Value) -> Value {
    let unknown = Value::Map([(Value::Text("x".into()), Value::Array(vec![Value::Null]))].into());
    match value {
        Value::Map(map) => {
            let mut map: BTreeMap<_, _> =
                map.into_iter().map(|(key, value)| (key, with_unknown_fields(value))).collect();
            map.insert(Value::Text("zz".into()), unknown);
            Value::Map(map)
        }
        Value::Array(list) => Value::Array(list.into_iter().map(with_unknown_fields).collect()),
        other => other,
    }
}

#[test]
fn unknown_fields_are_ignored() {
    for vector in vectors::load() {
        let value: Value = serde_cbor::from_slice(&vector.bytes).expect("CBOR");
        let more = serde_cbor::to_vec(&with_unknown_fields(value)).expect("CBOR");
        assert!(more.len() > vector.bytes.len(), "{}", vector.file);
        match vector.direction.as_str() {
            "client" => {
                assert_eq!(ClientFrame::decode(&more), ClientFrame::decode(&vector.bytes), "{}", vector.file)
            }
            "server" => {
                assert_eq!(ServerFrame::decode(&more), ServerFrame::decode(&vector.bytes), "{}", vector.file)
            }
            "bus" => assert_eq!(BusFrame::decode(&more), BusFrame::decode(&vector.bytes), "{}", vector.file),
            _ => assert_eq!(FleetFrame::decode(&more), FleetFrame::decode(&vector.bytes), "{}", vector.file),
        }
    }
}

#[test]
fn unknown_numbers_keep_their_request() {
    let known: BTreeSet<u16> = ClientFrame::NUMBERS.iter().map(|(number, _)| *number).collect();
    for number in (0..1_000).chain([u16::MAX]).filter(|number| !known.contains(number)) {
        for body in [Value::Null, Value::Map(BTreeMap::new()), Value::Array(vec![Value::Bytes(vec![0; 99])])]
        {
            let bytes = serde_cbor::to_vec(&(number, 77_u32, body)).expect("CBOR");
            let unknown = FrameError::Unknown { number, request: RequestId(77) };
            assert_eq!(ClientFrame::decode(&bytes), Err(unknown));
        }
    }
}

#[test]
fn a_frame_is_an_array_of_three() {
    let frame = (4_u16, 1_u32, BTreeMap::<String, u8>::new());
    let bytes = |value: &dyn Fn() -> Vec<u8>| value();
    for wrong in [
        bytes(&|| serde_cbor::to_vec(&(frame.0, frame.1)).expect("CBOR")),
        bytes(&|| serde_cbor::to_vec(&(frame.0, frame.1, &frame.2, 0)).expect("CBOR")),
        bytes(&|| serde_cbor::to_vec(&(70_000_u32, frame.1, &frame.2)).expect("CBOR")),
        bytes(&|| serde_cbor::to_vec(&(frame.0, 1_u64 << 32, &frame.2)).expect("CBOR")),
        bytes(&|| serde_cbor::to_vec(&(-1, frame.1, &frame.2)).expect("CBOR")),
        bytes(&|| serde_cbor::to_vec(&frame.2).expect("CBOR")),
        Vec::new(),
    ] {
        assert!(
            matches!(ClientFrame::decode(&wrong), Err(FrameError::Malformed(_))),
            "{}",
            hex::encode(wrong)
        );
    }
}

#[test]
fn nesting_is_limited_in_what_is_ignored_too() {
    let nested = |depth: usize| {
        let mut value = Value::Null;
        for _ in 0..depth {
            value = Value::Array(vec![value]);
        }
        let body = BTreeMap::from([("a", Value::Array(vec![])), ("zz", value)]);
        serde_cbor::to_vec(&(14_u16, 0_u32, body)).expect("CBOR")
    };
    ClientFrame::decode(&nested(limits::MAX_DEPTH - 3)).expect("within the limit");
    assert!(matches!(ClientFrame::decode(&nested(limits::MAX_DEPTH)), Err(FrameError::Malformed(_))));
}

#[test]
fn any_version_list_is_read_so_that_it_can_be_answered() {
    let hello =
        Hello { versions: (0..500).rev().collect(), agent: String::new(), host: "h".into(), ticket: None };
    let frame = ClientFrame::Hello(hello);
    assert_eq!(ClientFrame::decode(&frame.encode(RequestId(1))), Ok((RequestId(1), frame)));
    assert!(VERSIONS.is_sorted_by(|better, worse| better > worse), "best first");
}

/// What goes around the largest part of a frame: a few hundred bytes of ids and numbers.
const AROUND: usize = 1_024;

/// The largest parts fit their frames; where they do not, this does not compile.
const _: () = {
    assert!(limits::MAX_ENVELOPE + AROUND < limits::MAX_FRAME);
    assert!(limits::MAX_COMMIT + AROUND < limits::MAX_FRAME);
    assert!(limits::MAX_TREE + AROUND < limits::MAX_FRAME);
    // A page ends after the row that passes its limit; a row costs 128 bytes around its envelope.
    let rows = limits::MAX_PAGE_ROWS as usize;
    assert!(limits::MAX_PAGE_BYTES + limits::MAX_ENVELOPE + 128 * rows < limits::MAX_FRAME);
    assert!(limits::MAX_MANIFEST + 2 * AROUND < limits::MAX_FRAME_UNAUTHENTICATED);
    assert!(limits::MAX_LIVE_ENVELOPE <= limits::MAX_ENVELOPE);
    assert!(limits::MAX_SLOT_PART + AROUND < limits::MAX_FRAME);
    assert!(limits::MAX_SLOT_PART < limits::MAX_SLOTS);
    // `Restricted` brings manifest and sealed keys at once.
    assert!(limits::MAX_MANIFEST + limits::MAX_RECOVERY + AROUND < limits::MAX_FRAME);
    assert!(limits::MAX_PRESENCE * 17 + AROUND < limits::MAX_FRAME);
    assert!(limits::MAX_ADDS < limits::MAX_PQ_DEVICES && limits::MAX_PQ_DEVICES < limits::MAX_GROUP_DEVICES);
    // Every account of a group has a device in it.
    assert!(limits::MAX_MEMBERS <= limits::MAX_GROUP_DEVICES);
};

//! docs/protocol.md says what the code does: its CDDL accepts every vector and refuses spoilt ones, its
//! table of codes is complete.

#[path = "support/cddl.rs"]
mod cddl;
#[path = "support/vectors.rs"]
#[expect(dead_code, reason = "another test uses the rest")]
mod vectors;

use cddl::Schema;
use fastchat_protocol::{
    ClientFrame, Code, GatewayId, Retry, ServerFrame, bus::BusFrame, fleet::FleetFrame, ticket,
};
use serde_cbor::Value;
use std::collections::BTreeMap;
use vectors::Vector;

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");
    std::fs::read_to_string(path).expect("docs/protocol.md")
}

fn schema() -> Schema {
    let text = document();
    let (_, rest) = text.split_once("```cddl\n").expect("a block of CDDL");
    let (cddl, _) = rest.split_once("```").expect("the end of the block");
    Schema::parse(cddl)
}

fn check(schema: &Schema, vector: &Vector, bytes: &[u8]) -> Result<(), String> {
    let value = serde_cbor::from_slice(bytes).expect("CBOR");
    schema.check(&format!("{}-frame", vector.direction), &value)
}

#[test]
fn the_cddl_accepts_every_vector() {
    let schema = schema();
    for vector in vectors::load() {
        check(&schema, &vector, &vector.bytes).unwrap_or_else(|error| panic!("{}: {error}", vector.file));
    }
}

/// Changes the body's field of a name.
fn change(vector: &Vector, change: impl Fn(&str, &mut BTreeMap<Value, Value>)) -> Vec<Vec<u8>> {
    let Ok(Value::Array(frame)) = serde_cbor::from_slice(&vector.bytes) else {
        panic!("{}: no array", vector.file)
    };
    let Some(Value::Map(body)) = frame.get(2) else { panic!("{}: no body", vector.file) };
    let names =
        body.keys().filter_map(|key| if let Value::Text(name) = key { Some(name.clone()) } else { None });
    names
        .map(|name| {
            let mut body = body.clone();
            change(&name, &mut body);
            let frame = vec![frame[0].clone(), frame[1].clone(), Value::Map(body)];
            serde_cbor::to_vec(&Value::Array(frame)).expect("CBOR")
        })
        .collect()
}

fn decodes(vector: &Vector, bytes: &[u8]) -> bool {
    match vector.direction.as_str() {
        "client" => ClientFrame::decode(bytes).is_ok(),
        "server" => ServerFrame::decode(bytes).is_ok(),
        "bus" => BusFrame::decode(bytes).is_ok(),
        _ => FleetFrame::decode(bytes).is_ok(),
    }
}

/// What may be absent, and what type a field has, is the same in the CDDL and in the decoder.
#[test]
fn the_cddl_and_the_decoder_demand_the_same() {
    let schema = schema();
    for vector in vectors::load() {
        let missing = change(&vector, |name, body| drop(body.remove(&Value::Text(name.into()))));
        let mistyped =
            change(&vector, |name, body| drop(body.insert(Value::Text(name.into()), Value::Float(0.5))));
        for bytes in missing.iter().chain(&mistyped) {
            let by_cddl = check(&schema, &vector, bytes).is_ok();
            assert_eq!(by_cddl, decodes(&vector, bytes), "{}: {}", vector.file, hex::encode(bytes));
        }
    }
}

#[test]
fn the_cddl_accepts_a_ticket() {
    let body = ticket::Ticket { gateway: GatewayId::new([1; 16]), expires_at_ms: 1 << 40, nonce: [2; 16] };
    let signed = ticket::Signed { body: &body.encode(), signature: &[3; 64] }.encode();
    for (rule, bytes) in [("ticket-body", body.encode()), ("ticket", signed)] {
        let value = serde_cbor::from_slice(&bytes).expect("CBOR");
        schema().check(rule, &value).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_table_of_codes_is_complete() {
    let text = document();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| ") && line.as_bytes().get(2).is_some_and(u8::is_ascii_digit))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let said: Vec<(u16, &str, &str)> =
        rows.iter().map(|row| (row[1].parse().expect("a number"), row[2], row[3])).collect();
    let known: Vec<(u16, &str, &str)> =
        Code::ALL.iter().map(|(number, label)| (*number, *label, retry(Code::from(*number)))).collect();
    assert_eq!(said, known);
    assert!(rows.iter().all(|row| !row[4].is_empty()), "every code says what the client does");
}

fn retry(code: Code) -> &'static str {
    match code.retry() {
        Retry::Never => "never",
        Retry::Later => "later",
        Retry::Unknown => "unknown",
        Retry::Changed => "changed",
    }
}

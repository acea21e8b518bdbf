//! A schema that allows everything would be none.

use fastchat_tests::schema::{
    Schema,
    spoken::{COMMANDS, LISTEN, RPC, Spoken},
};
use serde_json::{Value, json};

const ID: &str = "00112233445566778899aabbccddeeff";

fn message() -> Value {
    json!({
        "v": 1, "type": "message", "with": "bob", "conversation": ID, "incarnation": 0, "seq": 7, "kind": "text",
        "from": "bob", "own": false, "text": "hello", "at_ms": 1, "id": format!("{ID}-3"),
    })
}

/// A good document, and the ways to spoil it, each by another value at a place (or none).
type Spoilt = (&'static str, Value, Vec<(&'static str, Option<Value>)>);

fn spoil(mut document: Value, place: &str, value: Option<Value>) -> Value {
    let (parent, name) = place.rsplit_once('/').expect("a place");
    let parent =
        document.pointer_mut(parent).expect("the place is there").as_object_mut().expect("an object");
    match value {
        Some(value) => parent.insert(name.to_owned(), value),
        None => parent.remove(name),
    };
    document
}

fn all_are_refused(schema: &Schema, cases: Vec<Spoilt>) {
    for (by, good, ways) in cases {
        assert_eq!(schema.faults_by(by, &good), [""; 0], "{by}");
        for (place, value) in ways {
            let bad = spoil(good.clone(), place, value);
            assert!(!schema.faults_by(by, &bad).is_empty(), "{by} allows {bad}");
        }
    }
}

#[test]
fn bad_events_are_refused() {
    let link = json!({ "v": 1, "type": "link", "up": false, "reason": "x", "retry_ms": null });
    let of_message = vec![
        ("/v", None),
        ("/v", Some(json!(2))),
        ("/type", Some(json!("massage"))),
        ("/type", Some(json!("sent"))),
        ("/kind", Some(json!("poem"))),
        ("/seq", Some(json!("7"))),
        ("/seq", Some(json!(-1))),
        ("/seq", Some(json!(1.5))),
        ("/seq", None),
        ("/conversation", Some(json!("cafe"))),
        ("/conversation", Some(json!(ID.to_uppercase()))),
        ("/id", Some(json!(ID))),
        ("/id", Some(json!(format!("{ID}-")))),
        ("/id", Some(Value::Null)),
        ("/reactions", Some(json!({ "bob": 1 }))),
        ("/mentions", Some(json!([1]))),
        ("/file", Some(json!({ "name": "a", "mime": "b", "size": 1, "sha256": "00", "preview": true }))),
        ("/reply", Some(json!({ "from": "bob", "text": "x", "colour": "red" }))),
        ("/record", Some(json!("00"))),
    ];
    let of_link = vec![("/retry_ms", Some(json!("soon"))), ("/reason", None), ("/gateway", Some(json!("x")))];
    all_are_refused(&LISTEN, vec![("#", message(), of_message), ("#", link, of_link)]);
}

#[test]
fn bad_calls_and_answers_are_refused() {
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "send",
        "params": { "id": ID, "to": "bob", "text": "hello", "wait_ms": 0 },
    });
    let of_call = vec![
        ("/jsonrpc", Some(json!("1.0"))),
        ("/id", Some(json!([1]))),
        ("/method", Some(json!("fly"))),
        ("/method", Some(json!("shutdown"))),
        ("/method", Some(json!("unread"))),
        ("/params", None),
        ("/params", Some(json!([1]))),
        ("/params/id", Some(json!("x"))),
        ("/params/wait_ms", None),
        ("/params/wait", Some(json!(1))),
    ];
    let answer = json!({ "jsonrpc": "2.0", "id": "a", "result": { "v": 1, "type": "done" } });
    let of_answer = vec![
        ("/id", None),
        ("/result", None),
        ("/error", Some(json!({}))),
        ("/result/v", None),
        ("/result/type", Some(json!("undone"))),
    ];
    let error = json!({
        "jsonrpc": "2.0", "id": null,
        "error": { "code": -32000, "message": "no", "data": { "kind": "not_found", "exit": 7 } },
    });
    let of_error = vec![
        ("/error/code", Some(json!(-1))),
        ("/error/data/kind", Some(json!("bored"))),
        ("/error/data/exit", Some(json!(9))),
        ("/error/data", None),
    ];
    let event = json!({ "jsonrpc": "2.0", "method": "event", "params": message() });
    let of_event = vec![("/method", Some(json!("events"))), ("/params/seq", None), ("/id", Some(json!(1)))];
    all_are_refused(
        &RPC,
        vec![
            ("#/$defs/input", call, of_call),
            ("#/$defs/output", answer, of_answer),
            ("#/$defs/output", error, of_error),
            ("#/$defs/output", event, of_event),
        ],
    );
    assert!(!RPC.faults_by("#/$defs/input", &json!([])).is_empty(), "an empty batch");
}

#[test]
fn bad_lines_of_commands_are_refused() {
    let sent = json!({ "v": 1, "type": "sent", "id": ID, "conversation": ID, "seq": 1, "at_ms": 1 });
    let of_sent = vec![("/id", None), ("/type", Some(json!("message"))), ("/to", Some(json!("bob")))];
    let shown = spoil(message(), "/wanted", Some(json!(true)));
    let of_shown = vec![("/wanted", None), ("/wanted", Some(json!(1))), ("/hidden", Some(json!(true)))];
    let check = json!({
        "v": 1, "type": "check", "check": "session", "verdict": "ok", "found": "x", "details": { "gateway": "g" },
    });
    let of_check = vec![
        ("/verdict", Some(json!("maybe"))),
        ("/check", Some(json!("weather"))),
        ("/details", Some(json!({}))),
        ("/details/port", Some(json!(1))),
    ];
    let error = json!({ "v": 1, "type": "error", "kind": "usage", "exit": 2, "message": "x" });
    let of_error = vec![("/kind", Some(json!("x"))), ("/exit", Some(json!(0))), ("/message", None)];
    all_are_refused(
        &COMMANDS,
        vec![
            ("#/$defs/command.send", sent, of_sent),
            ("#/$defs/command.show", shown, of_shown),
            ("#/$defs/command.doctor", check, of_check),
            ("#/$defs/error", error, of_error),
        ],
    );
}

/// The harness finds what is wrong in what a program wrote.
#[test]
fn what_a_program_writes_is_looked_at() {
    let faults = |arguments: &[&str], asked: &[&str], out: &[&str], err: &[&str]| {
        let asked: Vec<String> = asked.iter().map(|line| (*line).to_owned()).collect();
        let spoken = Spoken::of(arguments).expect("it speaks to programs");
        spoken.faults(&asked, out.iter().copied(), err.iter().copied()).len()
    };
    let (send, done) = (["send", "bob", "x", "--json"], r#"{"v":1,"type":"done"}"#);
    let group = ["group", "leave", "#team", "--json"];
    assert_eq!(faults(&group, &[], &[done], &["fastchat: a note"]), 0);
    assert!(faults(&send, &[], &[done], &[]) > 0, "another command's");
    assert!(faults(&group, &[], &["{", done], &[]) > 0, "half a line in the middle");
    assert_eq!(faults(&group, &[], &[done, r#"{"v":"#], &[]), 0, "it was killed while it wrote");
    assert!(faults(&group, &[], &[], &[r#"{"v":1,"type":"error"}"#]) > 0);
    assert!(faults(&["nothing", "--json"], &[], &[done], &[]) > 0, "a command without a schema");
    let ask = r#"{"jsonrpc":"2.0","id":1,"method":"status"}"#;
    let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"v":1,"type":"done"}}"#;
    assert_eq!(faults(&["rpc"], &[], &[answer], &[]), 0);
    assert!(faults(&["rpc"], &[ask], &[answer], &[]) > 0, "another method's result");
    assert_eq!((Spoken::of(&["send", "bob", "x"]), Spoken::of(&["rpc", "--schema"])), (None, None));
}

#[test]
fn a_schema_that_would_not_be_checked_is_refused() {
    let bad = [
        r#"{ "maxLength": 3 }"#,
        r#"{ "properties": { "a": { "oneOf": [] } } }"#,
        r##"{ "$ref": "#/$defs/nothing" }"##,
        r#"{ "pattern": "^(a|b)$" }"#,
        r#"{ "pattern": "[0-9]" }"#,
        r#"{ "unevaluatedProperties": true }"#,
        r#"{ "items": 3 }"#,
        "{",
    ];
    for text in bad {
        assert!(Schema::parse(text).is_err(), "{text}");
    }
    assert!(Schema::parse(r#"{ "anyOf": [true, { "pattern": "^a[0-9]{2}-x*$" }] }"#).is_ok());
}

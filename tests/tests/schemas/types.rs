//! The schemas say of methods, results and events what the types of `fastchat_client::api` say.

use crate::samples::full;
use fastchat_client::api::{Event, Request, Response};
use fastchat_tests::schema::{
    Schema,
    spoken::{COMMANDS, LISTEN, RPC},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The names that serde knows, from what it says of one that it does not.
fn variants<T: DeserializeOwned>(tag: &str) -> BTreeSet<String> {
    let error = serde_json::from_value::<T>(json!({ tag: "?" })).err().expect("there is no ?").to_string();
    let names = error.split('`').skip(3).step_by(2).map(str::to_owned).collect();
    assert!(error.starts_with("unknown variant `?`, expected one of"), "{error}");
    names
}

fn defined(schema: &Schema, beginning: &str) -> BTreeSet<String> {
    schema.defined(beginning).map(str::to_owned).collect()
}

#[test]
fn nothing_is_without_a_schema() {
    let mut methods = variants::<Request>("method");
    assert!(methods.len() > 50 && methods.remove("shutdown"), "which belongs to the owner of the profile");
    assert_eq!(defined(&RPC, "method."), methods);
    assert_eq!(defined(&RPC, "result."), variants::<Response>("type"));
    let mut events = variants::<Event>("type");
    events.insert("missed".to_owned());
    assert_eq!(defined(&RPC, "event."), events);
    // What concerns whoever sends, waits or ends is said by other means.
    for of_others in ["sent", "waiting", "failed", "progress", "transfer", "ended", "missed"] {
        assert!(events.remove(of_others), "{of_others}");
    }
    assert_eq!(defined(&LISTEN, "event."), events);
}

/// Everything that is defined is one of what a line can be.
#[test]
fn what_is_defined_can_occur() {
    let places = [
        (&*LISTEN, "event.", "#/anyOf"),
        (&*RPC, "method.", "#/$defs/call/anyOf"),
        (&*RPC, "result.", "#/$defs/result/properties/result/anyOf"),
        (&*RPC, "event.", "#/$defs/event/properties/params/anyOf"),
        (&*COMMANDS, "line.", "#/anyOf"),
    ];
    for (schema, beginning, place) in places {
        let choices = schema.part(place).and_then(Value::as_array).expect("choices");
        let names: BTreeSet<String> = choices
            .iter()
            .filter_map(|choice| choice["$ref"].as_str()?.strip_prefix("#/$defs/")?.strip_prefix(beginning))
            .map(str::to_owned)
            .collect();
        assert_eq!(names, defined(schema, beginning), "{place}");
    }
}

#[test]
fn what_is_shared_is_the_same_in_all() {
    let all = [("listen", &*LISTEN), ("rpc", &*RPC), ("commands", &*COMMANDS)];
    for (one, schema) in all {
        for name in schema.defined("") {
            let part = |schema: &Schema| schema.part(&format!("#/$defs/{name}")).cloned();
            for (other, there) in all {
                // The word has another sense there.
                if part(there).is_some() && (name, one.max(other)) != ("error", "rpc") {
                    assert_eq!(part(schema), part(there), "{name} in {one} and {other}");
                }
            }
        }
    }
}

/// All of `small` is in `large`; what is not there may have become `null`, or have been it.
fn within(small: &Value, large: &Value) -> bool {
    match (small, large) {
        (Value::Object(small), Value::Object(large)) => {
            small.iter().all(|(name, value)| within(value, large.get(name).unwrap_or(&Value::Null)))
        }
        (Value::Array(small), Value::Array(large)) => {
            small.len() == large.len() && small.iter().zip(large).all(|(small, large)| within(small, large))
        }
        (small, large) => small == large,
    }
}

/// What the schema allows at most, the type knows; and what the type then writes, the schema allows.
fn same<T: Serialize + DeserializeOwned>(
    rule: &str,
    wrap: impl Fn(Value) -> Value,
    unwrap: fn(Value) -> Value,
) {
    let part = RPC.part(rule).expect("it is defined");
    for sample in full(&RPC, part) {
        assert_eq!(RPC.faults_by(rule, &sample), [""; 0], "{rule}: {sample}");
        let read = |sample: &Value| serde_json::from_value::<T>(wrap(sample.clone()));
        let written = |read: &T| unwrap(serde_json::to_value(read).expect("it can be written"));
        let whole = read(&sample).unwrap_or_else(|error| panic!("{rule}: {error}: {sample}"));
        assert!(within(&sample, &written(&whole)), "{rule}: {sample} became {}", written(&whole));
        assert_eq!(RPC.faults_by(rule, &written(&whole)), [""; 0], "{rule}");
        for name in sample.as_object().into_iter().flatten().map(|(name, _)| name) {
            let mut less = sample.clone();
            less.as_object_mut().expect("an object").remove(name);
            let may_be_absent = RPC.faults_by(rule, &less).is_empty();
            match read(&less) {
                Ok(read) => {
                    let again = written(&read);
                    assert_eq!(RPC.faults_by(rule, &again), [""; 0], "{rule} without {name}");
                }
                Err(error) => assert!(!may_be_absent, "{rule}: {name} may be absent, but: {error}"),
            }
        }
    }
}

fn versioned(mut value: Value) -> Value {
    value["v"] = 1.into();
    value
}

#[test]
fn results_are_as_their_types() {
    for name in RPC.defined("result.") {
        same::<Response>(&format!("#/$defs/result.{name}"), |value| value, versioned);
    }
}

#[test]
fn events_are_as_their_types() {
    for name in RPC.defined("event.").filter(|name| *name != "missed") {
        same::<Event>(&format!("#/$defs/event.{name}"), |value| value, versioned);
    }
}

#[test]
fn params_are_as_their_types() {
    for name in RPC.defined("method.") {
        let rule = format!("#/$defs/method.{name}/properties/params");
        // A method without params is written without them.
        let bare = serde_json::from_value::<Request>(json!({ "method": name })).is_ok();
        let wrap = |params: Value| match bare {
            true => json!({ "method": name }),
            false => json!({ "method": name, "params": params }),
        };
        let unwrap = |mut call: Value| match call["params"].take() {
            Value::Null => json!({}),
            params => params,
        };
        same::<Request>(&rule, wrap, unwrap);
        must_be_there(name, &rule);
    }
}

/// What the schema asks for is asked for, and nothing else.
fn must_be_there(name: &str, rule: &str) {
    for params in full(&RPC, RPC.part(rule).expect("params")) {
        for property in params.as_object().expect("an object").keys() {
            let mut less = params.clone();
            less.as_object_mut().expect("an object").remove(property);
            let read = serde_json::from_value::<Request>(json!({ "method": name, "params": less }));
            let missing = read.err().is_some_and(|e| e.to_string().starts_with("missing field"));
            let asked = !RPC.faults_by(rule, &less).is_empty();
            assert_eq!(missing, asked, "{name} without {property}");
        }
    }
}

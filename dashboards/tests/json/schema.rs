//! Grafana's own schema of a dashboard (dashboards/schema), and the part of JSON Schema that it uses.

use super::{committed, folder};
use serde_json::{Map, Value};

/// Keywords that are checked; any other would be overlooked.
const KNOWN: [&str; 9] =
    ["$ref", "additionalProperties", "anyOf", "const", "enum", "items", "properties", "required", "type"];

struct Schema(Value);

impl Schema {
    fn check(&self, rule: &Value, value: &Value, place: &str, wrong: &mut Vec<String>) {
        let Some(rule) = rule.as_object() else { return };
        for keyword in rule.keys() {
            assert!(KNOWN.contains(&keyword.as_str()), "the schema says {keyword}, which nobody checks");
        }
        if let Some(Value::String(to)) = rule.get("$ref") {
            let rule = self.0.pointer(to.trim_start_matches('#')).expect("a reference leads somewhere");
            self.check(rule, value, place, wrong);
        }
        if let Some(Value::Array(choices)) = rule.get("anyOf") {
            let fits = |choice: &Value| {
                let mut wrong = Vec::new();
                self.check(choice, value, place, &mut wrong);
                wrong.is_empty()
            };
            if !choices.iter().any(fits) {
                wrong.push(format!("{place}: fits none of {}", choices.len()));
            }
        }
        let one_of = rule.get("enum").and_then(Value::as_array);
        if one_of.is_some_and(|values| !values.contains(value))
            || rule.get("const").is_some_and(|c| c != value)
        {
            wrong.push(format!("{place}: {value} is not allowed"));
        }
        if rule.get("type").is_some_and(|kinds| !is(value, kinds)) {
            wrong.push(format!("{place}: {value} is not a {}", rule["type"]));
        }
        if let (Some(items), Value::Array(values)) = (rule.get("items"), value) {
            for (n, value) in values.iter().enumerate() {
                self.check(items, value, &format!("{place}[{n}]"), wrong);
            }
        }
        if let Value::Object(object) = value {
            self.object(rule, object, place, wrong);
        }
    }

    fn object(
        &self,
        rule: &Map<String, Value>,
        object: &Map<String, Value>,
        place: &str,
        wrong: &mut Vec<String>,
    ) {
        let properties = rule.get("properties").and_then(Value::as_object);
        for name in rule.get("required").and_then(Value::as_array).into_iter().flatten() {
            if !object.contains_key(name.as_str().expect("a name")) {
                wrong.push(format!("{place}: {name} is missing"));
            }
        }
        for (name, value) in object {
            let place = format!("{place}.{name}");
            match (properties.and_then(|known| known.get(name)), rule.get("additionalProperties")) {
                (Some(rule), _) | (None, Some(rule @ Value::Object(_))) => {
                    self.check(rule, value, &place, wrong)
                }
                (None, Some(Value::Bool(false))) => wrong.push(format!("{place} is not known")),
                _ => {}
            }
        }
    }
}

fn is(value: &Value, kinds: &Value) -> bool {
    let is_one = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the schema says {other}"),
    };
    match kinds {
        Value::String(kind) => is_one(kind),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).any(is_one),
        other => panic!("{other} is no type"),
    }
}

fn schema() -> Schema {
    let text = std::fs::read_to_string(folder().join("schema/dashboard.jsonschema")).expect("the schema");
    Schema(serde_json::from_str(&text).expect("JSON"))
}

fn faults(board: &Value) -> Vec<String> {
    let (schema, mut wrong) = (schema(), Vec::new());
    schema.check(&schema.0["definitions"]["Dashboard"], board, "", &mut wrong);
    wrong
}

/// The data source adds these to an annotation; the schema knows what all data sources share.
fn without_the_data_sources_own(mut board: Value) -> Value {
    for annotation in board["annotations"]["list"].as_array_mut().into_iter().flatten() {
        let annotation = annotation.as_object_mut().expect("an annotation");
        annotation.retain(|name, _| !["titleFormat", "textFormat"].contains(&name.as_str()));
        for name in ["expr", "refId", "interval"] {
            annotation["target"].as_object_mut().expect("a target").remove(name);
        }
    }
    board
}

#[test]
fn every_dashboard_fits_grafanas_schema() {
    for (name, board) in committed() {
        let wrong = faults(&without_the_data_sources_own(board));
        assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    }
}

#[test]
fn the_schema_refuses_what_is_wrong() {
    let (_, good) = committed().pop().expect("a dashboard");
    let good = without_the_data_sources_own(good);
    type Spoil = fn(&mut Value);
    let spoilt: [(&str, Spoil); 4] = [
        ("a number for a text", |board| board["title"] = 7.into()),
        ("a key that is not known", |board| board["panels"][1]["colour"] = "red".into()),
        ("a mode that is none", |board| {
            board["panels"][1]["fieldConfig"]["defaults"]["thresholds"]["mode"] = "x".into()
        }),
        ("no kind of panel", |board| {
            drop(board["panels"][1].as_object_mut().expect("a panel").remove("type"))
        }),
    ];
    for (what, spoil) in spoilt {
        let mut board = good.clone();
        spoil(&mut board);
        assert!(!faults(&board).is_empty(), "{what} was not found");
    }
}

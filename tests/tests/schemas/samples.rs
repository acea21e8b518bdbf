//! Documents that a schema allows, made from it.

use fastchat_tests::schema::Schema;
use serde_json::{Map, Value, json};

/// With every property that is known; several, so that each alternative occurs in one.
pub(crate) fn full(schema: &Schema, rule: &Value) -> Vec<Value> {
    let mut all = vec![];
    let mut turn = 0;
    loop {
        let mut choices = Choices { turn, most: 0 };
        all.push(one(schema, rule, &mut choices));
        turn += 1;
        if turn > choices.most {
            return all;
        }
    }
}

/// In turn `n`, each choice is the `n`th alternative, or the last one there is.
struct Choices {
    turn: usize,
    most: usize,
}

impl Choices {
    fn of<'a>(&mut self, values: &'a [Value]) -> &'a Value {
        self.most = self.most.max(values.len() - 1);
        &values[self.turn.min(values.len() - 1)]
    }
}

fn one(schema: &Schema, rule: &Value, choices: &mut Choices) -> Value {
    if let Some(value) = rule.get("const") {
        return value.clone();
    }
    let example = rule.get("examples").map(|examples| examples[0].clone());
    if let Some(value) = example {
        return value;
    }
    if let Some(Value::Array(values)) = rule.get("enum") {
        return choices.of(values).clone();
    }
    let mut object = Map::new();
    if let Some(to) = rule.get("$ref").and_then(Value::as_str) {
        let there = one(schema, schema.part(to).expect("it was checked"), choices);
        let Value::Object(of_it) = there else { return there };
        object = of_it;
    }
    if let Some(Value::Array(rules)) = rule.get("anyOf") {
        return one(schema, &choices.of(rules).clone(), choices);
    }
    let properties = rule.get("properties").and_then(Value::as_object).into_iter().flatten();
    object.extend(properties.map(|(name, rule)| (name.clone(), one(schema, rule, choices))));
    let kind = rule.get("type").map(|kind| match kind {
        Value::Array(kinds) => choices.of(kinds).clone(),
        kind => kind.clone(),
    });
    match kind.as_ref().and_then(Value::as_str) {
        Some("string") => json!("text"),
        Some("integer" | "number") => json!(7),
        Some("boolean") => json!(true),
        Some("null") => Value::Null,
        Some("array") => json!([one(schema, &rule["items"], choices)]),
        _ if rule.get("additionalProperties").is_some_and(Value::is_object) => {
            json!({ "bob": one(schema, &rule["additionalProperties"], choices) })
        }
        _ => Value::Object(object),
    }
}

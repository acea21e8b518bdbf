//! JSON Schema (draft 2020-12): as much of it as our schemas and Grafana's use.
//!
//! - [`Schema::parse`] refuses a keyword that nobody would check, and a reference that leads nowhere.
//! - [`Schema::faults`] says what is wrong with a document, and where.
//! - [`spoken`]: which schema holds for what a program writes.

mod pattern;
pub mod spoken;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Keywords that are checked.
const CHECKED: [&str; 14] = [
    "$ref",
    "additionalProperties",
    "anyOf",
    "const",
    "enum",
    "items",
    "maxItems",
    "minItems",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "unevaluatedProperties",
];
/// Keywords that only say something, or hold definitions.
const SAID: [&str; 7] = ["$defs", "$id", "$schema", "definitions", "description", "examples", "title"];

/// A schema that can be checked against.
#[derive(Debug)]
pub struct Schema(Value);

/// Where a check is, and what it has found.
struct Check<'a> {
    schema: &'a Value,
    wrong: Vec<String>,
}

impl Schema {
    /// Reads a schema.
    pub fn parse(text: &str) -> Result<Self> {
        let schema = Self(serde_json::from_str(text)?);
        schema.understood(&schema.0)?;
        Ok(schema)
    }

    /// What is wrong with a document; nothing if it fits.
    pub fn faults(&self, document: &Value) -> Vec<String> {
        self.faults_by("#", document)
    }

    /// As [`Self::faults`], by the part of the schema that a reference names: `#/$defs/message`.
    pub fn faults_by(&self, reference: &str, document: &Value) -> Vec<String> {
        let mut check = Check { schema: &self.0, wrong: Vec::new() };
        match self.part(reference) {
            Some(rule) => drop(check.value(rule, document, "")),
            None => check.wrong.push(format!("the schema has no {reference}")),
        }
        check.wrong
    }

    /// The part of the schema that a reference names.
    pub fn part(&self, reference: &str) -> Option<&Value> {
        self.0.pointer(reference.strip_prefix('#')?)
    }

    /// The names of the definitions that begin so, without that beginning.
    pub fn defined<'a>(&'a self, beginning: &'a str) -> impl Iterator<Item = &'a str> {
        let defs = self.0.get("$defs").and_then(Value::as_object);
        defs.into_iter().flat_map(Map::keys).filter_map(move |name| name.strip_prefix(beginning))
    }

    /// Everything in it will be checked.
    fn understood(&self, rule: &Value) -> Result<()> {
        let Some(rule) = rule.as_object() else {
            ensure!(rule.is_boolean(), "{rule} is no schema");
            return Ok(());
        };
        for (keyword, value) in rule {
            match keyword.as_str() {
                "$ref" => {
                    let to = value.as_str().context("a reference is text")?;
                    ensure!(self.part(to).is_some(), "{to} leads nowhere");
                }
                "pattern" => pattern::understood(value.as_str().context("a pattern is text")?)?,
                "unevaluatedProperties" => ensure!(value == &Value::Bool(false), "only false is checked"),
                "$defs" | "definitions" | "properties" => {
                    let rules = value.as_object().with_context(|| format!("{keyword} is an object"))?;
                    rules.values().try_for_each(|rule| self.understood(rule))?;
                }
                "additionalProperties" | "items" => self.understood(value)?,
                "anyOf" => {
                    let rules = value.as_array().context("anyOf is an array")?;
                    rules.iter().try_for_each(|rule| self.understood(rule))?;
                }
                known if CHECKED.contains(&known) || SAID.contains(&known) => {}
                other => bail!("the schema says {other}, which nobody checks"),
            }
        }
        Ok(())
    }
}

impl Check<'_> {
    /// Notes what is wrong with `value`; returns the properties about which something was said.
    fn value(&mut self, rule: &Value, value: &Value, place: &str) -> BTreeSet<String> {
        let rule = match rule {
            Value::Object(rule) => rule,
            Value::Bool(false) => {
                self.wrong.push(format!("{place}: nothing is allowed here"));
                return BTreeSet::new();
            }
            _ => return BTreeSet::new(),
        };
        self.itself(rule, value, place);
        let mut said = BTreeSet::new();
        if let Some(rule) =
            rule.get("$ref").and_then(|to| self.schema.pointer(to.as_str()?.trim_start_matches('#')))
        {
            said.append(&mut self.value(rule, value, place));
        }
        if let Some(Value::Array(choices)) = rule.get("anyOf") {
            said.append(&mut self.any(choices, value, place));
        }
        match value {
            Value::Array(values) => self.array(rule, values, place),
            Value::Object(object) => self.object(rule, object, place, &mut said),
            _ => {}
        }
        said
    }

    /// What concerns the value as a whole.
    fn itself(&mut self, rule: &Map<String, Value>, value: &Value, place: &str) {
        let one_of = rule.get("enum").and_then(Value::as_array);
        if one_of.is_some_and(|values| !values.contains(value))
            || rule.get("const").is_some_and(|c| c != value)
        {
            self.wrong.push(format!("{place}: {value} is not allowed"));
        }
        if let Some(kinds) = rule.get("type").filter(|kinds| !is(value, kinds)) {
            self.wrong.push(format!("{place}: {value} is not a {kinds}"));
        }
        let least = rule.get("minimum").and_then(Value::as_f64);
        if let (Some(least), Some(number)) = (least, value.as_f64())
            && number < least
        {
            self.wrong.push(format!("{place}: {number} is less than {least}"));
        }
        let pattern = rule.get("pattern").and_then(Value::as_str);
        if let (Some(pattern), Some(text)) = (pattern, value.as_str())
            && !pattern::fits(pattern, text)
        {
            self.wrong.push(format!("{place}: {text:?} is not {pattern}"));
        }
    }

    /// One of them must fit; if none does, what is wrong with the one that comes nearest.
    fn any(&mut self, choices: &[Value], value: &Value, place: &str) -> BTreeSet<String> {
        let mut all_said = BTreeSet::new();
        let mut nearest: Option<Vec<String>> = None;
        for choice in choices {
            let mut check = Check { schema: self.schema, wrong: Vec::new() };
            let mut said = check.value(choice, value, place);
            if check.wrong.is_empty() {
                all_said.append(&mut said);
            }
            if nearest.as_ref().is_none_or(|nearest| check.wrong.len() < nearest.len()) {
                nearest = Some(check.wrong);
            }
        }
        self.wrong.extend(nearest.into_iter().flatten());
        all_said
    }

    fn array(&mut self, rule: &Map<String, Value>, values: &[Value], place: &str) {
        let bound = |name: &str| rule.get(name).and_then(Value::as_u64);
        let length = values.len() as u64;
        if bound("minItems").is_some_and(|least| length < least)
            || bound("maxItems").is_some_and(|most| length > most)
        {
            self.wrong.push(format!("{place}: {length} items are not allowed"));
        }
        if let Some(items) = rule.get("items") {
            for (n, value) in values.iter().enumerate() {
                self.value(items, value, &format!("{place}[{n}]"));
            }
        }
    }

    fn object(
        &mut self,
        rule: &Map<String, Value>,
        object: &Map<String, Value>,
        place: &str,
        said: &mut BTreeSet<String>,
    ) {
        for name in rule.get("required").and_then(Value::as_array).into_iter().flatten() {
            if !name.as_str().is_some_and(|name| object.contains_key(name)) {
                self.wrong.push(format!("{place}: {name} is missing"));
            }
        }
        let properties = rule.get("properties").and_then(Value::as_object);
        for (name, value) in object {
            let known = properties.and_then(|known| known.get(name));
            let Some(rule) = known.or_else(|| rule.get("additionalProperties")) else { continue };
            let place = format!("{place}.{name}");
            match rule {
                Value::Bool(false) => self.wrong.push(format!("{place} is not known")),
                rule => drop(self.value(rule, value, &place)),
            }
            said.insert(name.clone());
        }
        if rule.contains_key("unevaluatedProperties") {
            let unknown = object.keys().filter(|name| !said.contains(*name));
            self.wrong.extend(unknown.map(|name| format!("{place}.{name} is not known")));
        }
    }
}

fn is(value: &Value, kinds: &Value) -> bool {
    let is_one = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    };
    match kinds {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).any(is_one),
        kind => kind.as_str().is_some_and(is_one),
    }
}

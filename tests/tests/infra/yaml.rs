//! YAML as JSON, with merge keys (`<<`) resolved as Compose does.

use crate::deployment::root;
use anyhow::{Context, Result, bail};
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value};

/// A file of one document, by its path from the root of the tree.
pub(crate) fn read(path: &str) -> Result<Value> {
    let text = std::fs::read_to_string(root().join(path)).context(path.to_owned())?;
    parse(&text).context(path.to_owned())
}

fn parse(text: &str) -> Result<Value> {
    match Yaml::load_from_str(text)?.as_slice() {
        [document] => json(document),
        documents => bail!("{} documents", documents.len()),
    }
}

fn json(node: &Yaml<'_>) -> Result<Value> {
    Ok(match node {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(value)) => (*value).into(),
        Yaml::Value(Scalar::Integer(value)) => (*value).into(),
        Yaml::Value(Scalar::FloatingPoint(value)) => value.into_inner().into(),
        Yaml::Value(Scalar::String(value)) => value.as_ref().into(),
        Yaml::Sequence(items) => items.iter().map(json).collect::<Result<Vec<_>>>()?.into(),
        Yaml::Mapping(pairs) => {
            let (mut own, mut merged) = (Map::new(), Map::new());
            for (key, value) in pairs {
                match (key.as_str().context("a key is a text")?, json(value)?) {
                    ("<<", Value::Object(from)) => merged.extend(from),
                    (key, value) => drop(own.insert(key.to_owned(), value)),
                }
            }
            merged.extend(own);
            merged.into()
        }
        other => bail!("not understood: {other:?}"),
    })
}

/// The items of a list or a map; nothing if it is not there.
pub(crate) fn items(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(pairs) => pairs.values().collect(),
        _ => Vec::new(),
    }
}

/// The texts of a list.
pub(crate) fn texts(value: &Value) -> Vec<&str> {
    items(value).into_iter().filter_map(Value::as_str).collect()
}

/// The pairs of a map, in the order of names.
pub(crate) fn pairs(value: &Value) -> Vec<(&str, &Value)> {
    value
        .as_object()
        .map(|pairs| pairs.iter().map(|(key, value)| (key.as_str(), value)).collect())
        .unwrap_or_default()
}

#[test]
fn merge_keys_give_way_to_own_ones() -> Result<()> {
    let merged = parse("base: &base {a: 1, b: 2}\nuser: {<<: *base, b: 3}")?;
    assert_eq!(merged["user"], serde_json::json!({"a": 1, "b": 3}));
    assert!(parse("a: *nobody").is_err() && parse("a: [").is_err());
    Ok(())
}

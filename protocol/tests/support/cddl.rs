//! As much of CDDL (RFC 8610) as docs/protocol.md uses: literals, `uint`, `tstr`, `bstr`, `bool`,
//! `.size`, arrays of fixed items or of `*` one, closed maps with optional keys, choices, names.
//!
//! The crate `cddl` accepts the same document (0.10.7, tried once); it would bring fifty packages for
//! this one test.

use serde_cbor::Value;
use std::collections::BTreeMap;

/// The rules of a document.
#[derive(Debug)]
pub(crate) struct Schema(BTreeMap<String, Type>);

#[derive(Debug)]
enum Type {
    Literal(i128),
    Name(String),
    Sized(Box<Type>, usize),
    Fixed(Vec<Type>),
    Many(Box<Type>),
    Map(Vec<Field>),
    Choice(Vec<Type>),
}

#[derive(Debug)]
struct Field {
    optional: bool,
    key: String,
    value: Type,
}

impl Schema {
    /// Reads a document. Panics at what it does not understand.
    pub(crate) fn parse(text: &str) -> Self {
        let mut parser = Parser { tokens: tokens(text), at: 0 };
        let mut rules = BTreeMap::new();
        while parser.at < parser.tokens.len() {
            let name = parser.next();
            parser.expect("=");
            let rule = parser.choice();
            assert!(rules.insert(name.clone(), rule).is_none(), "{name} is defined twice");
        }
        let schema = Self(rules);
        schema.0.values().for_each(|rule| schema.assert_defined(rule));
        schema
    }

    /// Why a value is not what a rule says, if it is not.
    pub(crate) fn check(&self, rule: &str, value: &Value) -> Result<(), String> {
        let is = |right: bool| if right { Ok(()) } else { Err(format!("{value:?} is no {rule}")) };
        match rule {
            "uint" => is(matches!(value, Value::Integer(number) if *number >= 0)),
            "tstr" => is(matches!(value, Value::Text(_))),
            "bstr" => is(matches!(value, Value::Bytes(_))),
            "bool" => is(matches!(value, Value::Bool(_))),
            _ => self.fits(&self.0[rule], value).map_err(|error| format!("{rule}: {error}")),
        }
    }

    fn fits(&self, rule: &Type, value: &Value) -> Result<(), String> {
        match (rule, value) {
            (Type::Literal(literal), Value::Integer(number)) if literal == number => Ok(()),
            (Type::Name(name), value) => self.check(name, value),
            (Type::Sized(inner, size), value) => {
                self.fits(inner, value).and_then(|()| has_size(value, *size))
            }
            (Type::Fixed(items), Value::Array(values)) if items.len() == values.len() => {
                items.iter().zip(values).try_for_each(|(item, value)| self.fits(item, value))
            }
            (Type::Many(item), Value::Array(values)) => {
                values.iter().try_for_each(|value| self.fits(item, value))
            }
            (Type::Map(fields), Value::Map(map)) => self.fits_map(fields, map),
            (Type::Choice(choices), value) => {
                let errors: Vec<String> =
                    choices.iter().filter_map(|choice| self.fits(choice, value).err()).collect();
                // All have failed, or one has not.
                if errors.len() < choices.len() { Ok(()) } else { Err(errors.join("; ")) }
            }
            (rule, value) => Err(format!("{value:?} is no {rule:?}")),
        }
    }

    fn fits_map(&self, fields: &[Field], map: &BTreeMap<Value, Value>) -> Result<(), String> {
        for key in map.keys() {
            let known = fields.iter().any(|field| Value::Text(field.key.clone()) == *key);
            known.then_some(()).ok_or_else(|| format!("{key:?} is not in the map"))?;
        }
        for Field { optional, key, value } in fields {
            match map.get(&Value::Text(key.clone())) {
                Some(found) => self.fits(value, found).map_err(|error| format!("{key}: {error}"))?,
                None if *optional => {}
                None => return Err(format!("{key} is missing")),
            }
        }
        Ok(())
    }

    fn assert_defined(&self, rule: &Type) {
        match rule {
            Type::Literal(_) => {}
            Type::Name(name) => {
                let prelude = ["uint", "tstr", "bstr", "bool"].contains(&name.as_str());
                assert!(prelude || self.0.contains_key(name), "{name} is not defined");
            }
            Type::Sized(inner, _) | Type::Many(inner) => self.assert_defined(inner),
            Type::Fixed(items) | Type::Choice(items) => {
                items.iter().for_each(|item| self.assert_defined(item))
            }
            Type::Map(fields) => fields.iter().for_each(|field| self.assert_defined(&field.value)),
        }
    }
}

fn has_size(value: &Value, size: usize) -> Result<(), String> {
    let right = match value {
        Value::Bytes(bytes) => bytes.len() == size,
        Value::Integer(number) => *number < 1 << (8 * size),
        _ => false,
    };
    if right { Ok(()) } else { Err(format!("{value:?} is not of size {size}")) }
}

fn tokens(text: &str) -> Vec<String> {
    let code: String =
        text.lines().map(|line| line.split(';').next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut tokens: Vec<String> = Vec::new();
    let mut word = String::new();
    for c in code.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() || "-._".contains(c) {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            tokens.push(std::mem::take(&mut word));
        }
        if !c.is_whitespace() {
            tokens.push(c.into());
        }
    }
    tokens
}

struct Parser {
    tokens: Vec<String>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> &str {
        self.tokens.get(self.at).map_or("", String::as_str)
    }

    fn next(&mut self) -> String {
        self.at += 1;
        self.tokens.get(self.at - 1).expect("more CDDL").clone()
    }

    fn expect(&mut self, token: &str) {
        assert_eq!(
            self.next(),
            token,
            "before {:?}",
            &self.tokens[self.at..(self.at + 5).min(self.tokens.len())]
        );
    }

    fn takes(&mut self, token: &str) -> bool {
        let there = self.peek() == token;
        self.at += usize::from(there);
        there
    }

    fn choice(&mut self) -> Type {
        let mut choices = vec![self.sized()];
        while self.takes("/") {
            choices.push(self.sized());
        }
        if choices.len() == 1 { choices.remove(0) } else { Type::Choice(choices) }
    }

    fn sized(&mut self) -> Type {
        let inner = self.simple();
        if !self.takes(".size") {
            return inner;
        }
        Type::Sized(inner.into(), self.next().parse().expect("a size"))
    }

    fn simple(&mut self) -> Type {
        match self.next().as_str() {
            "[" if self.takes("*") => {
                let item = self.choice();
                self.expect("]");
                Type::Many(item.into())
            }
            "[" => Type::Fixed(self.until("]", Self::choice)),
            "{" => Type::Map(self.until("}", Self::field)),
            word => word.parse().map_or_else(|_| Type::Name(word.to_owned()), Type::Literal),
        }
    }

    fn field(&mut self) -> Field {
        let optional = self.takes("?");
        let key = self.next();
        self.expect(":");
        Field { optional, key, value: self.choice() }
    }

    /// A list with commas, one at the end allowed.
    fn until<T>(&mut self, end: &str, item: impl Fn(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        while !self.takes(end) {
            items.push(item(self));
            if !self.takes(",") {
                self.expect(end);
                break;
            }
        }
        items
    }
}

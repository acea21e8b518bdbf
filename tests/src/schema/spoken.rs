//! What `fastchat` writes, and the schema (docs/schemas) that says so.

use super::Schema;
use serde_json::Value;
use std::{collections::HashMap, sync::LazyLock};

/// `listen --json`, a line.
pub static LISTEN: LazyLock<Schema> =
    LazyLock::new(|| committed(include_str!("../../../docs/schemas/listen.schema.json")));
/// `rpc`, a line in either direction.
pub static RPC: LazyLock<Schema> =
    LazyLock::new(|| committed(include_str!("../../../docs/schemas/rpc.schema.json")));
/// A line of any other command with `--json`.
pub static COMMANDS: LazyLock<Schema> =
    LazyLock::new(|| committed(include_str!("../../../docs/schemas/commands.schema.json")));

fn committed(text: &str) -> Schema {
    Schema::parse(text).unwrap_or_else(|error| panic!("a schema of docs/schemas: {error:#}"))
}

/// What a run of the program speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spoken {
    /// Events.
    Listen,
    /// Calls and answers.
    Rpc,
    /// What this command says: `group.create`.
    Command(String),
}

impl Spoken {
    /// By the arguments of `fastchat`; `None` where it writes for people, or is for tests alone.
    pub fn of(arguments: &[&str]) -> Option<Self> {
        let json = arguments.contains(&"--json");
        let (&command, rest) = arguments.split_first()?;
        match command {
            _ if rest.contains(&"--schema") || rest.contains(&"--help") => None,
            "rpc" => Some(Self::Rpc),
            "listen" if json => Some(Self::Listen),
            // What a debugging command says may change at any time.
            "debug" => None,
            // Lines of an archive, for whomever.
            "export" if rest.contains(&"-") => Some(Self::Command("export".to_owned())),
            _ if json => {
                let both = rest.first().map(|second| format!("{command}.{second}"));
                let known = |name: &String| COMMANDS.defined("command.").any(|known| known == name);
                Some(Self::Command(both.filter(known).unwrap_or_else(|| command.to_owned())))
            }
            _ => None,
        }
    }

    /// What is wrong with what was said; `asked` is what the program was told on its standard input.
    pub fn faults<'a>(
        &self,
        asked: &[String],
        out: impl Iterator<Item = &'a str>,
        err: impl Iterator<Item = &'a str>,
    ) -> Vec<String> {
        let out: Vec<&str> = out.collect();
        let methods = methods(asked);
        let mut wrong = Vec::new();
        for (n, line) in out.iter().enumerate() {
            match serde_json::from_str(line) {
                Ok(value) => wrong.extend(about(self.line(&methods, &value), line)),
                // A program that was killed may have left half a line.
                Err(_) if n + 1 == out.len() => {}
                Err(error) => wrong.push(format!("not JSON ({error}): {line}")),
            }
        }
        for line in err.filter(|line| line.starts_with('{')) {
            let value = serde_json::from_str(line).unwrap_or_default();
            wrong.extend(about(COMMANDS.faults_by("#/$defs/error", &value), line));
        }
        wrong
    }

    fn line(&self, methods: &HashMap<String, String>, line: &Value) -> Vec<String> {
        match self {
            Self::Listen => LISTEN.faults(line),
            Self::Command(name) => COMMANDS.faults_by(&format!("#/$defs/command.{name}"), line),
            Self::Rpc => {
                let mut wrong = RPC.faults_by("#/$defs/output", line);
                let answers = line.as_array().map_or(std::slice::from_ref(line), Vec::as_slice);
                for answer in answers {
                    let method = answer.get("id").and_then(|id| methods.get(&id.to_string()));
                    if let (Some(method), Some(result)) = (method, answer.get("result")) {
                        let by = format!("#/$defs/method.{method}/properties/result");
                        wrong.extend(RPC.faults_by(&by, result));
                    }
                }
                wrong
            }
        }
    }
}

fn about(wrong: Vec<String>, line: &str) -> impl Iterator<Item = String> {
    wrong.into_iter().map(move |wrong| format!("{wrong}\n    in {line}"))
}

/// Which method was called by which id.
fn methods(asked: &[String]) -> HashMap<String, String> {
    let mut methods = HashMap::new();
    for value in asked.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let calls = value.as_array().map_or(std::slice::from_ref(&value), Vec::as_slice);
        for call in calls {
            if let (Some(id), Some(method)) = (call.get("id"), call["method"].as_str()) {
                methods.insert(id.to_string(), method.to_owned());
            }
        }
    }
    methods
}

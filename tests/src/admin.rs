//! An operator at a terminal: the real `fastchat-gateway admin` and `move-store` on a store.

use crate::{cli::Ran, process::Process};
use anyhow::Result;
use serde_json::Value;

/// Somebody who may run the gateway's commands.
#[derive(Debug, Clone)]
pub struct Operator {
    /// Which store: arguments that the gateway has as well.
    store: Vec<String>,
}

impl Operator {
    /// With these arguments of the gateway.
    pub fn new(store: Vec<String>) -> Self {
        Self { store }
    }

    /// Runs `fastchat-gateway ARGUMENTS` to its end.
    pub async fn run(&self, arguments: &[&str]) -> Result<Ran> {
        self.run_on(arguments, None).await
    }

    /// The same with a line on standard input.
    pub async fn run_on(&self, arguments: &[&str], stdin: Option<&str>) -> Result<Ran> {
        let mut process = Process::spawn("fastchat-gateway", |command| {
            command.args(arguments).args(&self.store).env("LOGNAME", "tester").env_remove("SUDO_USER");
        })?;
        if let Some(line) = stdin {
            process.write_line(line).await?;
        }
        let (status, stdout, log) = process.finish_with_log().await?;
        Ok(Ran { code: status.code(), stdout, log })
    }

    /// `admin ARGUMENTS --json`, which must end well: its objects.
    pub async fn json(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let arguments: Vec<_> =
            ["admin"].into_iter().chain(arguments.iter().copied()).chain(["--json"]).collect();
        self.run(&arguments).await?.ok()?.json()
    }
}

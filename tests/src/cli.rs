//! A person at a terminal: the real `fastchat` as a process, a profile, a password file. What it writes with
//! `--json` must be as docs/schemas says.

use crate::{process::Process, schema::spoken::Spoken};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{path::PathBuf, time::Duration};
use tokio::process::Command;

/// Somebody with a profile in a folder.
#[derive(Debug)]
pub struct Person {
    /// The account's name.
    pub name: String,
    dir: PathBuf,
    url: String,
}

/// What a command left.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; `None` if a signal ended it (a failpoint aborts).
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Both streams, for messages of failing tests.
    pub log: String,
}

/// Makes `new` a device of the account of `old`, with as much history as `history` says.
pub async fn link(old: &Person, new: &Person, history: &str) -> Result<()> {
    const LONG: Duration = Duration::from_secs(120);
    let mut linking = new.start(&["device", "link", &old.name, "--yes", "--json"], &[])?;
    let shown = linking.line(LONG, |line| line.contains("link_code")).await?;
    let code: Value = serde_json::from_str(&shown)?;
    let code = code["code"].as_str().context("a code")?;
    old.run(&["device", "add", code, "--yes", "--history", history]).await?.ok()?;
    let status = linking.wait(LONG).await?;
    if !status.success() {
        bail!("{status}: {}", linking.log());
    }
    Ok(())
}

impl Ran {
    /// The objects of `--json`, a line each.
    pub fn json(&self) -> Result<Vec<Value>> {
        // A process that died may have left half a line.
        let whole = self.stdout.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// This, if the command ended well.
    pub fn ok(self) -> Result<Self> {
        if self.code == Some(0) { Ok(self) } else { bail!("exit code {:?}:\n{}", self.code, self.log) }
    }
}

impl Person {
    /// Somebody who has not registered yet.
    pub fn new(name: &str, dir: PathBuf, url: &str) -> Result<Self> {
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("password"), "correct horse battery staple\n")?;
        Ok(Self { name: name.to_owned(), dir, url: url.to_owned() })
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Result<Ran> {
        self.run_with(arguments, &[]).await
    }

    /// Runs a command with further environment.
    pub async fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Ran> {
        self.run_on(arguments, environment, None).await
    }

    /// Runs a command with something on its standard input.
    pub async fn run_on(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
        stdin: Option<&str>,
    ) -> Result<Ran> {
        let mut process = self.start(arguments, environment)?;
        if let Some(line) = stdin {
            process.write_line(line).await?;
        }
        let (status, stdout, log) = process.finish_with_log().await?;
        Ok(Ran { code: status.code(), stdout, log })
    }

    /// Starts a command that goes on.
    pub fn start(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Process> {
        // Nobody is there to whom a recovery code could be shown.
        let silent = arguments.first() == Some(&"register")
            && !arguments.iter().any(|argument| argument.contains("recovery"));
        let process = Process::spawn("fastchat", |command| {
            self.prepare(command.args(arguments).args(silent.then_some("--no-recovery")));
            command.envs(environment.iter().copied());
        })?;
        Ok(process.speaking(Spoken::of(arguments)))
    }

    /// Gives a command the environment in which `fastchat` is this person's.
    pub fn prepare(&self, command: &mut Command) {
        command
            .env("FASTCHAT_DATA_DIR", self.dir.join("data"))
            .env("XDG_RUNTIME_DIR", self.dir.join("run"))
            .env("FASTCHAT_PASSWORD_FILE", self.dir.join("password"))
            .env("FASTCHAT_SERVER", &self.url)
            .env("FASTCHAT_TEST_CHEAP_KDF", "1");
    }

    /// The folder of everything of this person.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }
}

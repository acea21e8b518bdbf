//! The real programs as child processes.
//!
//! - [`Process::spawn`] starts one with its output captured; a failing test prints it.
//! - What `fastchat` writes for programs is checked against its schema when a [`Process`] is dropped.
//! - Signals go to the one process id that was started here.
//! - Dropping a [`Process`] kills it.

use crate::schema::spoken::Spoken;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, kill_process};
use std::{
    ffi::OsStr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

pub use rustix::process::Signal;

/// Limit: how long a program may take to end after its standard input was closed.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends a signal to one process.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("not a process id")?;
    kill_process(pid, signal).with_context(|| format!("cannot send {signal:?}"))
}

/// Finds a program of this workspace: `target/<profile>/<name>`, beside the program that asks or one folder
/// above the test that asks.
///
/// `cargo build --workspace` (or `scripts/test`) has made it; `FASTCHAT_TEST_PROGRAMS` names another
/// folder, for instance of the previous release.
pub fn program(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("FASTCHAT_TEST_PROGRAMS") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let own = std::env::current_exe()?;
            let folder = own.parent().context("a program is in a folder")?;
            let is_test = folder.ends_with("deps");
            if is_test { folder.parent().context("deps is in a folder")? } else { folder }.to_owned()
        }
    };
    let path = folder.join(name);
    if !path.is_file() {
        bail!("{name} is not built: cargo build --workspace");
    }
    Ok(path)
}

/// Runs a program of this workspace to its end; it must succeed within this time.
pub async fn run_to_end<A: AsRef<OsStr>>(
    name: &str,
    arguments: impl IntoIterator<Item = A>,
    limit: Duration,
) -> Result<()> {
    let mut process = Process::spawn(name, |command| {
        command.args(arguments);
    })?;
    let status = process.wait(limit).await?;
    if status.success() { Ok(()) } else { bail!("{name} ended with {status}: {}", process.log()) }
}

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    output: Output,
    readers: Vec<JoinHandle<()>>,
    spoken: Option<Spoken>,
    asked: Vec<String>,
}

impl Process {
    /// Starts a program of this workspace; `prepare` adds arguments and environment.
    pub fn spawn(name: &str, prepare: impl FnOnce(&mut Command)) -> Result<Self> {
        Self::spawn_path(program(name)?.as_os_str(), name, prepare)
    }

    /// Starts any program; `name` is for the log.
    pub fn spawn_path(path: &OsStr, name: &str, prepare: impl FnOnce(&mut Command)) -> Result<Self> {
        let mut command = Command::new(path);
        prepare(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let output = Output::default();
        let stdout = child.stdout.take().context("stdout is piped")?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        let readers = vec![
            tokio::spawn(copy(stdout, output.clone(), Stream::Out)),
            tokio::spawn(copy(stderr, output.clone(), Stream::Err)),
        ];
        let stdin = child.stdin.take();
        Ok(Self { name: name.to_owned(), stdin, child, output, readers, spoken: None, asked: Vec::new() })
    }

    /// What it writes must be as this says, or dropping it panics.
    #[must_use]
    pub fn speaking(mut self, spoken: Option<Spoken>) -> Self {
        self.spoken = spoken;
        self
    }

    /// The process id, or none when it has ended and that was noticed.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a signal to it.
    pub fn signal(&self, which: Signal) -> Result<()> {
        signal(self.pid().with_context(|| format!("{} has ended", self.name))?, which)
    }

    /// Stops it in its tracks; [`Process::resume`] lets it go on.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a paused process go on.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Ends it at once and waits until it is gone.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Asks it to end, and gives it that long.
    pub async fn terminate(&mut self, grace: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(grace).await
    }

    /// Waits until it ends by itself, and until its output was read.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let waited = timeout(limit, self.child.wait()).await;
        let status = waited.with_context(|| format!("{} did not end within {limit:?}", self.name))??;
        for reader in self.readers.drain(..) {
            // A grandchild can hold the pipe open: what it writes is not ours.
            let _ = timeout(Duration::from_secs(1), reader).await;
        }
        Ok(status)
    }

    /// Writes a line to its standard input.
    pub async fn write_line(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is closed")?;
        stdin.write_all(format!("{line}\n").as_bytes()).await?;
        self.asked.push(line.to_owned());
        Ok(stdin.flush().await?)
    }

    /// Closes its standard input and waits for its end; returns what it wrote to standard output.
    pub async fn finish(mut self) -> Result<(ExitStatus, String)> {
        self.stdin = None;
        let status = self.wait(RUN_TIMEOUT).await?;
        Ok((status, self.stdout()))
    }

    /// As [`Process::finish`], with everything that it wrote as well.
    pub async fn finish_with_log(mut self) -> Result<(ExitStatus, String, String)> {
        self.stdin = None;
        let status = self.wait(RUN_TIMEOUT).await?;
        Ok((status, self.stdout(), self.log()))
    }

    /// Waits for a line of its output, also one that was written before, and returns it.
    pub async fn line(&self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let mut changes = self.output.changes.subscribe();
        let search = async {
            loop {
                changes.borrow_and_update();
                if let Some(line) = self.output.find(&wanted) {
                    return Some(line);
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        };
        let found = timeout(limit, search).await.ok().flatten();
        found.with_context(|| format!("{} did not say it within {limit:?}:\n{}", self.name, self.log()))
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        self.output.text(|stream| stream == Stream::Out)
    }

    /// Everything that it wrote so far.
    pub fn log(&self) -> String {
        self.output.text(|_| true)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- output of {} ----\n{}", self.name, self.log());
            return;
        }
        let Some(spoken) = self.spoken.take() else { return };
        let (out, err) = (self.stdout(), self.output.text(|stream| stream == Stream::Err));
        let wrong = spoken.faults(&self.asked, out.lines(), err.lines());
        assert!(
            wrong.is_empty(),
            "{} is not as its schema says ({spoken:?}):\n{}",
            self.name,
            wrong.join("\n")
        );
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stream {
    Out,
    Err,
}

/// The lines of both streams, in the order in which they were read.
#[derive(Debug, Clone)]
struct Output {
    lines: Arc<Mutex<Vec<(Stream, String)>>>,
    changes: watch::Sender<()>,
}

impl Default for Output {
    fn default() -> Self {
        Self { lines: Arc::default(), changes: watch::Sender::new(()) }
    }
}

impl Output {
    fn push(&self, stream: Stream, line: String) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push((stream, line));
        self.changes.send_replace(());
    }

    fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|(_, line)| line).find(|line| wanted(line)).cloned()
    }

    fn text(&self, wanted: impl Fn(Stream) -> bool) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|(stream, _)| wanted(*stream)).map(|(_, line)| format!("{line}\n")).collect()
    }
}

async fn copy(pipe: impl AsyncRead + Unpin, output: Output, stream: Stream) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    // Bytes, not text: a program that writes something else must not end the capture.
    while pipe.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        output.push(stream, String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned());
        line.clear();
    }
}

//! What the clients of a run did and saw, in the order in which it happened.
//!
//! - One [`History`] a run; each device writes through its own [`Recorder`], all by one monotonic clock.
//! - A file holds one JSON object a line, so that `grep` finds the story of a message.
//! - The checker reads this and the log as it stands at the end ([`Truth`]), nothing else.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// Who sent a message and the how-manieth of its conversation it is; the same for every retry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MessageId {
    /// The sending device.
    pub device: String,
    /// Its counter in the conversation.
    pub counter: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.device, self.counter)
    }
}

/// Makes a [`MessageId`].
pub fn id(device: &str, counter: u64) -> MessageId {
    MessageId { device: device.to_owned(), counter }
}

/// Something that happened at one device, or to the whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Microseconds since the run began.
    pub at_us: u64,
    /// The device; `run` for faults.
    pub device: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened. `conversation` is whatever the test calls it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// The device gave a message to the gateway, for the first time or again.
    Send { conversation: String, counter: u64, body: String },
    /// The gateway has stored it.
    Ok { conversation: String, counter: u64, seq: u64 },
    /// The gateway has not stored it, and says so for certain.
    Fail { conversation: String, counter: u64, code: String },
    /// No answer came. It is stored, or not, or will be.
    Unknown { conversation: String, counter: u64 },
    /// A row came over the wire, live or fetched. Twice is allowed.
    Recv { conversation: String, seq: u64, id: MessageId },
    /// The reader saw it. Twice is not allowed.
    Shown { conversation: String, seq: u64, id: MessageId, body: String },
    /// The device could not open it and recorded why.
    Quarantined { conversation: String, seq: u64, why: String },
    /// The device said that it has everything up to here.
    Ack { conversation: String, seq: u64 },
    /// The device connected after it was away.
    Online,
    /// A fault began.
    Fault { name: String },
    /// All faults have ended.
    Healed,
}

/// Collects events. A clone collects into the same history.
#[derive(Debug, Clone)]
pub struct History {
    begin: Instant,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Default for History {
    fn default() -> Self {
        Self { begin: Instant::now(), events: Arc::default() }
    }
}

impl History {
    /// An empty history whose clock begins now.
    pub fn new() -> Self {
        Self::default()
    }

    /// The pen of one device.
    pub fn recorder(&self, device: &str) -> Recorder {
        Recorder { history: self.clone(), device: device.to_owned() }
    }

    /// Notes that a fault begins.
    pub fn fault(&self, name: &str) {
        self.push("run", What::Fault { name: name.to_owned() });
    }

    /// Notes that no fault is there any more.
    pub fn healed(&self) {
        self.push("run", What::Healed);
    }

    /// What was collected so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes everything to a file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut file = BufWriter::new(std::fs::File::create(path)?);
        for event in self.events() {
            serde_json::to_writer(&mut file, &event)?;
            file.write_all(b"\n")?;
        }
        Ok(file.flush()?)
    }

    fn push(&self, device: &str, what: What) {
        // The clock is read under the lock, so that the order of events is the order of times.
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let at_us = u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        events.push(Event { at_us, device: device.to_owned(), what });
    }
}

/// Reads the file that [`History::write`] wrote.
pub fn read(path: &Path) -> Result<Vec<Event>> {
    let lines = BufReader::new(std::fs::File::open(path)?).lines().enumerate();
    lines
        .map(|(index, line)| serde_json::from_str(&line?).with_context(|| format!("line {}", index + 1)))
        .collect()
}

/// The pen of one device.
#[derive(Debug, Clone)]
pub struct Recorder {
    history: History,
    device: String,
}

impl Recorder {
    /// Whose pen this is.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Notes something.
    pub fn note(&self, what: What) {
        self.history.push(&self.device, what);
    }

    /// Notes a send. Call it before the bytes leave.
    pub fn send(&self, conversation: &str, counter: u64, body: &str) {
        self.note(What::Send { conversation: conversation.into(), counter, body: body.into() });
    }

    /// Notes that a send was stored.
    pub fn ok(&self, conversation: &str, counter: u64, seq: u64) {
        self.note(What::Ok { conversation: conversation.into(), counter, seq });
    }

    /// Notes that a send was refused.
    pub fn fail(&self, conversation: &str, counter: u64, code: &str) {
        self.note(What::Fail { conversation: conversation.into(), counter, code: code.into() });
    }

    /// Notes that a send was not answered.
    pub fn unknown(&self, conversation: &str, counter: u64) {
        self.note(What::Unknown { conversation: conversation.into(), counter });
    }

    /// Notes a row on the wire.
    pub fn recv(&self, conversation: &str, seq: u64, id: MessageId) {
        self.note(What::Recv { conversation: conversation.into(), seq, id });
    }

    /// Notes what the reader sees.
    pub fn shown(&self, conversation: &str, seq: u64, id: MessageId, body: &str) {
        self.note(What::Shown { conversation: conversation.into(), seq, id, body: body.into() });
    }

    /// Notes an acknowledgement. Call it before the bytes leave.
    pub fn ack(&self, conversation: &str, seq: u64) {
        self.note(What::Ack { conversation: conversation.into(), seq });
    }

    /// Notes that the device is connected again.
    pub fn online(&self) {
        self.note(What::Online);
    }
}

/// How things stand at the end, read from the store: what the history is judged by.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    /// Every row of every log.
    pub log: Vec<Row>,
    /// Which device may read what.
    pub members: Vec<Member>,
    /// Limit: an online device shows a message that long after it was stored, or after the last fault.
    pub deadline_us: Option<u64>,
}

/// A row of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Whose log.
    pub conversation: String,
    /// Its place, from 1.
    pub seq: u64,
    /// What it is.
    pub kind: RowKind,
}

/// What a row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowKind {
    /// A message that members are to be shown.
    Message(MessageId),
    /// A founding or a commit: takes a place and is not shown.
    Other,
}

/// What a device may read: rows after `after`, up to and with `until`.
#[derive(Debug, Clone)]
pub struct Member {
    /// Of which log.
    pub conversation: String,
    /// Which device.
    pub device: String,
    /// The row that let it in.
    pub after: u64,
    /// The row that removed it.
    pub until: Option<u64>,
}

//! A person with a client in this process, whose every send and sight is written into the history.
//!
//! Bodies are `NAME#COUNT FILLER`, so that who sent what, and as the how-manieth, can be read from what
//! any device shows. Counts are the test's own: the wire's counters are for commits too.

use crate::{
    checker,
    history::{History, Member, MessageId, Recorder, Truth, id},
};
use anyhow::{Result, bail, ensure};
use fastchat_client::{
    Client, Events,
    account::Registration,
    api::{ErrorKind, Event, MessageKind, MessageView, Request},
    client::{Next, Options},
    profile::{Cost, Location},
};
use futures_util::{StreamExt, stream};
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// The password of every test user.
pub const PASSWORD: &str = "correct horse battery staple";
/// How many sends a user has on their way at a time.
const IN_FLIGHT: usize = 24;

/// A person at a device.
#[derive(Debug)]
pub struct User {
    /// The account's name, and the device's in the history.
    pub name: String,
    /// The handle.
    pub client: Client,
    location: Location,
    recorder: Recorder,
    counts: Arc<AtomicU64>,
    seen: Arc<Mutex<Vec<MessageView>>>,
    interruptions: Arc<Mutex<Vec<String>>>,
    watcher: JoinHandle<()>,
}

impl User {
    /// Registers at a gateway.
    pub async fn register(url: &str, name: &str, dir: PathBuf, history: &History) -> Result<Self> {
        let location = Location::at(name, dir, None);
        let registration = Registration {
            name: name.parse()?,
            password: PASSWORD.to_owned().into(),
            server: url.parse().map_err(|e| anyhow::anyhow!("{e}"))?,
            ca: None,
            insecure: false,
            invite: None,
            cost: Cost::TEST,
        };
        let client =
            Client::register(&location, &registration, Options { online: true, serve: false }).await?;
        let counts = Arc::default();
        Self::with(client, name, location, history.recorder(name), counts).await
    }

    /// Opens the profile again, after [`User::leave`] or [`User::crash`].
    pub async fn come_back(left: Left) -> Result<Self> {
        let Left { name, location, recorder, counts } = left;
        let options = Options { online: true, serve: false };
        let client = Client::unlock(&location, Some((PASSWORD, Cost::TEST)), options).await?;
        recorder.online();
        Self::with(client, &name, location, recorder, counts).await
    }

    async fn with(
        client: Client,
        name: &str,
        location: Location,
        recorder: Recorder,
        counts: Arc<AtomicU64>,
    ) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let events = client.events().await?;
        let interruptions = Arc::default();
        let watcher =
            tokio::spawn(watch(events, recorder.clone(), Arc::clone(&seen), Arc::clone(&interruptions)));
        Ok(Self { name: name.to_owned(), client, location, recorder, counts, seen, interruptions, watcher })
    }

    /// Ends the client in order.
    pub async fn leave(self) -> Left {
        self.client.close().await;
        self.watcher.abort();
        let Self { name, location, recorder, counts, .. } = self;
        Left { name, location, recorder, counts }
    }

    /// Ends the client as a crash does.
    pub async fn crash(self) -> Left {
        self.client.kill().await;
        self.watcher.abort();
        let Self { name, location, recorder, counts, .. } = self;
        Left { name, location, recorder, counts }
    }

    /// Sends one message and waits for the server's word; its seq.
    pub async fn send(&self, to: &str) -> Result<u64> {
        self.send_within(to, Duration::from_secs(60)).await
    }

    /// Sends one message with so much patience.
    pub async fn send_within(&self, to: &str, patience: Duration) -> Result<u64> {
        let count = self.counts.fetch_add(1, Ordering::SeqCst) + 1;
        let body = format!("{}#{count} {:08x}", self.name, rand::random::<u32>());
        let conversation = conversation(&self.name, to);
        self.recorder.send(&conversation, count, &body);
        match self.client.send(to, &body, patience).await {
            Ok(sent) => {
                self.recorder.ok(&conversation, count, sent.seq);
                Ok(sent.seq)
            }
            Err(error) => {
                match error.kind {
                    ErrorKind::Timeout => self.recorder.unknown(&conversation, count),
                    kind => self.recorder.fail(&conversation, count, &format!("{kind:?}")),
                }
                Err(error.into())
            }
        }
    }

    /// Sends `n` messages, several on their way at a time, and waits for the server's word on all.
    pub async fn send_many(&self, to: &str, n: usize) -> Result<()> {
        let mut sends =
            stream::iter(0..n).map(|_| self.send_within(to, Duration::from_secs(120))).buffered(IN_FLIGHT);
        while let Some(sent) = sends.next().await {
            sent?;
        }
        Ok(())
    }

    /// Why this client has said that it is not connected, since it was opened.
    pub fn interruptions(&self) -> Vec<String> {
        self.interruptions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What this client has shown since it was opened, notices left out.
    pub fn seen(&self) -> Vec<MessageView> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until this client has shown `n` messages of `from`, and returns how long it took.
    pub async fn sees(&self, from: &str, n: usize, within: Duration) -> Result<Duration> {
        let started = Instant::now();
        loop {
            let count = self.seen().iter().filter(|message| message.from == from).count();
            if count >= n {
                return Ok(started.elapsed());
            }
            if started.elapsed() > within {
                let status = self.client.synced(Duration::from_millis(1)).await;
                let stored = self.client.history(from, 10).await;
                let known = self.client.request(Request::Conversations).await;
                bail!(
                    "{} sees {count} of {n} messages of {from} after {within:?}; {status:?}; {known:?}; {stored:?}",
                    self.name
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The whole history with somebody, as it is stored.
    pub async fn history(&self, with: &str) -> Result<Vec<MessageView>> {
        Ok(self.client.history(with, 100_000).await?)
    }
}

/// A user who is away.
#[derive(Debug)]
pub struct Left {
    name: String,
    location: Location,
    recorder: Recorder,
    counts: Arc<AtomicU64>,
}

/// What the history calls the conversation of two people.
pub fn conversation(one: &str, other: &str) -> String {
    let (low, high) = if one <= other { (one, other) } else { (other, one) };
    format!("{low}-{high}")
}

/// Whose message a body is, and the how-manieth.
pub fn message_id(body: &str) -> Option<MessageId> {
    let (name, rest) = body.split_once('#')?;
    let count = rest.split(' ').next()?.parse().ok()?;
    Some(id(name, count))
}

async fn watch(
    mut events: Events,
    recorder: Recorder,
    seen: Arc<Mutex<Vec<MessageView>>>,
    interruptions: Arc<Mutex<Vec<String>>>,
) {
    loop {
        match events.next().await {
            Next::Event(Event::Message(message)) => {
                let conversation = conversation(recorder.device(), &message.with);
                if message.kind == MessageKind::Text
                    && let Some(id) = message_id(&message.text)
                {
                    recorder.shown(&conversation, message.seq, id, &message.text);
                }
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(message);
            }
            Next::Event(Event::Link(link)) if !link.up => {
                interruptions.lock().unwrap_or_else(PoisonError::into_inner).push(link.reason);
            }
            Next::Event(_) => {}
            Next::Missed => panic!("the watcher was too slow: the history has a hole"),
            Next::Ended => return,
        }
    }
}

/// Holds what two people saw of each other against the promises, by all that both have stored; panics with
/// what is wrong. Nothing may be unreadable.
pub async fn judge(history: &History, one: &User, other: &User) -> Result<()> {
    judge_pairs(history, [(one, other)]).await
}

/// As [`judge`], for all who have written to each other in this history.
pub async fn judge_pairs(history: &History, pairs: impl IntoIterator<Item = (&User, &User)>) -> Result<()> {
    let (mut log, mut members) = (Vec::new(), Vec::new());
    for (one, other) in pairs {
        let histories = [one.history(&other.name).await?, other.history(&one.name).await?];
        let head = histories.iter().flatten().map(|message| message.seq).max().unwrap_or(0);
        let name = conversation(&one.name, &other.name);
        log.extend(rows(&name, head, &histories));
        members.extend([one, other].map(|person| Member {
            conversation: name.clone(),
            device: person.name.clone(),
            after: 0,
            until: None,
        }));
        let odd = histories.iter().flatten().find(|message| message.kind == MessageKind::Quarantine);
        ensure!(odd.is_none(), "unreadable: {odd:?}");
    }
    checker::check(&history.events(), &Truth { log, members, deadline_us: None }).assert_clean();
    Ok(())
}

/// The rows of a log as a device has them in its history, for [`crate::history::Truth`].
pub fn rows(conversation: &str, head: u64, histories: &[Vec<MessageView>]) -> Vec<crate::history::Row> {
    use crate::history::{Row, RowKind};
    let find = |seq| {
        let texts = histories.iter().flatten().filter(|m| m.seq == seq && m.kind == MessageKind::Text);
        texts.filter_map(|message| message_id(&message.text)).next()
    };
    let row = |seq| {
        let kind = find(seq).map_or(RowKind::Other, RowKind::Message);
        Row { conversation: conversation.to_owned(), seq, kind }
    };
    (1..=head).map(row).collect()
}

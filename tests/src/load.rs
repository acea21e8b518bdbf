//! Many people who write to each other at a steady rate, through real clients.
//!
//! - Open loop: each message has its moment by the clock, and is given to its client then, whatever
//!   became of those before it; its delay counts from there.
//! - People are pairs; a pair keeps its turns, so that every message has one sender and one reader.
//! - [`Load::judge`] holds what all of them saw against the promises.

use crate::{
    history::{Event, History, MessageId, What},
    user::{User, judge_pairs},
};
use anyhow::{Context, Result, ensure};
use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Registrations at a time: each costs the gateway a bcrypt and this process an Argon2.
const REGISTRATIONS: usize = 4;
/// How long a message may be on its way before its sender gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// People in pairs: those at 2n and 2n+1 write to each other.
#[derive(Debug)]
pub struct Load {
    people: Vec<Arc<User>>,
    history: History,
}

/// What became of the messages of one run.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Given to clients.
    pub sent: usize,
    /// Of these, those that the sender was told are stored.
    pub acked: usize,
    /// Errors that a person would have seen.
    pub errors: Vec<String>,
    /// Why clients said that they are not connected, which their people see.
    pub interruptions: Vec<String>,
    /// From the moment that a client was given a message to the moment its reader saw it; sorted.
    pub delays: Vec<Duration>,
}

impl Outcome {
    /// The delay that this share of the messages stayed within.
    pub fn delay(&self, share: f64) -> Duration {
        let last = self.delays.len().saturating_sub(1);
        let place = (share * last as f64).ceil() as usize;
        self.delays.get(place.min(last)).copied().unwrap_or_default()
    }
}

impl Load {
    /// Registers `pairs` of people at a server, and lets each pair say hello, so that what follows is
    /// messages only.
    pub async fn gather(server: &str, pairs: usize, folder: &Path) -> Result<Self> {
        let history = History::new();
        let mut people = Vec::new();
        let names: Vec<String> = (0..2 * pairs).map(|n| format!("person{n}")).collect();
        for some in names.chunks(REGISTRATIONS) {
            let registering =
                some.iter().map(|name| User::register(server, name, folder.join(name), &history));
            people.extend(futures_util::future::try_join_all(registering).await?.into_iter().map(Arc::new));
        }
        let load = Self { people, history };
        for pair in 0..pairs {
            let (one, other) = load.pair(pair);
            one.send(&other.name).await.context("the first message")?;
            other.sees(&one.name, 1, PATIENCE).await?;
            other.send(&one.name).await.context("the first answer")?;
        }
        Ok(load)
    }

    /// Everybody.
    pub fn people(&self) -> &[Arc<User>] {
        &self.people
    }

    /// Sends `rate` messages a second for so long, evenly over all pairs, and waits until each was
    /// answered and seen.
    pub async fn run(&self, rate: f64, duration: Duration) -> Result<Outcome> {
        let from = self.history.events().len();
        let (count, begin) = ((rate * duration.as_secs_f64()) as usize, Instant::now());
        let before: Vec<_> = self.people.iter().map(|person| person.interruptions().len()).collect();
        let mut sends = JoinSet::new();
        for n in 0..count {
            let due = begin + Duration::from_secs_f64(n as f64 / rate);
            tokio::time::sleep_until(due.into()).await;
            let (sender, reader) = self.turn(n);
            sends.spawn(async move { sender.send_within(&reader.name, PATIENCE).await });
        }
        let mut outcome = Outcome { sent: count, ..Outcome::default() };
        while let Some(sent) = sends.join_next().await {
            match sent? {
                Ok(_) => outcome.acked += 1,
                Err(error) => outcome.errors.push(format!("{error:#}")),
            }
        }
        self.all_seen(from, count).await?;
        outcome.delays = delays(&self.history.events()[from..]);
        let since = |(person, before): (&Arc<User>, usize)| person.interruptions().split_off(before);
        outcome.interruptions = self.people.iter().zip(before).flat_map(since).collect();
        Ok(outcome)
    }

    /// Holds everything since [`Load::gather`] against the promises; panics with what is wrong.
    pub async fn judge(&self) -> Result<()> {
        let pairs = (0..self.people.len() / 2).map(|pair| self.pair(pair));
        judge_pairs(&self.history, pairs.map(|(one, other)| (&**one, &**other))).await
    }

    fn pair(&self, pair: usize) -> (&Arc<User>, &Arc<User>) {
        (&self.people[2 * pair], &self.people[2 * pair + 1])
    }

    /// Who sends the n-th message, and who reads it: pairs in turn, then the other way around.
    fn turn(&self, n: usize) -> (Arc<User>, Arc<User>) {
        let pairs = self.people.len() / 2;
        let (one, other) = self.pair(n % pairs);
        let (sender, reader) = if (n / pairs).is_multiple_of(2) { (one, other) } else { (other, one) };
        (Arc::clone(sender), Arc::clone(reader))
    }

    async fn all_seen(&self, from: usize, count: usize) -> Result<()> {
        let begin = Instant::now();
        loop {
            let seen = delays(&self.history.events()[from..]).len();
            if seen >= count {
                return Ok(());
            }
            ensure!(begin.elapsed() < PATIENCE, "{seen} of {count} messages were seen by their readers");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// From each message's send to its sight by the other party, sorted.
fn delays(events: &[Event]) -> Vec<Duration> {
    let mut sent: HashMap<(&str, MessageId), u64> = HashMap::new();
    let mut delays = Vec::new();
    for event in events {
        match &event.what {
            What::Send { conversation, counter, .. } => {
                sent.insert((conversation, crate::history::id(&event.device, *counter)), event.at_us);
            }
            What::Shown { conversation, id, .. } if id.device != event.device => {
                if let Some(at_us) = sent.get(&(conversation.as_str(), id.clone())) {
                    delays.push(Duration::from_micros(event.at_us.saturating_sub(*at_us)));
                }
            }
            _ => {}
        }
    }
    delays.sort_unstable();
    delays
}

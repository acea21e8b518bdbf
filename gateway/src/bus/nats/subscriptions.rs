//! Which subjects this gateway wants to hear, and the task that makes it so.
//!
//! - [`Subscriptions`] is the wish, changed at once and never waiting; the map is the only owner of a
//!   subscription's handle.
//! - [`run`] makes what is new, then sends one barrier for all of it: subscriptions that are asked for
//!   while a barrier is on its way share the next one.
//! - async-nats subscribes again by itself after a reconnect; the barrier that follows says when that
//!   is done, and only then the gateway hears `Restored`.

use super::Incoming;
use crate::{bus::events::EventSink, metrics};
use async_nats::{Client, Request, RequestErrorKind};
use fastchat_protocol::bus::Subject;
use futures_util::stream::{self, AbortHandle};
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc, oneshot};

/// Limit: how long a barrier may take. A subscriber does not wait longer either.
pub(super) const BARRIER_TIMEOUT: Duration = Duration::from_secs(1);
/// Between a barrier that failed and the next.
const BARRIER_RETRY: Duration = Duration::from_millis(100);
/// Where barriers are published. Nobody may subscribe to it.
const BARRIER_SUBJECT: &str = "fc.v1.barrier";

/// The subjects that this gateway wants to hear, and the state of the link.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    wishes: Mutex<Wishes>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Wishes {
    subjects: HashMap<Subject, Entry>,
    /// Subjects in the map that are not made yet, or not sure and no barrier is on its way.
    new: HashSet<Subject>,
    /// Calls of `subscribe` that wait for the next barrier.
    waiting: Vec<oneshot::Sender<()>>,
    up: bool,
    /// Counts changes of the link: a barrier that began on another one says nothing.
    link: u64,
    /// The gateway is to hear `Restored` after the next barrier.
    owes_restored: bool,
}

#[derive(Debug, Default)]
struct Entry {
    /// Ends the subscription. None until it is made.
    stop: Option<AbortHandle>,
    /// A barrier has passed since it was made.
    sure: bool,
}

impl Subscriptions {
    /// Wishes for a subject. Says what to wait for, if there is anything to wait for.
    pub(super) fn add(&self, subject: Subject) -> Option<oneshot::Receiver<()>> {
        self.add_all(&[subject])
    }

    /// Wishes for subjects, under one lock, so that one barrier serves all of them.
    pub(super) fn add_all(&self, subjects: &[Subject]) -> Option<oneshot::Receiver<()>> {
        let mut wishes = self.lock();
        let mut unsure = false;
        for subject in subjects {
            let entry = wishes.subjects.entry(*subject).or_default();
            let (sure, made) = (entry.sure, entry.stop.is_some());
            unsure |= !sure;
            if !sure && !made {
                wishes.new.insert(*subject);
            }
        }
        metrics::bus_subscriptions(wishes.subjects.len());
        if !unsure || !wishes.up {
            return None;
        }
        let (done, wait) = oneshot::channel();
        wishes.waiting.push(done);
        drop(wishes);
        self.changed.notify_one();
        Some(wait)
    }

    /// Wishes for a subject no more.
    pub(super) fn remove(&self, subject: Subject) {
        let mut wishes = self.lock();
        wishes.new.remove(&subject);
        if let Some(stop) = wishes.subjects.remove(&subject).and_then(|entry| entry.stop) {
            stop.abort();
        }
        metrics::bus_subscriptions(wishes.subjects.len());
    }

    /// Whether the link is up.
    pub(super) fn is_up(&self) -> bool {
        self.lock().up
    }

    /// The link came up: everybody has lost what was published until the next barrier.
    pub(super) fn link_up(&self) {
        let mut wishes = self.lock();
        wishes.up = true;
        wishes.link += 1;
        wishes.owes_restored = true;
        drop(wishes);
        self.changed.notify_one();
    }

    /// The link is up, and nobody is owed a word about it.
    pub(super) fn is_settled(&self) -> bool {
        let wishes = self.lock();
        wishes.up && !wishes.owes_restored
    }

    /// The link went down: nobody waits for it.
    pub(super) fn link_down(&self, events: &EventSink) {
        let mut wishes = self.lock();
        if !wishes.up {
            return;
        }
        wishes.up = false;
        wishes.link += 1;
        wishes.waiting.clear();
        events.down();
        drop(wishes);
    }

    /// What there is to do, if the link is up and there is anything.
    fn take_work(&self) -> Option<Work> {
        let mut wishes = self.lock();
        let idle = wishes.new.is_empty() && wishes.waiting.is_empty() && !wishes.owes_restored;
        if idle || !wishes.up {
            return None;
        }
        Some(Work {
            new: wishes.new.drain().collect(),
            waiting: std::mem::take(&mut wishes.waiting),
            link: wishes.link,
        })
    }

    /// Whether a subject is still wished for and not made.
    fn lacks(&self, subject: Subject) -> bool {
        self.lock().subjects.get(&subject).is_some_and(|entry| entry.stop.is_none())
    }

    /// Keeps the handle of a subscription that was made, unless nobody wants it by now.
    fn made(&self, subject: Subject, stop: AbortHandle) {
        let mut wishes = self.lock();
        match wishes.subjects.get_mut(&subject) {
            Some(entry) if entry.stop.is_none() => entry.stop = Some(stop),
            _ => stop.abort(),
        }
    }

    /// A barrier has passed: what was made before it is sure, if the link is still the same.
    fn passed(&self, work: Work, events: &EventSink) {
        let mut wishes = self.lock();
        if wishes.link != work.link {
            drop(wishes);
            return self.failed(work);
        }
        for subject in &work.new {
            if let Some(entry) = wishes.subjects.get_mut(subject) {
                entry.sure = entry.stop.is_some();
            }
        }
        // Who has stopped waiting went on before it was sure.
        let went_on = work.waiting.into_iter().filter_map(|done| done.send(()).err()).count() > 0;
        if std::mem::take(&mut wishes.owes_restored) || went_on {
            events.reconnected();
        }
        drop(wishes);
    }

    /// A barrier did not come back: those who waited go on without, and hear `Restored` later.
    fn failed(&self, work: Work) {
        let mut wishes = self.lock();
        wishes.owes_restored = true;
        let unsure =
            work.new.into_iter().filter(|subject| wishes.subjects.contains_key(subject)).collect::<Vec<_>>();
        wishes.new.extend(unsure);
    }

    fn lock(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Work {
    new: Vec<Subject>,
    waiting: Vec<oneshot::Sender<()>>,
    link: u64,
}

/// Makes wishes true until it is aborted.
pub(super) async fn run(
    subscriptions: &Subscriptions,
    client: &Client,
    incoming: &mpsc::Sender<Incoming>,
    events: &EventSink,
) {
    loop {
        let Some(work) = subscriptions.take_work() else {
            subscriptions.changed.notified().await;
            continue;
        };
        for subject in work.new.iter().filter(|subject| subscriptions.lacks(**subject)) {
            make(*subject, subscriptions, client, incoming).await;
        }
        if barrier(client).await {
            subscriptions.passed(work, events);
        } else {
            tracing::debug!("the bus did not answer a barrier in time");
            subscriptions.failed(work);
            tokio::time::sleep(BARRIER_RETRY).await;
        }
    }
}

async fn make(
    subject: Subject,
    subscriptions: &Subscriptions,
    client: &Client,
    incoming: &mpsc::Sender<Incoming>,
) {
    let subscriber = match client.subscribe(subject.to_string()).await {
        Ok(subscriber) => subscriber,
        // The client has ended, and this task is about to.
        Err(error) => return tracing::warn!(%error, "cannot subscribe"),
    };
    let (stream, stop) = stream::abortable(super::Tagged { subject, subscriber });
    if incoming.send(stream).await.is_ok() {
        subscriptions.made(subject, stop);
    }
}

/// Whether the server has dealt with everything that was sent to it before.
///
/// `Client::flush` only waits until bytes are handed to the socket. A request that nobody serves is
/// answered by the server itself, in the order of the connection (also with `no_echo`, and in 2.9).
/// In a cluster this speaks for the server that the gateway is connected to; its peers hear of the
/// subscription by the same stream a little later.
async fn barrier(client: &Client) -> bool {
    let request = Request::new().timeout(Some(BARRIER_TIMEOUT));
    let began = Instant::now();
    let passed = match client.send_request(BARRIER_SUBJECT, request).await {
        Ok(_) => true,
        Err(error) => error.kind() == RequestErrorKind::NoResponders,
    };
    metrics::bus_barrier(began);
    passed
}

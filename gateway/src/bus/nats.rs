//! The bus of a fleet: core NATS, at most once.
//!
//! - One connection; async-nats owns the socket and connects again by itself.
//! - Three tasks: [`publisher`] empties the bounded queue, [`subscriptions`] makes and confirms
//!   subscriptions, [`demultiplex`] gathers all of them into the one event queue.
//! - Nothing here waits for the gateway, and the gateway waits for nothing but a barrier.
//!
//! Memory: a subscription costs about 5.6 KB (10,000 of them, resident; `tests/bus_memory.rs`), nearly
//! all of it the 32 places of 184 bytes that a tokio channel allocates when async-nats makes it. See
//! docs/decisions/0010-bus-subscriptions.md for what would cost less.

mod fleet;
mod options;
mod subscriptions;

use super::{
    Bus, BusEvents, PUBLISH_QUEUE, Waiting,
    events::{self, EventSink},
};
use crate::metrics;
use async_nats::{Client, Event, Subscriber, connection::State};
use async_trait::async_trait;
use bytes::Bytes;
use fastchat_protocol::bus::Subject;
use futures_util::{
    Stream, StreamExt,
    stream::{Abortable, SelectAll},
};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use subscriptions::{BARRIER_TIMEOUT, Subscriptions};
use tokio::{sync::mpsc, task::JoinSet};

pub use fleet::FleetLink;
pub use options::{NatsAuth, NatsError, NatsOptions};

/// How often the link is looked at, in case async-nats lost an event of it.
const LINK_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How often a start looks whether the server is there.
const START_LOOK: Duration = Duration::from_millis(5);
/// Subscriptions on their way to the demultiplexer.
const INCOMING_QUEUE: usize = 256;

/// A gateway's end of a NATS bus. Dropping it ends the connection and the events.
#[derive(Debug)]
pub struct NatsBus {
    publish: mpsc::Sender<(Subject, Bytes, Instant)>,
    subscriptions: Arc<Subscriptions>,
    events: EventSink,
    fleet: FleetLink,
    /// Aborted when dropped.
    _tasks: JoinSet<()>,
}

impl NatsBus {
    /// Starts the bus. It neither waits for a server nor fails without one: see [`Bus::is_up`].
    pub async fn start(options: &NatsOptions) -> Result<(Self, BusEvents), NatsError> {
        let (sink, events) = events::queue();
        let subscriptions = Arc::new(Subscriptions::default());
        let connect_options = options.connect_options()?.event_callback({
            let (sink, subscriptions) = (sink.clone(), Arc::clone(&subscriptions));
            move |event| {
                on_event(&event, &subscriptions, &sink);
                std::future::ready(())
            }
        });
        let client = async_nats::connect_with_options(options.servers()?, connect_options).await?;

        let fleet = FleetLink::new(client.clone());
        let (publish, queue) = mpsc::channel(PUBLISH_QUEUE);
        let (incoming, new_streams) = mpsc::channel(INCOMING_QUEUE);
        let mut tasks = JoinSet::new();
        tasks.spawn(publisher(client.clone(), queue));
        tasks.spawn(demultiplex(new_streams, sink.clone()));
        tasks.spawn(watch_link(client.clone(), Arc::clone(&subscriptions), sink.clone()));
        tasks.spawn({
            let (subscriptions, sink) = (Arc::clone(&subscriptions), sink.clone());
            async move { subscriptions::run(&subscriptions, &client, &incoming, &sink).await }
        });
        Ok((Self { publish, subscriptions, events: sink, fleet, _tasks: tasks }, events))
    }

    /// Waits until the server has answered, for `patience` at most. Says whether it has.
    pub async fn reached(&self, patience: Duration) -> bool {
        let settled = async {
            while !self.subscriptions.is_settled() {
                tokio::time::sleep(START_LOOK).await;
            }
        };
        tokio::time::timeout(patience, settled).await.is_ok()
    }
}

#[async_trait]
impl Bus for NatsBus {
    fn publish(&self, subject: Subject, record: Bytes) {
        if !self.is_up() {
            return metrics::bus_dropped("down");
        }
        if self.publish.try_send((subject, record, Instant::now())).is_err() {
            metrics::bus_dropped("full");
        }
    }

    async fn subscribe(&self, subject: Subject) {
        if let Some(done) = self.subscriptions.add(subject) {
            // Late, or the link went down: either way the subscription stands, and `Restored` follows.
            let _ = tokio::time::timeout(BARRIER_TIMEOUT, done).await;
        }
    }

    async fn subscribe_all(&self, subjects: &[Subject]) {
        if let Some(done) = self.subscriptions.add_all(subjects) {
            // As above.
            let _ = tokio::time::timeout(BARRIER_TIMEOUT, done).await;
        }
    }

    fn unsubscribe(&self, subject: Subject) {
        self.subscriptions.remove(subject);
    }

    fn is_up(&self) -> bool {
        self.subscriptions.is_up()
    }

    fn fleet(&self) -> Option<FleetLink> {
        Some(self.fleet.clone())
    }

    fn waiting(&self) -> Waiting {
        let publishes = self.publish.max_capacity() - self.publish.capacity();
        Waiting { publishes, events: self.events.waiting() }
    }
}

impl Drop for NatsBus {
    fn drop(&mut self) {
        self.events.close();
    }
}

/// Runs in async-nats's event task and never waits, so that no event is lost to a full channel.
fn on_event(event: &Event, subscriptions: &Subscriptions, sink: &EventSink) {
    match event {
        Event::Connected => subscriptions.link_up(),
        Event::Disconnected | Event::Closed => subscriptions.link_down(sink),
        Event::SlowConsumer(_) => {
            metrics::bus_dropped("slow_consumer");
            sink.slow();
        }
        Event::ServerError(error) => {
            metrics::bus_error("server");
            tracing::warn!(%error, "the bus refused something");
        }
        Event::ClientError(error) => {
            metrics::bus_error("client");
            tracing::debug!(%error, "the bus cannot be reached");
        }
        Event::LameDuckMode | Event::Draining => {}
    }
}

/// async-nats drops events of its own when 128 wait, so a flood of `SlowConsumer` can hide a change of
/// the link. What two looks in a row say against us is true.
async fn watch_link(client: Client, subscriptions: Arc<Subscriptions>, sink: EventSink) {
    let mut ticks = tokio::time::interval(LINK_CHECK_INTERVAL);
    let mut doubted = false;
    loop {
        ticks.tick().await;
        metrics::bus_client(&client.statistics());
        let (connected, up) = (client.connection_state() == State::Connected, subscriptions.is_up());
        match (doubted && connected != up, connected) {
            (true, true) => subscriptions.link_up(),
            (true, false) => subscriptions.link_down(&sink),
            (false, _) => {}
        }
        doubted = connected != up;
    }
}

/// Empties the queue into the client. Waits while the client is not connected or its buffer is full:
/// then the queue fills up and further records are dropped at its other end.
async fn publisher(client: Client, mut queue: mpsc::Receiver<(Subject, Bytes, Instant)>) {
    while let Some((subject, record, queued)) = queue.recv().await {
        match client.publish(subject.to_string(), record).await {
            Ok(()) => {
                metrics::bus_published();
                metrics::bus_waited(queued);
            }
            Err(error) => {
                tracing::debug!(%error, "a record was not published");
                metrics::bus_dropped("refused");
            }
        }
    }
}

/// Gathers the records of all subscriptions. An aborted one ends here, and dropping it unsubscribes.
async fn demultiplex(mut new_streams: mpsc::Receiver<Incoming>, sink: EventSink) {
    let mut streams = SelectAll::new();
    loop {
        tokio::select! {
            new = new_streams.recv() => match new {
                Some(stream) => streams.push(stream),
                None => return,
            },
            Some((subject, record)) = streams.next(), if !streams.is_empty() => sink.record(subject, record),
        }
    }
}

/// A subscription that can be stopped from outside.
type Incoming = Abortable<Tagged>;

/// A subscription and its subject, so that a text need not be parsed for each record.
#[derive(Debug)]
struct Tagged {
    subject: Subject,
    subscriber: Subscriber,
}

impl Stream for Tagged {
    type Item = (Subject, Bytes);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let subject = self.subject;
        self.subscriber.poll_next_unpin(cx).map(|message| message.map(|message| (subject, message.payload)))
    }
}

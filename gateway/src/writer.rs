//! Commits envelopes in batches.
//!
//! - Anyone may submit; submitting never waits. A full lane refuses, and nothing was stored.
//! - A lane takes whatever is queued, without a timer: an idle system commits one row at once, a busy
//!   one hundreds together. Conversations are spread over lanes, so that the answers of one
//!   conversation come in the order of its seqs.
//! - Replies are called after the commit, in order, on the lane: they must be short and never wait.
//! - A batch that one of its items may have spoiled is tried again item by item, so that poison refuses
//!   only itself. A store that is away, full or locked answers for the whole batch: tried one by one,
//!   each item would wait as long again. When the outcome is unknown, every item hears that.
//! - Invariant: a batch never holds the same (conversation, device, counter) twice.

use crate::store::{Append, Outcome, Store, StoreError};
use fastchat_protocol::{ConversationId, Counter, DeviceId};
use metrics::{gauge, histogram};
use std::{collections::HashSet, fmt, sync::Arc, time::Instant};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Envelopes that may wait in one lane.
pub const LANE_QUEUE: usize = 1_024;
/// Envelopes committed together at most.
pub const MAX_BATCH: usize = 256;
/// Bytes of envelopes committed together at most, about.
pub const MAX_BATCH_BYTES: usize = 2 * 1024 * 1024;

/// Called with the outcome of one envelope.
pub type Reply = Box<dyn FnOnce(Result<Outcome, WriteError>) + Send>;

/// Why an envelope has no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Nothing was stored.
    #[error("the store is not available")]
    Unavailable,
    /// It may have been stored.
    #[error("the store did not say whether it committed")]
    Unknown,
}

/// The lane has no room, or is closed. Nothing was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the writer has no room")]
pub struct Busy;

/// A handle to the lanes.
#[derive(Debug, Clone)]
pub struct Writer {
    lanes: Arc<[mpsc::Sender<Item>]>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

struct Item {
    append: Append,
    reply: Reply,
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").field("append", &self.append).finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts `lanes` tasks over one store.
    #[expect(clippy::needless_pass_by_value, reason = "the lanes share it from here on")]
    pub fn spawn(store: Arc<dyn Store>, lanes: usize) -> Self {
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let spawn = |number| {
            let (sender, receiver) = mpsc::channel(LANE_QUEUE);
            let lane = Lane { number, store: Arc::clone(&store), receiver, held: None };
            tasks.spawn(lane.run(closing.clone()));
            sender
        };
        let lanes = (0..lanes.max(1)).map(spawn).collect();
        tasks.close();
        Self { lanes, closing, tasks }
    }

    /// Queues an envelope. `reply` is called once, unless this returns an error.
    pub fn submit(&self, append: Append, reply: Reply) -> Result<(), Busy> {
        if self.closing.is_cancelled() {
            return Err(Busy);
        }
        // Ids are random, so any byte spreads them.
        let lane = usize::from(append.conversation.as_bytes()[15]) % self.lanes.len();
        self.lanes[lane].try_send(Item { append, reply }).map_err(|_| Busy)
    }

    /// Takes no more, commits what waits, and returns when all replies were called.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.wait().await;
    }
}

struct Lane {
    number: usize,
    store: Arc<dyn Store>,
    receiver: mpsc::Receiver<Item>,
    /// Taken from the queue, but waiting for the next batch.
    held: Option<Item>,
}

impl Lane {
    async fn run(mut self, closing: CancellationToken) {
        self.show(0);
        while let Some(first) = self.next(&closing).await {
            let batch = self.gather(first);
            self.show(self.receiver.len());
            self.commit(batch).await;
        }
    }

    fn show(&self, waiting: usize) {
        gauge!("fastchat_writer_queue_depth", "lane" => self.number.to_string()).set(waiting as f64);
    }

    /// Waits for an item; `None` when closing and nothing waits.
    ///
    /// Cancel safety: `recv` loses nothing, and nothing is held across the wait.
    async fn next(&mut self, closing: &CancellationToken) -> Option<Item> {
        if let Some(held) = self.held.take() {
            return Some(held);
        }
        tokio::select! {
            biased; // what waits goes before the end
            item = self.receiver.recv() => item,
            () = closing.cancelled() => self.receiver.try_recv().ok(),
        }
    }

    /// The item and whatever else is queued, up to the limits.
    fn gather(&mut self, first: Item) -> Vec<Item> {
        let mut ids = HashSet::from([id(&first)]);
        let mut bytes = first.append.envelope.len();
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
            let Ok(item) = self.receiver.try_recv() else { break };
            if !ids.insert(id(&item)) {
                // A retry that caught up with its first copy: the next batch sees it as a duplicate.
                self.held = Some(item);
                break;
            }
            bytes += item.append.envelope.len();
            batch.push(item);
        }
        batch
    }

    async fn commit(&mut self, batch: Vec<Item>) {
        let (appends, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|item| (item.append, item.reply)).unzip();
        let outcomes = match self.append(&appends).await {
            Err(Failure { spoiled: true, .. }) if appends.len() > 1 => self.one_by_one(&appends).await,
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(failure) => vec![Err(failure.error); appends.len()],
        };
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            reply(outcome);
        }
    }

    async fn one_by_one(&mut self, appends: &[Append]) -> Vec<Result<Outcome, WriteError>> {
        tracing::warn!(items = appends.len(), "a batch failed: its items are tried one by one");
        crate::metrics::writer_split();
        let mut outcomes = Vec::with_capacity(appends.len());
        for append in appends {
            let outcome = self.append(std::slice::from_ref(append)).await;
            let ends_here = matches!(outcome, Err(Failure { spoiled: false, .. }));
            let outcome = outcome.map_err(|failure| failure.error);
            outcomes.push(outcome.and_then(|mut one| one.pop().ok_or(WriteError::Unknown)));
            if ends_here {
                break;
            }
        }
        // What was not tried was not stored.
        outcomes.resize(appends.len(), Err(WriteError::Unavailable));
        outcomes
    }

    async fn append(&mut self, appends: &[Append]) -> Result<Vec<Outcome>, Failure> {
        let started = Instant::now();
        let appended = self.store.append(appends).await;
        histogram!("fastchat_writer_commit_seconds").record(started.elapsed());
        histogram!("fastchat_writer_batch_size").record(appends.len() as f64);
        match appended {
            // One outcome an item; anything else would hand answers to the wrong senders.
            Ok(outcomes) if outcomes.len() == appends.len() => Ok(outcomes),
            Ok(_) => Err(Failure { error: WriteError::Unknown, spoiled: false }),
            Err(error) => {
                tracing::warn!(%error, items = appends.len(), "a batch was not committed");
                Err(Failure::from(&error))
            }
        }
    }
}

/// A batch without outcomes.
struct Failure {
    error: WriteError,
    /// Perhaps by one of its items alone.
    spoiled: bool,
}

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Self {
        let spoiled = error.may_be_one_items();
        match error {
            StoreError::Unavailable(_) | StoreError::Schema(_) => {
                Self { error: WriteError::Unavailable, spoiled }
            }
            // An answer that makes no sense came after a commit, for all that is known.
            StoreError::Unknown(_) | StoreError::Corrupt { .. } => {
                Self { error: WriteError::Unknown, spoiled }
            }
        }
    }
}

fn id(item: &Item) -> (ConversationId, DeviceId, Counter) {
    (item.append.conversation, item.append.device, item.append.counter)
}

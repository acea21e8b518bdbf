//! Commits envelopes in batches.
//!
//! - Anyone may submit; submitting never waits. A full queue refuses, and nothing was stored.
//! - A batch takes whatever waits: an idle system commits one row at once, a busy one hundreds together.
//!   When envelopes come fast enough for it, a batch waits a little for more ([`pace`]): a commit costs
//!   the same however many are in it.
//! - Conversations are spread over *lanes*. One batch at a time takes from all of them; only when much
//!   waits do lanes commit side by side. So the answers of one conversation come in the order of its seqs.
//! - Replies are called after the commit, in order, by the writer: they must be short and never wait.
//! - A batch that one of its items may have spoiled is tried again item by item, so that poison refuses
//!   only itself. A store that is away, full or locked answers for the whole batch: tried one by one,
//!   each item would wait as long again. When the outcome is unknown, every item hears that.
//! - Invariant: a batch never holds the same (conversation, device, counter) twice.

mod commit;
mod pace;

use crate::store::{Append, Outcome, Store};
use commit::Committer;
use fastchat_protocol::{ConversationId, Counter, DeviceId};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use metrics::{Gauge, gauge};
use pace::Pace;
use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Envelopes that may wait to be looked at.
pub const QUEUE: usize = 2_048;
/// Envelopes that may wait in lanes: two batches of each of two lanes.
const IN_LANES: usize = 4 * MAX_BATCH;
/// Envelopes committed together at most.
pub const MAX_BATCH: usize = 512;
/// Bytes of envelopes committed together at most, about.
pub const MAX_BATCH_BYTES: usize = 2 * 1024 * 1024;
/// Envelopes of one lane that are worth a transaction of their own beside another lane's.
const WORTH_A_LANE: usize = 64;

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

/// The queue is full, or closed. Nothing was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the writer has no room")]
pub struct Busy;

/// A handle to the writer.
#[derive(Debug, Clone)]
pub struct Writer {
    items: mpsc::Sender<Item>,
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
    /// Starts the writer over a store; a batch waits for more at most as long as `pace`.
    pub fn spawn(store: Arc<dyn Store>, pace: Duration) -> Self {
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (items, receiver) = mpsc::channel(QUEUE);
        let turns = Turns {
            receiver,
            lanes: (0..store.lanes()).map(|_| Lane::default()).collect(),
            running: FuturesUnordered::new(),
            pace: Pace::new(pace, Instant::now()),
            committer: Committer { store },
            depth: gauge!("fastchat_writer_queue_depth"),
        };
        tasks.spawn(turns.run(closing.clone()));
        tasks.close();
        Self { items, closing, tasks }
    }

    /// Queues an envelope. `reply` is called once, unless this returns an error.
    pub fn submit(&self, append: Append, reply: Reply) -> Result<(), Busy> {
        self.items.try_send(Item { append, reply }).map_err(|_| Busy)
    }

    /// Takes no more, commits what waits, and returns when all replies were called.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.wait().await;
    }
}

/// What waits for a share of the conversations.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Item>,
    /// A batch with its envelopes is being committed.
    busy: bool,
}

struct Turns {
    receiver: mpsc::Receiver<Item>,
    lanes: Vec<Lane>,
    /// Each returns the lanes that it was for.
    running: FuturesUnordered<BoxFuture<'static, Vec<usize>>>,
    pace: Pace,
    committer: Committer,
    depth: Gauge,
}

impl Turns {
    async fn run(mut self, closing: CancellationToken) {
        self.depth.set(0.0);
        let mut open = true;
        while open || self.waiting() > 0 || !self.running.is_empty() {
            let due = self.begin(open);
            tokio::select! {
                biased;
                Some(lanes) = self.running.next() => {
                    for lane in lanes {
                        self.lanes[lane].busy = false;
                    }
                }
                // Ends once it is closed and empty.
                item = self.receiver.recv(), if open && self.waiting() < IN_LANES => match item {
                    Some(item) => self.take(item),
                    None => open = false,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                () = closing.cancelled(), if !self.receiver.is_closed() => self.receiver.close(),
            }
        }
    }

    fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len()).sum()
    }

    /// Puts an item, and all that came with it, into their lanes.
    fn take(&mut self, item: Item) {
        let mut next = Some(item);
        while let Some(item) = next {
            // Ids are random, so any byte spreads them.
            let lane = usize::from(item.append.conversation.as_bytes()[15]) % self.lanes.len();
            self.lanes[lane].waiting.push_back(item);
            next = if self.waiting() < IN_LANES { self.receiver.try_recv().ok() } else { None };
        }
    }

    /// Begins what may begin: one batch of all lanes, or where much waits one of each lane that is free.
    /// Returns when to ask again, if a batch waits for more.
    fn begin(&mut self, open: bool) -> Option<Instant> {
        let waiting = self.waiting();
        if waiting == 0 {
            return None;
        }
        if self.running.is_empty() && waiting < WORTH_A_LANE * self.lanes.len() {
            let due = self.pace.due(Instant::now()).filter(|_| open);
            if due.is_none() {
                self.commit((0..self.lanes.len()).collect());
            }
            return due;
        }
        for number in 0..self.lanes.len() {
            let lane = &self.lanes[number];
            if !lane.busy && lane.waiting.len() >= WORTH_A_LANE {
                self.commit(vec![number]);
            }
        }
        None
    }

    fn commit(&mut self, lanes: Vec<usize>) {
        self.depth.set(self.waiting() as f64);
        let batch = self.gather(&lanes);
        self.pace.began(Instant::now(), batch.len());
        for &lane in &lanes {
            self.lanes[lane].busy = true;
        }
        let committer = self.committer.clone();
        self.running.push(Box::pin(async move {
            committer.commit(batch).await;
            lanes
        }));
    }

    /// What waits in these lanes, up to the limits.
    fn gather(&mut self, lanes: &[usize]) -> Vec<Item> {
        let (mut batch, mut ids, mut bytes) = (Vec::new(), HashSet::new(), 0);
        for &lane in lanes {
            let waiting = &mut self.lanes[lane].waiting;
            while batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
                // A retry that caught up with its first copy: the next batch sees it as a duplicate.
                let Some(item) = waiting.pop_front_if(|item| ids.insert(id(item))) else { break };
                bytes += item.append.envelope.len();
                batch.push(item);
            }
        }
        batch
    }
}

fn id(item: &Item) -> (ConversationId, DeviceId, Counter) {
    (item.append.conversation, item.append.device, item.append.counter)
}

//! Who hears which group on this gateway.
//!
//! - An entry a group with a connection here that may read it. Costs about 130 bytes, and 24 bytes for
//!   each connection in it; the connection's own list of its groups has 16 more for each.
//! - A row of the group's subject is handed to every reader whose range has its seq. Ranges are those
//!   of a membership *revision*: a row of a newer one waits until they were read again. So a device
//!   that was taken out gets nothing after that row, in whatever order records come.
//! - New readers have no range until somebody speaks: a gateway that thousands enter again asks the
//!   store once a group, not once a connection.
//! - Invariant: locks are taken in the order connection's list, shard, group; none across an await.

mod members;

use crate::{
    bus::Bus,
    limits::{HEAD_GRACE, MAX_RELOADS, RELOAD_RETRY},
    metrics,
    registry::Handle,
    store::Store,
};
use bytes::Bytes;
use fastchat_protocol::{
    ConversationId, DeviceId, RequestId, Seq, ServerFrame,
    bus::Subject,
    server::{Head, Heads},
};
use members::{Members, Taken};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::Semaphore;

/// Locks that groups are spread over.
const SHARDS: usize = 64;

/// A row on its way to the readers of a group here.
#[derive(Debug, Clone)]
pub struct GroupRow {
    /// Its place.
    pub seq: Seq,
    /// The membership revision when it was committed.
    pub revision: u64,
    /// Has its answer already.
    pub sender: DeviceId,
    /// A `ServerFrame::Deliver`, shared by all.
    pub frame: Bytes,
}

/// Something for everybody who is in a group now, which may be lost.
#[derive(Debug, Clone)]
pub struct GroupHint {
    /// Which group.
    pub conversation: ConversationId,
    /// The membership revision that its readers must be known by, at least.
    pub revision: u64,
    /// The device that it comes from, which is not told.
    pub from: DeviceId,
    /// The frame, shared by all.
    pub frame: Bytes,
    /// It comes from a connection here, which must be in the group: then it is published here as well.
    pub own: Option<Arc<dyn Bus>>,
}

type Shard = HashMap<ConversationId, Arc<Mutex<Members>>>;

/// All groups that are heard here.
#[derive(Debug)]
pub struct Groups {
    shards: Vec<Mutex<Shard>>,
    entries: AtomicUsize,
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    reloads: Semaphore,
    this: Weak<Self>,
}

impl Groups {
    /// Without any.
    pub fn new(store: Arc<dyn Store>, bus: Arc<dyn Bus>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            entries: AtomicUsize::new(0),
            store,
            bus,
            reloads: Semaphore::new(MAX_RELOADS),
            this: this.clone(),
        })
    }

    /// Lets a connection hear these groups as far as the store allows, and returns when what is
    /// published from now on will arrive. One flush of the bus, however many groups there are.
    pub async fn enter(&self, handle: &Arc<Handle>, groups: &[ConversationId]) {
        let entered: Vec<_> = groups.iter().filter(|group| self.add(handle, **group)).collect();
        let subjects: Vec<_> = entered.into_iter().map(|group| Subject::Group(*group)).collect();
        if !subjects.is_empty() {
            self.bus.subscribe_all(&subjects).await;
        }
    }

    /// A connection has ended: it hears nothing any more.
    pub fn leave(&self, handle: &Handle) {
        for group in handle.take_groups() {
            if let Some(members) = self.find(group) {
                lock(&members).remove(handle.id);
                self.remove_if_empty(group);
            }
        }
    }

    /// Hands a row to the readers here, at once or after their ranges were read again.
    pub fn deliver(&self, group: ConversationId, row: GroupRow) {
        let Some(members) = self.find(group) else { return };
        let taken = lock(&members).take(row);
        match taken {
            Taken::Delivered => {}
            Taken::Held { reload } => {
                metrics::group_row("held");
                if reload {
                    self.spawn_reload(group, members);
                }
            }
            Taken::Overflow => metrics::group_row("overflow"),
        }
    }

    /// Hands something that may be lost to everybody here who is in the group now, at once or after their
    /// ranges were read again.
    pub fn hint(&self, hint: GroupHint) {
        let group = hint.conversation;
        let Some(members) = self.find(group) else { return };
        if lock(&members).take_hint(hint) {
            self.spawn_reload(group, members);
        }
    }

    /// A head check found the group at `head`: readers are told, unless the row comes in a moment.
    pub fn moved(&self, group: ConversationId, head: Seq) {
        let (Some(members), Some(this)) = (self.find(group), self.this.upgrade()) else { return };
        if !lock(&members).lacks(head) {
            return;
        }
        tokio::spawn(async move {
            // A row that is on the bus already would send a thousand members to the log for nothing.
            tokio::time::sleep(HEAD_GRACE).await;
            let reload = lock(&members).owe(head);
            if reload {
                this.reload(group, &members).await;
            }
        });
    }

    /// True if the connection is in the group from now on, false if it has ended.
    fn add(&self, handle: &Arc<Handle>, group: ConversationId) -> bool {
        handle.with_groups(|groups| {
            let mut shard = self.shard(group);
            let members = shard.entry(group).or_insert_with(|| {
                metrics::groups(self.entries.fetch_add(1, Ordering::Relaxed) + 1);
                Arc::default()
            });
            lock(members).add(handle);
            if !groups.contains(&group) {
                groups.push(group);
            }
        })
    }

    fn remove_if_empty(&self, group: ConversationId) {
        let mut shard = self.shard(group);
        if !shard.get(&group).is_some_and(|members| lock(members).is_empty()) {
            return;
        }
        shard.remove(&group);
        drop(shard);
        metrics::groups(self.entries.fetch_sub(1, Ordering::Relaxed).saturating_sub(1));
        let subject = Subject::Group(group);
        self.bus.unsubscribe(subject);
        // Somebody may have entered between the two lines above.
        if self.find(group).is_some() {
            let bus = Arc::clone(&self.bus);
            tokio::spawn(async move { bus.subscribe(subject).await });
        }
    }

    fn spawn_reload(&self, group: ConversationId, members: Arc<Mutex<Members>>) {
        let Some(this) = self.this.upgrade() else { return };
        tokio::spawn(async move { this.reload(group, &members).await });
    }

    /// Reads ranges until they are good for everything that waits. One at a time for each group.
    async fn reload(&self, group: ConversationId, members: &Mutex<Members>) {
        loop {
            let devices = lock(members).begin();
            if devices.is_empty() {
                lock(members).give_up();
                break;
            }
            let read = {
                // Never closed.
                let _turn = self.reloads.acquire().await;
                self.store.readers(group, &devices).await
            };
            metrics::group_reload(read.is_ok());
            match read {
                Ok(readers) => {
                    let told = |seq| heads(group, seq);
                    if lock(members).apply(&devices, &readers, &told) {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "rows of a group wait for the store");
                    tokio::time::sleep(RELOAD_RETRY).await;
                }
            }
        }
        self.remove_if_empty(group);
    }

    fn find(&self, group: ConversationId) -> Option<Arc<Mutex<Members>>> {
        self.shard(group).get(&group).cloned()
    }

    fn shard(&self, group: ConversationId) -> MutexGuard<'_, Shard> {
        // Ids are random, so any byte spreads them.
        lock(&self.shards[usize::from(group.as_bytes()[0]) % SHARDS])
    }
}

fn heads(conversation: ConversationId, seq: Seq) -> Bytes {
    let heads = vec![Head { conversation, seq }];
    ServerFrame::Heads(Heads { heads, mailbox: None }).encode(RequestId(0))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under these locks can panic half way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Cursors wait here a moment, so that many acks become one statement.
//!
//! The last one of a (device, conversation) wins. A cursor that is lost with the process costs a
//! device nothing but rows that it has seen: it knows its own place.

use crate::{
    limits::{CURSOR_FLUSH, MAX_WAITING_CURSORS, MAX_WAITING_DEVICES},
    metrics,
    store::Store,
};
use fastchat_protocol::{ConversationId, DeviceId, Seq};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

type Waiting = HashMap<DeviceId, HashMap<ConversationId, Seq>>;

/// Cursors on their way to the store.
#[derive(Debug, Default)]
pub struct Cursors {
    waiting: Mutex<Waiting>,
    some: Notify,
}

impl Cursors {
    /// Takes a cursor note of; a lower one than before changes nothing.
    pub fn set(&self, device: DeviceId, conversation: ConversationId, seq: Seq) {
        let mut waiting = self.lock();
        // Limit: one device cannot crowd out the others, and a store that is away for long does not fill
        // the memory. Devices ack again.
        let known = waiting.contains_key(&device);
        if waiting.len() >= MAX_WAITING_DEVICES && !known {
            return;
        }
        let cursors = waiting.entry(device).or_default();
        if cursors.len() >= MAX_WAITING_CURSORS && !cursors.contains_key(&conversation) {
            return;
        }
        let cursor = cursors.entry(conversation).or_default();
        *cursor = seq.max(*cursor);
        drop(waiting);
        self.some.notify_one();
    }

    /// Devices with a cursor on its way.
    pub fn devices_waiting(&self) -> usize {
        self.lock().len()
    }

    /// Stores what waits, until told to stop; then once more.
    pub async fn run(&self, store: Arc<dyn Store>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.some.notified() => {
                    tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(CURSOR_FLUSH) => {} }
                }
            }
            self.flush(&*store).await;
        }
    }

    async fn flush(&self, store: &dyn Store) {
        let taken = std::mem::take(&mut *self.lock());
        if taken.is_empty() {
            return;
        }
        let of_device = |(device, cursors): (DeviceId, HashMap<_, _>)| {
            cursors.into_iter().map(move |(conversation, seq)| (device, conversation, seq))
        };
        let cursors: Vec<_> = taken.into_iter().flat_map(of_device).collect();
        let stored = store.set_cursors(&cursors).await;
        metrics::cursors(stored.is_ok(), cursors.len());
        if let Err(error) = stored {
            tracing::warn!(%error, cursors = cursors.len(), "cursors wait for the store");
            for (device, conversation, seq) in cursors {
                self.set(device, conversation, seq);
            }
            tokio::time::sleep(CURSOR_FLUSH).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

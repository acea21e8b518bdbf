//! Cursors and read positions wait here a moment, so that many become one statement; what the store
//! believed is then told to those who may know ([`crate::hints`]).
//!
//! The last cursor of a (device, conversation) wins. A cursor that is lost with the process costs a
//! device nothing but rows that it has seen: it knows its own place. A read position is answered when it
//! is stored.

use crate::{
    hints::{Hints, Told},
    limits::{
        CURSOR_FLUSH, CURSOR_FLUSH_BUSY, MANY_CURSORS, MAX_WAITING_CURSORS, MAX_WAITING_DEVICES,
        MAX_WAITING_MARKS,
    },
    metrics,
    store::{
        Store, StoreError,
        receipts::{CursorMoved, ReadMark},
    },
};
use fastchat_protocol::{AccountId, ConversationId, DeviceId, Seq};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What the sender of a read position hears: whether it was believed, or that the store gave no outcome.
pub type Reply = Box<dyn FnOnce(Result<bool, &StoreError>) + Send>;

/// Cursors on their way to the store.
#[derive(Debug, Default)]
pub struct Cursors {
    waiting: Mutex<Waiting>,
    some: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    devices: HashMap<DeviceId, Acked>,
    marks: Vec<Mark>,
    /// How many of them are of each device.
    marked: HashMap<DeviceId, usize>,
}

#[derive(Debug, Default)]
struct Acked {
    /// The others may know.
    tells: bool,
    cursors: HashMap<ConversationId, Seq>,
}

struct Mark {
    account: AccountId,
    mark: ReadMark,
    reply: Reply,
}

impl std::fmt::Debug for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mark").field("mark", &self.mark).finish_non_exhaustive()
    }
}

impl Cursors {
    /// Takes a cursor note of; a lower one than before changes nothing. `tells`: others may know.
    pub fn set(&self, device: DeviceId, conversation: ConversationId, seq: Seq, tells: bool) {
        let mut waiting = self.lock();
        // Limit: one device cannot crowd out the others, and a store that is away for long does not fill
        // the memory. Devices ack again.
        let known = waiting.devices.contains_key(&device);
        if waiting.devices.len() >= MAX_WAITING_DEVICES && !known {
            return;
        }
        let acked = waiting.devices.entry(device).or_default();
        acked.tells = tells;
        if acked.cursors.len() >= MAX_WAITING_CURSORS && !acked.cursors.contains_key(&conversation) {
            return;
        }
        let cursor = acked.cursors.entry(conversation).or_default();
        *cursor = seq.max(*cursor);
        drop(waiting);
        self.some.notify_one();
    }

    /// Takes a read position note of; false if there is no room, and then nobody is answered.
    pub fn mark(&self, account: AccountId, mark: ReadMark, reply: Reply) -> bool {
        let mut waiting = self.lock();
        let of_device = waiting.marked.get(&mark.device).copied().unwrap_or_default();
        // Limit: as with cursors, one device crowds out nobody.
        if waiting.marks.len() >= MAX_WAITING_MARKS || of_device >= MAX_WAITING_CURSORS {
            return false;
        }
        waiting.marked.insert(mark.device, of_device + 1);
        waiting.marks.push(Mark { account, mark, reply });
        drop(waiting);
        self.some.notify_one();
        true
    }

    /// Devices with a cursor on its way.
    pub fn devices_waiting(&self) -> usize {
        self.lock().devices.len()
    }

    /// Stores what waits, until told to stop; then once more.
    pub async fn run(&self, store: Arc<dyn Store>, hints: Arc<Hints>, stop: CancellationToken) {
        let mut wait = CURSOR_FLUSH;
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.some.notified() => {
                    tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(wait) => {} }
                }
            }
            let cursors = self.flush(&*store, &hints).await;
            wait = if cursors < MANY_CURSORS { CURSOR_FLUSH } else { CURSOR_FLUSH_BUSY };
        }
    }

    /// The number of cursors that waited.
    async fn flush(&self, store: &dyn Store, hints: &Hints) -> usize {
        let Waiting { devices, marks, .. } = std::mem::take(&mut *self.lock());
        let mut told = Coalesced::default();
        self.store_marks(store, marks, &mut told).await;
        let cursors = self.store_cursors(store, devices, &mut told).await;
        if !told.0.is_empty() {
            hints.receipts(told.0.into_values().collect()).await;
        }
        cursors
    }

    async fn store_marks(&self, store: &dyn Store, marks: Vec<Mark>, told: &mut Coalesced) {
        if marks.is_empty() {
            return;
        }
        let wanted: Vec<_> = marks.iter().map(|mark| mark.mark).collect();
        match store.mark_read(&wanted).await {
            Ok(believed) => {
                for (Mark { account, mark, reply }, revision) in marks.into_iter().zip(believed) {
                    metrics::read_mark(if revision.is_some() { "stored" } else { "refused" });
                    reply(Ok(revision.is_some()));
                    if let Some(revision) = revision {
                        told.read(account, mark, revision);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, marks = marks.len(), "read positions were not stored");
                for mark in marks {
                    metrics::read_mark("failed");
                    (mark.reply)(Err(&error));
                }
            }
        }
    }

    async fn store_cursors(
        &self,
        store: &dyn Store,
        devices: HashMap<DeviceId, Acked>,
        told: &mut Coalesced,
    ) -> usize {
        if devices.is_empty() {
            return 0;
        }
        let of_device = |(device, acked): (&DeviceId, &Acked)| {
            let device = *device;
            let cursors = acked.cursors.iter().map(move |(conversation, seq)| (device, *conversation, *seq));
            cursors.collect::<Vec<_>>()
        };
        let cursors: Vec<_> = devices.iter().flat_map(of_device).collect();
        let stored = store.set_cursors(&cursors).await;
        metrics::cursors(stored.is_ok(), cursors.len());
        match stored {
            Ok(moved) => {
                let tells = |moved: &CursorMoved| devices.get(&moved.device).is_some_and(|acked| acked.tells);
                moved.iter().filter(|moved| tells(moved)).for_each(|moved| told.delivered(moved));
            }
            Err(error) => {
                tracing::warn!(%error, cursors = cursors.len(), "cursors wait for the store");
                for &(device, conversation, seq) in &cursors {
                    let tells = devices.get(&device).is_some_and(|acked| acked.tells);
                    self.set(device, conversation, seq, tells);
                }
                tokio::time::sleep(CURSOR_FLUSH).await;
            }
        }
        cursors.len()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a flush has to tell: one receipt for each conversation and account, and one more if there is
/// something that only the account's own devices may know.
#[derive(Debug, Default)]
struct Coalesced(BTreeMap<(ConversationId, AccountId, bool), Told>);

impl Coalesced {
    fn read(&mut self, account: AccountId, mark: ReadMark, revision: u64) {
        let ReadMark { conversation, device, seq, shared } = mark;
        let told = self.of(conversation, account, device, shared, revision);
        told.read = told.read.max(Some(seq));
    }

    fn delivered(&mut self, moved: &CursorMoved) {
        let CursorMoved { conversation, device, account, seq, revision } = *moved;
        let told = self.of(conversation, account, device, true, revision);
        told.delivered = told.delivered.max(Some(seq));
    }

    fn of(
        &mut self,
        conversation: ConversationId,
        account: AccountId,
        device: DeviceId,
        shared: bool,
        revision: u64,
    ) -> &mut Told {
        let fresh = Told { conversation, revision, account, device, delivered: None, read: None, shared };
        let told = self.0.entry((conversation, account, shared)).or_insert(fresh);
        // The newer one: whoever is out by then hears nothing.
        told.revision = told.revision.max(revision);
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_device_has_so_many_read_positions_on_their_way_and_no_more() {
        let (cursors, account) = (Cursors::default(), AccountId::new([2; 16]));
        let mark = |device| {
            let mark =
                ReadMark { conversation: ConversationId::new([1; 16]), device, seq: Seq(1), shared: true };
            cursors.mark(account, mark, Box::new(|_| {}))
        };
        let (phone, laptop) = (DeviceId::new([3; 16]), DeviceId::new([4; 16]));
        assert!((0..MAX_WAITING_CURSORS).all(|_| mark(phone)));
        assert!(!mark(phone) && mark(laptop));
    }

    #[test]
    fn a_flush_tells_each_account_once_and_keeps_what_is_private_apart() {
        let (conversation, account) = (ConversationId::new([1; 16]), AccountId::new([2; 16]));
        let (phone, laptop) = (DeviceId::new([3; 16]), DeviceId::new([4; 16]));
        let mut told = Coalesced::default();
        for (device, seq, revision) in [(phone, 7, 1), (laptop, 5, 2)] {
            told.delivered(&CursorMoved { conversation, device, account, seq: Seq(seq), revision });
        }
        for (seq, shared) in [(4, true), (6, false), (3, true)] {
            told.read(account, ReadMark { conversation, device: phone, seq: Seq(seq), shared }, 1);
        }
        let all: Vec<_> = told.0.into_values().collect();
        let places: Vec<_> =
            all.iter().map(|told| (told.shared, told.delivered, told.read, told.revision)).collect();
        assert_eq!(places, [(false, None, Some(Seq(6)), 1), (true, Some(Seq(7)), Some(Seq(4)), 2)]);
    }
}

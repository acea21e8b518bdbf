//! What waits to be written to one connection.
//!
//! - Anyone may push; only the connection's task takes.
//! - Pushing never waits. A live copy that does not fit is dropped and the connection is marked as
//!   lagging: it is told to catch up from the log once it has read what waits.
//! - An answer to a request is never dropped: a client has few requests in flight, and they are bounded.

use crate::limits::{QUEUE_BYTES, QUEUE_FRAMES};
use bytes::Bytes;
use std::{collections::VecDeque, sync::Mutex, time::Instant};
use tokio::sync::Notify;

/// A bounded queue of encoded frames. Costs nothing but its struct while it is empty.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// When each live copy among them came.
    since: Vec<Instant>,
    lagging: bool,
}

/// What there is to write.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In order.
    pub frames: VecDeque<Bytes>,
    /// When each live copy among them was queued.
    pub since: Vec<Instant>,
    /// Live copies were dropped since the last batch: a `Resync` goes after these frames.
    pub lagged: bool,
}

impl Queue {
    /// Queues a live copy; false if it was dropped.
    pub fn push_live(&self, frame: Bytes) -> bool {
        let mut waiting = self.lock();
        let full = waiting.frames.len() >= QUEUE_FRAMES || waiting.bytes + frame.len() > QUEUE_BYTES;
        // Once behind, everything newer is in the log anyway: one catch-up serves for all.
        if full || waiting.lagging {
            waiting.lagging = true;
            return false;
        }
        waiting.push(frame);
        waiting.since.push(Instant::now());
        drop(waiting);
        self.ready.notify_one();
        true
    }

    /// Queues what nobody misses, if the reader is not slow; false if it was dropped.
    pub fn push_hint(&self, frame: &Bytes) -> bool {
        let mut waiting = self.lock();
        // Half of the room is for what matters: a hint never makes a reader lag.
        let busy = waiting.frames.len() >= QUEUE_FRAMES / 2 || waiting.bytes + frame.len() > QUEUE_BYTES / 2;
        if busy || waiting.lagging {
            return false;
        }
        waiting.push(frame.clone());
        drop(waiting);
        self.ready.notify_one();
        true
    }

    /// Queues an answer.
    pub fn push_answer(&self, frame: Bytes) {
        self.lock().push(frame);
        self.ready.notify_one();
    }

    /// Takes all that waits, if anything does.
    pub fn take(&self) -> Option<Batch> {
        let mut waiting = self.lock();
        if waiting.frames.is_empty() && !waiting.lagging {
            return None;
        }
        waiting.bytes = 0;
        Some(Batch {
            frames: std::mem::take(&mut waiting.frames),
            since: std::mem::take(&mut waiting.since),
            lagged: std::mem::take(&mut waiting.lagging),
        })
    }

    /// Frames and bytes that wait, and whether live copies were dropped.
    pub fn backlog(&self) -> (usize, usize, bool) {
        let waiting = self.lock();
        (waiting.frames.len(), waiting.bytes, waiting.lagging)
    }

    /// Wakes the connection's task although there may be nothing to take: something else is to be seen.
    pub fn wake(&self) {
        self.ready.notify_one();
    }

    /// Waits until there may be something to take, or to see.
    ///
    /// Cancel safety: a wake that is not waited for stays as a permit.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // A panic while holding this lock cannot leave it half changed.
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Waiting {
    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_live_copies_and_says_so_once() {
        let queue = Queue::default();
        let frame = Bytes::from(vec![0; QUEUE_BYTES / 4]);
        for _ in 0..4 {
            assert!(queue.push_live(frame.clone()));
        }
        assert!(!queue.push_live(frame.clone()));
        assert!(!queue.push_live(Bytes::new()), "behind is behind, however small the frame");

        let batch = queue.take().expect("four frames wait");
        assert_eq!((batch.frames.len(), batch.lagged), (4, true));
        assert_eq!(queue.take(), None);
        assert!(queue.push_live(frame), "after the catch-up it is live again");
    }

    #[test]
    fn a_hint_never_makes_a_reader_lag() {
        let queue = Queue::default();
        let hint = Bytes::from_static(b"typing");
        while queue.push_hint(&hint) {}
        assert!(queue.push_live(Bytes::from_static(b"row")), "there is room for what matters");
        let batch = queue.take().expect("frames wait");
        assert_eq!((batch.frames.len(), batch.lagged), (QUEUE_FRAMES / 2 + 1, false));
    }

    #[test]
    fn an_answer_is_kept_when_the_queue_is_full() {
        let queue = Queue::default();
        while queue.push_live(Bytes::from_static(b"x")) {}
        queue.push_answer(Bytes::from_static(b"answer"));
        let batch = queue.take().expect("frames wait");
        assert_eq!(batch.frames.back(), Some(&Bytes::from_static(b"answer")));
    }
}

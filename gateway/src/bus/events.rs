//! The queue between a bus and its gateway.
//!
//! - Records are bounded by [`EVENT_QUEUE`]; one more is lost, and a `SlowConsumer` takes its place
//!   at the end of the queue: by the time the gateway hears it, the loss has happened.
//! - Signals are never lost and never pile up: what the gateway has not heard yet and a newer signal
//!   makes untrue is taken back.
//! - Putting in never waits, so that a slow gateway cannot stall the bus or another gateway.

use super::{BusEvent, EVENT_QUEUE, Loss};
use crate::metrics;
use bytes::Bytes;
use fastchat_protocol::bus::Subject;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Makes the two ends of a queue.
pub(super) fn queue() -> (EventSink, BusEvents) {
    let shared = Arc::new(Shared::default());
    (EventSink(Arc::clone(&shared)), BusEvents(shared))
}

/// The gateway's end: what its bus tells it, in order.
#[derive(Debug)]
pub struct BusEvents(Arc<Shared>);

impl BusEvents {
    /// The next event, or `None` when the bus has been dropped and everything was read.
    ///
    /// Cancel safety: safe in `select!`; an event is taken only by the call that returns it.
    pub async fn recv(&mut self) -> Option<BusEvent> {
        loop {
            {
                let mut queue = self.0.lock();
                if let Some(event) = queue.pop() {
                    return Some(event);
                }
                if queue.closed {
                    return None;
                }
            }
            self.0.filled.notified().await;
        }
    }

    /// The next event if there is one.
    pub fn try_recv(&mut self) -> Option<BusEvent> {
        self.0.lock().pop()
    }
}

/// The bus's end.
#[derive(Debug, Clone)]
pub(super) struct EventSink(Arc<Shared>);

impl EventSink {
    /// Queues a record, or loses it and says so.
    pub(super) fn record(&self, subject: Subject, record: Bytes) {
        let mut queue = self.0.lock();
        if queue.records < EVENT_QUEUE {
            queue.records += 1;
            queue.events.push_back(BusEvent::Record { subject, record });
        } else {
            metrics::bus_dropped("slow_consumer");
            queue.push_slow();
        }
        drop(queue);
        self.0.filled.notify_one();
    }

    /// Says that records were lost for slowness before they came here.
    pub(super) fn slow(&self) {
        self.0.lock().push_slow();
        self.0.filled.notify_one();
    }

    /// How many records wait for the gateway.
    pub(super) fn waiting(&self) -> usize {
        self.0.lock().records
    }

    /// Says that the bus is away.
    pub(super) fn down(&self) {
        self.0.lock().push_link(BusEvent::Down);
        self.0.filled.notify_one();
    }

    /// Says that the bus is back.
    pub(super) fn reconnected(&self) {
        self.0.lock().push_link(BusEvent::Restored(Loss::Reconnected));
        self.0.filled.notify_one();
    }

    /// Ends the queue; what is in it can still be read.
    pub(super) fn close(&self) {
        self.0.lock().closed = true;
        self.0.filled.notify_one();
    }
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Notify,
}

impl Shared {
    /// Nothing panics while it holds the lock, and a queue is whole after each step anyway.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<BusEvent>,
    /// How many of the events are records.
    records: usize,
    /// A `SlowConsumer` is in the queue.
    slow: bool,
    closed: bool,
}

impl Queue {
    fn pop(&mut self) -> Option<BusEvent> {
        let event = self.events.pop_front()?;
        match event {
            BusEvent::Record { .. } => self.records -= 1,
            BusEvent::Restored(Loss::SlowConsumer) => self.slow = false,
            BusEvent::Restored(Loss::Reconnected) | BusEvent::Down => {}
        }
        Some(event)
    }

    fn push_slow(&mut self) {
        if !self.slow {
            self.slow = true;
            self.events.push_back(BusEvent::Restored(Loss::SlowConsumer));
        }
    }

    /// Invariant: of `Down` and `Reconnected`, at most one each is in the queue, in this order.
    fn push_link(&mut self, event: BusEvent) {
        let unheard = self.events.iter().rposition(|event| {
            !matches!(event, BusEvent::Record { .. } | BusEvent::Restored(Loss::SlowConsumer))
        });
        match unheard.map(|place| (place, &self.events[place])) {
            Some((_, last)) if *last == event => {}
            // Back and gone again before anybody looked: the `Down` before it still holds.
            Some((place, BusEvent::Restored(_))) => drop(self.events.remove(place)),
            _ => self.events.push_back(event),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastchat_protocol::ids::AccountId;

    const SUBJECT: Subject = Subject::User(AccountId::new([7; 16]));
    const SLOW: BusEvent = BusEvent::Restored(Loss::SlowConsumer);
    const BACK: BusEvent = BusEvent::Restored(Loss::Reconnected);

    fn record(number: usize) -> Bytes {
        number.to_be_bytes().to_vec().into()
    }

    fn drain(events: &mut BusEvents) -> Vec<BusEvent> {
        std::iter::from_fn(|| events.try_recv()).collect()
    }

    #[test]
    fn a_full_queue_keeps_what_it_has_and_says_slow_once() {
        let (sink, mut events) = queue();
        (0..EVENT_QUEUE + 10).for_each(|number| sink.record(SUBJECT, record(number)));
        let heard = drain(&mut events);
        assert_eq!(heard.len(), EVENT_QUEUE + 1);
        assert_eq!(
            heard[EVENT_QUEUE - 1],
            BusEvent::Record { subject: SUBJECT, record: record(EVENT_QUEUE - 1) }
        );
        assert_eq!(heard[EVENT_QUEUE], SLOW);
    }

    #[test]
    fn a_second_overflow_is_said_again() {
        let (sink, mut events) = queue();
        for _ in 0..2 {
            (0..=EVENT_QUEUE).for_each(|number| sink.record(SUBJECT, record(number)));
            assert_eq!(drain(&mut events).iter().filter(|event| **event == SLOW).count(), 1);
        }
    }

    #[test]
    fn flapping_leaves_at_most_two_signals_and_the_last_state() {
        let (sink, mut events) = queue();
        for _ in 0..100 {
            sink.down();
            sink.reconnected();
        }
        assert_eq!(drain(&mut events), [BusEvent::Down, BACK]);
        sink.reconnected();
        sink.down();
        assert_eq!(drain(&mut events), [], "was down, is down");
        sink.reconnected();
        sink.slow();
        sink.reconnected();
        assert_eq!(drain(&mut events), [BACK, SLOW]);
    }

    #[tokio::test]
    async fn a_closed_queue_is_read_to_its_end() {
        let (sink, mut events) = queue();
        sink.down();
        sink.close();
        assert_eq!(events.recv().await, Some(BusEvent::Down));
        assert_eq!(events.recv().await, None);
    }
}

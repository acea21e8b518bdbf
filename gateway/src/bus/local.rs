//! A bus inside one process: the embedded default, and several gateways in one test.
//!
//! - A [`LocalHub`] knows who subscribed to what; each gateway [joins](LocalHub::join) it.
//! - Publishing puts the record into the queue of every other subscriber, there and then.
//! - With one gateway nobody else is there, so that publishing costs a look into an empty map.

use super::{
    Bus, BusEvents, Waiting,
    events::{self, EventSink},
};
use crate::metrics;
use async_trait::async_trait;
use bytes::Bytes;
use fastchat_protocol::bus::Subject;
use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

/// What the gateways of one process share. A clone is the same hub.
#[derive(Debug, Clone, Default)]
pub struct LocalHub(Arc<Hub>);

#[derive(Debug, Default)]
struct Hub {
    state: RwLock<State>,
    next_member: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    members: HashMap<u64, EventSink>,
    /// A subject without subscribers has no entry. Few gateways share a subject: a list will do.
    subscribers: HashMap<Subject, Vec<(u64, EventSink)>>,
    /// For tests: the hub carries nothing.
    down: bool,
}

impl LocalHub {
    /// A hub without gateways.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the bus of one more gateway.
    pub fn join(&self) -> (LocalBus, BusEvents) {
        let (sink, events) = events::queue();
        let member = self.0.next_member.fetch_add(1, Ordering::Relaxed);
        self.0.write().members.insert(member, sink.clone());
        (LocalBus { hub: Arc::clone(&self.0), member, sink }, events)
    }

    /// For tests: takes the hub away or brings it back, as a server that stops and starts.
    pub fn set_up(&self, up: bool) {
        let mut state = self.0.write();
        if state.down != up {
            return;
        }
        state.down = !up;
        for sink in state.members.values() {
            if up { sink.reconnected() } else { sink.down() }
        }
    }
}

impl Hub {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One gateway's end of a [`LocalHub`]. Dropping it leaves the hub and ends the events.
#[derive(Debug)]
pub struct LocalBus {
    hub: Arc<Hub>,
    member: u64,
    sink: EventSink,
}

#[async_trait]
impl Bus for LocalBus {
    fn publish(&self, subject: Subject, record: Bytes) {
        let state = self.hub.read();
        if state.down {
            return metrics::bus_dropped("down");
        }
        metrics::bus_published();
        let subscribers = state.subscribers.get(&subject).map_or(&[][..], Vec::as_slice);
        for (member, sink) in subscribers {
            if *member != self.member {
                sink.record(subject, record.clone());
            }
        }
    }

    async fn subscribe(&self, subject: Subject) {
        let mut state = self.hub.write();
        let subscribers = state.subscribers.entry(subject).or_default();
        if subscribers.iter().all(|(member, _)| *member != self.member) {
            subscribers.push((self.member, self.sink.clone()));
        }
    }

    async fn subscribe_all(&self, subjects: &[Subject]) {
        for subject in subjects {
            self.subscribe(*subject).await;
        }
    }

    fn unsubscribe(&self, subject: Subject) {
        let mut state = self.hub.write();
        let Some(subscribers) = state.subscribers.get_mut(&subject) else { return };
        subscribers.retain(|(member, _)| *member != self.member);
        if subscribers.is_empty() {
            state.subscribers.remove(&subject);
        }
    }

    fn is_up(&self) -> bool {
        !self.hub.read().down
    }

    fn waiting(&self) -> Waiting {
        // Publishing is queueing for others here.
        Waiting { publishes: 0, events: self.sink.waiting() }
    }
}

impl Drop for LocalBus {
    fn drop(&mut self) {
        let mut state = self.hub.write();
        state.members.remove(&self.member);
        state.subscribers.retain(|_, subscribers| {
            subscribers.retain(|(member, _)| *member != self.member);
            !subscribers.is_empty()
        });
        self.sink.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastchat_protocol::ids::ConversationId;

    const SUBJECT: Subject = Subject::Group(ConversationId::new([1; 16]));

    #[tokio::test]
    async fn leaving_leaves_nothing_behind() {
        let hub = LocalHub::new();
        let (bus, mut events) = hub.join();
        bus.subscribe(SUBJECT).await;
        drop(bus);
        assert_eq!(events.recv().await, None);
        let state = hub.0.read();
        assert!(state.members.is_empty() && state.subscribers.is_empty());
    }
}

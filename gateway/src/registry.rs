//! Who is connected to this gateway.
//!
//! - One entry an account, in shards, each with the connections of its devices.
//! - The newest connection of a device wins; the older one is told why it ends.
//! - Invariant: a connection removes itself only, by its number, under the shard's lock.

use crate::queue::Queue;
use bytes::Bytes;
use fastchat_protocol::{AccountId, Code, ConversationId, DeviceId, Refusal, RequestId, ServerFrame};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

/// Locks that accounts are spread over; a power of two well above the number of cores.
const SHARDS: usize = 64;

/// One connection of a known device, as others see it.
#[derive(Debug)]
pub struct Handle {
    /// Which connection; numbers are never used again.
    pub id: u64,
    /// Whose.
    pub account: AccountId,
    /// Which device.
    pub device: DeviceId,
    /// When it entered.
    pub since: Instant,
    /// What waits to be written.
    pub queue: Queue,
    /// Others may learn that the account is online.
    pub visible: AtomicBool,
    /// Others may learn how far its devices have received.
    pub shares_delivered: AtomicBool,
    /// Others may learn when it was last online.
    pub shares_last_seen: AtomicBool,
    /// The account had no other device when the connection began.
    pub sole: AtomicBool,
    /// Another gateway may have a connection of it since then: of another device, or of this one.
    pub company: AtomicBool,
    /// The groups that it is in; none any more once it has ended.
    groups: Mutex<Option<Vec<ConversationId>>>,
    end: OnceLock<Refusal>,
}

impl Handle {
    fn new(id: u64, account: AccountId, device: DeviceId) -> Self {
        Self {
            id,
            account,
            device,
            since: Instant::now(),
            queue: Queue::default(),
            // Until the store has said so.
            visible: AtomicBool::new(false),
            shares_delivered: AtomicBool::new(false),
            shares_last_seen: AtomicBool::new(false),
            sole: AtomicBool::new(false),
            company: AtomicBool::new(false),
            groups: Mutex::new(Some(Vec::new())),
            end: OnceLock::new(),
        }
    }

    /// Queues the answer to a request.
    pub fn answer(&self, request: RequestId, frame: &ServerFrame) {
        self.queue.push_answer(frame.encode(request));
    }

    /// Changes the connection's list of groups; false if it has ended.
    pub fn with_groups(&self, change: impl FnOnce(&mut Vec<ConversationId>)) -> bool {
        lock(&self.groups).as_mut().map(change).is_some()
    }

    /// Takes the list of groups, for good: the connection enters none from now on.
    pub fn take_groups(&self) -> Vec<ConversationId> {
        lock(&self.groups).take().unwrap_or_default()
    }

    /// Ends the connection; the first reason stands and is told to the client.
    pub fn close(&self, code: Code, detail: &str) {
        if self.end.set(Refusal::new(code, detail)).is_ok() {
            self.queue.wake();
        }
    }

    /// No other gateway has a connection of this account, by all that was heard.
    fn is_alone(&self) -> bool {
        self.sole.load(Ordering::Relaxed) && !self.company.load(Ordering::Relaxed) && self.end().is_none()
    }

    /// Why the connection is to end, if it is.
    pub fn end(&self) -> Option<&Refusal> {
        self.end.get()
    }
}

/// All connections of this gateway.
#[derive(Debug)]
pub struct Registry {
    shards: Vec<Mutex<HashMap<AccountId, Vec<Arc<Handle>>>>>,
    next: AtomicU64,
    limit: usize,
    connections: AtomicUsize,
}

/// What waits to be written, over all connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Frames.
    pub frames: usize,
    /// Bytes.
    pub bytes: usize,
    /// Frames of the connection with most of them.
    pub longest: usize,
    /// Connections that lost live copies and were not told yet.
    pub lagging: usize,
}

/// What became of a frame for the devices of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Connections that get it.
    pub queued: usize,
    /// Connections that had no room for it.
    pub dropped: usize,
    /// Others may be at other gateways.
    pub elsewhere: bool,
}

/// A new connection and what it changed.
#[derive(Debug)]
pub struct Entered {
    /// The connection.
    pub handle: Arc<Handle>,
    /// It is the account's only one.
    pub first: bool,
}

impl Registry {
    /// Nobody; at most `limit` connections.
    pub fn new(limit: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, next: AtomicU64::new(1), limit, connections: AtomicUsize::new(0) }
    }

    /// Enters a connection and displaces an older one of the same device; `None` if there are as many as
    /// there may be.
    pub fn enter(&self, account: AccountId, device: DeviceId) -> Option<Entered> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let handle = Arc::new(Handle::new(id, account, device));
        let mut shard = self.shard(account);
        let handles = shard.entry(account).or_default();
        let first = handles.is_empty();
        match handles.iter_mut().find(|other| other.device == device) {
            Some(older) => {
                older.close(Code::Displaced, "a newer connection of this device took over");
                *older = Arc::clone(&handle);
            }
            None => {
                let room = |count| (count < self.limit).then_some(count + 1);
                if self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
                    if first {
                        shard.remove(&account);
                    }
                    return None;
                }
                handles.push(Arc::clone(&handle));
            }
        }
        Some(Entered { handle, first })
    }

    /// Removes a connection, unless a newer one took its place; true if the account has none left.
    pub fn leave(&self, handle: &Handle) -> bool {
        let mut shard = self.shard(handle.account);
        let Some(handles) = shard.get_mut(&handle.account) else {
            return false;
        };
        let Some(place) = handles.iter().position(|other| other.id == handle.id) else {
            return false;
        };
        handles.swap_remove(place);
        self.connections.fetch_sub(1, Ordering::Relaxed);
        let last = handles.is_empty();
        if last {
            shard.remove(&handle.account);
        }
        last
    }

    /// Queues a live copy for every device of the account but one.
    pub fn deliver(&self, account: AccountId, except: Option<DeviceId>, frame: &Bytes) -> Reached {
        self.reach(account, except, |queue| queue.push_live(frame.clone()))
    }

    /// Queues what may be lost, for every device of the account but one.
    pub fn hint(&self, account: AccountId, except: Option<DeviceId>, frame: &Bytes) -> Reached {
        self.reach(account, except, |queue| queue.push_hint(frame))
    }

    fn reach(&self, account: AccountId, except: Option<DeviceId>, push: impl Fn(&Queue) -> bool) -> Reached {
        let shard = self.shard(account);
        let handles = shard.get(&account).map(Vec::as_slice).unwrap_or_default();
        let mut reached = Reached { queued: 0, dropped: 0, elsewhere: true };
        for handle in handles {
            reached.elsewhere &= !handle.is_alone();
            if Some(handle.device) != except {
                match push(&handle.queue) {
                    true => reached.queued += 1,
                    false => reached.dropped += 1,
                }
            }
        }
        reached
    }

    /// Other gateways may have connections of the account from now on.
    pub fn accompany(&self, account: AccountId) {
        for handle in self.shard(account).get(&account).into_iter().flatten() {
            handle.company.store(true, Ordering::Relaxed);
        }
    }

    /// The account's connections, or those of one device of it.
    pub fn find(&self, account: AccountId, device: Option<DeviceId>) -> Vec<Arc<Handle>> {
        let shard = self.shard(account);
        let handles = shard.get(&account).map(Vec::as_slice).unwrap_or_default();
        handles.iter().filter(|handle| device.is_none_or(|device| handle.device == device)).cloned().collect()
    }

    /// Whether the account is connected here and others may know.
    pub fn shows(&self, account: AccountId) -> bool {
        let shard = self.shard(account);
        let handles = shard.get(&account).map(Vec::as_slice).unwrap_or_default();
        handles.iter().any(|handle| handle.visible.load(Ordering::Relaxed))
    }

    /// Whether the account is connected here.
    pub fn has(&self, account: AccountId) -> bool {
        self.shard(account).contains_key(&account)
    }

    /// Every connection, a shard at a time; entries that come or go meanwhile may be missed.
    pub fn all(&self) -> Vec<Arc<Handle>> {
        let handles = |shard: &Mutex<HashMap<_, Vec<Arc<Handle>>>>| {
            lock(shard).values().flatten().cloned().collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(handles).collect()
    }

    /// Wakes every connection: something that is to be seen by all of them has changed before.
    pub fn wake(&self) {
        for shard in &self.shards {
            lock(shard).values().flatten().for_each(|handle| handle.queue.wake());
        }
    }

    /// Whether there are as many connections as there may be.
    pub fn is_full(&self) -> bool {
        self.connections() >= self.limit
    }

    /// What waits for all connections; counted where it is, so that nothing is kept up to date for it.
    pub fn backlog(&self) -> Backlog {
        let mut backlog = Backlog::default();
        for shard in &self.shards {
            for handle in lock(shard).values().flatten() {
                let (frames, bytes, lagging) = handle.queue.backlog();
                backlog.frames += frames;
                backlog.bytes += bytes;
                backlog.longest = backlog.longest.max(frames);
                backlog.lagging += usize::from(lagging);
            }
        }
        backlog
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn shard(&self, account: AccountId) -> MutexGuard<'_, HashMap<AccountId, Vec<Arc<Handle>>>> {
        // Ids are random, so any byte spreads them.
        lock(&self.shards[usize::from(account.as_bytes()[0]) % SHARDS])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under these locks can panic half way through a change.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: AccountId = AccountId::new([1; 16]);
    const BOB: AccountId = AccountId::new([4; 16]);
    const PHONE: DeviceId = DeviceId::new([2; 16]);
    const LAPTOP: DeviceId = DeviceId::new([3; 16]);

    #[test]
    fn the_newest_connection_of_a_device_wins_and_the_older_one_is_told() {
        let registry = Registry::new(9);
        let older = registry.enter(ALICE, PHONE).expect("room");
        let newer = registry.enter(ALICE, PHONE).expect("room");
        assert!(older.first && !newer.first);
        assert_eq!(older.handle.end().map(|end| end.code), Some(Code::Displaced));

        assert!(!registry.leave(&older.handle), "a displaced connection removes nobody but itself");
        assert_eq!(registry.connections(), 1);
        assert!(registry.leave(&newer.handle));
        assert_eq!(registry.connections(), 0);
        assert!(!registry.has(ALICE));
    }

    #[test]
    fn a_full_registry_takes_the_devices_that_it_has_and_no_other() {
        let registry = Registry::new(1);
        assert!(registry.enter(ALICE, PHONE).is_some() && registry.is_full());
        assert!(registry.enter(ALICE, LAPTOP).is_none() && registry.enter(BOB, PHONE).is_none());
        assert!(!registry.has(BOB), "nothing is left of who was not let in");
        let again = registry.enter(ALICE, PHONE).expect("it takes its own place");
        assert!(registry.leave(&again.handle) && !registry.is_full());
        assert!(registry.enter(BOB, PHONE).is_some());
    }

    #[test]
    fn a_row_goes_to_every_device_but_the_one_that_sent_it() {
        let registry = Registry::new(9);
        let phone = registry.enter(ALICE, PHONE).expect("room").handle;
        let laptop = registry.enter(ALICE, LAPTOP).expect("room").handle;
        let reached = registry.deliver(ALICE, Some(PHONE), &Bytes::from_static(b"row"));
        assert_eq!(reached, Reached { queued: 1, dropped: 0, elsewhere: true });
        assert_eq!(phone.queue.take(), None);
        assert_eq!(laptop.queue.take().expect("one frame").frames.len(), 1);
    }

    #[test]
    fn the_only_device_of_an_account_is_elsewhere_once_it_may_be() {
        let registry = Registry::new(9);
        let elsewhere = || registry.deliver(ALICE, None, &Bytes::from_static(b"row")).elsewhere;
        assert!(elsewhere(), "nobody is here");
        let phone = registry.enter(ALICE, PHONE).expect("room").handle;
        assert!(elsewhere(), "the store has not said so yet");
        phone.sole.store(true, Ordering::Relaxed);
        assert!(!elsewhere());
        // A second device begins here: whoever is elsewhere would have been heard of.
        let _laptop = registry.enter(ALICE, LAPTOP).expect("room").handle;
        assert!(!elsewhere());
        registry.accompany(ALICE);
        assert!(elsewhere());

        let phone = registry.enter(BOB, PHONE).expect("room").handle;
        // It was heard of first.
        registry.accompany(BOB);
        phone.sole.store(true, Ordering::Relaxed);
        assert!(registry.hint(BOB, None, &Bytes::from_static(b"typing")).elsewhere);
    }

    #[test]
    fn a_connection_that_ends_speaks_for_nobody() {
        let registry = Registry::new(9);
        let phone = registry.enter(ALICE, PHONE).expect("room").handle;
        phone.sole.store(true, Ordering::Relaxed);
        phone.close(Code::Displaced, "a newer connection of this device took over");
        assert!(registry.deliver(ALICE, None, &Bytes::from_static(b"row")).elsewhere);
    }
}

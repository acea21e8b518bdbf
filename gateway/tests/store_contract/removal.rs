//! The race that matters most: somebody is put out, or let in again, while everybody talks.
//!
//! Each round races one change (a removal by commit, a leave, the removal or revocation of one device, an
//! addition) on a real store against sends by the device that it is about, by others of its account and by
//! others, against other commits, and against readers. When all are done, the log and everything that
//! the device could see are held against the row of the change. `RACES=10000` says how many rounds, on
//! both stores together; `RACE_SEED` repeats one that failed.

use crate::world::{Person, Random, World, commit, epoch, id, item, joins, leave};
use bytes::Bytes;
use fastchat_gateway::store::{NewCommit, NewManifest, Outcome, Store, StoreError, Stored};
use fastchat_protocol::{ConversationId, DeviceId, Epoch, Role, Seq};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinSet;

/// Without `RACES`: a sample for every run of the tests.
const SAMPLE: u64 = 200;
/// Sends that each task tries in a round.
const SENDS: u64 = 3;

pub(crate) async fn remove_against_send(world: World) {
    let rounds = number("RACES").unwrap_or(SAMPLE) / 2;
    let seed =
        number("RACE_SEED").unwrap_or(u64::from(std::process::id()) << 1 | u64::from(world.is_postgres()));
    let start = std::time::Instant::now();
    let mut stage = Stage::set(&world, seed).await;
    for round in 0..rounds {
        stage.tell = format!("RACE_SEED={seed}, round {round}");
        stage.round().await;
    }
    eprintln!("{rounds} rounds with seed {seed}: {:?}", start.elapsed());
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    /// By a commit of the owner's.
    Account,
    /// By a statement of its other device.
    Leave,
    /// The device's leaf alone.
    Device,
    /// By a manifest: there is no row.
    Revoke,
    /// Whatever is out comes in again.
    Add,
}

struct Stage {
    store: Arc<dyn Store>,
    conversation: ConversationId,
    random: Random,
    /// Owner, and somebody who sends and commits.
    alice: DeviceId,
    carol: DeviceId,
    bob: Person,
    version: u64,
    /// Bob's two devices that are not revoked; the second is the one that the rounds are about.
    pair: [DeviceId; 2],
    /// What put it out, and the last row that it may read: `None` while it is in.
    out: Option<(Change, u64)>,
    revoked: Option<DeviceId>,
    counters: HashMap<DeviceId, u64>,
    epoch: u64,
    head: u64,
    revision: u64,
    tell: String,
}

/// What the tasks of a round were told.
#[derive(Debug, Default)]
struct Told {
    /// Rows that were acked: seq to sender, counter, revision.
    acked: BTreeMap<u64, (DeviceId, u64, u64)>,
    counters: HashMap<DeviceId, u64>,
    epoch: u64,
    /// The row of the change, or (for a revocation) nothing.
    change: Option<Stored>,
    seen: Vec<Seen>,
}

/// What the device could see at one moment.
#[derive(Debug, PartialEq)]
struct Seen {
    /// First and last row of a page, with the head that it named.
    page: Option<(u64, u64, u64)>,
    /// Revision, with the range that it is true for.
    readers: (u64, Option<(u64, Option<u64>)>),
    /// Head of the listed conversation, and whether it is to be joined.
    listed: Option<(u64, bool)>,
    has_state: bool,
}

impl Stage {
    async fn set(world: &World, seed: u64) -> Self {
        let (alice, bob) = (world.person("alice", 1).await, world.person("bob", 2).await);
        let carol = world.person("carol", 1).await;
        let members = [(&alice, Role::Owner), (&bob, Role::Member), (&carol, Role::Member)];
        Self {
            store: world.store.clone(),
            conversation: world.group("raced", &members).await,
            random: Random(seed),
            alice: alice.devices[0],
            carol: carol.devices[0],
            pair: [bob.devices[0], bob.devices[1]],
            bob,
            version: 1,
            out: None,
            revoked: None,
            counters: HashMap::new(),
            epoch: 1,
            head: 1,
            revision: 1,
            tell: String::new(),
        }
    }

    async fn round(&mut self) {
        let change = match self.out {
            Some(_) => Change::Add,
            None => [Change::Account, Change::Leave, Change::Device, Change::Revoke][self.random.below(4)],
        };
        if let (Change::Add, Some((Change::Revoke, _))) = (change, self.out) {
            self.new_device().await;
        }
        let watched = self.pair[1];
        let told = self.race(change, watched).await;
        self.check(change, watched, &told).await;
        self.head = *told.acked.keys().next_back().unwrap_or(&self.head).max(&self.head);
        self.counters.extend(&told.counters);
        self.epoch = told.epoch;
        let revision = self.store.readers(self.conversation, &[]).await.unwrap().revision;
        assert!(revision > self.revision, "{}: the revision stays", self.tell);
        self.revision = revision;
        self.out = match change {
            Change::Add => None,
            _ => Some((change, told.change.map_or(self.head, |row| row.seq.0))),
        };
        for device in self.pair {
            self.store.ack_mailbox(device, Seq(u64::MAX)).await.unwrap();
        }
    }

    /// The change and everything that it races with.
    async fn race(&mut self, change: Change, watched: DeviceId) -> Told {
        let mut tasks: JoinSet<Told> = JoinSet::new();
        let mut senders = vec![self.carol, watched];
        if change != Change::Leave {
            senders.push(self.pair[0]);
        }
        if change == Change::Add {
            senders.push(self.alice);
        }
        // Whoever commits or leaves does not send: a device has one counter.
        senders.retain(|device| *device != self.alice);
        for device in senders {
            let commits = device == self.carol && self.random.one_in(3);
            tasks.spawn(self.sender(device, commits));
        }
        for _ in 0..2 {
            tasks.spawn(self.reader(watched));
        }
        match change {
            Change::Leave => drop(tasks.spawn(self.leaver())),
            Change::Revoke => drop(tasks.spawn(self.revoker(watched))),
            Change::Account | Change::Device | Change::Add => {
                let commit = self.commit(change, watched);
                drop(tasks.spawn(self.committer(commit)));
            }
        }
        let mut all = Told { epoch: self.epoch, ..Told::default() };
        while let Some(told) = tasks.join_next().await {
            let mut told = told.unwrap_or_else(|error| panic!("{}: {error}", self.tell));
            for (seq, row) in told.acked {
                assert_eq!(all.acked.insert(seq, row), None, "{}: two rows at {seq}", self.tell);
            }
            all.counters.extend(told.counters);
            all.epoch = all.epoch.max(told.epoch);
            all.change = all.change.or(told.change);
            all.seen.append(&mut told.seen);
        }
        all
    }

    fn commit(&mut self, change: Change, watched: DeviceId) -> NewCommit {
        let counter = self.next_counter(self.alice);
        let mut commit = commit(self.conversation, self.alice, counter, self.epoch);
        commit.membership_changed = true;
        match (change, self.out.map(|(out, _)| out)) {
            (Change::Account, _) => {
                (commit.members, commit.removes) = (vec![(self.bob.account, None)], self.pair.to_vec());
            }
            (Change::Device, _) => commit.removes = vec![watched],
            (_, Some(Change::Device)) => commit.joins = joins(&[watched], "w"),
            (_, Some(Change::Revoke)) => {
                (commit.joins, commit.removes) = (joins(&[watched], "w"), self.revoked.into_iter().collect());
            }
            _ => {
                commit.members = vec![(self.bob.account, Some(Role::Member))];
                commit.joins = joins(&self.pair, "w");
            }
        }
        commit
    }

    fn next_counter(&self, device: DeviceId) -> u64 {
        self.counters.get(&device).copied().unwrap_or_default() + 1
    }

    /// Waits a little, or not at all: the tasks meet in every order.
    fn jitter(&mut self) -> impl Future<Output = ()> + use<> {
        let (millis, yields) = (self.random.below(12).saturating_sub(8), self.random.below(40));
        async move {
            if millis > 0 {
                tokio::time::sleep(Duration::from_millis(millis as u64)).await;
            }
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
        }
    }

    fn sender(&mut self, device: DeviceId, commits: bool) -> impl Future<Output = Told> + use<> {
        let (store, conversation, mut current) = (self.store.clone(), self.conversation, self.epoch);
        let (mut counter, jitter) = (self.next_counter(device), self.jitter());
        async move {
            let mut told = Told::default();
            jitter.await;
            for n in 0..SENDS * 2 {
                let outcome = if commits && n == 1 {
                    let commit = commit(conversation, device, counter, current);
                    patient(|| store.append_commit(commit.clone())).await.outcome
                } else {
                    let batch = [item(conversation, device, counter, current)];
                    patient(|| store.append(&batch)).await.remove(0)
                };
                match outcome {
                    Outcome::Stored(row) => {
                        told.acked.insert(row.seq.0, (device, counter, row.revision));
                        told.counters.insert(device, counter);
                        counter += 1;
                        if commits && n == 1 {
                            current += 1;
                            told.epoch = current;
                        }
                        if counter > SENDS && told.acked.len() as u64 == SENDS {
                            break;
                        }
                    }
                    Outcome::Stale(epoch) => current = epoch.number,
                    Outcome::NotMember => tokio::task::yield_now().await,
                    other => panic!("a send: {other:?}"),
                }
            }
            told
        }
    }

    fn reader(&mut self, device: DeviceId) -> impl Future<Output = Told> + use<> {
        let (store, conversation, jitter) = (self.store.clone(), self.conversation, self.jitter());
        // Old rows are many after a while; those around the change are what matters.
        let after = Seq(self.head.saturating_sub(9));
        async move {
            let mut told = Told::default();
            jitter.await;
            for _ in 0..3 {
                told.seen.push(look(&*store, conversation, device, after).await);
                tokio::task::yield_now().await;
            }
            told
        }
    }

    fn committer(&mut self, mut commit: NewCommit) -> impl Future<Output = Told> + use<> {
        let (store, jitter) = (self.store.clone(), self.jitter());
        async move {
            jitter.await;
            loop {
                match patient(|| store.append_commit(commit.clone())).await.outcome {
                    Outcome::Stored(row) => return one(commit.device, commit.counter.0, row, commit.epoch),
                    Outcome::Stale(current) => {
                        commit.parent = current;
                        commit.epoch = epoch(current.number + 1);
                    }
                    other => panic!("the change: {other:?}"),
                }
            }
        }
    }

    fn leaver(&mut self) -> impl Future<Output = Told> + use<> {
        let (store, device, jitter) = (self.store.clone(), self.pair[0], self.jitter());
        let mut leave = leave(self.conversation, device, self.next_counter(device), self.epoch);
        async move {
            jitter.await;
            loop {
                match patient(|| store.leave(leave.clone())).await {
                    Outcome::Stored(row) => return one(device, leave.counter.0, row, leave.epoch),
                    Outcome::Stale(current) => leave.epoch = current,
                    other => panic!("the leave: {other:?}"),
                }
            }
        }
    }

    fn revoker(&mut self, device: DeviceId) -> impl Future<Output = Told> + use<> {
        self.revoked = Some(device);
        self.version += 1;
        let (store, account, jitter) = (self.store.clone(), self.bob.account, self.jitter());
        let next = manifest(self.version, &self.pair[..1], vec![device]);
        async move {
            jitter.await;
            assert!(patient(|| store.put_manifest(account, next.clone())).await);
            Told::default()
        }
    }

    /// Another device for the one that was revoked.
    async fn new_device(&mut self) {
        self.version += 1;
        self.pair[1] = DeviceId::new(id(&format!("device of version {}", self.version)));
        let next = manifest(self.version, &self.pair, Vec::new());
        assert!(self.store.put_manifest(self.bob.account, next).await.unwrap());
    }

    async fn check(&mut self, change: Change, watched: DeviceId, told: &Told) {
        let tell = format!("{}, {change:?} after {:?}", self.tell, self.out);
        self.check_log(told, &tell).await;
        let revision = told.change.map_or(self.revision + 1, |row| row.revision);
        let about = |device: &DeviceId| match change {
            Change::Account | Change::Leave => self.pair.contains(device),
            Change::Device | Change::Revoke => *device == watched,
            // Of the other one, if it was out as well.
            Change::Add => {
                *device == watched
                    || self.out.is_some_and(|(out, _)| is_whole(out)) && self.pair.contains(device)
            }
        };
        for (seq, (device, counter, of_row)) in &told.acked {
            let is_change = told.change.is_some_and(|row| row.seq.0 == *seq);
            let before = *of_row < revision;
            // Revisions rise with seqs, so that a gateway that hands rows out can go by them.
            if let Some(row) = told.change {
                assert_eq!(before, *seq < row.seq.0, "{tell}: revision {of_row} at {seq}");
            }
            if about(device) && !is_change {
                assert_eq!(before, change != Change::Add, "{tell}: row {seq} ({counter}) by {device}");
            }
        }
        let end = told.change.map(|row| row.seq.0);
        for seen in &told.seen {
            self.check_seen(change, end, revision, seen, &format!("{tell}: {seen:?}, {told:?}"));
        }
        self.check_after(change, watched, end, &tell).await;
    }

    /// Every row from the round's start is there once, and is what somebody was told of.
    async fn check_log(&self, told: &Told, tell: &str) {
        let page =
            self.store.fetch(self.alice, self.conversation, Seq(self.head), 256).await.unwrap().unwrap();
        let seqs: Vec<_> = page.rows.iter().map(|row| row.seq.0).collect();
        assert_eq!(seqs, (self.head + 1..=self.head + seqs.len() as u64).collect::<Vec<_>>(), "{tell}");
        assert_eq!(page.head.0, self.head + seqs.len() as u64, "{tell}");
        assert_eq!(seqs, told.acked.keys().copied().collect::<Vec<_>>(), "{tell}: acked and stored");
        for row in page.rows {
            let (device, counter, _) = told.acked[&row.seq.0];
            assert_eq!((row.sender, row.counter.0), (device, counter), "{tell}: row {}", row.seq);
            let envelope = row.envelope.unwrap();
            let sealed = Bytes::from(format!("{device} {counter}"));
            assert!(envelope == sealed || u8::from(row.kind) != 2, "{tell}: {envelope:?}");
        }
    }

    /// What was seen at some moment of the race lies on one side of the change, and within its range.
    fn check_seen(&self, change: Change, end: Option<u64>, revision: u64, seen: &Seen, tell: &str) {
        let (of_readers, range) = seen.readers;
        match (change, end) {
            (Change::Add, Some(start)) => {
                let old = self.out.map(|(_, last)| last).unwrap_or_default();
                if let Some((first, last, head)) = seen.page {
                    // Before: up to its old end. After: from its new start. Never what lies between.
                    assert!(
                        head <= old && last <= old || first >= start || first == 0 && head >= start,
                        "{tell}"
                    );
                }
                match range {
                    Some((_, Some(to))) => assert!(to <= old && of_readers < revision, "{tell}"),
                    Some((from, None)) => assert!(from == start && of_readers >= revision, "{tell}"),
                    None => assert!(of_readers < revision, "{tell}"),
                }
            }
            (Change::Revoke, _) => {
                assert_eq!(range.is_some(), of_readers < revision, "{tell}");
            }
            (_, end) => {
                let end = end.expect("the change has a row");
                if let Some((_, last, head)) = seen.page {
                    assert!(last <= end && head <= end, "{tell}");
                }
                let to = range.expect("it may read what was before").1;
                assert_eq!(to, (of_readers >= revision).then_some(end), "{tell}");
                assert!(seen.listed.is_none_or(|(head, unjoined)| head <= end && !unjoined), "{tell}");
            }
        }
    }

    /// What is so when all is done, and stays so.
    async fn check_after(&self, change: Change, watched: DeviceId, end: Option<u64>, tell: &str) {
        let seen = look(&*self.store, self.conversation, watched, Seq(0)).await;
        let late = item(self.conversation, watched, 1 << 40, self.epoch);
        let refused = self.store.append(&[late]).await.unwrap().remove(0);
        match change {
            Change::Add => {
                let start = end.expect("the change has a row");
                assert_eq!(seen.page.map(|page| page.0), Some(start), "{tell}: {seen:?}");
                assert!(
                    seen.has_state && seen.listed.is_some_and(|(_, unjoined)| !unjoined),
                    "{tell}: {seen:?}"
                );
                assert!(matches!(refused, Outcome::OutOfOrder(_) | Outcome::Stale(_)), "{tell}: {refused:?}");
                assert_eq!(seen.readers.1, Some((start, None)), "{tell}");
                assert_ne!(self.store.mailbox(watched, Seq(0), 9).await.unwrap().0, [], "{tell}");
                return;
            }
            Change::Revoke => {
                assert_eq!((seen.page, seen.listed, seen.has_state), (None, None, false), "{tell}");
                assert_eq!(seen.readers.1, None, "{tell}");
            }
            _ => {
                let end = end.expect("the change has a row");
                assert_eq!(seen.page.map(|page| page.2), Some(end), "{tell}: {seen:?}");
                assert_eq!(seen.readers.1.map(|range| range.1), Some(Some(end)), "{tell}: {seen:?}");
                assert_eq!(seen.has_state, change == Change::Device, "{tell}");
                assert_eq!(self.store.arrival(watched).await.unwrap().unwrap().groups, [], "{tell}");
            }
        }
        assert_eq!(refused, Outcome::NotMember, "{tell}");
    }
}

/// Asks again where a lock did not come in time, which says that nothing was stored and happens on a
/// machine that has no time for the lock's holder. A deadlock is another error, and a failure.
async fn patient<T, F: Future<Output = Result<T, StoreError>>>(ask: impl Fn() -> F) -> T {
    loop {
        match ask().await {
            Err(error @ StoreError::Unavailable(_)) if !error.may_be_one_items() => eprintln!("{error}"),
            answer => return answer.expect("the store answers"),
        }
    }
}

/// Whether it puts the account out, not one device.
fn is_whole(change: Change) -> bool {
    matches!(change, Change::Account | Change::Leave)
}

fn one(device: DeviceId, counter: u64, row: Stored, epoch: Epoch) -> Told {
    Told {
        acked: [(row.seq.0, (device, counter, row.revision))].into(),
        counters: [(device, counter)].into(),
        epoch: epoch.number,
        change: Some(row),
        seen: Vec::new(),
    }
}

async fn look(store: &dyn Store, conversation: ConversationId, device: DeviceId, after: Seq) -> Seen {
    let page = store.fetch(device, conversation, after, 256).await.unwrap();
    let readers = store.readers(conversation, &[device]).await.unwrap();
    let listed = store.conversations(device, None, 9).await.unwrap();
    let edge = |row: Option<&fastchat_protocol::server::LogRow>| row.map_or(0, |row| row.seq.0);
    Seen {
        page: page.map(|page| (edge(page.rows.first()), edge(page.rows.last()), page.head.0)),
        readers: (readers.revision, readers.ranges.first().map(|(_, from, to)| (from.0, to.map(|to| to.0)))),
        listed: listed.first().map(|state| (state.head.0, state.unjoined)),
        has_state: store.group_state(device, conversation).await.unwrap().is_some(),
    }
}

fn manifest(version: u64, devices: &[DeviceId], revoked: Vec<DeviceId>) -> NewManifest {
    let key = |device: &DeviceId| (*device, Sha256::digest(device.as_bytes()).into());
    let bytes = format!("manifest {version}").into();
    NewManifest { version, bytes, devices: devices.iter().map(key).collect(), revoked }
}

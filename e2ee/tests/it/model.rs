//! Three devices and a delivery service under random interleavings of everything that can happen.
//!
//! Each device reads the log in order, as the client does, and keeps what a client would keep: the
//! plaintexts it read, its outbox, its cursor. A crash takes store and these back together. At the
//! end everybody catches up; then:
//! - devices of equal epochs have equal epoch authenticators (checked all the time),
//! - each reader has each accepted message once, unless it lost its keys and resynced past it,
//! - nothing that was never sent was read.

use crate::kit::*;
use fastchat_delivery::Suite;
use fastchat_e2ee::{
    MemoryStore, Vault,
    conversation::{self, OpenError, Opened, PendingCommit},
};
use fastchat_protocol::{Bytes, Counter, Epoch};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::collections::BTreeMap;

/// What a client keeps beside the vault, in the same transaction.
#[derive(Clone, Default)]
struct Local {
    counter: u64,
    cursor: usize,
    /// Row by row what was read.
    read: BTreeMap<usize, String>,
    /// Rows that could not be opened, because they came before a resync.
    skipped: Vec<usize>,
    outbox: Vec<(Counter, String, Bytes)>,
    commit: Option<(Counter, PendingCommit)>,
    /// The keys were lost at least once.
    lost: bool,
}

struct Client {
    peer: Peer,
    local: Local,
    durable: (MemoryStore, Local),
    /// The store with nothing but the device's own key.
    bare: MemoryStore,
    online: bool,
}

impl Client {
    fn new(peer: Peer) -> Self {
        let bare = MemoryStore::new();
        peer.device.save(&Vault::new(&bare, &peer.key)).unwrap();
        let durable = (peer.store.snapshot(), Local::default());
        Self { peer, local: Local::default(), durable, bare, online: true }
    }

    /// The transaction of one step commits.
    fn persist(&mut self) {
        self.durable = (self.peer.store.snapshot(), self.local.clone());
    }

    fn crash(&mut self) {
        self.peer.store.restore(&self.durable.0);
        self.local = self.durable.1.clone();
    }

    /// The ratchets are gone, by a broken disk or a bug; what was read before is not.
    fn lose_keys(&mut self) {
        self.peer.store.restore(&self.bare);
        self.local.commit = None;
        self.local.lost = true;
    }

    fn joined(&self) -> bool {
        conversation::info(&self.peer.vault(), CONVERSATION).unwrap().is_some()
    }

    fn pending(&self) -> bool {
        self.joined() && self.peer.info().pending
    }

    /// Whether the commit that waits is in the log, at the cursor or behind it.
    fn commit_is_logged(&self, service: &Service) -> bool {
        let mine = |row: &Row| {
            row.sender == self.peer.id()
                && self.local.commit.as_ref().is_some_and(|(counter, _)| row.counter == *counter)
        };
        service.log.iter().skip(self.local.cursor).any(mine)
    }

    fn next(&mut self) -> Counter {
        self.local.counter += 1;
        Counter(self.local.counter)
    }

    fn write(&mut self, text: String) {
        let counter = self.next();
        let sealed =
            conversation::seal(&self.peer.vault(), &self.peer.device, CONVERSATION, counter, text.as_bytes())
                .unwrap();
        self.local.outbox.push((counter, text, sealed.envelope));
    }

    /// Reads one row; false if there is none.
    fn read_one(&mut self, service: &Service) -> bool {
        let Some(row) = service.log.get(self.local.cursor) else { return false };
        let opened = match self.peer.open_row(row) {
            Ok(opened) => opened,
            Err(OpenError::NotJoined) if self.commit_is_logged(service) => {
                self.local.skipped.push(self.local.cursor);
                self.local.cursor += 1;
                return true;
            }
            Err(OpenError::NotJoined) => return false,
            Err(error) => panic!("{error}"),
        };
        match opened {
            Opened::Message { plaintext, account, device, .. } => {
                assert_eq!(
                    (device, account),
                    (row.sender, if device.as_bytes()[0] == 0xb0 { BOB } else { ALICE })
                );
                let text = String::from_utf8(plaintext.to_vec()).unwrap();
                assert!(self.local.read.insert(self.local.cursor, text).is_none(), "read twice");
            }
            Opened::OwnMessage => assert_eq!(row.sender, self.peer.id()),
            Opened::OwnCommit(_) => self.local.commit = None,
            Opened::Commit { lost_pending, .. } => {
                if lost_pending || !self.pending() {
                    self.local.commit = None;
                }
            }
            Opened::TooOld { .. } => self.local.skipped.push(self.local.cursor),
            other => panic!("{other:?}"),
        }
        self.local.cursor += 1;
        true
    }

    /// Offers the oldest outbox row; a refusal for its epoch means: seal it again under the same id,
    /// and those behind it too, because the others open messages only in nearly the order of sealing.
    fn send_one(&mut self, service: &mut Service, lose_the_answer: bool) {
        let Some((counter, _, envelope)) = self.local.outbox.first().cloned() else { return };
        match service.send(self.peer.id(), counter, envelope) {
            Some(_) if lose_the_answer => {}
            Some(_) => drop(self.local.outbox.remove(0)),
            None => {
                while self.read_one(service) {}
                if !self.joined() {
                    return;
                }
                let (vault, device) = (self.peer.vault(), &self.peer.device);
                for (counter, text, envelope) in &mut self.local.outbox {
                    let sealed =
                        conversation::seal(&vault, device, CONVERSATION, *counter, text.as_bytes()).unwrap();
                    *envelope = sealed.envelope;
                }
            }
        }
    }

    fn commit_one(&mut self, service: &mut Service, resync: bool) {
        let (counter, commit) = match self.local.commit.clone() {
            Some(waiting) => waiting,
            None => {
                conversation::clear_pending(&self.peer.vault(), CONVERSATION).unwrap();
                self.peer.counter = self.local.counter;
                let made =
                    if resync || !self.joined() { self.peer.resync(service) } else { self.peer.update() };
                self.local.counter = self.peer.counter;
                self.local.commit = Some(made.clone());
                made
            }
        };
        self.persist();
        // The gateway dedupes before it judges.
        if service.log.iter().any(|row| row.sender == self.peer.id() && row.counter == counter) {
            return;
        }
        if service.commit(self.peer.id(), counter, &commit).is_err() {
            conversation::clear_pending(&self.peer.vault(), CONVERSATION).unwrap();
            self.local.commit = None;
        }
    }
}

/// Runs one seeded story; says what happened, so that the test can see that things did happen.
fn story(seed: u64, steps: usize) -> BTreeMap<&'static str, usize> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut service, a1, a2, b1) = meet(Suite::Classic);
    let mut clients = [a1, a2, b1].map(Client::new);
    let mut sent: BTreeMap<(usize, u64), String> = BTreeMap::new();
    let mut events: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut authenticators = BTreeMap::new();
    for step in 0..steps {
        let who = rng.random_range(0..3);
        let client = &mut clients[who];
        let dice = rng.random_range(0..100);
        let what = match dice {
            0..25 if client.joined() => {
                let text = format!("{seed}/{step} from {who}");
                client.write(text.clone());
                // Before the transaction commits, the message does not exist.
                if rng.random_range(0..5) == 0 {
                    client.crash();
                    "crash before the outbox"
                } else {
                    sent.insert((who, client.local.counter), text);
                    "write"
                }
            }
            25..30 => {
                client.online = !client.online;
                "offline or back"
            }
            _ if !client.online => "nothing, being offline",
            30..50 => {
                client.send_one(&mut service, rng.random_range(0..4) == 0);
                if rng.random_range(0..8) == 0 {
                    client.crash();
                    "crash after sending"
                } else {
                    "send"
                }
            }
            50..84 => {
                client.read_one(&service);
                if rng.random_range(0..8) == 0 {
                    client.crash();
                    "crash while reading"
                } else {
                    "read"
                }
            }
            84 if client.joined() => {
                client.lose_keys();
                "lost keys"
            }
            85..88 if client.joined() => {
                // A duplicate of a row that was read, out of order.
                if client.local.cursor > 0 {
                    let row = &service.log[rng.random_range(0..client.local.cursor)];
                    let before = client.peer.info();
                    let opened = client.peer.open_row(row).unwrap();
                    assert!(!matches!(opened, Opened::Message { .. } | Opened::Commit { .. }), "{opened:?}");
                    assert_eq!(client.peer.info(), before);
                }
                "duplicate"
            }
            88..96 => {
                client.commit_one(&mut service, false);
                "update"
            }
            96..98 => {
                client.commit_one(&mut service, true);
                "resync"
            }
            _ => {
                let head = service.log.len();
                let ahead = service.log.get(client.local.cursor + 1..head).and_then(|rows| rows.last());
                if let Some(row) = ahead {
                    // Read out of order and not stored: a live copy behind a gap.
                    let before = client.peer.store.snapshot();
                    drop(client.peer.open_row(row));
                    client.peer.store.restore(&before);
                }
                "look ahead"
            }
        };
        *events.entry(what).or_default() += 1;
        clients[who].persist();
        agree(&clients[who], &mut authenticators);
    }
    settle(&mut clients, &mut service);
    check(&clients, &service, &sent, &mut events);
    events
}

/// Whoever was ever in an epoch had the same authenticator.
fn agree(client: &Client, seen: &mut BTreeMap<Epoch, [u8; 8]>) {
    if client.joined() {
        let info = client.peer.info();
        let authenticator = *seen.entry(info.epoch).or_insert(info.epoch_authenticator_hash);
        assert_eq!(authenticator, info.epoch_authenticator_hash, "the conversation has split");
    }
}

/// Faults heal: everybody sends what it has and reads to the end.
fn settle(clients: &mut [Client; 3], service: &mut Service) {
    for _ in 0..10_000 {
        for client in clients.iter_mut() {
            if !client.joined() && !client.commit_is_logged(service) {
                client.commit_one(service, true);
            }
            client.send_one(service, false);
            while client.read_one(service) {}
        }
        let head = service.log.len();
        if clients
            .iter()
            .all(|client| client.joined() && client.local.outbox.is_empty() && client.local.cursor == head)
        {
            break;
        }
    }
    let infos = clients.each_ref().map(|client| client.peer.info());
    for (client, info) in clients.iter().zip(&infos) {
        let (cursor, waits, head) = (client.local.cursor, client.local.outbox.len(), service.log.len());
        assert_eq!((cursor, waits), (head, 0), "{:?} {info:?} {:?}", client.peer.id(), service.epoch());
        assert_eq!(info.epoch, service.epoch());
        assert_eq!(info.epoch_authenticator_hash, infos[0].epoch_authenticator_hash);
    }
}

fn check(
    clients: &[Client; 3],
    service: &Service,
    sent: &BTreeMap<(usize, u64), String>,
    events: &mut BTreeMap<&'static str, usize>,
) {
    let index = |row: &Row| clients.iter().position(|client| client.peer.id() == row.sender).unwrap();
    let accepted: BTreeMap<usize, &String> = service
        .log
        .iter()
        .enumerate()
        .filter_map(|(at, row)| Some((at, sent.get(&(index(row), row.counter.0))?)))
        .collect();
    assert_eq!(accepted.len(), sent.len(), "every message that was written is in the log once");
    for (number, client) in clients.iter().enumerate() {
        for (at, text) in &accepted {
            let own = index(&service.log[*at]) == number;
            let skipped = client.local.lost && client.local.skipped.contains(at);
            let read = client.local.read.get(at);
            if own {
                assert!(read.is_none());
            } else {
                assert!(read == Some(*text) || (read.is_none() && skipped), "row {at}: {read:?}");
                *events.entry(if skipped { "row skipped" } else { "row read" }).or_default() += 1;
            }
        }
        assert!(client.local.read.keys().all(|at| accepted.contains_key(at)));
    }
}

#[test]
fn whatever_happens_nothing_is_lost_or_doubled() {
    let seeds = std::env::var("MODEL_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let mut total: BTreeMap<&'static str, usize> = BTreeMap::new();
    let first = std::env::var("MODEL_FIRST").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    for seed in first..first + seeds {
        let result = std::panic::catch_unwind(|| story(seed, 120));
        let events = result.unwrap_or_else(|_| panic!("seed {seed}"));
        events.into_iter().for_each(|(what, count)| *total.entry(what).or_default() += count);
    }
    for what in [
        "crash before the outbox",
        "crash after sending",
        "crash while reading",
        "duplicate",
        "update",
        "resync",
        "lost keys",
        "row read",
        "row skipped",
    ] {
        assert!(total.get(what).copied().unwrap_or(0) > 0, "{what} never happened: {total:?}");
    }
}

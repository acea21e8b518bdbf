//! The same random operations on both stores: the same outcomes. What the rules of one say in SQL,
//! those of the other say in Rust; this is where they are held against each other.

use crate::world::{Person, Random, World, commit, epoch, founding, group, item, leave};
use bytes::Bytes;
use fastchat_gateway::store::{
    Append, Committed, Founded, Join, NewCommit, NewGroup, NewLeave, Outcome, Recovery, Stored,
};
use fastchat_protocol::{AccountId, ConversationId, Counter, DeviceId, Epoch, Role, Seq, SlotId};
use std::fmt::Write;

const OPERATIONS: usize = 500;

macro_rules! seeds {
    ($($name:ident = $seed:literal),+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            run($seed).await;
        }
    )+};
}

seeds!(seed_1 = 1, seed_2 = 2, seed_3 = 3, seed_4 = 4);

/// Further seeds by hand: `FASTCHAT_SEED=17 cargo test ... another_seed -- --ignored`.
#[tokio::test]
#[ignore = "for seeds by hand"]
async fn another_seed() {
    run(std::env::var("FASTCHAT_SEED").unwrap().parse().unwrap()).await;
}

/// What the test knows of the world; only a guide for operations that often succeed.
struct Known {
    people: Vec<Person>,
    versions: Vec<u64>,
    conversations: Vec<ConversationId>,
    epochs: Vec<Epoch>,
    counters: std::collections::HashMap<(ConversationId, DeviceId), u64>,
}

async fn run(seed: u64) {
    let (sqlite, postgres) = (World::sqlite().await, World::postgres().await);
    // Two gateways of a fleet, and who is served by which changes all the time.
    let mut gateways = [postgres.beside(), postgres];
    let (mut random, mut served) = (Random(seed), Random(!seed));
    let mut known = Known {
        people: (0..5).map(|n| Person::new(&format!("p{n}"), 3)).collect(),
        versions: vec![1; 5],
        conversations: Vec::new(),
        epochs: Vec::new(),
        counters: std::collections::HashMap::new(),
    };
    for person in &known.people {
        for world in [&sqlite, &gateways[0]] {
            world.store.register(person.registration()).await.unwrap();
        }
    }
    for n in 0..OPERATIONS {
        let operation = choose(&mut random, &known);
        let left = perform(&sqlite, &operation).await;
        let right = perform(&gateways[served.below(2)], &operation).await;
        assert_eq!(left, right, "seed {seed}, operation {n}: {operation:?}");
        known.learn(&operation, &left);
        // It takes what is a day old; until then gateways have forgotten who wrote it.
        if matches!(operation, Operation::Retention(..)) {
            gateways = gateways.map(|gateway| gateway.beside());
        }
    }
}

#[derive(Debug)]
enum Operation {
    Append(Vec<Append>),
    Commit(Box<NewCommit>),
    Group(Box<NewGroup>),
    Leave(NewLeave),
    /// Who, whom, and whether or no longer.
    Block(AccountId, AccountId, bool),
    Visible(AccountId, bool),
    Delete(AccountId),
    Recover(AccountId, u8),
    Slot(AccountId, SlotId, u32, Option<Bytes>),
    Found(Person, Person, String),
    /// Person, version, devices revoked, and another password hash if it is a restoration.
    Manifest(Person, u64, Vec<DeviceId>, Option<String>),
    Publish(DeviceId, Vec<Bytes>, Option<Bytes>),
    Claim(Person, Person),
    Cursors(Vec<(DeviceId, ConversationId, Seq)>),
    AckMailbox(DeviceId, Seq),
    Retention(ConversationId, u64),
    /// Everything that a device can see.
    Look(DeviceId, Option<ConversationId>, u64),
}

fn choose(random: &mut Random, known: &Known) -> Operation {
    let person = random.pick(&known.people);
    let device = random.pick(&person.devices);
    if random.one_in(14) {
        return Operation::Group(Box::new(any_group(random, known, &person)));
    }
    if known.conversations.is_empty() || random.one_in(14) {
        return Operation::Found(person, random.pick(&known.people), format!("c{}", random.below(12)));
    }
    let which = random.below(known.conversations.len());
    let conversation = known.conversations[which];
    match random.below(27) {
        0..8 => {
            Operation::Append((0..random.below(12) + 1).map(|_| any_item(random, known)).collect()).distinct()
        }
        8..11 => Operation::Commit(Box::new(any_commit(random, known, which, device))),
        11 => {
            let at = known.people.iter().position(|other| other.account == person.account).unwrap();
            let revoked = if random.one_in(12) { vec![random.pick(&person.devices)] } else { Vec::new() };
            let hash = random.one_in(3).then(|| format!("hash {}", random.below(9)));
            Operation::Manifest(person, known.versions[at] + random.below(2) as u64, revoked, hash)
        }
        12 => {
            let package = |random: &mut Random| Bytes::from(random.next().to_be_bytes().to_vec());
            let one_time = (0..random.below(4)).map(|_| package(random)).collect();
            let last_resort = random.one_in(3).then(|| package(random));
            Operation::Publish(device, one_time, last_resort)
        }
        13 => Operation::Claim(random.pick(&known.people), person),
        14 | 15 => {
            let cursor = |random: &mut Random| {
                let device = random_device(random, known, 3);
                (device, random.pick(&known.conversations), Seq(random.below(30) as u64))
            };
            Operation::Cursors((0..random.below(5)).map(|_| cursor(random)).collect())
        }
        16 => Operation::AckMailbox(device, Seq(random.below(4) as u64)),
        17 => Operation::Retention(conversation, random.below(6) as u64),
        18 | 19 => Operation::Leave(any_leave(random, known, which, device)),
        20 => Operation::Block(person.account, random.pick(&known.people).account, random.one_in(2)),
        21 => match random.below(40) {
            0 => Operation::Delete(person.account),
            1..8 => Operation::Visible(person.account, random.one_in(2)),
            _ => Operation::Recover(person.account, random.below(9) as u8),
        },
        22 => {
            let bytes = random.below(40) as u8;
            let bytes = (bytes > 5).then(|| Bytes::from(vec![bytes; usize::from(bytes) * 100]));
            let slot = SlotId::new([random.below(3) as u8; 16]);
            Operation::Slot(person.account, slot, random.below(3) as u32, bytes)
        }
        _ => Operation::Look(device, random.one_in(3).then_some(conversation), random.below(8) as u64),
    }
}

fn random_person(random: &mut Random, known: &Known) -> Person {
    random.pick(&known.people)
}

fn random_device(random: &mut Random, known: &Known, of: usize) -> DeviceId {
    let person = random_person(random, known);
    random.pick(&person.devices[..of])
}

fn any_item(random: &mut Random, known: &Known) -> Append {
    let which = random.below(known.conversations.len());
    let conversation =
        if random.one_in(30) { ConversationId::new([5; 16]) } else { known.conversations[which] };
    let device = random_device(random, known, 2);
    let next = known.counters.get(&(conversation, device)).map_or(1, |counter| counter + 1);
    let counter =
        if random.one_in(4) { random.below(next as usize + 3) as u64 } else { next + random.below(3) as u64 };
    let current = known.epochs[which];
    let number = (current.number + 1).saturating_sub(random.below(3) as u64).min(current.number);
    let number = if random.one_in(8) { random.below(6) as u64 } else { number };
    let mut item = item(conversation, device, counter, number);
    item.epoch.generation = current.generation;
    if random.one_in(12) {
        item.envelope = "other".into();
    }
    if random.one_in(40) {
        item.epoch.generation += 1;
    }
    item
}

fn any_commit(random: &mut Random, known: &Known, which: usize, device: DeviceId) -> NewCommit {
    let conversation = known.conversations[which];
    let next = known.counters.get(&(conversation, device)).map_or(1, |counter| counter + 1);
    let counter = if random.one_in(6) { random.below(next as usize + 2) as u64 } else { next };
    let current = known.epochs[which];
    let parent = current.number + u64::from(random.one_in(6));
    let mut commit = commit(conversation, device, counter, parent);
    (commit.parent.generation, commit.epoch.generation) = (current.generation, current.generation);
    commit.membership_changed = random.one_in(2);
    if random.one_in(3) {
        commit.removes = vec![random_device(random, known, 3)];
    }
    if random.one_in(3) {
        let person = random_person(random, known);
        let welcome = Some(Bytes::from(format!("welcome {counter}")));
        commit.joins = person.devices[1..]
            .iter()
            .map(|device| Join { device: *device, welcome: welcome.clone() })
            .collect();
    }
    if random.one_in(4) {
        commit.joins.push(Join { device, welcome: None });
    }
    for _ in 0..random.below(3) {
        let person = random_person(random, known);
        let role = (!random.one_in(6)).then(|| any_role(random));
        commit.members.push((person.account, role));
    }
    commit
}

fn any_role(random: &mut Random) -> Role {
    random.pick(&[Role::Member, Role::Member, Role::Admin, Role::Owner])
}

/// A new group, the next generation of something that may be one, or the same again.
fn any_group(random: &mut Random, known: &Known, founder: &Person) -> NewGroup {
    let mut members = vec![(founder, Role::Owner)];
    members.extend(known.people.iter().filter_map(|other| {
        let in_it = other.account != founder.account && !random.one_in(3);
        in_it.then(|| (other, any_role(random)))
    }));
    let mut founding = group(&format!("g{}", random.below(4)), &members);
    if random.one_in(3) {
        founding.joins.retain(|_| !random.one_in(5));
    }
    let which = known.conversations.iter().position(|id| *id == founding.conversation);
    if let Some(which) = which.filter(|_| !random.one_in(4)) {
        let current = known.epochs[which];
        let used = known.counters.get(&(founding.conversation, founding.device)).copied().unwrap_or_default();
        founding.counter = Counter(used + 1 - u64::from(random.one_in(6)).min(used));
        founding.parent = Some(Epoch { number: current.number + u64::from(random.one_in(8)), ..current });
        founding.epoch = Epoch { generation: current.generation + 1, number: 1 };
        founding.group_info = format!("group info of generation {}", current.generation + 1).into();
        founding.suite = 1;
    }
    founding
}

fn any_leave(random: &mut Random, known: &Known, which: usize, device: DeviceId) -> NewLeave {
    let conversation = known.conversations[which];
    let used = known.counters.get(&(conversation, device)).copied().unwrap_or_default();
    let mut leave = leave(conversation, device, used + 1 - u64::from(random.one_in(6)).min(used), 1);
    leave.epoch = known.epochs[which];
    leave
}

impl Operation {
    /// The writer puts no client message id twice into one batch.
    fn distinct(mut self) -> Self {
        if let Self::Append(items) = &mut self {
            let mut seen = std::collections::HashSet::new();
            items.retain(|item| seen.insert((item.conversation, item.device, item.counter)));
        }
        self
    }
}

/// What the store says, with times left out: the clocks are two.
#[derive(Debug, Default, PartialEq)]
struct Said {
    outcomes: Vec<Outcome>,
    rest: String,
}

impl From<Committed> for Said {
    fn from(Committed { outcome, mailboxes }: Committed) -> Self {
        Self { outcomes: vec![timeless(outcome)], rest: format!("{mailboxes:?}") }
    }
}

impl From<String> for Said {
    fn from(rest: String) -> Self {
        Self { outcomes: Vec::new(), rest }
    }
}

async fn perform(world: &World, operation: &Operation) -> Said {
    let store = &world.store;
    match operation {
        Operation::Append(items) => {
            let outcomes = store.append(items).await.unwrap();
            return Said { outcomes: outcomes.into_iter().map(timeless).collect(), rest: String::new() };
        }
        Operation::Commit(commit) => {
            let committed = store.append_commit((**commit).clone()).await.unwrap();
            return committed.into();
        }
        Operation::Group(founding) => return store.found_group((**founding).clone()).await.unwrap().into(),
        Operation::Leave(leave) => {
            let outcome = timeless(store.leave(leave.clone()).await.unwrap());
            return Said { outcomes: vec![outcome], rest: String::new() };
        }
        Operation::Block(account, other, blocked) => {
            store.block(*account, *other, *blocked).await.unwrap();
            let others: Vec<_> = (0..5).map(|n| Person::new(&format!("p{n}"), 0).account).collect();
            let acquainted = store.acquainted(*other, &others).await.unwrap();
            format!("{:?} {acquainted:?}", store.blocked(*account).await.unwrap())
        }
        Operation::Visible(account, visible) => {
            format!("{:?}", store.set_visible(*account, *visible).await.unwrap())
        }
        Operation::Delete(account) => format!("{:?}", store.delete_account(*account).await.unwrap()),
        Operation::Recover(account, n) => {
            let recovery = Recovery { key_hash: [*n; 32], sealed: vec![*n; 9].into() };
            store.set_recovery(*account, recovery).await.unwrap();
            format!("{:?}", store.recovery(*account).await.unwrap())
        }
        Operation::Slot(account, slot, part, bytes) => match bytes {
            Some(bytes) => format!("{}", store.put_slot(*account, *slot, *part, bytes, 600).await.unwrap()),
            None => {
                let found = store.slot(*account, *slot, *part).await.unwrap();
                format!("{found:?} {:?}", store.drop_slot(*account, *slot).await.unwrap())
            }
        },
        Operation::Found(founder, peer, name) => {
            let founded = store.found_direct(founding(founder, peer, name)).await.unwrap();
            let founded = match founded {
                Founded::Made { stored, mailboxes } => {
                    Founded::Made { stored: Stored { at_ms: 0, ..stored }, mailboxes }
                }
                Founded::Duplicate(stored) => Founded::Duplicate(Stored { at_ms: 0, ..stored }),
                other => other,
            };
            format!("{founded:?}")
        }
        Operation::Manifest(person, version, revoked, hash) => {
            let mut next = person.manifest(*version);
            next.devices.retain(|(device, _)| !revoked.contains(device));
            next.revoked.clone_from(revoked);
            let put = match hash {
                Some(hash) => store.restore(person.account, next, hash).await.unwrap(),
                None => store.put_manifest(person.account, next).await.unwrap(),
            };
            format!("{put:?} {:?}", store.password_hash(person.account).await.unwrap())
        }
        Operation::Publish(device, one_time, last_resort) => {
            format!(
                "{:?}",
                store.publish_key_packages(*device, 1, one_time, last_resort.as_ref()).await.unwrap()
            )
        }
        Operation::Claim(by, person) => {
            format!("{:?}", store.claim_key_packages(by.account, person.account, 1).await.unwrap())
        }
        Operation::Cursors(cursors) => format!("{:?}", store.set_cursors(cursors).await.unwrap()),
        Operation::AckMailbox(device, seq) => {
            format!("{:?}", store.ack_mailbox(*device, *seq).await.unwrap())
        }
        Operation::Retention(conversation, seq) => {
            world
                .sql(&format!("DELETE FROM log WHERE conversation = 'id:{conversation}' AND seq <= {seq}"))
                .await;
            String::new()
        }
        Operation::Look(device, conversation, after) => look(world, *device, *conversation, *after).await,
    }
    .into()
}

async fn look(world: &World, device: DeviceId, only: Option<ConversationId>, after: u64) -> String {
    let store = &world.store;
    let states = store.conversations(device, None, 99).await.unwrap();
    let account = store.device(device).await.unwrap().unwrap();
    let mut seen = format!(
        "{account:?} {states:?} {:?} {:?}",
        store.arrival(device).await.unwrap(),
        store.mailbox(device, Seq(after / 3), 9).await.unwrap()
    );
    for conversation in states.iter().map(|state| state.conversation).chain(only) {
        let mut page = store.fetch(device, conversation, Seq(after), 5).await.unwrap();
        page.iter_mut().flat_map(|page| &mut page.rows).for_each(|row| row.at_ms = 0);
        let readers = store.readers(conversation, &[device]).await.unwrap();
        let state = store.group_state(device, conversation).await.unwrap();
        write!(seen, "\n{page:?} {readers:?} {state:?}").unwrap();
    }
    seen
}

fn timeless(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Stored(stored) => Outcome::Stored(Stored { at_ms: 0, ..stored }),
        Outcome::Duplicate(stored) => Outcome::Duplicate(Stored { at_ms: 0, ..stored }),
        other => other,
    }
}

impl Known {
    fn learn(&mut self, operation: &Operation, said: &Said) {
        match operation {
            Operation::Found(founder, peer, name) if said.rest.starts_with("Made") => {
                self.conversations.push(founding(founder, peer, name).conversation);
                self.epochs.push(epoch(1));
            }
            Operation::Group(founding) if matches!(said.outcomes[0], Outcome::Stored(_)) => {
                match self.conversations.iter().position(|id| *id == founding.conversation) {
                    Some(which) => self.epochs[which] = founding.epoch,
                    None => {
                        self.conversations.push(founding.conversation);
                        self.epochs.push(founding.epoch);
                    }
                }
                self.raise(founding.conversation, founding.device, founding.counter);
            }
            Operation::Leave(leave) if matches!(said.outcomes[0], Outcome::Stored(_)) => {
                self.raise(leave.conversation, leave.device, leave.counter);
            }
            Operation::Commit(commit) if matches!(said.outcomes[0], Outcome::Stored(_)) => {
                let which = self.conversations.iter().position(|id| *id == commit.conversation).unwrap();
                self.epochs[which] = commit.epoch;
                self.raise(commit.conversation, commit.device, commit.counter);
            }
            Operation::Append(items) => {
                for (item, outcome) in items.iter().zip(&said.outcomes) {
                    if matches!(outcome, Outcome::Stored(_)) {
                        self.raise(item.conversation, item.device, item.counter);
                    }
                }
            }
            Operation::Manifest(person, version, ..) if said.rest.starts_with("true") => {
                let at = self.people.iter().position(|other| other.account == person.account).unwrap();
                self.versions[at] = *version;
            }
            _ => {}
        }
    }

    fn raise(&mut self, conversation: ConversationId, device: DeviceId, counter: Counter) {
        self.counters.insert((conversation, device), counter.0);
    }
}

//! A group under random interleavings of writing, adding, removing, roles, leaving, joining anew and
//! races for the next epoch.
//!
//! Checked all the time: devices of equal epochs have equal authenticators and equal roles, and every
//! device reads every message that the service took while it was a member. At the end everybody
//! catches up, and members, roles and epoch are those of the service.

use crate::{
    kit::*,
    matrix::{CAROL, DAVE, ERIN},
};
use fastchat_delivery::{GroupData, Leave, Suite};
use fastchat_e2ee::conversation::{self, Info, Members, Opened, PendingCommit};
use fastchat_protocol::{AccountId, Bytes, Counter, Epoch, Role};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::collections::{BTreeMap, BTreeSet};

const SUITE: Suite = Suite::Classic;
const ACCOUNTS: [AccountId; 5] = [ALICE, BOB, CAROL, DAVE, ERIN];

struct Client {
    peer: Peer,
    /// The next row to read, if this device is in.
    cursor: Option<usize>,
    commit: Option<(Counter, PendingCommit)>,
    left: BTreeSet<AccountId>,
}

/// Service, clients, and what lies in mailboxes.
struct World {
    service: Service,
    /// Rows that say that an account leaves.
    leaves: BTreeMap<usize, AccountId>,
    texts: BTreeMap<usize, String>,
    clients: Vec<Client>,
    /// By client: welcome, tree, the row after which it reads.
    mailbox: BTreeMap<usize, (Bytes, Vec<u8>, usize)>,
    /// Accounts that have left and are still in the tree, as the service sees it.
    left: BTreeSet<AccountId>,
    events: BTreeMap<&'static str, usize>,
}

impl Client {
    fn info(&self) -> Option<Info> {
        conversation::info(&self.peer.vault(), CONVERSATION).unwrap()
    }

    fn set_left(&mut self, change: impl FnOnce(&mut BTreeSet<AccountId>)) {
        change(&mut self.left);
        let left: Vec<_> = self.left.iter().copied().collect();
        self.peer.manifests = self.peer.manifests.of_group(&left);
    }

    fn go(&mut self) {
        conversation::discard(&self.peer.vault(), CONVERSATION).unwrap();
        (self.cursor, self.commit) = (None, None);
        self.set_left(BTreeSet::clear);
    }
}

impl World {
    fn new() -> Self {
        let manifests = Manifests::default().of_group(&[]);
        let mut clients = Vec::new();
        for account in ACCOUNTS {
            let own = [1, 2].map(|number| Peer::new(account, number, &manifests));
            manifests.introduce(account, own.iter().map(|peer| peer.device.manifest_entry()).collect());
            clients.extend(own.map(|peer| Client {
                peer,
                cursor: None,
                commit: None,
                left: BTreeSet::new(),
            }));
        }
        let roles = GroupData::new([(ALICE, Role::Owner), (BOB, Role::Admin)].into()).unwrap();
        let packages = [1, 2, 3].map(|at: usize| clients[at].peer.package(SUITE));
        let founding = clients[0].peer.found_as(SUITE, &packages, Some(&roles));
        clients[1..4].iter().for_each(|client| client.peer.join(&founding));
        clients[..4].iter_mut().for_each(|client| client.cursor = Some(0));
        let service = Service::found(&founding, clients[0].peer.id(), &manifests);
        let (leaves, texts, mailbox, left, events) = Default::default();
        Self { service, leaves, texts, clients, mailbox, left, events }
    }

    fn count(&mut self, what: &'static str) {
        *self.events.entry(what).or_default() += 1;
    }

    fn data(&self) -> GroupData {
        self.service.state().data().unwrap()
    }

    /// Reads one row; false if there is none to read.
    fn read_one(&mut self, who: usize) -> bool {
        if let (None, Some((welcome, tree, row))) =
            (self.clients[who].cursor, self.mailbox.get(&who).cloned())
        {
            self.mailbox.remove(&who);
            let client = &mut self.clients[who];
            client.peer.try_join(&welcome, &tree).unwrap();
            client.cursor = Some(row);
            self.count("joined");
            return true;
        }
        let Some(at) = self.clients[who].cursor.filter(|at| *at < self.service.log.len()) else {
            return false;
        };
        let (row, client) = (self.service.log[at].clone(), &mut self.clients[who]);
        client.cursor = Some(at + 1);
        if let Some(account) = self.leaves.get(&at).copied() {
            let leaf =
                client.info().unwrap().members.into_iter().find(|leaf| leaf.device == row.sender).unwrap();
            let leave = Leave::verify(&row.envelope, &leaf.key).unwrap();
            assert_eq!((leave.account, leave.counter, leaf.account), (account, row.counter, account));
            if account == client.peer.device.account() {
                client.go();
            } else {
                client.set_left(|left| left.extend([account]));
            }
            return true;
        }
        match (client.peer.open_row(&row).unwrap(), self.texts.get(&at)) {
            (Opened::Message { plaintext, .. }, Some(text)) => {
                assert_eq!(plaintext.as_slice(), text.as_bytes())
            }
            (Opened::OwnMessage, Some(_)) => assert_eq!(row.sender, client.peer.id()),
            (Opened::OwnCommit(summary) | Opened::Commit { summary, .. }, None) => {
                client.commit = client.commit.take().filter(|_| client.info().unwrap().pending);
                if let Some((_, after)) = summary.data {
                    client.set_left(|left| left.retain(|account| after.role(*account).is_some()));
                }
            }
            (Opened::Removed(_), None) => {
                client.go();
                self.count("was removed");
            }
            (other, text) => panic!("row {at} {text:?}: {other:?}"),
        }
        true
    }

    fn write(&mut self, who: usize, text: String) {
        loop {
            let account = self.clients[who].peer.device.account();
            if self.clients[who].cursor.is_none() || self.left.contains(&account) {
                return;
            }
            let client = &mut self.clients[who];
            let (counter, sealed) = client.peer.seal(&text);
            // The gateway has barred whoever is no member.
            let leaf = client.peer.leaf();
            let barred = !self.service.state().members().contains(&leaf);
            let row = match barred {
                true => None,
                false => self.service.send(leaf.device, counter, sealed.envelope),
            };
            if row.is_some() {
                self.texts.insert(self.service.log.len() - 1, text);
                return self.count("message");
            }
            self.count("sealed again");
            if !self.read_one(who) {
                return;
            }
        }
    }

    /// Makes a commit of some kind, within what the own rules allow.
    fn prepare(&mut self, who: usize, dice: u32, rng: &mut StdRng) {
        let Some(info) = self.clients[who].info().filter(|info| info.active && !info.pending) else { return };
        let data = info.data.clone().unwrap();
        let any = *ACCOUNTS.choose(rng).unwrap();
        let of = |account| info.members.iter().filter(move |leaf| leaf.account == account);
        let expel = |account: AccountId| {
            (of(account).map(|leaf| leaf.device).collect(), data.with(account, None).ok())
        };
        let left = self.clients[who].left.iter().next().copied();
        let (mut add, mut remove, mut next) = (Vec::new(), Vec::new(), None);
        let what = match dice {
            // Whoever has left goes first.
            _ if left.is_some() => {
                (remove, next) = expel(left.unwrap());
                "remove who left"
            }
            0..4 => "update",
            4..9 if data.role(any).is_none() => {
                let at = |client: &&Client| client.peer.device.account() == any;
                add = self.clients.iter().filter(at).map(|client| client.peer.package(SUITE)).collect();
                next = data.with(any, Some(Role::Member)).ok();
                "add"
            }
            4..9 => {
                (remove, next) = expel(any);
                "remove"
            }
            9..12 if data.owner() != Some(any) && data.role(any).is_some() => {
                next = data.with(any, Some([Role::Member, Role::Admin][rng.random_range(0..2)])).ok();
                "roles"
            }
            _ if data.role(any).is_some() => {
                let mut roles = data.roles().clone();
                roles.insert(data.owner().unwrap(), Role::Admin);
                roles.insert(any, Role::Owner);
                next = GroupData::new(roles).ok();
                "hand over"
            }
            _ => return,
        };
        let client = &mut self.clients[who];
        let (counter, change) = (client.peer.next(), Members { add: &add, remove: &remove, data: next });
        let (vault, device) = (client.peer.vault(), &client.peer.device);
        let made = client.peer.manifests.judge(|policy| {
            conversation::change_members(&vault, device, CONVERSATION, counter, &change, policy)
        });
        match made {
            Ok(commit) => client.commit = Some((counter, commit)),
            Err(conversation::ConversationError::Policy(_)) => return self.count("not allowed"),
            Err(error) => panic!("{what}: {error}"),
        }
        self.count(what);
    }

    fn offer(&mut self, who: usize) {
        let Some((counter, commit)) = self.clients[who].commit.clone() else { return };
        let sender = self.clients[who].peer.id();
        // The gateway dedupes before it judges.
        if self.service.log.iter().any(|row| (row.sender, row.counter) == (sender, counter)) {
            return;
        }
        let left: Vec<_> = self.left.iter().copied().collect();
        self.service.manifests = self.service.manifests.of_group(&left);
        let Ok((_, summary)) = self.service.commit(sender, counter, &commit) else {
            conversation::clear_pending(&self.clients[who].peer.vault(), CONVERSATION).unwrap();
            self.clients[who].commit = None;
            return self.count("lost a race");
        };
        self.count("commit");
        let data = self.data();
        self.left.retain(|account| data.role(*account).is_some());
        let (tree, row) = (self.service.state().tree_bytes(), self.service.log.len());
        for leaf in summary.added.iter().filter(|_| !summary.external) {
            let to = self.clients.iter().position(|client| client.peer.id() == leaf.device).unwrap();
            // What the device had before has ended with the row that removed it.
            while self.clients[to].cursor.is_some() && self.read_one(to) {}
            self.mailbox.insert(to, (commit.welcomes[0].welcome.clone(), tree.clone(), row));
        }
        for leaf in &summary.removed {
            let to = self.clients.iter().position(|client| client.peer.id() == leaf.device).unwrap();
            if self.clients[to].cursor.is_none() {
                self.mailbox.remove(&to);
            }
        }
    }

    fn leave(&mut self, who: usize) {
        let client = &mut self.clients[who];
        let account = client.peer.device.account();
        if client.cursor.is_none() || self.left.contains(&account) {
            return;
        }
        let data = self.service.state().data().unwrap();
        if data.role(account).is_none_or(|role| role == Role::Owner) {
            return;
        }
        let (device, counter) = (client.peer.id(), client.peer.next());
        let epoch = client.info().unwrap().epoch;
        let leave = Leave { conversation: CONVERSATION, epoch, account, device, counter };
        let statement = client.peer.device.sign_leave(&leave);
        self.service.append(device, counter, statement);
        self.leaves.insert(self.service.log.len() - 1, account);
        self.left.insert(account);
        self.count("leave");
    }

    /// A device that lost its keys, of an account that is in, comes back by itself.
    fn rejoin(&mut self, who: usize) {
        let account = self.clients[who].peer.device.account();
        let may = self.data().role(account).is_some() && !self.left.contains(&account);
        if !may || self.mailbox.contains_key(&who) || self.clients[who].cursor.is_none() {
            return;
        }
        self.clients[who].go();
        // It knows who has left from the log; here from the service.
        let left = self.left.clone();
        self.clients[who].set_left(|own| own.extend(left));
        let made = self.clients[who].peer.resync(&self.service);
        self.clients[who].commit = Some(made);
        self.clients[who].cursor = Some(self.service.log.len());
        self.offer(who);
        assert!(self.read_one(who) && self.clients[who].info().is_some());
        self.count("rejoin");
    }

    /// Whoever is in an epoch has its authenticator and its roles.
    fn agree(&self, seen: &mut BTreeMap<Epoch, ([u8; 8], Option<GroupData>)>) {
        for info in self.clients.iter().filter_map(Client::info).filter(|info| info.active) {
            let state = (info.epoch_authenticator_hash, info.data);
            let first = seen.entry(info.epoch).or_insert_with(|| state.clone());
            assert_eq!(*first, state, "the group has split in {:?}", info.epoch);
        }
    }
}

fn story(seed: u64, steps: usize) -> BTreeMap<&'static str, usize> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::new();
    let mut seen = BTreeMap::new();
    for step in 0..steps {
        let who = rng.random_range(0..world.clients.len());
        match rng.next_u32() % 100 {
            0..25 => world.write(who, format!("{seed}/{step} from {who}")),
            25..60 => drop((0..rng.random_range(1..4)).all(|_| world.read_one(who))),
            60..80 => {
                let dice = rng.random_range(0..14);
                world.prepare(who, dice, &mut rng);
            }
            80..94 => world.offer(who),
            94..97 => world.leave(who),
            _ => world.rejoin(who),
        }
        world.agree(&mut seen);
    }
    for who in 0..world.clients.len() {
        while world.read_one(who) {}
    }
    world.agree(&mut seen);
    let (state, data) = (world.service.state(), world.data());
    for client in &world.clients {
        let (account, leaf) = (client.peer.device.account(), client.peer.leaf());
        let inside = state.members().contains(&leaf) && !world.left.contains(&account);
        assert_eq!(client.cursor.is_some(), inside, "{:?}", client.peer.id());
        if inside {
            let info = client.info().unwrap();
            assert_eq!((info.epoch, info.data.as_ref()), (state.epoch(), Some(&data)));
            assert_eq!(client.left, world.left);
        }
    }
    world.events
}

#[test]
fn however_members_come_and_go_the_group_stays_one() {
    let seeds = std::env::var("MODEL_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let first = std::env::var("MODEL_FIRST").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut total: BTreeMap<&'static str, usize> = BTreeMap::new();
    for seed in first..first + seeds {
        let result = std::panic::catch_unwind(|| story(seed, 250));
        let events = result.unwrap_or_else(|_| panic!("seed {seed}"));
        events.into_iter().for_each(|(what, count)| *total.entry(what).or_default() += count);
    }
    for what in [
        "message",
        "sealed again",
        "add",
        "remove",
        "roles",
        "hand over",
        "leave",
        "remove who left",
        "rejoin",
        "lost a race",
        "not allowed",
        "joined",
        "was removed",
    ] {
        assert!(total.get(what).copied().unwrap_or(0) > 0, "{what} never happened: {total:?}");
    }
}

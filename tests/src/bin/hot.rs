//! The functions that every message passes, over and over: `hot NAME COUNT`; `hot` lists the names.
//!
//! It prints nothing but names: callgrind counts the instructions inside `repeat`, so that what comes
//! before and after falls out (tests/tests/instructions.rs).
#![expect(clippy::print_stdout, reason = "the names are what this program prints")]

use anyhow::{Context, Result, bail};
use fastchat_delivery::{Policy, Rules, Suite, VerifiedManifest};
use fastchat_e2ee::{Device, Identity, KeyValue, MemoryStore, StoreKey, Vault, conversation};
use fastchat_gateway::{
    registry::{Handle, Registry},
    session::{Me, Session, Step},
};
use fastchat_protocol::{
    AccountId, Bytes, ClientFrame, ConversationId, Counter, DeviceId, RequestId, Seq, ServerFrame,
    bus::{self, BusFrame},
    client::Send,
    server::{Deliver, LogKind, LogRow},
};
use rand::{SeedableRng, rngs::StdRng};
use std::{hint::black_box, io::Write, sync::Arc};

const CONVERSATION: ConversationId = ConversationId::new([0xc0; 16]);
/// Connections that a row of a group goes to.
const READERS: u8 = 100;
/// Bytes of a message before it is sealed.
const TEXT: [u8; 100] = [b'x'; 100];

/// Something to repeat, made once.
type Work = Box<dyn FnMut() -> Result<()>>;

/// Makes it.
type Make = fn() -> Result<Work>;

const FUNCTIONS: [(&str, Make); 7] = [
    ("take a send", take_a_send),
    ("make a live copy", make_a_live_copy),
    ("read a record of the bus", read_a_record),
    ("hand a row to 100 connections", hand_out),
    ("find nobody", find_nobody),
    ("seal a message", seal),
    ("seal and open a message", seal_and_open),
];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        FUNCTIONS.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    };
    if name == "new-identity" {
        return new_identity();
    }
    let count: u32 = arguments.next().context("usage: hot NAME COUNT")?.parse()?;
    let Some((_, make)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
        bail!("`{name}` is none of the functions; `hot` lists them");
    };
    repeat(count, &mut make()?)
}

/// What is counted; the test names it to callgrind.
#[inline(never)]
fn repeat(count: u32, work: &mut Work) -> Result<()> {
    (0..count).try_for_each(|_| work())
}

/// The gateway reads a frame and decides to store what it carries.
fn take_a_send() -> Result<Work> {
    let mut pair = Pair::new()?;
    let envelope = pair.seal()?;
    let frame = ClientFrame::Send(Send { conversation: CONVERSATION, counter: Counter(1), envelope });
    let bytes = frame.encode(RequestId(1));
    let (account, device) = (pair.alice.device.account(), pair.alice.device.id());
    let me = Me { account, name: "alice".parse()?, device };
    let mut session = Session::new(me);
    Ok(Box::new(move || {
        session.on_heard();
        let (_, frame) = ClientFrame::decode(black_box(&bytes))?;
        match session.on_client(frame) {
            Step::Submit(append) => drop(black_box(append)),
            _ => bail!("a send was not taken"),
        }
        Ok(())
    }))
}

/// Once for all readers of a row: the frame that they get, in the record that goes over the bus.
fn make_a_live_copy() -> Result<Work> {
    let envelope = Pair::new()?.seal()?;
    Ok(Box::new(move || {
        black_box(record(black_box(&envelope)));
        Ok(())
    }))
}

fn read_a_record() -> Result<Work> {
    let record = record(&Pair::new()?.seal()?);
    Ok(Box::new(move || {
        let (_, frame) = BusFrame::decode(black_box(&record))?;
        black_box(frame);
        Ok(())
    }))
}

/// Each connection's queue takes the frame and gives it to be written.
fn hand_out() -> Result<Work> {
    let registry = Registry::new(READERS.into());
    let enter = |n| {
        let entered = registry.enter(AccountId::new([n; 16]), DeviceId::new([n; 16]));
        entered.map(|entered| entered.handle).context("no room")
    };
    let handles: Vec<Arc<Handle>> = (0..READERS).map(enter).collect::<Result<_>>()?;
    let frame = Bytes::from_static(&[7; 400]);
    Ok(Box::new(move || {
        for handle in &handles {
            let reached = registry.deliver(handle.account, None, black_box(&frame));
            let batch = handle.queue.take();
            anyhow::ensure!(reached.queued == 1 && batch.is_some(), "a connection was left out");
        }
        Ok(())
    }))
}

/// What most gateways do with most heads: nobody of the conversation is here.
fn find_nobody() -> Result<Work> {
    let registry = Registry::new(READERS.into());
    Ok(Box::new(move || {
        black_box(registry.has(black_box(AccountId::new([9; 16]))));
        Ok(())
    }))
}

fn seal() -> Result<Work> {
    let mut pair = Pair::new()?;
    Ok(Box::new(move || pair.seal().map(drop)))
}

fn seal_and_open() -> Result<Work> {
    let mut pair = Pair::new()?;
    Ok(Box::new(move || {
        let envelope = pair.seal()?;
        pair.open(&envelope)
    }))
}

fn record(envelope: &Bytes) -> Bytes {
    let (conversation, sender, seq) = (CONVERSATION, DeviceId::new([1; 16]), Seq(7));
    let row = LogRow {
        seq,
        sender,
        counter: Counter(1),
        kind: LogKind::Application,
        at_ms: 1_700_000_000_000,
        envelope: Some(envelope.clone()),
    };
    let frame = ServerFrame::Deliver(Deliver { conversation, row }).encode(RequestId(0));
    BusFrame::Row(bus::Row { conversation, seq, sender, revision: 1, frame }).encode(RequestId(0))
}

/// An identity that means nothing to anybody: making one under callgrind takes minutes. It lies in a store
/// of its own, as `hot new-identity` dumped it.
fn identity() -> Result<Identity> {
    let (key, value) = include_bytes!("hot.identity").split_first_chunk().context("a key and its value")?;
    let (store, store_key) = (MemoryStore::new(), StoreKey::from_bytes(&[1; 32]));
    store.put(key, value)?;
    Identity::load(&Vault::new(&store, &store_key))?.context("an identity")
}

fn new_identity() -> Result<()> {
    let (store, store_key) = (MemoryStore::new(), StoreKey::from_bytes(&[1; 32]));
    Identity::generate(&mut rand::rng())?.save(&Vault::new(&store, &store_key))?;
    Ok(std::io::stdout().write_all(&store.dump())?)
}

/// Two people in a direct conversation, with keys that are the same in every run.
struct Pair {
    alice: Person,
    bob: Person,
    counter: u64,
}

struct Person {
    device: Device,
    store: MemoryStore,
    key: StoreKey,
    manifest: VerifiedManifest,
}

impl Pair {
    fn new() -> Result<Self> {
        // One for both: only accounts matter here.
        let identity = identity()?;
        let (alice, bob) = (Person::new(&identity, 0xa0)?, Person::new(&identity, 0xb0)?);
        let pair = Self { alice, bob, counter: 0 };
        let packages = pair.bob.device.key_packages(&pair.bob.vault(), Suite::Classic, 1)?;
        let founding = pair.judge(Rules::Direct(pair.accounts()), |policy| {
            let (vault, me) = (pair.alice.vault(), &pair.alice.device);
            conversation::found(&vault, me, CONVERSATION, Suite::Classic, &packages, None, policy)
        })?;
        let welcome = founding.welcomes.first().context("a founding of two has a welcome")?;
        pair.judge(Rules::Direct(pair.accounts()), |policy| {
            let (vault, me) = (pair.bob.vault(), &pair.bob.device);
            conversation::join(&vault, me, &welcome.welcome, &founding.tree, policy)
        })?;
        Ok(pair)
    }

    fn accounts(&self) -> [AccountId; 2] {
        [self.alice.device.account(), self.bob.device.account()]
    }

    fn judge<T>(&self, rules: Rules<'_>, act: impl FnOnce(&Policy<'_>) -> T) -> T {
        let of = |account| {
            let known = [&self.alice, &self.bob].into_iter().find(|one| one.device.account() == account)?;
            Some(known.manifest.clone())
        };
        act(&Policy { rules, manifests: &of })
    }

    fn seal(&mut self) -> Result<Bytes> {
        self.counter += 1;
        let (vault, me) = (self.alice.vault(), &self.alice.device);
        Ok(conversation::seal(&vault, me, CONVERSATION, Counter(self.counter), &TEXT)?.envelope)
    }

    fn open(&self, envelope: &[u8]) -> Result<()> {
        let (sender, counter) = (self.alice.device.id(), Counter(self.counter));
        self.judge(Rules::Direct(self.accounts()), |policy| {
            let (vault, me) = (self.bob.vault(), &self.bob.device);
            conversation::open(&vault, me, CONVERSATION, sender, counter, envelope, policy)
        })?;
        Ok(())
    }
}

impl Person {
    fn new(identity: &Identity, id: u8) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(id.into());
        let account = AccountId::new([id; 16]);
        let device = Device::generate(&mut rng, account, DeviceId::new([id; 16]), identity.fingerprint()?);
        let manifest = identity.sign_first(&mut rng, account, vec![device.manifest_entry()])?;
        Ok(Self { device, store: MemoryStore::new(), key: StoreKey::generate(&mut rng), manifest })
    }

    fn vault(&self) -> Vault<'_, MemoryStore> {
        Vault::new(&self.store, &self.key)
    }
}

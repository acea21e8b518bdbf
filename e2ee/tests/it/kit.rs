//! People, devices and a delivery service in memory.

use fastchat_delivery::{
    CommitError, CommitSummary, FoundError, GroupData, Leaf, ManifestDevice, Policy, PublicState, Rules,
    Suite, VerifiedManifest,
    header::{self, Kind},
};
use fastchat_e2ee::{
    Device, Identity, MemoryStore, StoreKey, Vault,
    conversation::{
        self, ConversationError, Founding, Info, Joined, Members, OpenError, Opened, PendingCommit, Sealed,
    },
};
use fastchat_protocol::{AccountId, Bytes, ConversationId, Counter, DeviceId, Epoch, Seq};
use rand::{SeedableRng, rngs::StdRng};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::LazyLock,
};

pub const CONVERSATION: ConversationId = ConversationId::new([0xc0; 16]);
pub const ALICE: AccountId = AccountId::new([0xa0; 16]);
pub const BOB: AccountId = AccountId::new([0xb0; 16]);
pub const MALLORY: AccountId = AccountId::new([0xe0; 16]);

/// RSA keys are slow to make: once for all tests. Alice, Bob, Mallory.
static IDENTITIES: LazyLock<[Identity; 3]> =
    LazyLock::new(|| [1, 2, 3].map(|seed| Identity::generate(&mut StdRng::seed_from_u64(seed)).unwrap()));

pub fn identity(account: AccountId) -> &'static Identity {
    // Where only accounts and roles matter, several may have the same key.
    let index = [ALICE, BOB, MALLORY].iter().position(|known| *known == account).unwrap_or(1);
    &IDENTITIES[index]
}

/// The manifests that everybody can look up, and the rules: Alice's direct conversation with Bob, or a
/// group (with those who have left it).
#[derive(Clone, Default)]
pub struct Manifests(Rc<RefCell<BTreeMap<AccountId, VerifiedManifest>>>, Option<Rc<BTreeSet<AccountId>>>);

impl Manifests {
    pub fn get(&self, account: AccountId) -> Option<VerifiedManifest> {
        self.0.borrow().get(&account).cloned()
    }

    pub fn publish(&self, manifest: VerifiedManifest) {
        self.0.borrow_mut().insert(manifest.account(), manifest);
    }

    /// Another world, in which an account has signed a successor that nobody here has seen.
    pub fn with_successor(&self, account: AccountId, devices: &[&Peer], revoked: &[DeviceId]) -> Self {
        let devices = devices.iter().map(|peer| peer.device.manifest_entry()).collect();
        let mut rng = StdRng::seed_from_u64(9);
        let next = identity(account)
            .sign_successor(&mut rng, &self.get(account).unwrap(), devices, revoked.to_vec())
            .unwrap();
        let other = Self(Rc::new(RefCell::new(self.0.borrow().clone())), self.1.clone());
        other.publish(next);
        other
    }

    /// The same manifests under the rules of a group.
    pub fn of_group(&self, left: &[AccountId]) -> Self {
        Self(self.0.clone(), Some(Rc::new(left.iter().copied().collect())))
    }

    /// Publishes the first manifest of an account.
    pub fn introduce(&self, account: AccountId, devices: Vec<ManifestDevice>) {
        let mut rng = StdRng::seed_from_u64(7);
        self.publish(identity(account).sign_first(&mut rng, account, devices).unwrap());
    }

    pub fn judge<T>(&self, operation: impl FnOnce(&Policy<'_>) -> T) -> T {
        match &self.1 {
            None => self.judge_as(Rules::Direct([ALICE, BOB]), operation),
            Some(left) => self.judge_as(Rules::Group { left }, operation),
        }
    }

    pub fn judge_as<T>(&self, rules: Rules, operation: impl FnOnce(&Policy<'_>) -> T) -> T {
        operation(&Policy { rules, manifests: &|account| self.get(account) })
    }
}

/// Of a device's keys, so that a test can know its secret.
pub fn seed(account: AccountId, number: u8) -> u64 {
    u64::from(account.as_bytes()[0]) * 256 + u64::from(number)
}

/// A device with its store.
pub struct Peer {
    pub store: MemoryStore,
    pub key: StoreKey,
    pub device: Device,
    pub manifests: Manifests,
    pub counter: u64,
}

impl Peer {
    pub fn new(account: AccountId, number: u8, manifests: &Manifests) -> Self {
        let mut rng = StdRng::seed_from_u64(seed(account, number));
        let mut id = *account.as_bytes();
        id[15] = number;
        let fingerprint = identity(account).fingerprint().unwrap();
        let device = Device::generate(&mut rng, account, DeviceId::new(id), fingerprint);
        let peer = Self {
            store: MemoryStore::new(),
            key: StoreKey::generate(&mut rng),
            device,
            manifests: manifests.clone(),
            counter: 0,
        };
        peer.device.save(&peer.vault()).unwrap();
        peer
    }

    pub fn vault(&self) -> Vault<'_, MemoryStore> {
        Vault::new(&self.store, &self.key)
    }

    pub fn id(&self) -> DeviceId {
        self.device.id()
    }

    pub fn leaf(&self) -> Leaf {
        self.device.leaf()
    }

    pub fn next(&mut self) -> Counter {
        self.counter += 1;
        Counter(self.counter)
    }

    pub fn package(&self, suite: Suite) -> Bytes {
        self.device.key_packages(&self.vault(), suite, 1).unwrap().remove(0)
    }

    pub fn found(&self, suite: Suite, packages: &[Bytes]) -> Founding {
        self.found_as(suite, packages, None)
    }

    pub fn found_as(&self, suite: Suite, packages: &[Bytes], data: Option<&GroupData>) -> Founding {
        let (vault, me) = (self.vault(), &self.device);
        self.manifests
            .judge(|policy| conversation::found(&vault, me, CONVERSATION, suite, packages, data, policy))
            .unwrap()
    }

    pub fn found_next(
        &self,
        suite: Suite,
        packages: &[Bytes],
        data: &GroupData,
    ) -> Result<Founding, ConversationError> {
        let (vault, me) = (self.vault(), &self.device);
        self.manifests
            .judge(|policy| conversation::found_next(&vault, me, CONVERSATION, suite, packages, data, policy))
    }

    pub fn try_join(&self, welcome: &[u8], tree: &[u8]) -> Result<Joined, ConversationError> {
        self.manifests.judge(|policy| conversation::join(&self.vault(), &self.device, welcome, tree, policy))
    }

    pub fn join(&self, founding: &Founding) {
        let welcome = &founding.welcomes[0].welcome;
        let joined = self
            .manifests
            .judge(|policy| conversation::join(&self.vault(), &self.device, welcome, &founding.tree, policy))
            .unwrap();
        assert_eq!((joined.conversation, joined.epoch), (CONVERSATION, founding.epoch));
    }

    pub fn seal(&mut self, text: &str) -> (Counter, Sealed) {
        let counter = self.next();
        (
            counter,
            conversation::seal(&self.vault(), &self.device, CONVERSATION, counter, text.as_bytes()).unwrap(),
        )
    }

    pub fn open(&self, sender: DeviceId, counter: Counter, envelope: &[u8]) -> Result<Opened, OpenError> {
        self.manifests.judge(|policy| {
            conversation::open(&self.vault(), &self.device, CONVERSATION, sender, counter, envelope, policy)
        })
    }

    pub fn open_row(&self, row: &Row) -> Result<Opened, OpenError> {
        self.open(row.sender, row.counter, &row.envelope)
    }

    /// Opens what must be a message and gives its text.
    pub fn read(&self, row: &Row) -> String {
        match self.open_row(row).unwrap() {
            Opened::Message { plaintext, device, .. } => {
                assert_eq!(device, row.sender);
                String::from_utf8(plaintext.to_vec()).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn update(&mut self) -> (Counter, PendingCommit) {
        let counter = self.next();
        (counter, conversation::update_keys(&self.vault(), &self.device, CONVERSATION, counter).unwrap())
    }

    /// A commit under the manifests that this peer believes, or pretends to.
    pub fn change(
        &self,
        counter: Counter,
        add: &[Bytes],
        remove: &[DeviceId],
        manifests: &Manifests,
    ) -> Result<PendingCommit, ConversationError> {
        manifests.judge(|policy| {
            let change = conversation::Members { add, remove, data: None };
            conversation::change_members(&self.vault(), &self.device, CONVERSATION, counter, &change, policy)
        })
    }

    /// A commit of devices and roles, under the own rules.
    pub fn members(
        &mut self,
        add: &[Bytes],
        remove: &[DeviceId],
        data: Option<GroupData>,
    ) -> (Counter, PendingCommit) {
        let counter = self.next();
        let (vault, me, change) = (self.vault(), &self.device, Members { add, remove, data });
        let commit = self
            .manifests
            .judge(|policy| conversation::change_members(&vault, me, CONVERSATION, counter, &change, policy));
        (counter, commit.unwrap())
    }

    pub fn resync(&mut self, service: &Service) -> (Counter, PendingCommit) {
        let counter = self.next();
        let tree = service.state().tree_bytes();
        let commit = self.manifests.judge(|policy| {
            let shown =
                conversation::Shown { group_info: &service.group_info, tree: &tree, supersedes: false };
            conversation::resync(&self.vault(), &self.device, CONVERSATION, &shown, counter, policy)
        });
        (counter, commit.unwrap())
    }

    pub fn info(&self) -> Info {
        conversation::info(&self.vault(), CONVERSATION).unwrap().unwrap()
    }
}

/// A line of the log.
#[derive(Debug, Clone)]
pub struct Row {
    pub sender: DeviceId,
    pub counter: Counter,
    pub envelope: Bytes,
}

/// An honest gateway for one conversation.
pub struct Service {
    state: Vec<u8>,
    pub group_info: Bytes,
    pub log: Vec<Row>,
    pub manifests: Manifests,
    /// The epoch of the last commit that moved leaves.
    floor: Epoch,
    seen: BTreeMap<(DeviceId, Counter), Seq>,
}

impl Service {
    pub fn found(founding: &Founding, founder: DeviceId, manifests: &Manifests) -> Self {
        let state = manifests
            .judge(|policy| PublicState::found(&founding.group_info, &founding.tree, founder, policy))
            .unwrap();
        Self {
            state: state.to_bytes(),
            group_info: founding.group_info.clone(),
            log: Vec::new(),
            manifests: manifests.clone(),
            floor: founding.epoch,
            seen: BTreeMap::new(),
        }
    }

    pub fn state(&self) -> PublicState {
        PublicState::from_bytes(&self.state).unwrap()
    }

    pub fn epoch(&self) -> Epoch {
        self.state().epoch()
    }

    /// `None`: of an epoch that is not accepted (any more). A repetition is accepted once.
    pub fn send(&mut self, sender: DeviceId, counter: Counter, envelope: Bytes) -> Option<Row> {
        if let Some(seq) = self.seen.get(&(sender, counter)) {
            return Some(self.log[seq.0 as usize - 1].clone());
        }
        let header = header::peek(&envelope).unwrap();
        assert_eq!(
            (header.conversation, header.kind, header.counter),
            (CONVERSATION, Kind::Application, counter)
        );
        let (current, made) = (self.epoch(), header.epoch);
        if made > current || made < self.floor || current.number.saturating_sub(made.number) > 2 {
            return None;
        }
        Some(self.append(sender, counter, envelope))
    }

    pub fn commit(
        &mut self,
        sender: DeviceId,
        counter: Counter,
        commit: &PendingCommit,
    ) -> Result<(Row, CommitSummary), CommitError> {
        let state = self.state();
        let (state, summary) = self
            .manifests
            .judge(|policy| state.apply_commit(&commit.commit, &commit.group_info, sender, policy))?;
        self.state = state.to_bytes();
        self.group_info = commit.group_info.clone();
        if summary.moves_leaves() {
            self.floor = summary.epoch;
        }
        Ok((self.append(sender, counter, commit.commit.clone()), summary))
    }

    /// Takes the next generation of a group.
    pub fn found_next(&mut self, founding: &Founding, founder: DeviceId) -> Result<(), FoundError> {
        let state = self.state();
        let next = self
            .manifests
            .judge(|policy| state.found_next(&founding.group_info, &founding.tree, founder, 1, policy))?;
        self.state = next.to_bytes();
        self.group_info = founding.group_info.clone();
        self.floor = founding.epoch;
        Ok(())
    }

    pub fn append(&mut self, sender: DeviceId, counter: Counter, envelope: Bytes) -> Row {
        let row = Row { sender, counter, envelope };
        self.log.push(row.clone());
        self.seen.insert((sender, counter), Seq(self.log.len() as u64));
        row
    }
}

/// Alice with two devices and Bob with one, each listed; nobody in a conversation yet.
pub fn people() -> (Manifests, Peer, Peer, Peer) {
    let manifests = Manifests::default();
    let (a1, a2, b1) =
        (Peer::new(ALICE, 1, &manifests), Peer::new(ALICE, 2, &manifests), Peer::new(BOB, 1, &manifests));
    for (account, devices) in [(ALICE, vec![&a1, &a2]), (BOB, vec![&b1])] {
        manifests.introduce(account, devices.iter().map(|peer| peer.device.manifest_entry()).collect());
    }
    (manifests, a1, a2, b1)
}

/// The three of them in a conversation that Alice's first device founded.
pub fn meet(suite: Suite) -> (Service, Peer, Peer, Peer) {
    let (manifests, a1, a2, b1) = people();
    let founding = a1.found(suite, &[a2.package(suite), b1.package(suite)]);
    a2.join(&founding);
    b1.join(&founding);
    let service = Service::found(&founding, a1.id(), &manifests);
    (service, a1, a2, b1)
}

/// Mallory's device: an account of its own, with a manifest, and no part in the conversation.
pub fn mallory(manifests: &Manifests) -> Peer {
    let peer = Peer::new(MALLORY, 1, manifests);
    let devices = vec![peer.device.manifest_entry()];
    let mut rng = StdRng::seed_from_u64(8);
    manifests.publish(identity(MALLORY).sign_first(&mut rng, MALLORY, devices).unwrap());
    peer
}

/// An external commit that asks nobody: made with OpenMLS directly.
pub fn external_commit(peer: &Peer, service: &Service, counter: Counter) -> PendingCommit {
    external_commit_to(&peer.device, &service.group_info, &service.state().tree_bytes(), counter)
}

pub fn external_commit_to(me: &Device, group_info: &[u8], tree: &[u8], counter: Counter) -> PendingCommit {
    use openmls::prelude::{tls_codec::DeserializeBytes as _, *};
    let provider = openmls_rust_crypto::OpenMlsRustCrypto::default();
    let leaf = me.leaf();
    let credential = fastchat_delivery::LeafCredential {
        account: leaf.account,
        device: leaf.device,
        identity: leaf.identity_fingerprint,
    };
    let credential =
        CredentialWithKey { credential: credential.to_mls(), signature_key: leaf.key.as_slice().into() };
    let message = MlsMessageIn::tls_deserialize_exact_bytes(group_info).unwrap();
    let MlsMessageBodyIn::GroupInfo(info) = message.extract() else { panic!() };
    let tree = RatchetTreeIn::tls_deserialize_exact_bytes(tree).unwrap();
    let suite = Suite::try_from(info.ciphersuite()).unwrap();
    let parameters =
        LeafNodeParameters::builder().with_capabilities(fastchat_delivery::leaf::capabilities(suite)).build();
    let (group, bundle) = MlsGroup::external_commit_builder()
        .with_ratchet_tree(tree)
        .with_aad(header::aad(counter))
        .build_group(&provider, info, credential)
        .unwrap()
        .leaf_node_parameters(parameters)
        .load_psks(provider.storage())
        .unwrap()
        .create_group_info(true)
        .build(provider.rand(), provider.crypto(), me, |_| true)
        .unwrap()
        .finalize(&provider)
        .unwrap();
    let (commit, _, group_info) = bundle.into_messages();
    PendingCommit {
        commit: commit.to_bytes().unwrap().into(),
        group_info: group_info.unwrap().to_bytes().unwrap().into(),
        welcomes: Vec::new(),
        epoch: Epoch { generation: 0, number: group.epoch().as_u64() },
    }
}

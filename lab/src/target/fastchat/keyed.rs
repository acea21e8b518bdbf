//! People with real keys. Their conversations are founded and joined over the wire, as clients do it, and
//! their messages can be sealed and opened; keys are in memory alone.

use super::people::Own;
use anyhow::{Context, Result, bail, ensure};
use fastchat_e2ee::{
    Device, GroupData, Identity, MemoryStore, Policy, Rules, StoreKey, Suite, Vault, VerifiedManifest,
    conversation::{self, Opened},
};
use fastchat_gateway::store::{NewAccount, NewManifest, Registered, Store};
use fastchat_protocol::{
    AccountId, Bytes, ClientFrame, ConversationId, Counter, DeviceId, Retry, Role, Seq, ServerFrame,
    client::{self, AuthKey},
    codec, limits,
    server::{Joining, LogRow},
};
use fastchat_tests::raw::RawClient;
use rand::SeedableRng;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How often a request that is refused for now is made again.
const ATTEMPTS: usize = 100;
/// Between two of these, if the refusal does not say.
const PAUSE: Duration = Duration::from_millis(200);
/// Mailbox items of this kind let a device into a conversation.
const JOINING: u8 = 1;

/// A device of an account of its own, with its keys.
pub(super) struct Keyed {
    device: Device,
    manifests: Arc<BTreeMap<AccountId, VerifiedManifest>>,
    /// What a device's disk would hold.
    store: Mutex<MemoryStore>,
    key: StoreKey,
}

impl std::fmt::Debug for Keyed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyed").field("device", &self.device.id()).finish_non_exhaustive()
    }
}

impl Keyed {
    /// So many of them. They share one identity, which takes long to make and on which nothing here
    /// depends.
    pub(super) fn make(count: usize) -> Result<Vec<Arc<Self>>> {
        let mut rng = rand::rngs::StdRng::from_rng(&mut rand::rng());
        let identity = Identity::generate(&mut rng)?;
        let fingerprint = identity.fingerprint()?;
        let (mut devices, mut manifests) = (Vec::new(), BTreeMap::new());
        for _ in 0..count {
            let (account, id) = (AccountId::new(rand::random()), DeviceId::new(rand::random()));
            let device = Device::generate(&mut rng, account, id, fingerprint);
            manifests.insert(account, identity.sign_first(&mut rng, account, vec![device.manifest_entry()])?);
            devices.push(device);
        }
        let manifests = Arc::new(manifests);
        let keyed = |device| Self {
            device,
            manifests: Arc::clone(&manifests),
            store: Mutex::default(),
            key: StoreKey::generate(&mut rng),
        };
        Ok(devices.into_iter().map(keyed).map(Arc::new).collect())
    }

    pub(super) fn device(&self) -> DeviceId {
        self.device.id()
    }

    fn account(&self) -> AccountId {
        self.device.account()
    }

    fn name(&self) -> String {
        format!("lab-{}", &self.account().to_string()[..24])
    }

    fn manifest(&self) -> Bytes {
        let own = self.manifests.get(&self.account());
        own.map(|manifest| Bytes::copy_from_slice(manifest.bytes())).unwrap_or_default()
    }

    /// Makes the account straight in a store, so that no password is hashed.
    pub(super) async fn enrol(&self, store: &dyn Store) -> Result<()> {
        let new = NewAccount {
            account: self.account(),
            name: self.name().parse()?,
            password_hash: "no password fits".to_owned(),
            manifest: NewManifest {
                version: 1,
                bytes: self.manifest(),
                devices: vec![(self.device(), self.device.public_key())],
                revoked: Vec::new(),
            },
            invite: None,
        };
        match store.register(new).await? {
            Registered::Made => Ok(()),
            _ => bail!("an account could not be made"),
        }
    }

    /// Registers the account as any client does.
    pub(super) async fn register(
        self: Arc<Self>,
        address: String,
        invite: Option<String>,
    ) -> Result<RawClient> {
        for _ in 0..ATTEMPTS {
            let (mut wire, signature) = self.challenged(&address).await?;
            let register = client::Register {
                name: self.name(),
                auth_key: AuthKey::new("x".repeat(limits::AUTH_KEY_CHARS)),
                device: self.device(),
                signature,
                manifest: self.manifest(),
                invite: invite.clone(),
            };
            match wire.ask(&ClientFrame::Register(register)).await? {
                ServerFrame::Session(_) => return Ok(wire),
                ServerFrame::Refused(refusal) if refusal.code.retry() != Retry::Never => {
                    let wait = refusal.wait_ms.map_or(PAUSE, |ms| Duration::from_millis(ms.into()));
                    tokio::time::sleep(wait).await;
                }
                other => bail!("an account could not be registered: {other:?}"),
            }
        }
        bail!("{address} lets too few accounts register: raise its limits for a while");
    }

    /// A session by the device's key.
    pub(super) async fn connect(&self, address: &str) -> Result<RawClient> {
        let (mut wire, signature) = self.challenged(address).await?;
        let resume = client::Resume { device: self.device(), signature };
        match wire.ask(&ClientFrame::Resume(resume)).await? {
            ServerFrame::Session(_) => Ok(wire),
            other => bail!("expected a session, got {other:?}"),
        }
    }

    async fn challenged(&self, address: &str) -> Result<(RawClient, Bytes)> {
        let dialled = RawClient::dial(address).await;
        let mut wire = dialled.with_context(|| format!("connecting to {address}"))?;
        let hello = wire.challenged().await?;
        let signature = self.device.sign_challenge(&hello.deployment, wire.host(), &hello.nonce);
        Ok((wire, Bytes::copy_from_slice(&signature)))
    }

    /// Puts a key package of each suite into the directory that serves any number of conversations.
    pub(super) async fn publish(self: Arc<Self>, mut wire: RawClient) -> Result<RawClient> {
        for suite in Suite::ALL {
            let last_resort = {
                let store = self.store();
                Some(self.device.last_resort_key_package(&self.vault(&store), suite)?)
            };
            let publish =
                client::PublishKeyPackages { suite: suite.code(), one_time: Vec::new(), last_resort };
            match ask(&mut wire, &ClientFrame::PublishKeyPackages(publish)).await? {
                ServerFrame::KeyPackagesLeft(_) => {}
                other => bail!("key packages were not taken: {other:?}"),
            }
        }
        Ok(wire)
    }

    /// Founds a conversation with these: direct with the first one, or a group.
    pub(super) async fn found(&self, wire: &mut RawClient, others: &[Arc<Self>], group: bool) -> Result<Own> {
        let devices = others.len() + 1;
        let suite = Suite::ALL.into_iter().find(|suite| devices <= suite.max_devices());
        let suite = suite.with_context(|| format!("no suite has {devices} devices"))?;
        let mut packages = Vec::new();
        for other in others {
            let claim = client::ClaimKeyPackages { account: other.account(), suite: suite.code() };
            match ask(wire, &ClientFrame::ClaimKeyPackages(claim)).await? {
                ServerFrame::KeyPackages(got) => {
                    packages.extend(got.packages.into_iter().map(|it| it.package))
                }
                other => bail!("no key packages: {other:?}"),
            }
        }
        let (frame, own) = self.founding(suite, others, &packages, group)?;
        match ask(wire, &frame).await? {
            ServerFrame::Sent(_) => Ok(own),
            other => bail!("a conversation could not be founded: {other:?}"),
        }
    }

    fn founding(
        &self,
        suite: Suite,
        others: &[Arc<Self>],
        packages: &[Bytes],
        group: bool,
    ) -> Result<(ClientFrame, Own)> {
        let (id, nobody) = (ConversationId::new(rand::random()), BTreeSet::new());
        let peer = others.first().map_or(self.account(), |other| other.account());
        let rules =
            if group { Rules::Group { left: &nobody } } else { Rules::Direct([self.account(), peer]) };
        let members = others.iter().map(|other| (other.account(), Role::Member));
        let roles = members.chain([(self.account(), Role::Owner)]).collect();
        let data = if group { Some(GroupData::new(roles)?) } else { None };
        let store = self.store();
        let policy = Policy { rules, manifests: &|of| self.manifests.get(&of).cloned() };
        let founding = conversation::found(
            &self.vault(&store),
            &self.device,
            id,
            suite,
            packages,
            data.as_ref(),
            &policy,
        )?;
        let conversation::Founding { conversation, epoch, group_info, tree, welcomes } = founding;
        let frame = if group {
            let (counter, replaces) = (Counter(0), None);
            ClientFrame::FoundGroup(client::FoundGroup {
                conversation,
                counter,
                replaces,
                group_info,
                tree,
                welcomes,
            })
        } else {
            ClientFrame::Found(client::Found { conversation, peer, group_info, tree, welcomes })
        };
        Ok((frame, Own { id, epoch }))
    }

    /// Joins everything that the mailbox lets this device into.
    pub(super) async fn join(self: Arc<Self>, mut wire: RawClient) -> Result<()> {
        let mut after = Seq(0);
        loop {
            let fetch = ClientFrame::FetchMailbox(client::FetchMailbox { after });
            let ServerFrame::MailboxPage(page) = ask(&mut wire, &fetch).await? else { bail!("no mailbox") };
            let Some(last) = page.items.last() else { return Ok(()) };
            after = last.seq;
            for item in page.items.iter().filter(|item| item.kind == JOINING) {
                let joining: Joining = codec::decode(&item.body)?;
                let (conversation, hash) = (joining.conversation, joining.tree_hash.clone());
                let tree = client::GetTree { conversation, hash };
                let ServerFrame::Tree(tree) = ask(&mut wire, &ClientFrame::GetTree(tree)).await? else {
                    bail!("no tree")
                };
                let store = self.store();
                let manifests = |of| self.manifests.get(&of).cloned();
                let policy = Policy { rules: Rules::Joiner(self.account()), manifests: &manifests };
                let vault = self.vault(&store);
                conversation::join(&vault, &self.device, &joining.welcome, &tree.tree, &policy)?;
            }
        }
    }

    /// Seals a message.
    pub(super) fn seal(&self, id: ConversationId, counter: Counter, body: &[u8]) -> Result<Bytes> {
        let store = self.store();
        Ok(conversation::seal(&self.vault(&store), &self.device, id, counter, body)?.envelope)
    }

    /// Opens what came in a row.
    pub(super) fn open(&self, id: ConversationId, row: &LogRow) -> Result<Bytes> {
        let (store, nobody) = (self.store(), BTreeSet::new());
        let envelope = row.envelope.as_ref().context("a row with its envelope")?;
        let manifests = |of| self.manifests.get(&of).cloned();
        let policy = Policy { rules: Rules::Group { left: &nobody }, manifests: &manifests };
        let vault = self.vault(&store);
        let opened =
            conversation::open(&vault, &self.device, id, row.sender, row.counter, envelope, &policy)?;
        match opened {
            Opened::Message { plaintext, .. } => Ok(Bytes::copy_from_slice(&plaintext)),
            other => bail!("a row could not be opened: {other:?}"),
        }
    }

    fn store(&self) -> MutexGuard<'_, MemoryStore> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vault<'a>(&'a self, store: &'a MemoryStore) -> Vault<'a, MemoryStore> {
        Vault::new(store, &self.key)
    }
}

/// Asks, and asks again where the answer is: not now.
async fn ask(wire: &mut RawClient, frame: &ClientFrame) -> Result<ServerFrame> {
    for _ in 0..ATTEMPTS {
        match wire.ask(frame).await? {
            ServerFrame::Refused(refusal) if refusal.code.retry() != Retry::Never => {
                let wait = refusal.wait_ms.map_or(PAUSE, |ms| Duration::from_millis(ms.into()));
                tokio::time::sleep(wait).await;
            }
            answer => {
                ensure!(!matches!(answer, ServerFrame::Closing(_)), "closed: {answer:?}");
                return Ok(answer);
            }
        }
    }
    bail!("the gateway said {ATTEMPTS} times: not now");
}

//! A member with real keys that obeys no rule: it commits whatever it is told to.

use super::{
    LaxServer, mls,
    state::{Change, PublicEpoch},
};
use anyhow::{Context, Result, bail};
use fastchat_delivery::{GroupData, Leaf, LeafCredential, Leave, Suite, header::aad, leaf::capabilities};
use fastchat_e2ee::{Content, Device, Identity};
use fastchat_protocol::{
    AccountId, Bytes, ConversationId, Counter, DeviceId, Epoch, Seq,
    client::{AuthKey, PublishKeyPackages, Welcome},
    codec, limits,
    server::{Joining, LogKind},
};
use openmls::prelude::{
    CredentialWithKey, DeserializeBytes, KeyPackage, KeyPackageIn, LeafNodeIndex, LeafNodeParameters,
    MlsGroup, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut,
    PURE_PLAINTEXT_WIRE_FORMAT_POLICY, ProcessedMessageContent, ProtocolVersion, StagedWelcome,
};
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::OpenMlsProvider;
use rand::{SeedableRng, rngs::StdRng};

const SUITE: Suite = Suite::PostQuantum;

/// What a rogue's commit does.
#[derive(Debug, Clone, Default)]
pub struct Deed {
    /// Key packages of devices that it adds.
    pub add: Vec<Bytes>,
    /// Devices that it removes.
    pub remove: Vec<DeviceId>,
    /// What it declares.
    pub data: Option<GroupData>,
}

/// See the module. Its account is as good as any: registered, with a manifest and key packages.
pub struct Rogue {
    /// Its keys.
    pub device: Device,
    /// Its account's.
    pub identity: Identity,
    provider: OpenMlsRustCrypto,
    group: Option<MlsGroup>,
    counter: Counter,
}

impl Rogue {
    /// Makes an account in the server's state.
    pub fn register(server: &LaxServer, name: &str) -> Result<Self> {
        let mut rng = StdRng::from_rng(&mut rand::rng());
        let identity = Identity::generate(&mut rng)?;
        let account = AccountId::new(rand::random());
        let rogue = Self::of(account, identity)?;
        let manifest = rogue.identity.sign_first(&mut rng, account, vec![rogue.device.manifest_entry()])?;
        let manifest = Bytes::copy_from_slice(manifest.bytes());
        let one_time = (0..8).map(|_| rogue.key_package()).collect::<Result<_>>()?;
        let publish = PublishKeyPackages { suite: SUITE.code(), one_time, last_resort: None };
        let auth_key = AuthKey::new("x".repeat(limits::AUTH_KEY_CHARS));
        server.with(|state| {
            state.add_account(name.parse()?, auth_key, manifest)?;
            state.publish(rogue.device.id(), publish);
            Ok::<_, anyhow::Error>(())
        })?;
        Ok(rogue)
    }

    /// A device that says to be of an account; no manifest need know of it.
    pub fn of(account: AccountId, identity: Identity) -> Result<Self> {
        let mut rng = StdRng::from_rng(&mut rand::rng());
        let fingerprint = identity.fingerprint()?;
        let device = Device::generate(&mut rng, account, DeviceId::new(rand::random()), fingerprint);
        let provider = OpenMlsRustCrypto::default();
        Ok(Self { device, identity, provider, group: None, counter: Counter(0) })
    }

    /// A device that claims somebody else's account and identity, whose key it does not have.
    pub fn ghost(account: AccountId, fingerprint: [u8; 32]) -> Result<Self> {
        let mut rng = StdRng::from_rng(&mut rand::rng());
        let identity = Identity::generate(&mut rng)?;
        let device = Device::generate(&mut rng, account, DeviceId::new(rand::random()), fingerprint);
        let provider = OpenMlsRustCrypto::default();
        Ok(Self { device, identity, provider, group: None, counter: Counter(0) })
    }

    /// A key package of this device.
    pub fn key_package(&self) -> Result<Bytes> {
        let bundle = KeyPackage::builder().leaf_node_capabilities(capabilities(SUITE)).build(
            SUITE.ciphersuite(),
            &self.provider,
            &self.device,
            self.credential(),
        )?;
        Ok(MlsMessageOut::from(bundle.into_key_package()).to_bytes()?.into())
    }

    /// Joins by the welcome in its mailbox.
    pub fn join(&mut self, server: &LaxServer) -> Result<ConversationId> {
        let (joining, tree) = server.with(|state| {
            let item =
                state.mailboxes.get(&self.device.id()).and_then(|mailbox| mailbox.items.last().cloned());
            let joining: Joining = codec::decode(&item.context("no welcome")?.body)?;
            let tree = state.tree(&joining.tree_hash).context("no tree")?;
            Ok::<_, anyhow::Error>((joining, tree))
        })?;
        let MlsMessageBodyIn::Welcome(welcome) =
            MlsMessageIn::tls_deserialize_exact_bytes(&joining.welcome)?.extract()
        else {
            bail!("not a welcome");
        };
        let tree = Some(mls::tree(&tree)?);
        let staged = StagedWelcome::new_from_welcome(&self.provider, &join_config(), welcome, tree)?;
        self.group = Some(staged.into_group(&self.provider)?);
        Ok(joining.conversation)
    }

    /// Enters by an external commit on a public state, asked or not.
    pub fn enter(&mut self, public: &PublicEpoch) -> Result<Change> {
        let leaf = LeafNodeParameters::builder().with_capabilities(capabilities(SUITE)).build();
        let (group, bundle) = MlsGroup::external_commit_builder()
            .with_ratchet_tree(mls::tree(&public.tree)?)
            .with_config(join_config())
            .with_aad(aad(self.next()))
            .build_group(&self.provider, mls::group_info(&public.group_info)?, self.credential())?
            .leaf_node_parameters(leaf)
            .load_psks(self.provider.storage())?
            .create_group_info(true)
            .use_ratchet_tree_extension(false)
            .build(self.provider.rand(), self.provider.crypto(), &self.device, |_| true)?
            .finalize(&self.provider)?;
        let (commit, _, group_info) = bundle.into_messages();
        self.group = Some(group);
        change(&commit, None, group_info.as_ref(), Vec::new())
    }

    /// Commits a deed and stays where the others are.
    pub fn attempt(&mut self, deed: &Deed) -> Result<Change> {
        let change = self.stage(deed)?;
        let group = self.group.as_mut().context("not in a conversation")?;
        group.clear_pending_commit(self.provider.storage())?;
        Ok(change)
    }

    /// Follows the commits of others that a log has after a row.
    pub fn follow(&mut self, server: &LaxServer, id: ConversationId, after: Seq) -> Result<()> {
        let rows = server.with(|state| state.conversations[&id].log.clone());
        let group = self.group.as_mut().context("not in a conversation")?;
        for row in rows.into_iter().filter(|row| row.seq > after && row.kind == LogKind::Commit) {
            let message = MlsMessageIn::tls_deserialize_exact_bytes(&row.envelope.unwrap_or_default())?;
            let processed = group.process_message(&self.provider, message.try_into_protocol_message()?)?;
            if let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() {
                group.merge_staged_commit(&self.provider, *staged)?;
            }
        }
        Ok(())
    }

    /// A statement by which this device's account leaves, for its next place.
    pub fn leave(&mut self, conversation: ConversationId) -> Result<Bytes> {
        let counter = self.next();
        let group = self.group.as_ref().context("not in a conversation")?;
        let epoch = Epoch { generation: 0, number: group.epoch().as_u64() };
        let (account, device) = (self.device.account(), self.device.id());
        Ok(self.device.sign_leave(&Leave { conversation, epoch, account, device, counter }))
    }

    /// What the group declares, as this member sees it.
    pub fn data(&self) -> Result<GroupData> {
        let group = self.group.as_ref().context("not in a conversation")?;
        GroupData::from_extensions(group.extensions())?.context("a group")
    }

    fn stage(&mut self, deed: &Deed) -> Result<Change> {
        let aad = aad(self.next());
        let packages = deed.add.iter().map(|bytes| self.read_package(bytes)).collect::<Result<Vec<_>>>()?;
        let group = self.group.as_mut().context("not in a conversation")?;
        let devices = packages.iter().map(|package| Ok(Leaf::from_node(package.leaf_node())?.device));
        let devices = devices.collect::<Result<Vec<_>>>()?;
        let removals =
            deed.remove.iter().map(|device| index_of(group, *device)).collect::<Result<Vec<_>>>()?;
        group.set_aad(aad);
        let mut builder =
            group.commit_builder().force_self_update(true).propose_adds(packages).propose_removals(removals);
        if let Some(data) = &deed.data {
            builder = builder.propose_group_context_extensions(data.to_extensions())?;
        }
        let bundle = builder
            .load_psks(self.provider.storage())?
            .create_group_info(true)
            .use_ratchet_tree_extension(false)
            .build(self.provider.rand(), self.provider.crypto(), &self.device, |_| true)?
            .stage_commit(&self.provider)?;
        let (commit, welcome, group_info) = bundle.into_messages();
        change(&commit, welcome.as_ref(), group_info.as_ref(), devices)
    }

    /// Seals a text.
    pub fn seal(&mut self, text: &str) -> Result<Bytes> {
        self.seal_plaintext(&Content::Text(text.into()).encode())
    }

    /// Seals whatever it is.
    pub fn seal_plaintext(&mut self, plaintext: &[u8]) -> Result<Bytes> {
        let aad = aad(self.next());
        let group = self.group.as_mut().context("not in a conversation")?;
        group.set_aad(aad);
        Ok(group.create_message(&self.provider, &self.device, plaintext)?.to_bytes()?.into())
    }

    /// Who it says to be and under which number its last deed goes.
    pub fn as_sender(&self) -> (DeviceId, Counter) {
        (self.device.id(), self.counter)
    }

    fn next(&mut self) -> Counter {
        self.counter = self.counter.next();
        self.counter
    }

    fn read_package(&self, bytes: &[u8]) -> Result<KeyPackage> {
        let MlsMessageBodyIn::KeyPackage(package) =
            MlsMessageIn::tls_deserialize_exact_bytes(bytes)?.extract()
        else {
            bail!("not a key package");
        };
        let package: KeyPackageIn = package;
        Ok(package.validate(self.provider.crypto(), ProtocolVersion::Mls10)?)
    }

    fn credential(&self) -> CredentialWithKey {
        let Leaf { account, device, key, identity_fingerprint: identity } = self.device.leaf();
        CredentialWithKey {
            credential: LeafCredential { account, device, identity }.to_mls(),
            signature_key: key.as_slice().into(),
        }
    }
}

fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .use_ratchet_tree_extension(false)
        .build()
}

fn index_of(group: &MlsGroup, device: DeviceId) -> Result<LeafNodeIndex> {
    let mut members = group.members();
    let found = members.find(|member| Leaf::from_member(member).is_ok_and(|leaf| leaf.device == device));
    Ok(found.context("no such member")?.index)
}

fn change(
    commit: &MlsMessageOut,
    welcome: Option<&MlsMessageOut>,
    group_info: Option<&MlsMessageOut>,
    devices: Vec<DeviceId>,
) -> Result<Change> {
    let bytes = |message: &MlsMessageOut| Ok::<_, anyhow::Error>(Bytes::from(message.to_bytes()?));
    let welcome = welcome.map(bytes).transpose()?;
    let welcomes = welcome.map(|welcome| Welcome { devices, welcome }).into_iter().collect();
    let group_info = bytes(group_info.context("no group information")?)?;
    Ok(Change { envelope: bytes(commit)?, group_info, welcomes })
}

impl std::fmt::Debug for Rogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rogue").field("device", &self.device).finish_non_exhaustive()
    }
}

//! Members whose program asks no policy: made with OpenMLS directly, so that what they send is what a
//! changed program could send.

use crate::kit::*;
use fastchat_delivery::{
    GroupData, LeafCredential, Suite,
    header::{aad, group_id},
    leaf::capabilities,
};
use fastchat_e2ee::{
    Device,
    conversation::{Founding, PendingCommit},
};
use fastchat_protocol::{AccountId, Bytes, Counter, DeviceId, Epoch, client::Welcome};
use openmls::prelude::{
    tls_codec::{DeserializeBytes as _, Serialize as _},
    *,
};
use openmls_rust_crypto::OpenMlsRustCrypto;

/// A device that keeps its state in OpenMLS's own storage.
pub struct Rogue {
    pub device: Device,
    provider: OpenMlsRustCrypto,
    group: Option<MlsGroup>,
}

/// What a commit shall do.
#[derive(Default, Clone)]
pub struct Effect {
    pub add: Vec<Bytes>,
    pub remove: Vec<DeviceId>,
    pub extensions: Option<Extensions<GroupContext>>,
}

impl Effect {
    pub fn declare(data: &GroupData) -> Self {
        Self { extensions: Some(data.to_extensions()), ..Self::default() }
    }
}

impl Rogue {
    pub fn new(account: AccountId, number: u8, manifests: &Manifests) -> Self {
        let device = Peer::new(account, number, manifests).device;
        Self { device, provider: OpenMlsRustCrypto::default(), group: None }
    }

    pub fn id(&self) -> DeviceId {
        self.device.id()
    }

    fn credential(&self) -> CredentialWithKey {
        let leaf = self.device.leaf();
        let credential = LeafCredential {
            account: leaf.account,
            device: leaf.device,
            identity: leaf.identity_fingerprint,
        };
        CredentialWithKey { credential: credential.to_mls(), signature_key: leaf.key.as_slice().into() }
    }

    pub fn package(&self, suite: Suite) -> Bytes {
        let bundle = KeyPackage::builder()
            .leaf_node_capabilities(capabilities(suite))
            .build(suite.ciphersuite(), &self.provider, &self.device, self.credential())
            .unwrap();
        MlsMessageOut::from(bundle.into_key_package()).to_bytes().unwrap().into()
    }

    fn group(&mut self) -> &mut MlsGroup {
        self.group.as_mut().unwrap()
    }

    pub fn found(
        &mut self,
        generation: u32,
        suite: Suite,
        extensions: Extensions<GroupContext>,
        packages: &[Bytes],
    ) -> Founding {
        if let Some(mut before) = self.group.take() {
            before.delete(self.provider.storage()).unwrap();
        }
        let mut group = MlsGroup::builder()
            .with_group_context_extensions(extensions)
            .with_group_id(group_id(CONVERSATION, generation))
            .ciphersuite(suite.ciphersuite())
            .with_capabilities(capabilities(suite))
            .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(false)
            .build(&self.provider, &self.device, self.credential())
            .unwrap();
        let (_, welcome, _) = group
            .add_members(&self.provider, &self.device, &packages.iter().map(parse).collect::<Vec<_>>())
            .unwrap();
        group.merge_pending_commit(&self.provider).unwrap();
        let info = group.export_group_info(self.provider.crypto(), &self.device, false).unwrap();
        let founding = Founding {
            conversation: CONVERSATION,
            epoch: Epoch { generation, number: group.epoch().as_u64() },
            group_info: info.to_bytes().unwrap().into(),
            tree: group.export_ratchet_tree().tls_serialize_detached().unwrap().into(),
            welcomes: vec![Welcome { devices: Vec::new(), welcome: welcome.to_bytes().unwrap().into() }],
        };
        self.group = Some(group);
        founding
    }

    pub fn join(&mut self, founding: &Founding) {
        let message = MlsMessageIn::tls_deserialize_exact_bytes(&founding.welcomes[0].welcome).unwrap();
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else { panic!() };
        let tree = RatchetTreeIn::tls_deserialize_exact_bytes(&founding.tree).unwrap();
        let config =
            MlsGroupJoinConfig::builder().wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY).build();
        let staged = StagedWelcome::new_from_welcome(&self.provider, &config, welcome, Some(tree)).unwrap();
        self.group = Some(staged.into_group(&self.provider).unwrap());
    }

    /// Applies another's commit without a question.
    pub fn apply(&mut self, commit: &[u8]) {
        let message = MlsMessageIn::tls_deserialize_exact_bytes(commit).unwrap();
        let group = self.group.as_mut().unwrap();
        let processed =
            group.process_message(&self.provider, message.try_into_protocol_message().unwrap()).unwrap();
        let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else { panic!() };
        group.merge_staged_commit(&self.provider, *staged).unwrap();
    }

    /// A commit, and its result in the own state only if [`merge`](Self::merge) follows. An error: not
    /// even OpenMLS makes it.
    pub fn commit(&mut self, counter: Counter, effect: &Effect) -> Result<PendingCommit, String> {
        let provider = &self.provider;
        let group = self.group.as_mut().unwrap();
        group.clear_pending_commit(provider.storage()).unwrap();
        group.set_aad(aad(counter));
        let indices: Vec<_> = group
            .members()
            .filter(|member| {
                let leaf = fastchat_delivery::Leaf::from_member(member).unwrap();
                effect.remove.contains(&leaf.device)
            })
            .map(|member| member.index)
            .collect();
        assert_eq!(indices.len(), effect.remove.len());
        let mut builder = group
            .commit_builder()
            .force_self_update(true)
            .propose_adds(effect.add.iter().map(parse))
            .propose_removals(indices);
        if let Some(extensions) = &effect.extensions {
            builder =
                builder.propose_group_context_extensions(extensions.clone()).map_err(|e| e.to_string())?;
        }
        let bundle = builder
            .load_psks(provider.storage())
            .unwrap()
            .create_group_info(true)
            .use_ratchet_tree_extension(false)
            .build(provider.rand(), provider.crypto(), &self.device, |_| true)
            .map_err(|e| e.to_string())?
            .stage_commit(provider)
            .map_err(|e| e.to_string())?;
        let number = group.epoch().as_u64() + 1;
        let (commit, welcome, group_info) = bundle.into_messages();
        let welcome = welcome
            .map(|welcome| Welcome { devices: Vec::new(), welcome: welcome.to_bytes().unwrap().into() });
        Ok(PendingCommit {
            commit: commit.to_bytes().unwrap().into(),
            group_info: group_info.unwrap().to_bytes().unwrap().into(),
            welcomes: welcome.into_iter().collect(),
            epoch: Epoch { generation: 0, number },
        })
    }

    /// Takes the own commit for done; gives the tree that it makes.
    pub fn merge(&mut self) -> Vec<u8> {
        let group = self.group.as_mut().unwrap();
        group.merge_pending_commit(&self.provider).unwrap();
        group.export_ratchet_tree().tls_serialize_detached().unwrap()
    }

    pub fn epoch(&mut self) -> u64 {
        self.group().epoch().as_u64()
    }
}

fn parse(package: &Bytes) -> KeyPackage {
    fastchat_delivery::key_package::parse(package).unwrap().0
}

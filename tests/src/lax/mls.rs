//! What a server has to know of MLS to serve trees: the next tree after a commit. No rule is asked.

use anyhow::{Context, Result, bail};
use fastchat_delivery::header::parse_group_id;
use fastchat_protocol::{Bytes, Epoch};
use openmls::prelude::{
    DeserializeBytes, MlsMessageBodyIn, MlsMessageIn, ProcessedMessageContent, ProposalStore,
    ProtocolMessage, PublicGroup, RatchetTreeIn, group_info::VerifiableGroupInfo, tls_codec::Serialize as _,
};
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::OpenMlsProvider;

/// Reads a GroupInfo.
pub(super) fn group_info(bytes: &[u8]) -> Result<VerifiableGroupInfo> {
    match MlsMessageIn::tls_deserialize_exact_bytes(bytes)?.extract() {
        MlsMessageBodyIn::GroupInfo(info) => Ok(info),
        _ => bail!("not group information"),
    }
}

/// Reads a tree.
pub(super) fn tree(bytes: &[u8]) -> Result<RatchetTreeIn> {
    Ok(RatchetTreeIn::tls_deserialize_exact_bytes(bytes)?)
}

/// The epoch that a GroupInfo speaks of.
pub(super) fn epoch_of(info: &[u8]) -> Result<Epoch> {
    let info = group_info(info)?;
    let (_, generation) = parse_group_id(info.group_id().as_slice()).context("not a conversation's group")?;
    Ok(Epoch { generation, number: info.epoch().as_u64() })
}

/// The tree after a commit, from GroupInfo and tree before it.
pub(super) fn next_tree(info: &[u8], before: &[u8], commit: &[u8]) -> Result<Bytes> {
    let provider = OpenMlsRustCrypto::default();
    let (info, before) = (group_info(info)?, tree(before)?);
    let (mut group, _) = PublicGroup::from_external(
        provider.crypto(),
        provider.storage(),
        before,
        info,
        ProposalStore::new(),
    )?;
    let MlsMessageBodyIn::PublicMessage(message) =
        MlsMessageIn::tls_deserialize_exact_bytes(commit)?.extract()
    else {
        bail!("not a public message");
    };
    let processed = group.process_message(provider.crypto(), ProtocolMessage::from(message))?;
    let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else {
        bail!("not a commit");
    };
    group.merge_commit(provider.storage(), *staged)?;
    Ok(group.export_ratchet_tree().tls_serialize_detached()?.into())
}

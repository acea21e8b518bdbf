//! Checks that a GroupInfo describes exactly the epoch that the gateway has reached.

use crate::tls::Reader;
use openmls::prelude::tls_codec::Serialize as _;
use openmls::prelude::{
    DeserializeBytes, LeafNodeIndex, MlsMessageBodyIn, MlsMessageIn, OpenMlsSignaturePublicKey, PublicGroup,
    Verifiable, group_info::VerifiableGroupInfo,
};
use openmls_rust_crypto::RustCrypto;

/// Why a GroupInfo is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InfoError {
    /// Not an MLS GroupInfo.
    #[error("the group information cannot be read")]
    Malformed,
    /// Group, epoch, tree or transcript differ from the commit's result.
    #[error("the group information does not describe the new epoch")]
    Context,
    /// The confirmation tag differs from the commit's.
    #[error("the group information has another confirmation tag than the commit")]
    ConfirmationTag,
    /// Signed by another leaf than the committer's.
    #[error("the group information is not signed by the committer")]
    Signer,
    /// The signature is wrong.
    #[error("the group information's signature is wrong")]
    Signature,
    /// A device could not join by it, or it carries what does not belong there.
    #[error("the group information must have an external key and no tree")]
    Extensions,
}

const MLS10: u16 = 1;
const GROUP_INFO: u16 = 4;

pub(super) fn read(bytes: &[u8]) -> Result<VerifiableGroupInfo, InfoError> {
    let message = MlsMessageIn::tls_deserialize_exact_bytes(bytes).map_err(|_| InfoError::Malformed)?;
    match message.extract() {
        MlsMessageBodyIn::GroupInfo(info) => Ok(info),
        _ => Err(InfoError::Malformed),
    }
}

/// `group` is the state *after* the commit, `signer` the committer's leaf.
pub(super) fn check(
    crypto: &RustCrypto,
    group: &PublicGroup,
    bytes: &[u8],
    signer: LeafNodeIndex,
) -> Result<(), InfoError> {
    let info = read(bytes)?;
    if info.group_context() != group.group_context() {
        return Err(InfoError::Context);
    }
    if info.extensions().external_pub().is_none() || info.extensions().ratchet_tree().is_some() {
        return Err(InfoError::Extensions);
    }
    let (tag, signed_by) = tag_and_signer(bytes, group).ok_or(InfoError::Malformed)?;
    let expected = group.confirmation_tag().tls_serialize_detached().map_err(|_| InfoError::Malformed)?;
    if Reader(&expected).vector() != Some(tag) {
        return Err(InfoError::ConfirmationTag);
    }
    if signed_by != signer.u32() {
        return Err(InfoError::Signer);
    }
    let leaf = group.leaf(signer).ok_or(InfoError::Signer)?;
    let key = OpenMlsSignaturePublicKey::from_signature_key(
        leaf.signature_key().clone(),
        group.ciphersuite().signature_algorithm(),
    );
    info.verify_no_out(crypto, &key).map_err(|_| InfoError::Signature)
}

/// The two fields of a GroupInfo that OpenMLS does not show (RFC 9420, section 12.4.3): they follow
/// the group context, whose encoding is known, and the extensions.
fn tag_and_signer<'a>(bytes: &'a [u8], group: &PublicGroup) -> Option<(&'a [u8], u32)> {
    let mut reader = Reader(bytes);
    if (reader.u16()?, reader.u16()?) != (MLS10, GROUP_INFO) {
        return None;
    }
    let context = group.group_context().tls_serialize_detached().ok()?;
    if reader.take(context.len())? != context {
        return None;
    }
    reader.vector()?;
    Some((reader.vector()?, reader.u32()?))
}

//! OpenMLS keeps a public group in four values; this is where they meet bytes.

use fastchat_protocol::{ConversationId, codec};
use openmls_traits::{
    public_storage::PublicStorageProvider,
    storage::{CURRENT_VERSION, traits},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::cell::RefCell;

const FORM: u8 = 1;

type Slot = RefCell<Vec<u8>>;

/// The four values, encoded, of the one group that this provider serves.
///
/// Standalone proposals are not a thing in FastChat (commits carry their own), so the proposal queue
/// is always empty.
#[derive(Debug, Default, Clone)]
pub(super) struct Slots {
    tree: Slot,
    context: Slot,
    transcript: Slot,
    tag: Slot,
}

/// A value cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// See the source.
    #[error("a stored part of the group state cannot be read")]
    Decode(#[from] codec::DecodeError),
    /// OpenMLS gave a value that CBOR cannot say.
    #[error("a part of the group state cannot be stored")]
    Encode,
    /// Written by a newer program.
    #[error("the group state was stored in form {0}, which is not known here")]
    Form(u8),
    /// There are no standalone proposals.
    #[error("standalone proposals are not supported")]
    Proposal,
}

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    v: u8,
    c: ConversationId,
    g: u32,
    #[serde(borrow, with = "serde_bytes")]
    t: &'a [u8],
    #[serde(borrow, with = "serde_bytes")]
    x: &'a [u8],
    #[serde(borrow, with = "serde_bytes")]
    h: &'a [u8],
    #[serde(borrow, with = "serde_bytes")]
    k: &'a [u8],
}

impl Slots {
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, ConversationId, u32), StorageError> {
        let Stored { v, c, g, t, x, h, k } = codec::decode(bytes)?;
        if v != FORM {
            return Err(StorageError::Form(v));
        }
        let slot = |bytes: &[u8]| RefCell::new(bytes.to_vec());
        Ok((Self { tree: slot(t), context: slot(x), transcript: slot(h), tag: slot(k) }, c, g))
    }

    pub(super) fn write(&self, c: ConversationId, g: u32) -> Vec<u8> {
        let (t, x, h, k) =
            (self.tree.borrow(), self.context.borrow(), self.transcript.borrow(), self.tag.borrow());
        codec::encode(&Stored { v: FORM, c, g, t: &t, x: &x, h: &h, k: &k })
    }
}

fn load<T: DeserializeOwned>(slot: &Slot) -> Result<Option<T>, StorageError> {
    let bytes = slot.borrow();
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some(codec::decode_local(&bytes)?))
}

fn save<T: Serialize>(slot: &Slot, value: &T) -> Result<(), StorageError> {
    let bytes = codec::encode(value);
    if bytes.is_empty() {
        return Err(StorageError::Encode);
    }
    slot.replace(bytes);
    Ok(())
}

fn clear(slot: &Slot) -> Result<(), StorageError> {
    slot.borrow_mut().clear();
    Ok(())
}

const V: u16 = CURRENT_VERSION;

impl PublicStorageProvider<V> for Slots {
    type PublicError = StorageError;

    fn write_tree<G: traits::GroupId<V>, T: traits::TreeSync<V>>(
        &self,
        _: &G,
        tree: &T,
    ) -> Result<(), StorageError> {
        save(&self.tree, tree)
    }

    fn write_interim_transcript_hash<G: traits::GroupId<V>, T: traits::InterimTranscriptHash<V>>(
        &self,
        _: &G,
        hash: &T,
    ) -> Result<(), StorageError> {
        save(&self.transcript, hash)
    }

    fn write_context<G: traits::GroupId<V>, T: traits::GroupContext<V>>(
        &self,
        _: &G,
        context: &T,
    ) -> Result<(), StorageError> {
        save(&self.context, context)
    }

    fn write_confirmation_tag<G: traits::GroupId<V>, T: traits::ConfirmationTag<V>>(
        &self,
        _: &G,
        tag: &T,
    ) -> Result<(), StorageError> {
        save(&self.tag, tag)
    }

    fn queue_proposal<G: traits::GroupId<V>, R: traits::ProposalRef<V>, P: traits::QueuedProposal<V>>(
        &self,
        _: &G,
        _: &R,
        _: &P,
    ) -> Result<(), StorageError> {
        Err(StorageError::Proposal)
    }

    fn queued_proposals<G: traits::GroupId<V>, R: traits::ProposalRef<V>, P: traits::QueuedProposal<V>>(
        &self,
        _: &G,
    ) -> Result<Vec<(R, P)>, StorageError> {
        Ok(Vec::new())
    }

    fn tree<G: traits::GroupId<V>, T: traits::TreeSync<V>>(&self, _: &G) -> Result<Option<T>, StorageError> {
        load(&self.tree)
    }

    fn group_context<G: traits::GroupId<V>, T: traits::GroupContext<V>>(
        &self,
        _: &G,
    ) -> Result<Option<T>, StorageError> {
        load(&self.context)
    }

    fn interim_transcript_hash<G: traits::GroupId<V>, T: traits::InterimTranscriptHash<V>>(
        &self,
        _: &G,
    ) -> Result<Option<T>, StorageError> {
        load(&self.transcript)
    }

    fn confirmation_tag<G: traits::GroupId<V>, T: traits::ConfirmationTag<V>>(
        &self,
        _: &G,
    ) -> Result<Option<T>, StorageError> {
        load(&self.tag)
    }

    fn delete_tree<G: traits::GroupId<V>>(&self, _: &G) -> Result<(), StorageError> {
        clear(&self.tree)
    }

    fn delete_confirmation_tag<G: traits::GroupId<V>>(&self, _: &G) -> Result<(), StorageError> {
        clear(&self.tag)
    }

    fn delete_context<G: traits::GroupId<V>>(&self, _: &G) -> Result<(), StorageError> {
        clear(&self.context)
    }

    fn delete_interim_transcript_hash<G: traits::GroupId<V>>(&self, _: &G) -> Result<(), StorageError> {
        clear(&self.transcript)
    }

    fn remove_proposal<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        _: &G,
        _: &R,
    ) -> Result<(), StorageError> {
        Ok(())
    }

    fn clear_proposal_queue<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        Ok(())
    }
}

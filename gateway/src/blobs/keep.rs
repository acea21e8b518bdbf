//! Where the bytes of parts are, behind one trait with two implementations.
//!
//! Invariant: a part that the store knows has its bytes. In object storage they are put before the row,
//! under a name that holds their hash: two that put the same number at once do not touch each other's
//! bytes. The blob's row goes after everything under its name, so that no bytes are forgotten.

use super::Objects;
use crate::store::{
    Store, StoreError,
    blobs::{BlobKey, NewPart, PutPart},
};
use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Why nothing was kept, or is to be had.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Of the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Of object storage.
    #[error("object storage: {0}")]
    Objects(#[from] object_store::Error),
    /// Object storage did not answer.
    #[error("object storage did not answer in time")]
    Late,
    /// What the store knows is not in object storage, or not as it was put.
    #[error("the object of part {part} of blob {} of conversation {} {why}", .blob.blob, .blob.conversation)]
    Lost {
        /// What is wrong with it.
        why: &'static str,
        /// Which blob.
        blob: BlobKey,
        /// Which part.
        part: u32,
    },
}

impl KeepError {
    /// For the log: storage answers with pages of text.
    pub fn line(&self) -> String {
        self.to_string().split_whitespace().collect::<Vec<_>>().join(" ").chars().take(500).collect()
    }

    /// For metrics.
    pub fn label(&self) -> &'static str {
        use object_store::Error::{PermissionDenied, Unauthenticated};
        match self {
            Self::Store(_) => "store",
            Self::Objects(PermissionDenied { .. } | Unauthenticated { .. }) => "denied",
            Self::Objects(_) => "unavailable",
            Self::Late => "late",
            Self::Lost { .. } => "lost",
        }
    }
}

/// Parts of blobs.
#[async_trait]
pub trait BlobStore: std::fmt::Debug + Send + Sync {
    /// Keeps a part for good. Cancel safety: none; given up in the middle, bytes may stay that nobody knows.
    async fn put(&self, key: BlobKey, number: u32, bytes: Bytes) -> Result<PutPart, KeepError>;
    /// A part that is there.
    async fn get(&self, key: BlobKey, number: u32) -> Result<Option<Bytes>, KeepError>;
    /// Removes what is kept apart from the store; the store's own goes with the blob's rows.
    async fn remove(&self, key: BlobKey) -> Result<(), KeepError>;
}

/// Bytes are with the parts' rows.
#[derive(Debug)]
pub(super) struct InStore(pub(super) Arc<dyn Store>);

#[async_trait]
impl BlobStore for InStore {
    async fn put(&self, key: BlobKey, number: u32, bytes: Bytes) -> Result<PutPart, KeepError> {
        Ok(self.0.put_part(key, part(number, &bytes, true)).await?)
    }

    async fn get(&self, key: BlobKey, number: u32) -> Result<Option<Bytes>, KeepError> {
        Ok(self.0.part(key, number).await?.and_then(|part| part.bytes))
    }

    async fn remove(&self, _: BlobKey) -> Result<(), KeepError> {
        Ok(())
    }
}

/// Bytes are in object storage.
#[derive(Debug)]
pub(super) struct Outside {
    objects: Objects,
    store: Arc<dyn Store>,
}

impl Outside {
    pub(super) fn new(objects: Objects, store: Arc<dyn Store>) -> Self {
        Self { objects, store }
    }
}

#[async_trait]
impl BlobStore for Outside {
    async fn put(&self, key: BlobKey, number: u32, bytes: Bytes) -> Result<PutPart, KeepError> {
        let part = part(number, &bytes, false);
        if let Some(there) = self.store.part(key, number).await? {
            return Ok(if there.hash == part.hash { PutPart::Same } else { PutPart::Other });
        }
        let hash = part.hash;
        self.objects.put(key, number, &hash, bytes).await?;
        let put = self.store.put_part(key, part).await?;
        if matches!(put, PutPart::Other | PutPart::TooLarge | PutPart::NoBlob) {
            // Should this fail, the sweep finds them.
            if let Err(error) = self.objects.remove_part(key, number, &hash).await {
                tracing::warn!(error = error.line(), "bytes of a refused part stay until a sweep finds them");
            }
        }
        Ok(put)
    }

    async fn get(&self, key: BlobKey, number: u32) -> Result<Option<Bytes>, KeepError> {
        let Some(part) = self.store.part(key, number).await? else { return Ok(None) };
        let bytes = self.objects.get(key, number, &part.hash, part.size_bytes).await?;
        if <[u8; 32]>::from(Sha256::digest(&bytes)) != part.hash {
            return Err(KeepError::Lost { why: "holds other bytes", blob: key, part: number });
        }
        Ok(Some(bytes))
    }

    async fn remove(&self, key: BlobKey) -> Result<(), KeepError> {
        self.objects.remove(key).await
    }
}

fn part(number: u32, bytes: &Bytes, with_bytes: bool) -> NewPart {
    NewPart {
        number,
        hash: Sha256::digest(bytes).into(),
        size_bytes: bytes.len() as u64,
        bytes: with_bytes.then(|| bytes.clone()),
    }
}

//! Where the bytes of parts are.
//!
//! Invariant: a part that the store knows has its bytes.

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
}

/// Parts of blobs.
#[async_trait]
pub trait BlobStore: std::fmt::Debug + Send + Sync {
    /// Keeps a part for good.
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

fn part(number: u32, bytes: &Bytes, with_bytes: bool) -> NewPart {
    NewPart {
        number,
        hash: Sha256::digest(bytes).into(),
        size_bytes: bytes.len() as u64,
        bytes: with_bytes.then(|| bytes.clone()),
    }
}

//! What an operation inside a transaction can fail with: the keys' state, or the store.

use crate::store::StoreError;
use fastchat_e2ee::conversation::ConversationError;

/// An operation of `e2ee` failed, or the store below it.
#[derive(Debug)]
pub(super) enum OpError {
    /// Nothing was written; the operation is not possible.
    Mls(ConversationError),
    /// The store failed: fatal.
    Store(StoreError),
}

impl From<ConversationError> for OpError {
    fn from(error: ConversationError) -> Self {
        match error {
            ConversationError::Vault(error) => Self::Store(error.into()),
            other => Self::Mls(other),
        }
    }
}

impl From<StoreError> for OpError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

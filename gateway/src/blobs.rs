//! Files: where the bytes of blobs are, and who may transfer them now.
//!
//! - [`http`] serves parts; every request is judged by one function (`store::blobs::Transfer::may`).
//! - [`keep`] hides where bytes are: with their rows, or in object storage ([`objects`], [`strays`]).
//! - Transfers have places of their own, so that they keep nobody from connecting, and an account has few.

pub mod http;
mod keep;
mod objects;
mod strays;

pub use keep::{BlobStore, KeepError};
pub use objects::{DEADLINE, Objects, Operation};
pub(crate) use strays::Strays;

use crate::{
    limits::{MAX_TRANSFERS, MAX_TRANSFERS_OF_ACCOUNT},
    store::{Store, blobs::Standing},
};
use fastchat_protocol::AccountId;
use keep::{InStore, Outside};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Semaphore;

/// What transfers share.
#[derive(Debug)]
pub struct BlobState {
    /// Places for connections that transfer.
    pub places: Arc<Semaphore>,
    /// Parts that are being put: a client that goes away does not end it, and so frees no place.
    pub puts: Arc<Semaphore>,
    /// Where bytes go, if not into the store.
    pub objects: Option<Objects>,
    inside: Arc<dyn BlobStore>,
    outside: Option<Arc<dyn BlobStore>>,
    busy: Arc<Mutex<HashMap<AccountId, u32>>>,
}

impl BlobState {
    /// Bytes go into object storage if there is one, or else into the store.
    pub fn new(store: Arc<dyn Store>, objects: Option<Objects>) -> Self {
        let outside = objects.clone().map(|objects| {
            let outside: Arc<dyn BlobStore> = Arc::new(Outside::new(objects, Arc::clone(&store)));
            outside
        });
        Self {
            places: Arc::new(Semaphore::new(MAX_TRANSFERS)),
            puts: Arc::new(Semaphore::new(MAX_TRANSFERS)),
            objects,
            inside: Arc::new(InStore(store)),
            outside,
            busy: Arc::default(),
        }
    }

    /// Where the bytes of a blob are; `None` if they are where this gateway does not look.
    pub fn keeper(&self, standing: &Standing) -> Option<Arc<dyn BlobStore>> {
        self.keeper_of(standing.outside)
    }

    /// See [`Self::keeper`].
    pub fn keeper_of(&self, outside: bool) -> Option<Arc<dyn BlobStore>> {
        if outside { self.outside.clone() } else { Some(Arc::clone(&self.inside)) }
    }

    /// Where the bytes of a new blob go.
    pub fn begins_outside(&self) -> bool {
        self.outside.is_some()
    }

    /// Connections that transfer now.
    pub fn transfers(&self) -> usize {
        MAX_TRANSFERS.saturating_sub(self.places.available_permits())
    }

    /// One more part of an account is on its way, until the guard goes; `None` if there are too many.
    fn busy(&self, account: AccountId) -> Option<Busy> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let count = busy.entry(account).or_default();
        if *count >= MAX_TRANSFERS_OF_ACCOUNT {
            return None;
        }
        *count += 1;
        Some(Busy { busy: Arc::clone(&self.busy), account })
    }
}

/// A part is on its way.
struct Busy {
    busy: Arc<Mutex<HashMap<AccountId, u32>>>,
    account: AccountId,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = busy.get_mut(&self.account) {
            *count -= 1;
            if *count == 0 {
                busy.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::Sqlite;

    #[tokio::test]
    async fn an_account_has_few_transfers_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Sqlite::open(&folder.path().join("store.db")).await.expect("it opens");
        let state = BlobState::new(Arc::new(store), None);
        let (one, other) = (AccountId::new([1; 16]), AccountId::new([2; 16]));
        let mut held: Vec<_> = (0..MAX_TRANSFERS_OF_ACCOUNT).map(|_| state.busy(one)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(state.busy(one).is_none());
        assert!(state.busy(other).is_some());
        held.pop();
        assert!(state.busy(one).is_some());
        drop(held);
        assert!(state.busy.lock().expect("nobody panics").is_empty());
    }
}

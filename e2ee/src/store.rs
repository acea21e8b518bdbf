//! Where secrets rest: a key-value store that sees only sealed bytes.
//!
//! The client implements [`KeyValue`] over a transaction of its database. A [`Vault`] seals every
//! value (AES-256-GCM, bound to its place) and hides every lookup key (HMAC). OpenMLS's state goes
//! the same way, through [`provider`](self), so ratchet steps, plaintext, cursor and outbox share one
//! transaction.

mod overlay;
pub(crate) mod provider;

use crate::sealed::{SealError, StoreKey};
use fastchat_protocol::codec;
use serde::{Serialize, de::DeserializeOwned};
use std::{cell::RefCell, collections::HashMap, convert::Infallible};
use zeroize::Zeroizing;

pub(crate) use overlay::{Overlay, Writes};

/// A table of sealed values by 32-byte keys. Takes `&self`: a database handle has its own interior.
pub trait KeyValue {
    /// What can go wrong below.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The value at `key`.
    fn get(&self, key: &[u8; 32]) -> Result<Option<Vec<u8>>, Self::Error>;
    /// Writes, replacing what was there.
    fn put(&self, key: &[u8; 32], value: &[u8]) -> Result<(), Self::Error>;
    /// Deletes; not an error if nothing was there.
    fn delete(&self, key: &[u8; 32]) -> Result<(), Self::Error>;
}

/// Why the vault did not give or take a value.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The database.
    #[error("the local store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A value does not open.
    #[error("a value in the local store cannot be opened")]
    Sealed(#[from] SealError),
    /// A value opened, but is not what was expected.
    #[error("a value in the local store cannot be read")]
    Decode(#[from] codec::DecodeError),
    /// A value that CBOR cannot say.
    #[error("a value cannot be encoded for the local store")]
    Encode,
}

/// A store and the key to it, for the length of one transaction.
pub struct Vault<'a, K: KeyValue> {
    kv: &'a K,
    key: &'a StoreKey,
}

impl<'a, K: KeyValue> Vault<'a, K> {
    /// Joins the two.
    pub fn new(kv: &'a K, key: &'a StoreKey) -> Self {
        Self { kv, key }
    }

    /// The key, for values that the caller keeps elsewhere.
    pub fn key(&self) -> &'a StoreKey {
        self.key
    }

    pub(crate) fn store(&self) -> &'a K {
        self.kv
    }

    /// The value at (label, key), opened.
    pub fn get(&self, label: &str, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, VaultError> {
        let place = self.key.index(label, key);
        let sealed = self.kv.get(&place).map_err(|e| VaultError::Store(e.into()))?;
        Ok(sealed.map(|sealed| self.key.open_value(&place, &sealed)).transpose()?)
    }

    /// Seals a value and writes it at (label, key).
    pub fn put(&self, label: &str, key: &[u8], value: &[u8]) -> Result<(), VaultError> {
        let place = self.key.index(label, key);
        let sealed = self.key.seal_value(&place, value)?;
        self.kv.put(&place, &sealed).map_err(|e| VaultError::Store(e.into()))
    }

    /// Deletes what is at (label, key).
    pub fn delete(&self, label: &str, key: &[u8]) -> Result<(), VaultError> {
        self.kv.delete(&self.key.index(label, key)).map_err(|e| VaultError::Store(e.into()))
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, label: &str, key: &[u8]) -> Result<Option<T>, VaultError> {
        let Some(bytes) = self.get(label, key)? else { return Ok(None) };
        Ok(Some(codec::decode_local(&bytes)?))
    }

    pub(crate) fn write<T: Serialize + ?Sized>(
        &self,
        label: &str,
        key: &[u8],
        value: &T,
    ) -> Result<(), VaultError> {
        let bytes = Zeroizing::new(codec::encode(value));
        if bytes.is_empty() {
            return Err(VaultError::Encode);
        }
        self.put(label, key, &bytes)
    }
}

impl<K: KeyValue> Clone for Vault<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: KeyValue> Copy for Vault<'_, K> {}

impl<K: KeyValue> std::fmt::Debug for Vault<'_, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(..)")
    }
}

/// A store in memory, for tests and the laboratory.
#[derive(Debug, Default, Clone)]
pub struct MemoryStore(RefCell<HashMap<[u8; 32], Vec<u8>>>);

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a crash would leave if nothing after this moment were committed.
    pub fn snapshot(&self) -> Self {
        self.clone()
    }

    /// Goes back to a snapshot: the crash.
    pub fn restore(&self, snapshot: &Self) {
        self.0.replace(snapshot.0.borrow().clone());
    }

    /// Every byte that is stored, to look for what should not be there.
    pub fn dump(&self) -> Vec<u8> {
        let values = self.0.borrow();
        values.iter().flat_map(|(key, value)| key.iter().chain(value).copied()).collect()
    }
}

impl KeyValue for MemoryStore {
    type Error = Infallible;

    fn get(&self, key: &[u8; 32]) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.borrow().get(key).cloned())
    }

    fn put(&self, key: &[u8; 32], value: &[u8]) -> Result<(), Infallible> {
        self.0.borrow_mut().insert(*key, value.to_vec());
        Ok(())
    }

    fn delete(&self, key: &[u8; 32]) -> Result<(), Infallible> {
        self.0.borrow_mut().remove(key);
        Ok(())
    }
}

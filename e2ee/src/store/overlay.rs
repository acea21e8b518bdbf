//! Writes that are held back, so that an operation writes all of its state or none.
//!
//! The same thing makes an external commit wait: OpenMLS merges those at once, but whether the
//! gateway takes the commit is known only later, so the new state is kept aside until then.

use super::{KeyValue, Vault, VaultError};
use crate::sealed::StoreKey;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::{cell::RefCell, collections::BTreeMap};

/// Sealed values to write (or, without a value, to delete), by their lookup keys.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Writes(Vec<(ByteBuf, Option<ByteBuf>)>);

/// A store that remembers writes instead of making them.
#[derive(Debug)]
pub(crate) struct Overlay<'a, K: KeyValue> {
    base: &'a K,
    writes: RefCell<BTreeMap<[u8; 32], Option<Vec<u8>>>>,
}

impl<'a, K: KeyValue> Overlay<'a, K> {
    pub(crate) fn new(vault: &Vault<'a, K>) -> Self {
        Self { base: vault.store(), writes: RefCell::default() }
    }

    pub(crate) fn vault<'b>(&'b self, key: &'b StoreKey) -> Vault<'b, Self> {
        Vault::new(self, key)
    }

    /// What was written, in place of writing it.
    pub(crate) fn into_writes(self) -> Writes {
        let writes = self.writes.into_inner().into_iter();
        Writes(writes.map(|(key, value)| (ByteBuf::from(key.to_vec()), value.map(ByteBuf::from))).collect())
    }
}

impl Writes {
    /// Makes the writes.
    pub(crate) fn apply<K: KeyValue>(self, vault: &Vault<'_, K>) -> Result<(), VaultError> {
        for (key, value) in self.0 {
            let Ok(key) = <[u8; 32]>::try_from(key.into_vec()) else { continue };
            match value {
                Some(value) => vault.store().put(&key, &value),
                None => vault.store().delete(&key),
            }
            .map_err(|e| VaultError::Store(e.into()))?;
        }
        Ok(())
    }
}

impl<K: KeyValue> KeyValue for Overlay<'_, K> {
    type Error = K::Error;

    fn get(&self, key: &[u8; 32]) -> Result<Option<Vec<u8>>, K::Error> {
        match self.writes.borrow().get(key) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(key),
        }
    }

    fn put(&self, key: &[u8; 32], value: &[u8]) -> Result<(), K::Error> {
        self.writes.borrow_mut().insert(*key, Some(value.to_vec()));
        Ok(())
    }

    fn delete(&self, key: &[u8; 32]) -> Result<(), K::Error> {
        self.writes.borrow_mut().insert(*key, None);
        Ok(())
    }
}

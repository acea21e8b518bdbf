//! bcrypt of auth keys: off the reactor, few at a time, in the order of arrival.
//!
//! The client has already made 43 characters of the password (Argon2id). They are keyed with the
//! deployment's pepper before bcrypt, so that a copy of the database alone allows no guessing.

use crate::limits::{BCRYPT_COST, MAX_WAITING_HASHES};
use fastchat_protocol::{client::AuthKey, limits::AUTH_KEY_CHARS};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::sync::{Arc, LazyLock};
use tokio::sync::Semaphore;

/// The deployment's secret that is not in the database.
#[derive(Clone)]
pub struct Pepper([u8; 32]);

impl Pepper {
    /// Wraps 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for Pepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pepper(..)")
    }
}

/// Why a password was not hashed or checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too many wait already.
    #[error("too many logins at once")]
    Busy,
    /// Not an auth key: another length or alphabet. What a client of ours never sends.
    #[error("the auth key is not {AUTH_KEY_CHARS} characters of base64url")]
    Malformed,
    /// bcrypt itself failed, or what is stored is no hash.
    #[error("a password could not be hashed")]
    Failed,
}

/// A fair pool of hashing threads.
#[derive(Debug, Clone)]
pub struct Passwords {
    pepper: Pepper,
    /// Places in the queue and at work.
    places: Arc<Semaphore>,
    /// Places at work. Tokio's semaphore is fair: first come, first served.
    turns: Arc<Semaphore>,
}

/// What an unknown name is checked against, so that it takes as long as a known one.
static NOBODY: LazyLock<String> = LazyLock::new(|| bcrypt::hash([0; 32], BCRYPT_COST).unwrap_or_default());

impl Passwords {
    /// `threads` hashes run at a time.
    pub fn new(pepper: Pepper, threads: usize) -> Self {
        let places = Arc::new(Semaphore::new(threads + MAX_WAITING_HASHES));
        Self { pepper, places, turns: Arc::new(Semaphore::new(threads)) }
    }

    /// Hashes an auth key for the store.
    pub async fn hash(&self, key: &AuthKey) -> Result<String, PasswordError> {
        let peppered = self.pepper(key)?;
        self.run(move || {
            bcrypt::non_truncating_hash(&peppered, BCRYPT_COST).map_err(|_| PasswordError::Failed)
        })
        .await
    }

    /// Checks an auth key against what the store has. `None` takes as long and is false.
    pub async fn check(&self, key: &AuthKey, hash: Option<String>) -> Result<bool, PasswordError> {
        let peppered = self.pepper(key)?;
        self.run(move || {
            let known = hash.is_some();
            let hash = hash.unwrap_or_else(|| NOBODY.clone());
            let same = bcrypt::non_truncating_verify(&peppered, &hash).map_err(|_| PasswordError::Failed)?;
            Ok(known && same)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let _place = self.places.try_acquire().map_err(|_| PasswordError::Busy)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| PasswordError::Busy)?;
        let work = move || {
            // Held by the thread: a caller that goes away does not make room for one more.
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| PasswordError::Failed)?
    }

    fn pepper(&self, key: &AuthKey) -> Result<String, PasswordError> {
        let text = key.expose();
        let alphabet = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        if text.len() != AUTH_KEY_CHARS || !text.bytes().all(alphabet) {
            return Err(PasswordError::Malformed);
        }
        let mut mac =
            <Hmac<Sha256> as KeyInit>::new_from_slice(&self.pepper.0).map_err(|_| PasswordError::Failed)?;
        mac.update(text.as_bytes());
        // 64 characters: below the 72 bytes after which bcrypt would cut.
        Ok(hex::encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(c: char) -> AuthKey {
        AuthKey::new(c.to_string().repeat(AUTH_KEY_CHARS))
    }

    #[tokio::test]
    async fn a_hash_fits_its_key_its_pepper_and_nothing_else() {
        let passwords = Passwords::new(Pepper::new([1; 32]), 1);
        let hash = passwords.hash(&key('a')).await.expect("a hash");
        assert_eq!(passwords.check(&key('a'), Some(hash.clone())).await, Ok(true));
        assert_eq!(passwords.check(&key('b'), Some(hash.clone())).await, Ok(false));
        assert_eq!(passwords.check(&key('a'), None).await, Ok(false));
        let elsewhere = Passwords::new(Pepper::new([2; 32]), 1);
        assert_eq!(elsewhere.check(&key('a'), Some(hash)).await, Ok(false));
        assert_eq!(passwords.check(&key('a'), Some("no hash: ü".into())).await, Err(PasswordError::Failed));
    }

    #[tokio::test]
    async fn what_is_no_auth_key_costs_no_hashing() {
        let passwords = Passwords::new(Pepper::new([1; 32]), 1);
        for text in ["", "short", &"x".repeat(100_000), &"ü".repeat(22), &" ".repeat(AUTH_KEY_CHARS)] {
            assert_eq!(passwords.hash(&AuthKey::new(text)).await, Err(PasswordError::Malformed));
        }
    }
}

//! From a password to two independent keys: one that the server sees, one that it never does.
//!
//! `Argon2id(password, salt = SHA-256(label, deployment, name))`, then HKDF-SHA256 once for each key.
//! The salt binds to the deployment's configured name, not to an address, so that a server cannot be
//! mistaken for another by moving, and to the account's name, so that equal passwords differ.

use crate::sealed::UnlockKey;
use argon2::{Algorithm, Argon2, Params, Version};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::Zeroizing;

const SALT_LABEL: &[u8] = b"fastchat/login";
const AUTH_LABEL: &[u8] = b"fastchat/v1/auth-key";
const UNLOCK_LABEL: &[u8] = b"fastchat/v1/unlock-key";

/// What a guess at the password costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
}

impl Cost {
    /// What every deployment uses: 64 MiB, three passes, about 0.3 s.
    pub const STANDARD: Self = Self { memory_kib: 64 * 1024, passes: 3 };
    /// For tests that derive many keys. Protects nothing.
    pub const TEST: Self = Self { memory_kib: 64, passes: 1 };
}

/// The two keys of a password.
pub struct PasswordKeys {
    /// 43 characters of base64url: what the server gets, and stores the bcrypt of.
    pub auth_key: Zeroizing<String>,
    /// What opens the local store.
    pub unlock_key: UnlockKey,
}

/// Argon2 refused its parameters (or had no memory).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the password cannot be turned into keys: {0}")]
pub struct PasswordError(String);

/// Derives both keys. Slow on purpose: run it where it may block.
pub fn derive(
    password: &str,
    deployment: &str,
    name: &str,
    cost: Cost,
) -> Result<PasswordKeys, PasswordError> {
    let error = |e: &dyn fmt::Display| PasswordError(e.to_string());
    let params = Params::new(cost.memory_kib, cost.passes, 1, Some(32)).map_err(|e| error(&e))?;
    let mut root = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), &salt(deployment, name), root.as_mut())
        .map_err(|e| error(&e))?;
    let hkdf = Hkdf::<Sha256>::new(None, root.as_ref());
    let expand = |label| {
        let mut key = Zeroizing::new([0; 32]);
        hkdf.expand(label, key.as_mut()).map_err(|e| error(&e)).map(|()| key)
    };
    let auth_key = base64url(expand(AUTH_LABEL)?.as_ref());
    Ok(PasswordKeys { auth_key, unlock_key: UnlockKey::new(*expand(UNLOCK_LABEL)?) })
}

fn salt(deployment: &str, name: &str) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(SALT_LABEL);
    for text in [deployment, name] {
        // A length before each text: "ab" + "c" and "a" + "bc" must differ.
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    hash.finalize().into()
}

/// Base64url without padding (RFC 4648, section 5), into memory that is wiped.
pub(crate) fn base64url(bytes: &[u8]) -> Zeroizing<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = Zeroizing::new(String::with_capacity(bytes.len().div_ceil(3) * 4));
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0u32, |sum, byte| (sum << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..=chunk.len() {
            let six = (group >> (18 - 6 * position)) & 0x3f;
            text.push(ALPHABET.get(six as usize).copied().map_or('A', char::from));
        }
    }
    text
}

impl fmt::Debug for PasswordKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordKeys(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_of_rfc_4648() {
        for (plain, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("fooba", "Zm9vYmE")]
        {
            assert_eq!(*base64url(plain.as_bytes()), text);
        }
        assert_eq!(*base64url(&[0xfb, 0xff, 0xbf]), "-_-_");
    }

    #[test]
    fn every_input_matters_and_the_two_keys_are_unrelated() {
        let keys = |password, deployment, name| derive(password, deployment, name, Cost::TEST).unwrap();
        let auth = |p, d, n| keys(p, d, n).auth_key;
        let base = auth("secret", "chat", "ada");
        assert_eq!(base.len(), 43);
        assert_eq!(base, auth("secret", "chat", "ada"));
        for other in
            [auth("Secret", "chat", "ada"), auth("secret", "chata", "da"), auth("secret", "chat", "bob")]
        {
            assert_ne!(base, other);
        }
        assert_ne!(*base, *base64url(keys("secret", "chat", "ada").unlock_key.expose()));
        assert_eq!(format!("{:?}", keys("secret", "chat", "ada")), "PasswordKeys(..)");
    }

    /// The keys may not move: every account's password depends on them. Computed by another
    /// implementation (Python's cryptography).
    #[test]
    fn golden_auth_key() {
        let keys = derive("correct horse", "example", "ada", Cost::TEST).unwrap();
        assert_eq!(*keys.auth_key, "_4qV8_U4hR1A4zz5v6DgZvuPmSInpcLPscVwV6CJZR4");
    }
}

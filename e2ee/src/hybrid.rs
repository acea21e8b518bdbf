//! Public-key encryption to ML-KEM-768 and X25519 together: HPKE (RFC 9180) as the post-quantum suite
//! uses it, so that no other construction has to be trusted.
//!
//! A sealed value is the KEM's output (always [`KEM_BYTES`]) and the ciphertext.

use fastchat_delivery::Suite;
use openmls_rust_crypto::RustCrypto;
use openmls_traits::{
    crypto::OpenMlsCrypto,
    types::{CryptoError, HpkeCiphertext, HpkeConfig},
};
use zeroize::Zeroizing;

/// Bytes of a public key.
pub(crate) const PUBLIC_BYTES: usize = 1216;
/// Bytes of what the KEM puts in front of a ciphertext.
pub(crate) const KEM_BYTES: usize = 1120;
/// How much longer a sealed value is than the plain one.
pub(crate) const OVERHEAD_BYTES: usize = KEM_BYTES + 16;

/// A key pair; the private half is never stored, only the seed it comes from.
pub(crate) struct KeyPair {
    pub(crate) public: Vec<u8>,
    private: Zeroizing<Vec<u8>>,
}

impl KeyPair {
    /// The key pair of 32 secret random bytes.
    pub(crate) fn derive(seed: &[u8; 32]) -> Result<Self, CryptoError> {
        let pair = RustCrypto::default().derive_hpke_keypair(config(), seed)?;
        Ok(Self { public: pair.public, private: Zeroizing::new(pair.private.to_vec()) })
    }

    /// The reverse of [`seal`], for the same `info`.
    pub(crate) fn open(&self, info: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let (kem, ciphertext) = sealed.split_at_checked(KEM_BYTES).ok_or(CryptoError::HpkeDecryptionError)?;
        let input =
            HpkeCiphertext { kem_output: kem.to_vec().into(), ciphertext: ciphertext.to_vec().into() };
        RustCrypto::default().hpke_open(config(), &input, &self.private, info, b"").map(Zeroizing::new)
    }
}

/// Seals for the owner of a public key. `info` says what for: it must be the same at opening.
pub(crate) fn seal(public: &[u8], info: &[u8], plain: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let sealed = RustCrypto::default().hpke_seal(config(), public, info, b"", plain)?;
    let sealed = [sealed.kem_output.as_slice(), sealed.ciphertext.as_slice()].concat();
    // Lengths are fixed, so that the format needs none inside.
    if sealed.len() == plain.len() + OVERHEAD_BYTES { Ok(sealed) } else { Err(CryptoError::InvalidLength) }
}

fn config() -> HpkeConfig {
    Suite::PostQuantum.ciphersuite().hpke_config()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_for_its_key_and_its_purpose_only() {
        let pair = KeyPair::derive(&[1; 32]).unwrap();
        assert_eq!(pair.public.len(), PUBLIC_BYTES);
        assert_eq!(pair.public, KeyPair::derive(&[1; 32]).unwrap().public);
        let sealed = seal(&pair.public, b"info", b"plain").unwrap();
        assert_eq!(sealed.len(), 5 + OVERHEAD_BYTES);
        assert_eq!(**pair.open(b"info", &sealed).unwrap(), *b"plain");
        assert!(pair.open(b"other", &sealed).is_err());
        assert!(KeyPair::derive(&[2; 32]).unwrap().open(b"info", &sealed).is_err());
        for at in (0..sealed.len()).step_by(13).chain([sealed.len() - 1]) {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(pair.open(b"info", &altered).is_err(), "byte {at}");
        }
        for length in [0, KEM_BYTES - 1, KEM_BYTES, sealed.len() - 1] {
            assert!(pair.open(b"info", &sealed[..length]).is_err(), "{length} bytes");
        }
        assert!(seal(&pair.public[1..], b"info", b"plain").is_err());
    }
}

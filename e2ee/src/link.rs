//! Linking a device by a code that the new device shows and a person types on the old one.
//!
//! - The code (100 random bits) says in which slot the two meet and seals what they leave there: a
//!   server that carries it can neither read nor replace it.
//! - The new device leaves a [`LinkOffer`]: its id, its public key, and an ephemeral hybrid key. The
//!   old device answers with a grant that only that key and the code together open: whoever reads
//!   the code later cannot open what was recorded.
//! - Both show six digits of the offer ([`confirmation`]), for the case that somebody else saw the code
//!   and put an offer of his own into the slot.

use crate::{
    crockford,
    hybrid::{self, KeyPair},
    password::Cost,
    recovery::derive,
    sealed::{self, SealError},
};
use argon2::{Algorithm, Argon2, Params, Version};
use fastchat_delivery::ManifestDevice;
use fastchat_protocol::{DeviceId, SlotId, codec};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const VERSION: u8 = 1;
const CHARACTERS: usize = 20;
const GROUP: usize = 5;
const SLOT_LABEL: &[u8] = b"fastchat/v1/link/slot";
const OFFER_LABEL: &[u8] = b"fastchat/v1/link/offer";
const GRANT_LABEL: &[u8] = b"fastchat/v1/link/grant";
const HPKE_LABEL: &[u8] = b"fastchat/v1/link/hpke";
const CONFIRM_LABEL: &[u8] = b"fastchat/v1/link/confirmation";
/// Limit: bytes of a sealed offer; ours have about 1.4 KB.
const MAX_OFFER: usize = 4 * 1024;

/// What the new device shows: four groups of five characters, 100 bits.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct LinkCode([u8; 13]);

/// What the new device says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkOffer {
    /// Its entry for the manifest.
    pub device: ManifestDevice,
    public: Vec<u8>,
}

/// What the new device keeps until the grant comes.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct LinkSecret {
    seed: [u8; 32],
    /// SHA-256 of the offer: a grant answers one offer.
    offer: [u8; 32],
}

/// Why linking stops.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Not 20 characters of the alphabet.
    #[error("a linking code has 20 letters and digits")]
    Code,
    /// Another code, or altered bytes.
    #[error("the linking code does not open what the other device left")]
    Sealed(#[from] SealError),
    /// It opens, but is not what it should be.
    #[error("what the other device left cannot be read")]
    Form,
    /// The grant is for another offer, or the hybrid key cannot be used.
    #[error("the other device answered another offer")]
    Key,
    /// Argon2 had no memory.
    #[error("the confirmation cannot be computed: {0}")]
    Confirmation(String),
}

#[derive(Serialize, Deserialize)]
struct Body<'a> {
    v: u8,
    d: DeviceId,
    #[serde(with = "serde_bytes")]
    k: [u8; 32],
    #[serde(with = "serde_bytes", borrow)]
    p: &'a [u8],
}

impl LinkCode {
    /// A new code, for one attempt.
    pub fn generate<R: CryptoRng>(rng: &mut R) -> Self {
        let mut bytes = [0; 13];
        rng.fill_bytes(&mut bytes);
        // 100 bits are shown, so 100 bits count.
        let [.., last] = &mut bytes;
        *last &= 0xf0;
        Self(bytes)
    }

    /// Where the two devices meet: the offer is part 0, the grant begins at part 1.
    pub fn slot(&self) -> SlotId {
        let mut slot = [0; 16];
        slot.iter_mut().zip(*self.key(SLOT_LABEL)).for_each(|(to, from)| *to = from);
        SlotId::new(slot)
    }

    fn key(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
        derive(&self.0, label)
    }
}

impl LinkOffer {
    /// A new device's offer, and what it needs to open the answer.
    pub fn generate<R: CryptoRng>(
        rng: &mut R,
        device: ManifestDevice,
    ) -> Result<(Self, LinkSecret), LinkError> {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        let public = KeyPair::derive(&seed).map_err(|_| LinkError::Key)?.public;
        let offer = Self { device, public };
        let secret = LinkSecret { seed: *seed, offer: offer.hash() };
        Ok((offer, secret))
    }

    /// What goes into the slot.
    pub fn seal(&self, code: &LinkCode) -> Result<Vec<u8>, LinkError> {
        Ok(sealed::seal(&code.key(OFFER_LABEL), OFFER_LABEL, &self.encode())?)
    }

    /// Reads what the new device left.
    pub fn open(code: &LinkCode, sealed: &[u8]) -> Result<Self, LinkError> {
        if sealed.len() > MAX_OFFER {
            return Err(LinkError::Form);
        }
        let plain = sealed::open(&code.key(OFFER_LABEL), OFFER_LABEL, sealed)?;
        let Body { v, d, k, p } = codec::decode(&plain).map_err(|_| LinkError::Form)?;
        if v != VERSION || p.len() != hybrid::PUBLIC_BYTES {
            return Err(LinkError::Form);
        }
        Ok(Self { device: ManifestDevice { id: d, key: k }, public: p.to_vec() })
    }

    fn encode(&self) -> Vec<u8> {
        let ManifestDevice { id, key } = self.device;
        codec::encode(&Body { v: VERSION, d: id, k: key, p: &self.public })
    }

    fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.encode()).into()
    }
}

/// Seals the old device's answer: only the offer's device opens it, and only with the code.
pub fn seal_grant(code: &LinkCode, offer: &LinkOffer, plaintext: &[u8]) -> Result<Vec<u8>, LinkError> {
    let inner =
        hybrid::seal(&offer.public, &hpke_info(&offer.hash()), plaintext).map_err(|_| LinkError::Key)?;
    Ok(sealed::seal(&code.key(GRANT_LABEL), GRANT_LABEL, &inner)?)
}

/// The reverse of [`seal_grant`].
pub fn open_grant(
    code: &LinkCode,
    secret: &LinkSecret,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, LinkError> {
    let inner = sealed::open(&code.key(GRANT_LABEL), GRANT_LABEL, sealed)?;
    let pair = KeyPair::derive(&secret.seed).map_err(|_| LinkError::Key)?;
    pair.open(&hpke_info(&secret.offer), &inner).map_err(|_| LinkError::Key)
}

fn hpke_info(offer: &[u8; 32]) -> Vec<u8> {
    [HPKE_LABEL, offer].concat()
}

/// Six digits of the sealed offer, the same on both devices if they speak of the same one.
///
/// Stretched by Argon2 (64 MiB, three passes, about 0.3 s: run it where it may block). Without that,
/// who saw the code could try a million offers until one has the digits of the true one; with it that
/// takes about eighty hours of one core's work, and an attempt at linking lives for ten minutes.
pub fn confirmation(code: &LinkCode, offer: &[u8]) -> Result<String, LinkError> {
    let error = |e: &dyn fmt::Display| LinkError::Confirmation(e.to_string());
    let Cost { memory_kib, passes } = Cost::STANDARD;
    let params = Params::new(memory_kib, passes, 1, Some(32)).map_err(|e| error(&e))?;
    let mut hash = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(&Sha256::digest(offer), code.key(CONFIRM_LABEL).as_ref(), &mut hash)
        .map_err(|e| error(&e))?;
    let number = hash.iter().take(8).fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
    Ok(format!("{:06}", number % 1_000_000))
}

impl fmt::Display for LinkCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crockford::write(&self.0, CHARACTERS, GROUP))
    }
}

impl FromStr for LinkCode {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        crockford::read(text, CHARACTERS).map(|bytes| Self(*bytes)).ok_or(LinkError::Code)
    }
}

impl fmt::Debug for LinkCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkCode(..)")
    }
}

impl fmt::Debug for LinkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkSecret(..)")
    }
}

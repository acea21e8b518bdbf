//! Sealed archives: history for a linked device, and the history backup.
//!
//! - Each archive is sealed under an [`ArchiveKey`] in parts ([`seal_part`]); a part says its number and
//!   whether it is the last, and both are authenticated. An [`ArchiveReader`] takes them in order and
//!   knows whether the end was reached.
//! - The key of a backup is wrapped for the account's [`BackupPublic`] key: one share by RSA-OAEP, one by
//!   the hybrid KEM, and both are needed. RSA alone could be recorded now and opened by a quantum
//!   computer later.
//!
//! A part is `1, last` and a sealed value (`1`, nonce of 12 bytes, AES-256-GCM). The nonce is random and not the part's number: an
//! archive may be sealed again under its id after a crash, and a nonce may never come twice.

use crate::{
    hybrid,
    identity::{BackupPublic, Identity},
    recovery::derive,
    sealed::{self, SealError},
};
use rand::CryptoRng;
use rsa::{Oaep, RsaPublicKey, pkcs8::DecodePublicKey};
use sha2::Sha256;
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const VERSION: u8 = 1;
const RSA_BYTES: usize = fastchat_delivery::manifest::RSA_BITS as usize / 8;
const OAEP_LABEL: &[u8] = b"fastchat/v1/archive/rsa";
const HYBRID_LABEL: &[u8] = b"fastchat/v1/archive/hybrid";
const WRAP_LABEL: &[u8] = b"fastchat/v1/archive/wrap";
const PARTS_LABEL: &[u8] = b"fastchat/v1/archive/parts";
/// Bytes of a wrapped key: version, RSA share, hybrid share, sealed key.
pub const WRAPPED_BYTES: usize = 1 + RSA_BYTES + 32 + hybrid::OVERHEAD_BYTES + 61;
/// How much longer a sealed part is than its plaintext.
pub const PART_OVERHEAD_BYTES: usize = 31;

/// What opens one archive, or all backups of one series.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ArchiveKey([u8; 32]);

/// Why an archive or its key stays closed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Another length or version.
    #[error("this is not a part of an archive, or of a newer version")]
    Form,
    /// Wrong key, another archive, another place in it, or altered bytes.
    #[error("a part of the archive cannot be opened")]
    Sealed(#[from] SealError),
    /// A share of a wrapped key does not open: it is for another account, or was altered.
    #[error("the archive's key is not for this account, or was altered")]
    Share,
    /// A public key cannot be used.
    #[error("the backup key cannot be used")]
    Key,
    /// The last part never came.
    #[error("the archive is not whole: its end is missing")]
    Truncated,
    /// There is something behind the last part.
    #[error("the archive goes on behind its end")]
    Trailing,
}

impl ArchiveKey {
    /// A new key.
    pub fn generate<R: CryptoRng>(rng: &mut R) -> Self {
        let mut key = [0; 32];
        rng.fill_bytes(&mut key);
        Self(key)
    }

    /// The key as [`expose`](Self::expose) gave it.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }

    /// The bytes, to be sealed into a grant or into the local store.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Wraps the key for an account: [`WRAPPED_BYTES`] bytes.
    pub fn wrap<R: CryptoRng>(&self, rng: &mut R, public: &BackupPublic) -> Result<Vec<u8>, ArchiveError> {
        let rsa = RsaPublicKey::from_public_key_der(&public.rsa).map_err(|_| ArchiveError::Key)?;
        let mut shares = Zeroizing::new([0; 64]);
        rng.fill_bytes(shares.as_mut());
        let (one, other) = shares.split_at(32);
        let first = rsa
            .encrypt(rng, Oaep::<Sha256>::new_with_label(OAEP_LABEL), one)
            .map_err(|_| ArchiveError::Key)?;
        let second = hybrid::seal(&public.hybrid, HYBRID_LABEL, other).map_err(|_| ArchiveError::Key)?;
        let head = [&[VERSION], first.as_slice(), &second].concat();
        let sealed = sealed::seal(&wrap_key(&shares), &head, &self.0)?;
        Ok([head, sealed].concat())
    }

    /// The reverse of [`wrap`](Self::wrap). `rng` blinds the private RSA operation.
    pub fn unwrap<R: CryptoRng>(
        rng: &mut R,
        identity: &Identity,
        wrapped: &[u8],
    ) -> Result<Self, ArchiveError> {
        if wrapped.len() != WRAPPED_BYTES || wrapped.first() != Some(&VERSION) {
            return Err(ArchiveError::Form);
        }
        let (head, sealed) = wrapped.split_at(wrapped.len() - 61);
        let (first, second) =
            head.get(1..).and_then(|shares| shares.split_at_checked(RSA_BYTES)).ok_or(ArchiveError::Form)?;
        let shares = identity.open_shares(rng, (OAEP_LABEL, first), (HYBRID_LABEL, second));
        let shares = shares.ok_or(ArchiveError::Share)?;
        let key = sealed::open(&wrap_key(&shares), head, sealed)?;
        key.as_slice().try_into().map(Self).map_err(|_| ArchiveError::Form)
    }

    fn parts(&self, archive: &[u8; 16]) -> Zeroizing<[u8; 32]> {
        derive(&self.0, &[PARTS_LABEL, archive].concat())
    }
}

/// Both shares give the key; either alone gives nothing.
fn wrap_key(shares: &[u8; 64]) -> Zeroizing<[u8; 32]> {
    derive(shares, WRAP_LABEL)
}

fn place(part: u32, last: bool) -> [u8; 6] {
    let [a, b, c, d] = part.to_be_bytes();
    [VERSION, u8::from(last), a, b, c, d]
}

/// Seals part number `part` (0, 1, 2, ...) of an archive. `last` is true for the last one alone; an
/// archive has at least one part. The result is [`PART_OVERHEAD_BYTES`] longer than `plaintext`.
pub fn seal_part(
    key: &ArchiveKey,
    archive: &[u8; 16],
    part: u32,
    last: bool,
    plaintext: &[u8],
) -> Result<Vec<u8>, ArchiveError> {
    let sealed = sealed::seal(&key.parts(archive), &place(part, last), plaintext)?;
    Ok([&[VERSION, u8::from(last)], sealed.as_slice()].concat())
}

/// The reverse of [`seal_part`]: the plaintext, and whether it was the last part. Whoever reads a whole
/// archive uses an [`ArchiveReader`], which notices a missing end.
pub fn open_part(
    key: &ArchiveKey,
    archive: &[u8; 16],
    part: u32,
    sealed: &[u8],
) -> Result<(Zeroizing<Vec<u8>>, bool), ArchiveError> {
    let last = match sealed {
        [VERSION, 0, ..] => false,
        [VERSION, 1, ..] => true,
        _ => return Err(ArchiveError::Form),
    };
    let body = sealed.get(2..).ok_or(ArchiveError::Form)?;
    Ok((sealed::open(&key.parts(archive), &place(part, last), body)?, last))
}

/// Opens the parts of an archive in order.
#[derive(Debug)]
pub struct ArchiveReader {
    key: ArchiveKey,
    archive: [u8; 16],
    next: u32,
    ended: bool,
}

impl ArchiveReader {
    /// Begins with part 0.
    pub fn new(key: ArchiveKey, archive: [u8; 16]) -> Self {
        Self { key, archive, next: 0, ended: false }
    }

    /// The number of the part that comes next; `None` behind the last.
    pub fn wants(&self) -> Option<u32> {
        (!self.ended).then_some(self.next)
    }

    /// Opens the next part. After an error the same part may be tried again.
    pub fn open(&mut self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, ArchiveError> {
        if self.ended {
            return Err(ArchiveError::Trailing);
        }
        let (plaintext, last) = open_part(&self.key, &self.archive, self.next, sealed)?;
        self.next = self.next.checked_add(1).ok_or(ArchiveError::Form)?;
        self.ended = last;
        Ok(plaintext)
    }

    /// Says that nothing more comes: an error unless the last part was opened.
    pub fn finish(self) -> Result<(), ArchiveError> {
        if self.ended { Ok(()) } else { Err(ArchiveError::Truncated) }
    }
}

impl fmt::Debug for ArchiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArchiveKey(..)")
    }
}

//! Where the newest history backup is: a small sealed part in a slot that the account's id names.

use super::handover::ArchiveRef;
use fastchat_e2ee::{ArchiveKey, BackupPublic, Identity, archive::ArchiveError};
use fastchat_protocol::{AccountId, Bytes, SlotId, codec};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const LABEL: &[u8] = b"fastchat/v1/backup\0";
const FORM: u8 = 1;
/// What the pointer is sealed as; archives have ids drawn at random.
const ID: [u8; 16] = *b"fastchat/pointer";

/// Where an account's pointer is.
pub(crate) fn slot(account: AccountId) -> SlotId {
    let hash: [u8; 32] = Sha256::new_with_prefix(LABEL).chain_update(account.as_bytes()).finalize().into();
    let mut slot = [0; 16];
    slot.copy_from_slice(&hash[..16]);
    SlotId::new(slot)
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    #[serde(rename = "v")]
    form: u8,
    /// The archive's key, wrapped for the account.
    #[serde(rename = "w")]
    key: Bytes,
    #[serde(rename = "b")]
    body: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Body {
    #[serde(rename = "s")]
    slot: SlotId,
    #[serde(rename = "i", with = "serde_bytes")]
    id: [u8; 16],
}

/// The pointer to an archive.
pub(crate) fn seal(archive: &ArchiveRef, public: &BackupPublic) -> Result<Bytes, ArchiveError> {
    let key = archive.key().wrap(&mut rand::rng(), public)?.into();
    let body = codec::encode(&Body { slot: archive.slot, id: archive.id() });
    let body = ArchiveRef::with(archive.slot, &archive.key(), ID).seal(0, true, &body)?;
    Ok(codec::encode(&Sealed { form: FORM, key, body }).into())
}

/// The archive that a pointer names.
pub(crate) fn open(identity: &Identity, bytes: &[u8]) -> Result<ArchiveRef, ArchiveError> {
    let Sealed { form, key, body } = codec::decode(bytes).map_err(|_| ArchiveError::Form)?;
    if form != FORM {
        return Err(ArchiveError::Form);
    }
    let key = ArchiveKey::unwrap(&mut rand::rng(), identity, &key)?;
    let (body, _) = fastchat_e2ee::archive::open_part(&key, &ID, 0, &body)?;
    let Body { slot, id } = codec::decode(&body).map_err(|_| ArchiveError::Form)?;
    Ok(ArchiveRef::with(slot, &key, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_account_finds_its_backup() {
        let identity = Identity::generate(&mut rand::rng()).unwrap();
        let archive = ArchiveRef::generate();
        let pointer = seal(&archive, &identity.backup_public().unwrap()).unwrap();
        assert_eq!(open(&identity, &pointer).unwrap(), archive);
        assert!(open(&Identity::generate(&mut rand::rng()).unwrap(), &pointer).is_err());
        let mut altered = pointer.to_vec();
        *altered.last_mut().unwrap() ^= 1;
        assert!(open(&identity, &altered).is_err());
        assert_ne!(slot(AccountId::new([1; 16])), slot(AccountId::new([2; 16])));
    }
}

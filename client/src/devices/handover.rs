//! What an old device says to the new one that it lets in, and where the rest is.

use fastchat_e2ee::{
    ArchiveKey, Zeroizing,
    archive::{self, ArchiveError},
};
use fastchat_protocol::{AccountId, Bytes, DeviceId, SlotId, codec};
use serde::{Deserialize, Serialize};

const FORM: u8 = 1;

/// Parts of the slot that a linking code names. The new device leaves its offer.
pub(crate) const OFFER: u32 = 0;
/// The old device's answer.
pub(crate) const GRANT: u32 = 1;
/// The new device has joined the conversations that it could.
pub(crate) const JOINED: u32 = 2;
/// The new device has taken everything in.
pub(crate) const DONE: u32 = 3;

/// Where an archive is, and what opens it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRef {
    #[serde(rename = "s")]
    pub(crate) slot: SlotId,
    #[serde(rename = "k", with = "serde_bytes")]
    key: [u8; 32],
    #[serde(rename = "i", with = "serde_bytes")]
    id: [u8; 16],
}

impl ArchiveRef {
    /// A place that nobody has used, with a key that nobody has.
    pub(crate) fn generate() -> Self {
        let key = ArchiveKey::generate(&mut rand::rng());
        Self { slot: SlotId::new(rand::random()), key: *key.expose(), id: rand::random() }
    }

    /// An archive under a key that was wrapped for the account.
    pub(crate) fn with(slot: SlotId, key: &ArchiveKey, id: [u8; 16]) -> Self {
        Self { slot, key: *key.expose(), id }
    }

    pub(crate) fn key(&self) -> ArchiveKey {
        ArchiveKey::from_bytes(&self.key)
    }

    pub(crate) fn id(&self) -> [u8; 16] {
        self.id
    }

    pub(crate) fn seal(&self, part: u32, last: bool, plain: &[u8]) -> Result<Bytes, ArchiveError> {
        archive::seal_part(&self.key(), &self.id, part, last, plain).map(Bytes::from)
    }

    /// A part, and whether it is the last one.
    pub(crate) fn open(&self, part: u32, sealed: &[u8]) -> Result<(Zeroizing<Vec<u8>>, bool), ArchiveError> {
        archive::open_part(&self.key(), &self.id, part, sealed)
    }

    /// A word from one device to the other, in part `part` of the code's slot.
    pub(crate) fn note(&self, part: u32) -> Result<Bytes, ArchiveError> {
        self.seal(note_number(part), false, &[])
    }

    /// Whether this is that word.
    pub(crate) fn is_note(&self, part: u32, sealed: &[u8]) -> bool {
        self.open(note_number(part), sealed).is_ok()
    }
}

/// No archive has so many parts.
fn note_number(part: u32) -> u32 {
    u32::MAX - part
}

/// What the old device hands over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    #[serde(rename = "v")]
    form: u8,
    /// Whose.
    #[serde(rename = "a")]
    pub account: AccountId,
    /// The account's name.
    #[serde(rename = "n")]
    pub name: String,
    /// Lists the new device; its identity is the one to pin.
    #[serde(rename = "m")]
    pub manifest: Bytes,
    /// The device that holds the identity keys.
    #[serde(rename = "h")]
    pub holder: DeviceId,
    /// Contacts and conversations: there before the grant is.
    #[serde(rename = "p")]
    pub people: ArchiveRef,
    /// The history: made once the new device has joined, so that nothing falls between. Its key also
    /// seals what the two say to each other meanwhile.
    #[serde(rename = "r")]
    pub history: ArchiveRef,
    /// Whether history comes at all.
    #[serde(rename = "w")]
    pub with_history: bool,
}

impl Grant {
    pub(crate) fn new(
        (account, name): (AccountId, String),
        manifest: Bytes,
        holder: DeviceId,
        (people, history): (ArchiveRef, ArchiveRef),
        with_history: bool,
    ) -> Self {
        Self { form: FORM, account, name, manifest, holder, people, history, with_history }
    }

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(codec::encode(self))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let grant: Self = codec::decode(bytes).map_err(|e| e.to_string())?;
        match grant.form {
            FORM => Ok(grant),
            newer => Err(format!("it has form {newer}, which this version does not know: update fastchat")),
        }
    }
}

impl std::fmt::Debug for ArchiveRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveRef").field("slot", &self.slot).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_no_part_and_no_other_note() {
        let archive = ArchiveRef::generate();
        let joined = archive.note(JOINED).unwrap();
        assert!(archive.is_note(JOINED, &joined));
        assert!(!archive.is_note(DONE, &joined));
        assert!(!ArchiveRef::generate().is_note(JOINED, &joined));
        assert!(archive.open(0, &joined).is_err());
    }

    #[test]
    fn a_grant_is_read_as_it_was_written() {
        let archive = ArchiveRef::generate;
        let account = (AccountId::new([1; 16]), "ada".to_owned());
        let grant = Grant::new(
            account,
            Bytes::from_static(b"m"),
            DeviceId::new([2; 16]),
            (archive(), archive()),
            true,
        );
        assert_eq!(Grant::decode(&grant.encode()), Ok(grant.clone()));
        let newer = Grant { form: 2, ..grant };
        assert!(Grant::decode(&newer.encode()).unwrap_err().contains("update"));
    }
}

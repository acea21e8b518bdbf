//! The statement by which an account leaves a group.
//!
//! MLS has no commit that removes its own sender. So the leaver signs that it goes, with the key of its
//! leaf; the gateway bars the account in the transaction that stores the statement, and the next member
//! that sends removes the leaves first. Whoever removes them, and whoever judges that, has seen the
//! statement: a gateway cannot make anybody leave.

use ed25519_dalek::{Signature, VerifyingKey};
use fastchat_protocol::{AccountId, ConversationId, Counter, DeviceId, Epoch, codec};
use serde::{Deserialize, Serialize};

const LABEL: &[u8] = b"fastchat/v1/leave\0";
/// Limit: bytes of a statement; ours have about 150.
pub const MAX_BYTES: usize = 256;

/// Who leaves what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// Which group.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// The newest epoch that the leaver knew: a statement is no good after a later change of members.
    #[serde(rename = "e")]
    pub epoch: Epoch,
    /// Who leaves.
    #[serde(rename = "a")]
    pub account: AccountId,
    /// The device that says so.
    #[serde(rename = "d")]
    pub device: DeviceId,
    /// Its count in the conversation.
    #[serde(rename = "n")]
    pub counter: Counter,
}

#[derive(Serialize, Deserialize)]
struct Signed<'a> {
    #[serde(rename = "b", with = "serde_bytes", borrow)]
    body: &'a [u8],
    #[serde(rename = "s", with = "serde_bytes", borrow)]
    signature: &'a [u8],
}

/// Why a statement is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaveError {
    /// Not the expected CBOR.
    #[error("the statement cannot be read")]
    Malformed,
    /// Not signed by the device that it names.
    #[error("the statement is not signed by the device that it names")]
    Signature,
}

impl Leave {
    /// The body and what is signed for it.
    pub fn to_sign(&self) -> (Vec<u8>, Vec<u8>) {
        let body = codec::encode(self);
        let signed = [LABEL, &body].concat();
        (body, signed)
    }

    /// Puts body and signature together.
    pub fn assemble(body: &[u8], signature: &[u8; 64]) -> Vec<u8> {
        codec::encode(&Signed { body, signature })
    }

    /// What a statement says, not believed yet: [`verify`](Self::verify) with the key of the leaf.
    pub fn peek(statement: &[u8]) -> Result<Self, LeaveError> {
        if statement.len() > MAX_BYTES {
            return Err(LeaveError::Malformed);
        }
        let Signed { body, .. } = codec::decode(statement).map_err(|_| LeaveError::Malformed)?;
        codec::decode(body).map_err(|_| LeaveError::Malformed)
    }

    /// Checks the signature by the key of the device that it names.
    pub fn verify(statement: &[u8], key: &[u8; 32]) -> Result<Self, LeaveError> {
        let leave = Self::peek(statement)?;
        let Signed { body, signature } = codec::decode(statement).map_err(|_| LeaveError::Malformed)?;
        let key = VerifyingKey::from_bytes(key).map_err(|_| LeaveError::Signature)?;
        let signature = Signature::from_slice(signature).map_err(|_| LeaveError::Signature)?;
        key.verify_strict(&[LABEL, body].concat(), &signature).map_err(|_| LeaveError::Signature)?;
        Ok(leave)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};

    fn example() -> Leave {
        Leave {
            conversation: ConversationId::new([1; 16]),
            epoch: Epoch { generation: 0, number: 7 },
            account: AccountId::new([2; 16]),
            device: DeviceId::new([3; 16]),
            counter: Counter(5),
        }
    }

    #[test]
    fn only_the_named_device_can_say_it() {
        let key = SigningKey::from_bytes(&[9; 32]);
        let (body, signed) = example().to_sign();
        let statement = Leave::assemble(&body, &key.sign(&signed).to_bytes());
        assert!(statement.len() <= MAX_BYTES, "{}", statement.len());
        let public = key.verifying_key().to_bytes();
        assert_eq!(Leave::verify(&statement, &public), Ok(example()));
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        assert_eq!(Leave::verify(&statement, &other), Err(LeaveError::Signature));
        for at in 0..statement.len() {
            let mut bad = statement.clone();
            bad[at] ^= 1;
            assert!(Leave::verify(&bad, &public).is_err(), "byte {at}");
        }
        let bare = Leave::assemble(&body, &key.sign(&body).to_bytes());
        assert_eq!(Leave::verify(&bare, &public), Err(LeaveError::Signature), "without the label");
    }
}

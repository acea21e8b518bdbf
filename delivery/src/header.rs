//! The routing header of an envelope, read without any group state (a fraction of a microsecond).
//!
//! Nothing here is authenticated by reading it: the members' MLS sessions do that, and for commits
//! [`crate::group::PublicState`]. The gateway uses it to dedupe and to guard the epoch.

use crate::tls::Reader;
use fastchat_protocol::{ConversationId, Counter, Epoch};
use openmls::prelude::GroupId;

/// What an envelope holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A PrivateMessage with application data.
    Application,
    /// A PublicMessage with a commit of a member.
    Commit,
    /// A PublicMessage with a commit by which a device (re)joins by itself.
    ExternalCommit,
}

/// What can be seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// From the MLS group id.
    pub conversation: ConversationId,
    /// Generation from the MLS group id, number from the MLS epoch: the epoch it was made *in*.
    pub epoch: Epoch,
    /// What the envelope holds.
    pub kind: Kind,
    /// The sender's count, from the authenticated data. Every envelope of ours has one.
    pub counter: Counter,
}

/// Not an envelope of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The bytes end early or are no MLS message.
    #[error("not an MLS message")]
    Malformed,
    /// A proposal, a welcome, a commit that is encrypted, or application data that is not.
    #[error("an MLS message of a kind that is not sent to a conversation")]
    Kind,
    /// The group id is not a conversation and a generation.
    #[error("the MLS group id is not a conversation's")]
    GroupId,
    /// The authenticated data is not a counter.
    #[error("the authenticated data is not a counter")]
    Counter,
}

const MLS10: u16 = 1;
const PUBLIC_MESSAGE: u16 = 1;
const PRIVATE_MESSAGE: u16 = 2;
const APPLICATION: u8 = 1;
const COMMIT: u8 = 3;
const SENDER_MEMBER: u8 = 1;
const SENDER_NEW_MEMBER_COMMIT: u8 = 4;

/// Reads the header of an envelope (RFC 9420, sections 6, 6.1 and 6.3).
pub fn peek(envelope: &[u8]) -> Result<Header, HeaderError> {
    use HeaderError::{Counter as NoCounter, GroupId as NoGroup, Kind as NoKind, Malformed};
    let mut bytes = Reader(envelope);
    if bytes.u16().ok_or(Malformed)? != MLS10 {
        return Err(Malformed);
    }
    let format = bytes.u16().ok_or(Malformed)?;
    if format != PUBLIC_MESSAGE && format != PRIVATE_MESSAGE {
        return Err(NoKind);
    }
    let (conversation, generation) = parse_group_id(bytes.vector().ok_or(Malformed)?).ok_or(NoGroup)?;
    let number = bytes.u64().ok_or(Malformed)?;
    let (kind, aad) = if format == PRIVATE_MESSAGE {
        let content = bytes.u8().ok_or(Malformed)?;
        let aad = bytes.vector().ok_or(Malformed)?;
        (if content == APPLICATION { Kind::Application } else { return Err(NoKind) }, aad)
    } else {
        let kind = match bytes.u8().ok_or(Malformed)? {
            SENDER_MEMBER => {
                bytes.u32().ok_or(Malformed)?;
                Kind::Commit
            }
            SENDER_NEW_MEMBER_COMMIT => Kind::ExternalCommit,
            _ => return Err(NoKind),
        };
        let aad = bytes.vector().ok_or(Malformed)?;
        if bytes.u8().ok_or(Malformed)? != COMMIT {
            return Err(NoKind);
        }
        (kind, aad)
    };
    let counter = parse_aad(aad).ok_or(NoCounter)?;
    Ok(Header { conversation, epoch: Epoch { generation, number }, kind, counter })
}

/// The authenticated data of every envelope: the counter, eight bytes, big-endian. It binds the
/// client message id to the envelope, so that a gateway cannot give it another one.
pub fn aad(counter: Counter) -> Vec<u8> {
    counter.0.to_be_bytes().to_vec()
}

/// The reverse of [`aad`].
pub fn parse_aad(aad: &[u8]) -> Option<Counter> {
    aad.try_into().ok().map(u64::from_be_bytes).map(Counter)
}

/// The MLS group id: sixteen bytes of conversation, four of generation, big-endian.
pub fn group_id(conversation: ConversationId, generation: u32) -> GroupId {
    let mut bytes = conversation.as_bytes().to_vec();
    bytes.extend(generation.to_be_bytes());
    GroupId::from_slice(&bytes)
}

/// The reverse of [`group_id`].
pub fn parse_group_id(bytes: &[u8]) -> Option<(ConversationId, u32)> {
    let (conversation, generation) = bytes.split_at_checked(16)?;
    Some((ConversationId::try_from(conversation).ok()?, u32::from_be_bytes(generation.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PrivateMessage up to its authenticated data, by hand.
    fn private(content: u8, aad: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, 2, 20];
        bytes.extend([7; 16]);
        bytes.extend([0, 0, 0, 9]);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 5]);
        bytes.push(content);
        bytes.push(aad.len() as u8);
        bytes.extend(aad);
        bytes
    }

    #[test]
    fn reads_what_rfc_9420_puts_first() {
        let header = peek(&private(APPLICATION, &[0, 0, 0, 0, 0, 0, 1, 2])).unwrap();
        assert_eq!(header.conversation, ConversationId::new([7; 16]));
        assert_eq!(header.epoch, Epoch { generation: 9, number: 5 });
        assert_eq!((header.kind, header.counter), (Kind::Application, Counter(258)));
        assert_eq!(aad(Counter(258)), [0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn refuses_what_a_conversation_does_not_hold() {
        assert_eq!(peek(&private(COMMIT, &[0; 8])), Err(HeaderError::Kind));
        assert_eq!(peek(&private(APPLICATION, &[0; 7])), Err(HeaderError::Counter));
        assert_eq!(peek(&[0, 1, 0, 3, 0]), Err(HeaderError::Kind));
        assert_eq!(peek(&[0, 2]), Err(HeaderError::Malformed));
        let whole = private(APPLICATION, &[0; 8]);
        for length in 0..whole.len() {
            assert!(peek(&whole[..length]).is_err(), "{length} bytes");
        }
    }
}

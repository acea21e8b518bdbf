//! What gateways say to each other, and the only way to make a subject.
//!
//! The bus is a hint: anything here may be lost, doubled or forged by whoever holds a gateway's
//! credentials, and the log is read before anything is trusted.

use crate::{
    frame::frames,
    ids::{AccountId, ConversationId, DeviceId, Seq},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a bus record is published.
///
/// Invariant: a subject is made of fixed words and fixed-width hexadecimal of a random id. No name
/// that a person chose, and no wildcard, can ever be part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// All devices of an account: direct conversations, mailboxes, sessions.
    User(AccountId),
    /// All members of a group.
    Group(ConversationId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(account) => write!(f, "fc.v1.user.{account}"),
            Self::Group(conversation) => write!(f, "fc.v1.group.{conversation}"),
        }
    }
}

frames! {
    /// A record on the bus. The request number is not used.
    pub enum BusFrame {
        /// A row was committed.
        1 => Row(Row),
        /// A device's mailbox grew.
        2 => Mailbox(Mailbox),
        /// A device connected somewhere: an older connection of it is displaced.
        3 => Connected(Connected),
        /// Live sockets of the account (or of one device) are to be closed.
        4 => Revoked(Revoked),
        /// The account was let into a group: its gateways subscribe to it.
        5 => Joined(Joined),
        /// Somebody asks whether the account is online.
        6 => PresenceAsked(PresenceAsked),
        /// The answer, to who asked.
        7 => PresenceTold(PresenceTold),
        /// Others may learn that the account is online, or no longer.
        8 => Visible(Visible),
        /// A member has received or read further.
        9 => Receipt(Receipt),
        /// A member types, or no longer.
        10 => Typing(Typing),
    }
    retired: []
}

/// A committed row with the frame that members get.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Whose log.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// The row's place.
    #[serde(rename = "s")]
    pub seq: Seq,
    /// The device that sent it; it has its answer already.
    #[serde(rename = "d")]
    pub sender: DeviceId,
    /// The conversation's membership revision when the row was committed.
    #[serde(rename = "r")]
    pub revision: u64,
    /// A `ServerFrame::Deliver`, encoded once for everybody.
    #[serde(rename = "f")]
    pub frame: Bytes,
}

/// A mailbox grew.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Mailbox {
    /// Whose.
    #[serde(rename = "d")]
    pub device: DeviceId,
    /// Its last place.
    #[serde(rename = "s")]
    pub head: Seq,
}

/// A device connected.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Connected {
    /// Which.
    #[serde(rename = "d")]
    pub device: DeviceId,
}

/// Sockets are to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Revoked {
    /// One device, or all of the account that the subject names.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// A device that keeps its socket: the one that changed the password.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub except: Option<DeviceId>,
}

/// The account was let into a group.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    /// Which.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
}

/// Somebody asks whether the account that the subject names is online.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PresenceAsked {
    /// Who asks.
    #[serde(rename = "a")]
    pub by: AccountId,
    /// Seconds for which who asks is to be told that the account is gone; 0: not at all.
    #[serde(rename = "w", default, skip_serializing_if = "is_zero")]
    pub watch_s: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Somebody is online; for the account that the subject names.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PresenceTold {
    /// Who.
    #[serde(rename = "a")]
    pub account: AccountId,
    /// A device is connected; false: none is any more at the gateway that says so.
    #[serde(rename = "o")]
    pub online: bool,
    /// When it was last connected there, in milliseconds since 1970, if it wants that known.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub last_seen_ms: Option<u64>,
}

/// What the account that the subject names lets others know.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Visible {
    /// They may learn that it is online.
    #[serde(rename = "o")]
    pub visible: bool,
    /// They may learn how far its devices have received; absent: as before.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<bool>,
    /// They may learn when it was last online; absent: as before.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<bool>,
}

/// A member has received or read further. On the subject of an account or of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Of which conversation.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// The conversation's membership revision when this was stored: only who is in by then may have it.
    #[serde(rename = "r")]
    pub revision: u64,
    /// The device that it came from, which knows.
    #[serde(rename = "d")]
    pub device: DeviceId,
    /// A `ServerFrame::Receipt`, encoded once for everybody.
    #[serde(rename = "f")]
    pub frame: Bytes,
}

/// A member types, or no longer. On the subject of an account or of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Typing {
    /// In which conversation.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// The membership revision by which its gateway knew it for a member.
    #[serde(rename = "r")]
    pub revision: u64,
    /// The device that it came from, which knows.
    #[serde(rename = "d")]
    pub device: DeviceId,
    /// A `ServerFrame::Typing`, encoded once for everybody.
    #[serde(rename = "f")]
    pub frame: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_subject_is_fixed_words_and_fixed_width_hex(id: [u8; 16]) {
            let subjects = [Subject::User(AccountId::new(id)), Subject::Group(ConversationId::new(id))];
            for text in subjects.map(|subject| subject.to_string()) {
                let parts: Vec<&str> = text.split('.').collect();
                prop_assert_eq!(parts.len(), 4);
                prop_assert!(parts[2] == "user" || parts[2] == "group");
                prop_assert_eq!(parts[3].len(), 32);
                prop_assert!(parts[3].bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)));
            }
        }
    }
}

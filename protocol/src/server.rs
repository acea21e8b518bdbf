//! What a gateway says to a client.

use crate::{
    error::Refusal,
    frame::frames,
    ids::{AccountId, BlobId, ConversationId, Counter, DeviceId, Epoch, Seq},
    name::AccountName,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

frames! {
    /// A frame from a gateway.
    pub enum ServerFrame {
        /// Answers `Hello`: the version in force and the challenge.
        1 => Hello(Hello),
        /// Answers `Register`, `Login`, `Resume`: the device is known from here on.
        2 => Session(Session),
        /// It is done.
        3 => Done(Done),
        /// It was refused; the code says whether a retry helps.
        4 => Refused(Refusal),
        /// The row is committed.
        10 => Sent(Sent),
        /// A live copy of a row. A hint: the log is the truth.
        11 => Deliver(Deliver),
        /// Rows of a log.
        12 => LogPage(LogPage),
        /// Heads that moved, for devices to compare with their own.
        13 => Heads(Heads),
        /// Items of the mailbox.
        14 => MailboxPage(MailboxPage),
        /// The device's conversations.
        15 => Conversations(Conversations),
        /// An account and its newest manifest.
        16 => Account(Account),
        /// Claimed key packages.
        17 => KeyPackages(KeyPackages),
        /// How many one-time key packages the directory still holds.
        18 => KeyPackagesLeft(KeyPackagesLeft),
        /// What an external commit needs.
        19 => GroupState(GroupState),
        /// A ratchet tree.
        20 => Tree(Tree),
        /// Live copies were dropped: compare every head with the log.
        21 => Resync(Resync),
        /// The gateway is going away.
        22 => Draining(Draining),
        /// Please go to another gateway.
        23 => Move(Move),
        /// The connection ends now, and why.
        24 => Closing(Refusal),
        /// Answers `Link` and `Recover`: no device is known, and little can be asked for.
        25 => Restricted(Restricted),
        /// A sealed part.
        26 => Slot(Slot),
        /// The blocked accounts.
        27 => Blocked(Blocked),
        /// Somebody who was asked for is online, or is not any more.
        28 => Presence(Presence),
        /// Answers `BeginBlob` and `GetBlob`: the parts may be put, or fetched, by HTTP.
        29 => BlobGrant(BlobGrant),
        /// A member has received or read further. A hint: `Receipts` is the truth.
        30 => Receipt(Receipt),
        /// How far the members of a conversation are.
        31 => Receipts(Receipts),
        /// A member types, or no longer. A hint.
        32 => Typing(Typing),
    }
    retired: []
}

/// Opens the connection from the gateway's side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The version that both will speak.
    #[serde(rename = "v")]
    pub version: u16,
    /// The deployment's configured name; the client pins it, passwords are salted with it.
    #[serde(rename = "d")]
    pub deployment: String,
    /// The challenge: good for one answer on this connection.
    #[serde(rename = "n", with = "serde_bytes")]
    pub nonce: [u8; 32],
    /// Raised when the store was restored from a backup.
    #[serde(rename = "i")]
    pub incarnation: u32,
    /// Bytes of the largest frame after authentication.
    #[serde(rename = "f")]
    pub max_frame: u32,
    /// Bytes of the largest application envelope.
    #[serde(rename = "e")]
    pub max_envelope: u32,
}

/// The device's session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Whose.
    #[serde(rename = "a")]
    pub account: AccountId,
    /// The account's name.
    #[serde(rename = "n")]
    pub name: AccountName,
    /// The device.
    #[serde(rename = "d")]
    pub device: DeviceId,
    /// The last place of the device's mailbox.
    #[serde(rename = "m")]
    pub mailbox_head: Seq,
    /// Seconds between the gateway's pings; a client that hears nothing for three of them reconnects.
    #[serde(rename = "p")]
    pub ping_seconds: u32,
    /// One-time key packages left, by suite.
    #[serde(rename = "k")]
    pub key_packages: Vec<KeyPackagesLeft>,
    /// What others may learn of the account; absent from gateways that know nothing of it.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Sharing>,
}

/// What others may learn of an account. Whether they learn what it has read is said with each
/// `MarkRead`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sharing {
    /// That it is online.
    #[serde(rename = "o")]
    pub online: bool,
    /// How far its devices have received.
    #[serde(rename = "d")]
    pub delivered: bool,
    /// When it was last online.
    #[serde(rename = "l")]
    pub last_seen: bool,
}

/// Nothing more to say.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Done {}

/// The answer to an append.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// The row's place.
    #[serde(rename = "s")]
    pub seq: Seq,
    /// Milliseconds since 1970 by the store's clock; for display only.
    #[serde(rename = "t")]
    pub at_ms: u64,
    /// The row was there already, with the same bytes.
    #[serde(rename = "r", default)]
    pub duplicate: bool,
}

/// What a row of a log holds. Unknown kinds are kept, so that older clients can say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum LogKind {
    /// The first row of a conversation (its envelope is empty) or of a new generation of it (its
    /// envelope is the SHA-256 of the founder's GroupInfo).
    Founded,
    /// An MLS PrivateMessage.
    Application,
    /// An MLS PublicMessage with a commit.
    Commit,
    /// A signed statement by which an account has left a group.
    Left,
    /// A kind of a later version.
    Other(u8),
}

impl From<u8> for LogKind {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Founded,
            2 => Self::Application,
            3 => Self::Commit,
            4 => Self::Left,
            other => Self::Other(other),
        }
    }
}

impl From<LogKind> for u8 {
    fn from(kind: LogKind) -> Self {
        match kind {
            LogKind::Founded => 1,
            LogKind::Application => 2,
            LogKind::Commit => 3,
            LogKind::Left => 4,
            LogKind::Other(number) => number,
        }
    }
}

/// A row of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogRow {
    /// Its place.
    #[serde(rename = "s")]
    pub seq: Seq,
    /// The device that sent it.
    #[serde(rename = "d")]
    pub sender: DeviceId,
    /// The sender's count.
    #[serde(rename = "n")]
    pub counter: Counter,
    /// What it holds.
    #[serde(rename = "k")]
    pub kind: LogKind,
    /// Milliseconds since 1970 by the store's clock; for display only.
    #[serde(rename = "t")]
    pub at_ms: u64,
    /// The sealed bytes. Absent in a live copy that is too large: fetch it.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Bytes>,
}

/// A row as it happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deliver {
    /// Whose log.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// The row.
    #[serde(rename = "r")]
    pub row: LogRow,
}

/// Rows after the seq that was asked for, in order and without a hole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogPage {
    /// Whose log.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// The rows.
    #[serde(rename = "r")]
    pub rows: Vec<LogRow>,
    /// The last seq of the log.
    #[serde(rename = "h")]
    pub head: Seq,
    /// The first seq that retention has left.
    #[serde(rename = "f")]
    pub first: Seq,
}

/// A conversation's last seq.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Which conversation.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// Its last seq.
    #[serde(rename = "s")]
    pub seq: Seq,
}

/// Heads that moved.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Heads {
    /// Of conversations.
    #[serde(rename = "h", default)]
    pub heads: Vec<Head>,
    /// Of the device's mailbox.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<Seq>,
}

/// Something for one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MailboxItem {
    /// Its place.
    #[serde(rename = "s")]
    pub seq: Seq,
    /// What `body` holds: 1 is a [`Joining`].
    #[serde(rename = "k")]
    pub kind: u8,
    /// CBOR, by kind.
    #[serde(rename = "b")]
    pub body: Bytes,
}

/// The body of a mailbox item of kind 1: the device was let into a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Joining {
    /// Which conversation.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// The row that let the device in: its cursor starts here.
    #[serde(rename = "j")]
    pub join_seq: Seq,
    /// The device that let it in.
    #[serde(rename = "d")]
    pub by: DeviceId,
    /// The MLS Welcome.
    #[serde(rename = "w")]
    pub welcome: Bytes,
    /// SHA-256 of the ratchet tree's bytes.
    #[serde(rename = "h")]
    pub tree_hash: Bytes,
}

/// [`MailboxItem::kind`] of a [`Joining`].
pub const MAILBOX_JOINING: u8 = 1;

/// Items of the mailbox, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MailboxPage {
    /// The items.
    #[serde(rename = "i")]
    pub items: Vec<MailboxItem>,
    /// The last place.
    #[serde(rename = "h")]
    pub head: Seq,
}

/// How a conversation stands, seen from one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConversationState {
    /// Which.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// The other party of a direct conversation; the own account in one with oneself; absent in a group.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<AccountId>,
    /// The account is a member, this device has not joined: it may, by an external commit.
    #[serde(rename = "u", default, skip_serializing_if = "std::ops::Not::not")]
    pub unjoined: bool,
    /// The newest epoch.
    #[serde(rename = "e")]
    pub epoch: Epoch,
    /// The last seq.
    #[serde(rename = "h")]
    pub head: Seq,
    /// The device's cursor.
    #[serde(rename = "s")]
    pub cursor: Seq,
    /// The row that let the device in.
    #[serde(rename = "j")]
    pub join_seq: Seq,
    /// The device's last counter: what a client with older state must not reuse.
    #[serde(rename = "n")]
    pub counter: Counter,
    /// Where it stood each time that the store came out of a backup.
    #[serde(rename = "b", default, skip_serializing_if = "Vec::is_empty")]
    pub restored: Vec<Restored>,
}

/// Where a conversation stood when the store came out of a backup: what a device has read beyond is not
/// in this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The incarnation that began then.
    #[serde(rename = "i")]
    pub incarnation: u32,
    /// The last seq of the backup.
    #[serde(rename = "h")]
    pub head: Seq,
    /// The epoch of the backup.
    #[serde(rename = "e")]
    pub epoch: Epoch,
}

/// A page of conversations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conversations {
    /// In the order of ids.
    #[serde(rename = "l")]
    pub list: Vec<ConversationState>,
    /// There may be more after the last one.
    #[serde(rename = "m", default)]
    pub more: bool,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Its id.
    #[serde(rename = "a")]
    pub account: AccountId,
    /// Its name.
    #[serde(rename = "n")]
    pub name: AccountName,
    /// Its newest signed manifest.
    #[serde(rename = "m")]
    pub manifest: Bytes,
}

/// A claimed key package.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyPackage {
    /// Whose.
    #[serde(rename = "d")]
    pub device: DeviceId,
    /// The MLS message.
    #[serde(rename = "p")]
    pub package: Bytes,
}

/// Claimed key packages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyPackages {
    /// One a device; devices without any are left out.
    #[serde(rename = "p")]
    pub packages: Vec<KeyPackage>,
}

/// What the directory holds for a device.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct KeyPackagesLeft {
    /// MLS code point of the suite.
    #[serde(rename = "s")]
    pub suite: u16,
    /// One-time packages.
    #[serde(rename = "l")]
    pub left: u32,
    /// Whether a last-resort package is there.
    #[serde(rename = "r", default)]
    pub last_resort: bool,
}

/// The newest epoch's public state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupState {
    /// Which epoch.
    #[serde(rename = "e")]
    pub epoch: Epoch,
    /// The last seq when this was read.
    #[serde(rename = "h")]
    pub head: Seq,
    /// Signed GroupInfo.
    #[serde(rename = "g")]
    pub group_info: Bytes,
    /// Ratchet tree.
    #[serde(rename = "t")]
    pub tree: Bytes,
}

/// A ratchet tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tree {
    /// Its bytes.
    #[serde(rename = "t")]
    pub tree: Bytes,
}

/// Live copies were dropped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resync {
    /// `lagging`, `bus` or `head-check`; for people who read logs.
    #[serde(rename = "r")]
    pub reason: String,
}

/// The gateway is going away.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Draining {
    /// When to come back, here or elsewhere; each connection is told another time.
    #[serde(rename = "w")]
    pub reconnect_in_ms: u32,
}

/// Please go elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// A gateway's public URL.
    #[serde(rename = "u")]
    pub url: String,
    /// The balancer's ticket.
    #[serde(rename = "t")]
    pub ticket: Bytes,
}

/// Somebody who knows a password or a recovery code, on no device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restricted {
    /// Whose.
    #[serde(rename = "a")]
    pub account: AccountId,
    /// The account's name.
    #[serde(rename = "n")]
    pub name: AccountName,
    /// Its newest signed manifest.
    #[serde(rename = "m")]
    pub manifest: Bytes,
    /// After `Recover`: the account's keys, sealed under the code.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Bytes>,
}

/// A part of a slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// Its bytes, if it is there.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bytes>,
}

/// Accounts that may not write to this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Blocked {
    /// They.
    #[serde(rename = "a")]
    pub accounts: Vec<AccountId>,
}

/// Whether somebody is online.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// Who.
    #[serde(rename = "a")]
    pub account: AccountId,
    /// A device of the account is connected.
    #[serde(rename = "o")]
    pub online: bool,
    /// When it was last connected, in milliseconds since 1970 by the gateway's clock.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub last_seen_ms: Option<u64>,
}

/// A member has received or read further.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Which conversation.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// Which member; the own account if another device of it has read.
    #[serde(rename = "a")]
    pub account: AccountId,
    /// The last row that a device of the member has stored.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<Seq>,
    /// The last row that the member has read.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Seq>,
}

/// How far a member is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MemberReceipt {
    /// Who.
    #[serde(rename = "a")]
    pub account: AccountId,
    /// The first row that any of its devices may read: earlier ones are nothing to it.
    #[serde(rename = "f")]
    pub from: Seq,
    /// The last row that a device of the member has stored, if it tells.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<Seq>,
    /// The last row that the member has read, as far as it tells; of the own account in any case.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Seq>,
}

/// How far the members of a conversation are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipts {
    /// Which.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// Everybody who is in it, the own account too; in the order of ids.
    #[serde(rename = "l")]
    pub members: Vec<MemberReceipt>,
}

/// A member types.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Typing {
    /// Where.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// Who.
    #[serde(rename = "a")]
    pub account: AccountId,
    /// False: no longer.
    #[serde(rename = "o")]
    pub typing: bool,
}

/// What opens a transfer of parts: good for one device, blob and direction. Never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlobToken(#[serde(with = "serde_bytes")] [u8; 32]);

impl BlobToken {
    /// Wraps what was drawn at random.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the header of a request and for the one place that hashes them.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for BlobToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlobToken(..)")
    }
}

/// A blob's parts may be put, or fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobGrant {
    /// See [`BlobToken`].
    #[serde(rename = "t")]
    pub token: BlobToken,
    /// Which blob.
    #[serde(rename = "i")]
    pub blob: BlobId,
    /// Bytes of all parts together.
    #[serde(rename = "s")]
    pub size_bytes: u64,
    /// Parts.
    #[serde(rename = "p")]
    pub parts: u32,
    /// Of a blob that is not complete: which parts are there. Bit `n % 8` of byte `n / 8`, counted from the
    /// least, is part `n`.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub have: Option<Bytes>,
    /// Seconds for which the token is good.
    #[serde(rename = "x")]
    pub expires_in_s: u32,
    /// All parts are there, for good.
    #[serde(rename = "d", default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
}

impl BlobGrant {
    /// Whether a part is there.
    pub fn has(&self, part: u32) -> bool {
        let Some(have) = &self.have else { return self.complete && part < self.parts };
        have.get(part as usize / 8).is_some_and(|byte| byte >> (part % 8) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_says_which_parts_are_there() {
        let have = Some(Bytes::from_static(&[0b101, 0b10]));
        let unfinished = BlobGrant {
            token: BlobToken::new([7; 32]),
            blob: BlobId::new([1; 16]),
            size_bytes: 30,
            parts: 12,
            have,
            expires_in_s: 60,
            complete: false,
        };
        let there = |grant: &BlobGrant| (0..20).filter(|part| grant.has(*part)).collect::<Vec<_>>();
        assert_eq!(there(&unfinished), [0, 2, 9]);
        let finished = BlobGrant { have: None, complete: true, ..unfinished.clone() };
        assert_eq!(there(&finished), (0..12).collect::<Vec<_>>());
        assert_eq!(there(&BlobGrant { have: None, ..unfinished }), [0; 0]);
    }
}

//! What a client says to a gateway.

use crate::{
    frame::frames,
    ids::{AccountId, BlobId, ConversationId, Counter, DeviceId, Epoch, Seq, SlotId},
    name::AccountName,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

frames! {
    /// A frame from a client. The first is `Hello`, the second proves who connects; a client sends
    /// nothing between that proof and its answer.
    pub enum ClientFrame {
        /// Opens the connection. Answered by `Hello`.
        1 => Hello(Hello),
        /// Makes an account and its first device. Answered by `Session`.
        2 => Register(Register),
        /// Proves the password and the device. Answered by `Session`.
        3 => Login(Login),
        /// Proves the device alone: the ordinary way to come back. Answered by `Session`.
        4 => Resume(Resume),
        /// Appends an application envelope. Answered by `Sent`.
        10 => Send(Send),
        /// Appends an MLS commit. Answered by `Sent`.
        11 => Commit(Commit),
        /// Founds a direct conversation. Answered by `Sent`.
        12 => Found(Found),
        /// Reads a conversation's log. Answered by `LogPage`.
        13 => Fetch(Fetch),
        /// Moves cursors. Not answered.
        14 => Ack(Ack),
        /// Reads the device's mailbox. Answered by `MailboxPage`.
        15 => FetchMailbox(FetchMailbox),
        /// Moves the mailbox cursor. Not answered.
        16 => AckMailbox(AckMailbox),
        /// Lists the device's conversations with their heads. Answered by `Conversations`.
        17 => Sync(Sync),
        /// Looks an account up by name. Answered by `Account`.
        18 => FindAccount(FindAccount),
        /// Asks for an account's newest manifest. Answered by `Account`.
        19 => GetAccount(GetAccount),
        /// Puts key packages into the directory. Answered by `KeyPackagesLeft`.
        20 => PublishKeyPackages(PublishKeyPackages),
        /// Takes one key package for each device of an account. Answered by `KeyPackages`.
        21 => ClaimKeyPackages(ClaimKeyPackages),
        /// Asks for what an external commit needs. Answered by `GroupState`.
        22 => GetGroupState(GetGroupState),
        /// Asks for the ratchet tree that belongs to a welcome. Answered by `Tree`.
        23 => GetTree(GetTree),
        /// Replaces the account's manifest by its successor. Answered by `Done`.
        24 => PutManifest(PutManifest),
        /// Replaces the auth key. Answered by `Done`; other devices must prove themselves again.
        25 => ChangePassword(ChangePassword),
        /// Founds a group, or goes on with it in a new generation. Answered by `Sent`.
        26 => FoundGroup(FoundGroup),
        /// Leaves a group, with all devices of the account. Answered by `Sent`.
        27 => Leave(Leave),
        /// Instead of `Login`: proves the password alone, to have a device linked. Answered by
        /// `Restricted`; from there on only slots and accounts can be asked for.
        28 => Link(Link),
        /// Instead of `Login`: proves the recovery code. Answered by `Restricted`, as `Link`.
        29 => Recover(Recover),
        /// Puts a sealed part where other devices of the account find it. Answered by `Done`.
        30 => PutSlot(PutSlot),
        /// Reads a sealed part. Answered by `Slot`.
        31 => GetSlot(GetSlot),
        /// Removes all parts of a slot. Answered by `Done`.
        32 => DropSlot(DropSlot),
        /// Replaces what the recovery code opens. Answered by `Done`.
        33 => SetRecovery(SetRecovery),
        /// After `Recover`: the manifest with the new device, and a new password. Answered by `Done`.
        34 => Restore(Restore),
        /// Blocks an account, or no longer. Answered by `Done`.
        35 => Block(Block),
        /// Lists the blocked accounts. Answered by `Blocked`.
        36 => GetBlocked(GetBlocked),
        /// Ends the account for good. Answered by `Done`, then the connection ends.
        37 => DeleteAccount(DeleteAccount),
        /// Asks who of these is online. Answered by `Done`; each who is, and who shares a conversation
        /// and wants it known, is then told by a `Presence` of its own.
        38 => AskPresence(AskPresence),
        /// Whether others may learn that this account is online. Answered by `Done`.
        39 => SetVisible(SetVisible),
        /// Begins to put a blob beside a conversation, or goes on. Answered by `BlobGrant`.
        40 => BeginBlob(BeginBlob),
        /// Says that all parts are put. Answered by `Done`.
        41 => FinishBlob(FinishBlob),
        /// Asks for a blob. Answered by `BlobGrant`.
        42 => GetBlob(GetBlob),
        /// Removes a blob. Answered by `Done`.
        43 => DropBlob(DropBlob),
        /// The account has read a conversation up to a row. Answered by `Done`, when that is stored.
        44 => MarkRead(MarkRead),
        /// Asks how far the members of a conversation are. Answered by `Receipts`.
        45 => GetReceipts(GetReceipts),
        /// Somebody types, or no longer. Not answered.
        46 => Typing(Typing),
        /// What others may learn of this account. Answered by `Done`.
        47 => SetSharing(SetSharing),
    }
    retired: []
}

/// An auth key: what the client makes of the password. Never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AuthKey(String);

impl AuthKey {
    /// Wraps what the client derived.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that hashes it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AuthKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthKey(..)")
    }
}

/// Opens a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Protocol versions that the client can speak.
    #[serde(rename = "v")]
    pub versions: Vec<u16>,
    /// Program and version, for the gateway's log.
    #[serde(rename = "a", default)]
    pub agent: String,
    /// Host and port as the client dialled them; part of what the device signs.
    #[serde(rename = "h")]
    pub host: String,
    /// A balancer's ticket for this gateway, if one sent the client here.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<Bytes>,
}

/// Makes an account. Its id is in the manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Register {
    /// The name that others will type.
    #[serde(rename = "n")]
    pub name: String,
    /// See [`AuthKey`].
    #[serde(rename = "k")]
    pub auth_key: AuthKey,
    /// The device that registers; the manifest lists it.
    #[serde(rename = "d")]
    pub device: DeviceId,
    /// The device's answer to the challenge.
    #[serde(rename = "s")]
    pub signature: Bytes,
    /// Version 1 of the account's signed manifest.
    #[serde(rename = "m")]
    pub manifest: Bytes,
    /// Where registration is by invite.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<String>,
}

/// Proves password and device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Login {
    /// The account's name.
    #[serde(rename = "n")]
    pub name: String,
    /// See [`AuthKey`].
    #[serde(rename = "k")]
    pub auth_key: AuthKey,
    /// A device of the account.
    #[serde(rename = "d")]
    pub device: DeviceId,
    /// The device's answer to the challenge.
    #[serde(rename = "s")]
    pub signature: Bytes,
}

/// Proves the device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    /// The device.
    #[serde(rename = "d")]
    pub device: DeviceId,
    /// Its answer to the challenge.
    #[serde(rename = "s")]
    pub signature: Bytes,
}

/// An application envelope for a conversation's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Send {
    /// Where to.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// The device's next count in this conversation.
    #[serde(rename = "n")]
    pub counter: Counter,
    /// An MLS PrivateMessage, whose authenticated data repeats the counter.
    #[serde(rename = "e")]
    pub envelope: Bytes,
}

/// A commit with all that belongs to it; it is stored whole or not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// Where to.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// The device's next count in this conversation.
    #[serde(rename = "n")]
    pub counter: Counter,
    /// An MLS PublicMessage holding the commit.
    #[serde(rename = "e")]
    pub commit: Bytes,
    /// The signed GroupInfo of the epoch that the commit makes.
    #[serde(rename = "g")]
    pub group_info: Bytes,
    /// For the devices that the commit adds.
    #[serde(rename = "w", default)]
    pub welcomes: Vec<Welcome>,
}

/// One MLS Welcome and whom it lets in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// Devices that can join by it.
    #[serde(rename = "d")]
    pub devices: Vec<DeviceId>,
    /// The MLS message.
    #[serde(rename = "w")]
    pub welcome: Bytes,
}

/// A direct conversation between the sender's account and `peer` (which may be the same account).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Chosen at random by the founder.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// The other party.
    #[serde(rename = "p")]
    pub peer: AccountId,
    /// The signed GroupInfo of the first epoch that all parties share.
    #[serde(rename = "g")]
    pub group_info: Bytes,
    /// The ratchet tree of that epoch.
    #[serde(rename = "t")]
    pub tree: Bytes,
    /// For every other device of the two accounts.
    #[serde(rename = "w", default)]
    pub welcomes: Vec<Welcome>,
}

/// Reads rows after a seq, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fetch {
    /// Which log.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// The last seq that is not wanted.
    #[serde(rename = "s")]
    pub after: Seq,
    /// Rows at most.
    #[serde(rename = "l")]
    pub limit: u32,
}

/// Says what the device has stored for good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// One entry a conversation.
    #[serde(rename = "a")]
    pub cursors: Vec<Cursor>,
}

/// A cursor: the last seq that the device has stored, with all before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    /// Which log.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// The last seq.
    #[serde(rename = "s")]
    pub seq: Seq,
    /// A short hash of the MLS epoch authenticator, by which divergence shows.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub authenticator: Option<Bytes>,
}

/// Reads mailbox items after a place, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FetchMailbox {
    /// The last place that is not wanted.
    #[serde(rename = "s")]
    pub after: Seq,
}

/// Says up to where the device has dealt with its mailbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AckMailbox {
    /// The last place.
    #[serde(rename = "s")]
    pub seq: Seq,
}

/// Lists conversations in the order of their ids.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Sync {
    /// The last conversation of the page before.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ConversationId>,
}

/// Looks an account up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindAccount {
    /// Its name.
    #[serde(rename = "n")]
    pub name: AccountName,
}

/// Asks for an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetAccount {
    /// Which.
    #[serde(rename = "a")]
    pub account: AccountId,
}

/// Key packages of the sending device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishKeyPackages {
    /// MLS code point of the suite.
    #[serde(rename = "s")]
    pub suite: u16,
    /// Each is given out once.
    #[serde(rename = "p")]
    pub one_time: Vec<Bytes>,
    /// Given out when the others are used up.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub last_resort: Option<Bytes>,
}

/// Asks for one key package for each device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClaimKeyPackages {
    /// Whose devices.
    #[serde(rename = "a")]
    pub account: AccountId,
    /// MLS code point of the suite.
    #[serde(rename = "s")]
    pub suite: u16,
}

/// Asks for GroupInfo and tree of the newest epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetGroupState {
    /// Of which conversation.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
}

/// Asks for the tree of the commit that a welcome belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetTree {
    /// Of which conversation.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// SHA-256 of the tree's bytes, from the mailbox item.
    #[serde(rename = "h")]
    pub hash: Bytes,
}

/// The next manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PutManifest {
    /// Signed bytes.
    #[serde(rename = "m")]
    pub manifest: Bytes,
}

/// Another auth key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangePassword {
    /// The one in force.
    #[serde(rename = "o")]
    pub old: AuthKey,
    /// The one to come.
    #[serde(rename = "n")]
    pub new: AuthKey,
}

/// A group with its members and roles, which its GroupInfo declares; or the next generation of one
/// (another suite), which goes on in the same log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundGroup {
    /// Chosen at random by the founder.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// 0 for a new group; for a new generation the device's next count in the conversation.
    #[serde(rename = "n")]
    pub counter: Counter,
    /// For a new generation: the epoch that it takes the place of, if that is still in force.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Epoch>,
    /// The signed GroupInfo of the first epoch that all members share.
    #[serde(rename = "g")]
    pub group_info: Bytes,
    /// The ratchet tree of that epoch.
    #[serde(rename = "t")]
    pub tree: Bytes,
    /// For every member device but the founder's.
    #[serde(rename = "w", default)]
    pub welcomes: Vec<Welcome>,
}

/// The account is out from this row on; the next member that sends removes its devices' leaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leave {
    /// Which group.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// The device's next count in this conversation.
    #[serde(rename = "n")]
    pub counter: Counter,
    /// A statement that the device signed, so that no gateway can make somebody leave.
    #[serde(rename = "s")]
    pub statement: Bytes,
}

/// Proves the password without a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// The account's name.
    #[serde(rename = "n")]
    pub name: String,
    /// See [`AuthKey`].
    #[serde(rename = "k")]
    pub auth_key: AuthKey,
}

/// Proves the recovery code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recover {
    /// The account's name.
    #[serde(rename = "n")]
    pub name: String,
    /// What the client makes of the recovery code; as long as an auth key, and as secret.
    #[serde(rename = "k")]
    pub recovery_key: AuthKey,
}

/// A sealed part of something that is handed from one device of an account to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PutSlot {
    /// Drawn or derived by the clients.
    #[serde(rename = "i")]
    pub slot: SlotId,
    /// Which part; an earlier one of this number is replaced.
    #[serde(rename = "p")]
    pub part: u32,
    /// Sealed bytes.
    #[serde(rename = "b")]
    pub bytes: Bytes,
    /// Seconds after which the part may go; 0 keeps it.
    #[serde(rename = "x", default)]
    pub expires_in_s: u32,
}

/// Asks for a part.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GetSlot {
    /// Which slot.
    #[serde(rename = "i")]
    pub slot: SlotId,
    /// Which part.
    #[serde(rename = "p")]
    pub part: u32,
}

/// Removes a slot.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DropSlot {
    /// Which.
    #[serde(rename = "i")]
    pub slot: SlotId,
}

/// What the recovery code opens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetRecovery {
    /// Proves the code later; the gateway keeps a hash of it.
    #[serde(rename = "k")]
    pub recovery_key: AuthKey,
    /// The account's keys, sealed under the code.
    #[serde(rename = "b")]
    pub sealed: Bytes,
}

/// Brings a recovered account back to life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restore {
    /// The next manifest: it lists the new device and revokes the lost ones.
    #[serde(rename = "m")]
    pub manifest: Bytes,
    /// Of the new password.
    #[serde(rename = "k")]
    pub auth_key: AuthKey,
}

/// Whether an account may write to this one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// Which.
    #[serde(rename = "a")]
    pub account: AccountId,
    /// It may not, from now on.
    #[serde(rename = "b")]
    pub blocked: bool,
}

/// Asks for the blocked accounts.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct GetBlocked {}

/// Ends the account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeleteAccount {
    /// Of the password in force.
    #[serde(rename = "k")]
    pub auth_key: AuthKey,
}

/// Asks who is online.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AskPresence {
    /// At most [`crate::limits::MAX_PRESENCE`].
    #[serde(rename = "a")]
    pub accounts: Vec<AccountId>,
    /// Seconds for which their comings and goings are to be told as well; 0: only how it is now.
    #[serde(rename = "w", default, skip_serializing_if = "is_zero")]
    pub watch_s: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Whether others may learn that this account is online.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SetVisible {
    /// They may.
    #[serde(rename = "o")]
    pub visible: bool,
}

/// A blob of so many sealed bytes. Again by the same device with the same sizes, it goes on with what is
/// there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginBlob {
    /// Whose members may have it.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// Drawn by the client.
    #[serde(rename = "i")]
    pub blob: BlobId,
    /// Bytes of all parts together.
    #[serde(rename = "s")]
    pub size_bytes: u64,
    /// Parts, each of at most [`crate::limits::MAX_BLOB_PART`].
    #[serde(rename = "p")]
    pub parts: u32,
}

/// Says that all parts are put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishBlob {
    /// Beside which conversation.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// Which blob.
    #[serde(rename = "i")]
    pub blob: BlobId,
}

/// Asks for a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetBlob {
    /// Beside which conversation.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// Which blob.
    #[serde(rename = "i")]
    pub blob: BlobId,
}

/// Removes a blob: the account that put it may, and in a group an admin or the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropBlob {
    /// Beside which conversation.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// Which blob.
    #[serde(rename = "i")]
    pub blob: BlobId,
}

/// How far the account has read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MarkRead {
    /// Which conversation.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// The last row that was read.
    #[serde(rename = "s")]
    pub seq: Seq,
    /// The other members may know; the account's own devices always do.
    #[serde(rename = "o")]
    pub shared: bool,
}

/// Asks how far the members of a conversation are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GetReceipts {
    /// Which.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
}

/// Somebody types.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Typing {
    /// Where.
    #[serde(rename = "c")]
    pub conversation: ConversationId,
    /// False: no longer.
    #[serde(rename = "o")]
    pub typing: bool,
}

/// What others may learn of this account; whether it is online has a frame of its own, [`SetVisible`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SetSharing {
    /// How far its devices have received.
    #[serde(rename = "d")]
    pub delivered: bool,
    /// When it was last online. If not, the store forgets it.
    #[serde(rename = "l")]
    pub last_seen: bool,
}

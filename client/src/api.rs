//! What can be asked of a client, and what it tells: the same types for a call inside a process and
//! for one over the profile's socket (a JSON object a line).
//!
//! Ids are hexadecimal text here, because people and scripts copy them. Text from others is as it
//! came: whoever shows it passes it through [`crate::terminal`].

mod archive;
mod devices;
mod files;
mod groups;
mod history;
mod kinds;
mod receipts;

use crate::devices::archive::Share;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

pub(crate) use archive::to_hex;
pub use archive::{ARCHIVE_FORM, ArchiveLine, Archived};
pub use devices::{BackupAction, BackupView, DeviceView, HandoverView, ImportView, OfferView};
pub use files::{FilesView, PreviewView, SavedView, TransferView};
pub use groups::{
    GroupChange, GroupView, MemberView, PersonView, PictureChange, PictureView, ProgressView, RequestView,
    SharedView, UnreadView,
};
pub use history::{FoundView, Page, SearchQuery};
pub use kinds::{ExcerptView, GoneView, LINK, MessageChange};
pub use receipts::{PrivacyChange, PrivacyView, ReceiptView, ReceiptsView, TypingView};

/// What can be asked.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum Request {
    /// Who this profile is.
    WhoAmI,
    /// Stores a message and sends it as soon as that is possible. Answered by `Sent`
    /// once the server has it, or by `Waiting` after `wait_ms`. Repeating an `id` sends nothing twice.
    Send {
        /// 32 hexadecimal digits, drawn at random by the caller.
        id: String,
        /// An account's name, or a group: `#` and its name, or the beginning of its id.
        to: String,
        /// The text.
        text: String,
        /// The message that it answers: its number, its id or its link.
        #[serde(default)]
        reply: Option<String>,
        /// How long to wait for the server's word.
        wait_ms: u64,
    },
    /// Sends a file as soon as that is possible. Answered by `Sent` once the server has its message, or by
    /// `Waiting` after `wait_ms`. Repeating an `id` sends nothing twice.
    FileSend {
        /// 32 hexadecimal digits, drawn at random by the caller.
        id: String,
        /// As `to` of `Send`.
        to: String,
        /// The file: an absolute path of a file that stays as it is until it was sent.
        path: String,
        /// What others read as its name.
        name: String,
        /// Its media type.
        mime: String,
        /// What is said of it.
        #[serde(default)]
        caption: Option<String>,
        /// How it looks.
        #[serde(default)]
        preview: Option<PreviewView>,
        /// The file is removed when it was sent.
        #[serde(default)]
        spooled: bool,
        /// How long to wait for the server's word.
        wait_ms: u64,
    },
    /// Fetches a file. Answered by `Saved`, or by `Waiting` after `wait_ms`; it then goes on whenever there
    /// is a connection.
    FileGet {
        /// As `to` of `Send`.
        with: String,
        /// The message: its id, or its seq.
        message: String,
        /// Where to: an absolute path of a folder.
        folder: String,
        /// How long to wait for it.
        wait_ms: u64,
    },
    /// Files that were sent and received, and those on their way. Answered by `Files`.
    Files {
        /// As `to` of `Send`; `None` for all conversations.
        #[serde(default)]
        with: Option<String>,
        /// Of how many of the last messages, of each.
        limit: usize,
    },
    /// Gives up a file that is on its way. Answered by `Done`.
    FileCancel {
        /// Its id, or an unambiguous beginning.
        id: String,
    },
    /// A file's preview, as its sender made it: to be decoded with care. Answered by `Picture`.
    FilePreview {
        /// As `to` of `Send`.
        with: String,
        /// As in `FileGet`.
        message: String,
    },
    /// Changes a message that was sent. Answered as `Send` is: the change is a message, too.
    ChangeMessage {
        /// 32 hexadecimal digits, drawn at random by the caller.
        id: String,
        /// As `to` of `Send`.
        with: String,
        /// Its number, its id or its link.
        target: String,
        /// What.
        change: MessageChange,
        /// How long to wait for the server's word.
        wait_ms: u64,
    },
    /// What is written from now on is kept for a time only. Of a group this is a change to it, and answered
    /// as `GroupChange` is; between two it is answered as `Send` is.
    SetTimer {
        /// 32 hexadecimal digits, drawn at random by the caller.
        id: String,
        /// As `to` of `Send`.
        with: String,
        /// For how long, a year at most; 0: it stays.
        seconds: u32,
        /// How long to wait for the server's word.
        wait_ms: u64,
    },
    /// A message with those around it. Answered by `Messages`.
    Message {
        /// As `to` of `Send`; may be left out where `target` is an id or a link.
        #[serde(default)]
        with: Option<String>,
        /// Its number, its id or its link.
        target: String,
        /// How many on either side.
        #[serde(default)]
        around: usize,
    },
    /// The last messages of a conversation, or of each; or a page of one. Answered by `Messages`.
    History {
        /// As `to` of `Send`; `None` for all conversations.
        #[serde(default)]
        with: Option<String>,
        /// How many at most, of each.
        limit: usize,
        /// Another page than the last one.
        #[serde(default)]
        page: Page,
    },
    /// Looks for messages. Answered by `Found`.
    Search(SearchQuery),
    /// A page of an archive of what is here. Answered by `Exported`.
    Export {
        /// As `to` of `Send`; `None` for everything.
        #[serde(default)]
        with: Option<String>,
        /// What the page before said; the first page has none.
        #[serde(default)]
        after: Option<String>,
    },
    /// Takes lines of an archive in, all of them or none. Answered by `Imported`.
    Import {
        /// Whose archive it is: its first line says so.
        account: String,
        /// As they are in the file.
        lines: Vec<ArchiveLine>,
    },
    /// Messages of others that nobody has seen, oldest first. Answered by `Messages`.
    Unread {
        /// How many at most.
        limit: usize,
    },
    /// Everything up to this seq was seen. Answered by `Done`.
    MarkRead {
        /// Hexadecimal.
        conversation: String,
        /// The last seq that was seen.
        seq: u64,
    },
    /// All conversations. Answered by `Conversations`.
    Conversations,
    /// The safety number with an account. Answered by `Safety`.
    Verify {
        /// An account's name.
        name: String,
        /// Trust the identity that the server shows now.
        accept: bool,
    },
    /// What waits to be sent, and what failed. Answered by `Outbox`.
    Outbox,
    /// Takes a message back that no gateway has been offered. Answered by `Done`.
    OutboxCancel {
        /// Its id, or an unambiguous beginning.
        id: String,
    },
    /// Tries failed messages again. Answered by `Done`.
    OutboxRetry {
        /// One, or all.
        id: Option<String>,
    },
    /// Makes new keys for a conversation and waits until the server has them. Answered by `Done`.
    UpdateKeys {
        /// As `to` of `Send`.
        with: String,
    },
    /// Founds a group. Answered by `Group` once the server has it, with its name; or by `Waiting`.
    /// Repeating an `id` founds nothing twice.
    GroupCreate {
        /// 32 hexadecimal digits, drawn at random by the caller.
        id: String,
        /// What it is called.
        name: String,
        /// Names of accounts.
        members: Vec<String>,
        /// Its picture.
        #[serde(default)]
        picture: Option<PictureView>,
        /// Without post-quantum encryption, if there are too many devices for it.
        #[serde(default)]
        leave_post_quantum: bool,
        /// How long to wait for the server's word.
        wait_ms: u64,
    },
    /// The groups this account is in. Answered by `Groups`.
    Groups,
    /// A group and its members. Answered by `Group`.
    GroupInfo {
        /// As `to` of `Send`.
        group: String,
    },
    /// Changes a group's members. Answered by `Group` once it is done, or by `Waiting`: it is then done
    /// as soon as that is possible.
    GroupChange {
        /// As `to` of `Send`.
        group: String,
        /// What.
        change: GroupChange,
        /// How long to wait for the server's word.
        wait_ms: u64,
    },
    /// Hands the last messages from before they came to members of a group. Answered by `Group` once that
    /// is in the log, or by `Waiting`.
    GroupShare {
        /// As `to` of `Send`.
        group: String,
        /// Names.
        members: Vec<String>,
        /// How many messages.
        last: u32,
        /// How long to wait for the server's word.
        wait_ms: u64,
    },
    /// Changes a group's name or picture. Answered by `Group`, or by `Waiting`.
    GroupProfile {
        /// As `to` of `Send`.
        group: String,
        /// Another name.
        #[serde(default)]
        name: Option<String>,
        /// Another picture.
        #[serde(default)]
        picture: Option<PictureChange>,
        /// How long to wait for the server's word.
        wait_ms: u64,
    },
    /// A group's picture. Answered by `Picture`.
    GroupPicture {
        /// As `to` of `Send`.
        group: String,
    },
    /// What waits for a yes. Answered by `Requests`.
    Requests,
    /// Says yes or no. Yes is answered by `Sent` once the others are told, or by `Waiting`, and holds here
    /// at once; no by `Done`, or by `Waiting` where a group is still to be left.
    RequestAnswer {
        /// As `to` of `Send`.
        with: String,
        /// Yes.
        accept: bool,
        /// How long to wait for the server's word.
        wait_ms: u64,
    },
    /// Who may write without being asked for. Answered by `Policy`.
    RequestPolicy {
        /// `ask` or `open`; `None` only asks which it is.
        #[serde(default)]
        policy: Option<String>,
    },
    /// Blocks an account, or no longer. Answered by `Done`.
    Block {
        /// An account's name.
        name: String,
        /// It may not write to this account.
        blocked: bool,
        /// How long to wait for a connection.
        #[serde(default)]
        wait_ms: u64,
    },
    /// The blocked accounts. Answered by `Names`.
    Blocked,
    /// Who is online of those with whom there is a conversation. Answered by `Online`.
    Online {
        /// How long to wait for a connection.
        wait_ms: u64,
        /// Seconds for which comings and goings are told as well, as `Presence`; to be renewed by asking
        /// again.
        #[serde(default)]
        watch_s: u64,
    },
    /// Who has received and read a message. Answered by `Receipts`; by what this device knows, if there is
    /// no connection in time.
    Receipts {
        /// As `to` of `Send`.
        with: String,
        /// Its place; `None`: the last message of this account.
        #[serde(default)]
        seq: Option<u64>,
        /// How long to wait for a connection.
        #[serde(default)]
        wait_ms: u64,
    },
    /// Waits until every other member has a message on a device. Answered by `Receipts`: with nobody
    /// waiting, or after `wait_ms`.
    AwaitDelivered {
        /// As `to` of `Send`.
        with: String,
        /// Its place.
        seq: u64,
        /// How long to wait.
        wait_ms: u64,
    },
    /// Everything up to a place was read. Answered by `Done`.
    Read {
        /// As `to` of `Send`.
        with: String,
        /// `None`: all that is here.
        #[serde(default)]
        seq: Option<u64>,
    },
    /// The last message of others counts as unread again, on this device. Answered by `Done`.
    MarkUnread {
        /// As `to` of `Send`.
        with: String,
    },
    /// Tells the others that a person types here. Answered by `Done`; that they hear it is not promised.
    SetTyping {
        /// As `to` of `Send`.
        with: String,
        /// False: no longer.
        typing: bool,
        /// How long to wait for a connection.
        #[serde(default)]
        wait_ms: u64,
    },
    /// What others may learn of this account, after these changes. Answered by `Privacy`.
    Privacy {
        /// Nothing in it: only asks.
        #[serde(default)]
        change: PrivacyChange,
        /// How long to wait for a connection.
        #[serde(default)]
        wait_ms: u64,
    },
    /// Whether others may learn that this account is online. Answered by `Done`.
    SetVisible {
        /// They may.
        visible: bool,
        /// How long to wait for a connection.
        #[serde(default)]
        wait_ms: u64,
    },
    /// Replaces the server's auth key. Answered by `Done`.
    ChangePassword {
        /// The one in force.
        old: String,
        /// The one to come.
        new: String,
    },
    /// The devices of this account. Answered by `Devices`.
    Devices,
    /// Takes a device's right to speak for the account, for good. Answered by `Done`.
    RevokeDevice {
        /// Its id, or an unambiguous beginning.
        id: String,
    },
    /// Who wants to be linked under a code. Answered by `Offer`.
    LinkOffer {
        /// As the new device shows it.
        code: String,
    },
    /// Lists the device of an offer and hands it what it needs. Answered by `Done`; repeating it goes on.
    LinkGrant {
        /// As the new device shows it.
        code: String,
        /// The six digits that were compared.
        confirmation: String,
        /// How much of the history it gets.
        history: Share,
    },
    /// How far that is. Answered by `Handover`.
    LinkProgress,
    /// How far taking in is what another device or the backup has. Answered by `Import`.
    ImportProgress,
    /// How many conversations are not as they shall be. Answered by `Unsettled`.
    Unsettled,
    /// Makes a recovery code the account's only one. Answered by `Done` once the server has it.
    SetRecovery {
        /// The code.
        code: String,
    },
    /// About the backup of the history. Answered by `Backup`.
    Backup {
        /// What to do.
        action: BackupAction,
    },
    /// Ends the account for good. Answered by `Done`.
    DeleteAccount {
        /// Of the password in force.
        auth_key: String,
    },
    /// Waits until everything that the server had at the beginning of the session is here.
    /// Answered by `Status`.
    Synced {
        /// How long to wait.
        wait_ms: u64,
    },
    /// How things stand. Answered by `Status`.
    Status,
    /// Ends the owner of the profile. Answered by `Done`.
    Shutdown,
}

/// Answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Response {
    /// It is done.
    Done,
    /// To `WhoAmI`.
    WhoAmI(WhoAmI),
    /// The server has the message.
    Sent(SentView),
    /// The server does not have the message yet; it stays in the outbox.
    Waiting(WaitingView),
    /// Messages, oldest first.
    Messages {
        /// They.
        messages: Vec<MessageView>,
        /// There are older ones.
        #[serde(default)]
        older: bool,
        /// There are newer ones.
        #[serde(default)]
        newer: bool,
    },
    /// To `Search`.
    Found(FoundView),
    /// To `Export`.
    Exported {
        /// What the file gets.
        lines: Vec<ArchiveLine>,
        /// For the next page; `None` at the end.
        next: Option<String>,
    },
    /// To `Import`: messages.
    Imported {
        /// They are here now.
        new: u64,
        /// They have been here before.
        present: u64,
        /// They have disappeared meanwhile, and were not taken in.
        gone: u64,
    },
    /// To `Conversations`.
    Conversations {
        /// The last active one first.
        conversations: Vec<ConversationView>,
        /// What nobody has seen, by where it is.
        #[serde(default)]
        unread: UnreadView,
    },
    /// To `GroupCreate`, `GroupInfo`, `GroupChange` and `GroupProfile`.
    Group(GroupView),
    /// To `Groups`.
    Groups {
        /// By name.
        groups: Vec<GroupView>,
    },
    /// To `FileGet`.
    Saved(SavedView),
    /// To `Files`.
    Files(FilesView),
    /// To `GroupPicture` and `FilePreview`.
    Picture {
        /// `None` if there is none.
        picture: Option<PictureView>,
    },
    /// To `Requests`.
    Requests {
        /// The last active one first.
        requests: Vec<RequestView>,
    },
    /// To `RequestPolicy`.
    Policy {
        /// `ask` or `open`.
        policy: String,
    },
    /// To `Blocked`.
    Names {
        /// Of accounts.
        names: Vec<String>,
    },
    /// To `Online`.
    Online {
        /// By name.
        people: Vec<PersonView>,
    },
    /// To `Receipts` and `AwaitDelivered`.
    Receipts(ReceiptsView),
    /// To `Privacy`.
    Privacy(PrivacyView),
    /// To `Verify`.
    Safety(SafetyView),
    /// To `Outbox`.
    Outbox {
        /// In the order of sending.
        items: Vec<OutboxView>,
    },
    /// To `Devices`.
    Devices {
        /// Those in use first.
        devices: Vec<DeviceView>,
    },
    /// To `LinkOffer`.
    Offer(OfferView),
    /// To `LinkProgress`.
    Handover(HandoverView),
    /// To `ImportProgress`.
    Import(ImportView),
    /// To `Backup`.
    Backup(BackupView),
    /// To `Unsettled`.
    Unsettled {
        /// Conversations that this device has not joined yet, or whose members are still to be changed.
        conversations: usize,
    },
    /// To `Status`.
    Status(StatusView),
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// A row of a conversation reached this device, in order.
    Message(MessageView),
    /// Something that was shown is different now: edited, deleted, reacted to.
    Changed(MessageView),
    /// Something that was shown is gone: its time was over.
    Gone(GoneView),
    /// The server has a message of ours.
    Sent(SentView),
    /// A message waits, and why.
    Waiting(WaitingView),
    /// A message was refused for good; it stays in the outbox as failed.
    Failed(FailedView),
    /// Something takes long.
    Progress(ProgressView),
    /// A file on its way is further, waits, or failed.
    Transfer(TransferView),
    /// What was said before this account came into a group is here.
    Shared(SharedView),
    /// Somebody is online, or is not any more.
    Presence(PersonView),
    /// Somebody has received or read further.
    Receipt(ReceiptView),
    /// Somebody types, or no longer.
    Typing(TypingView),
    /// The connection came or went.
    Link(LinkView),
    /// Everything that was on the server is here.
    Synced,
    /// The client ends.
    Ended {
        /// Why; empty if it was asked to.
        reason: String,
        /// The category.
        kind: Option<ErrorKind>,
    },
}

/// A message, or a notice in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageView {
    /// The other party's name; for a group `#` and its name.
    pub with: String,
    /// Hexadecimal.
    pub conversation: String,
    /// The incarnation of the log. With it a place is never used twice.
    #[serde(default)]
    pub incarnation: u32,
    /// Its place in the log.
    pub seq: u64,
    /// `text`, `file`, `unknown`, `notice` (about the conversation) or `quarantine` (a row that cannot be
    /// read, and why).
    pub kind: MessageKind,
    /// Who sent it, from the encryption, not from the server; empty for notices.
    pub from: String,
    /// Sent by this account.
    pub own: bool,
    /// What it says.
    pub text: String,
    /// Milliseconds since 1970 by the server's clock; for display only.
    pub at_ms: u64,
    /// In a conversation to which nobody has said yes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub request: bool,
    /// What names the message for everybody: the sending device and its count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The id of the message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// How that message begins, if this device has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<ExcerptView>,
    /// Names of accounts that are to look.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<String>,
    /// It says something else than at first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub edited: bool,
    /// It was taken back; the text is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// Who has taken it back, if that was not its author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_by: Option<String>,
    /// What people think of it, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reactions: BTreeMap<String, String>,
    /// The file, of kind `file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileView>,
    /// Milliseconds since 1970 at which it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// Who says that this was said: it did not come from the encryption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_by: Option<String>,
}

/// A file, as its sender describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileView {
    /// Its name; never a path.
    pub name: String,
    /// Its media type.
    pub mime: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// There is a small picture of it.
    pub preview: bool,
}

/// What an entry of a conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// Text.
    Text,
    /// A file; the text is what is said of it.
    File,
    /// A message of a kind that this program does not know.
    Unknown,
    /// About the conversation.
    Notice,
    /// A row that cannot be read, and why.
    Quarantine,
}

/// Who a profile is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhoAmI {
    /// The account's name.
    pub name: String,
    /// Hexadecimal.
    pub account: String,
    /// Hexadecimal.
    pub device: String,
    /// The server's address.
    pub server: String,
    /// The deployment's name.
    pub deployment: String,
    /// SHA-256 of the identity key, hexadecimal.
    pub identity: String,
}

/// A message that the server has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SentView {
    /// The caller's.
    pub id: String,
    /// Hexadecimal.
    pub conversation: String,
    /// The first seq that it got.
    pub seq: u64,
    /// Milliseconds since 1970 by the server's clock.
    pub at_ms: u64,
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaitingView {
    /// The caller's.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// A message that was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailedView {
    /// The caller's.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// The connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkView {
    /// Whether there is one.
    pub up: bool,
    /// Why there is none.
    pub reason: String,
    /// When the next attempt is made.
    pub retry_ms: Option<u64>,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConversationView {
    /// Hexadecimal.
    pub conversation: String,
    /// The other party's name; for a group `#` and its name.
    pub with: String,
    /// `direct` or `group`.
    #[serde(default)]
    pub kind: String,
    /// Nobody has said yes to it.
    #[serde(default)]
    pub request: bool,
    /// Messages of others that nobody has seen.
    pub unread: u64,
    /// The last seq that is here.
    pub seq: u64,
    /// `ready`, `founding`, `rejoining`, `restoring` or `removed`.
    pub state: String,
    /// Seconds for which what is written now is kept; 0: it stays.
    #[serde(default)]
    pub timer_s: u32,
    /// The last message or notice.
    pub last: Option<MessageView>,
}

/// A safety number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SafetyView {
    /// The account's name.
    pub name: String,
    /// Twelve groups of five digits; the same on both sides.
    pub number: String,
    /// `unverified`, `verified` or `changed`.
    pub trust: String,
    /// The number with the identity that the server shows now, where it changed.
    pub changed_number: Option<String>,
    /// The devices that the number covers: the identity has signed their list.
    #[serde(default)]
    pub devices: Vec<DeviceView>,
}

/// An entry of the outbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutboxView {
    /// Hexadecimal.
    pub id: String,
    /// To whom.
    pub to: String,
    /// What.
    pub text: String,
    /// `waiting`, `offered` (a gateway may have it), `sent` (the server has it, the log has not been
    /// read up to it) or `failed`.
    pub state: String,
    /// Why it waits or failed.
    pub reason: Option<String>,
    /// Milliseconds since 1970, by this machine's clock.
    pub at_ms: u64,
}

/// How a client stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// There is a session.
    pub connected: bool,
    /// With which gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Everything that was on the server at the beginning of the session is here.
    pub synced: bool,
    /// Why there is no session.
    pub reason: Option<String>,
    /// The category of that reason, if no retry helps.
    pub ended: Option<ErrorKind>,
    /// One-time key packages that the server held when last heard of.
    pub key_packages: Option<u32>,
    /// Messages that wait.
    pub waiting: usize,
    /// Messages that failed.
    pub failed: usize,
    /// Rows that cannot be read.
    pub quarantined: u64,
}

/// The category of an error; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// A fault of this program or machine.
    Internal,
    /// The command was not understood, or makes no sense.
    Usage,
    /// The server cannot be reached or cannot answer.
    Network,
    /// Wrong password, locked profile, revoked device.
    Auth,
    /// Refused by a rule of the server.
    Refused,
    /// A key is not trusted, or changed.
    Untrusted,
    /// No such account, conversation or message.
    NotFound,
    /// No answer in time.
    Timeout,
    /// Stopped by a signal.
    Interrupted,
    /// The process that owned the profile ended before it answered: ask again.
    Gone,
}

impl ErrorKind {
    /// The process's exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Internal | Self::Gone => 1,
            Self::Usage => 2,
            Self::Network => 3,
            Self::Auth => 4,
            Self::Refused => 5,
            Self::Untrusted => 6,
            Self::NotFound => 7,
            Self::Timeout => 8,
            Self::Interrupted => 130,
        }
    }
}

/// Why something could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The category.
    pub kind: ErrorKind,
    /// A sentence for a person.
    pub message: String,
}

impl ApiError {
    /// Makes one.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A fault of this program or machine.
    pub fn internal(error: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Internal, error.to_string())
    }
}

impl From<crate::link::LinkError> for ApiError {
    fn from(error: crate::link::LinkError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only the method: the others hold text and keys.
        let value = serde_json::to_value(self).unwrap_or_default();
        f.debug_tuple("Request").field(&value["method"].as_str().unwrap_or("?")).finish()
    }
}

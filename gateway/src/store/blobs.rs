//! Files beside conversations: blobs of sealed parts, tokens that open transfers, what sweeping needs.
//!
//! - Whether somebody may is decided in the statement that answers, as for the log: membership,
//!   revocation and the operator's decision hold at once.
//! - A blob is open (parts come), complete (nothing changes any more), doomed (the sweep removes it).
//! - The store always knows which parts there are. Their bytes are with them, or `outside` in object
//!   storage, put there before the row.

use super::{Result, operate::ShutOut};
use async_trait::async_trait;
use bytes::Bytes;
use fastchat_protocol::{AccountId, BlobId, ConversationId, DeviceId, Seq};
use std::collections::HashSet;

/// Parts that one call of the sweep removes at most: some megabytes.
pub const SWEEP_PARTS: i64 = 64;
/// Blobs and tokens that one call of the sweep takes up at most.
pub const SWEEP_ROWS: i64 = 256;

/// Blobs, their parts and their tokens.
#[async_trait]
pub trait Blobs: std::fmt::Debug + Send + Sync {
    /// Begins a blob, or goes on with it. Sizes count against `quota_bytes`, unless the account has a
    /// quota of its own.
    async fn begin_blob(&self, new: NewBlob, quota_bytes: u64) -> Result<Begun>;
    /// A complete blob that the device may fetch.
    async fn blob(&self, device: DeviceId, key: BlobKey) -> Result<Option<Blob>>;
    /// Ends a blob that the device has begun: from then on nothing of it changes.
    async fn finish_blob(&self, device: DeviceId, key: BlobKey) -> Result<Finished>;
    /// Dooms a blob: for the account that put it, or an admin or the owner of the group.
    async fn drop_blob(&self, device: DeviceId, key: BlobKey) -> Result<Dropped>;

    /// Keeps a token.
    async fn put_token(&self, token: NewToken) -> Result<()>;
    /// What a token is for, and how everything stands that its use depends on; `None` if it is not
    /// known or has expired.
    async fn transfer(&self, token_hash: [u8; 32]) -> Result<Option<Transfer>>;
    /// Notes a part of an open blob, with its bytes unless they are outside.
    async fn put_part(&self, key: BlobKey, part: NewPart) -> Result<PutPart>;
    /// A part that is there.
    async fn part(&self, key: BlobKey, part: u32) -> Result<Option<Part>>;

    /// Dooms blobs that were open for too long, or complete for longer than `keep_days` (0 keeps them);
    /// a bounded number, and says how many.
    async fn doom_blobs(&self, keep_days: u32) -> Result<u64>;
    /// Blobs that were doomed at least so many seconds ago, the oldest first.
    async fn doomed_blobs(&self, outside: bool, since_s: u32) -> Result<Vec<BlobKey>>;
    /// Removes some parts of a doomed blob; once there are none, the blob. True when it is gone, or
    /// somebody else is at it.
    async fn forget_blob(&self, key: BlobKey) -> Result<bool>;
    /// What object storage may hold of a blob.
    async fn known_blob(&self, key: BlobKey) -> Result<Known>;
    /// Dooms a blob that nobody knows and that has bytes in object storage; nothing if it is known by now.
    async fn doom_unknown(&self, key: BlobKey) -> Result<()>;
    /// Removes expired tokens; a bounded number, and says how many.
    async fn sweep_tokens(&self) -> Result<u64>;
    /// How much there is, for metrics.
    async fn blob_totals(&self) -> Result<Totals>;
}

/// Which blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlobKey {
    /// Beside which conversation.
    pub conversation: ConversationId,
    /// Drawn by the client.
    pub blob: BlobId,
}

/// A blob to begin.
#[derive(Debug, Clone, Copy)]
pub struct NewBlob {
    /// Which.
    pub key: BlobKey,
    /// The authenticated device, and its account.
    pub device: DeviceId,
    /// See `device`.
    pub account: AccountId,
    /// Bytes of all parts together.
    pub size_bytes: u64,
    /// Parts.
    pub parts: u32,
    /// Its bytes will be in object storage.
    pub outside: bool,
}

/// A blob that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// Bytes of all parts together.
    pub size_bytes: u64,
    /// Parts.
    pub parts: u32,
}

/// What became of a beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It is open; these parts are there.
    Open(Vec<u32>),
    /// It was finished before.
    Complete,
    /// Not a member, or the device is not to be served.
    NotMember,
    /// The other party of a direct conversation has blocked the account.
    NotAccepted,
    /// Another device's, or begun with other sizes.
    Conflict,
    /// It was dropped, or is past its time.
    Gone,
    /// The account keeps so many bytes already, of so many.
    Full {
        /// That are kept, or announced.
        used_bytes: u64,
        /// That may be kept.
        quota_bytes: u64,
    },
}

/// What became of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// It is complete.
    Done,
    /// This part is missing, and perhaps more.
    Missing(u32),
    /// The parts have so many bytes, and not as many as was said.
    OtherSize(u64),
    /// Not a member any more.
    NotMember,
    /// No such blob of this device.
    NoBlob,
}

/// What became of a drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It is doomed, or was.
    Done,
    /// A member's role does not allow it.
    Forbidden,
    /// No such blob for this account.
    NoBlob,
}

/// What the store knows of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// There is no such blob.
    Nothing,
    /// It is open, or doomed.
    Changing,
    /// It has these parts in object storage, by number and hash, and will never have others.
    Complete(HashSet<(u32, [u8; 32])>),
}

/// A token to keep.
#[derive(Debug, Clone, Copy)]
pub struct NewToken {
    /// SHA-256 of it.
    pub hash: [u8; 32],
    /// What it is for.
    pub key: BlobKey,
    /// Who may use it.
    pub device: DeviceId,
    /// To put parts; otherwise to fetch them.
    pub puts: bool,
    /// For how long.
    pub lasts_s: u32,
}

/// What a token is for, and how that stands now. [`Transfer::may`] judges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Which blob.
    pub key: BlobKey,
    /// Who uses it.
    pub device: DeviceId,
    /// Whose device that is.
    pub account: AccountId,
    /// To put parts; otherwise to fetch them.
    pub puts: bool,
    /// The device, or its account, may do nothing any more.
    pub shut_out: Option<ShutOut>,
    /// The account is a member now.
    pub member: bool,
    /// The other party of a direct conversation has blocked it.
    pub barred: bool,
    /// The last row that a former member may read.
    pub to_seq: Option<Seq>,
    /// How the blob stands, unless it is gone.
    pub blob: Option<Standing>,
}

/// How a blob stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The device that puts it.
    pub device: DeviceId,
    /// Bytes and parts.
    pub blob: Blob,
    /// In object storage.
    pub outside: bool,
    /// All parts are there; the conversation's head then.
    pub finished: Option<Seq>,
}

/// Why a transfer may not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The device is revoked, or the account disabled.
    ShutOut(ShutOut),
    /// The account is not a member, or was not when the blob was finished.
    NotMember,
    /// The token is for the other direction.
    OtherDirection,
    /// The blob is gone, or there is nothing to fetch yet.
    NoBlob,
}

impl Transfer {
    /// Whether this may be: the one place that says so, asked with each part and for each grant.
    pub fn may(&self, puts: bool) -> std::result::Result<Standing, Denied> {
        if let Some(why) = self.shut_out {
            return Err(Denied::ShutOut(why));
        }
        if puts != self.puts {
            return Err(Denied::OtherDirection);
        }
        let standing = self.blob.ok_or(Denied::NoBlob);
        if puts {
            let standing =
                standing.and_then(|s| if s.device == self.device { Ok(s) } else { Err(Denied::NoBlob) });
            return if self.member && !self.barred { standing } else { Err(Denied::NotMember) };
        }
        let standing = standing?;
        let finished = standing.finished.ok_or(Denied::NoBlob)?;
        // The row that put a member out comes after the head of every blob that it may have.
        let was_there = self.to_seq.is_some_and(|out| out > finished);
        if self.member || was_there { Ok(standing) } else { Err(Denied::NotMember) }
    }
}

/// A part to keep.
#[derive(Debug, Clone)]
pub struct NewPart {
    /// Its number.
    pub number: u32,
    /// SHA-256 of its bytes.
    pub hash: [u8; 32],
    /// How many there are.
    pub size_bytes: u64,
    /// They, unless they are in object storage.
    pub bytes: Option<Bytes>,
}

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutPart {
    /// It is there now.
    Stored,
    /// It was there before, with the same bytes.
    Same,
    /// Other bytes are there, or the blob is complete.
    Other,
    /// More than was announced.
    TooLarge,
    /// No such blob.
    NoBlob,
}

/// A part that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// SHA-256 of its bytes.
    pub hash: [u8; 32],
    /// How many there are.
    pub size_bytes: u64,
    /// They, unless they are in object storage.
    pub bytes: Option<Bytes>,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Complete blobs.
    pub complete: u64,
    /// Their bytes.
    pub complete_bytes: u64,
    /// Blobs that are open.
    pub open: u64,
    /// Blobs that wait for the sweep.
    pub doomed: u64,
}

//! Every bound of the protocol: a name, a number, a reason. The gateway says its own in `Hello`.

/// Levels of nesting that a frame may have. The deepest frame of ours has six.
pub const MAX_DEPTH: usize = 16;
/// Levels of nesting in local state that this program wrote itself.
pub const MAX_LOCAL_DEPTH: usize = 128;

/// Bytes of a frame before the device is known: a registration is about 3 KB.
pub const MAX_FRAME_UNAUTHENTICATED: usize = 16 * 1024;
/// Bytes of any frame: a founding with fifty members in the post-quantum suite is about 300 KB.
pub const MAX_FRAME: usize = 1024 * 1024;
/// Bytes of one application envelope: text, reactions, keys of attachments; files go as blobs.
pub const MAX_ENVELOPE: usize = 64 * 1024;
/// Bytes of one commit; larger additions are split by the client.
pub const MAX_COMMIT: usize = 640 * 1024;
/// Bytes of public group information and of a ratchet tree.
pub const MAX_TREE: usize = 768 * 1024;
/// Envelopes up to here travel live; larger ones as a pointer into the log.
pub const MAX_LIVE_ENVELOPE: usize = 32 * 1024;
/// Bytes of a signed manifest: thirty-two devices and two RSA keys are about 3 KB.
pub const MAX_MANIFEST: usize = 8 * 1024;

/// Rows of one page of a log; the page also ends at [`MAX_PAGE_BYTES`].
pub const MAX_PAGE_ROWS: u32 = 256;
/// Bytes of envelopes in one page, so that a page fits a frame.
pub const MAX_PAGE_BYTES: usize = 512 * 1024;
/// Cursors in one `Ack`.
pub const MAX_CURSORS: usize = 256;
/// Conversations in one page of `Sync`.
pub const MAX_SYNC_CONVERSATIONS: u32 = 256;
/// Key packages in one `PublishKeyPackages`: 25 of 2.7 KB are well within a frame.
pub const MAX_KEY_PACKAGES: usize = 32;
/// One-time key packages that a device may keep in the directory, per suite.
pub const MAX_STORED_KEY_PACKAGES: u32 = 200;
/// Sends that a client may have in flight on one conversation; more are refused by their counter.
pub const MAX_PIPELINE: usize = 64;

/// Accounts of a group.
pub const MAX_MEMBERS: usize = 1024;
/// Member devices of a group in the classical suite.
pub const MAX_GROUP_DEVICES: usize = 1024;
/// Member devices of a group in the post-quantum suite, whose commits grow by 2 KB a device.
pub const MAX_PQ_DEVICES: usize = 64;
/// Devices that one commit adds; a founding is not stored in the log and may bring all of them.
pub const MAX_ADDS: usize = 50;
/// Accounts in one `AskPresence`.
pub const MAX_PRESENCE: usize = 64;
/// Seconds for which one `AskPresence` watches at most: a client that shows people asks again.
pub const MAX_WATCH_S: u32 = 120;
/// Accounts of a conversation whose receipts and typing are told live: what each of n members does
/// goes to n others. In larger ones receipts are asked for, and nobody sees who types.
pub const MAX_RECEIPT_MEMBERS: usize = 64;
/// Seconds between two notes of a device that it types in a conversation; further ones are dropped.
pub const TYPING_INTERVAL_S: u64 = 3;
/// Bytes of one part of a slot.
pub const MAX_SLOT_PART: usize = 512 * 1024;
/// Bytes of all slots of an account: a history backup of about a hundred thousand messages.
pub const MAX_SLOTS: usize = 64 * 1024 * 1024;
/// Bytes of one sealed part of a blob: 256 KiB and what sealing adds, with room. A gateway holds a few of
/// them at a time for each transfer, and no more.
pub const MAX_BLOB_PART: usize = 256 * 1024 + 64;
/// Parts of one blob: one of 100 MiB has about 400; the bit set of parts that are there has 8 KiB.
pub const MAX_BLOB_PARTS: u32 = 64 * 1024;
/// Seconds for which a token of a transfer is good; whoever needs longer asks again.
pub const BLOB_TOKEN_SECONDS: u32 = 60 * 60;
/// Hours for which a blob that is not complete is kept.
pub const BLOB_UNFINISHED_HOURS: u32 = 24;
/// Bytes of what a recovery code opens: two RSA keys and a seed are about 4 KB.
pub const MAX_RECOVERY: usize = 16 * 1024;

/// Characters of an account name.
pub const MAX_NAME: usize = 32;
/// Characters of an auth key: 32 bytes in base64url without padding. Longer would pass bcrypt's 72.
pub const AUTH_KEY_CHARS: usize = 43;
/// Seconds for which a challenge may be answered.
pub const CHALLENGE_SECONDS: u64 = 30;

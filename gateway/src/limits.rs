//! The gateway's own bounds: a name, a number, a reason. Those of the wire are in `protocol::limits`.

use std::time::Duration;

/// Time for a TLS handshake, for the HTTP request, and for `Hello` after it. Slow sockets end here.
pub const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that hyper may buffer of a request before the upgrade; its own minimum.
pub const HTTP_BUFFER: usize = 8 * 1024;
/// Bytes of the standing read buffer of a WebSocket, which takes so many at a time from what was read of
/// its socket. The library's default costs 128 KB each.
pub const READ_BUFFER: usize = 256;
/// Bytes that are read of a socket at a time, into one buffer a thread. What the library has not taken is
/// kept meanwhile: in the worst case so much for each connection.
pub const SCRATCH: usize = 4 * 1024;
/// Bytes of frames that the WebSocket library gathers before it writes; allocated when needed.
pub const WRITE_BUFFER: usize = 8 * 1024;
/// Bytes that may wait inside the WebSocket library beyond what it is told to write at once.
pub const MAX_WRITE_BUFFER: usize = 2 * 1024 * 1024;

/// How long after the one before a batch of the writer begins, where many messages come.
pub const BATCH_WAIT: Duration = Duration::from_millis(7);

/// Bytes of frames that may wait for one connection. A reader that is slower loses live copies and
/// catches up from the log.
pub const QUEUE_BYTES: usize = 512 * 1024;
/// Frames that may wait for one connection.
pub const QUEUE_FRAMES: usize = 1024;
/// A write that takes longer ends the connection.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client that was told the reason may go on sending before its socket is closed.
pub const LINGER: Duration = Duration::from_secs(1);
/// Bytes of such a client that are read and dropped.
pub const LINGER_BYTES: usize = 8 * 1024 * 1024;
/// Pings without an answer before the connection is given up.
pub const MISSED_PINGS: u32 = 2;

/// How long cursors wait for others before they are stored together.
pub const CURSOR_FLUSH: Duration = Duration::from_millis(200);
/// How long they wait after a flush of [`MANY_CURSORS`]: a device in a stream of messages then costs a row
/// a second, and not one for each message.
pub const CURSOR_FLUSH_BUSY: Duration = Duration::from_secs(1);
/// Cursors of one flush from which on the gateway is busy with them.
pub const MANY_CURSORS: usize = 32;
/// Cursors of one device that may wait; further ones are dropped, the device acks again.
pub const MAX_WAITING_CURSORS: usize = 256;
/// Read positions that may wait; further ones are refused, and told again.
pub const MAX_WAITING_MARKS: usize = 20_000;
/// Devices whose cursors may wait.
pub const MAX_WAITING_DEVICES: usize = 50_000;
/// Sockets without a session at a time, and of one address: slow ones must not use up descriptors.
pub const MAX_UNIDENTIFIED: usize = 4_096;

/// Questions about devices that connect, at a time, of each kind: more would only make each of them smaller.
pub const LOOKUP_LANES: usize = 2;
/// Devices that one of these questions asks for, at most.
pub const LOOKUP_BATCH: usize = 64;

/// Parts of a slot: more than the bytes of all slots fill.
pub const MAX_SLOT_PARTS: u32 = 1_024;
/// Sessions without a device at a time: each has proved a password or a recovery code.
pub const MAX_GUESTS: usize = 512;
/// How long a session without a device lasts: two people compare six digits meanwhile.
pub const GUEST_TIME: Duration = Duration::from_secs(600);

/// Connections that transfer files, at a time: they do not take places of those that wait for a session.
/// Each holds a part in memory at most, 64 MiB in all.
pub const MAX_TRANSFERS: usize = 256;
/// Parts of one account that are on their way here at a time.
pub const MAX_TRANSFERS_OF_ACCOUNT: u32 = 16;
/// A transfer in which nothing moves for so long is given up.
pub const TRANSFER_STALL: Duration = Duration::from_secs(30);
/// Time for one part: slower than a kilobyte a second is not served.
pub const TRANSFER_PART: Duration = Duration::from_secs(240);
/// Bytes of a body that is refused which are read and dropped, so that the client reads why.
pub const TRANSFER_DISCARD: usize = 512 * 1024;
/// A part of a blob has this many bytes on average at least: a blob has no more parts than it needs.
pub const MIN_BLOB_PART: u64 = 16 * 1024;

/// Rows of one group that wait until it is known who may have them; the readers of further ones are
/// told the head instead.
pub const HELD_ROWS: usize = 64;
/// Groups whose readers are asked for at a time: what the store's connections bear beside other work.
pub const MAX_RELOADS: usize = 4;
/// Between attempts to ask for a group's readers.
pub const RELOAD_RETRY: Duration = Duration::from_millis(500);
/// How long a head check waits for a group's row that may be on the bus.
pub const HEAD_GRACE: Duration = Duration::from_millis(250);

/// For how long it is remembered who hears of a conversation's receipts and typing, and at most twice as
/// long: so soon a block works on them.
pub const CIRCLE_TTL: Duration = Duration::from_secs(5);
/// Conversations of which that is remembered: about 100 bytes each.
pub const MAX_CIRCLES: usize = 50_000;
/// Conversations in which one connection's last note of typing is remembered.
pub const MAX_TYPING: usize = 64;

/// How long who was online waits for others before it is stored.
pub const SEEN_FLUSH: Duration = Duration::from_secs(2);
/// Between notes of those who stay online: what a gateway that dies takes with it.
pub const SEEN_INTERVAL: Duration = Duration::from_secs(300);
/// Accounts that may wait to be noted.
pub const MAX_SEEN: usize = 100_000;
/// How long an account may be away before that is told: a reconnect is no news.
pub const PRESENCE_LINGER: Duration = Duration::from_secs(5);
/// How long other gateways may take to say that somebody is online, until it counts as away.
pub const PRESENCE_ANSWER: Duration = Duration::from_secs(2);
/// For how long a gateway believes another's word that somebody is online before it asks again for the
/// next watcher.
pub const PRESENCE_TRUST: Duration = Duration::from_secs(15);
/// Accounts that one connection may watch.
pub const MAX_WATCHED: usize = 256;
/// Who may watch one account from, or be told of it by, one gateway: what a going costs.
pub const MAX_WATCHERS: usize = 256;

/// Passwords that may wait for a hashing thread; each takes about 0.1 s.
pub const MAX_WAITING_HASHES: usize = 64;

/// Cost of bcrypt. The auth key is already the outcome of Argon2id on the client.
pub const BCRYPT_COST: u32 = 10;

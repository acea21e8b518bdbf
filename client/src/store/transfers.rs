//! Files on their way: what is needed to go on after a crash at any moment.

use super::{Changed, ItemId, Result, Tx};
use fastchat_e2ee::FileInfo;
use fastchat_protocol::{AccountId, ConversationId};
use rusqlite::params;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A file that goes out or comes in. Its id is the caller's; a file that goes out gives it to its message.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// See above.
    pub id: ItemId,
    /// Milliseconds since 1970 by this machine's clock.
    pub at_ms: u64,
    /// Where; none before there is a conversation.
    pub conversation: Option<ConversationId>,
    /// What; its size and hash are known once it was measured.
    pub file: FileInfo,
    /// Which way.
    pub direction: Direction,
    /// Why it ended, for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// Which way a file goes.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub enum Direction {
    /// To others.
    Out {
        /// To whom, as was typed.
        to: String,
        /// The file, absolute.
        path: String,
        /// The file was made for this and goes when it was sent.
        spooled: bool,
        /// Size and hash are the file's.
        measured: bool,
    },
    /// To this device.
    In {
        /// The folder, absolute.
        folder: String,
        /// Who sent it.
        from: String,
    },
    /// What was said before they came, to newcomers. It is packed anew whenever it is begun, so that
    /// nothing of it lies about and what has changed meanwhile goes as it is now.
    HistoryOut {
        /// To whom.
        accounts: Vec<AccountId>,
        /// How many messages are wanted.
        wanted: u32,
        /// How many were packed.
        count: u32,
    },
    /// The same, to this device.
    HistoryIn {
        /// By whom, and which row says so.
        row: Changed,
        /// How many messages that row says.
        count: u32,
    },
}

impl Direction {
    /// To others.
    pub fn is_out(&self) -> bool {
        matches!(self, Self::Out { .. } | Self::HistoryOut { .. })
    }
}

/// Limit: blobs that the server is still to be asked to drop. Their time there ends in any case.
const MAX_UNWANTED: usize = 1024;
const UNWANTED: &str = "unwanted-blobs";

impl Tx<'_> {
    /// Blobs that nobody needs any more, until the server was asked to drop them.
    pub fn unwanted(&self) -> Result<Vec<(ConversationId, [u8; 16])>> {
        Ok(self.setting(UNWANTED)?.unwrap_or_default())
    }

    /// Notes a blob that nobody needs any more.
    pub fn add_unwanted(&self, conversation: ConversationId, blob: [u8; 16]) -> Result<()> {
        let mut blobs = self.unwanted()?;
        blobs.push((conversation, blob));
        let over = blobs.len().saturating_sub(MAX_UNWANTED);
        blobs.drain(..over);
        self.set_setting(UNWANTED, &blobs)
    }

    /// The server was asked to drop a blob.
    pub fn forget_unwanted(&self, blob: [u8; 16]) -> Result<()> {
        let mut blobs = self.unwanted()?;
        let before = blobs.len();
        blobs.retain(|(_, other)| *other != blob);
        if blobs.len() < before { self.set_setting(UNWANTED, &blobs) } else { Ok(()) }
    }

    /// Writes a transfer, replacing what was known of it.
    pub fn put_transfer(&self, transfer: &Transfer) -> Result<()> {
        let key = self.index("transfer", &transfer.id.0);
        let sql = "INSERT INTO transfers VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2";
        self.conn.prepare_cached(sql)?.execute(params![key, self.seal(&key, transfer)?])?;
        Ok(())
    }

    /// Forgets a transfer.
    pub fn delete_transfer(&self, id: ItemId) -> Result<()> {
        let key = self.index("transfer", &id.0);
        self.conn.prepare_cached("DELETE FROM transfers WHERE key = ?1")?.execute(params![key])?;
        Ok(())
    }

    /// All transfers.
    pub fn transfers(&self) -> Result<Vec<Transfer>> {
        let mut query = self.conn.prepare_cached("SELECT key, value FROM transfers")?;
        let rows = query.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        rows.map(|row| {
            let (key, value) = row?;
            self.unseal(&key, &value)
        })
        .collect()
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").field("id", &self.id).field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl fmt::Debug for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Out { .. } => "Out",
            Self::In { .. } => "In",
            Self::HistoryOut { .. } => "HistoryOut",
            Self::HistoryIn { .. } => "HistoryIn",
        })
    }
}

//! What may be kept of files and of logs.

use super::{ConfigError, Settings, Storage, between};
use fastchat_protocol::limits::{MAX_BLOB_PART, MAX_BLOB_PARTS};
use std::time::Duration;

/// Bytes of files of one account at most, whatever is set: what no disk of ours holds.
pub const MAX_BLOB_QUOTA: u64 = 1 << 50;
/// 100 MiB, and 12 % for sealing and padding.
const USUAL_BLOB: u64 = 112 * 1024 * 1024;
const USUAL_QUOTA: u64 = 1024 * 1024 * 1024;
const USUAL_DAYS: u32 = 30;
/// A hundred years.
const MOST_DAYS: u32 = 36_500;

/// What files may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRules {
    /// Sealed bytes of one.
    pub max_bytes: u64,
    /// Bytes of one account, unless it has a quota of its own.
    pub quota_bytes: u64,
    /// For how long one is kept; 0 for ever.
    pub keep_days: u32,
    /// Where the bytes are.
    pub storage: Storage,
}

/// What becomes of old rows of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Rows that are older go; 0 keeps them for ever.
    pub log_days: u32,
    /// But only those that every device has that is still about.
    pub below_cursors: bool,
}

impl Settings {
    pub(super) fn blob_rules(&self) -> Result<BlobRules, ConfigError> {
        let most = MAX_BLOB_PART as u64 * u64::from(MAX_BLOB_PARTS);
        let max_bytes = self.blob_max_bytes.unwrap_or(USUAL_BLOB);
        Ok(BlobRules {
            max_bytes: between("blob_max_bytes", max_bytes, MAX_BLOB_PART as u64, most)?,
            quota_bytes: between(
                "blob_quota_bytes",
                self.blob_quota_bytes.unwrap_or(USUAL_QUOTA),
                0,
                MAX_BLOB_QUOTA,
            )?,
            keep_days: between("blob_keep_days", self.blob_keep_days.unwrap_or(USUAL_DAYS), 0, MOST_DAYS)?,
            storage: self.storage()?,
        })
    }

    pub(super) fn retention(&self) -> Result<Retention, ConfigError> {
        let log_days = self.retention_log_days.unwrap_or(0);
        Ok(Retention {
            log_days: between("retention_log_days", log_days, 0, MOST_DAYS)?,
            below_cursors: self.retention_below_cursors.unwrap_or(true),
        })
    }

    /// Between sweeps.
    pub(super) fn sweep_interval(&self) -> Result<Duration, ConfigError> {
        between("sweep_seconds", self.sweep_seconds.unwrap_or(60), 1, 3_600).map(Duration::from_secs)
    }
}

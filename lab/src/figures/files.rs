//! What a run says of files.

use super::Percentiles;
use crate::tally::Tally;
use serde::{Deserialize, Serialize};

/// Of files: messages that bring them are counted with the others, and measured here alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileFigures {
    /// From due until all of it was on the server, where a file goes beside its message.
    pub uploaded_us: Percentiles,
    /// From due until the message that brings it was acknowledged.
    pub announced_us: Percentiles,
    /// From due until somebody had all of it.
    pub fetched_us: Percentiles,
    /// Megabytes a second onto the server.
    pub uploaded_mb_per_s: f64,
    /// Megabytes a second to those who fetch.
    pub fetched_mb_per_s: f64,
    /// Processor time of the servers for a megabyte that was fetched, microseconds; of runs with nothing
    /// but files.
    pub server_cpu_us_per_mb: Option<f64>,
}

impl FileFigures {
    pub(super) fn of(tally: &Tally, measured_s: f64, servers: &dyn Fn(f64) -> Option<f64>) -> Option<Self> {
        let files = &tally.files;
        if files.announced.is_empty() {
            return None;
        }
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let alone = tally.acked.is_empty() && files.fetched_bytes > 0;
        Some(Self {
            uploaded_us: Percentiles::of(&files.uploaded),
            announced_us: Percentiles::of(&files.announced),
            fetched_us: Percentiles::of(&files.fetched),
            uploaded_mb_per_s: mb(files.uploaded_bytes) / measured_s,
            fetched_mb_per_s: mb(files.fetched_bytes) / measured_s,
            server_cpu_us_per_mb: alone.then(|| servers(mb(files.fetched_bytes))).flatten(),
        })
    }
}

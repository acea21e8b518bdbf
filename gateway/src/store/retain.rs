//! What retention asks of the store: old rows go from the front of a log, in bounded steps.
//!
//! - A conversation keeps its head and its counters, so that no seq and no message id is used again.
//! - One gateway at a time does this work, by a lease; two at a time would only do some of it twice.

use super::Result;
use async_trait::async_trait;
use fastchat_protocol::{ConversationId, DeviceId, GatewayId, Seq};

/// Conversations that one look takes in.
pub const LOOK_AT: i64 = 256;
/// Rows of a log that go at a time.
pub const ROWS_AT_A_TIME: i64 = 500;
/// Days without a connection after which retention does not wait for a device any more.
pub const IDLE_DAYS: u64 = 90;
/// Hours for which a device counts as seen.
pub const SEEN_HOURS: u64 = 24;

/// Old rows, devices that are still about, and who does the work.
#[async_trait]
pub trait Retain: std::fmt::Debug + Send + Sync {
    /// Takes or keeps a lease; false if another gateway has it.
    async fn hold_lease(&self, name: &str, holder: GatewayId, lasts_s: u32) -> Result<bool>;
    /// These devices are connected, or were just now.
    async fn devices_seen(&self, devices: &[DeviceId]) -> Result<()>;
    /// Looks at the first rows of the logs after `after`, in the order of ids.
    async fn fronts(&self, after: Option<ConversationId>, log_days: u32) -> Result<Fronts>;
    /// Removes rows older than `log_days` from the front of a log, at most [`ROWS_AT_A_TIME`]; with
    /// `below_cursors` only what every device has acked that may read on, is not revoked and was seen
    /// within [`IDLE_DAYS`]. Says how many.
    async fn retire_rows(
        &self,
        conversation: ConversationId,
        log_days: u32,
        below_cursors: bool,
    ) -> Result<u64>;
    /// The least cursor of such devices; `None` if there is none.
    async fn least_cursor(&self, conversation: ConversationId) -> Result<Option<Seq>>;
}

/// What a look has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fronts {
    /// Logs whose first row is old.
    pub old: Vec<ConversationId>,
    /// The last conversation that was looked at; `None` after the last of all.
    pub last: Option<ConversationId>,
}

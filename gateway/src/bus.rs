//! Live traffic between gateways, behind one trait with two implementations.
//!
//! - [`nats`] for fleets, [`local`] for the embedded default; one contract suite
//!   (`tests/bus_contract.rs`) runs on both.
//! - A bus is a hint: it may lose, double and delay. What it loses, head checks bring back.
//! - A gateway does not hear its own records: it serves its own connections directly.
//! - Publishing never waits. A full or broken bus drops the record and says so in a metric.

pub mod events;
pub mod local;
pub mod nats;

use async_trait::async_trait;
use bytes::Bytes;
use fastchat_protocol::bus::Subject;

pub use events::BusEvents;
pub use nats::FleetLink;

/// One gateway's end of the bus. Events come from the [`BusEvents`] that the constructor returns.
#[async_trait]
pub trait Bus: std::fmt::Debug + Send + Sync + 'static {
    /// Hands a record to the bus without waiting. Lost if the bus is down or its queue is full.
    fn publish(&self, subject: Subject, record: Bytes);
    /// Subscribes, and returns when records published from now on will arrive (a round trip to the
    /// server), or after at most a second when the bus is slow. While the bus is down it returns at
    /// once; the subscription is made when the bus is back, and `Restored` follows it. Subscribing
    /// again changes nothing.
    ///
    /// Cancel safety: a dropped call leaves the subscription in place, like one that returned.
    async fn subscribe(&self, subject: Subject);
    /// Subscribes to all of these with one wait, as [`subscribe`](Bus::subscribe).
    async fn subscribe_all(&self, subjects: &[Subject]);
    /// Ends a subscription. Records that wait in the event queue still come out.
    fn unsubscribe(&self, subject: Subject);
    /// Whether the bus can carry records at the moment.
    fn is_up(&self) -> bool;
    /// How many records wait at the moment.
    fn waiting(&self) -> Waiting;
    /// The fleet's subjects, on a bus that balancers are on. Within one process there are none.
    fn fleet(&self) -> Option<FleetLink> {
        None
    }
}

/// Records that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// To be published, of [`PUBLISH_QUEUE`].
    pub publishes: usize,
    /// For the gateway, of [`EVENT_QUEUE`].
    pub events: usize,
}

/// What the bus tells its gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusEvent {
    /// A record that another gateway published.
    Record {
        /// Where it was published.
        subject: Subject,
        /// A `protocol::bus::BusFrame`; not yet checked.
        record: Bytes,
    },
    /// Records may have been lost: the bus was away and is back, or it dropped some for slowness.
    /// A NATS bus says so after its first connection as well: records were lost until then.
    Restored(Loss),
    /// The bus went away.
    Down,
}

/// Why records may have been lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The connection to the bus was lost and is there again, with all subscriptions.
    Reconnected,
    /// This gateway did not keep up.
    SlowConsumer,
}

/// How many records may wait for the gateway. A full queue loses records and says `SlowConsumer`.
pub const EVENT_QUEUE: usize = 16_384;

/// How many records may wait to be published. More are dropped: the log has them.
pub const PUBLISH_QUEUE: usize = 4_096;

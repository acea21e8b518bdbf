//! The fleet's own subjects: heartbeats out, requests to shed in.
//!
//! They are another type than the gateways' subjects (docs/decisions/0007-balancer.md), few, and on
//! time or worthless: nothing of them is queued while the link is down.

use crate::metrics;
use async_nats::{Client, Subscriber, connection::State};
use bytes::Bytes;
use fastchat_protocol::fleet::FleetSubject;
use std::time::Duration;

/// Limit: how long a record may wait for room in the client's buffer.
const PATIENCE: Duration = Duration::from_millis(200);

/// Speaks to balancers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FleetLink(Client);

impl FleetLink {
    pub(super) fn new(client: Client) -> Self {
        Self(client)
    }

    /// Publishes a record now, or drops it.
    ///
    /// Cancel safety: a dropped call has published the record or has not.
    pub async fn publish(&self, subject: FleetSubject, record: Bytes) {
        if self.0.connection_state() != State::Connected {
            return metrics::bus_dropped("down");
        }
        match tokio::time::timeout(PATIENCE, self.0.publish(subject.to_string(), record)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => metrics::bus_dropped("refused"),
            Err(_) => metrics::bus_dropped("full"),
        }
    }

    /// Hears a subject, also after the link was down. `None` if the client has ended.
    pub async fn listen(&self, subject: FleetSubject) -> Option<Subscriber> {
        self.0.subscribe(subject.to_string()).await.ok()
    }
}

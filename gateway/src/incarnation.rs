//! The one incarnation of the store that this gateway serves: what it remembers of heads and
//! memberships is of that one's log.
//!
//! Clients are told it in the first answer, before the store is asked anything. Whatever is asked then
//! says the store's own: if it is another, the store was restored under this gateway, nobody else is let
//! in, and the gateway ends.

use crate::{gateway::Gateway, refusal, service};
use fastchat_protocol::Refusal;
use std::sync::OnceLock;

/// The number that was found first.
#[derive(Debug, Default)]
pub struct Incarnation(OnceLock<u32>);

impl Gateway {
    /// The incarnation that this gateway serves.
    pub async fn incarnation(&self) -> Result<u32, Refusal> {
        match self.incarnation.0.get() {
            Some(served) => Ok(*served),
            None => {
                let now = self.store.incarnation().await.map_err(service::store_error)?;
                Ok(*self.incarnation.0.get_or_init(|| now))
            }
        }
    }

    /// Takes note of the store's incarnation: refuses, and lets the gateway end, if it is another one.
    pub fn on_incarnation(&self, now: u32) -> Result<(), Refusal> {
        if *self.incarnation.0.get_or_init(|| now) == now {
            return Ok(());
        }
        tracing::error!("the store was restored under this gateway, which ends: start it again");
        self.drain_asked.notify_one();
        Err(refusal::restored())
    }
}

//! This gateway as one of a fleet.
//!
//! - [`heartbeat`] tells balancers how it stands, on the bus and as gauges; [`load`] measures.
//! - [`admission`] decides at the hello whether a client may go on; [`tickets`] knows whom balancers sent.
//! - [`shed`] sends sessions elsewhere when a balancer asks for it.
//! - An embedded gateway is a fleet of one: it has the gauges and nobody to tell, and [`assign`] names it.

pub mod admission;
pub mod assign;
pub mod heartbeat;
pub mod load;
pub mod shed;
pub mod tickets;

use fastchat_protocol::GatewayId;

/// Who this process is in the fleet, and where clients reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Drawn when the process starts: balancers tell a restart from a silence by it.
    pub id: GatewayId,
    /// `ws://` or `wss://`.
    pub url: String,
}

impl Identity {
    /// Draws an id.
    pub fn draw(url: String) -> Self {
        let mut id = [0; 16];
        getrandom::fill(&mut id).expect("the system has randomness");
        Self { id: GatewayId::new(id), url }
    }
}

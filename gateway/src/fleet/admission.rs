//! Who may go on after the hello: not if the gateway leaves, is full, or wants a ticket.
//!
//! The gateway's own reasons, before anything is known of the client; each names where to go instead.

use super::tickets::Verdict;
use crate::{gateway::Gateway, metrics, rim::now_ms};
use fastchat_protocol::{Code, Refusal};

/// Decides. A good ticket is used up by it.
pub fn admit(gateway: &Gateway, ticket: Option<&[u8]>) -> Result<(), Refusal> {
    if gateway.draining.is_cancelled() {
        return Err(Refusal::new(Code::Draining, "this gateway goes away: connect to another one"));
    }
    if gateway.registry.is_full() {
        return Err(full());
    }
    let Some(verdict) = gateway.tickets.judge(ticket, gateway.identity.id, now_ms()) else { return Ok(()) };
    metrics::ticket(verdict.label());
    if verdict == Verdict::Good || !gateway.tickets.required() {
        return Ok(());
    }
    let detail = format!("this gateway admits only whom a balancer sent: {verdict}; ask a balancer");
    Err(Refusal::new(Code::TicketNeeded, detail))
}

/// As many connections as it takes.
pub fn full() -> Refusal {
    Refusal::new(Code::GatewayFull, "this gateway has as many connections as it takes: try another one")
}

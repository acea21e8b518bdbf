//! The balancer: tells a client which gateway to use, from live load.
//!
//! - [`fleet`] makes one picture of what is reported, and believes only what can be true.
//! - [`dispatch`] decides: [`strategy`] among the candidates, with the balancer's own assignments from
//!   the [`ledger`]. All of this is pure: time and randomness are arguments.
//!
//! It keeps nothing that must last: a balancer that starts knows the fleet a second later, and clients
//! that reach none use the gateways that they know. It sees no account, no device and no envelope.

pub mod dispatch;
pub mod fleet;
pub mod ledger;
pub mod moment;
pub mod strategy;

//! The balancer: tells a client which gateway to use, from live load.
//!
//! - [`source`] brings reports (heartbeats on the bus, samples of Prometheus) into the [`fleet`], which
//!   believes only what can be true.
//! - [`dispatch`] decides: [`strategy`] among the candidates, with the balancer's own assignments from
//!   the [`ledger`]. All of this is pure: time and randomness are arguments.
//! - [`mover`] says which gateways give sessions to which; of several balancers only one asks for that,
//!   by [`peers`].
//! - [`service`] is the shell around it: [`public`] answers `POST /v1/assign`, [`admin`] operators.
//! - [`simulate`] runs the same decisions offline.
//!
//! It keeps nothing that must last (who is drained and the strategy, if a `state_file` is named): a balancer that starts knows the fleet a second later, and clients
//! that reach none use the gateways that they know. It sees no account, no device and no envelope.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test says what it expects by failing"))]
pub mod admin;
pub mod config;
pub mod dispatch;
pub mod fleet;
pub mod http;
pub mod ledger;
pub mod limit;
pub mod metrics;
pub mod moment;
pub mod mover;
pub mod moving;
pub mod peers;
pub mod public;
pub mod service;
pub mod simulate;
pub mod source;
pub mod state;
pub mod strategy;
pub mod ticket;
pub mod tls;

pub use config::Config;
pub use service::Balancer;

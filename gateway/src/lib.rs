//! A gateway: faces clients, keeps nothing that must last.
//!
//! The flow of one message, from module to module:
//! - [`server`] accepts a socket, [`handshake`] turns it into a session, [`connection`] owns it;
//! - [`session`] decides, without I/O, what a frame means; [`service`] answers what needs the store;
//! - [`writer`] commits envelopes in batches to the [`store`];
//! - [`fanout`] hands the committed row to this gateway's own connections and to the [`bus`];
//!   [`groups`] knows who hears which group here;
//! - [`fleet`] tells balancers how this gateway stands;
//! - [`heads`] compares heads with the log now and then, because a lost last message makes no gap.
//!
//! It never holds a private key and links nothing that could open an envelope (docs/threat-model.md).

pub mod admin;
pub mod arrivals;
pub mod blobs;
pub mod bus;
pub mod config;
pub mod connection;
pub mod cursors;
pub mod fanout;
pub mod fleet;
pub mod gateway;
pub mod groups;
pub mod handshake;
pub mod heads;
pub mod health;
pub mod hints;
pub mod incarnation;
pub mod invites;
pub mod lifecycle;
pub mod limits;
pub mod metrics;
pub mod move_store;
pub mod notices;
pub mod operator;
pub mod passwords;
pub mod queue;
pub mod rate;
pub mod refusal;
pub mod registry;
mod rim;
pub mod seen;
pub mod server;
pub mod service;
pub mod session;
pub mod store;
pub mod sweep;
pub mod tls;
pub mod watches;
pub mod writer;

pub use config::Config;
pub use gateway::Gateway;

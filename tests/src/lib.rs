//! The harness of the whole-system tests: everything that a story needs around the programs.
//!
//! - [`balancer`]: a balancer as a process.
//! - [`cluster`]: a deployment of real gateways. [`user`]: a person with a client, every act recorded.
//! - [`machine`]: one of several machines of an account: registered, linked or recovered.
//! - [`cli`]: a person at a terminal, with the real program; [`admin`]: an operator with the gateway's.
//! - [`raw`]: a client that speaks the wire by hand, for what a good one would never say; [`envelope`]: what
//!   it sends.
//! - [`servers`]: throwaway Postgres, NATS and Prometheus. [`process`]: the real programs as child processes.
//! - [`schema`]: JSON Schema, and which one holds for what a program writes.
//! - [`proxy`]: a TCP proxy that delays, swallows and cuts, in place of a bad network.
//! - [`history`] and [`checker`]: what the clients of a run did and saw, and whether the promises of
//!   the design (G1 to G7) held.
//! - [`lax`]: a server that checks nothing, for what a client must check itself.
//! - [`crowd`]: many devices that are connected and say nothing, and move when they are asked to.
//! - [`load`]: many users who write to each other at a steady rate.
//! - [`wait`]: waiting for what comes about by itself.
//! - [`leaks`]: whether a planted plaintext is where it must never be (G9).
//!
//! Everything here ends only what it started itself, by its process id, and cleans up when dropped.

pub mod admin;
pub mod balancer;
pub mod checker;
pub mod cli;
pub mod cluster;
pub mod crowd;
pub mod envelope;
pub mod history;
pub mod lax;
pub mod leaks;
pub mod load;
pub mod machine;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod schema;
pub mod servers;
pub mod tls;
pub mod user;
pub mod wait;

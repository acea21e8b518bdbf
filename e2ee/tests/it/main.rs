//! The crate from outside: whole conversations, an honest and a lying delivery service, crashes.
#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test says what it expects by failing; its modules are its own"
)]

mod commits;
mod identity;
mod join;
mod kit;
mod matrix;
mod messages;
mod model;
mod public_state;
mod rogue;
mod storage;

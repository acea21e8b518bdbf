//! The crate from outside: whole conversations, an honest and a lying delivery service, crashes.
#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test says what it expects by failing; its modules are its own"
)]

mod archives;
mod codes;
mod commits;
mod groups;
mod identity;
mod join;
mod kit;
mod matrix;
mod messages;
mod model;
mod model_groups;
mod public_state;
mod rogue;
mod storage;

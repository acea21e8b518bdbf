//! FastChat's client without a screen.
//!
//! - [`client::Client`] is a cheap handle to the [`engine`], the one task that owns a profile's store,
//!   its keys and its session.
//! - [`link`] keeps a connection; [`store`] keeps everything else, sealed.
//! - [`outbox`], [`cursor`], [`restored`], [`shared`] and [`trust`] hold the rules: pure functions, tested by tables.
//! - [`files`] seals, names and shows files; [`profile`] finds and locks the files; [`local`] lets other processes reach the owner.
//!
//! Nothing here prints. Text from others leaves as it came and passes [`terminal`] on its way to one.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test says what it expects by failing"))]

pub mod account;
pub mod api;
pub mod client;
pub mod cursor;
pub mod devices;
pub mod engine;
pub mod failpoint;
pub mod files;
pub mod link;
pub mod local;
pub mod outbox;
pub mod profile;
pub mod restored;
pub mod shared;
pub mod store;
pub mod terminal;
pub mod trust;

pub use client::{Client, Events};

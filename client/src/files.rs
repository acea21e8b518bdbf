//! Files and pictures: everything about them that needs no engine.
//!
//! - [`name`] makes a name on disk of what somebody else calls a file; [`place`] puts files there.
//! - [`shape`] says how long parts and padding are; [`seal`] seals parts, opens them and checks them.
//! - [`transfer`] moves parts between disk and gateway, in tasks beside the engine.
//! - [`picture`] has pictures decoded by a child process with limits, and makes previews.
//!
//! Invariant: nothing that somebody else says chooses a path, a decoder, or how much memory is taken.

pub mod name;
pub mod picture;
pub mod place;
pub mod seal;
pub mod shape;
pub(crate) mod transfer;

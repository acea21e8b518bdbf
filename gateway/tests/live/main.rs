//! Gateways with connected clients in one process, with the embedded store: what is delivered live,
//! and what somebody without a device may do. Envelopes are made by hand; keys are not needed here.

mod groups;
mod guests;
mod kit;

//! Gateways with connected clients in one process, with the embedded store: what is delivered live,
//! and what somebody without a device may do. Envelopes are made by hand; keys are not needed here.

mod admission;
mod arrivals;
mod assign;
mod blobs;
#[path = "../../../tests/src/envelope.rs"]
#[expect(unreachable_pub, reason = "public in the harness that it belongs to")]
mod envelope;
mod fleet;
mod groups;
mod guests;
mod kit;
#[path = "../../../tests/src/servers/nats.rs"]
#[expect(unreachable_pub, dead_code, reason = "public in the harness that it belongs to")]
mod nats_server;
mod objects;
mod pairs;
mod receipts;
mod stalls;
mod web;

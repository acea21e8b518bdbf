//! What a subscription costs in memory. A file of its own: nothing else runs in its process.

#[path = "../../tests/src/servers/nats.rs"]
#[expect(dead_code, unreachable_pub, reason = "public in the harness that it belongs to")]
mod nats_server;

use fastchat_gateway::bus::{
    Bus,
    nats::{NatsBus, NatsOptions},
};
use fastchat_protocol::{bus::Subject, ids::AccountId};
use nats_server::NatsServer;
use std::time::Instant;

const SUBSCRIPTIONS: u32 = 10_000;
/// Limit: of the 16 KB that an idle connection may cost in all.
const BYTES_MAX: usize = 8_000;

fn subject(number: u32) -> Subject {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    Subject::User(AccountId::new(id))
}

/// Resident bytes of this process.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("a Linux system");
    let pages: usize = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4_096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_fits_its_share() {
    let server = NatsServer::start().expect("nats-server starts");
    let options = NatsOptions { url: server.url(), ..NatsOptions::default() };
    let (bus, mut events) = NatsBus::start(&options).await.expect("good options");
    events.recv().await.expect("connected");
    bus.subscribe(subject(u32::MAX)).await;

    let (before, begin) = (resident(), Instant::now());
    let all = (0..SUBSCRIPTIONS).map(|number| bus.subscribe(subject(number)));
    futures_util::future::join_all(all).await;
    let bytes = (resident() - before) / SUBSCRIPTIONS as usize;
    eprintln!("{bytes} bytes a subscription, {SUBSCRIPTIONS} in {:?}", begin.elapsed());
    assert!(bytes < BYTES_MAX, "{bytes} bytes a subscription");
}

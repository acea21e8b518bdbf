//! A gateway as one of a fleet, on a real bus: what balancers hear of it.

use crate::{kit::World, nats_server::NatsServer};
use fastchat_gateway::config::Settings;
use fastchat_protocol::{
    VERSIONS,
    fleet::{FleetFrame, FleetSubject, HEARTBEATS, Heartbeat},
};
use futures_util::StreamExt;
use std::time::{Duration, Instant};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

/// Hears what balancers hear.
pub(crate) struct Ear {
    heartbeats: async_nats::Subscriber,
}

impl Ear {
    pub(crate) async fn new(nats: &NatsServer) -> Self {
        let client = async_nats::connect(nats.url()).await.expect("nats-server is up");
        let heartbeats = client.subscribe(HEARTBEATS).await.expect("it subscribes");
        client.flush().await.expect("the subscription is made");
        Self { heartbeats }
    }

    /// The next heartbeat that is as wanted.
    pub(crate) async fn heard(&mut self, wanted: impl Fn(&Heartbeat) -> bool) -> Heartbeat {
        let search = async {
            loop {
                let message = self.heartbeats.next().await.expect("the subscription stands");
                let subject =
                    message.subject.as_str().parse::<FleetSubject>().expect("a subject of the fleet");
                match FleetFrame::decode(&message.payload).expect("a record of the fleet").1 {
                    FleetFrame::Heartbeat(heartbeat) => {
                        assert_eq!(subject, FleetSubject::Heartbeat(heartbeat.gateway));
                        if wanted(&heartbeat) {
                            return heartbeat;
                        }
                    }
                    other => panic!("no heartbeat: {other:?}"),
                }
            }
        };
        timeout(PATIENCE, search).await.expect("it is heard in time")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn balancers_hear_how_a_gateway_stands() {
    let nats = NatsServer::start().expect("nats-server starts");
    let mut ear = Ear::new(&nats).await;
    let world = World::new().await;
    let place = world
        .gateway_on(
            &nats.url(),
            Settings {
                public_url: Some("wss://g1.example.org".into()),
                max_connections: Some(7),
                heartbeat_ms: Some(100),
                ..Settings::default()
            },
        )
        .await;
    let first = ear.heard(|_| true).await;
    assert_eq!(first.gateway, place.gateway.identity.id);
    assert_eq!((first.url.as_str(), first.period_ms), ("wss://g1.example.org", 100));
    assert_eq!((first.connections, first.capacity, first.draining), (0, 7, false));
    assert!(first.cpu_permille <= 1000);
    assert_eq!(first.versions, VERSIONS);
    let next = ear.heard(|_| true).await;
    assert!(next.count > first.count, "{} after {}", next.count, first.count);

    let alice = world.person(&place, 1).await;
    let client = alice.connect(&place).await;
    ear.heard(|heartbeat| heartbeat.connections == 1).await;
    drop(client);
    ear.heard(|heartbeat| heartbeat.connections == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_said_at_once() {
    let nats = NatsServer::start().expect("nats-server starts");
    let mut ear = Ear::new(&nats).await;
    let world = World::new().await;
    // The next one by the clock would come in a minute.
    let settings = Settings { heartbeat_ms: Some(60_000), ..Settings::default() };
    let place = world.gateway_on(&nats.url(), settings).await;
    let first = ear.heard(|_| true).await;
    let begin = Instant::now();
    place.gateway.draining.cancel();
    let last = ear.heard(|heartbeat| heartbeat.draining).await;
    assert_eq!(last.count, first.count + 1);
    assert!(begin.elapsed() < PATIENCE);
}

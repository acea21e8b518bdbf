//! A gateway as one of a fleet, on a real bus: what balancers hear of it, and what it does for them.

use crate::{
    kit::{Client, Place, World},
    nats_server::NatsServer,
};
use fastchat_gateway::config::Settings;
use fastchat_protocol::{
    Bytes, GatewayId, RequestId, ServerFrame, VERSIONS,
    fleet::{FleetFrame, FleetSubject, HEARTBEATS, Heartbeat, Shed},
    server::Move,
};
use futures_util::{StreamExt, future::select_all};
use std::time::{Duration, Instant};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

/// Hears what balancers hear.
pub(crate) struct Ear {
    client: async_nats::Client,
    heartbeats: async_nats::Subscriber,
}

impl Ear {
    pub(crate) async fn new(nats: &NatsServer) -> Self {
        let client = async_nats::connect(nats.url()).await.expect("nats-server is up");
        let heartbeats = client.subscribe(HEARTBEATS).await.expect("it subscribes");
        client.flush().await.expect("the subscription is made");
        Self { client, heartbeats }
    }

    /// Asks a gateway to shed, as a balancer does.
    async fn shed(&self, gateway: GatewayId, record: Bytes) {
        let subject = FleetSubject::Shed(gateway).to_string();
        self.client.publish(subject, record).await.expect("it is published");
        self.client.flush().await.expect("the bus has it");
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

fn to(urls: &[&str]) -> Bytes {
    let moves =
        urls.iter().map(|url| Move { url: (*url).into(), ticket: Bytes::from_static(b"t") }).collect();
    FleetFrame::Shed(Shed { over_ms: 200, moves }).encode(RequestId(0))
}

/// Three people at a gateway of a fleet whose public URL is `ws://here`.
async fn three(world: &World, nats: &NatsServer, settings: Settings) -> (Place, Vec<Client>) {
    let settings = Settings { public_url: Some("ws://here".into()), heartbeat_ms: Some(100), ..settings };
    let place = world.gateway_on(&nats.url(), settings).await;
    let mut clients = Vec::new();
    for number in 1..=3 {
        clients.push(world.person(&place, number).await.connect(&place).await);
    }
    (place, clients)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_moves_as_many_sessions_as_it_names_targets_and_nobody_is_asked_twice() {
    let nats = NatsServer::start().expect("nats-server starts");
    let mut ear = Ear::new(&nats).await;
    let world = World::new().await;
    let (place, mut clients) = three(&world, &nats, Settings::default()).await;
    let id = place.gateway.identity.id;
    // By its heartbeat the gateway is on the bus, and so is what it subscribed to before.
    ear.heard(|heartbeat| heartbeat.connections == 3).await;

    // Where it makes no sense to go, nobody is sent.
    ear.shed(id, to(&["ws://here", "http://there", "ws://"])).await;
    ear.shed(id, Bytes::from_static(b"junk")).await;
    ear.shed(id, to(&["ws://there"])).await;
    let (target, who, _) = select_all(clients.iter_mut().map(|client| Box::pin(client.moved()))).await;
    assert_eq!((target.url.as_str(), &target.ticket[..]), ("ws://there", &b"t"[..]));
    clients.remove(who);

    ear.shed(id, to(&["ws://a", "ws://b", "ws://c"])).await;
    let mut targets = Vec::new();
    for client in &mut clients {
        targets.push(client.moved().await.url);
    }
    targets.sort();
    targets.dedup();
    assert_eq!(targets.len(), 2, "each goes elsewhere: {targets:?}");
    // All three were asked within this minute, so that nobody is left to ask.
    ear.shed(id, to(&["ws://d"])).await;
    for client in &mut clients {
        let rest = client.rest().await;
        assert!(!rest.iter().any(|frame| matches!(frame, ServerFrame::Move(_))), "{rest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_known_balancer_signed_and_what_comes_while_it_drains_moves_nobody() {
    let nats = NatsServer::start().expect("nats-server starts");
    let mut ear = Ear::new(&nats).await;
    let key = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";
    let strict = Settings { balancer_key: Some(vec![key.into()]), ..Settings::default() };
    for (settings, drains) in [(strict, false), (Settings::default(), true)] {
        let world = World::new().await;
        let (place, mut clients) = three(&world, &nats, settings).await;
        let id = place.gateway.identity.id;
        ear.heard(|heartbeat| heartbeat.gateway == id && heartbeat.connections == 3).await;
        if drains {
            place.gateway.draining.cancel();
            ear.heard(|heartbeat| heartbeat.gateway == id && heartbeat.draining).await;
        }
        ear.shed(id, to(&["ws://a", "ws://b", "ws://c"])).await;
        for client in &mut clients {
            let rest = client.rest().await;
            assert!(!rest.iter().any(|frame| matches!(frame, ServerFrame::Move(_))), "{rest:?}");
        }
    }
}

//! Who goes on after the hello: tickets, a full gateway, a gateway that leaves.

use crate::kit::{Client, Person, Place, World};
use ed25519_dalek::{Signer, SigningKey};
use fastchat_gateway::config::Settings;
use fastchat_protocol::{
    Bytes, Code, GatewayId, ServerFrame,
    ticket::{Signed, Ticket, to_sign},
};
use std::time::{SystemTime, UNIX_EPOCH};

fn balancer() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn ticket(gateway: GatewayId, nonce: u8) -> Option<Bytes> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let expires_at_ms = u64::try_from(now).expect("before the end of time") + 60_000;
    let body = Ticket { gateway, expires_at_ms, nonce: [nonce; 16] }.encode();
    let signature = balancer().sign(&to_sign(&body)).to_bytes();
    Some(Signed { body: &body, signature: &signature }.encode().into())
}

fn with_tickets(policy: &str) -> Settings {
    let key = hex::encode(balancer().verifying_key().as_bytes());
    Settings { balancer_key: Some(vec![key]), tickets: Some(policy.into()), ..Settings::default() }
}

async fn refused(place: &Place, ticket: Option<Bytes>) -> Option<(Code, String)> {
    match Client::hello(place, ticket).await.1 {
        ServerFrame::Hello(_) => None,
        ServerFrame::Refused(refusal) => Some((refusal.code, refusal.detail)),
        other => panic!("neither: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_tickets_are_required_only_a_balancers_word_lets_in_and_only_once() {
    let world = World::new().await;
    let place = world.gateway_with(with_tickets("required"));
    let here = place.gateway.identity.id;
    for (what, ticket) in [
        ("there is no ticket", None),
        ("cannot be read", Some(Bytes::from_static(b"let me in"))),
        ("for another gateway", ticket(GatewayId::new([3; 16]), 1)),
    ] {
        let (code, detail) = refused(&place, ticket).await.expect(what);
        assert_eq!(code, Code::TicketNeeded);
        assert!(detail.contains(what) && detail.contains("ask a balancer"), "{detail}");
    }
    let good = ticket(here, 2);
    assert_eq!(refused(&place, good.clone()).await, None);
    let (code, detail) = refused(&place, good).await.expect("a second use");
    assert_eq!(code, Code::TicketNeeded);
    assert!(detail.contains("used before"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_tickets_are_optional_or_off_everybody_goes_on() {
    let world = World::new().await;
    for policy in ["optional", "off"] {
        let place = world.gateway_with(with_tickets(policy));
        let here = place.gateway.identity.id;
        let good = ticket(here, 1);
        for ticket in [None, Some(Bytes::from_static(b"junk")), good.clone(), good] {
            assert_eq!(refused(&place, ticket).await, None, "{policy}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_gateway_says_so_and_takes_the_next_when_somebody_has_left() {
    let world = World::new().await;
    let place = world.gateway_with(Settings { max_connections: Some(2), ..Settings::default() });
    let people =
        [world.person(&place, 1).await, world.person(&place, 2).await, world.person(&place, 3).await];
    // All three say hello while there is room; the last to prove itself finds none.
    let mut opened = Vec::new();
    for _ in &people {
        opened.push(Client::dial(&place).await);
    }
    let mut clients = Vec::new();
    for (person, (mut client, nonce)) in people.iter().zip(opened) {
        let answer = client.ask(person.resume(&place, &nonce)).await;
        clients.push((client, answer));
    }
    assert!(clients[..2].iter().all(|(_, answer)| matches!(answer, ServerFrame::Session(_))), "two fit");
    match &clients[2].1 {
        ServerFrame::Refused(refusal) => assert_eq!(refusal.code, Code::GatewayFull),
        other => panic!("one too many: {other:?}"),
    }
    assert_eq!(place.gateway.registry.connections(), 2);
    assert_eq!(refused(&place, None).await.map(|(code, _)| code), Some(Code::GatewayFull));

    drop(clients.remove(0));
    let third: &Person = &people[2];
    while place.gateway.registry.is_full() {
        tokio::task::yield_now().await;
    }
    third.connect(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_leaves_takes_nobody_new() {
    let world = World::new().await;
    let place = world.gateway();
    place.gateway.draining.cancel();
    assert_eq!(refused(&place, None).await.map(|(code, _)| code), Some(Code::Draining));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_hears_that_the_gateway_leaves_and_ends() {
    let world = World::new().await;
    let place = world.gateway();
    let person = world.person(&place, 1).await;
    let mut client = person.connect(&place).await;
    // Whatever a session begins with is over: nothing else wakes this connection.
    client.rest().await;

    place.gateway.draining.cancel();
    assert!(matches!(client.frame().await, ServerFrame::Draining(_)));

    place.gateway.ending.cancel();
    match client.frame().await {
        ServerFrame::Closing(refusal) => assert_eq!(refusal.code, Code::Draining),
        other => panic!("not closed: {other:?}"),
    }
}

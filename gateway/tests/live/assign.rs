//! `POST /v1/assign` at a gateway: an embedded one names itself, one of a fleet names its balancer.

use crate::{
    kit::{Place, World},
    nats_server::NatsServer,
};
use fastchat_gateway::{config::Settings, server};
use serde_json::Value;
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Asks over a socket; further header lines end with a line break. Returns status and body.
async fn ask(place: &Place, headers: &str, body: &str) -> (u16, Value) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(server::run(Arc::clone(&place.gateway), listener, None));
    let mut stream = TcpStream::connect(address).await.expect("it accepts");
    let length = body.len();
    let request = format!(
        "POST /v1/assign HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("it is written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    serving.abort();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_gateway_names_itself_as_it_was_dialled() {
    let world = World::new().await;
    let place = world.gateway();
    let id = place.gateway.identity.id.to_string();
    for (headers, body, url) in [
        ("Host: chat.example.org:7400\r\n", "", "ws://chat.example.org:7400"),
        ("Host: chat.example.org\r\nX-Forwarded-Proto: https\r\n", "{}", "wss://chat.example.org"),
        ("Host: you@evil\r\n", "{\"versions\": [1], \"alternatives\": 3}", "ws://127.0.0.1:7400"),
    ] {
        let (status, answer) = ask(&place, headers, body).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!((answer["gateway"].as_str(), answer["url"].as_str()), (Some(id.as_str()), Some(url)));
        assert_eq!(
            (answer["basis"].as_str(), answer["alternatives"].as_array()),
            (Some("only"), Some(&vec![]))
        );
        assert!(
            answer.get("ticket").is_none() && answer["reason"].is_string() && answer["strategy"].is_string()
        );
    }
    let place = world.gateway_with(Settings { public_url: Some("wss://said".into()), ..Settings::default() });
    assert_eq!(ask(&place, "Host: chat.example.org\r\n", "").await.1["url"], "wss://said");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_wrong_is_answered_with_what_is_wrong() {
    let world = World::new().await;
    let place = world.gateway();
    let long = "x".repeat(9_000);
    for (body, status, word) in
        [("{", 400, "the body"), ("{\"versions\": [99]}", 503, "versions"), (long.as_str(), 413, "8 KB")]
    {
        let (got, answer) = ask(&place, "Host: here\r\n", body).await;
        assert_eq!(got, status);
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(word)), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_of_a_fleet_says_whom_to_ask() {
    let nats = NatsServer::start().expect("nats-server starts");
    let world = World::new().await;
    let place = world.gateway_on(&nats.url(), Settings::default()).await;
    let (status, answer) = ask(&place, "Host: here\r\n", "").await;
    assert_eq!(status, 404);
    assert!(answer["error"].as_str().is_some_and(|error| error.contains("balancer")), "{answer}");
}

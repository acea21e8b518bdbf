//! A public listener before a gateway, and parts of files over real sockets.

use crate::kit::Place;
use fastchat_gateway::server;
use fastchat_protocol::{BlobId, server::BlobToken};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, sleep},
};

/// A gateway's public listener, until it is dropped.
pub(crate) struct Web {
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Web {
    pub(crate) async fn of(place: &Place) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        Self { address, serving: tokio::spawn(server::run(Arc::clone(&place.gateway), listener, None)) }
    }

    /// One request with these header lines, on a connection of its own.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.expect("it accepts");
        let head = format!("{method} {path} HTTP/1.1\r\nHost: here:1\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.expect("it is written");
        // Whoever is refused early may find the socket closed.
        let _ = stream.write_all(body).await;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("it answers");
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head: head.to_lowercase(), body: bytes[end + 4..].to_vec() }
    }

    pub(crate) async fn put(&self, token: &BlobToken, blob: BlobId, part: u32, bytes: &[u8]) -> u16 {
        let headers = format!("{}Content-Length: {}\r\n", bearer(token), bytes.len());
        self.ask("PUT", &path(blob, part), &headers, bytes).await.status
    }

    /// Half of a part; the rest never comes.
    pub(crate) async fn half(&self, token: &BlobToken, blob: BlobId, part: u32, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("it accepts");
        let head = format!("PUT {} HTTP/1.1\r\nHost: here:1\r\nConnection: close\r\n", path(blob, part));
        let head = format!("{head}{}Content-Length: {}\r\n\r\n", bearer(token), bytes.len());
        stream.write_all(head.as_bytes()).await.expect("it is written");
        stream.write_all(&bytes[..bytes.len() / 2]).await.expect("it is written");
        stream
    }

    pub(crate) async fn get(&self, token: &BlobToken, blob: BlobId, part: u32) -> Answer {
        self.ask("GET", &path(blob, part), &bearer(token), &[]).await
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub(crate) fn bearer(token: &BlobToken) -> String {
    format!("Authorization: Bearer {}\r\n", hex::encode(token.expose()))
}

pub(crate) fn path(blob: BlobId, part: impl std::fmt::Display) -> String {
    format!("/v1/blobs/{blob}/{part}")
}

/// Asks again and again, for a minute.
pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done().await {
        assert!(Instant::now() < end, "never: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

//! `fastchat-gateway health`: asks a running gateway's admin listener whether it is ready. For images
//! without a shell and for service managers.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Limit: how long the gateway may take to answer; its own question to the store takes up to 2 s.
const PATIENCE: Duration = Duration::from_secs(4);
/// Limit: bytes of an answer; ours are below 300.
const MAX_ANSWER: u64 = 4_096;

/// Between two questions.
const BETWEEN: Duration = Duration::from_millis(200);

/// Why it is not ready.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// Nobody there, or it broke off.
    #[error("nothing answers at {0} (admin_listen)")]
    Unreachable(SocketAddr, #[source] std::io::Error),
    /// Too slow.
    #[error("{0} (admin_listen) did not answer in time")]
    Timeout(SocketAddr),
    /// It says that it is not.
    #[error("not ready: {0}")]
    NotReady(String),
}

/// Asks until it is ready, for that long: what `/readyz` says, or why it was not the last time.
pub async fn wait(address: SocketAddr, how_long: Duration) -> Result<String, HealthError> {
    let deadline = Instant::now() + how_long;
    loop {
        match ask(address).await {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(BETWEEN).await,
            answer => return answer,
        }
    }
}

async fn ask(mut address: SocketAddr) -> Result<String, HealthError> {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let exchange = timeout(PATIENCE, exchange(address)).await.map_err(|_| HealthError::Timeout(address))?;
    let answer = exchange.map_err(|error| HealthError::Unreachable(address, error))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(HealthError::NotReady(body.trim().chars().take(300).collect())),
    }
}

async fn exchange(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

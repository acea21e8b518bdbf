//! What shows servers' own numbers to Prometheus.
//!
//! - Postgres: the real prometheus-postgres-exporter.
//! - NATS: its exporter is in no distribution that we test on. Here is the part of it that the dashboard
//!   needs: each number of a real server's /varz, under the exporter's name (`gnatsd_varz_`).

use anyhow::{Context, Result};
use fastchat_tests::{process::Process, servers::free_port};
use serde_json::Value;
use std::{
    fmt::Write,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

const LONG: Duration = Duration::from_secs(30);

/// One exchange over HTTP/1.0: the answer's body.
pub(crate) async fn exchange(address: &str, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").context("a body")?;
    Ok(body.to_owned())
}

/// A page.
pub(crate) async fn get(address: &str, path: &str) -> Result<String> {
    exchange(address, &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")).await
}

pub(crate) struct NatsExporter {
    pub(crate) address: String,
    task: JoinHandle<()>,
}

impl NatsExporter {
    /// Before the monitoring port of a server.
    pub(crate) async fn start(monitoring: SocketAddr) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?.to_string();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let body = varz(monitoring).await.unwrap_or_default();
                let answer = format!(
                    "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                // The request is one packet, and is read so that its sender is not reset.
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for NatsExporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn varz(monitoring: SocketAddr) -> Result<String> {
    let varz: Value = serde_json::from_str(&get(&monitoring.to_string(), "/varz").await?)?;
    let mut text = String::new();
    for (name, value) in varz.as_object().context("an object")? {
        if let Some(number) = value.as_f64() {
            writeln!(text, "# TYPE gnatsd_varz_{name} gauge\ngnatsd_varz_{name} {number}")?;
        }
    }
    Ok(text)
}

pub(crate) struct PostgresExporter {
    pub(crate) address: String,
    _process: Process,
}

impl PostgresExporter {
    pub(crate) async fn start(database: &str) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let program = "prometheus-postgres-exporter";
        let process = Process::spawn_path(program.as_ref(), program, |command| {
            command.env("DATA_SOURCE_NAME", format!("{database}?sslmode=disable"));
            command.arg(format!("--web.listen-address={address}"));
        })
        .context("on Debian: apt-get install prometheus-postgres-exporter")?;
        let until = Instant::now() + LONG;
        while TcpStream::connect(&address).await.is_err() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self { address, _process: process })
    }
}

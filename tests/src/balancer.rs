//! A balancer as a process, and its pages.

use crate::process::Process;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long a page may take to say what is waited for.
const LONG: Duration = Duration::from_secs(30);

/// A balancer's process.
#[derive(Debug)]
pub struct BalancerProcess {
    /// For signals and logs.
    pub process: Process,
    public: String,
    admin: String,
}

impl BalancerProcess {
    /// Starts one on free ports.
    pub async fn start(settings: &[&str]) -> Result<Self> {
        let process = Process::spawn("fastchat-balancer", |command| {
            command
                .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
                .args(settings);
        })?;
        let line = process.line(LONG, |line| line.contains("serving")).await?;
        let place = |name: &str| -> Result<String> {
            let (_, rest) = line.split_once(&format!("{name}=\"http")).context("an address")?;
            let (_, rest) = rest.split_once("://").context("an address")?;
            Ok(rest.split('"').next().unwrap_or_default().to_owned())
        };
        Ok(Self { public: place("url")?, admin: place("admin")?, process })
    }

    /// Where clients ask, without TLS.
    pub fn url(&self) -> String {
        format!("http://{}", self.public)
    }

    /// Host and port for clients.
    pub fn public_address(&self) -> String {
        self.public.clone()
    }

    /// Host and port of the admin listener.
    pub fn admin_address(&self) -> String {
        self.admin.clone()
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Asks for a gateway.
    pub async fn assign(&self, ask: &Value) -> Result<(u16, Value)> {
        let (status, body) =
            http(&self.public_address(), "POST", "/v1/assign", "application/json", &ask.to_string()).await?;
        Ok((status, serde_json::from_str(&body)?))
    }

    /// Reads a page of the admin listener.
    pub async fn admin(&self, path: &str) -> Result<(u16, String)> {
        http(&self.admin, "GET", path, "application/json", "").await
    }

    /// Waits until /readyz says so.
    pub async fn wait_for(&self, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        self.wait_for_page("/readyz", LONG, wanted).await
    }

    /// Waits until /fleet says so.
    pub async fn wait_for_fleet(&self, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        self.wait_for_page("/fleet", LONG, wanted).await
    }

    /// As [`wait_for_fleet`](Self::wait_for_fleet), for so long.
    pub async fn wait_for_fleet_within(
        &self,
        limit: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        self.wait_for_page("/fleet", limit, wanted).await
    }

    async fn wait_for_page(
        &self,
        path: &str,
        limit: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        let begin = Instant::now();
        loop {
            let page = self.admin(path).await?.1;
            if wanted(&serde_json::from_str(&page)?) {
                return Ok(());
            }
            if begin.elapsed() > limit {
                bail!("{path} still says {page}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs a command of the program against this balancer; its exit code and all that it wrote.
    pub async fn run(&self, arguments: &[&str]) -> Result<(Option<i32>, String)> {
        let process = Process::spawn("fastchat-balancer", |command| {
            command.args(arguments).env("FASTCHAT_BALANCER_ADMIN", format!("http://{}", self.admin));
        })?;
        let (status, _, written) = process.finish_with_log().await?;
        Ok((status.code(), written))
    }

    /// As [`run`](Self::run), and it must succeed.
    pub async fn command(&self, arguments: &[&str]) -> Result<String> {
        match self.run(arguments).await? {
            (Some(0), written) => Ok(written),
            (code, written) => bail!("{arguments:?} ended with {code:?}: {written}"),
        }
    }
}

/// One request on a connection of its own; status and body.
pub async fn http(place: &str, method: &str, path: &str, kind: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(place).await?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).context("a status")?.parse()?;
    let (_, body) = answer.split_once("\r\n\r\n").context("a body")?;
    Ok((status, body.to_owned()))
}

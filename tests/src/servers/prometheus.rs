//! A throwaway Prometheus that scrapes what a test names.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    fmt::Write,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Limit: how long a server may take until it answers; it reads its folder first.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Limit: how long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What is scraped under one name.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// The label `job`.
    pub name: String,
    /// `host:port`, each with `/metrics`; the label `instance`.
    pub targets: Vec<String>,
}

impl Job {
    /// A job with these targets.
    pub fn new(name: &str, targets: impl IntoIterator<Item = impl ToString>) -> Self {
        Self {
            name: name.to_owned(),
            targets: targets.into_iter().map(|target| target.to_string()).collect(),
        }
    }
}

/// A server of its own on a free port of the loopback address. Dropping it kills it.
#[derive(Debug)]
pub struct PrometheusServer {
    port: u16,
    interval: Duration,
    rules: Vec<PathBuf>,
    child: Option<Child>,
    folder: TempDir,
}

impl PrometheusServer {
    /// Starts a server that scrapes these and evaluates rules every `interval` (whole milliseconds), and
    /// waits until it answers. `rules` are files with rules; a relative path is one of the test's folder.
    pub async fn start(interval: Duration, jobs: &[Job], rules: &[PathBuf]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fastchat-prometheus-").tempdir()?;
        let port = super::free_port()?;
        let rules = rules.iter().map(std::path::absolute).collect::<std::io::Result<_>>()?;
        let mut server = Self { port, interval, rules, child: None, folder };
        server.configure(jobs)?;
        server.launch().await?;
        Ok(server)
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The address, for a proxy in front of it.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Scrapes these from now on, and nothing else.
    pub fn scrape(&self, jobs: &[Job]) -> Result<()> {
        self.configure(jobs)?;
        let child = self.child.as_ref().context("Prometheus was killed")?;
        crate::process::signal(child.id(), crate::process::Signal::HUP)
    }

    /// Evaluates an expression now: `data.result` of the answer, a list of series with their values.
    pub async fn query(&self, promql: &str) -> Result<Vec<Value>> {
        let mut answer = self.get(&format!("/api/v1/query?query={}", escape(promql))).await?;
        match answer["data"]["result"].take() {
            Value::Array(series) => Ok(series),
            _ => bail!("{promql} is not a list of series"),
        }
    }

    /// Evaluates an expression every `step` seconds between two moments (seconds since 1970).
    pub async fn query_range(&self, promql: &str, from: f64, to: f64, step: u32) -> Result<Vec<Value>> {
        let range = format!("start={from:.3}&end={to:.3}&step={step}");
        let mut answer = self.get(&format!("/api/v1/query_range?query={}&{range}", escape(promql))).await?;
        match answer["data"]["result"].take() {
            Value::Array(series) => Ok(series),
            _ => bail!("{promql} is not a list of series"),
        }
    }

    /// The value of an expression that is one series; none if it has no data.
    pub async fn value(&self, promql: &str) -> Result<Option<f64>> {
        let series = self.query(promql).await?;
        match &series[..] {
            [] => Ok(None),
            [one] => Ok(Some(one["value"][1].as_str().context("a number in a string")?.parse()?)),
            more => bail!("{promql} has {} series", more.len()),
        }
    }

    /// Waits until an expression has data.
    pub async fn wait_for(&self, promql: &str, limit: Duration) -> Result<Vec<Value>> {
        let begin = Instant::now();
        loop {
            let series = self.query(promql).await?;
            if !series.is_empty() {
                return Ok(series);
            }
            if begin.elapsed() > limit {
                bail!("{promql} has no data after {limit:?}:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Any page of the API, such as `/api/v1/rules`: the JSON of a good answer.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let (status, body) =
            timeout(ANSWER_TIMEOUT, self.exchange(path)).await.context(path.to_owned())??;
        if status != 200 {
            bail!("{path}: {status}: {body}");
        }
        serde_json::from_str(&body).with_context(|| format!("{path} is not JSON: {body}"))
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("prometheus.log")).unwrap_or_default()
    }

    fn configure(&self, jobs: &[Job]) -> Result<()> {
        let every = format!("{}ms", self.interval.as_millis());
        let mut config = format!(
            "global:\n  scrape_interval: {every}\n  scrape_timeout: {every}\n  evaluation_interval: {every}\n"
        );
        // What JSON quotes, YAML reads.
        writeln!(config, "rule_files: {}", serde_json::to_string(&self.rules)?)?;
        writeln!(config, "scrape_configs:")?;
        for Job { name, targets } in jobs {
            let (name, targets) = (serde_json::to_string(name)?, serde_json::to_string(targets)?);
            writeln!(config, "  - job_name: {name}\n    static_configs: [{{targets: {targets}}}]")?;
        }
        Ok(std::fs::write(self.folder.path().join("prometheus.yml"), config)?)
    }

    async fn launch(&mut self) -> Result<()> {
        let log = std::fs::File::create(self.folder.path().join("prometheus.log"))?;
        let flag = |name: &str, value: &str| format!("--{name}={value}");
        let place = |name: &str| self.folder.path().join(name).display().to_string();
        let child = Command::new("prometheus")
            .arg(flag("config.file", &place("prometheus.yml")))
            .arg(flag("storage.tsdb.path", &place("data")))
            .arg(flag("web.listen-address", &self.address().to_string()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start prometheus; on Debian: apt-get install prometheus")?;
        self.child = Some(child);
        let begin = Instant::now();
        // Another server's answer on a port that was taken is no success: ours has ended then.
        loop {
            let ready = timeout(ANSWER_TIMEOUT, self.exchange("/-/ready")).await;
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || begin.elapsed() > START_TIMEOUT {
                bail!("prometheus did not start ({ended:?}):\n{}", self.log());
            }
            if matches!(ready, Ok(Ok((200, _)))) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// HTTP/1.0, so that the answer ends with the connection.
    async fn exchange(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.address()).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8(answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("a head")?;
        Ok((head.split(' ').nth(1).context("a status")?.parse()?, body.to_owned()))
    }
}

impl Drop for PrometheusServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A text as a part of a query (RFC 3986: what is not unreserved is escaped).
fn escape(text: &str) -> String {
    let escaped = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    escaped.collect()
}

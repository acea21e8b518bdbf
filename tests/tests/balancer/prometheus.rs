//! An endpoint that answers range selectors as Prometheus' query API does, with samples that the test
//! sets. It reads the query: series whose names the query does not ask for are not in the answer.

use crate::fleet::{gateway, url};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A scraped gateway.
#[derive(Clone, Default)]
struct Target {
    values: BTreeMap<String, String>,
    /// How far its samples' times are off, in seconds.
    shift: i64,
}

type Targets = Arc<Mutex<Vec<Target>>>;

/// The endpoint. Each question is answered with samples of this moment.
pub(crate) struct FakePrometheus {
    address: SocketAddr,
    targets: Targets,
    task: JoinHandle<()>,
}

impl FakePrometheus {
    /// Knows so many gateways, each with 100 connections of 15,000.
    pub(crate) async fn start(gateways: usize) -> Result<Self> {
        let usual = [
            ("fastchat_connections", "100"),
            ("fastchat_connections_limit", "15000"),
            ("fastchat_cpu_ratio", "0.25"),
            ("fastchat_draining", "0"),
            ("fastchat_something_else", "7"),
        ];
        let usual = usual.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let targets: Targets =
            Arc::new(Mutex::new(vec![Target { values: BTreeMap::from(usual), shift: 0 }; gateways]));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(serve(listener, Arc::clone(&targets)));
        Ok(Self { address, targets, task })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A gateway's metric has another value, as Prometheus writes it.
    pub(crate) fn set(&self, n: usize, name: &str, value: &str) {
        lock(&self.targets)[n].values.insert(name.to_owned(), value.to_owned());
    }

    /// A gateway's samples are taken in so many seconds.
    pub(crate) fn shift(&self, n: usize, seconds: i64) {
        lock(&self.targets)[n].shift = seconds;
    }

    /// Nobody answers any more.
    pub(crate) fn break_off(&self) {
        self.task.abort();
    }
}

impl Drop for FakePrometheus {
    fn drop(&mut self) {
        self.break_off();
    }
}

fn lock(targets: &Targets) -> MutexGuard<'_, Vec<Target>> {
    targets.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, targets: Targets) {
    while let Ok((stream, _)) = listener.accept().await {
        // A balancer that went away needs no answer.
        let _ = answer(stream, &targets).await;
    }
}

async fn answer(mut stream: TcpStream, targets: &Targets) -> Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut bytes = [0; 1024];
        let read = stream.read(&mut bytes).await?;
        anyhow::ensure!(read > 0, "cut off");
        request.extend_from_slice(&bytes[..read]);
    }
    let request = String::from_utf8(request)?;
    let query = request
        .strip_prefix("GET /api/v1/query?query=")
        .and_then(|rest| rest.split(' ').next())
        .map(unescape);
    let (status, body) = match query.as_deref().map(|query| select(query, targets)) {
        Some(Some(result)) => {
            ("200 OK", json!({"status": "success", "data": {"resultType": "matrix", "result": result}}))
        }
        _ => ("400 Bad Request", json!({"status": "error", "errorType": "bad_data", "error": "parse error"})),
    };
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    Ok(stream.write_all(body.as_bytes()).await?)
}

/// Series for `{__name__=~"a|b"}[5s]`; nothing for any other query.
fn select(query: &str, targets: &Targets) -> Option<Vec<Value>> {
    let (names, range) = query.strip_prefix("{__name__=~\"")?.split_once("\"}[")?;
    let range: i64 = range.strip_suffix("s]")?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_millis() as i64;
    let mut series = Vec::new();
    for (n, target) in lock(targets).iter().enumerate() {
        let mut labels = json!({"job": "gateway", "instance": format!("g{n}")});
        let at = (now + 1_000 * target.shift) as f64 / 1_000.0;
        let mut add = |name: &str, labels: &Value, value: &str| {
            if names.split('|').any(|wanted| wanted == name) {
                let mut metric = labels.clone();
                metric["__name__"] = json!(name);
                // A range may hold earlier samples: they come first.
                let values = json!([[at - range as f64 / 2.0, "1"], [at, value]]);
                series.push(json!({"metric": metric, "values": values}));
            }
        };
        for (name, value) in &target.values {
            add(name, &labels, value);
        }
        for (label, value) in
            [("gateway", gateway(n).to_string()), ("url", url(n)), ("version", "simulated 1".into())]
        {
            labels[label] = json!(value);
        }
        add("fastchat_gateway_info", &labels, "1");
    }
    Some(series)
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digits: Option<Vec<u8>> = (byte == b'%').then(|| rest.by_ref().take(2).collect());
        match digits.map(|digits| decode(&digits)) {
            None => bytes.push(byte),
            Some(decoded) => bytes.extend(decoded),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn decode(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).context("ASCII").ok()?;
    u8::from_str_radix(text, 16).ok()
}

//! The balancer with a real Prometheus, which scrapes simulated gateways.

use crate::fleet::{assign_many, gateway, url};
use anyhow::{Context, Result};
use fastchat_tests::{
    balancer::BalancerProcess,
    servers::{Job, PrometheusServer},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt::Write,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

/// A gateway's /metrics.
struct Exporter {
    address: SocketAddr,
    values: Arc<Mutex<BTreeMap<&'static str, &'static str>>>,
    task: JoinHandle<()>,
}

impl Exporter {
    async fn start(n: usize) -> Result<Self> {
        let values = [
            ("fastchat_connections", "100"),
            ("fastchat_connections_limit", "15000"),
            ("fastchat_cpu_ratio", "0.25"),
            ("fastchat_draining", "0"),
        ];
        let values = Arc::new(Mutex::new(BTreeMap::from(values)));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(serve(listener, n, Arc::clone(&values)));
        Ok(Self { address, values, task })
    }

    fn set(&self, name: &'static str, value: &'static str) {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).insert(name, value);
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, n: usize, values: Arc<Mutex<BTreeMap<&'static str, &'static str>>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut text = format!(
            "fastchat_gateway_info{{gateway=\"{}\",url=\"{}\",version=\"simulated 1\"}} 1\n",
            gateway(n),
            url(n)
        );
        for (name, value) in &*values.lock().unwrap_or_else(PoisonError::into_inner) {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{name} {value}");
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
        let answer = format!("{head}Content-Length: {}\r\n\r\n{text}", text.len());
        // A scrape that was given up needs no answer.
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_feeds_the_balancer_until_its_samples_are_old() -> Result<()> {
    let mut gateways = Vec::new();
    for n in 0..3 {
        gateways.push(Exporter::start(n).await?);
    }
    let job = Job::new("gateway", gateways.iter().map(|gateway| gateway.address));
    let mut prometheus = PrometheusServer::start(Duration::from_millis(500), &[job], &[]).await?;
    let source = format!("prometheus={}", prometheus.url());
    let balancer = BalancerProcess::start(&["--load-source", &source, "--scrape-interval-ms", "500"]).await?;
    balancer.wait_for(|ready| ready["live"] == 3 && ready["prometheus"] == "up").await?;
    balancer.command(&["strategy", "least-connections"]).await?;
    let shown =
        |n: usize, name: &'static str, value: Value| move |fleet: &Value| fleet["gateways"][n][name] == value;
    gateways[1].set("fastchat_connections", "7");
    balancer.wait_for_fleet(shown(1, "connections", json!(7))).await?;
    assert_eq!(assign_many(&balancer, 20).await?, BTreeMap::from([(1, 20)]));
    balancer.command(&["strategy", "min-load"]).await?;
    gateways[2].set("fastchat_cpu_ratio", "0.01");
    balancer.wait_for_fleet(shown(2, "cpu", json!(0.01))).await?;
    assert_eq!(assign_many(&balancer, 20).await?, BTreeMap::from([(2, 20)]));
    // Prometheus has NaN and takes it for a number; the balancer does not.
    gateways[2].set("fastchat_cpu_ratio", "NaN");
    balancer.wait_for_fleet(shown(2, "doubts", json!(["cpu"]))).await?;
    gateways[1].set("fastchat_draining", "1");
    balancer.wait_for_fleet(shown(1, "state", json!("draining"))).await?;
    // A gateway that is not reached any more, and then Prometheus itself.
    drop(gateways.remove(0));
    balancer.wait_for_fleet(shown(0, "state", json!("stale"))).await?;
    assert_eq!(assign_many(&balancer, 10).await?, BTreeMap::from([(2, 10)]));
    prometheus.kill();
    balancer.wait_for(|ready| ready["live"] == 0 && ready["prometheus"] == "down").await?;
    let (status, answer) = balancer.assign(&json!({})).await?;
    assert_eq!((status, answer["basis"].as_str().context("a basis")?), (200, "last-known"));
    Ok(())
}

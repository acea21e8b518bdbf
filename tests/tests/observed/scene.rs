//! Two gateways, a balancer, NATS, Postgres, their exporters and Prometheus; and people who chat.

use crate::exporters::{NatsExporter, PostgresExporter};
use anyhow::{Context, Result};
use fastchat_tests::{
    cluster::Cluster,
    machine::Machine,
    process::Process,
    servers::{Job, NatsServer, PrometheusServer, free_port},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const LONG: Duration = Duration::from_secs(30);
/// How long people chat while they are watched.
const CHAT: Duration = Duration::from_secs(25);
/// Between scrapes.
pub(crate) const SCRAPE: Duration = Duration::from_secs(1);

pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) balancer: Balancer,
    pub(crate) prometheus: PrometheusServer,
    pub(crate) began: f64,
    _nats: NatsServer,
    _nats_exporter: NatsExporter,
    _postgres_exporter: PostgresExporter,
}

/// A balancer's process.
pub(crate) struct Balancer {
    pub(crate) public: String,
    pub(crate) admin: String,
    _process: Process,
}

impl Scene {
    pub(crate) async fn start() -> Result<Self> {
        let monitoring = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let nats = NatsServer::start_with(&format!("http: \"{monitoring}\""), &[])?;
        let url = nats.url();
        let mut cluster = Cluster::fleet_on_bus(2, &["--bus", &url, "--heartbeat-ms", "500"], &[]).await?;
        let balancer = Balancer::start(&url).await?;
        let nats_exporter = NatsExporter::start(monitoring).await?;
        let postgres_exporter = PostgresExporter::start(cluster.database()).await?;
        let gateways = [cluster.gateway(0).admin_address(), cluster.gateway(1).admin_address()];
        let jobs = [
            Job::new("gateway", gateways),
            Job::new("balancer", [&balancer.admin]),
            Job::new("nats", [&nats_exporter.address]),
            Job::new("postgres", [&postgres_exporter.address]),
        ];
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/prometheus/rules/fastchat.yml");
        let prometheus = PrometheusServer::start(SCRAPE, &jobs, &[rules]).await?;
        let (_nats, _nats_exporter, _postgres_exporter) = (nats, nats_exporter, postgres_exporter);
        let began = now();
        Ok(Self { cluster, balancer, prometheus, began, _nats, _nats_exporter, _postgres_exporter })
    }

    /// People come, chat in pairs and in a group, go and come back, and ask who is there.
    pub(crate) async fn live(&mut self) -> Result<()> {
        let names = ["alice", "bob", "carol", "dave"];
        let (urls, cluster) = ([self.cluster.url(0), self.cluster.url(1)], &self.cluster);
        let registering = names.iter().enumerate().map(|(place, name)| {
            let (url, profile) = (urls[place % 2].clone(), cluster.profile(name));
            async move { Machine::register(&url, name, profile).await }
        });
        let mut people = futures_util::future::try_join_all(registering).await?;
        let group = people[0].client.create_group("five", &["bob", "carol", "dave"], None, LONG).await;
        group.context("a group")?;
        people[0].send("#five", "first").await?;
        people[3].has("#five", "first").await?;
        // The last of them is away for a while.
        let away = people.pop().context("four people")?;
        let location = away.location.clone();
        away.client.close().await;
        self.chat(&people).await?;
        let back = Machine::open(location).await?;
        back.has("#five", "last").await?;
        people[0].client.online(LONG).await?;
        // Cursors are stored, and all of it is scraped.
        tokio::time::sleep(SCRAPE * 3).await;
        Ok(())
    }

    async fn chat(&self, people: &[Machine]) -> Result<()> {
        let until = Instant::now() + CHAT;
        for n in 0.. {
            if Instant::now() > until {
                break;
            }
            let (from, to) = (&people[n % 3], ["bob", "carol", "alice"][n % 3]);
            from.send(to, &format!("message {n}")).await?;
            if n % 5 == 0 {
                people[0].send("#five", &format!("to all {n}")).await?;
                self.balancer.assign().await?;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        people[0].send("#five", "last").await
    }
}

impl Balancer {
    async fn start(nats: &str) -> Result<Self> {
        let process = Process::spawn("fastchat-balancer", |command| {
            command.args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
                "--bus",
                nats,
            ]);
        })?;
        let line = process.line(LONG, |line| line.contains("serving")).await?;
        let place = |name: &str| -> Result<String> {
            let (_, rest) = line.split_once(&format!("{name}=\"http://")).context("an address")?;
            Ok(rest.split('"').next().unwrap_or_default().to_owned())
        };
        Ok(Self { public: place("url")?, admin: place("admin")?, _process: process })
    }

    async fn assign(&self) -> Result<String> {
        let request = "POST /v1/assign HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
        crate::exporters::exchange(&self.public, request).await
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

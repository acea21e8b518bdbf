//! A whole deployment: gateways as real processes, on real servers, with a proxy before the bus.
//!
//! - [`Cluster::fleet`]: n gateways, one Postgres, one NATS; each gateway reaches NATS through a proxy
//!   of its own, so that a story can take the bus from one of them.
//! - [`Cluster::embedded`]: one gateway with SQLite, as a newcomer has it.
//! - A gateway keeps its ports when it is killed and started again.

mod backup;

use crate::{
    balancer::http,
    process::{Process, run_to_end},
    proxy::Proxy,
    servers::{NatsServer, PostgresServer, free_port},
};
use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

pub use backup::Backup;

/// How long a gateway may take until it serves.
const START: Duration = Duration::from_secs(30);
/// Between head checks, so that stories about lost hints are short.
const HEAD_CHECK_MS: &str = "1000";
/// What a gateway limits by account or connection.
const RATES: [&str; 6] = [
    "--sends-per-second",
    "--claims-per-minute",
    "--commits-per-minute",
    "--slots-per-minute",
    "--presence-per-minute",
    "--blob-parts-per-minute",
];

/// A deployment. Dropping it ends everything that it started.
#[derive(Debug)]
pub struct Cluster {
    gateways: Vec<GatewayProcess>,
    proxies: Vec<Proxy>,
    nats: Option<NatsServer>,
    postgres: Option<PostgresServer>,
    database: Option<String>,
    /// What all gateways of a fleet are told.
    shared: Vec<String>,
    folder: TempDir,
}

/// One gateway's process.
#[derive(Debug)]
pub struct GatewayProcess {
    port: u16,
    admin_port: u16,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    process: Option<Process>,
    earlier_logs: String,
}

impl Cluster {
    /// A fleet of `gateways` on servers of its own.
    pub async fn fleet(gateways: usize) -> Result<Self> {
        Self::fleet_with(gateways, &[]).await
    }

    /// A fleet with further arguments for each gateway.
    pub async fn fleet_with(gateways: usize, arguments: &[&str]) -> Result<Self> {
        let mut cluster = Self::database_with(arguments).await?;
        cluster.nats = Some(NatsServer::start()?);
        for _ in 0..gateways {
            cluster.grow().await?;
        }
        Ok(cluster)
    }

    /// A fleet on a bus that the test has started: the arguments say where it is.
    pub async fn fleet_on_bus(
        gateways: usize,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let mut cluster = Self::database_with(arguments).await?;
        for _ in 0..gateways {
            cluster.add_with(cluster.shared.clone(), environment).await?;
        }
        Ok(cluster)
    }

    /// A database and what all gateways are told of it; nothing runs on it yet.
    async fn database_with(arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fastchat-fleet-").tempdir()?;
        let postgres = PostgresServer::start()?;
        let database = postgres.create_database().await?;
        let pepper = folder.path().join("pepper");
        std::fs::write(&pepper, "7".repeat(64))?;
        let mut shared = vec!["--store".to_owned(), database.clone()];
        shared.extend(["--pepper-file".to_owned(), pepper.display().to_string()]);
        shared.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let migrate = ["migrate".to_owned()].into_iter().chain(shared.clone());
        run_to_end("fastchat-gateway", migrate, START).await?;
        Ok(Self {
            gateways: Vec::new(),
            proxies: Vec::new(),
            nats: None,
            postgres: Some(postgres),
            database: Some(database),
            shared,
            folder,
        })
    }

    /// Adds a gateway to a fleet.
    pub async fn grow(&mut self) -> Result<()> {
        let proxy = Proxy::start(self.nats.as_ref().context("a fleet has NATS")?.address()).await?;
        let mut arguments = self.shared.clone();
        arguments.extend(["--bus".to_owned(), format!("nats://{}", proxy.address())]);
        self.proxies.push(proxy);
        self.add(arguments).await
    }

    /// One gateway with nothing around it.
    pub async fn embedded() -> Result<Self> {
        Self::embedded_with(&[]).await
    }

    /// One gateway with further arguments.
    pub async fn embedded_with(arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fastchat-embedded-").tempdir()?;
        let data = folder.path().join("data").display().to_string();
        let mut cluster = Self {
            gateways: Vec::new(),
            proxies: Vec::new(),
            nats: None,
            postgres: None,
            database: None,
            shared: Vec::new(),
            folder,
        };
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        cluster.add(["--data-dir".to_owned(), data].into_iter().chain(arguments).collect()).await?;
        Ok(cluster)
    }

    async fn add(&mut self, arguments: Vec<String>) -> Result<()> {
        self.add_with(arguments, &[]).await
    }

    async fn add_with(&mut self, mut arguments: Vec<String>, environment: &[(&str, &str)]) -> Result<()> {
        let (port, admin_port) = (free_port()?, free_port()?);
        arguments.extend(["--listen".to_owned(), format!("127.0.0.1:{port}")]);
        arguments.extend(["--admin-listen".to_owned(), format!("127.0.0.1:{admin_port}")]);
        arguments
            .extend(["--head-check-ms", HEAD_CHECK_MS, "--logins-per-minute", "10000"].map(str::to_owned));
        // Tests try often; what a person may is tested where it is decided.
        for rate in RATES {
            arguments.extend([rate, "100000"].map(str::to_owned));
        }
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let mut gateway = GatewayProcess {
            port,
            admin_port,
            arguments,
            environment: environment.collect(),
            process: None,
            earlier_logs: String::new(),
        };
        gateway.start().await?;
        self.gateways.push(gateway);
        Ok(())
    }

    /// The n-th gateway, from 0.
    pub fn gateway(&mut self, n: usize) -> &mut GatewayProcess {
        &mut self.gateways[n]
    }

    /// How many gateways there are.
    pub fn gateways(&self) -> usize {
        self.gateways.len()
    }

    /// The URL of the n-th gateway.
    pub fn url(&self, n: usize) -> String {
        self.gateways[n].url()
    }

    /// The proxy between the n-th gateway and NATS.
    pub fn bus_proxy(&self, n: usize) -> &Proxy {
        &self.proxies[n]
    }

    /// The fleet's NATS.
    pub fn nats(&mut self) -> &mut NatsServer {
        self.nats.as_mut().expect("only a fleet has NATS")
    }

    /// The fleet's Postgres.
    pub fn postgres(&mut self) -> &mut PostgresServer {
        self.postgres.as_mut().expect("only a fleet has Postgres")
    }

    /// The URL of the fleet's database.
    pub fn database(&self) -> &str {
        self.database.as_deref().expect("only a fleet has a database")
    }

    /// What tells a command which store this deployment has.
    pub fn store_arguments(&self) -> Vec<String> {
        match &self.database {
            Some(database) => vec!["--store".into(), database.clone()],
            None => vec!["--data-dir".into(), self.folder.path().join("data").display().to_string()],
        }
    }

    /// The folder of everything that belongs to this deployment, client profiles too.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A folder for a client's profile.
    pub fn profile(&self, name: &str) -> PathBuf {
        self.folder.path().join("profiles").join(name)
    }

    /// Everything that all gateways have logged, those that were killed too.
    pub fn logs(&self) -> String {
        self.gateways.iter().map(GatewayProcess::log).collect()
    }
}

impl GatewayProcess {
    /// Starts it, or starts it again, and waits until it serves.
    pub async fn start(&mut self) -> Result<()> {
        let (arguments, environment) = (self.arguments.clone(), self.environment.clone());
        let process = Process::spawn("fastchat-gateway", |command| {
            command
                .args(arguments)
                .envs(environment)
                .env("FASTCHAT_GATEWAY_LOG", "info,fastchat_gateway=debug");
        })?;
        process.line(START, |line| line.contains("serving")).await?;
        self.process = Some(process);
        Ok(())
    }

    /// Further arguments, from its next start on.
    pub fn add_arguments(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    }

    /// Ends it at once, as a crash does.
    pub async fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it runs")?;
        process.kill().await?;
        self.earlier_logs += &process.log();
        Ok(())
    }

    /// Asks it to drain, and waits for its end.
    pub async fn terminate(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it runs")?;
        let status = process.terminate(Duration::from_secs(30)).await?;
        self.earlier_logs += &process.log();
        if status.success() { Ok(()) } else { bail!("the gateway ended with {status}") }
    }

    /// The running process.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// Host and port for clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Host and port of the admin listener.
    pub fn admin_address(&self) -> String {
        format!("127.0.0.1:{}", self.admin_port)
    }

    /// A page of the admin listener: its status and body.
    pub async fn admin(&self, path: &str) -> Result<(u16, String)> {
        http(&self.admin_address(), "GET", path, "text/plain", "").await
    }

    /// What it has counted: the sum of the series that begin so and have this label.
    pub async fn counted(&self, name: &str, label: &str) -> Result<f64> {
        let (_, page) = self.admin("/metrics").await?;
        let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(label));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.earlier_logs.clone() + &self.process.as_ref().map(Process::log).unwrap_or_default()
    }
}

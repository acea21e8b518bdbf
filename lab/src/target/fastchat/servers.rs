//! The processes of a FastChat under measurement.

use super::{Setup, Spread, spread};
use crate::{floors::Ground, machine::Component};
use anyhow::{Context, Result, ensure};
use fastchat_gateway::store::{
    Store,
    postgres::{Options, Postgres},
    sqlite::Sqlite,
};
use fastchat_tests::{
    balancer::{BalancerProcess, http},
    process::{Process, program, run_to_end},
    servers::{NatsServer, PostgresServer},
};
use std::{num::NonZero, sync::Arc, time::Duration};
use tempfile::TempDir;

/// How long a gateway may take until it serves.
const START: Duration = Duration::from_secs(60);
/// What each gateway is told besides: limits by account or address are not what is measured, and where
/// gateways share a machine, each reports its own load.
const GATEWAY: [&str; 22] = [
    "--listen",
    "127.0.0.1:0",
    "--admin-listen",
    "127.0.0.1:0",
    "--load-scope",
    "process",
    "--logins-per-minute",
    "100000000",
    "--sends-per-second",
    "1000000",
    "--claims-per-minute",
    "1000000",
    "--commits-per-minute",
    "1000000",
    "--slots-per-minute",
    "1000000",
    "--presence-per-minute",
    "1000000",
    "--blob-parts-per-minute",
    "100000000",
    "--blob-quota-bytes",
    "1099511627776",
];
/// Of an operator who has read the manual, on a machine with some gigabytes. Commits reach the disk.
pub(in crate::target) const POSTGRES: [&str; 6] = [
    "fsync=on",
    "synchronous_commit=on",
    "shared_buffers=512MB",
    "max_wal_size=4GB",
    "checkpoint_timeout=15min",
    "checkpoint_completion_target=0.9",
];

/// Of NATS in a fleet, which shares the cores: with more, Go's idle threads look for work on them.
const NATS_PROCESSORS: &str = "1";

/// Everything that runs. Dropping it ends all of it.
#[derive(Debug)]
pub struct Servers {
    setup: Setup,
    gateways: Vec<Gateway>,
    balancer: Option<BalancerProcess>,
    nats: Option<NatsServer>,
    postgres: Option<PostgresServer>,
    /// What gateways are told of store and bus.
    arguments: Vec<String>,
    database: Option<String>,
    versions: Vec<(String, String)>,
    folder: TempDir,
}

#[derive(Debug)]
struct Gateway {
    address: String,
    process: Process,
}

impl Servers {
    /// Starts the store and the bus; gateways follow with [`Servers::serve`].
    pub async fn start(setup: &Setup) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fastchat-lab-").tempdir()?;
        let mut servers = Self {
            setup: setup.clone(),
            gateways: Vec::new(),
            balancer: None,
            nats: None,
            postgres: None,
            arguments: Vec::new(),
            database: None,
            versions: Vec::new(),
            folder,
        };
        servers.versions.push(("fastchat".to_owned(), version("fastchat-gateway")?));
        if setup.gateways == 0 {
            let data = servers.folder.path().join("data");
            std::fs::create_dir_all(&data)?;
            servers.arguments = vec!["--data-dir".to_owned(), data.display().to_string()];
            return Ok(servers);
        }
        let (postgres, nats) = (
            PostgresServer::start_with(&POSTGRES)?,
            NatsServer::start_with("", &[("GOMAXPROCS", NATS_PROCESSORS)])?,
        );
        let database = postgres.create_database().await?;
        let pepper = servers.folder.path().join("pepper");
        std::fs::write(&pepper, "7".repeat(64))?;
        servers.versions.push(("postgres settings".to_owned(), POSTGRES.join(" ")));
        servers.arguments = ["--store", &database, "--pepper-file", &pepper.display().to_string()]
            .map(str::to_owned)
            .to_vec();
        let migrate = ["migrate".to_owned()].into_iter().chain(servers.arguments.clone());
        run_to_end("fastchat-gateway", migrate, START).await?;
        servers.arguments.extend(["--bus".to_owned(), nats.url()]);
        (servers.postgres, servers.nats, servers.database) = (Some(postgres), Some(nats), Some(database));
        Ok(servers)
    }

    /// The store, for making people. An embedded one may be open here only before gateways serve.
    pub async fn store(&self) -> Result<Arc<dyn Store>> {
        match &self.database {
            Some(url) => {
                let options =
                    Options { url: url.clone(), max_connections: 4, application_name: "lab".to_owned() };
                Ok(Arc::new(Postgres::connect(&options)?))
            }
            None => {
                ensure!(self.gateways.is_empty(), "an embedded store is its gateway's alone");
                let path = self.folder.path().join("data").join("fastchat.sqlite");
                Ok(Arc::new(Sqlite::open(&path).await?))
            }
        }
    }

    /// Where the fleet's database is.
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// What the gateways stand on.
    pub fn ground(&self) -> Ground {
        Ground { postgres: self.database.clone(), nats: self.nats.as_ref().map(NatsServer::url) }
    }

    /// Starts the gateways, and the balancer if there is a strategy.
    pub async fn serve(&mut self) -> Result<()> {
        while self.gateways.len() < self.setup.gateways.max(1) {
            self.grow().await?;
        }
        if let (Spread::Balanced(strategy), None, Some(nats)) =
            (&self.setup.spread, &self.balancer, &self.nats)
        {
            let balancer = BalancerProcess::start(&["--bus", &nats.url(), "--strategy", strategy]).await?;
            let count = self.gateways.len();
            balancer
                .wait_for_fleet(|fleet| fleet["gateways"].as_array().is_some_and(|all| all.len() == count))
                .await?;
            self.balancer = Some(balancer);
        }
        Ok(())
    }

    /// Starts one further gateway.
    pub async fn grow(&mut self) -> Result<()> {
        let process = Process::spawn("fastchat-gateway", |command| {
            command.args(GATEWAY).args(&self.arguments).args(&self.setup.arguments);
            if self.setup.gateways > 0 {
                command.args(["--threads", &self.threads().to_string()]);
            }
        })?;
        let line = process.line(START, |line| line.contains("serving")).await?;
        // public_url="ws://.." comes first.
        let (_, rest) = line.split_once(" url=\"").context("the gateway does not say where it serves")?;
        let (_, rest) = rest.split_once("://").context("the gateway does not say where it serves")?;
        let address = rest.split('"').next().unwrap_or_default().to_owned();
        self.gateways.push(Gateway { address, process });
        Ok(())
    }

    /// Of each gateway of a fleet: its share of the cores, of which Postgres counts as one more.
    fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        (cores / (self.setup.gateways + 1)).max(1)
    }

    /// Where each of so many clients connects.
    pub async fn addresses(&self, clients: usize) -> Result<Vec<String>> {
        let Some(balancer) = &self.balancer else {
            let spread = match self.setup.spread {
                Spread::InTurn => spread::in_turn,
                Spread::Drawn | Spread::Balanced(_) => spread::drawn,
            };
            return Ok(spread(&self.gateways(), clients));
        };
        let mut addresses = Vec::new();
        for client in 0..clients {
            let ask = serde_json::json!({ "key": format!("{client:032x}") }).to_string();
            let (status, answer) =
                http(&balancer.public_address(), "POST", "/v1/assign", "application/json", &ask).await?;
            let answer: serde_json::Value = serde_json::from_str(&answer)?;
            let url = answer["url"].as_str().with_context(|| format!("status {status}: {answer}"))?;
            addresses.push(url.trim_start_matches("ws://").to_owned());
        }
        Ok(addresses)
    }

    /// The gateways' addresses.
    pub fn gateways(&self) -> Vec<String> {
        self.gateways.iter().map(|gateway| gateway.address.clone()).collect()
    }

    /// Ends a gateway at once, as a crash does.
    pub async fn kill(&mut self, gateway: usize) -> Result<()> {
        let mut gateway = self.gateways.remove(gateway);
        gateway.process.kill().await
    }

    /// Its processes.
    pub fn components(&self) -> Vec<Component> {
        let gateways = self.gateways.iter().filter_map(|gateway| gateway.process.pid());
        let postgres = self.postgres.as_ref().and_then(PostgresServer::pid);
        let nats = self.nats.as_ref().and_then(NatsServer::pid);
        let balancer = self.balancer.as_ref().and_then(|balancer| balancer.process.pid());
        let mut all = vec![Component::new("gateway", gateways)];
        for (name, pid) in [("postgres", postgres), ("nats", nats), ("balancer", balancer)] {
            all.extend(pid.map(|pid| Component::new(name, [pid])));
        }
        all
    }

    /// Versions and settings.
    pub fn about(&self) -> Vec<(String, String)> {
        let mut about = self.versions.clone();
        about.push(match self.setup.gateways {
            0 => ("store".to_owned(), "sqlite, within the gateway".to_owned()),
            _ => ("threads of each gateway".to_owned(), self.threads().to_string()),
        });
        if self.setup.gateways > 1 {
            about.push(("who is where".to_owned(), self.setup.spread.about()));
        }
        if self.nats.is_some() {
            about.push(("processors of nats".to_owned(), NATS_PROCESSORS.to_owned()));
        }
        if !self.setup.arguments.is_empty() {
            about.push(("gateway arguments".to_owned(), self.setup.arguments.join(" ")));
        }
        about.push(super::about_envelopes(self.setup.seal));
        about
    }
}

/// What `--version` says.
fn version(name: &str) -> Result<String> {
    let output = std::process::Command::new(program(name)?).arg("--version").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

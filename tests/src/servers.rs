//! Postgres, NATS and Prometheus for a test.
//!
//! `scripts/test` starts one server of each for the whole run and names them in
//! `FASTCHAT_TEST_POSTGRES` (a URL of a role that may create databases) and `FASTCHAT_TEST_NATS`.
//! Without these, each test starts its own; a test that kills servers always does. Tests on a shared
//! server do not meet: every one has a fresh database, and subjects are random ids.

mod nats;
mod postgres;
mod prometheus;

pub use nats::{NatsServer, ports::free_port};
pub use postgres::PostgresServer;
pub use prometheus::{Job, PrometheusServer};

use anyhow::{Context, Result};
use sqlx::{Connection, Executor, PgConnection};

/// A fresh, empty Postgres database.
#[derive(Debug)]
pub struct TestDatabase {
    url: String,
    /// Ends with the test, if it is the test's own.
    _server: Option<PostgresServer>,
}

impl TestDatabase {
    /// Makes a database, on the shared server or on a new one.
    pub async fn create() -> Result<Self> {
        if let Ok(url) = std::env::var("FASTCHAT_TEST_POSTGRES") {
            return Ok(Self { url: create_database(&url).await?, _server: None });
        }
        let server = PostgresServer::start()?;
        let url = server.create_database().await?;
        Ok(Self { url, _server: Some(server) })
    }

    /// Where it is, with user and database.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// A NATS server for tests that leave it alone.
#[derive(Debug)]
pub struct TestNats {
    url: String,
    _server: Option<NatsServer>,
}

impl TestNats {
    /// The shared server or a new one.
    pub fn find() -> Result<Self> {
        if let Ok(url) = std::env::var("FASTCHAT_TEST_NATS") {
            return Ok(Self { url, _server: None });
        }
        let server = NatsServer::start()?;
        Ok(Self { url: server.url(), _server: Some(server) })
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Makes a database next to the one that `url` names, and returns its URL.
async fn create_database(url: &str) -> Result<String> {
    let (server, _) = url.rsplit_once('/').context("a Postgres URL ends in /database")?;
    let name = format!("test_{:016x}", rand::random::<u64>());
    let mut connection = PgConnection::connect(url).await.context("cannot reach Postgres")?;
    let statement = format!("CREATE DATABASE {name}");
    connection.execute(sqlx::AssertSqlSafe(statement)).await?;
    connection.close().await?;
    Ok(format!("{server}/{name}"))
}

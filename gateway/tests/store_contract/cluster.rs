//! Real Postgres for the suite: the one that `FASTCHAT_TEST_POSTGRES` names (a superuser's URL), or a
//! throwaway one that ends with the tests.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// A Postgres of this process.
pub(crate) struct Cluster {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    url: String,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/store_contract/cluster.sh");
        let mut command = Command::new("sh");
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("sh runs");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("the output is piped"));
        let mut cluster = Self { child, input, output, url: String::new() };
        let folder = cluster.line();
        assert!(
            folder.starts_with('/'),
            "no Postgres: install the package postgresql, or set FASTCHAT_TEST_POSTGRES"
        );
        cluster.url = format!("postgres://postgres@localhost/postgres?host={folder}");
        cluster
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// `stop`, `crash` or `start`; returns when it is done.
    pub(crate) fn order(&mut self, word: &str) {
        writeln!(self.input.as_mut().expect("open until the end"), "{word}").expect("the script reads");
        assert_eq!(self.line(), "done");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the script writes");
        line.trim_end().to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.input.take());
        drop(self.child.wait());
    }
}

/// The superuser's URL of the shared cluster.
fn shared() -> &'static str {
    static SHARED: OnceLock<(String, Option<Cluster>)> = OnceLock::new();
    let shared = SHARED.get_or_init(|| match std::env::var("FASTCHAT_TEST_POSTGRES") {
        Ok(url) => (url, None),
        // Never dropped: its script sees the end of its input when this process ends.
        Err(_) => {
            let cluster = Cluster::start();
            (cluster.url().to_owned(), Some(cluster))
        }
    });
    &shared.0
}

/// A database that goes away with its test.
pub(crate) struct Database {
    name: String,
}

impl Database {
    pub(crate) async fn create() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("fastchat_test_{}_{number}", std::process::id());
        command(shared(), format!("CREATE DATABASE {name}")).await;
        Self { name }
    }

    pub(crate) fn url(&self) -> String {
        with_database(shared(), &self.name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let drop_it = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(command(shared(), drop_it));
        });
        drop(dropping.join());
    }
}

/// Runs SQL of the tests' own on a connection of its own.
pub(crate) async fn command(url: &str, sql: String) {
    let mut connection = PgConnection::connect(url).await.expect("the tests' Postgres answers");
    connection.execute(AssertSqlSafe(sql)).await.expect("the tests' own SQL is right");
    connection.close().await.expect("it closes");
}

pub(crate) fn with_database(url: &str, name: &str) -> String {
    let (base, query) =
        url.split_once('?').map_or((url, String::new()), |(base, query)| (base, format!("?{query}")));
    let server = base.rsplit_once('/').map_or(base, |(server, _)| server);
    format!("{server}/{name}{query}")
}

//! An ejabberd of our own, in a temporary folder and on a free port of the loopback address.
//!
//! It is no node of a cluster: nothing of Erlang's distribution runs, so that there is no epmd, no cookie
//! and no further port. Debian's program `ejabberdctl` is not asked, for it insists on its own user.

pub(super) use crate::target::fastchat::POSTGRES;
use crate::{
    machine::{self, Component},
    target::answers,
};
use anyhow::{Context, Result, ensure};
use fastchat_tests::{
    process::{Process, Signal, signal},
    servers::{PostgresServer, free_port},
};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The domain of accounts.
pub(super) const HOST: &str = "localhost";
/// The domain of groups.
pub(super) const GROUPS: &str = "groups.localhost";
/// What every client calls its connection.
pub(super) const RESOURCE: &str = "lab";
/// For reports.
pub(super) const SETTINGS: &str = "plain TCP, any name and password (login_anon), no shapers, max_fsm_queue 100000; \
                            mod_roster, mod_offline, mod_stream_mgmt, mod_muc without history and without \
                            presence of others; Erlang's own settings";

const PROGRAM: &str = "/usr/bin/erl";
/// Where Erlang has most of its libraries.
const ERLANG: &str = "/usr/lib/erlang/lib";
/// Debian's, with the tables of mod_mam.
const SCHEMA: &str = "/usr/share/ejabberd/sql/pg.sql";
/// How long the server may take until it accepts connections.
const START: Duration = Duration::from_secs(60);
/// How long its processes may take until they are gone.
const END: Duration = Duration::from_secs(5);

/// Dropping it ends it, with everything that it started.
#[derive(Debug)]
pub(super) struct Server {
    process: Process,
    port: u16,
    postgres: Option<PostgresServer>,
    _folder: TempDir,
}

impl Server {
    /// Starts it, and the archive's Postgres if there is to be one.
    pub(super) async fn start(archive: bool) -> Result<Self> {
        let installed = libraries().filter(|_| is_installed(archive));
        let libraries =
            installed.context("no ejabberd found; on Debian: apt-get install ejabberd erlang-p1-pgsql")?;
        let folder = tempfile::Builder::new().prefix("fastchat-lab-ejabberd-").tempdir()?;
        let port = free_port()?;
        let (postgres, database) = match archive {
            true => make_archive().await.map(|(postgres, url)| (Some(postgres), Some(url)))?,
            false => (None, None),
        };
        let config = folder.path().join("ejabberd.yml");
        fs::write(&config, settings(port, database.as_deref())?)?;
        let process = Process::spawn_path(OsStr::new(PROGRAM), "ejabberd", |command| {
            command.env("HOME", folder.path()).env("ERL_LIBS", &libraries);
            command.env("EJABBERD_CONFIG_PATH", &config);
            command.env("EJABBERD_LOG_PATH", folder.path().join("ejabberd.log"));
            command.env("ERL_CRASH_DUMP_SECONDS", "0");
            // Processes and ports, as many as ejabberdctl allows and more.
            command.args(["-noinput", "+P", "1000000", "+Q", "131072", "-mnesia", "dir"]);
            command.arg(format!("{:?}", folder.path().join("tables"))).args(["-s", "ejabberd"]);
        })?;
        let server = Self { process, port, postgres, _folder: folder };
        answers(&server.process, port, START).await?;
        Ok(server)
    }

    /// Where clients connect.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Its processes.
    pub(super) fn components(&self) -> Vec<Component> {
        let postgres = self.postgres.as_ref().and_then(PostgresServer::pid);
        let all = [("ejabberd", self.process.pid()), ("postgres", postgres)];
        all.into_iter().filter_map(|(name, pid)| Some(Component::new(name, [pid?]))).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Erlang has helpers of its own. They end when it does; here nobody relies on it.
        let all = self.process.pid().and_then(|pid| machine::descendants(pid).ok()).unwrap_or_default();
        for pid in &all {
            // It may have ended by itself.
            let _ = signal(*pid, Signal::KILL);
        }
        // Nobody writes to the folder any more when it is removed.
        let begin = Instant::now();
        while all.iter().any(|pid| machine::is_running(*pid)) && begin.elapsed() < END {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether it is here, with what it needs for an archive. Debian only suggests that.
pub(super) fn is_installed(archive: bool) -> bool {
    let driver = find(Path::new(ERLANG), "p1_pgsql-").is_some();
    Path::new(PROGRAM).exists() && libraries().is_some() && (driver || !archive)
}

/// As Debian numbers it.
pub(super) fn version() -> String {
    let folder = libraries().and_then(|folder| find(&folder, "ejabberd-"));
    let name = folder.and_then(|folder| Some(folder.file_name()?.to_string_lossy().into_owned()));
    name.unwrap_or_default()
}

/// Debian's folder of Erlang libraries with ejabberd in it.
fn libraries() -> Option<PathBuf> {
    let mut folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    folders.find(|folder| find(folder, "ejabberd-").is_some())
}

/// The newest version of an Erlang library in a folder.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(|it| it.starts_with(name)));
    named.map(|entry| entry.path()).filter(|path| path.join("ebin").exists()).max()
}

/// A Postgres with a database of ejabberd's tables.
async fn make_archive() -> Result<(PostgresServer, String)> {
    let postgres = PostgresServer::start_with(&POSTGRES)?;
    let url = postgres.create_database().await?;
    let output =
        postgres.command("psql").args(["-q", "-v", "ON_ERROR_STOP=1", "-f", SCHEMA, &url]).output()?;
    ensure!(output.status.success(), "{SCHEMA}: {}", String::from_utf8_lossy(&output.stderr));
    Ok((postgres, url))
}

/// Nothing that throttles, on one address; the archive of all that is written, if there is one.
fn settings(port: u16, database: Option<&str>) -> Result<String> {
    let mut text = format!(
        r#"
hosts: [{HOST}]
loglevel: error
auth_method: [anonymous]
anonymous_protocol: login_anon
allow_multiple_connections: true
max_fsm_queue: 100000
listen:
  - port: {port}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    backlog: 1024
    max_stanza_size: infinity
    access: all
    shaper: none
modules:
  mod_disco: {{}}
  mod_roster: {{}}
  mod_offline: {{}}
  mod_stream_mgmt: {{max_ack_queue: infinity}}
  mod_muc:
    host: {GROUPS}
    max_users: 100000
    max_user_conferences: 100000
    min_message_interval: 0
    min_presence_interval: 0
    history_size: 0
    default_room_options:
      max_users: 100000
      persistent: false
      presence_broadcast: []
      mam: {archive}
"#,
        archive = database.is_some(),
    );
    if let Some(database) = database {
        let (_, rest) = database.split_once('@').context("a URL of a database")?;
        let (address, name) = rest.split_once('/').context("a URL of a database")?;
        let (host, port) = address.split_once(':').context("a URL of a database")?;
        text += &format!(
            r#"  mod_mam: {{db_type: sql, default: always, assume_mam_usage: true}}
sql_type: pgsql
sql_server: "{host}"
sql_port: {port}
sql_database: "{name}"
sql_username: postgres
sql_pool_size: 10
"#
        );
    }
    Ok(text)
}

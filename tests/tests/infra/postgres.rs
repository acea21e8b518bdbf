//! infra/postgres on a real server: settings, who comes in, what each role may do, and a standby.

use crate::deployment::{Secrets, root, run};
use anyhow::{Context, Result, ensure};
use fastchat_tests::{process::program, servers::PostgresServer};
use sqlx::{Connection, Executor, PgConnection, Row};
use std::{path::Path, process::Command, time::Duration};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);

/// A server with our settings and our rules, its roles made, and where its files are.
struct Deployed {
    server: PostgresServer,
    secrets: Secrets,
    _files: tempfile::TempDir,
}

impl Deployed {
    /// `networks` stands for what an operator writes in pg_hba.conf.
    async fn start() -> Result<Self> {
        let (files, secrets) = (readable_folder()?, Secrets::make(&[])?);
        let hba = files.path().join("pg_hba.conf");
        std::fs::write(&hba, "host all all 127.0.0.1/32 trust\n")?;
        let config = files.path().join("fastchat.conf");
        std::fs::copy(root().join("infra/postgres/fastchat.conf"), &config)?;
        let settings = [format!("config_file={}", config.display()), format!("hba_file={}", hba.display())];
        // Less memory than a machine of its own would give.
        let settings = [settings[0].as_str(), &settings[1], "shared_buffers=16MB"];
        let server = PostgresServer::start_with(&settings)?;
        let deployed = Self { server, secrets, _files: files };
        for _ in 0..2 {
            deployed.run(
                Command::new(root().join("infra/postgres/create-roles"))
                    .env("SECRETS", deployed.secrets.path("")),
            )?;
        }
        let mut admin = PgConnection::connect(&deployed.server.url()).await?;
        let password = deployed.secrets.read("postgres-admin")?;
        admin.execute(sqlx::AssertSqlSafe(format!("ALTER ROLE postgres PASSWORD '{password}'"))).await?;
        std::fs::copy(root().join("infra/postgres/pg_hba.conf"), &hba)?;
        admin.execute("SELECT pg_reload_conf()").await?;
        // The rules are in force once the superuser needs a password.
        let strict = async {
            while PgConnection::connect(&deployed.server.url()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(LONG, strict).await.context("everybody comes in without a password")?;
        Ok(deployed)
    }

    fn run(&self, command: &mut Command) -> Result<String> {
        let address = self.server.address();
        run(command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", address.port().to_string())
            .env("PGUSER", "postgres"))
    }

    fn url(&self, role: &str, database: &str) -> Result<String> {
        let password = self.secrets.read(&format!("postgres-{}", role.trim_start_matches("fastchat_")))?;
        Ok(format!("postgres://{role}:{password}@{}/{database}", self.server.address()))
    }

    async fn connect(&self, role: &str, database: &str) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.url(role, database)?).await?)
    }

    async fn admin(&self) -> Result<PgConnection> {
        let password = self.secrets.read("postgres-admin")?;
        Ok(PgConnection::connect(&format!(
            "postgres://postgres:{password}@{}/postgres",
            self.server.address()
        ))
        .await?)
    }

    /// As the owner: the schema, and what gateways may do to it.
    fn migrate(&self) -> Result<()> {
        let (owner, pepper) = (self.url("fastchat_owner", "fastchat")?, self.secrets.path("pepper"));
        run(Command::new(program("fastchat-gateway")?).args([
            "migrate",
            "--store",
            &owner,
            "--pepper-file",
            &pepper,
        ]))?;
        let mut grants = Command::new("psql");
        grants.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(root().join("infra/postgres/roles.sql"));
        run(grants.arg(owner)).map(drop)
    }
}

/// Readable for the user that Postgres runs as.
fn readable_folder() -> Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::Builder::new().prefix("fastchat-postgres-files-").tempdir()?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

async fn refused(connection: &mut PgConnection, statement: &'static str) -> Result<()> {
    let Err(error) = connection.execute(statement).await else { anyhow::bail!("{statement} was allowed") };
    let code = error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
    ensure!(code.as_deref() == Some("42501"), "{statement}: {error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_what_it_needs_and_comes_in_by_password_only() -> Result<()> {
    let deployed = Deployed::start().await?;
    deployed.migrate()?;
    let mut gateway = deployed.connect("fastchat_gateway", "fastchat").await?;
    gateway.execute("SELECT count(*) FROM log").await?;
    for statement in [
        "CREATE TABLE other (id int)",
        "DROP TABLE log",
        "ALTER TABLE log ADD COLUMN other int",
        "TRUNCATE log",
        "UPDATE log SET seq = seq",
        "DELETE FROM settings",
        "COPY log TO PROGRAM 'true'",
        "CREATE ROLE other",
        "SET ROLE fastchat_owner",
    ] {
        refused(&mut gateway, statement).await?;
    }
    let mut monitor = deployed.connect("fastchat_monitor", "fastchat").await?;
    monitor.execute("SELECT * FROM pg_stat_activity, pg_stat_database").await?;
    for statement in ["SELECT * FROM accounts", "SELECT * FROM log", "CREATE TABLE other (id int)"] {
        refused(&mut monitor, statement).await?;
    }
    let mut owner = deployed.connect("fastchat_owner", "fastchat").await?;
    for statement in ["CREATE ROLE other", "CREATE DATABASE other", "COPY log TO PROGRAM 'true'"] {
        refused(&mut owner, statement).await?;
    }

    let address = deployed.server.address();
    for url in [
        deployed.url("fastchat_gateway", "postgres")?,
        deployed.url("fastchat_standby", "fastchat")?,
        format!("postgres://fastchat_gateway@{address}/fastchat"),
        format!("postgres://fastchat_gateway:wrong@{address}/fastchat"),
        format!(
            "postgres://fastchat_owner:{}@{address}/fastchat",
            deployed.secrets.read("postgres-gateway")?
        ),
        format!("postgres://somebody@{address}/fastchat"),
    ] {
        ensure!(PgConnection::connect(&url).await.is_err(), "{url} was let in");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_has_what_was_committed_and_a_commit_waits_for_it() -> Result<()> {
    let mut deployed = Deployed::start().await?;
    let mut admin = deployed.admin().await?;
    admin.execute("CREATE TABLE notes (id int)").await?;
    let files = readable_folder()?;
    let script = files.path().join("make-standby");
    std::fs::copy(root().join("infra/postgres/make-standby"), &script)?;
    let password = deployed.secrets.read("postgres-standby")?;
    let primary = deployed.server.address();
    let mut standby = PostgresServer::start_made(&["hot_standby=on"], |server| {
        let file = server.data().with_file_name("password");
        // Written by the user that will read it.
        let mut write = server.command("/bin/sh");
        run(write.args(["-c", "umask 077; printf %s \"$PASSWORD\" >password"]).env("PASSWORD", &password))?;
        let mut make = server.command(&script.display().to_string());
        make.arg(server.data()).arg(primary.to_string()).arg("standby_a").arg(file);
        run(&mut make).map(drop)
    })?;
    // What primary.conf says.
    let text = std::fs::read_to_string(root().join("infra/postgres/primary.conf"))?;
    for line in text.lines().filter(|line| !line.starts_with('#') && line.contains('=')) {
        admin.execute(sqlx::AssertSqlSafe(format!("ALTER SYSTEM SET {line}"))).await?;
    }
    admin.execute("SELECT pg_reload_conf()").await?;
    wait_until(&mut admin, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'").await?;
    admin.execute("INSERT INTO notes VALUES (1)").await?;

    standby.kill();
    let mut waiting = deployed.admin().await?;
    let commit = timeout(Duration::from_secs(2), waiting.execute("INSERT INTO notes VALUES (2)")).await;
    ensure!(commit.is_err(), "a commit did not wait for the standby");
    standby.restart()?;
    wait_until(&mut admin, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'").await?;
    timeout(LONG, admin.execute("INSERT INTO notes VALUES (3)")).await.context("writing goes on")??;

    deployed.server.kill();
    let url = format!(
        "postgres://postgres:{}@{}/postgres",
        deployed.secrets.read("postgres-admin")?,
        standby.address()
    );
    let mut promoted = PgConnection::connect(&url).await?;
    promoted.execute("SELECT pg_promote()").await?;
    let rows = promoted.fetch_one("SELECT count(*) FROM notes WHERE id IN (1, 3)").await?;
    ensure!(rows.try_get::<i64, _>(0)? == 2, "the standby lost what was committed");
    promoted.execute("INSERT INTO notes VALUES (4)").await.context("it takes writes now")?;
    Ok(())
}

async fn wait_until(connection: &mut PgConnection, count: &'static str) -> Result<()> {
    let waiting = async {
        while connection.fetch_one(count).await?.try_get::<i64, _>(0)? == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    timeout(LONG, waiting).await.with_context(|| count.to_owned())?
}

/// Settings that cost acked messages if they are turned off.
#[test]
fn nothing_that_an_ack_relies_on_is_turned_off() -> Result<()> {
    let text = std::fs::read_to_string(root().join("infra/postgres/fastchat.conf"))?;
    for setting in ["fsync = on", "full_page_writes = on", "synchronous_commit = on", "data_sync_retry = off"]
    {
        ensure!(text.lines().any(|line| line == setting), "{setting} is missing");
    }
    ensure!(Path::new(&root().join("infra/postgres/pg_hba.conf")).exists());
    let rules = std::fs::read_to_string(root().join("infra/postgres/pg_hba.conf"))?;
    for rule in rules.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let method = rule.split_whitespace().last().unwrap_or_default();
        ensure!(["peer", "scram-sha-256"].contains(&method), "{rule}");
        ensure!(!rule.contains("0.0.0.0") && !rule.contains("::/0"), "{rule}");
    }
    Ok(())
}

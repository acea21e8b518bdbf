//! The throwaway servers keep, lose and separate what a test relies on.

use anyhow::Result;
use fastchat_tests::{
    process::{Process, Signal},
    servers::{Job, NatsServer, PostgresServer, PrometheusServer, TestDatabase, TestNats, free_port},
};
use sqlx::{Connection, Executor, PgConnection};
use std::{
    net::{Ipv4Addr, TcpListener, UdpSocket},
    time::Duration,
};

#[tokio::test]
async fn a_killed_postgres_has_what_was_committed() -> Result<()> {
    let mut server = PostgresServer::start()?;
    let url = server.create_database().await?;
    let mut connection = PgConnection::connect(&url).await?;
    connection.execute("CREATE TABLE rows (n int)").await?;
    connection.execute("INSERT INTO rows VALUES (1), (2)").await?;
    server.kill();
    assert!(PgConnection::connect(&url).await.is_err());
    server.restart()?;
    let mut connection = PgConnection::connect(&url).await?;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM rows").fetch_one(&mut connection).await?;
    assert_eq!(count, 2);
    Ok(())
}

#[tokio::test]
async fn every_database_is_fresh() -> Result<()> {
    let first = TestDatabase::create().await?;
    let mut connection = PgConnection::connect(first.url()).await?;
    connection.execute("CREATE TABLE mine ()").await?;
    let second = TestDatabase::create().await?;
    let mut connection = PgConnection::connect(second.url()).await?;
    assert!(connection.execute("SELECT * FROM mine").await.is_err());
    Ok(())
}

#[tokio::test]
async fn nats_comes_back_on_its_port() -> Result<()> {
    let mut server = NatsServer::start()?;
    let url = server.url();
    async_nats::connect(&url).await?;
    server.kill();
    assert!(async_nats::connect(&url).await.is_err());
    server.restart()?;
    async_nats::connect(&url).await?;
    async_nats::connect(TestNats::find()?.url()).await?;
    Ok(())
}

/// A Prometheus scrapes itself here: it is a target that is always there.
#[tokio::test]
async fn prometheus_scrapes_evaluates_and_changes_its_targets() -> Result<()> {
    let limit = Duration::from_secs(20);
    let folder = tempfile::tempdir()?;
    let rules = folder.path().join("rules.yml");
    let rule = "groups: [{name: g, rules: [{record: job:up:sum, expr: sum by (job) (up)}]}]";
    std::fs::write(&rules, rule)?;
    let mut server = PrometheusServer::start(Duration::from_millis(200), &[], &[rules]).await?;
    assert_eq!(server.value("up").await?, None, "nothing is scraped yet");
    assert!(server.query("sum by (").await.expect_err("a bad query").to_string().contains("parse error"));
    server.scrape(&[Job::new("itself", [server.address()]), Job::new("nobody", ["127.0.0.1:1"])])?;
    server.wait_for("job:up:sum{job=\"itself\"} == 1", limit).await?;
    server.wait_for("up{job=\"nobody\",instance=\"127.0.0.1:1\"} == 0", limit).await?;
    assert_eq!(server.get("/api/v1/rules").await?["data"]["groups"][0]["name"], "g");
    server.kill();
    assert!(server.query("up").await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_program_is_read_signalled_and_ended() -> Result<()> {
    let script = "echo ready; echo trouble >&2; read line; echo got $line; sleep 100";
    let mut process = Process::spawn_path("sh".as_ref(), "sh", |command| {
        command.args(["-c", script]);
    })?;
    let limit = Duration::from_secs(5);
    process.line(limit, |line| line == "trouble").await?;
    process.write_line("hello").await?;
    assert_eq!(process.line(limit, |line| line.starts_with("got")).await?, "got hello");
    assert_eq!(process.stdout(), "ready\ngot hello\n");
    let error = process.line(Duration::from_millis(50), |line| line == "never").await.expect_err("not said");
    assert!(error.to_string().contains("trouble"), "the log is in the error: {error}");
    process.pause()?;
    process.signal(Signal::CONT)?;
    process.kill().await?;
    assert!(process.signal(Signal::TERM).is_err(), "it is gone");
    Ok(())
}

#[tokio::test]
async fn a_program_that_ends_gives_its_output() -> Result<()> {
    let process = Process::spawn_path("cat".as_ref(), "cat", |_| {})?;
    let mut process = process;
    process.write_line("one").await?;
    let (status, output) = process.finish().await?;
    assert!(status.success());
    assert_eq!(output, "one\n");
    Ok(())
}

#[test]
fn a_port_is_given_once() -> Result<()> {
    let first = free_port()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, first))?;
    drop(listener);
    // As another process does.
    assert!(UdpSocket::bind((Ipv4Addr::LOCALHOST, first)).is_err(), "it stays taken when nobody listens");
    let others: Vec<_> = (first + 1..first + 20)
        .filter_map(|port| Some((port, UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()?)))
        .collect();
    for _ in 0..20 {
        let port = free_port()?;
        assert!(port != first && !others.iter().any(|(other, _)| *other == port), "{port} is taken");
    }
    Ok(())
}

//! infra/nats on a real server: what each role may do works, what it may not do is refused, nobody comes
//! in without a password, and three servers are one bus.

#[path = "roles/bus.rs"]
mod bus;
#[path = "support/deployment.rs"]
mod deployment;

use anyhow::{Context, Result};
use bus::{Role, single, three};
use deployment::Secrets;
use fastchat_tests::{cluster::Cluster, history::History, process::Process, user::User};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);
const ID: &str = "0123456789abcdef0123456789abcdef";

/// Literal subjects of an id, and the wildcards over them.
fn each(subjects: &[&str]) -> Vec<String> {
    subjects.iter().map(|subject| subject.replace("ID", ID)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_may_what_it_needs_and_nothing_else() -> Result<()> {
    let secrets = Secrets::make(&[])?;
    let nats = single(&secrets)?;
    let gateway = Role::connect(&nats.url(), "gateway", &secrets.read("bus-gateway")?).await?;
    gateway
        .may_publish(&each(&["fc.v1.user.ID", "fc.v1.group.ID", "fc.v1.fleet.heartbeat.ID", "fc.v1.barrier"]))
        .await?;
    gateway
        .may_subscribe(&each(&["fc.v1.user.ID", "fc.v1.group.ID", "fc.v1.fleet.shed.ID", "fc.v1.inbox.ID.1"]))
        .await?;
    gateway
        .may_not_publish(&each(&[
            "fc.v1.fleet.shed.ID",
            "fc.v1.fleet.balancer.ID",
            "fc.v1.inbox.ID.1",
            "fc.v1.user.ID.more",
            "fc.v1.user",
            "fc.v2.user.ID",
            "_INBOX.ID",
            "$SYS.REQ.SERVER.PING",
            "$JS.API.INFO",
            "other",
        ]))
        .await?;
    // Not here: fc.v1.user.>, which nats-server 2.9.10 lets in where fc.v1.user.* is allowed. It is the same
    // set, because nobody may publish deeper.
    gateway
        .may_not_subscribe(&each(&[
            ">",
            "*",
            "fc.>",
            "fc.v1.>",
            "fc.v1.*.ID",
            "fc.v1.fleet.>",
            "fc.v1.fleet.*.ID",
            "fc.v1.fleet.heartbeat.ID",
            "fc.v1.fleet.heartbeat.*",
            "_INBOX.>",
            "$SYS.>",
            "$JS.>",
        ]))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_may_what_it_needs_and_nothing_else() -> Result<()> {
    let secrets = Secrets::make(&[])?;
    let nats = single(&secrets)?;
    let balancer = Role::connect(&nats.url(), "balancer", &secrets.read("bus-balancer")?).await?;
    balancer.may_publish(&each(&["fc.v1.fleet.shed.ID", "fc.v1.fleet.balancer.ID"])).await?;
    balancer.may_subscribe(&each(&["fc.v1.fleet.heartbeat.*", "fc.v1.fleet.balancer.*"])).await?;
    balancer
        .may_not_publish(&each(&[
            "fc.v1.user.ID",
            "fc.v1.group.ID",
            "fc.v1.fleet.heartbeat.ID",
            "fc.v1.inbox.ID.1",
            "fc.v1.barrier",
            "$SYS.REQ.SERVER.PING",
            "other",
        ]))
        .await?;
    balancer
        .may_not_subscribe(&each(&[
            ">",
            "fc.v1.>",
            "fc.v1.user.ID",
            "fc.v1.user.*",
            "fc.v1.group.*",
            "fc.v1.fleet.>",
            "fc.v1.fleet.shed.ID",
            "fc.v1.inbox.>",
            "_INBOX.>",
            "$SYS.>",
        ]))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_in_without_the_password_of_a_role() -> Result<()> {
    let secrets = Secrets::make(&[])?;
    let nats = single(&secrets)?;
    let (gateway, balancer) = (secrets.read("bus-gateway")?, secrets.read("bus-balancer")?);
    assert!(async_nats::connect(nats.url()).await.is_err(), "an anonymous connection was let in");
    for (user, password) in [
        ("gateway", "wrong"),
        ("gateway", ""),
        ("", ""),
        ("gateway", balancer.as_str()),
        ("balancer", gateway.as_str()),
        ("SYSTEM", gateway.as_str()),
        ("monitor", ""),
    ] {
        let connected = Role::connect(&nats.url(), user, password).await;
        assert!(connected.is_err(), "{user:?} was let in with {password:?}");
    }
    // The right one is, so that the refusals above say something.
    Role::connect(&nats.url(), "gateway", &gateway).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn real_gateways_and_a_real_balancer_work_with_their_credentials() -> Result<()> {
    let secrets = Secrets::make(&[])?;
    let nats = single(&secrets)?;
    let login = ["--bus", &nats.url(), "--bus-user", "gateway", "--bus-password-file"];
    let password = secrets.path("bus-gateway");
    let mut cluster = Cluster::fleet_on_bus(2, &[&login[..], &[&password]].concat(), &[]).await?;
    let history = History::new();
    let (alice, bob) = two_people(&cluster, &history).await?;
    let mut sent = 0;
    assert_live(&mut cluster, &alice, &bob, &mut sent).await?;

    let balancer = Process::spawn("fastchat-balancer", |command| {
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.args(["--bus", &nats.url(), "--bus-user", "balancer", "--bus-password-file"]);
        command
            .arg(secrets.path("bus-balancer"))
            .env("FASTCHAT_BALANCER_LOG", "info,fastchat_balancer=debug");
    })?;
    let line = balancer.line(LONG, |line| line.contains("serving")).await?;
    let admin =
        line.split("admin=\"http://").nth(1).and_then(|rest| rest.split('"').next()).context("admin")?;
    let heard = async {
        loop {
            let fleet = bus::get(admin, "/fleet").await?;
            if [cluster.url(0), cluster.url(1)].iter().all(|url| fleet.contains(url)) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LONG, heard).await.context("the balancer hears both gateways")??;
    for (who, log) in [("gateway", cluster.logs()), ("balancer", balancer.log())] {
        assert!(!log.contains("refused something"), "the bus refused something of the {who}:\n{log}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_are_one_bus_and_one_of_them_may_die() -> Result<()> {
    let secrets = Secrets::make(&["--nats", "127.0.0.1,127.0.0.1,127.0.0.1"])?;
    let mut servers = three(&secrets).await?;
    let gateway = secrets.read("bus-gateway")?;
    let authority = secrets.path("tls/ca.pem");
    let urls: Vec<String> = servers.iter().map(|server| server.url().replace("nats://", "tls://")).collect();

    // What one server is told, the others pass on.
    let first = Role::connect_tls(&urls[0], "gateway", &gateway, &authority).await?;
    for url in &urls[1..] {
        let other = Role::connect_tls(url, "gateway", &gateway, &authority).await?;
        first.reaches(&other, &format!("fc.v1.user.{ID}")).await.context(url.clone())?;
    }
    let refused = Role::connect(&servers[0].url(), "gateway", &gateway).await;
    assert!(refused.is_err(), "a connection without TLS was let in");

    let all = urls.join(",");
    let password = secrets.path("bus-gateway");
    let login = ["--bus", &all, "--bus-user", "gateway", "--bus-password-file", &password];
    let mut cluster = Cluster::fleet_on_bus(2, &login, &[("SSL_CERT_FILE", &authority)]).await?;
    let history = History::new();
    let (alice, bob) = two_people(&cluster, &history).await?;
    let mut sent = 0;
    assert_live(&mut cluster, &alice, &bob, &mut sent).await?;
    servers[1].kill();
    assert_live(&mut cluster, &alice, &bob, &mut sent).await?;
    servers[1].restart()?;
    servers[0].kill();
    assert_live(&mut cluster, &alice, &bob, &mut sent).await
}

/// Alice on the first gateway and Bob on the second.
async fn two_people(cluster: &Cluster, history: &History) -> Result<(User, User)> {
    let alice = User::register(&cluster.url(0), "alice", cluster.profile("alice"), history).await?;
    let bob = User::register(&cluster.url(1), "bob", cluster.profile("bob"), history).await?;
    Ok((alice, bob))
}

/// What Alice has `sent` so far and sends now arrives, and the bus carries it. Head checks alone would let it arrive as well, a
/// second later.
async fn assert_live(cluster: &mut Cluster, alice: &User, bob: &User, sent: &mut usize) -> Result<()> {
    let carried = async {
        loop {
            let before = records(cluster).await?;
            alice.send("bob").await?;
            *sent += 1;
            tokio::time::sleep(Duration::from_millis(300)).await;
            if records(cluster).await? > before {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(LONG, carried).await.context("the bus carries nothing")??;
    bob.sees("alice", *sent, LONG).await.map(drop)
}

/// Records that the second gateway has taken from the bus.
async fn records(cluster: &mut Cluster) -> Result<f64> {
    cluster.gateway(1).counted("fastchat_bus_records_total", "").await
}

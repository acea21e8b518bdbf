//! Stories of who runs a gateway: leaving, certificates, pages of the admin listener, one profile for
//! two commands.

use anyhow::{Context, Result};
use fastchat_protocol::{Code, ServerFrame};
use fastchat_tests::{
    cli::Person,
    cluster::Cluster,
    history::History,
    process::{Process, Signal},
    raw::RawDevice,
    user::User,
};
use std::{path::Path, time::Duration};

const LONG: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_asked_to_leaves_in_order_and_nobody_loses_anything() -> Result<()> {
    let (mut cluster, history) = (Cluster::embedded_with(&["--drain-seconds", "2"]).await?, History::new());
    let url = cluster.url(0);
    let alice = User::register(&url, "alice", cluster.profile("alice"), &history).await?;
    let bob = User::register(&url, "bob", cluster.profile("bob"), &history).await?;
    alice.send("bob").await?;
    bob.sees("alice", 1, LONG).await?;
    cluster.gateway(0).terminate().await?;
    let sending = alice.send("bob");
    let (sent, started) = tokio::join!(sending, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.gateway(0).start().await
    });
    sent?;
    started?;
    bob.sees("alice", 2, LONG).await?;
    assert!(cluster.logs().contains("draining"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_connection_of_a_device_displaces_the_older_one_on_any_gateway() -> Result<()> {
    let mut cluster = Cluster::fleet(2).await?;
    let (here, there) = (cluster.gateway(0).address(), cluster.gateway(1).address());
    let (device, mut first) = RawDevice::register(&here, "alice").await?;
    let mut second = device.resume(&here).await?;
    assert_displaced(&mut first).await?;
    let mut third = device.resume(&there).await?;
    assert_displaced(&mut second).await?;
    third.idle(Duration::from_millis(500)).await.context("the newest one stays")
}

async fn assert_displaced(client: &mut fastchat_tests::raw::RawClient) -> Result<()> {
    loop {
        match client.next().await?.1 {
            ServerFrame::Closing(refusal) => {
                assert_eq!(refusal.code, Code::Displaced);
                return Ok(());
            }
            ServerFrame::Heads(_) | ServerFrame::Resync(_) => {}
            other => anyhow::bail!("expected the end, got {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_commands_share_one_profile() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let alice = Person::new("alice", cluster.profile("alice"), &cluster.url(0))?;
    let bob = Person::new("bob", cluster.profile("bob"), &cluster.url(0))?;
    for person in [&alice, &bob] {
        person.run(&["register", &person.name]).await?.ok()?;
    }
    let listening = alice.start(&["listen", "--json"], &[])?;
    listening.line(LONG, |line| line.contains("synced")).await?;
    alice.run(&["send", "bob", "from beside the listener"]).await?.ok()?;
    bob.run(&["send", "alice", "to the listener"]).await?.ok()?;
    listening.line(LONG, |line| line.contains("to the listener")).await?;
    let ran = bob.run(&["history", "alice", "--json"]).await?.ok()?;
    assert!(ran.stdout.contains("from beside the listener"), "{}", ran.log);
    let ran = alice.run(&["conversations", "--json"]).await?.ok()?;
    assert!(!ran.json()?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_served_and_its_certificate_replaced_without_a_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    certificate(&chain, &key)?;
    let (chain_text, key_text) = (chain.display().to_string(), key.display().to_string());
    let mut cluster =
        Cluster::embedded_with(&["--tls-certificate", &chain_text, "--tls-key", &key_text]).await?;
    let port = cluster.gateway(0).address().rsplit_once(':').context("a port")?.1.to_owned();
    let url = format!("wss://localhost:{port}");

    let alice = Person::new("alice", cluster.profile("alice"), &url)?;
    let strict = alice.run(&["register", "alice"]).await?;
    assert_ne!(strict.code, Some(0), "a certificate that nobody vouches for");
    alice.run(&["register", "alice", "--ca", &chain_text]).await?.ok()?;
    alice.run(&["send", "alice", "over TLS"]).await?.ok()?;

    // A new certificate: whoever trusts the old one only is not served, and a broken file changes
    // nothing. The profile remembers the file that it was registered with.
    let old = std::fs::read(&chain)?;
    certificate(&chain, &key)?;
    reload(&mut cluster, "was read again").await?;
    alice.run(&["send", "alice", "over new TLS"]).await?.ok()?;
    let new = std::fs::read(&chain)?;
    std::fs::write(&chain, old)?;
    assert_ne!(alice.run(&["send", "alice", "not yet", "--timeout", "3"]).await?.code, Some(0));
    std::fs::write(&chain, new)?;
    std::fs::write(&key, "not a key")?;
    reload(&mut cluster, "in force stays").await?;
    alice.run(&["send", "alice", "still there"]).await?.ok()?;
    Ok(())
}

async fn reload(cluster: &mut Cluster, says: &'static str) -> Result<()> {
    let process = cluster.gateway(0).process();
    process.signal(Signal::HUP)?;
    process.line(LONG, move |line| line.contains(says)).await.map(drop)
}

fn certificate(chain: &Path, key: &Path) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(chain, made.cert.pem())?;
    std::fs::write(key, made.signing_key.serialize_pem())?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_tells_how_things_stand() -> Result<()> {
    let mut cluster = Cluster::embedded().await?;
    let address = cluster.gateway(0).address();
    let (_, _client) = RawDevice::register(&address, "alice").await?;
    let gateway = cluster.gateway(0);
    assert_eq!(gateway.admin("/livez").await?.0, 200);
    let (status, ready) = gateway.admin("/readyz").await?;
    assert_eq!((status, ready.contains("\"ready\":true")), (200, true), "{ready}");
    let metrics = gateway.admin("/metrics").await?.1;
    for line in ["fastchat_connections 1", "fastchat_ready 1", "kind=\"Register\",result=\"ok\"} 1"] {
        assert!(metrics.contains(line), "{line} is missing:\n{metrics}");
    }
    assert!(!metrics.contains("alice"), "a metric names a user");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_settings_end_with_64_and_name_the_key() -> Result<()> {
    for (arguments, key) in [
        (&["--listen", "0.0.0.0:0"][..], "listen"),
        (&["--store", "mysql://x"], "store"),
        (&["check-config", "--bus", "nats://127.0.0.1:4222"], "bus"),
        (&["check-config", "--registration", "perhaps"], "registration"),
    ] {
        let mut process = Process::spawn("fastchat-gateway", |command| {
            command.args(arguments).current_dir(std::env::temp_dir());
        })?;
        let status = process.wait(LONG).await?;
        assert_eq!(status.code(), Some(64), "{}", process.log());
        assert!(process.log().contains(&format!("{key}: ")), "{key} is not named: {}", process.log());
    }
    Ok(())
}

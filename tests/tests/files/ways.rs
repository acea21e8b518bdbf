//! Where bytes of files go, and by which way: object storage that comes and goes, and TLS.

use super::{LONG, MEGABYTE, file, folder, last_file, person, same, text};
use anyhow::{Context, Result, ensure};
use fastchat_tests::{cli::Person, cluster::Cluster, wait::until};
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_waits_for_object_storage_and_messages_do_not() -> Result<()> {
    let place = tempfile::tempdir()?;
    let (bucket, away) = (place.path().join("bucket"), place.path().join("away"));
    fs::create_dir(&bucket)?;
    let storage = format!("file://{}", bucket.display());
    let mut cluster = Cluster::fleet_with(2, &["--blob-storage", &storage]).await?;
    let (alice, bob) = (person(&cluster, 0, "alice").await?, person(&cluster, 1, "bob").await?);
    let first = file(&alice, "first.bin", MEGABYTE)?;
    alice.run(&["file", "send", "bob", text(&first)]).await?.ok()?;
    let folder = folder(&bob, "in")?;
    let get = async |seq: &str| bob.run(&["file", "get", "alice", seq, "--to", text(&folder)]).await?.ok();
    get(&last_file(&bob, "alice").await?).await?;
    same(&first, &folder.join("first.bin"))?;

    // The folder is none any more: nothing can be put, and the gateways say so.
    fs::rename(&bucket, &away)?;
    fs::write(&bucket, "in the way")?;
    let second = file(&alice, "second.bin", 2 * MEGABYTE)?;
    let mut sending = alice.start(&["file", "send", "bob", text(&second), "--json"], &[])?;
    until(LONG, "a part is refused", async || {
        let refused = r#"direction="in",result="unavailable""#;
        Ok(cluster.gateway(0).counted("fastchat_blob_requests_total", refused).await? >= 1.0)
    })
    .await?;
    let failed =
        cluster.gateway(0).counted("fastchat_blob_storage_failures_total", r#"reason="unavailable""#);
    ensure!(failed.await? >= 1.0, "it is counted");
    for n in 0..2 {
        ensure!(cluster.gateway(n).admin("/readyz").await?.0 == 200, "messages go on");
    }
    bob.run(&["send", "alice", "text meanwhile"]).await?.ok()?;
    ensure!(!sending.stdout().contains(r#""type":"sent""#), "{}", sending.log());

    fs::remove_file(&bucket)?;
    fs::rename(&away, &bucket)?;
    ensure!(sending.wait(LONG).await?.success(), "{}", sending.log());
    get(&last_file(&bob, "alice").await?).await?;
    same(&second, &folder.join("second.bin"))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_and_comes_over_tls() -> Result<()> {
    let place = tempfile::tempdir()?;
    let (chain, key) = (place.path().join("chain.pem"), place.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    fs::write(&chain, made.cert.pem())?;
    fs::write(&key, made.signing_key.serialize_pem())?;
    let mut cluster =
        Cluster::embedded_with(&["--tls-certificate", text(&chain), "--tls-key", text(&key)]).await?;
    let port = cluster.gateway(0).address().rsplit_once(':').context("a port")?.1.to_owned();
    let url = format!("wss://localhost:{port}");
    let (alice, bob) = (
        Person::new("alice", cluster.profile("alice"), &url)?,
        Person::new("bob", cluster.profile("bob"), &url)?,
    );
    // The profile remembers whom it trusts; the tasks that move parts are to know it, too.
    for person in [&alice, &bob] {
        person.run(&["register", &person.name, "--ca", text(&chain)]).await?.ok()?;
        person.run(&["login"]).await?.ok()?;
    }
    let sent = file(&alice, "sealed.bin", 3 * MEGABYTE)?;
    alice.run(&["file", "send", "bob", text(&sent)]).await?.ok()?;
    let folder = folder(&bob, "in")?;
    let seq = last_file(&bob, "alice").await?;
    bob.run(&["file", "get", "alice", &seq, "--to", text(&folder)]).await?.ok()?;
    same(&sent, &folder.join("sealed.bin"))?;
    let put = cluster.gateway(0).counted("fastchat_blob_requests_total", r#"direction="in",result="ok""#);
    ensure!(put.await? >= 12.0, "it went through the public listener, which speaks TLS alone");
    Ok(())
}

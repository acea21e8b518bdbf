//! What was said stays on the devices: a planted text is searched for everywhere else.

use anyhow::Result;
use fastchat_tests::{
    cluster::Cluster,
    history::History,
    leaks::{Marker, NatsCapture, scan_folder, scan_postgres},
    user::User,
};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_text_is_in_no_table_no_bus_record_no_log_no_metric_and_no_file() -> Result<()> {
    let (mut cluster, history, marker) = (Cluster::fleet(2).await?, History::new(), Marker::random());
    let capture = NatsCapture::start(&cluster.nats().url()).await?;
    let alice = User::register(&cluster.url(0), "alice", cluster.profile("alice"), &history).await?;
    let bob = User::register(&cluster.url(1), "bob", cluster.profile("bob"), &history).await?;
    for n in 1..=5 {
        alice.client.send("bob", &format!("alice#{n} {}", marker.text()), LONG).await?;
    }
    bob.sees("alice", 5, LONG).await?;
    assert!(
        bob.seen().iter().all(|m| m.text.contains(marker.text())),
        "the scan must look for what was said"
    );
    bob.client.update_keys("alice").await?;
    let away = bob.leave().await;
    alice.client.send("bob", &format!("alice#6 {}", marker.text()), LONG).await?;
    let bob = User::come_back(away).await?;
    bob.sees("alice", 1, LONG).await?;

    let mut pages = String::new();
    for gateway in [0, 1] {
        pages += &cluster.gateway(gateway).admin("/metrics").await?.1;
    }
    assert!(pages.contains("fastchat_deliveries_total"), "the metrics are not there");
    let logs = cluster.logs();
    assert!(logs.contains("serving"), "the logs are not there");
    for (what, text) in [("metrics", &pages), ("logs", &logs)] {
        assert_eq!(marker.find(text.as_bytes()), None, "found in the {what}");
    }
    scan_postgres(cluster.database(), &marker).await?.assert_clean();
    capture.finish(&marker).await?.assert_clean();
    // The profiles too: what is at rest on a device is sealed.
    scan_folder(cluster.folder(), &marker)?.assert_clean();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_holds_nothing_readable() -> Result<()> {
    let (cluster, history, marker) = (Cluster::embedded().await?, History::new(), Marker::random());
    let alice = User::register(&cluster.url(0), "alice", cluster.profile("alice"), &history).await?;
    for n in 1..=3 {
        alice.client.send("alice", &format!("alice#{n} {}", marker.text()), LONG).await?;
    }
    alice.leave().await;
    scan_folder(cluster.folder(), &marker)?.assert_clean();
    assert_eq!(marker.find(cluster.logs().as_bytes()), None);
    Ok(())
}

//! Stories of delivery over two gateways, on real Postgres and NATS, and embedded.

use anyhow::Result;
use fastchat_tests::{
    cluster::Cluster,
    history::History,
    user::{User, judge},
};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Two people on two gateways.
async fn pair(cluster: &Cluster, history: &History) -> Result<(User, User)> {
    let other = cluster.url(cluster.gateways() - 1);
    let (near, far) = (cluster.url(0), other);
    let (alice, bob) = tokio::join!(
        User::register(&near, "alice", cluster.profile("alice"), history),
        User::register(&far, "bob", cluster.profile("bob"), history),
    );
    Ok((alice?, bob?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_crosses_the_bus_and_waits_for_whom_is_away() -> Result<()> {
    let (cluster, history) = (Cluster::fleet(2).await?, History::new());
    let (alice, bob) = pair(&cluster, &history).await?;
    alice.send("bob").await?;
    bob.sees("alice", 1, LONG).await?;
    bob.send("alice").await?;
    alice.sees("bob", 1, LONG).await?;

    let away = bob.leave().await;
    alice.send_many("bob", 30).await?;
    let bob = User::come_back(away).await?;
    bob.sees("alice", 30, LONG).await?;
    bob.send("alice").await?;
    alice.sees("bob", 2, LONG).await?;
    judge(&history, &alice, &bob).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_gateway_tells_the_same_story() -> Result<()> {
    let (cluster, history) = (Cluster::embedded().await?, History::new());
    let (alice, bob) = pair(&cluster, &history).await?;
    alice.send("bob").await?;
    bob.sees("alice", 1, LONG).await?;
    let away = bob.leave().await;
    alice.send_many("bob", 30).await?;
    let bob = User::come_back(away).await?;
    bob.sees("alice", 30, LONG).await?;
    judge(&history, &alice, &bob).await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_gateways_are_killed_in_the_middle_of_a_thousand_messages() -> Result<()> {
    let (mut cluster, history) = (Cluster::fleet(2).await?, History::new());
    let (alice, bob) = pair(&cluster, &history).await?;
    alice.send("bob").await?;
    bob.sees("alice", 1, LONG).await?;

    let killer = async {
        for gateway in [0, 1] {
            tokio::time::sleep(Duration::from_millis(700)).await;
            history.fault(&format!("gateway {gateway} is killed"));
            cluster.gateway(gateway).kill().await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            cluster.gateway(gateway).start().await?;
        }
        history.healed();
        anyhow::Ok(())
    };
    let (sent, killed) = tokio::join!(alice.send_many("bob", 1_000), killer);
    sent?;
    killed?;
    bob.sees("alice", 1_001, LONG).await?;
    judge(&history, &alice, &bob).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_begin_at_the_same_moment_end_in_one_conversation() -> Result<()> {
    let (cluster, history) = (Cluster::fleet(2).await?, History::new());
    let (alice, bob) = pair(&cluster, &history).await?;
    let (from_alice, from_bob) = tokio::join!(alice.send_many("bob", 5), bob.send_many("alice", 5));
    from_alice?;
    from_bob?;
    bob.sees("alice", 5, LONG).await?;
    alice.sees("bob", 5, LONG).await?;
    judge(&history, &alice, &bob).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_to_oneself_is_there_after_coming_back() -> Result<()> {
    let (cluster, history) = (Cluster::embedded().await?, History::new());
    let alice = User::register(&cluster.url(0), "alice", cluster.profile("alice"), &history).await?;
    alice.send("alice").await?;
    alice.send("alice").await?;
    alice.sees("alice", 2, LONG).await?;
    let alice = User::come_back(alice.crash().await).await?;
    alice.send("alice").await?;
    assert_eq!(alice.history("alice").await?.iter().filter(|m| m.own).count(), 3);
    Ok(())
}

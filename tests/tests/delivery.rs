//! Stories of delivery over two gateways, on real Postgres and NATS, and embedded.

use anyhow::{Result, ensure};
use fastchat_gateway::store::{
    NewDirect, Store,
    postgres::{Options, Postgres},
};
use fastchat_protocol::{ClientFrame, ConversationId, Counter, Epoch, ServerFrame, client::Send};
use fastchat_tests::{
    cluster::Cluster,
    envelope::unsealed,
    history::History,
    raw::{RawClient, RawDevice},
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

/// What the only gateway has given to the bus.
async fn published(cluster: &mut Cluster) -> Result<f64> {
    // Records are counted by the task that hands them to the bus.
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.gateway(0).counted("fastchat_bus_published_total", "").await
}

async fn say(client: &mut RawClient, conversation: ConversationId, counter: u64) -> Result<()> {
    let counter = Counter(counter);
    let send = Send { conversation, counter, envelope: unsealed(conversation, counter) };
    let answer = client.ask(&ClientFrame::Send(send)).await?;
    ensure!(matches!(answer, ServerFrame::Sent(_)), "{answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_adds_a_device_gets_records_for_it_before_it_has_connected() -> Result<()> {
    let mut cluster = Cluster::fleet(1).await?;
    let address = cluster.gateway(0).address();
    let (alice, mut client) = RawDevice::register(&address, "alice").await?;
    let (bob, mut peer) = RawDevice::register(&address, "bob").await?;
    let conversation = ConversationId::new(rand::random());
    let options = Options {
        url: cluster.database().to_owned(),
        max_connections: 1,
        application_name: "test".to_owned(),
    };
    let founding = NewDirect {
        conversation,
        device: alice.id(),
        account: alice.account(),
        peer: bob.account(),
        suite: 1,
        epoch: Epoch { generation: 0, number: 1 },
        group_info: "info".into(),
        state: "state".into(),
        tree: "tree".into(),
        joins: Vec::new(),
    };
    Postgres::connect(&options)?.found_direct(founding).await?;

    let before = published(&mut cluster).await?;
    say(&mut client, conversation, 1).await?;
    assert_eq!(published(&mut cluster).await?, before, "both have one device, which is here");
    let answer = peer.ask(&bob.another_device()?).await?;
    ensure!(matches!(answer, ServerFrame::Done(_)), "{answer:?}");
    say(&mut client, conversation, 2).await?;
    assert_eq!(published(&mut cluster).await?, before + 1.0, "for Bob");
    Ok(())
}

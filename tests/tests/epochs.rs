//! Stories of a sender who comes back when the conversation's keys have moved on.

use anyhow::Result;
use fastchat_client::api::{Request, Response};
use fastchat_tests::{
    cluster::Cluster,
    history::History,
    proxy::{Direction, Proxy},
    user::User,
};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Alice behind a proxy of her own, Bob on the other gateway, a conversation between them.
async fn scene() -> Result<(Cluster, Proxy, User, User)> {
    let (mut cluster, history) = (Cluster::fleet(2).await?, History::new());
    let proxy = Proxy::start(cluster.gateway(0).address().parse()?).await?;
    let alice_url = format!("ws://{}", proxy.address());
    let bob_url = cluster.url(1);
    let (alice, bob) = tokio::join!(
        User::register(&alice_url, "alice", cluster.profile("alice"), &history),
        User::register(&bob_url, "bob", cluster.profile("bob"), &history),
    );
    let (alice, bob) = (alice?, bob?);
    alice.send("bob").await?;
    bob.sees("alice", 1, LONG).await?;
    bob.send("alice").await?;
    alice.sees("bob", 1, LONG).await?;
    Ok((cluster, proxy, alice, bob))
}

/// Sends into the fault, then lets three epochs pass while Alice is away, and brings her back.
async fn come_back_three_epochs_later(proxy: &Proxy, alice: &User, bob: &User) -> Result<()> {
    alice.send_within("bob", Duration::from_secs(2)).await.expect_err("no answer can come");
    proxy.refuse();
    for _ in 0..3 {
        bob.client.update_keys("alice").await?;
    }
    proxy.heal();
    for _ in 0..600 {
        let Response::Outbox { items } = alice.client.request(Request::Outbox).await? else {
            panic!("no outbox")
        };
        if items.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bob.send("alice").await?;
    alice.sees("bob", 2, LONG).await?;
    alice.send("bob").await?;
    bob.sees("alice", 3, LONG).await?;
    Ok(())
}

async fn assert_once(alice: &User, bob: &User) -> Result<()> {
    for history in [alice.history("bob").await?, bob.history("alice").await?] {
        let of_alice: Vec<_> = history.iter().filter(|m| m.from == "alice").map(|m| &m.text).collect();
        assert_eq!(of_alice.len(), 3, "{history:#?}");
        assert!(of_alice.is_sorted(), "{of_alice:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ack_is_answered_with_the_first_seq_three_epochs_later() -> Result<()> {
    let (_cluster, proxy, alice, bob) = scene().await?;
    proxy.swallow(Direction::ToClient);
    let stored = async { bob.sees("alice", 2, LONG).await };
    let (came_back, stored) = tokio::join!(come_back_three_epochs_later(&proxy, &alice, &bob), stored);
    came_back?;
    stored?;
    assert_once(&alice, &bob).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_never_arrived_is_sealed_again_and_stored_once() -> Result<()> {
    let (_cluster, proxy, alice, bob) = scene().await?;
    proxy.swallow(Direction::ToServer);
    come_back_three_epochs_later(&proxy, &alice, &bob).await?;
    assert_once(&alice, &bob).await
}

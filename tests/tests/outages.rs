//! Stories of what happens while the bus or the store is away.

use anyhow::Result;
use fastchat_client::api::{ErrorKind, Request, Response};
use fastchat_tests::{
    cluster::Cluster,
    history::History,
    proxy::{Direction, Verdict},
    user::User,
};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

async fn pair(cluster: &Cluster) -> Result<(User, User)> {
    let history = History::new();
    let (near, far) = (cluster.url(0), cluster.url(1));
    let (alice, bob) = tokio::join!(
        User::register(&near, "alice", cluster.profile("alice"), &history),
        User::register(&far, "bob", cluster.profile("bob"), &history),
    );
    let (alice, bob) = (alice?, bob?);
    alice.send("bob").await?;
    bob.sees("alice", 1, LONG).await?;
    Ok((alice, bob))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_bus_sends_are_acked_and_arrive_by_head_check() -> Result<()> {
    let mut cluster = Cluster::fleet(2).await?;
    let (alice, bob) = pair(&cluster).await?;
    cluster.nats().kill();
    for n in 2..=4 {
        alice.send("bob").await?;
        let took = bob.sees("alice", n, LONG).await?;
        assert!(took < Duration::from_secs(5), "a head check took {took:?}");
    }
    cluster.nats().restart()?;
    wait_for_bus(&mut cluster).await?;
    // Live again: well below the interval of head checks, most of the time.
    let mut quick = 0;
    for n in 5..=9 {
        alice.send("bob").await?;
        quick += usize::from(bob.sees("alice", n, LONG).await? < Duration::from_millis(300));
    }
    assert!(quick >= 3, "only {quick} of 5 messages were live after the bus came back");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_a_gateway_begins_with_its_bus_and_if_it_must_without() -> Result<()> {
    let mut cluster = Cluster::fleet(1).await?;
    for (there, said) in [(true, "\"bus\":\"up\""), (false, "\"bus\":\"down\"")] {
        cluster.gateway(0).kill().await?;
        if there {
            cluster.bus_proxy(0).delay(Duration::from_millis(100));
        } else {
            cluster.bus_proxy(0).refuse();
        }
        cluster.gateway(0).start().await?;
        let (status, body) = cluster.gateway(0).admin("/readyz").await?;
        assert_eq!((status, body.contains(said)), (200, true), "{body}");
        let (url, history) = (cluster.url(0), History::new());
        let name = if there { "alice" } else { "bob" };
        let _user = User::register(&url, name, cluster.profile(name), &history).await?;
        // What the first answer of the bus would have brought has come by then.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(cluster.gateway(0).counted("fastchat_resyncs_total", "bus").await?, 0.0);
    }
    assert!(cluster.logs().contains("the bus has not answered"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_message_lost_on_the_bus_arrives_in_silence() -> Result<()> {
    let cluster = Cluster::fleet(2).await?;
    let (alice, bob) = pair(&cluster).await?;
    for n in 2..=4 {
        // From now on Bob's gateway hears no records: the proxy swallows what holds one.
        cluster.bus_proxy(1).judge(|direction, bytes| {
            let record = direction == Direction::ToClient && bytes.windows(4).any(|w| w == b"MSG ");
            if record { Verdict::Swallow } else { Verdict::Pass }
        });
        alice.send("bob").await?;
        let took = bob.sees("alice", n, LONG).await?;
        assert!(took < Duration::from_secs(5), "the last message took {took:?}");
        cluster.bus_proxy(1).heal();
        cluster.bus_proxy(1).cut();
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_a_message_waits_and_says_why() -> Result<()> {
    let mut cluster = Cluster::fleet(2).await?;
    let (alice, bob) = pair(&cluster).await?;
    cluster.postgres().kill();
    let error = alice.send_within("bob", Duration::from_secs(3)).await.expect_err("nothing can be acked");
    let error = error.downcast_ref::<fastchat_client::api::ApiError>().expect("an error of the client");
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert!(error.message.contains("storage"), "the reason is not clear: {}", error.message);
    let Response::Outbox { items } = alice.client.request(Request::Outbox).await? else {
        panic!("not an outbox")
    };
    assert_eq!(items.len(), 1, "{items:?}");
    let (status, body) = cluster.gateway(0).admin("/readyz").await?;
    assert_eq!((status, body.contains("\"store\":\"down\"")), (503, true), "{body}");

    cluster.postgres().restart()?;
    bob.sees("alice", 2, LONG).await?;
    alice.send("bob").await?;
    bob.sees("alice", 3, LONG).await?;
    assert_eq!(bob.seen().iter().filter(|m| m.from == "alice").count(), 3, "nothing is shown twice");
    Ok(())
}

async fn wait_for_bus(cluster: &mut Cluster) -> Result<()> {
    for gateway in [0, 1] {
        for _ in 0..100 {
            if cluster.gateway(gateway).admin("/readyz").await?.1.contains("\"bus\":\"up\"") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

//! Messages past their time: who was away past it gets what is left and one notice, and nobody else
//! loses anything. With a gateway that waits for devices, nobody loses anything at all.

use anyhow::{Context, Result};
use fastchat_client::api::{MessageKind, MessageView};
use fastchat_tests::{cluster::Cluster, machine::Machine, wait::until};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(90);
const STRICT: [&str; 6] =
    ["--sweep-seconds", "1", "--retention-log-days", "30", "--retention-below-cursors", "false"];

async fn in_store(cluster: &Cluster, sql: &str) -> Result<i64> {
    let sql = AssertSqlSafe(sql.to_owned());
    let arguments = cluster.store_arguments();
    if arguments[0] == "--store" {
        let mut connection = PgConnection::connect(&arguments[1]).await?;
        let number = sqlx::query_scalar(sql).fetch_optional(&mut connection).await?;
        return Ok(number.unwrap_or_default());
    }
    let mut connection =
        SqliteConnection::connect(&format!("sqlite:{}/fastchat.sqlite", arguments[1])).await?;
    let number = sqlx::query_scalar(sql).fetch_optional(&mut connection).await?;
    connection.close().await?;
    Ok(number.unwrap_or_default())
}

async fn rows(cluster: &Cluster) -> Result<i64> {
    in_store(cluster, "SELECT count(*) FROM log").await
}

fn notices(messages: &[MessageView]) -> Vec<&str> {
    let notices = messages.iter().filter(|m| m.kind == MessageKind::Notice && m.text.contains("retention"));
    notices.map(|notice| notice.text.as_str()).collect()
}

async fn story(cluster: Cluster) -> Result<()> {
    let url = |n: usize| cluster.url(n % cluster.gateways());
    let alice = Machine::register(&url(0), "alice", cluster.profile("alice")).await?;
    let bob = Machine::register(&url(1), "bob", cluster.profile("bob")).await?;
    alice.send("bob", "before").await?;
    bob.has("alice", "before").await?;
    let away = bob.location.clone();
    bob.client.close().await;
    for n in 1..=5 {
        alice.send("bob", &format!("lost {n}")).await?;
    }
    // Everything so far is of a hundred days ago.
    in_store(&cluster, "UPDATE log SET at_ms = at_ms - CAST(100 AS bigint) * 86400000").await?;
    until(LONG, "old rows go", async || Ok(rows(&cluster).await? == 0)).await?;
    for n in 1..=3 {
        alice.send("bob", &format!("left {n}")).await.context("the log goes on")?;
    }

    let bob = Machine::open(away).await?;
    bob.has("alice", "left 3").await?;
    let texts = |lost: bool| {
        let lost = (1..=if lost { 5 } else { 0 }).map(|n| format!("lost {n}"));
        ["before".to_owned()].into_iter().chain(lost).chain((1..=3).map(|n| format!("left {n}"))).collect()
    };
    let of = async |machine: &Machine, with| -> Result<Vec<String>> {
        Ok(machine.texts(with).await?.into_iter().map(|(text, _)| text).collect())
    };
    assert_eq!(of(&bob, "alice").await?, {
        let t: Vec<String> = texts(false);
        t
    });
    let messages = bob.messages("alice").await?;
    let said = notices(&messages);
    assert_eq!(said.len(), 1, "{messages:#?}");
    assert!(said[0].contains("messages 3 to 7 are not on the server"), "{said:?}");
    assert_eq!(of(&alice, "bob").await?, {
        let t: Vec<String> = texts(true);
        t
    });
    assert_eq!(notices(&alice.messages("bob").await?), [""; 0], "she has lost nothing");

    // They go on, both ways; nothing more is said of it, also after another start.
    bob.send("alice", "answer").await?;
    alice.has("bob", "answer").await?;
    let away = bob.location.clone();
    bob.client.close().await;
    let bob = Machine::open(away).await?;
    alice.send("bob", "and on").await?;
    bob.has("alice", "and on").await?;
    assert_eq!(notices(&bob.messages("alice").await?).len(), 1);
    alice.client.close().await;
    bob.client.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_past_retention_gets_what_is_left_over_two_gateways() {
    let cluster = Cluster::fleet_with(2, &STRICT).await.expect("a fleet");
    story(cluster).await.expect("the story holds");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_past_retention_gets_what_is_left_embedded() {
    let cluster = Cluster::embedded_with(&STRICT).await.expect("a gateway");
    story(cluster).await.expect("the story holds");
}

/// By default rows wait for a device that is still about, and go when it has them.
#[tokio::test(flavor = "multi_thread")]
async fn rows_wait_for_a_device_that_is_away() {
    let waiting = async {
        let cluster = Cluster::fleet_with(1, &STRICT[..4]).await?;
        let alice = Machine::register(&cluster.url(0), "alice", cluster.profile("alice")).await?;
        let bob = Machine::register(&cluster.url(0), "bob", cluster.profile("bob")).await?;
        alice.send("bob", "before").await?;
        bob.has("alice", "before").await?;
        let away = bob.location.clone();
        bob.client.close().await;
        for n in 1..=5 {
            alice.send("bob", &format!("kept {n}")).await?;
        }
        in_store(&cluster, "UPDATE log SET at_ms = at_ms - CAST(100 AS bigint) * 86400000").await?;
        until(LONG, "what both have goes", async || Ok(rows(&cluster).await? == 5)).await?;
        let bob = Machine::open(away).await?;
        bob.has("alice", "kept 5").await?;
        assert_eq!(bob.texts("alice").await?.len(), 6);
        assert_eq!(notices(&bob.messages("alice").await?), [""; 0]);
        until(LONG, "now the rest goes", async || Ok(rows(&cluster).await? == 0)).await?;
        alice.client.close().await;
        bob.client.close().await;
        anyhow::Ok(())
    };
    waiting.await.expect("the story holds");
}

//! An embedded installation becomes one on Postgres, and nobody who chats notices more than a pause.

use anyhow::Result;
use fastchat_client::api::MessageKind;
use fastchat_tests::{
    admin::Operator,
    cluster::Cluster,
    history::History,
    servers::PostgresServer,
    user::{self, User},
};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn people_go_on_after_the_move() -> Result<()> {
    let (mut cluster, history) = (Cluster::embedded().await?, History::new());
    let (url, postgres) = (cluster.url(0), PostgresServer::start()?);
    let database = postgres.create_database().await?;
    let alice = User::register(&url, "alice", cluster.profile("alice"), &history).await?;
    let bob = User::register(&url, "bob", cluster.profile("bob"), &history).await?;
    alice.send("bob").await?;
    bob.sees("alice", 1, LONG).await?;
    bob.send("alice").await?;
    alice.sees("bob", 1, LONG).await?;
    // Bob is away with twenty messages waiting for him; Alice stays, and writes while the server is gone.
    let away = bob.leave().await;
    alice.send_many("bob", 20).await?;

    let operator = Operator::new(cluster.store_arguments());
    let move_it = ["move-store", "--to", database.as_str()];
    let busy = operator.run(&move_it).await?;
    assert!(busy.code != Some(0) && busy.log.contains("stop that first"), "{}", busy.log);
    cluster.gateway(0).terminate().await?;
    let waiting = alice.send_many("bob", 5);
    let moving = async {
        let moved = operator.run(&move_it).await?.ok()?;
        assert!(moved.stdout.contains("is not served any more"), "{}", moved.log);
        assert!(moved.log.contains("log: 2"), "{}", moved.log);
        // The source is not served by mistake.
        let refused = operator.run(&["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).await?;
        assert!(refused.code != Some(0) && refused.log.contains("was moved to"), "{}", refused.log);
        let pepper = cluster.folder().join("data/pepper").display().to_string();
        cluster.gateway(0).add_arguments(&["--store", &database, "--pepper-file", &pepper]);
        cluster.gateway(0).start().await
    };
    let (sent, moved) = tokio::join!(waiting, moving);
    moved?;
    sent?;

    let bob = User::come_back(away).await?;
    bob.sees("alice", 25, LONG).await?;
    bob.send("alice").await?;
    alice.sees("bob", 2, LONG).await?;
    judge(&history, &alice, &bob).await?;
    // A stranger comes: names, devices and the pepper are those of before.
    let carol = User::register(&url, "carol", cluster.profile("carol"), &History::new()).await?;
    carol.send("alice").await?;
    alice.sees("carol", 1, LONG).await?;
    Ok(())
}

/// Every message is there once, in order, and nobody was told anything.
async fn judge(history: &History, alice: &User, bob: &User) -> Result<()> {
    user::judge(history, alice, bob).await?;
    for messages in [alice.history("bob").await?, bob.history("alice").await?] {
        assert_eq!(messages.iter().filter(|message| message.kind == MessageKind::Text).count(), 28);
    }
    Ok(())
}

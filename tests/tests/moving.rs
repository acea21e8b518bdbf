//! An embedded installation becomes one on Postgres, and nobody who chats notices more than a pause.

use anyhow::Result;
use fastchat_client::api::MessageKind;
use fastchat_tests::{
    admin::Operator,
    checker,
    cluster::Cluster,
    history::{History, Member, Truth},
    servers::PostgresServer,
    user::{User, conversation, rows},
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
    let histories = [alice.history("bob").await?, bob.history("alice").await?];
    let head = histories.iter().flatten().map(|message| message.seq).max().unwrap_or(0);
    let name = conversation("alice", "bob");
    let member =
        |device: &str| Member { conversation: name.clone(), device: device.into(), after: 0, until: None };
    let truth = Truth {
        log: rows(&name, head, &histories),
        members: vec![member("alice"), member("bob")],
        deadline_us: None,
    };
    let events = history.events();
    checker::check(&events, &truth).assert_clean();
    for messages in &histories {
        assert_eq!(messages.iter().filter(|message| message.kind == MessageKind::Text).count(), 28);
        let odd: Vec<_> = messages.iter().filter(|message| message.kind == MessageKind::Quarantine).collect();
        assert!(odd.is_empty(), "unreadable: {odd:?}");
    }
    Ok(())
}

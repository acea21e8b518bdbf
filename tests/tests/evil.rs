//! What the real client does when its server lies: nothing wrong is shown as genuine, and the person is
//! told in plain words.

use anyhow::Result;
use fastchat_tests::{history::History, lax::LaxServer, user::User};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn people_talk_through_a_server_that_checks_nothing() -> Result<()> {
    let (server, history, folder) = (LaxServer::start().await?, History::new(), tempfile::tempdir()?);
    let alice = User::register(&server.url(), "alice", folder.path().join("alice"), &history).await?;
    let bob = User::register(&server.url(), "bob", folder.path().join("bob"), &history).await?;
    alice.send_many("bob", 3).await?;
    bob.sees("alice", 3, LONG).await?;
    bob.send_many("alice", 2).await?;
    alice.sees("bob", 2, LONG).await?;
    bob.client.update_keys("alice").await?;
    let away = alice.leave().await;
    bob.send("alice").await?;
    let alice = User::come_back(away).await?;
    alice.sees("bob", 1, LONG).await?;
    alice.send("bob").await?;
    bob.sees("alice", 4, LONG).await?;
    Ok(())
}

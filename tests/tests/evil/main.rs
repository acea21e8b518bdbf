//! What the real client does when its server lies, or a member breaks the rules: nothing wrong is shown
//! as genuine, and the person is told in plain words. The server here checks nothing, so whatever is
//! refused was refused by the client.

mod groups;
mod keys;
mod log;
mod members;
mod order;
mod poison;
mod scene;

use anyhow::Result;
use fastchat_tests::user::User;
use scene::{LONG, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn people_talk_through_a_server_that_checks_nothing() -> Result<()> {
    let Scene { alice, bob, .. } = &Scene::of_two().await?;
    alice.send_many("bob", 3).await?;
    bob.sees("alice", 4, LONG).await?;
    bob.send_many("alice", 2).await?;
    alice.sees("bob", 3, LONG).await?;
    bob.client.update_keys("alice").await?;
    alice.send("bob").await?;
    bob.sees("alice", 5, LONG).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_comes_back_to_a_server_that_checks_nothing() -> Result<()> {
    let Scene { alice, bob, server: _server, folder: _folder, .. } = Scene::of_two().await?;
    let away = alice.leave().await;
    bob.client.update_keys("alice").await?;
    bob.send("alice").await?;
    let alice = User::come_back(away).await?;
    alice.sees("bob", 1, LONG).await?;
    alice.send("bob").await?;
    bob.sees("alice", 2, LONG).await?;
    Ok(())
}

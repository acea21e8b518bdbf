//! Members that nobody let in, and commits that break the rules. Whatever the log holds, honest clients
//! refuse it, say why, and go on with the keys that they have.

use super::scene::{LONG, Scene, genuine, told};
use anyhow::{Context, Result};
use fastchat_delivery::VerifiedManifest;
use fastchat_protocol::server::LogKind;
use fastchat_tests::lax::{Change, Rogue};

/// The server takes a rogue's commit for good, and tells everybody.
fn take(scene: &Scene, rogue: &Rogue, change: Change) -> Result<()> {
    let id = scene.conversation();
    scene.server.forge(id, |state| state.commit(rogue.as_sender(), id, change)).map(drop)
}

/// A rogue's text, in whatever epoch it is in.
fn say(scene: &Scene, rogue: &mut Rogue, text: &str) -> Result<()> {
    let (id, envelope) = (scene.conversation(), rogue.seal(text)?);
    let sender = rogue.as_sender();
    let append = |state: &mut fastchat_tests::lax::State| {
        let of = state.conversations.get_mut(&id).context("a conversation")?;
        Ok(of.append(sender, LogKind::Application, envelope))
    };
    scene.server.forge(id, append).map(drop)
}

/// Alice and Bob are told, and what they say still arrives.
async fn go_on(scene: &Scene, words: &str) -> Result<()> {
    let Scene { alice, bob, .. } = scene;
    for (user, other) in [(alice, "bob"), (bob, "alice")] {
        told(user, other, words).await?;
    }
    let (of_alice, of_bob) = (count(alice), count(bob));
    alice.send("bob").await?;
    bob.sees("alice", of_bob + 1, LONG).await?;
    bob.send("alice").await?;
    alice.sees("bob", of_alice + 1, LONG).await?;
    Ok(())
}

/// How many messages of the other a user has been shown.
fn count(user: &fastchat_tests::user::User) -> usize {
    let other = if user.name == "alice" { "bob" } else { "alice" };
    user.seen().iter().filter(|message| message.from == other).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ghost_device_that_enters_by_itself_is_refused() -> Result<()> {
    let scene = Scene::of_two().await?;
    let account = scene.server.with(|state| state.find("bob").expect("bob"));
    let shown = scene.server.with(|state| state.show(account).expect("bob is shown"));
    let fingerprint = VerifiedManifest::verify(&shown.manifest)?.identity_fingerprint();
    let mut ghost = Rogue::ghost(account, fingerprint)?;
    let change = ghost.enter(&scene.public())?;
    take(&scene, &ghost, change)?;
    go_on(&scene, "is not in version 1 of the manifest of account").await?;
    say(&scene, &mut ghost, "ghost#1 boo")?;
    // What the server has now cannot be entered either; so everybody stays.
    go_on(&scene, "this device cannot join anew: a member of the conversation cannot be trusted").await?;
    for (user, other) in [(&scene.alice, "bob"), (&scene.bob, "alice")] {
        assert!(genuine(user, other).await?.iter().all(|(from, _)| from == "alice" || from == "bob"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_enters_by_itself_is_refused() -> Result<()> {
    let scene = Scene::of_two().await?;
    let mut mallory = Rogue::register(&scene.server, "mallory")?;
    let change = mallory.enter(&scene.public())?;
    take(&scene, &mallory, change)?;
    go_on(&scene, "takes no part in this conversation").await?;
    say(&scene, &mut mallory, "mallory#1 hi")?;
    go_on(&scene, "sealed with keys of a change that this device has refused").await?;
    Ok(())
}

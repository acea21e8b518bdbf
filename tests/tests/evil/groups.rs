//! A group in which a member does what its role does not allow, with a server that lets it: role by
//! action, as far as the most important forbidden pairs go. The honest clients refuse, say why, and the
//! group goes on with the keys that it has.

use super::scene::{LONG, Scene, device, told};
use anyhow::{Context, Result};
use fastchat_client::api::GroupChange;
use fastchat_delivery::{GroupData, Leave};
use fastchat_protocol::{Bytes, ConversationId, Counter, DeviceId, Role, server::LogKind};
use fastchat_tests::lax::{Change, Deed, Rogue, State};

const TEAM: &str = "#team";

/// Alice owns the group, Bob and a rogue are in it.
async fn team() -> Result<(Scene, Rogue, ConversationId)> {
    let scene = Scene::of_strangers().await?;
    let mut mallory = Rogue::register(&scene.server, "mallory")?;
    scene.alice.client.create_group("team", &["bob", "mallory"], None, LONG).await?;
    let id = mallory.join(&scene.server)?;
    told(&scene.bob, TEAM, "alice named the group team").await?;
    Ok((scene, mallory, id))
}

/// The server takes a commit for good, and tells everybody.
fn take(scene: &Scene, id: ConversationId, by: (DeviceId, Counter), change: Change) -> Result<()> {
    scene.server.forge(id, |state| state.commit(by, id, change)).map(drop)
}

/// A row of whatever kind, in whoever's name.
fn row(
    scene: &Scene,
    id: ConversationId,
    by: (DeviceId, Counter),
    kind: LogKind,
    bytes: Bytes,
) -> Result<()> {
    let append = |state: &mut State| {
        Ok(state.conversations.get_mut(&id).context("a conversation")?.append(by, kind, bytes))
    };
    scene.server.forge(id, append)?;
    // Whoever is said to have sent it gets no live copy.
    scene.server.resync(by.0);
    Ok(())
}

/// Both were told, the members are the same, and what Alice says reaches Bob.
async fn go_on(scene: &Scene, words: &str, members: &[(&str, &str)], nth: usize) -> Result<()> {
    let Scene { alice, bob, .. } = scene;
    for user in [alice, bob] {
        told(user, TEAM, words).await?;
        let view = user.client.group(TEAM).await?;
        let seen: Vec<_> = view.members.iter().map(|m| (m.name.as_str(), m.role.as_str())).collect();
        assert_eq!(seen, members, "{}", user.name);
    }
    alice.client.send(TEAM, &format!("alice#{nth} hello"), LONG).await?;
    bob.sees("alice", nth, LONG).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_changes_nobody() -> Result<()> {
    let (scene, mut mallory, id) = team().await?;
    let (own, data) = (mallory.device.account(), mallory.data()?);
    let bob = scene.server.with(|state| state.find("bob").expect("bob"));
    let dave = Rogue::register(&scene.server, "dave")?;
    let team = [("alice", "owner"), ("bob", "member"), ("mallory", "member")];
    let deeds = [
        (
            "adding people is not for a member",
            Deed {
                add: vec![dave.key_package()?],
                data: Some(data.with(dave.device.account(), Some(Role::Member))?),
                ..Deed::default()
            },
        ),
        (
            "removing this member is not for a member",
            Deed {
                remove: vec![device(&scene.bob).await?],
                data: Some(data.with(bob, None)?),
                ..Deed::default()
            },
        ),
        (
            "giving roles is not for a member",
            Deed { data: Some(data.with(own, Some(Role::Admin))?), ..Deed::default() },
        ),
        // Somebody whom the group does not declare.
        (
            "is in the group's list or among its devices, but not in both",
            Deed { add: vec![dave.key_package()?], ..Deed::default() },
        ),
    ];
    for ((words, deed), nth) in deeds.into_iter().zip(1..) {
        let change = mallory.attempt(&deed)?;
        take(&scene, id, mallory.as_sender(), change)?;
        go_on(&scene, words, &team, nth).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_takes_out_neither_the_owner_nor_an_admin() -> Result<()> {
    let (scene, mut mallory, id) = team().await?;
    let before = scene.server.with(|state| state.conversations[&id].head());
    for member in ["mallory", "bob"] {
        let change = GroupChange::Promote { member: member.to_owned() };
        scene.alice.client.change_group(TEAM, change, LONG).await?;
    }
    mallory.follow(&scene.server, id, before)?;
    told(&scene.bob, TEAM, "alice made you an admin").await?;
    let data = mallory.data()?;
    let team = [("alice", "owner"), ("bob", "admin"), ("mallory", "admin")];
    for (nth, (name, user)) in [("alice", &scene.alice), ("bob", &scene.bob)].into_iter().enumerate() {
        let account = scene.server.with(|state| state.find(name).expect("known"));
        let mut roles = data.roles().clone();
        roles.remove(&account);
        if name == "alice" {
            // A group has an owner: whoever takes it out takes its place.
            roles.insert(mallory.device.account(), Role::Owner);
        }
        let data = GroupData::new(roles)?;
        let deed = Deed { remove: vec![device(user).await?], data: Some(data), ..Deed::default() };
        let change = mallory.attempt(&deed)?;
        take(&scene, id, mallory.as_sender(), change)?;
        go_on(&scene, "is not for a admin", &team, nth + 1).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_does_not_enter_a_group() -> Result<()> {
    let (scene, _mallory, id) = team().await?;
    let mut dave = Rogue::register(&scene.server, "dave")?;
    let change = dave.enter(&scene.public())?;
    take(&scene, id, dave.as_sender(), change)?;
    let team = [("alice", "owner"), ("bob", "member"), ("mallory", "member")];
    go_on(&scene, "is in the group's list or among its devices, but not in both", &team, 1).await?;
    let said = dave.seal("dave#1 hi")?;
    row(&scene, id, dave.as_sender(), LogKind::Application, said)?;
    go_on(&scene, "sealed with keys of a change that this device has refused", &team, 2).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_leaves_by_anothers_word_or_by_an_old_one() -> Result<()> {
    let (scene, mut mallory, id) = team().await?;
    let team = [("alice", "owner"), ("bob", "member"), ("mallory", "member")];
    let (account, mallorys) = (mallory.device.account(), mallory.device.id());
    row(&scene, id, (mallorys, Counter(1)), LogKind::Left, Bytes::from_static(b"never signed"))?;
    go_on(&scene, "a statement to leave that does not hold: the statement cannot be read", &team, 1).await?;
    // Signed, but by somebody else.
    let dave = Rogue::register(&scene.server, "dave")?;
    let epoch = scene.public().epoch;
    let leave = Leave { conversation: id, epoch, account, device: mallorys, counter: Counter(1) };
    row(&scene, id, (mallorys, Counter(1)), LogKind::Left, dave.device.sign_leave(&leave))?;
    go_on(&scene, "not signed by the device that it names", &team, 2).await?;
    let statement = mallory.leave(id)?;
    // Its own: that holds, once. Whoever is first takes the leaf out.
    scene.server.with(|state| state.orderly = true);
    row(&scene, id, mallory.as_sender(), LogKind::Left, statement.clone())?;
    for user in [&scene.alice, &scene.bob] {
        told(user, TEAM, "mallory left").await?;
    }
    scene.alice.client.send(TEAM, "alice#3 gone", LONG).await?;
    scene.alice.client.add_members(TEAM, &["mallory"], LONG).await?;
    told(&scene.bob, TEAM, "alice added mallory").await?;
    row(&scene, id, mallory.as_sender(), LogKind::Left, statement)?;
    go_on(&scene, "it is older than the last change of members", &team, 4).await?;
    Ok(())
}

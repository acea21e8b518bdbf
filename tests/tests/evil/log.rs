//! A log that is not what was said: rows copied, swapped, left out, relabelled, taken back.

use super::scene::{LONG, Scene, device, genuine, notices, told};
use anyhow::{Context, Result};
use fastchat_protocol::{
    DeviceId, Seq, ServerFrame,
    server::{self, LogKind, LogRow},
};
use fastchat_tests::{
    lax::{Conversation, PublicEpoch},
    user::User,
};

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(from, body)| ((*from).to_owned(), (*body).to_owned())).collect()
}

/// The rows of messages.
fn messages(of: &mut Conversation) -> Vec<usize> {
    let rows = of.log.iter().enumerate();
    rows.filter(|(_, row)| row.kind == LogKind::Application).map(|(at, _)| at).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_comes_again_is_not_a_second_message() -> Result<()> {
    let scene = Scene::of_two().await?;
    let Scene { server, alice, bob, .. } = &scene;
    let id = scene.conversation();
    // Both messages once more, at the end of the log: for one of the two each is its own.
    for at in [0, 1] {
        server.forge(id, |state| {
            let of = state.conversations.get_mut(&id).context("a conversation")?;
            let at = messages(of)[at];
            let LogRow { sender, counter, kind, envelope, .. } = of.log[at].clone();
            Ok(of.append((sender, counter), kind, envelope.context("an envelope")?))
        })?;
    }
    server.resync(device(alice).await?);
    server.resync(device(bob).await?);
    for (user, other) in [(alice, "bob"), (bob, "alice")] {
        told(user, other, "a second copy of a message that was read before").await?;
        told(user, other, "a second copy of a message of this device").await?;
        assert_eq!(genuine(user, other).await?, pairs(&[("alice", "alice#1"), ("bob", "bob#1")]));
    }
    alice.send("bob").await?;
    bob.sees("alice", 2, LONG).await?;
    Ok(())
}

/// Alice sends three messages while Bob is away, and the log is changed before he is back.
async fn come_back_to(scene: Scene, change: impl FnOnce(&mut Conversation)) -> Result<(Scene, User)> {
    let Scene { server, alice, bob, history, folder } = scene;
    let away = bob.leave().await;
    alice.send_many("bob", 3).await?;
    let scene_id = server.with(|state| *state.conversations.keys().next().expect("a conversation"));
    server.with(|state| {
        let of = state.conversations.get_mut(&scene_id).expect("a conversation");
        change(of);
        of.renumber();
    });
    let bob = User::come_back(away).await?;
    let other = User::register(&server.url(), "carol", folder.path().join("carol"), &history).await?;
    Ok((Scene { server, alice, bob: other, history, folder }, bob))
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_messages_are_shown_with_a_warning() -> Result<()> {
    let (_scene, bob) = come_back_to(Scene::of_two().await?, |of| {
        let rows = messages(of);
        let [.., second, third] = rows[..] else { panic!("three messages") };
        of.log.swap(second, third);
    })
    .await?;
    bob.sees("alice", 3, LONG).await?;
    told(&bob, "alice", "not in the order in which alice sent them").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_left_out_is_missed() -> Result<()> {
    let (_scene, bob) = come_back_to(Scene::of_two().await?, |of| {
        let rows = messages(of);
        of.log.remove(rows[rows.len() - 2]);
    })
    .await?;
    bob.sees("alice", 2, LONG).await?;
    told(&bob, "alice", "the server has left out 1 message of alice").await?;
    assert_eq!(notices(&bob, "alice").await?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_called_something_else_is_missed() -> Result<()> {
    let (_scene, bob) = come_back_to(Scene::of_two().await?, |of| {
        let rows = messages(of);
        of.log[rows[rows.len() - 2]].kind = LogKind::Founded;
    })
    .await?;
    bob.sees("alice", 2, LONG).await?;
    told(&bob, "alice", "something that the server calls a beginning, and that is none").await?;
    Ok(())
}

/// Bob gets frames as if a row were not there.
fn without(row: Seq, frame: ServerFrame) -> Vec<ServerFrame> {
    let place = |seq: Seq| if seq >= row { Seq(seq.0 - 1) } else { seq };
    let shown = |mut shown: LogRow| {
        shown.seq = place(shown.seq);
        shown
    };
    match frame {
        ServerFrame::Deliver(deliver) if deliver.row.seq == row => Vec::new(),
        ServerFrame::Deliver(mut deliver) => {
            deliver.row = shown(deliver.row);
            vec![ServerFrame::Deliver(deliver)]
        }
        ServerFrame::LogPage(mut page) => {
            page.rows = page.rows.into_iter().filter(|other| other.seq != row).map(shown).collect();
            page.head = place(page.head);
            vec![ServerFrame::LogPage(page)]
        }
        ServerFrame::Conversations(mut page) => {
            page.list.iter_mut().for_each(|state| state.head = place(state.head));
            vec![ServerFrame::Conversations(page)]
        }
        ServerFrame::GroupState(mut state) => {
            state.head = place(state.head);
            vec![ServerFrame::GroupState(state)]
        }
        ServerFrame::Sent(mut sent) => {
            sent.seq = place(sent.seq);
            vec![ServerFrame::Sent(sent)]
        }
        other => vec![other],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_left_out_for_one_device_is_noticed() -> Result<()> {
    let scene = Scene::of_two().await?;
    let Scene { server, alice, bob, .. } = &scene;
    let (bobs, id) = (device(bob).await?, scene.conversation());
    let row = server.with(|state| state.conversations[&id].head().next());
    server.tamper(move |who, frame| if who == bobs { without(row, frame) } else { vec![frame] });
    alice.client.update_keys("bob").await?;
    alice.send("bob").await?;
    told(bob, "alice", "sealed with keys that this device has not seen").await?;
    told(bob, "alice", "this device joined anew: sealed with keys that this device has not seen").await?;
    alice.send("bob").await?;
    bob.sees("alice", 2, LONG).await?;
    assert_eq!(
        genuine(bob, "alice").await?,
        pairs(&[("alice", "alice#1"), ("bob", "bob#1"), ("alice", "alice#3")])
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_state_is_not_entered() -> Result<()> {
    let scene = Scene::of_two().await?;
    let Scene { server, alice, bob, .. } = &scene;
    let (bobs, id) = (device(bob).await?, scene.conversation());
    let old = server.with(|state| state.conversations[&id].epochs.last().cloned()).context("a state")?;
    alice.client.update_keys("bob").await?;
    alice.send("bob").await?;
    bob.sees("alice", 2, LONG).await?;
    // Bob misses a commit, wants to enter anew, and is shown what was before the keys that he has.
    let row = server.with(|state| state.conversations[&id].head().next());
    server.tamper(move |who, frame| {
        let frames = if who == bobs { without(row, frame) } else { vec![frame] };
        let rolled_back = |frame| match frame {
            ServerFrame::GroupState(state) if who == bobs => {
                let PublicEpoch { epoch, group_info, tree } = old.clone();
                ServerFrame::GroupState(server::GroupState { epoch, group_info, tree, ..state })
            }
            other => other,
        };
        frames.into_iter().map(rolled_back).collect()
    });
    alice.client.update_keys("bob").await?;
    alice.send("bob").await?;
    told(bob, "alice", "the server shows an older state of the conversation").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_under_another_sender_is_nobodys() -> Result<()> {
    let scene = Scene::of_two().await?;
    let Scene { server, alice, bob, .. } = &scene;
    let (alices, bobs) = (device(alice).await?, device(bob).await?);
    let nobody = DeviceId::new([9; 16]);
    for forged in [bobs, nobody] {
        server.tamper(move |who, mut frame| {
            let rows = match &mut frame {
                ServerFrame::Deliver(deliver) => std::slice::from_mut(&mut deliver.row),
                ServerFrame::LogPage(page) => &mut page.rows[..],
                _ => &mut [],
            };
            let theirs =
                |row: &&mut LogRow| who == bobs && row.kind == LogKind::Application && row.sender == alices;
            rows.iter_mut().filter(theirs).for_each(|row| row.sender = forged);
            vec![frame]
        });
        alice.send("bob").await?;
        let words = format!("the server says that device {forged} sent this, the keys say {alices}");
        told(bob, "alice", &words).await?;
    }
    server.behave();
    alice.send("bob").await?;
    bob.sees("alice", 2, LONG).await?;
    assert_eq!(
        genuine(bob, "alice").await?,
        pairs(&[("alice", "alice#1"), ("bob", "bob#1"), ("alice", "alice#4")])
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_taken_back_is_noticed() -> Result<()> {
    let scene = Scene::of_two().await?;
    let Scene { server, alice, bob, .. } = &scene;
    let (bobs, id) = (device(bob).await?, scene.conversation());
    alice.send_many("bob", 3).await?;
    bob.sees("alice", 4, LONG).await?;
    server.with(|state| {
        let of = state.conversations.get_mut(&id).expect("a conversation");
        of.log.truncate(3);
    });
    server.resync(bobs);
    told(bob, "alice", "the server's log is shorter than what this device has read").await?;
    server.resync(bobs);
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(notices(bob, "alice").await?.len(), 1, "it is said once");
    assert_eq!(genuine(bob, "alice").await?.len(), 5, "nothing is taken back here");
    Ok(())
}

//! The order in which things arrive, and a server that wants to be left alone: the same end in every case.

use super::scene::{LONG, Scene, device, genuine, notices};
use anyhow::Result;
use fastchat_protocol::{ClientFrame, Code, Counter, Refusal, ServerFrame, client, server::LogKind};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// "Come back later", as a busy server says it.
fn busy(wait_ms: u32) -> ServerFrame {
    let refusal = Refusal { wait_ms: Some(wait_ms), ..Refusal::new(Code::RateLimited, "too many requests") };
    ServerFrame::Refused(refusal)
}

/// How many commits the only conversation has: a device that let itself in made one.
fn commits(scene: &Scene) -> usize {
    let id = scene.conversation();
    scene
        .server
        .with(|state| state.conversations[&id].log.iter().filter(|row| row.kind == LogKind::Commit).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_must_wait_is_waited_for() -> Result<()> {
    const WAIT_MS: u32 = 400;
    let scene = Scene::of_strangers().await?;
    let Scene { server, alice, bob, .. } = &scene;
    let (bobs, asked) = (device(bob).await?, Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&asked);
    server.intercept(move |who, frame| match frame {
        ClientFrame::FetchMailbox(_) if who.device == Some(bobs) => {
            (counted.fetch_add(1, Ordering::SeqCst) < 4).then(|| busy(WAIT_MS))
        }
        _ => None,
    });
    let started = Instant::now();
    alice.send("bob").await?;
    // Whatever wakes him meanwhile.
    for _ in 0..20 {
        server.resync(bobs);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bob.sees("alice", 1, LONG).await?;
    let (asked, most) =
        (asked.load(Ordering::SeqCst), started.elapsed().as_millis() / u128::from(WAIT_MS) + 3);
    assert!(asked >= 5 && asked as u128 <= most, "asked {asked} times in {:?}", started.elapsed());
    assert_eq!(commits(&scene), 0, "he was let in by the welcome");
    assert_eq!(notices(bob, "alice").await?, [""; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_welcome_before_its_conversation_is_listed_is_enough() -> Result<()> {
    let scene = Scene::of_strangers().await?;
    let Scene { server, alice, bob, .. } = &scene;
    let bobs = device(bob).await?;
    server.tamper(move |who, frame| match frame {
        ServerFrame::Conversations(mut page) if who == bobs => {
            page.list.clear();
            vec![ServerFrame::Conversations(page)]
        }
        other => vec![other],
    });
    alice.send("bob").await?;
    bob.sees("alice", 1, LONG).await?;
    bob.send("alice").await?;
    alice.sees("bob", 1, LONG).await?;
    assert_eq!(commits(&scene), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_resyncs_is_one_sync_a_second() -> Result<()> {
    let scene = Scene::of_two().await?;
    let Scene { server, alice, bob, .. } = &scene;
    let (bobs, asked) = (device(bob).await?, Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&asked);
    server.intercept(move |who, frame| {
        if matches!(frame, ClientFrame::Sync(_)) && who.device == Some(bobs) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        None
    });
    let started = Instant::now();
    for _ in 0..30 {
        for _ in 0..20 {
            server.resync(bobs);
        }
        alice.send("bob").await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bob.sees("alice", 31, LONG).await?;
    let (asked, most) = (asked.load(Ordering::SeqCst), started.elapsed().as_secs() as usize + 2);
    assert!((1..=most).contains(&asked), "{asked} syncs in {:?}", started.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_busy_server_refuses_is_sent_once_and_in_order() -> Result<()> {
    const WAIT_MS: u32 = 300;
    let scene = Scene::of_strangers().await?;
    let Scene { server, alice, bob, .. } = &scene;
    let (alices, asked) = (device(alice).await?, Arc::new(AtomicUsize::new(0)));
    let (counted, mut kinds, mut next) = (Arc::clone(&asked), HashMap::new(), Counter(1));
    // Of each kind of request two are refused before one is let through.
    server.intercept(move |who, frame| {
        let counter = match frame {
            ClientFrame::Send(client::Send { counter, .. }) => Some(*counter),
            ClientFrame::Commit(client::Commit { counter, .. }) => Some(*counter),
            ClientFrame::FindAccount(_)
            | ClientFrame::ClaimKeyPackages(_)
            | ClientFrame::Found(_)
            | ClientFrame::Fetch(_)
            | ClientFrame::Sync(_) => None,
            _ => return None,
        };
        if who.device != Some(alices) {
            return None;
        }
        if counter.is_some_and(|counter| counter != next) {
            let expected = Some(next);
            return Some(ServerFrame::Refused(Refusal { expected, ..Refusal::new(Code::OutOfOrder, "") }));
        }
        counted.fetch_add(1, Ordering::SeqCst);
        let of_this_kind: &mut usize = kinds.entry(frame.name()).or_default();
        *of_this_kind += 1;
        if !of_this_kind.is_multiple_of(3) {
            return Some(busy(WAIT_MS));
        }
        next = counter.map_or(next, Counter::next);
        None
    });
    let started = Instant::now();
    alice.send_many("bob", 5).await?;
    alice.client.update_keys("bob").await?;
    alice.send("bob").await?;
    bob.sees("alice", 6, LONG).await?;
    let asked = asked.load(Ordering::SeqCst);
    // At any time one message, one reading of the log and one sync may ask.
    let most = (started.elapsed().as_millis() as usize / WAIT_MS as usize + 2) * 3;
    assert!(asked <= most, "{asked} requests in {:?}", started.elapsed());
    let bodies: Vec<String> = genuine(bob, "alice").await?.into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, (1..=6).map(|n| format!("alice#{n}")).collect::<Vec<_>>());
    Ok(())
}

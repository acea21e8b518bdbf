//! Uploads that stop in the middle, and clients that do not read: they keep nobody out for long.

use crate::{
    blobs::{BLOB, Scene},
    kit::World,
    pairs::{DIRECT, founding},
    web::{Web, until},
};
use fastchat_gateway::{
    config::Settings,
    limits::{MAX_TRANSFERS_OF_ACCOUNT, TRANSFER_STALL},
};
use fastchat_protocol::{ClientFrame, Code, Refusal, RequestId, ServerFrame, client::Block};
use std::time::Duration;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout},
};

/// Beyond the stall itself; these machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stalls_is_ended_and_its_places_are_free() {
    let mut scene = Scene::new(Settings::default()).await;
    let part = vec![7; 100_000];
    let grant = scene.begin(100_000, 1).await;
    let web = Web::of(&scene.here).await;
    assert_eq!(web.put(&grant.token, BLOB, 0, &part).await, 204);
    until("its place is free", async || scene.here.gateway.blobs.transfers() == 0).await;
    let begun = Instant::now();
    let mut stalled = Vec::new();
    for _ in 0..MAX_TRANSFERS_OF_ACCOUNT {
        stalled.push(web.half(&grant.token, BLOB, 0, &part).await);
    }
    let all = MAX_TRANSFERS_OF_ACCOUNT as usize;
    until("all are seen", async || scene.here.gateway.blobs.transfers() == all).await;
    assert_eq!(web.put(&grant.token, BLOB, 0, &part).await, 429, "they have the account's places");
    for mut stream in stalled {
        let mut answer = Vec::new();
        let whole = timeout(TRANSFER_STALL + PATIENCE, stream.read_to_end(&mut answer));
        whole.await.expect("it is ended").expect("it is answered");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("put the part again"), "{answer}");
    }
    assert!(begun.elapsed() >= TRANSFER_STALL, "who is slow is waited for");
    assert_eq!(web.put(&grant.token, BLOB, 0, &part).await, 204, "there is room again");
    until("places are given back", async || scene.here.gateway.blobs.transfers() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_no_transaction() {
    let world = World::new().await;
    let here = world.gateway();
    let people = [world.person(&here, 1).await, world.person(&here, 2).await];
    world.store.found_direct(founding(&people[0], &people[1])).await.expect("it answers");
    let (mut alice, mut bob) = (people[0].connect(&here).await, people[1].connect(&here).await);
    // Bob asks for something that changes the store, whose file another process has locked.
    let mut other = world.connection().await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.expect("it is free");
    bob.tell(ClientFrame::Block(Block { account: people[0].account, blocked: false })).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let pool = world.store.pool();
    assert!(pool.idle < pool.open, "his request has the connection");
    let much = Refusal::new(Code::BadFrame, "x".repeat(600 * 1024));
    for handle in here.gateway.registry.find(people[1].account, None) {
        for _ in 0..3 {
            handle.answer(RequestId(0), &ServerFrame::Refused(much.clone()));
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.expect("it is given back");
    let said = alice.say(DIRECT, 1).await;
    assert!(matches!(said, ServerFrame::Sent(_)), "{said:?}");
}

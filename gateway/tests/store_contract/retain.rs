//! Retention: what goes, what is waited for, and that everything else stays right.

use crate::world::{World, duplicate, item, leave, stored};
use fastchat_gateway::store::{Outcome, retain::ROWS_AT_A_TIME};
use fastchat_protocol::{ConversationId, GatewayId, Role, Seq};

impl World {
    /// Rows up to this one, in any log, are of a hundred days ago.
    async fn age(&self, seq: u64) {
        self.sql(&format!(
            "UPDATE log SET at_ms = at_ms - CAST(100 AS bigint) * 86400000 WHERE seq <= {seq}"
        ))
        .await;
    }

    async fn retire(&self, conversation: ConversationId, below_cursors: bool) -> u64 {
        self.store.retire_rows(conversation, 30, below_cursors).await.expect("it answers")
    }
}

pub(crate) async fn old_rows_go_from_the_front(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let a = alice.devices[0];
    let batch: Vec<_> = (1..=ROWS_AT_A_TIME as u64 + 9).map(|n| item(conversation, a, n, 1)).collect();
    for some in batch.chunks(100) {
        world.store.append(some).await.unwrap();
    }
    assert_eq!(world.retire(conversation, false).await, 0, "nothing is old");
    let old = ROWS_AT_A_TIME as u64 + 5;
    world.age(old).await;
    // A clock that was set back: what lies behind a younger row stays with it.
    world.sql("UPDATE log SET at_ms = 5 WHERE seq = 508").await;
    assert_eq!(world.retire(conversation, false).await, ROWS_AT_A_TIME as u64, "in steps");
    assert_eq!(world.retire(conversation, false).await, 5);
    assert_eq!(world.retire(conversation, false).await, 0);
    let page = world.store.fetch(bob.devices[0], conversation, Seq(0), 9).await.unwrap().unwrap();
    assert_eq!((page.first, page.rows[0].seq, page.head), (Seq(old + 1), Seq(old + 1), Seq(510)));
    // No id is used again, and what came before is known by its counter.
    assert_eq!(world.append(batch[3].clone()).await, Outcome::Expired);
    assert_eq!(duplicate(&world.append(batch[506].clone()).await), 508);
    assert_eq!(stored(&world.append(item(conversation, a, 510, 1)).await), 511);
}

pub(crate) async fn rows_wait_for_devices_that_are_about(world: World) {
    let (alice, bob) = (world.person("alice", 1).await, world.person("bob", 2).await);
    let carol = world.person("carol", 1).await;
    let g = world.group("g", &[(&alice, Role::Owner), (&bob, Role::Member), (&carol, Role::Member)]).await;
    let a = alice.devices[0];
    let batch: Vec<_> = (1..=9).map(|n| item(g, a, n, 1)).collect();
    world.store.append(&batch).await.unwrap();
    world.age(10).await;
    let all = [a, bob.devices[0], bob.devices[1], carol.devices[0]];
    world.store.devices_seen(&all).await.unwrap();
    let cursors = [(a, g, Seq(10)), (bob.devices[0], g, Seq(8)), (bob.devices[1], g, Seq(3))];
    world.store.set_cursors(&cursors).await.unwrap();
    assert_eq!(world.store.least_cursor(g).await.unwrap(), Some(Seq(1)));
    assert_eq!(world.retire(g, true).await, 1, "carol has read nothing but the row that let her in");
    assert_eq!(world.retire(g, true).await, 0);
    // Who is out is not waited for, nor who is revoked.
    world.store.leave(leave(g, carol.devices[0], 1, 1)).await.unwrap();
    assert_eq!(world.retire(g, true).await, 2);
    // Nor a device that was not connected for ninety days.
    let slow = bob.devices[1];
    world
        .sql(&format!(
            "UPDATE device_seen SET at_ms = at_ms - CAST(89 AS bigint) * 86400000 WHERE device = 'id:{slow}'"
        ))
        .await;
    assert_eq!(world.retire(g, true).await, 0);
    world
        .sql(&format!(
            "UPDATE device_seen SET at_ms = at_ms - CAST(2 AS bigint) * 86400000 WHERE device = 'id:{slow}'"
        ))
        .await;
    assert_eq!(world.retire(g, true).await, 5);
    // It comes back, and is waited for again.
    world.store.devices_seen(&all).await.unwrap();
    assert_eq!(world.retire(g, true).await, 0);
    let mut manifest = bob.manifest(2);
    manifest.revoked = vec![slow];
    assert!(world.store.put_manifest(bob.account, manifest).await.unwrap());
    world.store.set_cursors(&[(bob.devices[0], g, Seq(9))]).await.unwrap();
    assert_eq!(world.retire(g, true).await, 1);
    assert_eq!(world.retire(g, false).await, 1, "unless nobody is waited for");
    let page = world.store.fetch(a, g, Seq(0), 9).await.unwrap().unwrap();
    assert_eq!((page.first, page.rows.len(), page.head), (Seq(11), 1, Seq(11)));
}

pub(crate) async fn a_look_finds_logs_whose_front_is_old(world: World) {
    let alice = world.person("alice", 1).await;
    let mut conversations = Vec::new();
    for n in 0..4 {
        let peer = world.person(&format!("peer{n}"), 1).await;
        conversations.push(world.direct(&alice, &peer).await);
    }
    conversations.sort();
    let fronts = world.store.fronts(None, 30).await.unwrap();
    assert_eq!((fronts.old, fronts.last), (vec![], None));
    for n in [0, 2] {
        let old = conversations[n];
        world.sql(&format!("UPDATE log SET at_ms = 5 WHERE conversation = 'id:{old}'")).await;
    }
    let fronts = world.store.fronts(None, 30).await.unwrap();
    assert_eq!(fronts.old, [conversations[0], conversations[2]]);
    assert_eq!(world.store.fronts(Some(conversations[0]), 30).await.unwrap().old, [conversations[2]]);
    assert_eq!(world.retire(conversations[0], true).await, 1, "all have the row that let them in");
    assert_eq!(world.store.fronts(None, 30).await.unwrap().old, [conversations[2]]);
}

pub(crate) async fn one_holds_a_lease(world: World) {
    let (one, other) = (GatewayId::new([1; 16]), GatewayId::new([2; 16]));
    let hold = async |who, lasts| world.store.hold_lease("sweep", who, lasts).await.unwrap();
    assert!(hold(one, 60).await && hold(one, 60).await);
    assert!(!hold(other, 60).await);
    assert!(world.store.hold_lease("other work", other, 60).await.unwrap());
    world.sql("UPDATE leases SET until_ms = 5").await;
    assert!(hold(other, 60).await && !hold(one, 60).await);
}

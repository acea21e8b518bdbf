//! Foundings of direct conversations.

use crate::world::{Person, World, founding, item, stored};
use fastchat_gateway::store::{Audience, Founded};
use fastchat_protocol::Seq;

pub(crate) async fn a_pair_has_one_conversation(world: World) {
    let (alice, bob) = (world.person("alice", 2).await, world.person("bob", 2).await);
    let first = founding(&alice, &bob, "first");
    let Founded::Made { stored: row, mailboxes } = world.store.found_direct(first.clone()).await.unwrap()
    else {
        panic!("the first founding is made")
    };
    assert_eq!((row.seq, row.revision), (Seq(1), 1));
    let mut grown = vec![
        (alice.devices[1], alice.account, Seq(1)),
        (bob.devices[0], bob.account, Seq(1)),
        (bob.devices[1], bob.account, Seq(1)),
    ];
    grown.sort();
    assert_eq!(mailboxes, grown);

    assert_eq!(world.store.found_direct(first.clone()).await.unwrap(), Founded::Duplicate(row));
    // Also when its row is past retention.
    world.sql("DELETE FROM log").await;
    assert_eq!(world.store.found_direct(first.clone()).await.unwrap(), Founded::Duplicate(row));
    let existing = Founded::Existing(first.conversation);
    for second in [founding(&alice, &bob, "second"), founding(&bob, &alice, "third")] {
        assert_eq!(world.store.found_direct(second).await.unwrap(), existing);
    }
    // The same id from the other side is not the same founding.
    assert_eq!(world.store.found_direct(founding(&bob, &alice, "first")).await.unwrap(), existing);

    // An id that is another conversation's is nobody else's.
    let eve = world.person("eve", 1).await;
    assert_eq!(world.store.found_direct(founding(&eve, &bob, "first")).await.unwrap(), Founded::NotMember);
    assert!(matches!(
        world.store.found_direct(founding(&eve, &bob, "e")).await.unwrap(),
        Founded::Made { .. }
    ));
}

pub(crate) async fn a_conversation_with_oneself(world: World) {
    let alice = world.person("alice", 2).await;
    let conversation = world.direct(&alice, &alice).await;
    for device in &alice.devices {
        stored(&world.append(item(conversation, *device, 1, 1)).await);
        let state = world.store.conversations(*device, None, 9).await.unwrap().remove(0);
        assert_eq!((state.conversation, state.peer), (conversation, Some(alice.account)));
    }
    let state = world.store.group_state(alice.devices[0], conversation).await.unwrap().unwrap();
    assert_eq!((state.audience, state.head), (Audience::Pair(alice.account, alice.account), Seq(3)));
}

pub(crate) async fn nobody_founds_for_others(world: World) {
    let (alice, bob) = (world.person("alice", 1).await, world.person("bob", 1).await);
    let eve = world.person("eve", 1).await;
    let refused =
        async |founding| assert_eq!(world.store.found_direct(founding).await.unwrap(), Founded::NotMember);
    let mut as_alice = founding(&alice, &bob, "x");
    as_alice.device = eve.devices[0];
    refused(as_alice).await;
    refused(founding(&alice, &Person::new("nobody", 0), "x")).await;
    let mut with_eve = founding(&alice, &bob, "x");
    with_eve.joins[0].device = eve.devices[0];
    refused(with_eve).await;

    let mut manifest = alice.manifest(2);
    manifest.revoked = alice.devices.clone();
    assert!(world.store.put_manifest(alice.account, manifest).await.unwrap());
    refused(founding(&alice, &bob, "x")).await;
    // Nothing of all this stayed: the pair is free.
    assert!(matches!(
        world.store.found_direct(founding(&bob, &alice, "x")).await.unwrap(),
        Founded::Made { .. }
    ));
}

//! What people decide about themselves and each other: blocks, presence, recovery, slots, the end.

use crate::world::{Person, World, commit, duplicate, founding, group, id, item, joins, stored};
use bytes::Bytes;
use fastchat_gateway::store::{Claimed, Founded, Outcome, Recovery, Registered};
use fastchat_protocol::{
    DeviceId, Role, Seq, SlotId,
    limits::{MAX_SLOT_PART, MAX_SLOTS},
};

pub(crate) async fn a_blocked_party_is_not_accepted(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let g = world.group("g", &[(&alice, Role::Owner), (&bob, Role::Member)]).await;
    let store = &world.store;
    let b = bob.devices[0];
    world.store.publish_key_packages(alice.devices[0], 1, &["p".into()], None).await.unwrap();
    assert_eq!(stored(&world.append(item(conversation, b, 1, 1)).await), 2);
    for _ in 0..2 {
        store.block(alice.account, bob.account, true).await.unwrap();
    }
    assert_eq!(store.blocked(alice.account).await.unwrap(), [bob.account]);
    assert_eq!(store.blocked(bob.account).await.unwrap(), []);

    // Dedupe comes before, the epoch and the counter after.
    assert_eq!(duplicate(&world.append(item(conversation, b, 1, 1)).await), 2);
    for odd in [item(conversation, b, 2, 1), item(conversation, b, 2, 9), item(conversation, b, 9, 1)] {
        assert_eq!(world.append(odd).await, Outcome::NotAccepted);
    }
    assert_eq!(world.commit(commit(conversation, b, 2, 1)).await, Outcome::NotAccepted);
    assert_eq!(store.claim_key_packages(bob.account, alice.account, 1).await.unwrap(), Claimed::NotAccepted);
    // The blocker speaks, the blocked one reads, and groups go on.
    assert_eq!(stored(&world.append(item(conversation, alice.devices[0], 1, 1)).await), 3);
    assert_eq!(world.log(b, conversation).await.len(), 3);
    assert_eq!(stored(&world.append(item(g, b, 1, 1)).await), 2);
    assert_eq!(store.readers(conversation, &[b]).await.unwrap().revision, 3);
    assert_eq!(world.claim(alice.account).await.len(), 1);

    store.block(alice.account, bob.account, false).await.unwrap();
    assert_eq!(stored(&world.append(item(conversation, b, 2, 1)).await), 4);
    assert_eq!(store.blocked(alice.account).await.unwrap(), []);
    // Nothing happens for oneself and for nobody.
    let nobody = Person::new("nobody", 0).account;
    for (account, other) in [(alice.account, alice.account), (alice.account, nobody), (nobody, alice.account)]
    {
        store.block(account, other, true).await.unwrap();
        assert_eq!(store.blocked(account).await.unwrap(), []);
    }
}

pub(crate) async fn a_block_comes_before_the_conversation(world: World) {
    let (alice, bob) = (world.person("alice", 1).await, world.person("bob", 1).await);
    world.store.block(alice.account, bob.account, true).await.unwrap();
    let refused = world.store.found_direct(founding(&bob, &alice, "c")).await.unwrap();
    assert_eq!(refused, Founded::NotAccepted);
    let conversation = world.direct(&alice, &bob).await;
    assert_eq!(stored(&world.append(item(conversation, alice.devices[0], 1, 1)).await), 2);
    assert_eq!(world.append(item(conversation, bob.devices[0], 1, 1)).await, Outcome::NotAccepted);
}

pub(crate) async fn those_who_talk_are_acquainted(world: World) {
    let (alice, bob, _) = world.couple().await;
    let (carol, dave) = (world.person("carol", 1).await, world.person("dave", 1).await);
    let g = world.group("g", &[(&alice, Role::Owner), (&carol, Role::Member)]).await;
    let others = [bob.account, carol.account, dave.account, bob.account];
    let acquainted = async || world.store.acquainted(alice.account, &others).await.unwrap();
    let mut both = [bob.account, carol.account];
    both.sort();
    assert_eq!(acquainted().await, both);
    world.store.block(bob.account, alice.account, true).await.unwrap();
    assert_eq!(acquainted().await, [carol.account]);
    let left = world.store.leave(crate::world::leave(g, carol.devices[0], 1, 1)).await.unwrap();
    assert_eq!((stored(&left), acquainted().await), (2, vec![]));
    assert_eq!(world.store.acquainted(alice.account, &[]).await.unwrap(), []);

    assert!(world.store.device(alice.devices[0]).await.unwrap().unwrap().visible);
    world.store.set_visible(alice.account, false).await.unwrap();
    assert!(!world.store.device(alice.devices[0]).await.unwrap().unwrap().visible);
    assert!(world.store.device(bob.devices[0]).await.unwrap().unwrap().visible);
}

pub(crate) async fn a_revocation_raises_revisions(world: World) {
    let (alice, bob) = (world.person("alice", 1).await, world.person("bob", 2).await);
    let g = world.group("g", &[(&alice, Role::Owner), (&bob, Role::Member)]).await;
    let gone = bob.devices[1];
    world.store.publish_key_packages(gone, 1, &["p".into()], Some(&"l".into())).await.unwrap();
    let mut next = bob.manifest(2);
    next.revoked = vec![gone];
    for _ in 0..2 {
        assert!(world.store.put_manifest(bob.account, next.clone()).await.unwrap());
        let readers = world.store.readers(g, &bob.devices).await.unwrap();
        assert_eq!((readers.revision, readers.ranges), (2, vec![(bob.devices[0], Seq(1), None)]));
    }
    assert_eq!(world.store.mailbox(gone, Seq(0), 9).await.unwrap(), (Vec::new(), Seq(1)));
    assert_eq!(world.store.arrival(gone).await.unwrap().unwrap().key_packages, []);
    let Outcome::Stored(row) = world.append(item(g, alice.devices[0], 1, 1)).await else { panic!("stored") };
    assert_eq!(row.revision, 2);
}

pub(crate) async fn a_deleted_account_is_out_for_good(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let g = world.group("g", &[(&alice, Role::Owner), (&bob, Role::Admin)]).await;
    let store = &world.store;
    let slot = SlotId::new([1; 16]);
    store.publish_key_packages(bob.devices[0], 1, &["p".into()], None).await.unwrap();
    assert!(store.put_slot(bob.account, slot, 0, &"x".into(), 60).await.unwrap());
    store.set_recovery(bob.account, Recovery { key_hash: [1; 32], sealed: "s".into() }).await.unwrap();
    // An owner with others stays as it is.
    assert!(!store.delete_account(alice.account).await.unwrap());
    assert_eq!(stored(&world.append(item(g, alice.devices[0], 1, 1)).await), 2);

    for _ in 0..2 {
        assert!(store.delete_account(bob.account).await.unwrap());
    }
    assert!(store.delete_account(Person::new("nobody", 0).account).await.unwrap());
    assert_eq!(store.find_account(&"bob".parse().unwrap()).await.unwrap(), None);
    assert!(store.account(bob.account).await.unwrap().is_some());
    assert_eq!(store.password_hash(bob.account).await.unwrap(), None);
    assert!(!store.set_password_hash(bob.account, "", "new").await.unwrap());
    for device in &bob.devices {
        assert!(store.device(*device).await.unwrap().unwrap().revoked);
        assert_eq!(store.conversations(*device, None, 9).await.unwrap(), []);
        assert_eq!(store.fetch(*device, g, Seq(0), 9).await.unwrap(), None);
        assert_eq!(store.group_state(*device, conversation).await.unwrap(), None);
        assert_eq!(store.mailbox(*device, Seq(0), 9).await.unwrap().0, []);
        assert_eq!(world.append(item(g, *device, 1, 1)).await, Outcome::NotMember);
    }
    assert_eq!(world.claim(bob.account).await, []);
    assert!(!store.put_manifest(bob.account, bob.manifest(2)).await.unwrap());
    assert!(!store.restore(bob.account, bob.manifest(2), "h").await.unwrap());
    assert!(!store.put_slot(bob.account, slot, 0, &"x".into(), 60).await.unwrap());
    assert_eq!(store.slot(bob.account, slot, 0).await.unwrap(), None);
    store.set_recovery(bob.account, Recovery { key_hash: [1; 32], sealed: "s".into() }).await.unwrap();
    assert_eq!(store.recovery(bob.account).await.unwrap(), None);
    let mut thief = Person::new("thief", 1);
    thief.name = "bob".into();
    assert_eq!(store.register(thief.registration()).await.unwrap(), Registered::NameTaken);
    assert_eq!(store.register(bob.registration()).await.unwrap(), Registered::IdTaken);

    // The others: whoever hands rows out asks again, and nothing brings the account back.
    assert_eq!(store.readers(g, &bob.devices).await.unwrap().ranges, []);
    let Outcome::Stored(row) = world.append(item(g, alice.devices[0], 2, 1)).await else { panic!("stored") };
    assert_eq!((row.seq, row.revision), (Seq(3), 2));
    assert_eq!(store.group_state(alice.devices[0], g).await.unwrap().unwrap().left, [bob.account]);
    assert_eq!(world.append(item(conversation, alice.devices[0], 1, 1)).await, Outcome::NotAccepted);
    let mut back = commit(g, alice.devices[0], 3, 1);
    back.members = vec![(bob.account, Some(Role::Member))];
    back.joins = joins(&bob.devices, "w");
    assert_eq!(world.commit(back.clone()).await, Outcome::NotMember);
    back.members.clear();
    assert_eq!(world.commit(back).await, Outcome::NotMember);
    let founding = group("h", &[(&alice, Role::Owner), (&bob, Role::Member)]);
    assert_eq!(store.found_group(founding).await.unwrap().outcome, Outcome::NotMember);
    // Alone in her group, the owner may go.
    assert!(store.delete_account(alice.account).await.unwrap());
}

pub(crate) async fn a_recovery_replaces_manifest_and_password(world: World) {
    let mut alice = world.person("alice", 1).await;
    let store = &world.store;
    assert_eq!(store.recovery(alice.account).await.unwrap(), None);
    for n in 1..=2 {
        let recovery = Recovery { key_hash: [n; 32], sealed: vec![n; 4000].into() };
        store.set_recovery(alice.account, recovery.clone()).await.unwrap();
        assert_eq!(store.recovery(alice.account).await.unwrap(), Some(recovery));
    }
    store
        .set_recovery(Person::new("nobody", 0).account, Recovery { key_hash: [0; 32], sealed: "".into() })
        .await
        .unwrap();

    let lost = alice.devices[0];
    alice.devices.push(DeviceId::new(id("new")));
    let mut next = alice.manifest(2);
    next.revoked = vec![next.devices.remove(0).0];
    let mut late = next.clone();
    late.version = 3;
    assert!(!store.restore(alice.account, late, "refused").await.unwrap());
    assert_eq!(store.password_hash(alice.account).await.unwrap().as_deref(), Some("hash of alice"));
    // The second time is a client that lost its answer; its hash has another salt.
    for hash in ["first", "again"] {
        assert!(store.restore(alice.account, next.clone(), hash).await.unwrap());
        assert_eq!(store.password_hash(alice.account).await.unwrap().as_deref(), Some(hash));
    }
    assert!(store.device(lost).await.unwrap().unwrap().revoked);
    let mut other = next;
    other.bytes = "other".into();
    assert!(!store.restore(alice.account, other, "refused").await.unwrap());
    assert_eq!(store.password_hash(alice.account).await.unwrap().as_deref(), Some("again"));
}

pub(crate) async fn slots_hold_parts_until_they_expire(world: World) {
    let (alice, bob) = (world.person("alice", 1).await, world.person("bob", 1).await);
    let store = &world.store;
    let [first, second] = [1, 2].map(|n| SlotId::new([n; 16]));
    let put = async |person: &Person, slot, part, bytes: &Bytes, seconds| {
        store.put_slot(person.account, slot, part, bytes, seconds).await.unwrap()
    };
    let (small, large) = (Bytes::from("small"), Bytes::from(vec![7; MAX_SLOT_PART]));
    assert!(put(&alice, first, 0, &large, 60).await);
    assert!(put(&alice, first, 0, &small, 60).await);
    assert!(put(&alice, first, u32::MAX, &small, 60).await);
    assert!(put(&alice, second, 0, &"gone".into(), 0).await);
    assert_eq!(store.slot(alice.account, first, 0).await.unwrap(), Some(small.clone()));
    assert_eq!(store.slot(alice.account, first, u32::MAX).await.unwrap(), Some(small.clone()));
    for (account, slot, part) in
        [(alice.account, second, 0), (alice.account, first, 1), (bob.account, first, 0)]
    {
        assert_eq!(store.slot(account, slot, part).await.unwrap(), None);
    }
    assert!(!put(&Person::new("nobody", 0), first, 0, &small, 60).await);
    store.drop_slot(alice.account, first).await.unwrap();
    assert_eq!(store.slot(alice.account, first, 0).await.unwrap(), None);

    // What has expired is removed, also of an account that puts nothing any more.
    assert!(put(&bob, first, 0, &small, 60).await);
    assert_eq!(world.number("SELECT count(*) FROM slots").await, 1);
    let parts = u32::try_from(MAX_SLOTS / MAX_SLOT_PART).unwrap();
    for part in 0..parts {
        assert!(put(&alice, first, part, &large, 60).await);
    }
    assert!(!put(&alice, second, 0, &small, 60).await);
    assert!(put(&alice, first, parts - 1, &large, 60).await);
    assert!(put(&bob, second, 0, &small, 60).await);
    assert!(put(&alice, first, parts - 1, &large, 0).await);
    assert!(put(&alice, second, 0, &large, 60).await);
}

//! After a backup was restored.

use crate::world::{World, commit, epoch, group, item, stored};
use fastchat_gateway::store::{Audience, Outcome, Restoration};
use fastchat_protocol::{
    Counter, Epoch, Role, Seq,
    server::{KeyPackagesLeft, LogKind, Restored},
};

pub(crate) async fn another_incarnation_says_where_the_backup_ended(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let g = world.group("g", &[(&alice, Role::Owner), (&bob, Role::Member)]).await;
    let [a, b] = [alice.devices[0], bob.devices[0]];
    stored(&world.append(item(conversation, a, 1, 1)).await);
    let store = &world.store;
    let last = "last".into();
    store.publish_key_packages(a, 1, &["one".into(), "two".into()], Some(&last)).await.unwrap();
    let before = store.conversations(b, None, 9).await.unwrap();
    assert!(before.iter().all(|state| state.restored.is_empty()), "{before:?}");

    let done = store.begin_incarnation(5).await.unwrap();
    assert_eq!(done, Restoration { before: 1, now: 5, conversations: 2, key_packages: 2 });
    assert_eq!(store.incarnation().await.unwrap(), 5);
    let left = store.arrival(a).await.unwrap().unwrap().key_packages;
    assert_eq!(left, [KeyPackagesLeft { suite: 1, left: 0, last_resort: true }]);
    assert_eq!(world.number("SELECT count(*) FROM log WHERE tx <> 0").await, 0);
    assert_eq!(world.number("SELECT count(*) FROM mailbox_heads WHERE tx <> 0").await, 0);
    // What comes now is found to have moved, and nothing else.
    let mark = store.moved_since(None).await.unwrap().mark;
    stored(&world.append(item(conversation, b, 1, 1)).await);
    let moved = store.moved_since(Some(mark)).await.unwrap();
    assert_eq!(
        moved.heads.iter().map(|(id, head, _)| (*id, *head)).collect::<Vec<_>>(),
        [(conversation, Seq(3))]
    );
    assert!(moved.mailboxes.is_empty(), "{moved:?}");

    let made = commit(conversation, a, 2, 1);
    assert_eq!(stored(&store.append_commit(made).await.unwrap().outcome), 4);
    let again = store.begin_incarnation(3).await.unwrap();
    assert_eq!(again, Restoration { before: 5, now: 6, conversations: 2, key_packages: 0 });
    let states = store.conversations(b, None, 9).await.unwrap();
    let of = |id| states.iter().find(|state| state.conversation == id).unwrap().restored.clone();
    let at = |incarnation, head, number| {
        let epoch = Epoch { generation: 0, number };
        Restored { incarnation, head: Seq(head), epoch }
    };
    assert_eq!(of(conversation), [at(5, 2, 1), at(6, 4, 2)]);
    assert_eq!(of(g), [at(5, 1, 1), at(6, 1, 1)]);
}

pub(crate) async fn a_conversation_of_two_goes_on_in_a_generation(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let (a, b) = (alice.devices[0], bob.devices[0]);
    stored(&world.append(item(conversation, b, 1, 1)).await);
    let mut next = group("next", &[(&alice, Role::Owner), (&bob, Role::Member)]);
    (next.conversation, next.counter, next.parent) = (conversation, Counter(1), Some(epoch(1)));
    next.members.clear();
    next.joins.retain(|join| join.device != bob.devices[1]);
    next.epoch = Epoch { generation: 7, number: 1 };
    let found = async |next: &_| world.store.found_group(Clone::clone(next)).await.unwrap();
    let mut strange = next.clone();
    strange.device = world.person("eve", 1).await.devices[0];
    assert_eq!(found(&strange).await.outcome, Outcome::NotMember);
    let Outcome::Stored(row) = found(&next).await.outcome else { panic!("it is stored") };
    assert!(matches!((row.seq, row.audience), (Seq(3), Audience::Pair(..))), "{row:?}");
    let mut late = next.clone();
    (late.device, late.counter, late.group_info) = (b, Counter(2), "late".into());
    assert_eq!(found(&late).await.outcome, Outcome::Stale(next.epoch), "the other party was first");

    // Both are in it still; the device that was left out is not, and may come back.
    let page = world.store.fetch(b, conversation, Seq(0), 9).await.unwrap().unwrap();
    assert_eq!((page.rows.len(), page.rows[2].kind), (3, LogKind::Founded));
    let generation = |n: u32, counter| {
        let mut item = item(conversation, b, counter, 1);
        item.epoch.generation = n;
        item
    };
    assert_eq!(world.append(generation(0, 2)).await, Outcome::Stale(next.epoch));
    assert_eq!(stored(&world.append(generation(7, 2)).await), 4);
    let state = world.store.conversations(a, None, 9).await.unwrap().remove(0);
    assert_eq!((state.peer, state.head, state.unjoined), (Some(bob.account), Seq(4), false));
    let out = world.store.group_state(bob.devices[1], conversation).await.unwrap();
    assert!(out.is_some(), "the account is a party all the same");
}

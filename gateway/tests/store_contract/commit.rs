//! Commits: compare and set, the window of epochs, joins and removals.

use crate::world::{World, commit, duplicate, epoch, item, stored};
use fastchat_gateway::store::{Join, Outcome, Readers};
use fastchat_protocol::Seq;

pub(crate) async fn a_commit_moves_the_epoch_once(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let first = commit(conversation, alice.devices[0], 1, 1);
    assert_eq!(stored(&world.commit(first.clone()).await), 2);
    assert_eq!(world.commit(commit(conversation, bob.devices[0], 1, 1)).await, Outcome::Stale(epoch(2)));
    // A repeated commit is the first one, though its parent is not in force any more.
    assert_eq!(duplicate(&world.commit(first).await), 2);
    let state = world.store.group_state(bob.devices[0], conversation).await.unwrap().unwrap();
    assert_eq!((state.epoch, state.head), (epoch(2), Seq(2)));
    assert_eq!(
        (state.group_info, state.state, state.tree),
        ("group info 2".into(), "state 2".into(), "tree 2".into())
    );
    let rows = world.store.fetch(bob.devices[0], conversation, Seq(1), 9).await.unwrap().unwrap().rows;
    assert_eq!(u8::from(rows[0].kind), 3);
    assert_eq!(stored(&world.commit(commit(conversation, bob.devices[0], 1, 2)).await), 3);

    // The next generation begins its epochs again.
    let mut anew = commit(conversation, alice.devices[0], 2, 3);
    (anew.epoch.generation, anew.epoch.number) = (1, 1);
    assert_eq!(stored(&world.commit(anew.clone()).await), 4);
    assert_eq!(world.append(item(conversation, bob.devices[0], 2, 3)).await, Outcome::Stale(anew.epoch));
    let mut sent = item(conversation, bob.devices[0], 2, 1);
    sent.epoch = anew.epoch;
    assert_eq!(stored(&world.append(sent).await), 5);
}

pub(crate) async fn the_window_of_epochs_ends_at_a_change_of_membership(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    for parent in 1..=3 {
        stored(&world.commit(commit(conversation, alice.devices[0], parent, parent)).await);
    }
    // Epoch 4 is in force: 2, 3 and 4 are accepted.
    let outcomes: Vec<_> = [5, 1].map(|number| item(conversation, bob.devices[0], 1, number)).into();
    for outcome in world.store.append(&outcomes).await.unwrap() {
        assert_eq!(outcome, Outcome::Stale(epoch(4)));
    }
    let accepted: Vec<_> =
        (2..=4).map(|number| item(conversation, bob.devices[0], number - 1, number)).collect();
    world.store.append(&accepted).await.unwrap().iter().for_each(|outcome| {
        stored(outcome);
    });
    let mut removal = commit(conversation, alice.devices[0], 4, 4);
    (removal.membership_changed, removal.removes) = (true, vec![bob.devices[1]]);
    assert_eq!(stored(&world.commit(removal).await), 8);
    // Epoch 5 removed a leaf: nothing older is accepted, and one commit later 5 still is.
    assert_eq!(world.append(item(conversation, bob.devices[0], 4, 4)).await, Outcome::Stale(epoch(5)));
    stored(&world.commit(commit(conversation, alice.devices[0], 5, 5)).await);
    assert_eq!(world.append(item(conversation, bob.devices[0], 4, 4)).await, Outcome::Stale(epoch(6)));
    let Outcome::Stored(last) = world.append(item(conversation, bob.devices[0], 4, 5)).await else {
        panic!("epoch 5 is accepted")
    };
    assert_eq!((last.seq, last.revision), (Seq(10), 2));
}

pub(crate) async fn a_removed_device_reads_up_to_its_removal(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let gone = bob.devices[1];
    assert_eq!(stored(&world.append(item(conversation, gone, 1, 1)).await), 2);
    let mut removal = commit(conversation, alice.devices[0], 1, 1);
    (removal.membership_changed, removal.removes) = (true, vec![gone]);
    assert_eq!(stored(&world.commit(removal).await), 3);
    assert_eq!(stored(&world.append(item(conversation, alice.devices[0], 2, 2)).await), 4);

    assert_eq!(world.append(item(conversation, gone, 2, 2)).await, Outcome::NotMember);
    let page = world.store.fetch(gone, conversation, Seq(0), 99).await.unwrap().unwrap();
    assert_eq!((page.rows.len(), page.head), (3, Seq(3)));
    assert_eq!(world.store.conversations(gone, None, 9).await.unwrap()[0].head, Seq(3));
    world.store.set_cursors(&[(gone, conversation, Seq(4))]).await.unwrap();
    assert_eq!(world.store.conversations(gone, None, 9).await.unwrap()[0].cursor, Seq(1));
    let readers = world.store.readers(conversation, &[gone, bob.devices[0]]).await.unwrap();
    let mut ranges = vec![(gone, Seq(1), Some(Seq(3))), (bob.devices[0], Seq(1), None)];
    ranges.sort();
    assert_eq!(readers, Readers { revision: 2, ranges });

    // Let in again, it starts there.
    let mut back = commit(conversation, alice.devices[0], 3, 2);
    back.joins = vec![Join { device: gone, welcome: Some("welcome back".into()) }];
    back.membership_changed = true;
    let committed = world.store.append_commit(back).await.unwrap();
    assert_eq!((stored(&committed.outcome), committed.mailboxes), (5, vec![(gone, bob.account, Seq(2))]));
    let page = world.store.fetch(gone, conversation, Seq(0), 99).await.unwrap().unwrap();
    assert_eq!((page.rows[0].seq, page.rows.len(), page.head), (Seq(5), 1, Seq(5)));
    // Its count goes on.
    assert_eq!(stored(&world.append(item(conversation, gone, 2, 3)).await), 6);
}

pub(crate) async fn a_device_lets_itself_in(world: World) {
    let (_, mut bob, conversation) = world.couple().await;
    bob.devices.push(crate::world::Person::new("new", 1).devices[0]);
    let device = bob.devices[2];
    assert!(world.store.put_manifest(bob.account, bob.manifest(2)).await.unwrap());
    assert_eq!(world.store.fetch(device, conversation, Seq(0), 9).await.unwrap(), None);
    assert_eq!(world.commit(commit(conversation, device, 1, 1)).await, Outcome::NotMember);

    let mut external = commit(conversation, device, 1, 1);
    external.membership_changed = true;
    external.joins = vec![Join { device, welcome: None }];
    let committed = world.store.append_commit(external).await.unwrap();
    assert_eq!((stored(&committed.outcome), committed.mailboxes.len()), (2, 0));
    assert_eq!(stored(&world.append(item(conversation, device, 2, 2)).await), 3);

    // It comes back by another one, which removes its old leaf: that is not its end.
    let mut again = commit(conversation, device, 3, 2);
    again.membership_changed = true;
    again.joins = vec![Join { device, welcome: None }];
    again.removes = vec![device];
    assert_eq!(stored(&world.commit(again).await), 4);
    assert_eq!(stored(&world.append(item(conversation, device, 4, 3)).await), 5);
    let state = world.store.conversations(device, None, 9).await.unwrap().remove(0);
    assert_eq!((state.join_seq, state.cursor, state.head, state.counter.0), (Seq(4), Seq(4), Seq(5), 4));
}

pub(crate) async fn a_stranger_is_not_let_in(world: World) {
    let (alice, _, conversation) = world.couple().await;
    let eve = world.person("eve", 1).await;
    let mut own = commit(conversation, eve.devices[0], 1, 1);
    own.joins = vec![Join { device: eve.devices[0], welcome: None }];
    assert_eq!(world.commit(own).await, Outcome::NotMember);
    let mut invited = commit(conversation, alice.devices[0], 1, 1);
    invited.joins = vec![Join { device: eve.devices[0], welcome: Some("welcome".into()) }];
    assert_eq!(world.commit(invited).await, Outcome::NotMember);
    assert_eq!(world.store.fetch(eve.devices[0], conversation, Seq(0), 9).await.unwrap(), None);
}

pub(crate) async fn a_commit_is_stored_whole_or_not_at_all(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let eve = world.person("eve", 1).await;
    // Refused at its last step, after the row, the state and other mailboxes were written.
    let mut invited = commit(conversation, alice.devices[0], 1, 1);
    invited.joins =
        [bob.devices[1], eve.devices[0]].map(|device| Join { device, welcome: Some("w".into()) }).into();
    assert_eq!(world.commit(invited).await, Outcome::NotMember);
    let state = world.store.group_state(alice.devices[0], conversation).await.unwrap().unwrap();
    assert_eq!((state.epoch, state.head, state.state), (epoch(1), Seq(1), "state 1".into()));
    assert_eq!(world.store.mailbox(bob.devices[1], Seq(0), 9).await.unwrap().1, Seq(1));
    assert_eq!(stored(&world.append(item(conversation, alice.devices[0], 1, 1)).await), 2);
}

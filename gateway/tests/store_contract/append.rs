//! The rules of an append.

use crate::world::{Person, World, commit, duplicate, item, stored};
use fastchat_gateway::store::{Audience, Outcome};
use fastchat_protocol::{ConversationId, Counter, Epoch, Role, Seq};

pub(crate) async fn seqs_are_contiguous_and_a_retry_gets_the_first(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let (a, b) = (alice.devices[0], bob.devices[0]);
    let batch = [item(conversation, a, 1, 1), item(conversation, b, 1, 1), item(conversation, a, 2, 1)];
    let first = world.store.append(&batch).await.unwrap();
    assert_eq!(first.iter().map(stored).collect::<Vec<_>>(), [2, 3, 4]);
    let Outcome::Stored(row) = &first[0] else { panic!("it is stored") };
    let pair = (alice.account.min(bob.account), alice.account.max(bob.account));
    assert_eq!((row.audience, row.revision), (Audience::Pair(pair.0, pair.1), 1));
    assert!(row.at_ms > 1_600_000_000_000);

    // Retries, in any order and among others, burn no seq.
    let again = [batch[2].clone(), item(conversation, a, 3, 1), batch[0].clone()];
    let again = world.store.append(&again).await.unwrap();
    assert_eq!((duplicate(&again[0]), stored(&again[1]), duplicate(&again[2])), (4, 5, 2));
    assert_eq!(again[2], Outcome::Duplicate(*row));
    let seqs: Vec<_> = world.log(a, conversation).await.into_iter().map(|row| row.0).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
    assert_eq!(world.store.append(&[]).await.unwrap(), []);
}

pub(crate) async fn other_bytes_under_a_used_counter_are_a_conflict(world: World) {
    let (alice, _, conversation) = world.couple().await;
    let first = item(conversation, alice.devices[0], 1, 1);
    assert_eq!(stored(&world.append(first.clone()).await), 2);
    let mut other = first.clone();
    other.envelope = "other bytes".into();
    assert_eq!(world.append(other).await, Outcome::Conflict(Seq(2)));
    // Another device's count is its own.
    assert_eq!(stored(&world.append(item(conversation, alice.devices[1], 1, 1)).await), 3);
    // A commit counts with the envelopes.
    let commit = commit(conversation, alice.devices[0], 1, 1);
    assert_eq!(world.commit(commit).await, Outcome::Conflict(Seq(2)));
}

pub(crate) async fn a_retry_after_retention_has_expired(world: World) {
    let (alice, _, conversation) = world.couple().await;
    let items: Vec<_> = (1..=3).map(|n| item(conversation, alice.devices[0], n, 1)).collect();
    world.store.append(&items).await.unwrap();
    world.sql(&format!("DELETE FROM log WHERE conversation = 'id:{conversation}' AND seq <= 3")).await;
    let again = world.store.append(&items).await.unwrap();
    assert_eq!(again[..2], [Outcome::Expired, Outcome::Expired]);
    assert_eq!(duplicate(&again[2]), 4);
    assert_eq!(stored(&world.append(item(conversation, alice.devices[0], 4, 1)).await), 5);
}

pub(crate) async fn a_counter_that_is_not_next_is_refused_with_the_one_that_is(world: World) {
    let (alice, _, conversation) = world.couple().await;
    let device = alice.devices[0];
    for wrong in [0, 2, 9] {
        assert_eq!(world.append(item(conversation, device, wrong, 1)).await, Outcome::OutOfOrder(Counter(1)));
    }
    assert_eq!(stored(&world.append(item(conversation, device, 1, 1)).await), 2);
    assert_eq!(world.append(item(conversation, device, 0, 1)).await, Outcome::OutOfOrder(Counter(2)));
    assert_eq!(world.commit(commit(conversation, device, 3, 1)).await, Outcome::OutOfOrder(Counter(2)));
    // Out of order within a batch: what comes too early is refused, what is next is stored.
    let swapped = [3, 2, 4].map(|n| item(conversation, device, n, 1));
    let outcomes = world.store.append(&swapped).await.unwrap();
    assert_eq!(outcomes[0], Outcome::OutOfOrder(Counter(2)));
    assert_eq!(stored(&outcomes[1]), 3);
    assert_eq!(outcomes[2], Outcome::OutOfOrder(Counter(3)));
}

pub(crate) async fn a_refused_item_breaks_its_chain_and_no_other(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let (a, b) = (alice.devices[0], bob.devices[0]);
    let batch = [
        item(conversation, a, 1, 1),
        item(conversation, a, 2, 7),
        item(conversation, b, 1, 1),
        item(conversation, a, 3, 1),
        item(conversation, b, 2, 1),
        item(conversation, a, 4, 7),
    ];
    let outcomes = world.store.append(&batch).await.unwrap();
    let stale = Outcome::Stale(Epoch { generation: 0, number: 1 });
    assert_eq!((stored(&outcomes[0]), stored(&outcomes[2]), stored(&outcomes[4])), (2, 3, 4));
    assert_eq!(outcomes[1], stale);
    assert_eq!(outcomes[3], Outcome::OutOfOrder(Counter(2)));
    assert_eq!(outcomes[5], stale);
}

pub(crate) async fn dedupe_comes_before_everything_else(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let first = item(conversation, bob.devices[0], 1, 1);
    assert_eq!(stored(&world.append(first.clone()).await), 2);
    // The epoch moves on, the device is removed, then revoked: what was stored was stored.
    let mut removal = commit(conversation, alice.devices[0], 1, 1);
    removal.membership_changed = true;
    removal.removes = vec![bob.devices[0]];
    assert_eq!(stored(&world.commit(removal).await), 3);
    assert_eq!(duplicate(&world.append(first.clone()).await), 2);
    let mut manifest = bob.manifest(2);
    manifest.revoked = vec![bob.devices[0]];
    assert!(world.store.put_manifest(bob.account, manifest).await.unwrap());
    assert_eq!(duplicate(&world.append(first).await), 2);
    assert_eq!(world.append(item(conversation, bob.devices[0], 2, 2)).await, Outcome::NotMember);
}

pub(crate) async fn strangers_and_the_revoked_are_refused(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let eve = world.person("eve", 1).await;
    assert_eq!(world.append(item(conversation, eve.devices[0], 1, 1)).await, Outcome::NotMember);
    assert_eq!(
        world.append(item(conversation, Person::new("x", 1).devices[0], 1, 1)).await,
        Outcome::NotMember
    );
    let nowhere = ConversationId::new([9; 16]);
    assert_eq!(world.append(item(nowhere, alice.devices[0], 1, 1)).await, Outcome::NotMember);
    assert_eq!(world.commit(commit(nowhere, alice.devices[0], 1, 1)).await, Outcome::NotMember);
    assert_eq!(world.commit(commit(conversation, eve.devices[0], 1, 1)).await, Outcome::NotMember);

    // A device of a member that was never let in.
    let mut later = bob.clone();
    later.devices.push(Person::new("later", 1).devices[0]);
    assert!(world.store.put_manifest(bob.account, later.manifest(2)).await.unwrap());
    assert_eq!(world.append(item(conversation, later.devices[2], 1, 1)).await, Outcome::NotMember);

    let mut manifest = later.manifest(3);
    manifest.revoked = vec![bob.devices[1]];
    assert!(world.store.put_manifest(bob.account, manifest).await.unwrap());
    let outcomes = [bob.devices[1], bob.devices[0]].map(|device| item(conversation, device, 1, 1));
    let outcomes = world.store.append(&outcomes).await.unwrap();
    assert_eq!((&outcomes[0], stored(&outcomes[1])), (&Outcome::NotMember, 2));
    assert_eq!(world.commit(commit(conversation, bob.devices[1], 1, 1)).await, Outcome::NotMember);
}

pub(crate) async fn a_batch_over_many_conversations_keeps_each_in_order(world: World) {
    let alice = world.person("alice", 1).await;
    let mut conversations = Vec::new();
    for n in 0..8 {
        let peer = world.person(&format!("peer{n}"), 1).await;
        conversations.push(world.direct(&alice, &peer).await);
    }
    let batch: Vec<_> =
        (0..64).map(|n| item(conversations[n * 5 % 8], alice.devices[0], n as u64 / 8 + 1, 1)).collect();
    let outcomes = world.store.append(&batch).await.unwrap();
    for (item, outcome) in batch.iter().zip(&outcomes) {
        assert_eq!(stored(outcome), item.counter.0 + 1);
    }
}

/// Whatever takes the right to write takes it from those who have used it, too: in a batch of one, and in
/// a larger one, where nobody else loses anything.
pub(crate) async fn who_wrote_before_is_judged_again(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let g = world.group("g", &[(&alice, Role::Owner), (&bob, Role::Member)]).await;
    let (a, b, store) = (alice.devices[0], bob.devices[0], &world.store);
    for counter in 1..=2 {
        let both = [(conversation, b), (g, a), (conversation, a), (g, b)];
        let both = both.map(|(place, device)| item(place, device, counter, 1));
        let outcomes = store.append(&both).await.unwrap();
        let seqs: Vec<_> = outcomes.iter().map(stored).collect();
        let first = counter * 2;
        assert_eq!(seqs, [first, first, first + 1, first + 1]);
        // A retry among what is new burns no seq.
        let again = store.append(&both).await.unwrap();
        assert_eq!(again.iter().map(duplicate).collect::<Vec<_>>(), seqs);
    }
    let long = [item(g, a, 3, 1), item(g, b, 3, 1), item(g, a, 4, 1), item(g, a, 5, 1)];
    let outcomes = store.append(&long).await.unwrap();
    assert_eq!(outcomes.iter().map(stored).collect::<Vec<_>>(), [6, 7, 8, 9]);

    store.block(alice.account, bob.account, true).await.unwrap();
    assert_eq!(world.append(item(conversation, b, 3, 1)).await, Outcome::NotAccepted);
    let outcomes = store.append(&[item(conversation, b, 3, 1), item(g, b, 4, 1)]).await.unwrap();
    assert_eq!((&outcomes[0], stored(&outcomes[1])), (&Outcome::NotAccepted, 10));
    store.block(alice.account, bob.account, false).await.unwrap();
    assert_eq!(stored(&world.append(item(conversation, b, 3, 1)).await), 6);

    let stale = Outcome::Stale(Epoch { generation: 0, number: 1 });
    assert_eq!(world.append(item(g, a, 6, 2)).await, stale);
    let outcomes = store.append(&[item(g, a, 6, 2), item(g, b, 5, 1)]).await.unwrap();
    assert_eq!((&outcomes[0], stored(&outcomes[1])), (&stale, 11));

    let mut manifest = bob.manifest(2);
    manifest.revoked = vec![b];
    assert!(store.put_manifest(bob.account, manifest).await.unwrap());
    assert_eq!(world.append(item(g, b, 6, 1)).await, Outcome::NotMember);
    let outcomes =
        store.append(&[item(g, b, 6, 1), item(g, a, 6, 1), item(conversation, b, 4, 1)]).await.unwrap();
    assert_eq!(
        (&outcomes[0], stored(&outcomes[1]), &outcomes[2]),
        (&Outcome::NotMember, 12, &Outcome::NotMember)
    );
}

pub(crate) async fn numbers_that_no_column_holds_are_refused(world: World) {
    let (alice, _, conversation) = world.couple().await;
    let mut odd = item(conversation, alice.devices[0], u64::MAX, 1);
    assert_eq!(world.append(odd.clone()).await, Outcome::OutOfOrder(Counter(1)));
    odd.counter = Counter(1);
    odd.epoch = Epoch { generation: u32::MAX, number: u64::MAX };
    let current = Epoch { generation: 0, number: 1 };
    assert_eq!(world.append(odd.clone()).await, Outcome::Stale(current));
    odd.epoch = Epoch { generation: 1, number: 1 };
    assert_eq!(world.append(odd).await, Outcome::Stale(current));
    let page =
        world.store.fetch(alice.devices[0], conversation, Seq(u64::MAX), u32::MAX).await.unwrap().unwrap();
    assert_eq!((page.rows.len(), page.head), (0, Seq(1)));
    world.store.set_cursors(&[(alice.devices[0], conversation, Seq(u64::MAX))]).await.unwrap();
}

pub(crate) async fn envelopes_of_any_size_are_kept_as_they_came(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let mut counters = [0; 2];
    for sizes in [vec![0], vec![1, 0, 70_000, 2], vec![0, 0]] {
        let batch: Vec<_> = (0..)
            .zip(&sizes)
            .map(|(n, size)| {
                counters[n % 2] += 1;
                let mut one = item(conversation, [&alice, &bob][n % 2].devices[0], counters[n % 2], 1);
                one.envelope = (0..*size).map(|at| (at * 31 + n) as u8).collect();
                one
            })
            .collect();
        world.store.append(&batch).await.unwrap().iter().for_each(|outcome| assert!(stored(outcome) > 1));
        let log = world.log(alice.devices[0], conversation).await;
        let kept = log[log.len() - sizes.len()..].iter().map(|row| &row.3);
        assert!(kept.eq(batch.iter().map(|one| &one.envelope)), "{sizes:?}");
    }
}

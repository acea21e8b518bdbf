//! What a gateway remembers of senders, and who else writes meanwhile: another gateway, retention. Postgres
//! alone does so.

use crate::world::{World, commit, duplicate, item, stored};
use fastchat_gateway::store::{Outcome, StoreError};
use fastchat_protocol::{Counter, Role, Seq};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_wrote_through_another_gateway_is_judged_here() {
    let here = World::postgres().await;
    let there = here.beside();
    let (alice, bob, conversation) = here.couple().await;
    let (a, b) = (alice.devices[0], bob.devices[0]);
    // Known here, to its second message.
    for counter in 1..=2 {
        assert_eq!(stored(&here.append(item(conversation, a, counter, 1)).await), counter + 1);
    }
    for counter in 3..=4 {
        assert_eq!(stored(&there.append(item(conversation, a, counter, 1)).await), counter + 1);
    }
    let mut other = item(conversation, a, 3, 1);
    other.envelope = vec![9].into();
    assert_eq!(here.append(other.clone()).await, Outcome::Conflict(Seq(4)));
    assert_eq!(duplicate(&here.append(item(conversation, a, 3, 1)).await), 4);
    assert_eq!(stored(&here.append(item(conversation, b, 1, 1)).await), 6);
    // It comes back, and says the next. There it is judged, too.
    assert_eq!(stored(&here.append(item(conversation, a, 5, 1)).await), 7);
    assert_eq!(duplicate(&there.append(item(conversation, a, 5, 1)).await), 7);
    // In larger batches: what is known and was used spoils nothing for those beside it.
    let g = here.group("g", &[(&alice, Role::Owner), (&bob, Role::Member)]).await;
    for counter in 1..=2 {
        here.store.append(&[item(g, a, counter, 1), item(g, b, counter, 1)]).await.unwrap();
    }
    assert_eq!(stored(&there.append(item(g, b, 3, 1)).await), 6);
    let batch = [item(g, a, 3, 1), item(g, b, 3, 1), item(conversation, a, 6, 1), item(g, b, 4, 1)];
    let outcomes = here.store.append(&batch).await.unwrap();
    assert_eq!((stored(&outcomes[0]), duplicate(&outcomes[1])), (7, 6));
    assert_eq!((stored(&outcomes[2]), stored(&outcomes[3])), (8, 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_outlive_the_log_and_a_commit_counts_on() {
    let here = World::postgres().await;
    let (alice, bob, conversation) = here.couple().await;
    let (a, b) = (alice.devices[0], bob.devices[0]);
    for counter in 1..=5 {
        for device in [a, b] {
            stored(&here.append(item(conversation, device, counter, 1)).await);
        }
    }
    let counter = async |world: &World| {
        let states = world.store.conversations(a, None, 9).await.unwrap();
        states.iter().find(|state| state.conversation == conversation).unwrap().counter
    };
    assert_eq!(counter(&here).await, Counter(5));
    here.sql(&format!("DELETE FROM log WHERE conversation = 'id:{conversation}'")).await;
    let again = here.beside();
    assert_eq!(counter(&again).await, Counter(5));
    let outcomes = again.store.append(&[item(conversation, a, 5, 1), item(conversation, a, 6, 1)]).await;
    let outcomes = outcomes.unwrap();
    assert_eq!((&outcomes[0], stored(&outcomes[1])), (&Outcome::Expired, 12));
    assert_eq!(again.commit(commit(conversation, b, 5, 1)).await, Outcome::Expired);
    assert_eq!(stored(&again.commit(commit(conversation, b, 6, 1)).await), 13);
    assert_eq!(stored(&again.append(item(conversation, b, 7, 2)).await), 14);
}

/// Newcomers take nothing from those who are known, and nobody's order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newcomers_and_the_known_share_a_batch() {
    let here = World::postgres().await;
    let alice = here.person("alice", 1).await;
    let (a, mut conversations, mut peers) = (alice.devices[0], Vec::new(), Vec::new());
    for n in 0..8 {
        let peer = here.person(&format!("peer{n}"), 1).await;
        conversations.push(here.direct(&alice, &peer).await);
        peers.push(peer.devices[0]);
    }
    let says = |place: usize, counter| item(conversations[place], a, counter, 1);
    let answers = |place: usize, counter| item(conversations[place], peers[place], counter, 1);
    let seqs = async |batch: &[_]| -> Vec<u64> {
        here.store.append(batch).await.unwrap().iter().map(stored).collect()
    };
    let first: Vec<_> = (0..4).map(|place| says(place, 1)).collect();
    assert_eq!(seqs(&first).await, [2; 4]);
    // Known in some conversations, new in others, and in one of them both.
    let mixed = [says(1, 2), says(5, 1), says(0, 2), answers(0, 1), says(0, 3), says(6, 1), says(1, 3)];
    assert_eq!(seqs(&mixed).await, [3, 2, 3, 4, 5, 2, 4]);
    // All of them known: few by few, and many at once.
    assert_eq!(seqs(&[says(5, 2), says(6, 2), answers(0, 2)]).await, [3, 3, 6]);
    let many = [says(6, 3), answers(0, 3), says(1, 4), says(5, 3), says(0, 4), says(2, 2), says(6, 4)];
    assert_eq!(seqs(&many).await, [4, 7, 5, 4, 8, 3, 5]);
}

/// A copy that lacks the last messages took over, or a backup was restored: connections ended, and what was
/// known of senders is no longer so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_may_know_less() {
    let here = World::postgres().await;
    let (alice, bob, conversation) = here.couple().await;
    let carol = here.person("carol", 1).await;
    let (a, elsewhere) = (alice.devices[0], here.direct(&bob, &carol).await);
    for counter in 1..=3 {
        assert_eq!(stored(&here.append(item(conversation, a, counter, 1)).await), counter + 1);
    }
    here.sql(&format!(
        "DELETE FROM log WHERE conversation = 'id:{conversation}' AND counter = 3;
         UPDATE send_counters SET high = 2 WHERE conversation = 'id:{conversation}';
         UPDATE conversations SET head = head - 1 WHERE id = 'id:{conversation}';
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ))
    .await;
    // Others find out that connections ended.
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = here.store.append(&[item(elsewhere, bob.devices[0], 1, 1)]).await {
        assert!(Instant::now() < deadline, "{error}");
    }
    assert_eq!(here.append(item(conversation, a, 4, 1)).await, Outcome::OutOfOrder(Counter(3)));
}

/// A conversation that cannot be written, beside newcomers: it is found to be the one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_always_fails_is_told_from_those_beside_it() {
    let here = World::postgres().await;
    let (alice, bob, broken) = here.couple().await;
    let carol = here.person("carol", 1).await;
    let (a, c, sound) = (alice.devices[0], carol.devices[0], here.direct(&bob, &carol).await);
    assert_eq!(stored(&here.append(item(broken, a, 1, 1)).await), 2);
    here.sql(&format!("UPDATE conversations SET head = head - 1 WHERE id = 'id:{broken}'")).await;
    let batch = [item(sound, c, 1, 1), item(broken, a, 2, 1)];
    // The newcomer's is stored, but who of them is told what is not known.
    let error = here.store.append(&batch).await.unwrap_err();
    assert!(matches!(error, StoreError::Unknown(_)), "{error}");
    // When they come again nothing is: the writer then takes them one by one.
    let error = here.store.append(&batch).await.unwrap_err();
    assert!(error.may_be_one_items(), "{error}");
    assert_eq!(duplicate(&here.append(item(sound, c, 1, 1)).await), 2);
}

//! Many tasks at once: what they are told, and what is there afterwards, must agree.

use crate::world::{World, commit, duplicate, founding, group, item, joins, stored};
use bytes::Bytes;
use fastchat_gateway::store::{Claimed, Founded, Join, Outcome};
use fastchat_protocol::{ConversationId, DeviceId, Role, Seq};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::task::JoinSet;

pub(crate) async fn many_senders_leave_no_hole(world: World) {
    // Devices of one account send to many conversations at once, in batches that name them in
    // different orders: that is where locks could wait in a circle.
    let alice = world.person("alice", 6).await;
    let mut conversations = Vec::new();
    for n in 0..5 {
        let peer = world.person(&format!("peer{n}"), 1).await;
        conversations.push(world.direct(&alice, &peer).await);
    }
    // Of a fleet every second one is at another gateway.
    let other = if world.is_postgres() { world.beside().store } else { world.store.clone() };
    let mut tasks = JoinSet::new();
    for (n, device) in alice.devices.iter().copied().enumerate() {
        let store = if n % 4 < 2 { world.store.clone() } else { other.clone() };
        let mut conversations = conversations.clone();
        tasks.spawn(async move {
            let mut told = Vec::new();
            conversations.rotate_left(n % 5);
            if n % 2 == 1 {
                conversations.reverse();
            }
            for round in 0..15 {
                let batch: Vec<_> = (1..=2)
                    .flat_map(|k| conversations.iter().map(move |c| item(*c, device, round * 2 + k, 1)))
                    .collect();
                let outcomes = store.append(&batch).await.unwrap();
                told.extend(
                    batch.iter().zip(&outcomes).map(|(item, outcome)| (item.clone(), stored(outcome))),
                );
            }
            told
        });
    }
    let told: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    for conversation in conversations {
        let log = world.log(alice.devices[0], conversation).await;
        let seqs: Vec<_> = log.iter().map(|row| row.0).collect();
        assert_eq!(seqs, (1..=6 * 30 + 1).collect::<Vec<_>>());
        let rows: HashMap<_, _> = log.into_iter().map(|row| (row.0, row)).collect();
        for (item, seq) in told.iter().filter(|(item, _)| item.conversation == conversation) {
            let row = &rows[seq];
            assert_eq!((row.1, row.2, &row.3), (item.device, item.counter.0, &item.envelope));
        }
        let mut counters: HashMap<DeviceId, Vec<u64>> = HashMap::new();
        for seq in 2..=6 * 30 + 1 {
            counters.entry(rows[&seq].1).or_default().push(rows[&seq].2);
        }
        assert!(counters.into_values().all(|counters| counters == (1..=30).collect::<Vec<_>>()));
    }
}

pub(crate) async fn a_retry_races_its_first_try(world: World) {
    let (alice, _, conversation) = world.couple().await;
    let device = alice.devices[0];
    for counter in 1..=20 {
        let mut tasks = JoinSet::new();
        for _ in 0..4 {
            let (store, item) = (world.store.clone(), item(conversation, device, counter, 1));
            tasks.spawn(async move { store.append(&[item]).await.unwrap().remove(0) });
        }
        let outcomes = tasks.join_all().await;
        let first =
            outcomes.iter().find(|outcome| matches!(outcome, Outcome::Stored(_))).expect("one is stored");
        let seq = stored(first);
        assert_eq!(seq, counter + 1);
        assert_eq!(
            outcomes.iter().filter(|outcome| *outcome != first).map(duplicate).collect::<Vec<_>>(),
            [seq; 3]
        );
    }
}

pub(crate) async fn one_founder_wins(world: World) {
    let (alice, bob) = (world.person("alice", 2).await, world.person("bob", 2).await);
    let mut tasks = JoinSet::new();
    for n in 0..8 {
        let (founder, peer) = if n % 2 == 0 { (&alice, &bob) } else { (&bob, &alice) };
        // Each founding twice: a client that lost its answer.
        let founding = founding(founder, peer, &format!("conversation {}", n / 4 * 2 + n % 2));
        let store = world.store.clone();
        tasks.spawn(async move { (founding.conversation, store.found_direct(founding).await.unwrap()) });
    }
    let results = tasks.join_all().await;
    let made: Vec<_> =
        results.iter().filter(|(_, founded)| matches!(founded, Founded::Made { .. })).collect();
    assert_eq!(made.len(), 1, "{results:?}");
    let winner = made[0].0;
    for (conversation, founded) in &results {
        match founded {
            Founded::Made { .. } => {}
            Founded::Duplicate(row) => assert_eq!((*conversation, row.seq), (winner, Seq(1))),
            Founded::Existing(existing) => assert_eq!(*existing, winner),
            Founded::NotMember | Founded::NotAccepted => panic!("both may found"),
        }
    }
    let listed = world.store.conversations(bob.devices[1], None, 9).await.unwrap();
    assert_eq!(listed.iter().map(|state| state.conversation).collect::<Vec<_>>(), [winner]);
    assert_eq!(world.store.mailbox(bob.devices[1], Seq(0), 9).await.unwrap().0.len(), 1);
}

pub(crate) async fn a_package_is_claimed_once(world: World) {
    let alice = world.person("alice", 2).await;
    for device in &alice.devices {
        let packages: Vec<Bytes> = (0..40).map(|n| format!("{device} {n}").into()).collect();
        world.store.publish_key_packages(*device, 1, &packages, None).await.unwrap();
    }
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let (store, account) = (world.store.clone(), alice.account);
        tasks.spawn(async move {
            let mut claimed = Vec::new();
            for _ in 0..5 {
                match store.claim_key_packages(account, account, 1).await.unwrap() {
                    Claimed::Packages(packages) => claimed.extend(packages),
                    Claimed::NotAccepted => panic!("nobody is blocked"),
                }
            }
            claimed
        });
    }
    let claimed: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    let distinct: HashSet<_> = claimed.iter().collect();
    assert_eq!((claimed.len(), distinct.len()), (80, 80));
    assert_eq!(world.claim(alice.account).await, []);
}

pub(crate) async fn commits_and_sends_race(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let mut tasks = JoinSet::new();
    for device in [alice.devices[0], bob.devices[0]] {
        let store = world.store.clone();
        tasks.spawn(async move {
            let (mut counter, mut parent, mut won) = (1, 1, Vec::new());
            while won.len() < 10 {
                let mut commit = commit(conversation, device, counter, parent);
                commit.membership_changed = true;
                match store.append_commit(commit).await.unwrap().outcome {
                    Outcome::Stored(row) => {
                        won.push((parent + 1, row.seq.0));
                        (counter, parent) = (counter + 1, parent + 1);
                    }
                    Outcome::Stale(current) => {
                        assert!(current.number > parent);
                        parent = current.number;
                    }
                    other => panic!("{other:?}"),
                }
            }
            won
        });
    }
    for device in [alice.devices[1], bob.devices[1]] {
        let store = world.store.clone();
        tasks.spawn(async move {
            let (mut counter, mut current, mut sent) = (1, 1, Vec::new());
            while counter <= 30 {
                match store.append(&[item(conversation, device, counter, current)]).await.unwrap().remove(0) {
                    Outcome::Stored(row) => {
                        sent.push((current, row.seq.0));
                        counter += 1;
                    }
                    Outcome::Stale(epoch) => current = epoch.number,
                    other => panic!("{other:?}"),
                }
            }
            sent
        });
    }
    let told: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    let log = world.log(alice.devices[0], conversation).await;
    assert_eq!(log.iter().map(|row| row.0).collect::<Vec<_>>(), (1..=81).collect::<Vec<_>>());
    // Every commit made an epoch of its own, and every envelope lies in the epoch it was sealed for.
    let by_seq: BTreeMap<u64, u64> = told.into_iter().map(|(epoch, seq)| (seq, epoch)).collect();
    let mut current = 1;
    for (seq, _, _, bytes) in log.into_iter().skip(1) {
        if bytes.starts_with(b"commit") {
            current += 1;
        }
        assert_eq!(by_seq[&seq], current, "at {seq}");
    }
    assert_eq!(current, 21);
}

pub(crate) async fn moved_since_misses_nothing(world: World) {
    let alice = world.person("alice", 4).await;
    let mut conversations = Vec::new();
    for n in 0..6 {
        let peer = world.person(&format!("peer{n}"), 1).await;
        conversations.push(world.direct(&alice, &peer).await);
    }
    let start = world.store.moved_since(None).await.unwrap().mark;
    let writing = Arc::new(AtomicBool::new(true));
    let watcher = {
        let (store, writing) = (world.store.clone(), writing.clone());
        tokio::spawn(async move {
            let (mut mark, mut heads, mut mailboxes) = (start, HashMap::new(), HashMap::new());
            loop {
                let last = !writing.load(Ordering::SeqCst);
                let moved = store.moved_since(Some(mark)).await.unwrap();
                mark = moved.mark;
                for (conversation, head, _) in moved.heads {
                    let before = heads.insert(conversation, head);
                    assert!(before <= Some(head), "a head goes back");
                }
                mailboxes.extend(moved.mailboxes.into_iter().map(|(device, _, head)| (device, head)));
                if last {
                    return (heads, mailboxes);
                }
            }
        })
    };
    let mut tasks = JoinSet::new();
    for (n, device) in alice.devices.iter().copied().enumerate() {
        let (store, conversations) = (world.store.clone(), conversations.clone());
        let waiting = alice.devices[(n + 1) % 4];
        tasks.spawn(async move {
            let mut counters: HashMap<ConversationId, u64> = HashMap::new();
            for round in 0..60 {
                let conversation = conversations[(round * 7 + n) % 6];
                let counter = counters.entry(conversation).or_insert(1);
                if round % 10 == 9 {
                    let mut commit = commit(conversation, device, *counter, 0);
                    commit.parent = store.group_state(device, conversation).await.unwrap().unwrap().epoch;
                    commit.epoch.number = commit.parent.number + 1;
                    commit.joins = vec![Join { device: waiting, welcome: Some("w".into()) }];
                    let outcome = store.append_commit(commit).await.unwrap().outcome;
                    *counter += u64::from(matches!(outcome, Outcome::Stored(_)));
                    continue;
                }
                let current = store.group_state(device, conversation).await.unwrap().unwrap().epoch;
                let outcome =
                    store.append(&[item(conversation, device, *counter, current.number)]).await.unwrap();
                *counter += u64::from(matches!(outcome[0], Outcome::Stored(_)));
            }
        });
    }
    tasks.join_all().await;
    writing.store(false, Ordering::SeqCst);
    let (heads, mailboxes) = watcher.await.unwrap();
    for conversation in conversations {
        let head = world.store.group_state(alice.devices[0], conversation).await.unwrap().unwrap().head;
        assert_eq!(heads.get(&conversation), Some(&head));
    }
    for device in alice.devices {
        let head = world.store.mailbox(device, Seq(0), 1).await.unwrap().1;
        // Six mailboxes began before the mark; what grew since was seen.
        let seen = mailboxes.get(&device).copied();
        assert!(seen == Some(head) || (seen.is_none() && head <= Seq(6)), "{seen:?} {head}");
    }
}

pub(crate) async fn the_last_two_acks_race(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    world.store.ack_mailbox(alice.devices[1], Seq(1)).await.unwrap();
    let mut tasks = JoinSet::new();
    for device in bob.devices.clone() {
        let store = world.store.clone();
        tasks.spawn(async move { store.ack_mailbox(device, Seq(1)).await.unwrap() });
    }
    tasks.join_all().await;
    let parts = format!("SELECT count(*) FROM welcome_parts WHERE conversation = 'id:{conversation}'");
    assert_eq!(world.number(&parts).await, 0);
}

pub(crate) async fn ends_race_with_everything(world: World) {
    // Whatever takes more than one lock, at once: a circle would be refused by Postgres as a deadlock.
    let mut people = Vec::new();
    for n in 0..6 {
        people.push(world.person(&format!("p{n}"), 4).await);
    }
    let members: Vec<_> = people
        .iter()
        .enumerate()
        .map(|(n, p)| (p, if n == 0 { Role::Owner } else { Role::Member }))
        .collect();
    let mut groups = Vec::new();
    for n in 0..5 {
        groups.push(world.group(&format!("g{n}"), &members).await);
    }
    let mut tasks = JoinSet::new();
    for (n, device) in people[5].devices.iter().copied().enumerate() {
        let (store, mut groups) = (world.store.clone(), groups.clone());
        tasks.spawn(async move {
            groups.rotate_left(n);
            for counter in 1..=40 {
                let batch: Vec<_> = groups.iter().map(|g| item(*g, device, counter, 1)).collect();
                store.append(&batch).await.unwrap();
            }
        });
    }
    for reversed in [false, true] {
        let (store, people) = (world.store.clone(), people.clone());
        tasks.spawn(async move {
            for n in 1..80 {
                // As far as they go, so that each moves whoever stays behind.
                let heads = store.conversations(people[0].devices[0], None, 99).await.unwrap();
                let mut cursors: Vec<_> = people
                    .iter()
                    .flat_map(|person| &person.devices)
                    .flat_map(|device| heads.iter().map(move |to| (*device, to.conversation, to.head)))
                    .collect();
                if reversed {
                    cursors.reverse();
                }
                store.set_cursors(&cursors).await.unwrap();
                for person in &people {
                    store.ack_mailbox(person.devices[3], Seq(n)).await.unwrap();
                }
            }
        });
    }
    for group in groups.clone() {
        let (store, people) = (world.store.clone(), people.clone());
        tasks.spawn(async move {
            // Those that stay in the end. Each commit writes to both, the later one first.
            let mut two = [people[1].devices[0], people[2].devices[1]];
            two.sort();
            for n in 1..=30 {
                let mut commit = commit(group, people[0].devices[0], n, n);
                let (goes, comes) = if n % 2 == 1 { (two[1], two[0]) } else { (two[0], two[1]) };
                commit.removes = vec![goes];
                commit.joins = joins([&comes], "welcome");
                commit.membership_changed = true;
                let outcome = store.append_commit(commit).await.unwrap().outcome;
                assert!(matches!(outcome, Outcome::Stored(_)), "{outcome:?}");
            }
        });
    }
    for (n, person) in people[1..5].iter().cloned().enumerate() {
        let (store, owner) = (world.store.clone(), people[0].clone());
        tasks.spawn(async move {
            for version in 2..4 {
                let mut next = person.manifest(version);
                next.revoked = vec![person.devices[version as usize]];
                assert!(store.put_manifest(person.account, next).await.unwrap());
                store.block(person.account, owner.account, version == 2).await.unwrap();
                let all = [(&owner, Role::Owner), (&person, Role::Member)];
                store.found_group(group(&format!("h{n}{version}"), &all)).await.unwrap();
                store.found_direct(founding(&owner, &person, &person.name)).await.unwrap();
            }
            // The first two stay: their devices come and go.
            if n > 1 {
                assert!(store.delete_account(person.account).await.unwrap());
            }
        });
    }
    tasks.join_all().await;
    for person in &people[3..5] {
        assert_eq!(world.store.readers(groups[0], &person.devices).await.unwrap().ranges, []);
        assert_eq!(world.store.arrival(person.devices[0]).await.unwrap().unwrap().groups, []);
    }
    let log = world.log(people[0].devices[0], groups[0]).await;
    assert_eq!(log.iter().map(|row| row.0).collect::<Vec<_>>(), (1..=log.len() as u64).collect::<Vec<_>>());
}

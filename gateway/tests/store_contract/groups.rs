//! Groups: foundings, members that come and go, roles, generations.

use crate::world::{Person, World, commit, duplicate, epoch, group, id, item, joins, leave, stored};
use fastchat_gateway::store::{Audience, Join, Outcome};
use fastchat_protocol::{Counter, DeviceId, Epoch, Role, Seq, server::LogKind};
use sha2::{Digest, Sha256};

pub(crate) async fn a_group_is_founded_once(world: World) {
    let (alice, bob) = (world.person("alice", 2).await, world.person("bob", 1).await);
    let founding = group("g", &[(&alice, Role::Owner), (&bob, Role::Member)]);
    let conversation = founding.conversation;
    let refused = async |founding, outcome| {
        assert_eq!(world.store.found_group(founding).await.unwrap().outcome, outcome);
    };
    // Refused, and nothing of it stays.
    let mut odd = founding.clone();
    odd.counter = Counter(1);
    refused(odd, Outcome::OutOfOrder(Counter(0))).await;
    let mut odd = founding.clone();
    odd.members.push((Person::new("nobody", 0).account, Role::Member));
    refused(odd, Outcome::NotMember).await;
    let mut odd = founding.clone();
    odd.members.remove(0);
    refused(odd, Outcome::NotMember).await;
    let mut odd = founding.clone();
    odd.members.pop();
    refused(odd, Outcome::NotMember).await;

    let committed = world.store.found_group(founding.clone()).await.unwrap();
    let Outcome::Stored(first) = committed.outcome else { panic!("{committed:?}") };
    assert_eq!((first.seq, first.revision, first.audience), (Seq(1), 1, Audience::Group));
    let mut grown = vec![(alice.devices[1], alice.account, Seq(1)), (bob.devices[0], bob.account, Seq(1))];
    grown.sort();
    assert_eq!(committed.mailboxes, grown);
    refused(founding.clone(), Outcome::Duplicate(first)).await;
    world.sql("DELETE FROM log").await;
    refused(founding.clone(), Outcome::Duplicate(first)).await;
    let mut other = founding.clone();
    other.group_info = "another".into();
    refused(other, Outcome::Conflict(Seq(1))).await;
    let mut theft = group("x", &[(&bob, Role::Owner)]);
    theft.conversation = conversation;
    refused(theft.clone(), Outcome::NotMember).await;
    theft.conversation = world.direct(&alice, &bob).await;
    refused(theft, Outcome::NotMember).await;

    let state = world.store.conversations(bob.devices[0], None, 9).await.unwrap();
    let state = state.iter().find(|state| state.conversation == conversation).unwrap();
    assert_eq!((state.peer, state.unjoined, state.join_seq, state.head), (None, false, Seq(1), Seq(1)));
    assert_eq!(world.store.arrival(bob.devices[0]).await.unwrap().unwrap().groups, [conversation]);
    let state = world.store.group_state(bob.devices[0], conversation).await.unwrap().unwrap();
    assert_eq!((state.audience, state.left.len()), (Audience::Group, 0));
    assert_eq!(stored(&world.append(item(conversation, bob.devices[0], 1, 1)).await), 2);
}

pub(crate) async fn a_member_that_comes_again_starts_anew(world: World) {
    let (alice, bob) = (world.person("alice", 1).await, world.person("bob", 2).await);
    let carol = world.person("carol", 1).await;
    let g = world.group("g", &[(&alice, Role::Owner), (&bob, Role::Member)]).await;
    let a = alice.devices[0];

    let mut add = commit(g, a, 1, 1);
    (add.membership_changed, add.members) = (true, vec![(carol.account, Some(Role::Member))]);
    add.joins = joins(&carol.devices, "w");
    assert_eq!(stored(&world.commit(add).await), 2);
    let page = world.store.fetch(carol.devices[0], g, Seq(0), 9).await.unwrap().unwrap();
    assert_eq!(page.rows.iter().map(|row| row.seq.0).collect::<Vec<_>>(), [2]);

    let mut removal = commit(g, a, 2, 2);
    (removal.membership_changed, removal.members) = (true, vec![(bob.account, None)]);
    removal.removes = bob.devices.clone();
    let Outcome::Stored(row) = world.commit(removal).await else { panic!("it is stored") };
    assert_eq!((row.seq, row.revision), (Seq(3), 3));
    stored(&world.append(item(g, a, 3, 3)).await);
    for device in &bob.devices {
        assert_eq!(world.append(item(g, *device, 1, 3)).await, Outcome::NotMember);
        assert_eq!(world.store.group_state(*device, g).await.unwrap(), None);
        assert_eq!(world.store.arrival(*device).await.unwrap().unwrap().groups, []);
        let page = world.store.fetch(*device, g, Seq(0), 9).await.unwrap().unwrap();
        assert_eq!((page.rows.len(), page.head), (3, Seq(3)));
    }
    let readers = world.store.readers(g, &[bob.devices[1]]).await.unwrap();
    assert_eq!(readers.ranges, [(bob.devices[1], Seq(1), Some(Seq(3)))]);

    // Added again with one device: what lies before is no longer served, to either.
    let mut again = commit(g, a, 4, 3);
    (again.membership_changed, again.members) = (true, vec![(bob.account, Some(Role::Member))]);
    again.joins = joins(&bob.devices[..1], "w again");
    assert_eq!(stored(&world.commit(again).await), 5);
    let page = world.store.fetch(bob.devices[0], g, Seq(0), 9).await.unwrap().unwrap();
    assert_eq!((page.rows.len(), page.rows[0].seq, page.head), (1, Seq(5), Seq(5)));
    assert_eq!(world.store.fetch(bob.devices[1], g, Seq(0), 9).await.unwrap(), None);
    let readers = world.store.readers(g, &bob.devices).await.unwrap();
    assert_eq!(readers.ranges, [(bob.devices[0], Seq(5), None)]);
    let state = world.store.conversations(bob.devices[1], None, 9).await.unwrap().remove(0);
    assert_eq!((state.unjoined, state.head, state.cursor, state.join_seq), (true, Seq(5), Seq(5), Seq(5)));
    assert_eq!(stored(&world.append(item(g, bob.devices[0], 1, 4)).await), 6);
    assert_eq!(world.append(item(g, bob.devices[1], 1, 4)).await, Outcome::NotMember);
}

pub(crate) async fn a_new_device_is_unjoined_until_it_lets_itself_in(world: World) {
    let (alice, mut bob) = (world.person("alice", 1).await, world.person("bob", 1).await);
    let g = world.group("g", &[(&alice, Role::Owner), (&bob, Role::Member)]).await;
    let direct = world.direct(&alice, &bob).await;
    let new = DeviceId::new(id("new"));
    bob.devices.push(new);
    assert!(world.store.put_manifest(bob.account, bob.manifest(2)).await.unwrap());
    let states = async || {
        let list = world.store.conversations(new, None, 9).await.unwrap();
        list.into_iter().map(|state| (state.conversation, state.unjoined)).collect::<Vec<_>>()
    };
    let mut expected = vec![(g, true), (direct, true)];
    expected.sort();
    assert_eq!(states().await, expected);
    let paged = world.store.conversations(new, Some(expected[0].0), 1).await.unwrap();
    assert_eq!(paged[0].conversation, expected[1].0);
    assert_eq!(world.store.arrival(new).await.unwrap().unwrap().groups, []);
    assert!(world.store.group_state(new, g).await.unwrap().is_some());

    let mut external = commit(g, new, 1, 1);
    (external.membership_changed, external.joins) = (true, vec![Join { device: new, welcome: None }]);
    assert_eq!(stored(&world.commit(external).await), 2);
    assert!(states().await.contains(&(g, false)));
    assert_eq!(world.store.arrival(new).await.unwrap().unwrap().groups, [g]);
}

pub(crate) async fn a_direct_conversation_keeps_its_members(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let carol = world.person("carol", 1).await;
    for members in [(carol.account, Some(Role::Member)), (bob.account, None)] {
        let mut odd = commit(conversation, alice.devices[0], 1, 1);
        odd.members = vec![members];
        assert_eq!(world.commit(odd).await, Outcome::NotMember);
    }
    let odd = leave(conversation, bob.devices[0], 1, 1);
    assert_eq!(world.store.leave(odd).await.unwrap(), Outcome::NotMember);
    let mut odd = group("x", &[(&alice, Role::Owner)]);
    (odd.conversation, odd.parent, odd.counter) = (conversation, Some(epoch(1)), Counter(1));
    assert_eq!(world.store.found_group(odd).await.unwrap().outcome, Outcome::NotMember);
    assert_eq!(world.log(bob.devices[0], conversation).await.len(), 1);
}

pub(crate) async fn whoever_leaves_reads_up_to_its_statement(world: World) {
    let (alice, bob) = (world.person("alice", 1).await, world.person("bob", 2).await);
    let g = world.group("g", &[(&alice, Role::Owner), (&bob, Role::Member)]).await;
    stored(&world.append(item(g, bob.devices[0], 1, 1)).await);
    let store = &world.store;
    let refused = async |leave, outcome| assert_eq!(store.leave(leave).await.unwrap(), outcome);
    refused(leave(g, bob.devices[0], 3, 1), Outcome::OutOfOrder(Counter(2))).await;
    refused(leave(g, bob.devices[0], 1, 1), Outcome::Conflict(Seq(2))).await;
    refused(leave(g, bob.devices[0], 2, 2), Outcome::Stale(epoch(1))).await;
    refused(leave(g, alice.devices[0], 1, 1), Outcome::Owner).await;
    let eve = world.person("eve", 1).await;
    refused(leave(g, eve.devices[0], 1, 1), Outcome::NotMember).await;

    let statement = leave(g, bob.devices[0], 2, 1);
    let Outcome::Stored(row) = store.leave(statement.clone()).await.unwrap() else { panic!("it is stored") };
    assert_eq!((row.seq, row.revision, row.audience), (Seq(3), 2, Audience::Group));
    refused(statement.clone(), Outcome::Duplicate(row)).await;
    refused(leave(g, bob.devices[0], 3, 1), Outcome::NotMember).await;
    // The epoch goes on until a commit removes the leaves.
    assert_eq!(stored(&world.append(item(g, alice.devices[0], 1, 1)).await), 4);
    for (n, device) in bob.devices.iter().enumerate() {
        assert_eq!(world.append(item(g, *device, 3 - 2 * n as u64, 1)).await, Outcome::NotMember);
        assert_eq!(store.group_state(*device, g).await.unwrap(), None);
        let page = store.fetch(*device, g, Seq(0), 9).await.unwrap().unwrap();
        assert_eq!((page.rows.len(), page.head, page.rows[2].kind), (3, Seq(3), LogKind::Left));
        assert_eq!(page.rows[2].envelope, Some(statement.statement.clone()));
    }
    let state = store.group_state(alice.devices[0], g).await.unwrap().unwrap();
    assert_eq!(state.left, [bob.account]);
    let mut removal = commit(g, alice.devices[0], 2, 1);
    (removal.membership_changed, removal.members) = (true, vec![(bob.account, None)]);
    removal.removes = bob.devices.clone();
    assert_eq!(stored(&world.commit(removal).await), 5);
    let state = store.group_state(alice.devices[0], g).await.unwrap().unwrap();
    assert_eq!(state.left, []);
    // The range is that of the statement, not of the commit.
    let page = store.fetch(bob.devices[0], g, Seq(0), 9).await.unwrap().unwrap();
    assert_eq!(page.head, Seq(3));

    // Alone, the owner may go; then there is nobody.
    assert!(matches!(store.leave(leave(g, alice.devices[0], 3, 2)).await.unwrap(), Outcome::Stored(_)));
    assert_eq!(store.arrival(alice.devices[0]).await.unwrap().unwrap().groups, []);
}

pub(crate) async fn an_owner_hands_over_and_leaves(world: World) {
    let (alice, bob) = (world.person("alice", 1).await, world.person("bob", 1).await);
    let g = world.group("g", &[(&alice, Role::Owner), (&bob, Role::Member)]).await;
    let mut hand_over = commit(g, alice.devices[0], 1, 1);
    hand_over.members = vec![(alice.account, Some(Role::Admin)), (bob.account, Some(Role::Owner))];
    stored(&world.commit(hand_over).await);
    let page = world.store.fetch(bob.devices[0], g, Seq(0), 9).await.unwrap().unwrap();
    assert_eq!(page.rows.len(), 2);
    assert_eq!(world.store.leave(leave(g, bob.devices[0], 1, 2)).await.unwrap(), Outcome::Owner);
    assert!(!world.store.delete_account(bob.account).await.unwrap());
    let left = world.store.leave(leave(g, alice.devices[0], 2, 2)).await.unwrap();
    assert_eq!(stored(&left), 3);
}

pub(crate) async fn the_next_generation_replaces_everything(world: World) {
    let (alice, bob) = (world.person("alice", 2).await, world.person("bob", 2).await);
    let (carol, dave) = (world.person("carol", 1).await, world.person("dave", 1).await);
    let erin = world.person("erin", 1).await;
    let all = [(&alice, Role::Owner), (&bob, Role::Member), (&carol, Role::Member), (&erin, Role::Member)];
    let g = world.group("g", &all).await;
    let (a, b) = (alice.devices[0], bob.devices[0]);
    stored(&world.append(item(g, b, 1, 1)).await);
    world.store.set_cursors(&[(b, g, Seq(2))]).await.unwrap();
    stored(&world.store.leave(leave(g, erin.devices[0], 1, 1)).await.unwrap());

    // Without bob's second device, carol and erin; dave is new.
    let mut next = group("g", &[(&alice, Role::Owner), (&bob, Role::Admin), (&dave, Role::Member)]);
    next.joins.retain(|join| join.device != bob.devices[1]);
    (next.counter, next.suite, next.parent) = (Counter(1), 1, Some(epoch(2)));
    next.epoch = Epoch { generation: 1, number: 1 };
    next.group_info = "group info of generation 1".into();
    let found = async |next: &_| world.store.found_group(Clone::clone(next)).await.unwrap();
    assert_eq!(found(&next).await.outcome, Outcome::Stale(epoch(1)));
    next.parent = Some(epoch(1));
    let mut early = next.clone();
    early.counter = Counter(2);
    assert_eq!(found(&early).await.outcome, Outcome::OutOfOrder(Counter(1)));
    let mut strange = next.clone();
    (strange.device, strange.members) = (dave.devices[0], next.members.clone());
    assert_eq!(found(&strange).await.outcome, Outcome::NotMember);
    let mut without = next.clone();
    without.members.remove(0);
    assert_eq!(found(&without).await.outcome, Outcome::NotMember);

    let committed = found(&next).await;
    let Outcome::Stored(row) = committed.outcome else { panic!("{committed:?}") };
    assert_eq!((row.seq, row.revision), (Seq(4), 3));
    let grown: std::collections::BTreeSet<_> = committed.mailboxes.iter().map(|grown| grown.0).collect();
    assert_eq!(grown, [alice.devices[1], b, dave.devices[0]].into());
    assert_eq!(duplicate(&found(&next).await.outcome), 4);
    let mut other = next.clone();
    other.group_info = "other".into();
    assert_eq!(found(&other).await.outcome, Outcome::Conflict(Seq(4)));

    let page = world.store.fetch(b, g, Seq(0), 9).await.unwrap().unwrap();
    assert_eq!((page.rows.len(), page.rows[3].kind), (4, LogKind::Founded));
    assert_eq!(page.rows[3].envelope.as_deref(), Some(&Sha256::digest(&next.group_info)[..]));
    let state = world.store.conversations(b, None, 9).await.unwrap().remove(0);
    assert_eq!((state.join_seq, state.cursor, state.epoch), (Seq(1), Seq(2), next.epoch));
    let out = [bob.devices[1], carol.devices[0], erin.devices[0]];
    let readers = world.store.readers(g, &[out.as_slice(), &dave.devices].concat()).await.unwrap();
    let mut ranges = vec![
        (out[0], Seq(1), Some(Seq(4))),
        (out[1], Seq(1), Some(Seq(4))),
        (out[2], Seq(1), Some(Seq(3))),
        (dave.devices[0], Seq(4), None),
    ];
    ranges.sort();
    assert_eq!((readers.revision, readers.ranges), (3, ranges));
    for device in out {
        let mut late = item(g, device, 2 - u64::from(device != out[2]), 1);
        late.epoch = next.epoch;
        assert_eq!(world.append(late).await, Outcome::NotMember);
    }
    // Bob's second device is a member's, and may come back; carol may not.
    assert!(world.store.group_state(out[0], g).await.unwrap().is_some());
    assert_eq!(world.store.group_state(out[1], g).await.unwrap(), None);
    let state = world.store.group_state(a, g).await.unwrap().unwrap();
    assert_eq!((state.group_info, state.left), (next.group_info.clone(), vec![]));
    assert_eq!(
        world.number(&format!("SELECT CAST(suite AS bigint) FROM conversations WHERE id = 'id:{g}'")).await,
        1
    );
    assert_eq!(world.append(item(g, b, 2, 1)).await, Outcome::Stale(next.epoch));
    let mut sent = item(g, b, 2, 1);
    sent.epoch = next.epoch;
    assert_eq!(stored(&world.append(sent).await), 5);
}

pub(crate) async fn a_large_group_is_founded_at_once(world: World) {
    let alice = world.person("alice", 1).await;
    let mut people = vec![alice.clone()];
    for n in 0..20 {
        people.push(world.person(&format!("p{n}"), 50).await);
    }
    let members: Vec<_> = people
        .iter()
        .enumerate()
        .map(|(n, p)| (p, if n == 0 { Role::Owner } else { Role::Member }))
        .collect();
    let founding = group("large", &members);
    let start = std::time::Instant::now();
    let committed = world.store.found_group(founding.clone()).await.unwrap();
    assert_eq!((stored(&committed.outcome), committed.mailboxes.len()), (1, 1000));
    eprintln!("a founding with 1000 joins: {:?}", start.elapsed());
    // The welcome and the tree, once each.
    assert_eq!(world.number("SELECT count(*) FROM welcome_parts").await, 2);
    assert_eq!(world.number("SELECT count(*) FROM mailbox").await, 1000);
    let readers = world.store.readers(founding.conversation, &people[20].devices).await.unwrap();
    assert_eq!(readers.ranges.len(), 50);
}

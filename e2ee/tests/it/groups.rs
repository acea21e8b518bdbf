//! Groups: leaving and coming back, losing the last device, growing into another generation.

use crate::{kit::*, matrix::CAROL, rogue::Rogue};
use fastchat_delivery::{
    FoundError, GroupData, Leaf, PolicyError, PublicState, Rules, Suite, policy::is_listed,
    suite::TooManyDevices,
};
use fastchat_e2ee::conversation::{self, ConversationError, Founding, OpenError, Opened};
use fastchat_protocol::{AccountId, Bytes, Role};
use sha2::{Digest, Sha256};

fn roles(of: &[(AccountId, Role)]) -> GroupData {
    GroupData::new(of.iter().copied().collect()).unwrap()
}

/// Alice owns, Bob is an admin, Carol a member, with so many devices each; Alice's first founds.
fn gather(devices: u8, manifests: &Manifests) -> Vec<Peer> {
    let mut peers = Vec::new();
    for account in [ALICE, BOB, CAROL] {
        let own: Vec<_> = (1..=devices).map(|number| Peer::new(account, number, manifests)).collect();
        manifests.introduce(account, own.iter().map(|peer| peer.device.manifest_entry()).collect());
        peers.extend(own);
    }
    peers
}

fn us() -> GroupData {
    roles(&[(ALICE, Role::Owner), (BOB, Role::Admin), (CAROL, Role::Member)])
}

fn packages<'a>(peers: impl IntoIterator<Item = &'a Peer>, suite: Suite) -> Vec<Bytes> {
    peers.into_iter().map(|peer| peer.package(suite)).collect()
}

fn group(suite: Suite) -> (Service, [Peer; 3]) {
    let manifests = Manifests::default().of_group(&[]);
    let peers: [Peer; 3] = gather(1, &manifests).try_into().unwrap_or_else(|_| panic!());
    let founding = peers[0].found_as(suite, &packages(&peers[1..], suite), Some(&us()));
    peers[1..].iter().for_each(|peer| peer.join(&founding));
    (Service::found(&founding, peers[0].id(), &manifests), peers)
}

fn hash(founding: &Founding) -> [u8; 32] {
    Sha256::digest(&founding.group_info).into()
}

fn enter(peer: &Peer, founding: &Founding) -> Option<fastchat_protocol::Epoch> {
    conversation::enter_next(&peer.vault(), CONVERSATION, &hash(founding)).unwrap()
}

#[test]
fn who_was_removed_reads_nothing_more_and_back_again_only_what_follows() {
    for suite in Suite::ALL {
        let (mut service, [mut a1, b1, mut c1]) = group(suite);
        // Carol keeps a copy of what she has, from before the commit that removes her.
        let saved = c1.store.snapshot();
        let (counter, removal) = a1.members(&[], &[c1.id()], Some(us().with(CAROL, None).unwrap()));
        let (removed, _) = service.commit(a1.id(), counter, &removal).unwrap();
        a1.open_row(&removed).unwrap();
        b1.open_row(&removed).unwrap();
        let (counter, sealed) = a1.seal("without Carol");
        let secret = service.send(a1.id(), counter, sealed.envelope).unwrap();
        assert_eq!(b1.read(&secret), "without Carol");
        assert!(matches!(c1.open_row(&removed).unwrap(), Opened::Removed(_)));
        assert!(!matches!(c1.open_row(&secret), Ok(Opened::Message { .. })));
        c1.store.restore(&saved);
        assert!(matches!(c1.open_row(&secret), Ok(Opened::Future { .. })), "the copy opens nothing either");
        assert!(matches!(c1.open_row(&removed).unwrap(), Opened::Removed(_)));
        // Nor by an external commit of her own.
        let counter = c1.next();
        let back = external_commit(&c1, &service, counter);
        assert!(service.commit(c1.id(), counter, &back).is_err());
        // Added again, she reads what follows.
        let (counter, addition) = a1.members(&[c1.package(suite)], &[], Some(us()));
        let (row, _) = service.commit(a1.id(), counter, &addition).unwrap();
        a1.open_row(&row).unwrap();
        b1.open_row(&row).unwrap();
        c1.try_join(&addition.welcomes[0].welcome, &service.state().tree_bytes()).unwrap();
        assert!(!matches!(c1.open_row(&secret), Ok(Opened::Message { .. })), "what she missed stays closed");
        let (counter, sealed) = a1.seal("welcome back");
        let row = service.send(a1.id(), counter, sealed.envelope).unwrap();
        assert_eq!(c1.read(&row), "welcome back");
        assert_eq!((a1.info(), b1.info()), (c1.info(), c1.info()));
    }
}

#[test]
fn whoever_leaves_is_removed_by_the_next() {
    let (mut service, [mut a1, mut b1, c1]) = group(Suite::Classic);
    let without = us().with(CAROL, None).unwrap();
    // Bob is an admin and may; but Carol leaves, so that anybody may. Bob as a member:
    let (counter, demotion) = a1.members(&[], &[], Some(us().with(BOB, Some(Role::Member)).unwrap()));
    let (row, _) = service.commit(a1.id(), counter, &demotion).unwrap();
    [&a1, &b1, &c1].iter().for_each(|peer| drop(peer.open_row(&row).unwrap()));
    let without = without.with(BOB, Some(Role::Member)).unwrap();
    let counter = b1.next();
    let change = conversation::Members { add: &[], remove: &[c1.id()], data: Some(without.clone()) };
    let refused = b1.manifests.judge(|policy| {
        conversation::change_members(&b1.vault(), &b1.device, CONVERSATION, counter, &change, policy)
    });
    assert!(matches!(refused, Err(ConversationError::Policy(PolicyError::Forbidden { .. }))));
    for peer in [&mut a1, &mut b1] {
        peer.manifests = peer.manifests.of_group(&[CAROL]);
    }
    service.manifests = service.manifests.of_group(&[CAROL]);
    let (counter, removal) = b1.members(&[], &[c1.id()], Some(without));
    let (row, summary) = service.commit(b1.id(), counter, &removal).unwrap();
    assert_eq!(summary.removed, [c1.leaf()]);
    assert!(matches!(a1.open_row(&row).unwrap(), Opened::Commit { .. }));
    assert!(matches!(b1.open_row(&row).unwrap(), Opened::OwnCommit(_)));
    assert_eq!(a1.info(), b1.info());
}

#[test]
fn an_account_whose_only_device_is_lost_comes_back_by_itself() {
    let (mut service, [mut a1, b1, c1]) = group(Suite::PostQuantum);
    let replacement = Peer::new(CAROL, 2, &a1.manifests);
    let recovered = a1.manifests.with_successor(CAROL, &[&replacement], &[c1.id()]);
    a1.manifests.publish(recovered.get(CAROL).unwrap());
    // Removing her only leaf would put her out of the group: it waits, and nobody is held up.
    let unlisted = |peer: &Peer| peer.manifests.judge(|policy| policy.unlisted(&peer.info().members));
    assert_eq!(unlisted(&a1), []);
    let (counter, sealed) = a1.seal("where are you?");
    service.send(a1.id(), counter, sealed.envelope).unwrap();
    let mut c2 = replacement;
    let (counter, commit) = c2.resync(&service);
    let (row, _) = service.commit(c2.id(), counter, &commit).unwrap();
    assert!(matches!(c2.open_row(&row).unwrap(), Opened::OwnCommit(_)));
    [&a1, &b1].iter().for_each(|peer| drop(peer.open_row(&row).unwrap()));
    assert_eq!(unlisted(&b1), [c1.id()]);
    let (counter, removal) = c2.members(&[], &[c1.id()], None);
    let (row, _) = service.commit(c2.id(), counter, &removal).unwrap();
    [&a1, &b1, &c2].iter().for_each(|peer| drop(peer.open_row(&row).unwrap()));
    assert_eq!((unlisted(&a1), a1.info()), (vec![], c2.info()));
    assert!(
        c2.info().members.iter().all(|leaf| { is_listed(&a1.manifests.get(leaf.account).unwrap(), leaf) })
    );
    // What tolerates a revoked device tolerates no ghost, and not oneself.
    let ghost = Peer::new(CAROL, 3, &a1.manifests).leaf();
    let (members, own) = ([a1.leaf(), b1.leaf(), c1.leaf(), c2.leaf()], c2.leaf());
    let check = |own: Leaf, members: &[Leaf]| {
        let judged = a1.manifests.judge(|policy| policy.check_entry(&own, members, Some(&us())));
        judged.map_err(|error| error.wants_manifest())
    };
    assert_eq!(check(own, &members), Ok(()));
    assert_eq!(check(c1.leaf(), &members), Err(Some(CAROL)));
    assert_eq!(check(own, &[&members[..], &[ghost]].concat()), Err(Some(CAROL)));
}

#[test]
fn a_group_grows_past_sixty_four_devices() {
    let manifests = Manifests::default().of_group(&[]);
    let mut peers = gather(24, &manifests);
    let (before, after): (Vec<_>, Vec<_>) = (0..peers.len()).partition(|at| at % 24 < 10);
    let some = |of: &[usize], suite| packages(of[1..].iter().map(|at| &peers[*at]), suite);
    let (pq, classic) = (Suite::PostQuantum, Suite::Classic);
    let founding = peers[0].found_as(pq, &some(&before, pq), Some(&us()));
    before[1..].iter().for_each(|at| peers[*at].join(&founding));
    let mut service = Service::found(&founding, peers[0].id(), &manifests);
    let everybody = [before.clone(), after].concat();
    let refused = peers[0].found_next(pq, &some(&everybody, pq), &us()).unwrap_err();
    assert!(matches!(refused, ConversationError::Size(TooManyDevices { devices: 72, .. })));

    // Alice and Bob found at once; one is first. Somebody writes and somebody commits meanwhile.
    let next = peers[0].found_next(classic, &some(&everybody, classic), &us()).unwrap();
    assert!(peers[0].info().pending && peers[0].info().suite == pq);
    let bob = before.iter().copied().find(|at| peers[*at].leaf().account == BOB).unwrap();
    let others: Vec<_> = everybody.iter().copied().filter(|at| *at != bob).collect();
    let rival =
        peers[bob].found_next(classic, &packages(others.iter().map(|at| &peers[*at]), classic), &us());
    let rival = rival.unwrap();
    let (counter, sealed) = peers[1].seal("last words");
    let words = service.send(peers[1].id(), counter, sealed.envelope).unwrap();
    let (stale_counter, stale) = peers[2].update();
    service.found_next(&next, peers[0].id()).unwrap();
    assert!(service.found_next(&rival, peers[bob].id()).is_err(), "the generation is taken");
    assert!(service.commit(peers[2].id(), stale_counter, &stale).is_err());

    for at in before.iter().filter(|at| **at != 1) {
        assert_eq!(peers[*at].read(&words), "last words", "with the old keys, before entering");
    }
    assert_eq!(enter(&peers[0], &next), Some(next.epoch));
    assert_eq!(enter(&peers[0], &next), None);
    assert_eq!(enter(&peers[bob], &next), None);
    assert!(!peers[bob].info().pending);
    for at in everybody[1..].iter() {
        peers[*at].join(&next);
    }
    let info = peers[0].info();
    assert_eq!((info.members.len(), info.suite, info.epoch), (72, classic, service.epoch()));
    assert!(peers.iter().all(|peer| peer.info() == info));
    // The old generation's commit, delivered by a server that should not: no harm.
    for at in [0, bob, 2, 71] {
        let opened = peers[at].open(peers[2].id(), stale_counter, &stale.commit).unwrap();
        assert!(matches!(opened, Opened::TooOld { .. }), "{opened:?}");
        assert_eq!(peers[at].info(), info);
    }
    let (counter, sealed) = peers[71].seal("so many of us");
    let row = service.send(peers[71].id(), counter, sealed.envelope).unwrap();
    for at in [0, bob, 2, 50] {
        assert_eq!(peers[at].read(&row), "so many of us");
    }
    let (counter, commit) = peers[bob].update();
    let (row, _) = service.commit(peers[bob].id(), counter, &commit).unwrap();
    [0, bob, 70].iter().for_each(|at| drop(peers[*at].open_row(&row).unwrap()));
    assert_eq!(peers[0].info(), peers[70].info());
}

#[test]
fn a_founding_that_lost_to_a_commit_is_made_again() {
    let (mut service, [a1, mut b1, c1]) = group(Suite::PostQuantum);
    let all = |suite| packages([&b1, &c1], suite);
    a1.found_next(Suite::Classic, &all(Suite::Classic), &us()).unwrap();
    let again = a1.found_next(Suite::Classic, &all(Suite::Classic), &us());
    assert!(matches!(again, Err(ConversationError::Pending)));
    let packages = all(Suite::Classic);
    let (counter, commit) = b1.update();
    let (row, _) = service.commit(b1.id(), counter, &commit).unwrap();
    assert!(matches!(a1.open_row(&row).unwrap(), Opened::Commit { .. }));
    assert!(!a1.info().pending);
    let next = a1.found_next(Suite::Classic, &packages, &us()).unwrap();
    conversation::clear_pending(&a1.vault(), CONVERSATION).unwrap();
    assert_eq!(enter(&a1, &next), None, "it was given up");
    assert_eq!(a1.info().epoch, service.epoch());
}

#[test]
fn foundings_that_no_rule_allows() {
    let manifests = Manifests::default().of_group(&[]);
    let (mut mallory, bob) = (Rogue::new(MALLORY, 1, &manifests), Peer::new(BOB, 1, &manifests));
    manifests.introduce(MALLORY, vec![mallory.device.manifest_entry()]);
    manifests.introduce(BOB, vec![bob.device.manifest_entry()]);
    let suite = Suite::Classic;
    let owned_by = |owner, other| roles(&[(owner, Role::Owner), (other, Role::Admin)]).to_extensions();
    let direct = Rules::Direct([MALLORY, BOB]);
    for (generation, extensions, rules, allowed) in [
        (0, owned_by(MALLORY, BOB), None, true),
        (0, owned_by(BOB, MALLORY), None, false),
        (1, owned_by(MALLORY, BOB), None, false),
        (0, Default::default(), None, false),
        (0, Default::default(), Some(direct), true),
        (0, owned_by(MALLORY, BOB), Some(direct), false),
        (0, roles(&[(MALLORY, Role::Owner)]).to_extensions(), None, false),
        (
            0,
            roles(&[(MALLORY, Role::Owner), (BOB, Role::Admin), (CAROL, Role::Member)]).to_extensions(),
            None,
            false,
        ),
    ] {
        let founding = mallory.found(generation, suite, extensions, &[bob.package(suite)]);
        let found = |policy: &fastchat_delivery::Policy<'_>| {
            PublicState::found(&founding.group_info, &founding.tree, mallory.id(), policy)
        };
        let join = |policy: &fastchat_delivery::Policy<'_>| {
            let welcome = &founding.welcomes[0].welcome;
            conversation::join(&bob.vault(), &bob.device, welcome, &founding.tree, policy)
        };
        let none = Default::default();
        let rules = rules.unwrap_or(Rules::Group { left: &none });
        let store = bob.store.snapshot();
        let (gateway, client) = (manifests.judge_as(rules, found), manifests.judge_as(rules, join));
        bob.store.restore(&store);
        assert_eq!(gateway.is_ok(), allowed, "{:?}", gateway.err());
        if let Err(error) = gateway {
            assert!(matches!(error, FoundError::Policy(_) | FoundError::Generation(_)), "{error}");
        }
        // Who has no older generation cannot know that there should be one.
        assert_eq!(client.is_ok(), allowed || generation == 1, "{:?}", client.err());
    }
}

#[test]
fn an_old_welcome_takes_nobody_back() {
    let (mut service, [mut a1, _, c1]) = group(Suite::Classic);
    let without = us().with(CAROL, None).unwrap();
    let resort = c1.device.last_resort_key_package(&c1.vault(), Suite::Classic).unwrap();
    let mut welcomes = Vec::new();
    for round in 0..2 {
        let (counter, removal) = a1.members(&[], &[c1.id()], Some(without.clone()));
        let (row, _) = service.commit(a1.id(), counter, &removal).unwrap();
        a1.open_row(&row).unwrap();
        assert!(matches!(c1.open_row(&row).unwrap(), Opened::Removed(_)));
        if round == 0 {
            let (counter, addition) = a1.members(std::slice::from_ref(&resort), &[], Some(us()));
            let (row, _) = service.commit(a1.id(), counter, &addition).unwrap();
            a1.open_row(&row).unwrap();
            welcomes.push((addition.welcomes[0].welcome.clone(), service.state().tree_bytes()));
            c1.try_join(&welcomes[0].0, &welcomes[0].1).unwrap();
        }
    }
    let (welcome, tree) = &welcomes[0];
    assert!(matches!(c1.try_join(welcome, tree), Err(ConversationError::Invalid(_))));
    assert!(matches!(c1.open_row(&service.log[0]), Ok(Opened::TooOld { .. }) | Err(OpenError::Removed)));
}

//! Commits: own ones, races, membership, joining anew.

use crate::kit::*;
use fastchat_delivery::{CommitError, FoundError, PolicyError, PublicState, Suite};
use fastchat_e2ee::conversation::{self, ConversationError, OpenError, Opened};
use fastchat_protocol::Counter;

#[test]
fn an_own_commit_waits_for_the_log() {
    let (mut service, mut a1, a2, b1) = meet(Suite::PostQuantum);
    let before = a1.info();
    let (counter, commit) = a1.update();
    assert_eq!(a1.info().epoch, before.epoch);
    assert!(a1.info().pending);
    let again = conversation::update_keys(&a1.vault(), &a1.device, CONVERSATION, counter).unwrap_err();
    assert!(matches!(again, ConversationError::Pending));
    let (row, summary) = service.commit(a1.id(), counter, &commit).unwrap();
    let Opened::OwnCommit(own) = a1.open_row(&row).unwrap() else { panic!() };
    let Opened::Commit { summary: theirs, .. } = b1.open_row(&row).unwrap() else { panic!() };
    a2.open_row(&row).unwrap();
    assert_eq!((&own, &theirs), (&summary, &summary));
    assert_eq!(own.epoch, commit.epoch);
    assert!(!own.moves_leaves() && !a1.info().pending);
    assert_eq!(a1.info(), b1.info());
    assert_ne!(a1.info().epoch_authenticator_hash, before.epoch_authenticator_hash);
    // Read twice: it was applied before.
    assert!(matches!(a1.open_row(&row).unwrap(), Opened::TooOld { .. }));
    assert!(matches!(b1.open_row(&row).unwrap(), Opened::TooOld { .. }));
}

#[test]
fn the_loser_of_a_race_applies_the_winner_and_tries_again() {
    for clear_first in [true, false] {
        let (mut service, mut a1, _, mut b1) = meet(Suite::PostQuantum);
        let (won, winner) = a1.update();
        let (lost, loser) = b1.update();
        let (row, _) = service.commit(a1.id(), won, &winner).unwrap();
        assert!(service.commit(b1.id(), lost, &loser).is_err());
        if clear_first {
            conversation::clear_pending(&b1.vault(), CONVERSATION).unwrap();
        }
        let Opened::Commit { lost_pending, .. } = b1.open_row(&row).unwrap() else { panic!() };
        assert_eq!(lost_pending, !clear_first);
        a1.open_row(&row).unwrap();
        let (counter, retry) = b1.update();
        let (row, _) = service.commit(b1.id(), counter, &retry).unwrap();
        assert!(matches!(b1.open_row(&row).unwrap(), Opened::OwnCommit(_)));
        a1.open_row(&row).unwrap();
        assert_eq!(a1.info(), b1.info());
    }
}

#[test]
fn a_commit_that_was_acknowledged_can_be_merged_without_its_row() {
    let (mut service, mut a1, _, b1) = meet(Suite::Classic);
    let (counter, commit) = a1.update();
    let (row, _) = service.commit(a1.id(), counter, &commit).unwrap();
    assert_eq!(conversation::merge_pending(&a1.vault(), CONVERSATION).unwrap(), Some(commit.epoch));
    assert_eq!(conversation::merge_pending(&a1.vault(), CONVERSATION).unwrap(), None);
    b1.open_row(&row).unwrap();
    assert_eq!(a1.info(), b1.info());
}

#[test]
fn lost_state_comes_back_by_an_external_commit() {
    for suite in Suite::ALL {
        let (mut service, mut a1, a2, old) = meet(suite);
        let (counter, missed) = a1.seal("missed");
        let missed = service.send(a1.id(), counter, missed.envelope).unwrap();
        // Bob's device forgets everything but its own key.
        let mut b1 = Peer::new(BOB, 1, &a1.manifests);
        assert!(matches!(b1.open_row(&missed), Err(OpenError::NotJoined)));
        let (counter, commit) = b1.resync(&service);
        assert!(matches!(b1.open_row(&missed), Err(OpenError::NotJoined)), "nothing before the log says so");
        let (row, summary) = service.commit(b1.id(), counter, &commit).unwrap();
        assert!(summary.external && summary.added == [b1.leaf()] && summary.removed == [b1.leaf()]);
        let Opened::OwnCommit(own) = b1.open_row(&row).unwrap() else { panic!() };
        assert_eq!(own.epoch, summary.epoch);
        for peer in [&a1, &a2] {
            assert!(matches!(peer.open_row(&row).unwrap(), Opened::Commit { .. }));
            assert_eq!(peer.info(), b1.info());
        }
        assert_eq!(b1.info().members.len(), 3);
        assert!(matches!(b1.open_row(&missed).unwrap(), Opened::TooOld { .. }));
        let (counter, sealed) = b1.seal("back");
        let row = service.send(b1.id(), counter, sealed.envelope).unwrap();
        assert_eq!(a1.read(&row), "back");
        // The old state, had somebody kept it, is out.
        assert!(matches!(old.open_row(&row), Ok(Opened::Future { .. })));
    }
}

#[test]
fn a_resync_with_the_old_state_present_loses_a_race_and_leaves_it_intact() {
    let (mut service, mut a1, _, mut b1) = meet(Suite::PostQuantum);
    let (lost, resync) = b1.resync(&service);
    assert!(b1.info().pending);
    let (counter, update) = a1.update();
    let (row, _) = service.commit(a1.id(), counter, &update).unwrap();
    assert!(service.commit(b1.id(), lost, &resync).is_err());
    assert!(matches!(b1.open_row(&row).unwrap(), Opened::Commit { .. }));
    assert!(!b1.info().pending);
    a1.open_row(&row).unwrap();
    assert_eq!(a1.info(), b1.info());
    assert_eq!(conversation::merge_pending(&b1.vault(), CONVERSATION).unwrap(), None);
    let (counter, sealed) = b1.seal("still here");
    let row = service.send(b1.id(), counter, sealed.envelope).unwrap();
    assert_eq!(a1.read(&row), "still here");
}

#[test]
fn a_removed_device_is_told_and_reads_nothing_more() {
    let (mut service, mut a1, a2, b1) = meet(Suite::PostQuantum);
    let counter = a1.next();
    let removal = a1.change(counter, &[], &[a2.id()], &a1.manifests).unwrap();
    let (row, summary) = service.commit(a1.id(), counter, &removal).unwrap();
    assert_eq!(summary.removed, [a2.leaf()]);
    a1.open_row(&row).unwrap();
    b1.open_row(&row).unwrap();
    assert!(matches!(a2.open_row(&row).unwrap(), Opened::Removed(_)));
    assert!(!a2.info().active);
    let (counter, sealed) = a1.seal("without you");
    let row = service.send(a1.id(), counter, sealed.envelope).unwrap();
    assert_eq!(b1.read(&row), "without you");
    assert!(!matches!(a2.open_row(&row), Ok(Opened::Message { .. })));
    let mut a2 = a2;
    let counter = a2.next();
    let sealed = conversation::seal(&a2.vault(), &a2.device, CONVERSATION, counter, b"x");
    assert!(matches!(sealed, Err(ConversationError::Removed(_))));
    // It may be let in again.
    let counter = a1.next();
    let addition = a1.change(counter, &[a2.package(Suite::PostQuantum)], &[], &a1.manifests).unwrap();
    let (row, _) = service.commit(a1.id(), counter, &addition).unwrap();
    a1.open_row(&row).unwrap();
    let tree = service.state().tree_bytes();
    a2.manifests
        .judge(|policy| {
            conversation::join(&a2.vault(), &a2.device, &addition.welcomes[0].welcome, &tree, policy)
        })
        .unwrap();
    assert_eq!(a1.info(), a2.info());
}

#[test]
fn only_a_device_that_its_manifest_dropped_may_be_removed_by_others() {
    let (mut service, a1, a2, mut b1) = meet(Suite::Classic);
    let counter = b1.next();
    let refused = b1.change(counter, &[], &[a2.id()], &b1.manifests).unwrap_err();
    assert!(matches!(refused, ConversationError::Policy(PolicyError::MayNotRemove { .. })));
    // Bob's program does it anyway; gateway and members refuse.
    let revoked = a1.manifests.with_successor(ALICE, &[&a1], &[a2.id()]);
    let anyway = b1.change(counter, &[], &[a2.id()], &revoked).unwrap();
    assert!(service.commit(b1.id(), counter, &anyway).is_err());
    let opened = a1.open(b1.id(), counter, &anyway.commit).unwrap_err();
    assert!(matches!(opened, OpenError::Policy(PolicyError::MayNotRemove { .. })));
    conversation::clear_pending(&b1.vault(), CONVERSATION).unwrap();
    // Alice revokes the device: now the next sender removes it.
    a1.manifests.publish(revoked.get(ALICE).unwrap());
    let unlisted = a1.manifests.judge(|policy| policy.unlisted(&a1.info().members));
    assert_eq!(unlisted, [a2.id()]);
    let counter = b1.next();
    let removal = b1.change(counter, &[], &[a2.id()], &b1.manifests).unwrap();
    let (row, _) = service.commit(b1.id(), counter, &removal).unwrap();
    assert!(matches!(a1.open_row(&row).unwrap(), Opened::Commit { .. }));
}

#[test]
fn a_ghost_device_gets_past_nobody() {
    let (mut service, a1, _, mut b1) = meet(Suite::PostQuantum);
    // A device that claims to be Alice's, but that she never signed into a manifest.
    let ghost = Peer::new(ALICE, 9, &a1.manifests);
    let lie = a1.manifests.with_successor(ALICE, &[&a1, &Peer::new(ALICE, 2, &a1.manifests), &ghost], &[]);
    let counter = b1.next();
    let commit = b1.change(counter, &[ghost.package(Suite::PostQuantum)], &[], &lie).unwrap();
    let refused = service.commit(b1.id(), counter, &commit).unwrap_err();
    assert!(matches!(refused, CommitError::Policy(PolicyError::NotListed { .. })), "{refused}");
    let refused = a1.open(b1.id(), counter, &commit.commit).unwrap_err();
    assert_eq!(refused.wants_manifest(), Some(ALICE));
    assert!(
        matches!(refused, OpenError::Policy(PolicyError::NotListed { device, .. }) if device == ghost.id())
    );
    assert_eq!(a1.info().epoch, service.epoch());
}

#[test]
fn a_stranger_who_holds_the_group_info_gets_in_nowhere() {
    let (mut service, a1, _, b1) = meet(Suite::PostQuantum);
    let mallory = mallory(&a1.manifests);
    let commit = external_commit(&mallory, &service, Counter(1));
    let refused = service.commit(mallory.id(), Counter(1), &commit).unwrap_err();
    assert!(matches!(refused, CommitError::Policy(PolicyError::Account(MALLORY))), "{refused}");
    // A gateway that lets it through meets the same rule in every client.
    for peer in [&a1, &b1] {
        let refused = peer.open(mallory.id(), Counter(1), &commit.commit).unwrap_err();
        assert!(matches!(refused, OpenError::Policy(PolicyError::Account(MALLORY))), "{refused}");
        assert_eq!(peer.info().members.len(), 3);
    }
}

#[test]
fn a_joiner_refuses_a_conversation_with_a_ghost_in_it() {
    let (manifests, a1, a2, b1) = people();
    let ghost = Peer::new(ALICE, 9, &manifests);
    let lie = manifests.with_successor(ALICE, &[&a1, &a2, &ghost], &[]);
    let packages = [b1.package(Suite::Classic), ghost.package(Suite::Classic)];
    let founding = lie
        .judge(|policy| {
            conversation::found(
                &a1.vault(),
                &a1.device,
                CONVERSATION,
                Suite::Classic,
                &packages,
                None,
                policy,
            )
        })
        .unwrap();
    let refused = manifests.judge(|policy| {
        conversation::join(&b1.vault(), &b1.device, &founding.welcomes[0].welcome, &founding.tree, policy)
    });
    assert!(matches!(refused, Err(ConversationError::Policy(PolicyError::NotListed { .. }))));
    assert!(conversation::info(&b1.vault(), CONVERSATION).unwrap().is_none());
    let refused =
        manifests.judge(|policy| PublicState::found(&founding.group_info, &founding.tree, a1.id(), policy));
    assert!(matches!(refused, Err(FoundError::Policy(_))));
}

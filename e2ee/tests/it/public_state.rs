//! The gateway's side against real groups.

use crate::kit::*;
use fastchat_delivery::{CommitError, FoundError, PublicState, Suite, group::InfoError, group::tree_hash};
use fastchat_protocol::{Bytes, Epoch};

#[test]
fn follows_a_group_through_storage() {
    for suite in Suite::ALL {
        let (mut service, mut a1, a2, b1) = meet(suite);
        let founded = service.state();
        assert_eq!((founded.suite(), founded.conversation()), (suite, CONVERSATION));
        assert_eq!(founded.epoch(), Epoch { generation: 0, number: 1 });
        let mut members = founded.members();
        members.sort_by_key(|leaf| leaf.device);
        assert_eq!(members, [a1.leaf(), a2.leaf(), b1.leaf()]);
        for _ in 0..3 {
            let (counter, commit) = a1.update();
            let (row, summary) = service.commit(a1.id(), counter, &commit).unwrap();
            assert_eq!((summary.epoch, summary.committer), (commit.epoch, a1.leaf()));
            a1.open_row(&row).unwrap();
            b1.open_row(&row).unwrap();
        }
        let state = service.state();
        assert_eq!(state.epoch(), b1.info().epoch);
        assert_ne!(tree_hash(&state.tree_bytes()), tree_hash(&founded.tree_bytes()));
        assert_eq!(PublicState::from_bytes(&state.to_bytes()).unwrap().tree_bytes(), state.tree_bytes());
    }
}

#[test]
fn the_committer_is_the_device_that_sends() {
    let (mut service, mut a1, a2, b1) = meet(Suite::Classic);
    let (counter, commit) = a1.update();
    for other in [&a2, &b1] {
        let refused = service.commit(other.id(), counter, &commit).unwrap_err();
        assert!(
            matches!(refused, CommitError::Committer { sender, committer } if sender == other.id() && committer == a1.id())
        );
    }
    service.commit(a1.id(), counter, &commit).unwrap();
}

#[test]
fn a_commit_of_another_epoch_is_named_so() {
    let (mut service, mut a1, _, mut b1) = meet(Suite::Classic);
    let (counter, old) = b1.update();
    let (count, commit) = a1.update();
    service.commit(a1.id(), count, &commit).unwrap();
    let refused = service.commit(b1.id(), counter, &old).unwrap_err();
    assert!(matches!(refused, CommitError::Epoch { made, current } if made.number + 1 == current.number));
}

#[test]
fn a_forged_group_info_is_refused() {
    let (mut service, mut a1, _, mut b1) = meet(Suite::PostQuantum);
    let (counter, good) = a1.update();
    let (_, other) = b1.update();
    let mut refuse = |group_info: Bytes| {
        let forged = fastchat_e2ee::conversation::PendingCommit { group_info, ..good.clone() };
        match service.commit(a1.id(), counter, &forged).unwrap_err() {
            CommitError::Info(error) => error,
            other => panic!("{other}"),
        }
    };
    // Of another commit of the same epoch, and of the epoch before.
    assert_eq!(refuse(other.group_info), InfoError::Context);
    let (founded, ..) = meet(Suite::PostQuantum);
    assert_eq!(refuse(founded.group_info), InfoError::Context);
    // Altered in its last byte (the signature) and in each part before.
    let mut reasons = std::collections::BTreeSet::new();
    for at in (0..good.group_info.len()).step_by(7).chain([good.group_info.len() - 1]) {
        let mut bytes = good.group_info.to_vec();
        bytes[at] ^= 1;
        reasons.insert(format!("{:?}", refuse(bytes.into())));
    }
    for reason in ["Context", "ConfirmationTag", "Signature"] {
        assert!(reasons.contains(reason), "{reasons:?}");
    }
    assert_eq!(refuse(Bytes::new()), InfoError::Malformed);
    service.commit(a1.id(), counter, &good).unwrap();
}

#[test]
fn an_altered_commit_is_refused() {
    let (mut service, mut a1, ..) = meet(Suite::Classic);
    let (counter, good) = a1.update();
    for at in 0..good.commit.len() {
        let mut bytes = good.commit.to_vec();
        bytes[at] ^= 1;
        let altered = fastchat_e2ee::conversation::PendingCommit { commit: bytes.into(), ..good.clone() };
        // The membership tag (the last 33 bytes) is for members only: the gateway has no key for it.
        if at < good.commit.len() - 33 {
            assert!(service.commit(a1.id(), counter, &altered).is_err(), "byte {at}");
        }
    }
    service.commit(a1.id(), counter, &good).unwrap();
}

#[test]
fn a_message_is_not_a_commit() {
    let (mut service, mut a1, ..) = meet(Suite::Classic);
    let (counter, sealed) = a1.seal("x");
    let (_, commit) = a1.update();
    let wrong = fastchat_e2ee::conversation::PendingCommit { commit: sealed.envelope, ..commit };
    assert!(matches!(service.commit(a1.id(), counter, &wrong).unwrap_err(), CommitError::NotACommit));
}

#[test]
fn an_external_commit_in_anothers_name_is_refused() {
    let (mut service, a1, _, mut b1) = meet(Suite::Classic);
    let (counter, commit) = b1.resync(&service);
    let refused = service.commit(a1.id(), counter, &commit).unwrap_err();
    assert!(matches!(refused, CommitError::Committer { .. }));
    service.commit(b1.id(), counter, &commit).unwrap();
}

#[test]
fn founding_is_checked() {
    let (manifests, a1, a2, b1) = people();
    let suite = Suite::Classic;
    let founding = a1.found(suite, &[b1.package(suite)]);
    let found = |info: &[u8], tree: &[u8], founder| {
        manifests.judge(|policy| PublicState::found(info, tree, founder, policy))
    };
    let (info, tree) = (&founding.group_info[..], &founding.tree[..]);
    found(info, tree, a1.id()).unwrap();
    assert!(matches!(found(info, tree, a2.id()).unwrap_err(), FoundError::Founder(_)));
    assert!(matches!(found(info, tree, b1.id()).unwrap_err(), FoundError::Info(InfoError::Signer)));
    assert!(matches!(found(tree, tree, a1.id()).unwrap_err(), FoundError::GroupInfo));
    assert!(matches!(found(info, info, a1.id()).unwrap_err(), FoundError::Tree));
    let (other, ..) = meet(suite);
    assert!(matches!(found(info, &other.state().tree_bytes(), a1.id()).unwrap_err(), FoundError::Invalid(_)));
    let stranger = manifests.judge_as(fastchat_delivery::Rules::Direct([ALICE, MALLORY]), |policy| {
        PublicState::found(info, tree, a1.id(), policy)
    });
    assert!(matches!(stranger, Err(FoundError::Policy(_))));
}

#[test]
fn stored_state_of_another_form_is_refused() {
    let (service, ..) = meet(Suite::Classic);
    let mut bytes = service.state().to_bytes();
    assert_eq!(&bytes[..4], b"\xa7\x61v\x01");
    bytes[3] = 2;
    assert!(PublicState::from_bytes(&bytes).is_err());
}

#[test]
fn what_a_gateway_and_a_client_hold_may_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<PublicState>();
    is_send::<fastchat_e2ee::VerifiedManifest>();
    is_send::<fastchat_e2ee::Device>();
    is_send::<fastchat_e2ee::StoreKey>();
    is_send::<fastchat_e2ee::conversation::OpenError>();
    is_send::<fastchat_e2ee::conversation::ConversationError>();
}

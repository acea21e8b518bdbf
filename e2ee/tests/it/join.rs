//! Key packages and welcomes.

use crate::kit::*;
use fastchat_delivery::{Rules, Suite, key_package};
use fastchat_e2ee::conversation::{self, ConversationError, Founding, Joined};

fn join(peer: &Peer, founding: &Founding, tree: &[u8]) -> Result<Joined, ConversationError> {
    let welcome = &founding.welcomes[0].welcome;
    peer.manifests.judge(|policy| conversation::join(&peer.vault(), &peer.device, welcome, tree, policy))
}

#[test]
fn key_packages_say_what_the_directory_must_know() {
    let (_, a1, ..) = people();
    for suite in Suite::ALL {
        let last = a1.device.last_resort_key_package(&a1.vault(), suite).unwrap();
        for (bytes, last_resort) in [(a1.package(suite), false), (last, true)] {
            let info = key_package::verify(&bytes).unwrap();
            assert_eq!((info.device, info.account, info.suite), (a1.id(), ALICE, suite));
            assert_eq!((info.signature_key, info.last_resort), (a1.device.public_key(), last_resort));
            assert_eq!(info.identity_fingerprint, identity(ALICE).fingerprint().unwrap());
            for at in (0..bytes.len()).step_by(11) {
                let mut altered = bytes.to_vec();
                altered[at] ^= 1;
                assert!(key_package::verify(&altered).is_err(), "byte {at}");
            }
            assert!(key_package::verify(&bytes[..bytes.len() - 1]).is_err());
        }
    }
    assert_ne!(a1.package(Suite::Classic), a1.package(Suite::Classic));
}

#[test]
fn a_wrong_tree_is_refused_and_the_right_one_still_works() {
    let (_, a1, a2, b1) = people();
    let founding = a1.found(Suite::PostQuantum, &[b1.package(Suite::PostQuantum)]);
    let (other, ..) = meet(Suite::PostQuantum);
    let refused = join(&b1, &founding, &other.state().tree_bytes()).unwrap_err();
    assert!(matches!(refused, ConversationError::Invalid(_)), "{refused}");
    let refused = join(&a2, &founding, &founding.tree).unwrap_err();
    assert!(matches!(refused, ConversationError::Invalid(_)), "not for this device: {refused}");
    let joined = join(&b1, &founding, &founding.tree).unwrap();
    assert_eq!((joined.by, joined.suite, joined.epoch), (a1.leaf(), Suite::PostQuantum, founding.epoch));
    assert!(join(&b1, &founding, &founding.tree).is_err(), "the key package is used up");
}

#[test]
fn the_last_resort_serves_more_than_once_but_not_one_conversation_twice() {
    let (_, a1, a2, b1) = people();
    let last = b1.device.last_resort_key_package(&b1.vault(), Suite::Classic).unwrap();
    let first = a1.found(Suite::Classic, std::slice::from_ref(&last));
    let second = a2.found(Suite::Classic, &[last]);
    join(&b1, &first, &first.tree).unwrap();
    let again = join(&b1, &first, &first.tree).unwrap_err();
    assert!(matches!(again, ConversationError::AlreadyJoined(_)), "{again}");
    // The other founding has the same conversation id, so it has to wait until the first is given up.
    conversation::discard(&b1.vault(), CONVERSATION).unwrap();
    join(&b1, &second, &second.tree).unwrap();
    assert_eq!(a2.info(), b1.info());
}

#[test]
fn the_loser_of_a_creation_race_discards_and_joins_the_winner() {
    let (_, a1, _, mut b1) = people();
    let winner = a1.found(Suite::PostQuantum, &[b1.package(Suite::PostQuantum)]);
    b1.found(Suite::PostQuantum, &[a1.package(Suite::PostQuantum)]);
    b1.seal("sealed for nobody");
    conversation::discard(&b1.vault(), CONVERSATION).unwrap();
    assert!(conversation::info(&b1.vault(), CONVERSATION).unwrap().is_none());
    b1.join(&winner);
    let (counter, sealed) = b1.seal("sealed again");
    assert_eq!(a1.read(&Row { sender: b1.id(), counter, envelope: sealed.envelope }), "sealed again");
}

#[test]
fn a_joiner_learns_who_began() {
    let (manifests, a1, _, b1) = people();
    let founding = a1.found(Suite::Classic, &[b1.package(Suite::Classic)]);
    let welcome = &founding.welcomes[0].welcome;
    let nothing_known = Manifests::default();
    let refused = nothing_known
        .judge_as(Rules::Joiner(BOB), |policy| {
            conversation::join(&b1.vault(), &b1.device, welcome, &founding.tree, policy)
        })
        .unwrap_err();
    assert!(refused.wants_manifest().is_some());
    let joined = manifests
        .judge_as(Rules::Joiner(BOB), |policy| {
            conversation::join(&b1.vault(), &b1.device, welcome, &founding.tree, policy)
        })
        .unwrap();
    assert_eq!(joined.by.account, ALICE);
}

#[test]
fn founding_takes_only_its_own_suite_and_listed_devices() {
    let (manifests, a1, _, b1) = people();
    let found = |suite, packages: &[_]| {
        manifests.judge(|policy| {
            conversation::found(&a1.vault(), &a1.device, CONVERSATION, suite, packages, None, policy)
        })
    };
    let refused = found(Suite::PostQuantum, &[b1.package(Suite::Classic)]).unwrap_err();
    assert!(matches!(refused, ConversationError::Suite(Suite::Classic)));
    let refused = found(Suite::Classic, &[mallory(&manifests).package(Suite::Classic)]).unwrap_err();
    assert!(matches!(refused, ConversationError::Policy(_)));
    found(Suite::Classic, &[b1.package(Suite::Classic)]).unwrap();
    assert!(matches!(found(Suite::Classic, &[]).unwrap_err(), ConversationError::AlreadyJoined(_)));
}

#[test]
fn a_key_package_that_claims_more_than_its_suite_is_refused() {
    use openmls::prelude::{CredentialWithKey, KeyPackage, MlsMessageOut};
    let (_, a1, ..) = people();
    let leaf = a1.leaf();
    let credential = fastchat_delivery::LeafCredential {
        account: leaf.account,
        device: leaf.device,
        identity: leaf.identity_fingerprint,
    };
    let credential =
        CredentialWithKey { credential: credential.to_mls(), signature_key: leaf.key.as_slice().into() };
    let provider = openmls_rust_crypto::OpenMlsRustCrypto::default();
    let bundle =
        KeyPackage::builder().build(Suite::Classic.ciphersuite(), &provider, &a1.device, credential).unwrap();
    let bytes = MlsMessageOut::from(bundle.into_key_package()).to_bytes().unwrap();
    assert_eq!(key_package::verify(&bytes), Err(key_package::KeyPackageError::Capabilities));
}

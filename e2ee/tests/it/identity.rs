//! Manifests, challenges, safety numbers.

use crate::kit::*;
use fastchat_delivery::manifest;
use fastchat_e2ee::{ManifestDevice, ManifestError, VerifiedManifest, safety_number};
use fastchat_protocol::{AccountId, DeviceId, challenge};
use rand::{SeedableRng, rngs::StdRng};
use rsa::{
    RsaPrivateKey,
    pkcs8::EncodePublicKey,
    pss::SigningKey,
    signature::{RandomizedSigner, SignatureEncoding},
};
use sha2::Sha256;
use std::sync::LazyLock;

/// A key whose private half the test holds.
static KEY: LazyLock<RsaPrivateKey> =
    LazyLock::new(|| RsaPrivateKey::new(&mut StdRng::seed_from_u64(50), 3072).unwrap());

fn spki(key: &RsaPrivateKey) -> Vec<u8> {
    key.to_public_key().to_public_key_der().unwrap().into_vec()
}

fn device(number: u8) -> ManifestDevice {
    ManifestDevice { id: DeviceId::new([number; 16]), key: [number; 32] }
}

fn example() -> fastchat_e2ee::Manifest {
    let backup_key =
        identity(ALICE).sign_first(&mut StdRng::seed_from_u64(1), ALICE, vec![device(1)]).unwrap();
    fastchat_e2ee::Manifest {
        account: ALICE,
        version: 1,
        previous: None,
        identity: spki(&KEY),
        backup_key: backup_key.manifest().backup_key.clone(),
        devices: vec![device(1)],
        revoked: vec![],
    }
}

fn sign_with(salt: usize, label: &[u8], body: &[u8]) -> Vec<u8> {
    let signature = SigningKey::<Sha256>::new_with_salt_len(KEY.clone(), salt)
        .sign_with_rng(&mut StdRng::seed_from_u64(2), &[label, body].concat());
    manifest::assemble(body, &signature.to_bytes())
}

fn verify(manifest: &fastchat_e2ee::Manifest) -> Result<VerifiedManifest, ManifestError> {
    VerifiedManifest::verify(&sign_with(32, manifest::LABEL, &manifest.encode()))
}

#[test]
fn signature_label_and_salt_all_count() {
    let body = example().encode();
    let good = sign_with(32, manifest::LABEL, &body);
    VerifiedManifest::verify(&good).unwrap();
    assert_eq!(
        VerifiedManifest::verify(&sign_with(20, manifest::LABEL, &body)),
        Err(ManifestError::Signature)
    );
    assert_eq!(
        VerifiedManifest::verify(&sign_with(32, b"fastchat/v1/other\0", &body)),
        Err(ManifestError::Signature)
    );
    for at in 0..good.len() {
        let mut altered = good.clone();
        altered[at] ^= 1;
        assert!(VerifiedManifest::verify(&altered).is_err(), "byte {at}");
    }
    assert!(VerifiedManifest::verify(&good[..good.len() - 1]).is_err());
    assert!(VerifiedManifest::verify(&[&good[..], &[0]].concat()).is_err());
    assert_eq!(VerifiedManifest::verify(&vec![0; 9000]), Err(ManifestError::TooLarge(9000)));
}

#[test]
fn content_that_contradicts_itself_is_refused() {
    let content = |change: &dyn Fn(&mut fastchat_e2ee::Manifest)| {
        let mut manifest = example();
        change(&mut manifest);
        matches!(verify(&manifest), Err(ManifestError::Content(_)))
    };
    assert!(content(&|m| m.devices.clear()));
    assert!(content(&|m| m.devices.push(device(1))));
    assert!(content(&|m| m.devices.push(ManifestDevice { key: [1; 32], ..device(2) })));
    assert!(content(&|m| m.devices = (1..=33).map(device).collect()));
    assert!(content(&|m| m.revoked.push(DeviceId::new([1; 16]))));
    assert!(content(&|m| m.version = 0));
    assert!(content(&|m| m.version = 2));
    assert!(content(&|m| m.previous = Some([0; 32])));
    assert!(content(&|m| m.backup_key = m.identity.clone()));
    assert!(!content(&|m| m.devices = (1..=32).map(device).collect()));
    // The largest one that is allowed fits its limit.
    let mut largest = fastchat_e2ee::Manifest { devices: (1..=32).map(device).collect(), ..example() };
    largest.revoked =
        (33..33 + manifest::MAX_REVOKED as u8).map(|number| DeviceId::new([number; 16])).collect();
    verify(&largest).unwrap();
}

#[test]
fn only_keys_of_the_right_size_count() {
    let small = RsaPrivateKey::new(&mut StdRng::seed_from_u64(51), 2048).unwrap();
    let mut manifest = example();
    manifest.backup_key = spki(&small);
    assert_eq!(verify(&manifest), Err(ManifestError::Key("backup key")));
    manifest.backup_key = vec![0; 422];
    assert_eq!(verify(&manifest), Err(ManifestError::Key("backup key")));
    let body = fastchat_e2ee::Manifest { identity: spki(&small), ..example() }.encode();
    assert_eq!(
        VerifiedManifest::verify(&sign_with(32, manifest::LABEL, &body)),
        Err(ManifestError::Key("identity key"))
    );
}

#[test]
fn successors_form_a_chain() {
    let mut rng = StdRng::seed_from_u64(3);
    let alice = identity(ALICE);
    let first = alice.sign_first(&mut rng, ALICE, vec![device(1)]).unwrap();
    let second = alice.sign_successor(&mut rng, &first, vec![device(1), device(2)], vec![]).unwrap();
    let third = alice.sign_successor(&mut rng, &second, vec![device(1)], vec![device(2).id]).unwrap();
    assert_eq!((third.version(), third.is_revoked(device(2).id)), (3, true));
    first.verify_successor(&second).unwrap();
    assert!(first.verify_successor(&third).is_err(), "a version was left out");
    assert!(second.verify_successor(&first).is_err(), "backwards");
    assert!(first.verify_successor(&first).is_err(), "itself");
    // Another second version than the one that the third names.
    let fork = alice.sign_successor(&mut rng, &first, vec![device(1), device(3)], vec![]).unwrap();
    assert!(fork.verify_successor(&third).is_err());
    // A device may not disappear, change its key, or come back.
    assert!(alice.sign_successor(&mut rng, &second, vec![device(1)], vec![]).is_err());
    let other_key = ManifestDevice { key: [9; 32], ..device(2) };
    assert!(alice.sign_successor(&mut rng, &second, vec![device(1), other_key], vec![]).is_err());
    assert!(alice.sign_successor(&mut rng, &third, vec![device(1), device(2)], vec![]).is_err());
    let mallory = identity(MALLORY).sign_successor(&mut rng, &first, vec![device(1), device(4)], vec![]);
    assert!(mallory.is_err(), "signed by another key than the manifest names");
    let bob = identity(BOB).sign_first(&mut rng, BOB, vec![device(1)]).unwrap();
    assert!(bob.verify_successor(&second).is_err());
}

#[test]
fn the_reference_decoder_reads_a_manifest() {
    let manifest = identity(ALICE).sign_first(&mut StdRng::seed_from_u64(4), ALICE, vec![device(1)]).unwrap();
    type Map = std::collections::BTreeMap<String, serde_cbor::Value>;
    let outer: Map = serde_cbor::from_slice(manifest.bytes()).unwrap();
    let serde_cbor::Value::Bytes(body) = &outer["b"] else { panic!() };
    assert_eq!(*body, manifest.manifest().encode());
    let inner: Map = serde_cbor::from_slice(body).unwrap();
    assert_eq!(inner["a"], serde_cbor::Value::Bytes(ALICE.as_bytes().to_vec()));
    assert_eq!(inner["n"], serde_cbor::Value::Integer(1));
    assert!(!inner.contains_key("p"));
    assert!(manifest.bytes().len() < 1500, "{}", manifest.bytes().len());
}

#[test]
fn safety_numbers_are_the_same_on_both_sides_and_depend_on_all() {
    let (one, other) = ((AccountId::new([1; 16]), [2; 32]), (AccountId::new([3; 16]), [4; 32]));
    let number = safety_number(one, other);
    assert_eq!(number, "389357345448108785421877013411566479218446968755232186508627");
    assert_eq!(number, safety_number(other, one));
    assert!(number.len() == 60 && number.bytes().all(|digit| digit.is_ascii_digit()));
    assert_ne!(number, safety_number((one.0, [5; 32]), other));
    assert_ne!(number, safety_number((AccountId::new([5; 16]), one.1), other));
}

#[test]
fn a_challenge_is_answered_by_the_device_key() {
    use ed25519_dalek::{Signature, VerifyingKey};
    let (_, a1, ..) = people();
    let answer = Signature::from_bytes(&a1.device.sign_challenge("chat", "chat.example:443", &[7; 32]));
    let key = VerifyingKey::from_bytes(&a1.device.public_key()).unwrap();
    key.verify_strict(&challenge::signed_bytes("chat", "chat.example:443", a1.id(), &[7; 32]), &answer)
        .unwrap();
    for (deployment, host, nonce) in
        [("chat2", "chat.example:443", 7), ("chat", "evil.example:443", 7), ("chat", "chat.example:443", 8)]
    {
        let other = challenge::signed_bytes(deployment, host, a1.id(), &[nonce; 32]);
        assert!(key.verify_strict(&other, &answer).is_err());
    }
}

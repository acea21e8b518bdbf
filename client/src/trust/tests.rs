use super::*;
use fastchat_e2ee::{Identity, ManifestDevice};
use fastchat_protocol::{AccountId, DeviceId};
use std::sync::LazyLock;

static IDENTITIES: LazyLock<[Identity; 2]> =
    LazyLock::new(|| [(); 2].map(|()| Identity::generate(&mut rand::rng()).unwrap()));

fn device(id: u8) -> ManifestDevice {
    ManifestDevice { id: DeviceId::new([id; 16]), key: [id; 32] }
}

fn manifest(identity: usize, devices: Vec<ManifestDevice>) -> VerifiedManifest {
    IDENTITIES[identity].sign_first(&mut rand::rng(), AccountId::new([1; 16]), devices).unwrap()
}

#[test]
fn what_each_manifest_means() {
    let known = manifest(0, vec![device(1)]);
    let next =
        IDENTITIES[0].sign_successor(&mut rand::rng(), &known, vec![device(1), device(2)], vec![]).unwrap();
    let cases = [
        ("the same", &known, known.clone(), Observed::Known),
        ("its successor", &known, next.clone(), Observed::Newer),
        ("an older one", &next, known.clone(), Observed::Older),
        ("another of the same version", &known, manifest(0, vec![device(3)]), Observed::Changed),
        ("another identity", &known, manifest(1, vec![device(1)]), Observed::Changed),
    ];
    for (what, known, shown, want) in cases {
        let mut contact = first("bob", known.clone());
        assert_eq!(observe(&mut contact, shown.clone()), want, "{what}");
        assert_eq!(contact.changed.is_some(), want == Observed::Changed, "{what}");
        let expected = if want == Observed::Newer { &shown } else { known };
        assert_eq!(contact.manifest.hash(), expected.hash(), "{what}");
    }
}

#[test]
fn a_changed_identity_stays_until_a_person_accepts_it() {
    let mut contact = first("bob", manifest(0, vec![device(1)]));
    let other = manifest(1, vec![device(1)]);
    assert_eq!(observe(&mut contact, other.clone()), Observed::Changed);
    // The old one again does not take it back, and a third one does not take its place.
    assert_eq!(observe(&mut contact, manifest(0, vec![device(1)])), Observed::Known);
    let third = manifest(0, vec![device(7)]);
    assert_eq!(observe(&mut contact, third), Observed::Changed);
    assert_eq!(contact.changed.as_ref().unwrap().hash(), other.hash());
    accept(&mut contact);
    assert!(contact.changed.is_none() && contact.verified);
    assert_eq!(contact.manifest.identity_fingerprint(), other.identity_fingerprint());
}

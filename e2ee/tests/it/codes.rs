//! Codes that people type: recovery and linking.

use crate::kit::*;
use fastchat_delivery::Leave;
use fastchat_e2ee::{
    Identity, LinkCode, LinkError, LinkOffer, ManifestDevice, RecoveryCode, RecoveryError,
    link::{confirmation, open_grant, seal_grant},
};
use fastchat_protocol::{Counter, DeviceId, Epoch};
use rand::{SeedableRng, rngs::StdRng};

fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

fn device() -> ManifestDevice {
    ManifestDevice { id: DeviceId::new([5; 16]), key: [6; 32] }
}

#[test]
fn golden_recovery_key() {
    // By another implementation (Python's hmac): HKDF of the bytes 0..20.
    let code: RecoveryCode = "000G-40R4-0M30-E209-185G-R38E-1W81-24GK".parse().unwrap();
    assert_eq!(code.to_string(), "000G-40R4-0M30-E209-185G-R38E-1W81-24GK");
    assert_eq!(*code.recovery_key(), "DNF3vCstb8g4Ckn5z7PSYzd9meIzhbzH5jqosJ_zRGA");
    let typed: RecoveryCode = " ooog 40r4 om30 e209 185g r38e lw8i 24gk ".parse().unwrap();
    assert_eq!(typed, code);
    for wrong in ["", "000G-40R4", "000G-40R4-0M30-E209-185G-R38E-1W81-24GU"] {
        assert!(matches!(wrong.parse::<RecoveryCode>(), Err(RecoveryError::Code)));
    }
    assert_eq!(format!("{code:?}"), "RecoveryCode(..)");
}

#[test]
fn the_code_alone_brings_the_identity_back() {
    let (code, other) = (RecoveryCode::generate(&mut rng(1)), RecoveryCode::generate(&mut rng(2)));
    assert_ne!(code.to_string(), other.to_string());
    let blob = code.seal(identity(ALICE)).unwrap();
    assert_eq!(blob[0], 1);
    assert!(blob.len() < 5_000 && blob != code.seal(identity(ALICE)).unwrap(), "{}", blob.len());
    let back: Identity = code.to_string().parse::<RecoveryCode>().unwrap().open(&blob).unwrap();
    assert_eq!(back.fingerprint().unwrap(), identity(ALICE).fingerprint().unwrap());
    assert_eq!(back.backup_public().unwrap(), identity(ALICE).backup_public().unwrap());
    // It signs the successor of what the lost one signed.
    let (manifests, a1, ..) = people();
    let next = back.sign_successor(
        &mut rng(3),
        &manifests.get(ALICE).unwrap(),
        vec![device()],
        vec![a1.id(), Peer::new(ALICE, 2, &manifests).id()],
    );
    assert_eq!(next.unwrap().version(), 2);
    assert!(matches!(other.open(&blob), Err(RecoveryError::Sealed(_))));
    for at in 0..blob.len() {
        let mut altered = blob.clone();
        altered[at] ^= 1;
        assert!(code.open(&altered).is_err(), "byte {at}");
    }
    for length in (0..blob.len()).step_by(7) {
        assert!(code.open(&blob[..length]).is_err(), "{length} bytes");
    }
    assert!(matches!(code.open(&vec![1; 20_000]), Err(RecoveryError::TooLarge)));
}

#[test]
fn golden_link_code() {
    // By another implementation (Python's hmac and cryptography).
    let code: LinkCode = "04106-1050R-3GG28-A1C6D".parse().unwrap();
    assert_eq!(code.to_string(), "04106-1050R-3GG28-A1C6D");
    assert_eq!(code.slot().to_string(), "1e6e58f7762ec3ca7cac1758a8e9ccea");
    assert_eq!(confirmation(&code, b"offer").unwrap(), "148047");
    assert_ne!(confirmation(&code, b"other").unwrap(), "148047");
    assert!(matches!("04106-1050R-3GG28-A1C6".parse::<LinkCode>(), Err(LinkError::Code)));
    let drawn = LinkCode::generate(&mut rng(1));
    assert_eq!(drawn.to_string().parse::<LinkCode>().unwrap(), drawn);
}

#[test]
fn an_offer_needs_the_code() {
    let code = LinkCode::generate(&mut rng(1));
    let (offer, _) = LinkOffer::generate(&mut rng(2), device()).unwrap();
    let sealed = offer.seal(&code).unwrap();
    assert_eq!(LinkOffer::open(&code, &sealed).unwrap(), offer);
    assert_eq!(offer.device, device());
    assert!(matches!(LinkOffer::open(&LinkCode::generate(&mut rng(3)), &sealed), Err(LinkError::Sealed(_))));
    for at in 0..sealed.len() {
        let mut altered = sealed.clone();
        altered[at] ^= 1;
        assert!(LinkOffer::open(&code, &altered).is_err(), "byte {at}");
        assert!(LinkOffer::open(&code, &sealed[..at]).is_err(), "{at} bytes");
    }
    assert!(matches!(LinkOffer::open(&code, &[1; 5_000]), Err(LinkError::Form)));
    // What else is sealed under the code is no offer.
    let grant = seal_grant(&code, &offer, b"x").unwrap();
    assert!(LinkOffer::open(&code, &grant).is_err());
}

#[test]
fn a_grant_needs_code_and_device() {
    let (code, other) = (LinkCode::generate(&mut rng(1)), LinkCode::generate(&mut rng(3)));
    let (offer, secret) = LinkOffer::generate(&mut rng(2), device()).unwrap();
    let (another, another_secret) = LinkOffer::generate(&mut rng(4), device()).unwrap();
    let opened = LinkOffer::open(&code, &offer.seal(&code).unwrap()).unwrap();
    let sealed = seal_grant(&code, &opened, b"manifest and keys").unwrap();
    assert_eq!(**open_grant(&code, &secret, &sealed).unwrap(), *b"manifest and keys");
    assert!(matches!(open_grant(&other, &secret, &sealed), Err(LinkError::Sealed(_))));
    assert!(matches!(open_grant(&code, &another_secret, &sealed), Err(LinkError::Key)));
    // The same key, but another device in the offer: an answer to another offer.
    let (moved, _) = LinkOffer::generate(&mut rng(2), ManifestDevice { key: [7; 32], ..device() }).unwrap();
    assert!(open_grant(&code, &secret, &seal_grant(&code, &moved, b"x").unwrap()).is_err());
    assert_ne!(offer.seal(&code).unwrap(), another.seal(&code).unwrap());
    for at in (0..sealed.len()).step_by(5).chain([sealed.len() - 1]) {
        let mut altered = sealed.clone();
        altered[at] ^= 1;
        assert!(open_grant(&code, &secret, &altered).is_err(), "byte {at}");
        assert!(open_grant(&code, &secret, &sealed[..at]).is_err(), "{at} bytes");
    }
    assert_eq!(format!("{secret:?} {code:?}"), "LinkSecret(..) LinkCode(..)");
}

#[test]
fn a_device_signs_that_its_account_leaves() {
    let (_, a1, a2, _) = people();
    let leave = Leave {
        conversation: CONVERSATION,
        epoch: Epoch { generation: 0, number: 3 },
        account: ALICE,
        device: a1.id(),
        counter: Counter(4),
    };
    let statement = a1.device.sign_leave(&leave);
    assert_eq!(Leave::verify(&statement, &a1.device.public_key()), Ok(leave));
    assert!(Leave::verify(&statement, &a2.device.public_key()).is_err());
}

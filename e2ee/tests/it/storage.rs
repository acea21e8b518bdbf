//! What rests in the store, and what a crash leaves.

use crate::kit::*;
use fastchat_delivery::Suite;
use fastchat_e2ee::{
    Device, Identity, MemoryStore, StoreKey, Vault, VaultError,
    conversation::{self, Opened},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn a_crash_before_the_commit_leaves_no_trace() {
    let (mut service, mut a1, _, b1) = meet(Suite::PostQuantum);
    let (counter, sealed) = a1.seal("again");
    let row = service.send(a1.id(), counter, sealed.envelope).unwrap();
    let before = b1.store.snapshot();
    assert_eq!(b1.read(&row), "again");
    b1.store.restore(&before);
    assert_eq!(b1.read(&row), "again", "the rolled back ratchet step can be taken again");
    assert!(matches!(b1.open_row(&row).unwrap(), Opened::Replay));
}

#[test]
fn a_crash_around_each_step_of_a_commit() {
    let (mut service, mut a1, _, b1) = meet(Suite::Classic);
    let before = a1.store.snapshot();
    let (_, forgotten) = a1.update();
    a1.store.restore(&before);
    assert!(!a1.info().pending);
    let (counter, commit) = a1.update();
    assert_ne!(commit.commit, forgotten.commit);
    let (row, _) = service.commit(a1.id(), counter, &commit).unwrap();
    for peer in [&a1, &b1] {
        let before = peer.store.snapshot();
        peer.open_row(&row).unwrap();
        let after = peer.info();
        peer.store.restore(&before);
        peer.open_row(&row).unwrap();
        assert_eq!(peer.info(), after);
    }
    assert_eq!(a1.info(), b1.info());
}

#[test]
fn a_crash_during_a_join_keeps_the_key_package() {
    let (_, a1, _, b1) = people();
    let founding = a1.found(Suite::Classic, &[b1.package(Suite::Classic)]);
    let before = b1.store.snapshot();
    b1.join(&founding);
    b1.store.restore(&before);
    b1.join(&founding);
}

#[test]
fn nothing_in_the_store_can_be_read() {
    let (mut service, mut a1, _, b1) = meet(Suite::PostQuantum);
    identity(ALICE).save(&a1.vault()).unwrap();
    let text = "the treasure lies under the old oak";
    let (counter, sealed) = a1.seal(text);
    let row = service.send(a1.id(), counter, sealed.envelope).unwrap();
    assert_eq!(b1.read(&row), text);
    a1.vault().put("outbox", b"1", text.as_bytes()).unwrap();
    let dump = a1.store.dump();
    assert!(dump.len() > 10_000, "there is something to look at");
    // The device's secret is the first that its seeded generator gave.
    let mut secret = [0; 32];
    StdRng::seed_from_u64(seed(ALICE, 1)).fill_bytes(&mut secret);
    let group = fastchat_delivery::header::group_id(CONVERSATION, 0);
    for (what, needle) in [
        ("plaintext", text.as_bytes()),
        ("device key", &secret),
        ("store key", a1.key.expose()),
        ("device id", a1.id().as_bytes()),
        ("conversation id", CONVERSATION.as_bytes()),
        ("group id", group.as_slice()),
        ("public key", &a1.device.public_key()),
        ("label", b"mls/"),
        ("key file", b"outbox"),
        ("PKCS#8 header", &[0x02, 0x01, 0x00, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48]),
    ] {
        assert!(!holds(&dump, needle), "{what}");
    }
    // The search itself works: the same bytes are there once the vault opens them.
    assert!(holds(&a1.vault().get("outbox", b"1").unwrap().unwrap(), text.as_bytes()));
    assert_eq!(Device::load(&a1.vault()).unwrap().unwrap().leaf(), a1.leaf());
}

#[test]
fn identity_keys_come_back_and_sign_alike() {
    let (_, a1, ..) = people();
    assert!(Identity::load(&a1.vault()).unwrap().is_none());
    identity(ALICE).save(&a1.vault()).unwrap();
    let loaded = Identity::load(&a1.vault()).unwrap().unwrap();
    assert_eq!(loaded.fingerprint().unwrap(), identity(ALICE).fingerprint().unwrap());
}

#[test]
fn another_key_or_another_place_opens_nothing() {
    let store = MemoryStore::new();
    let mut rng = StdRng::seed_from_u64(1);
    let (key, other) = (StoreKey::generate(&mut rng), StoreKey::generate(&mut rng));
    let vault = Vault::new(&store, &key);
    vault.put("a", b"1", b"value").unwrap();
    assert_eq!(**vault.get("a", b"1").unwrap().unwrap(), *b"value");
    assert!(Vault::new(&store, &other).get("a", b"1").unwrap().is_none());
    // Someone with the database moves the value to another place.
    use fastchat_e2ee::KeyValue;
    let sealed = store.get(&key.index("a", b"1")).unwrap().unwrap();
    store.put(&key.index("a", b"2"), &sealed).unwrap();
    assert!(matches!(vault.get("a", b"2"), Err(VaultError::Sealed(_))));
    vault.delete("a", b"1").unwrap();
    assert!(vault.get("a", b"1").unwrap().is_none());
}

#[test]
fn a_discarded_conversation_leaves_only_the_device() {
    let (_, a1, _, b1) = people();
    let packages = [b1.package(Suite::Classic)];
    let before = a1.store.dump().len();
    a1.found(Suite::Classic, &packages);
    conversation::discard(&a1.vault(), CONVERSATION).unwrap();
    conversation::discard(&a1.vault(), CONVERSATION).unwrap();
    assert!(conversation::info(&a1.vault(), CONVERSATION).unwrap().is_none());
    // Epoch keys of OpenMLS stay behind at most; they open nothing without the rest.
    assert!(a1.store.dump().len() < before + 4_000, "{} bytes more", a1.store.dump().len() - before);
}

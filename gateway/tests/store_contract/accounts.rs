//! Accounts, manifests, devices, key packages.

use crate::world::{Person, World};
use bytes::Bytes;
use fastchat_gateway::store::Registered;
use fastchat_protocol::{DeviceId, limits::MAX_STORED_KEY_PACKAGES, server::KeyPackagesLeft};

pub(crate) async fn registers_once(world: World) {
    let alice = world.person("alice", 2).await;
    world.store.ping().await.unwrap();
    assert_eq!(world.store.incarnation().await.unwrap(), 1);

    // The same again: its id says that it was there.
    assert_eq!(world.store.register(alice.registration()).await.unwrap(), Registered::IdTaken);
    let mut other = Person::new("other", 1);
    other.name = "alice".to_owned();
    assert_eq!(world.store.register(other.registration()).await.unwrap(), Registered::NameTaken);
    // A device that is somebody's, and nothing of the account stays.
    let mut thief = Person::new("thief", 1);
    thief.devices.push(alice.devices[1]);
    assert_eq!(world.store.register(thief.registration()).await.unwrap(), Registered::IdTaken);
    assert_eq!(world.store.account(thief.account).await.unwrap(), None);
    assert_eq!(world.store.device(thief.devices[0]).await.unwrap(), None);

    let found = world.store.find_account(&"alice".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(Some(found.clone()), world.store.account(alice.account).await.unwrap());
    assert_eq!((found.id, found.manifest), (alice.account, alice.manifest(1).bytes));
    assert_eq!(world.store.find_account(&"nobody".parse().unwrap()).await.unwrap(), None);
    let device = world.store.device(alice.devices[1]).await.unwrap().unwrap();
    assert_eq!(
        (device.account, device.key, device.revoked),
        (alice.account, alice.manifest(1).devices[1].1, false)
    );
    assert_eq!((device.name.as_str(), device.mailbox_head.0), ("alice", 0));
}

pub(crate) async fn accounts_are_found_together_each_with_its_newest_manifest(world: World) {
    let (alice, bob) = (world.person("alice", 1).await, world.person("bob", 1).await);
    assert!(world.store.put_manifest(bob.account, bob.manifest(2)).await.unwrap());
    let nobody = Person::new("nobody", 1).account;
    let found = world.store.accounts(&[alice.account, nobody, bob.account]).await.unwrap();
    let mut found: Vec<_> = found.into_iter().map(|account| (account.id, account.manifest)).collect();
    let mut want = [(alice.account, alice.manifest(1).bytes), (bob.account, bob.manifest(2).bytes)];
    found.sort();
    want.sort();
    assert_eq!(found, want);
    assert_eq!(world.store.accounts(&[]).await.unwrap(), []);
}

pub(crate) async fn a_manifest_follows_the_one_in_force(world: World) {
    let mut alice = world.person("alice", 1).await;
    alice.devices.push(DeviceId::new([7; 16]));
    assert!(!world.store.put_manifest(alice.account, alice.manifest(3)).await.unwrap());
    assert!(world.store.put_manifest(alice.account, alice.manifest(2)).await.unwrap());
    // Repeated, it is the one in force; with other bytes it comes too late.
    assert!(world.store.put_manifest(alice.account, alice.manifest(2)).await.unwrap());
    let mut other = alice.manifest(2);
    other.bytes = "another".into();
    assert!(!world.store.put_manifest(alice.account, other).await.unwrap());
    assert!(!world.store.put_manifest(Person::new("nobody", 0).account, alice.manifest(2)).await.unwrap());

    let mut third = alice.manifest(3);
    third.revoked = vec![third.devices.remove(0).0];
    assert!(world.store.put_manifest(alice.account, third).await.unwrap());
    assert!(world.store.device(alice.devices[0]).await.unwrap().unwrap().revoked);
    assert!(!world.store.device(alice.devices[1]).await.unwrap().unwrap().revoked);
    // Listed again, it stays revoked.
    assert!(world.store.put_manifest(alice.account, alice.manifest(4)).await.unwrap());
    assert!(world.store.device(alice.devices[0]).await.unwrap().unwrap().revoked);
    let account = world.store.account(alice.account).await.unwrap().unwrap();
    assert_eq!(account.manifest, alice.manifest(4).bytes);
}

pub(crate) async fn a_device_is_neither_taken_over_nor_given_another_key(world: World) {
    let (alice, bob) = (world.person("alice", 1).await, world.person("bob", 1).await);
    let mut theft = alice.manifest(2);
    theft.devices.push((bob.devices[0], [1; 32]));
    assert!(!world.store.put_manifest(alice.account, theft).await.unwrap());
    let mut other_key = alice.manifest(2);
    other_key.devices[0].1 = [1; 32];
    assert!(!world.store.put_manifest(alice.account, other_key).await.unwrap());
    let mut foreign = alice.manifest(2);
    foreign.revoked.push(bob.devices[0]);
    assert!(world.store.put_manifest(alice.account, foreign).await.unwrap());
    let device = world.store.device(bob.devices[0]).await.unwrap().unwrap();
    assert_eq!((device.account, device.revoked), (bob.account, false));
}

pub(crate) async fn the_password_changes_only_from_the_one_in_force(world: World) {
    let alice = world.person("alice", 1).await;
    let account = alice.account;
    assert!(!world.store.set_password_hash(account, "wrong", "new").await.unwrap());
    assert!(world.store.set_password_hash(account, "hash of alice", "new").await.unwrap());
    assert!(!world.store.set_password_hash(account, "hash of alice", "newer").await.unwrap());
    assert_eq!(world.store.password_hash(account).await.unwrap().as_deref(), Some("new"));
    assert_eq!(world.store.password_hash(Person::new("nobody", 0).account).await.unwrap(), None);
}

pub(crate) async fn key_packages_are_given_out_once_and_then_the_last_resort(world: World) {
    let alice = world.person("alice", 3).await;
    let [first, second, third] = [0, 1, 2].map(|n| alice.devices[n]);
    let package = |n: u32| Bytes::from(format!("package {n}"));
    let last = Bytes::from("last resort");
    let left =
        world.store.publish_key_packages(first, 1, &[package(1), package(2)], Some(&last)).await.unwrap();
    assert_eq!(left, KeyPackagesLeft { suite: 1, left: 2, last_resort: true });
    let left = world.store.publish_key_packages(second, 1, &[package(3)], None).await.unwrap();
    assert_eq!(left, KeyPackagesLeft { suite: 1, left: 1, last_resort: false });
    world.store.publish_key_packages(third, 2, &[package(4)], None).await.unwrap();

    let claim = async || {
        let claimed = world.claim(alice.account).await;
        let of = |device| claimed.iter().find(|claim| claim.0 == device).map(|claim| claim.1.clone());
        assert_eq!(of(third), None);
        (of(first), of(second))
    };
    assert_eq!(claim().await, (Some(package(1)), Some(package(3))));
    assert_eq!(claim().await, (Some(package(2)), None));
    assert_eq!(claim().await, (Some(last.clone()), None));
    assert_eq!(claim().await, (Some(last.clone()), None));

    let many: Vec<Bytes> = (0..MAX_STORED_KEY_PACKAGES - 1).map(package).collect();
    let newer = Bytes::from("newer");
    world.store.publish_key_packages(first, 1, &many, Some(&newer)).await.unwrap();
    let full =
        world.store.publish_key_packages(first, 1, &[package(1000), package(1001)], None).await.unwrap();
    assert_eq!(full.left, MAX_STORED_KEY_PACKAGES);
    world.store.publish_key_packages(first, 9, &[], Some(&last)).await.unwrap();
    let all = world.store.arrival(first).await.unwrap().unwrap().key_packages;
    let only_last = KeyPackagesLeft { suite: 9, left: 0, last_resort: true };
    assert_eq!(all, [full, only_last]);

    let mut without = alice.manifest(2);
    without.revoked = vec![without.devices.remove(0).0];
    assert!(world.store.put_manifest(alice.account, without).await.unwrap());
    assert_eq!(world.claim(alice.account).await, []);
}

//! What devices that connect are told.

use crate::world::{Person, World, group};
use bytes::Bytes;
use fastchat_gateway::store::{Arrival, operate::Quotas};
use fastchat_protocol::{DeviceId, Role, Seq, server::KeyPackagesLeft};

const BY: &str = "test";

pub(crate) async fn a_session_begins_with_all_that_the_store_knows_of_its_device(world: World) {
    let (alice, bob) = (world.person("alice", 2).await, world.person("bob", 1).await);
    let (store, device) = (&world.store, alice.devices[1]);
    let known = store.device(device).await.unwrap().unwrap();
    let bare =
        Arrival { device: known, sole: false, incarnation: 1, groups: Vec::new(), key_packages: Vec::new() };
    assert_eq!(store.arrival(device).await.unwrap().unwrap(), bare);

    // A direct conversation is no group.
    world.direct(&alice, &bob).await;
    let mut groups = Vec::new();
    for name in ["g", "h", "i"] {
        let founding = group(name, &[(&alice, Role::Owner), (&bob, Role::Member)]);
        groups.push(founding.conversation);
        store.found_group(founding).await.unwrap();
    }
    groups.sort();
    let packages = ["one", "two"].map(Bytes::from);
    store.publish_key_packages(device, 3, &packages, None).await.unwrap();
    store.publish_key_packages(device, 1, &packages[..1], Some(&"last".into())).await.unwrap();
    let quotas = Quotas { sends_per_second: Some(7), ..Quotas::default() };
    store.set_quotas(BY, alice.account, quotas).await.unwrap();
    store.set_visible(alice.account, false).await.unwrap();
    store.begin_incarnation(9).await.unwrap();

    let arrival = store.arrival(device).await.unwrap().unwrap();
    assert_eq!(Some(&arrival.device), store.device(device).await.unwrap().as_ref());
    assert_eq!((arrival.device.sends_per_second, arrival.device.visible), (Some(7), false));
    assert!(arrival.device.mailbox_head > Seq(0));
    assert_eq!((arrival.incarnation, &arrival.groups), (9, &groups));
    // One-time packages are gone with the restoration.
    let left = KeyPackagesLeft { suite: 1, left: 0, last_resort: true };
    assert_eq!(arrival.key_packages, [left]);
    store.publish_key_packages(device, 3, &packages, None).await.unwrap();
    let both = [left, KeyPackagesLeft { suite: 3, left: 2, last_resort: false }];
    assert_eq!(store.arrival(device).await.unwrap().unwrap().key_packages, both);
}

pub(crate) async fn devices_are_found_together_and_strangers_left_out(world: World) {
    let (alice, bob) = (world.person("alice", 2).await, world.person("bob", 1).await);
    let store = &world.store;
    let founding = group("g", &[(&bob, Role::Owner)]);
    store.found_group(founding.clone()).await.unwrap();
    let mut without = alice.manifest(2);
    without.revoked = vec![without.devices.remove(0).0];
    assert!(store.put_manifest(alice.account, without).await.unwrap());
    assert!(store.set_disabled(BY, bob.account, true).await.unwrap());

    let asked: Vec<DeviceId> =
        [&alice.devices[..], &bob.devices, &Person::new("nobody", 1).devices, &alice.devices[..1]].concat();
    let mut known = store.known_devices(&asked).await.unwrap();
    known.sort_by_key(|(id, _)| *id);
    known.dedup();
    let mut arrived = store.arrivals(&asked).await.unwrap();
    arrived.sort_by_key(|(id, _)| *id);
    arrived.dedup();
    let said: Vec<_> = arrived.iter().map(|(id, arrival)| (*id, arrival.device.clone())).collect();
    assert_eq!(known, said);
    let of = |id: DeviceId| &arrived.iter().find(|(known, _)| *known == id).unwrap().1;
    assert_eq!(arrived.len(), 3);
    let flags = |id| (of(id).device.account, of(id).device.revoked, of(id).device.disabled);
    assert_eq!(flags(alice.devices[0]), (alice.account, true, false));
    assert_eq!(flags(alice.devices[1]), (alice.account, false, false));
    assert_eq!(flags(bob.devices[0]), (bob.account, false, true));
    assert_eq!(of(bob.devices[0]).groups, [founding.conversation]);
    // Who was revoked is nobody's company.
    assert_eq!([0, 1].map(|at| of(alice.devices[at]).sole), [false, true]);
    assert!(of(bob.devices[0]).sole);
    assert_eq!(store.arrivals(&[]).await.unwrap(), []);
    assert_eq!(store.known_devices(&[]).await.unwrap(), []);
}

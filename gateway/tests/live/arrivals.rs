//! Devices that come back: what is looked up when, and what happens to them meanwhile.

use crate::kit::{Client, Person, World};
use async_trait::async_trait;
use bytes::Bytes;
use fastchat_gateway::{
    bus::{Bus, Waiting, local::LocalBus},
    config::Settings,
    store::{NewManifest, Store},
};
use fastchat_protocol::{AccountId, Code, DeviceId, ServerFrame, bus::Subject};
use futures_util::future::join_all;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// Revokes a device of the account whose subject is subscribed to: after its proof, before its session.
#[derive(Debug)]
struct Revoking(LocalBus, Arc<dyn Store>);

#[async_trait]
impl Bus for Revoking {
    async fn subscribe(&self, subject: Subject) {
        let Subject::User(account) = subject else { panic!("nobody is in a group") };
        assert!(revoke(&*self.1, account).await);
        self.0.subscribe(subject).await;
    }

    async fn subscribe_all(&self, subjects: &[Subject]) {
        self.0.subscribe_all(subjects).await;
    }

    fn publish(&self, subject: Subject, record: Bytes) {
        self.0.publish(subject, record);
    }

    fn unsubscribe(&self, subject: Subject) {
        self.0.unsubscribe(subject);
    }

    fn is_up(&self) -> bool {
        self.0.is_up()
    }

    fn waiting(&self) -> Waiting {
        self.0.waiting()
    }
}

/// As the kit numbers devices.
async fn revoke(store: &dyn Store, account: AccountId) -> bool {
    let device = DeviceId::new([account.as_bytes()[0] + 100; 16]);
    let bytes = Bytes::from_static(b"without it");
    let next = NewManifest { version: 2, bytes, devices: Vec::new(), revoked: vec![device] };
    store.put_manifest(account, next).await.expect("it answers")
}

fn refused(answer: ServerFrame) -> (Code, String) {
    match answer {
        ServerFrame::Refused(refusal) => (refusal.code, refusal.detail),
        other => panic!("no refusal: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_revoked_before_its_proof_is_refused() {
    let world = World::new().await;
    let place = world.gateway();
    let alice = world.person(&place, 1).await;
    let (mut client, nonce) = Client::dial(&place).await;
    assert!(revoke(&*world.store, alice.account).await);
    assert_eq!(refused(client.ask(alice.resume(&place, &nonce)).await).0, Code::Revoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_revoked_between_proof_and_session_is_refused() {
    let world = World::new().await;
    let (bus, events) = world.hub.join();
    let bus = Revoking(bus, Arc::clone(&world.store));
    let place = world.start(world.config(Settings::default()), bus, events);
    let alice = world.person(&place, 1).await;
    let (mut client, nonce) = Client::dial(&place).await;
    assert_eq!(refused(client.ask(alice.resume(&place, &nonce)).await).0, Code::Revoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_restored_lets_nobody_in_and_ends_the_gateway() {
    let world = World::new().await;
    let place = world.gateway();
    let alice = world.person(&place, 1).await;
    drop(alice.connect(&place).await);
    let (mut client, nonce) = Client::dial(&place).await;
    world.store.begin_incarnation(5).await.expect("it begins");
    let (code, detail) = refused(client.ask(alice.resume(&place, &nonce)).await);
    assert!(code == Code::Unavailable && detail.contains("restored"), "{code:?} {detail}");
    let ends = place.gateway.drain_asked.notified();
    timeout(Duration::from_secs(30), ends).await.expect("the gateway ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_come_at_once_get_each_their_own_session() {
    let world = World::new().await;
    let place = world.gateway();
    let people: Vec<_> = join_all((0..40).map(|number| world.person(&place, number))).await;
    let strangers: Vec<_> = (40..50).map(Person::unknown).collect();
    let everybody = people.iter().map(|person| (person, true)).chain(strangers.iter().map(|p| (p, false)));
    let coming = everybody.map(async |(person, known)| {
        let (mut client, nonce) = Client::dial(&place).await;
        match client.ask(person.resume(&place, &nonce)).await {
            ServerFrame::Session(session) => {
                assert!(known);
                assert_eq!((session.account, session.device), (person.account, person.device));
            }
            other => assert_eq!((refused(other).0, known), (Code::BadCredentials, false)),
        }
    });
    join_all(coming).await;
}

//! A conversation of two across gateways: who gets a record on the bus, and who needs none.

use crate::kit::{Client, Live, Person, Place, World};
use fastchat_gateway::store::NewDirect;
use fastchat_protocol::{ConversationId, Epoch, ServerFrame, bus::Subject};
use std::{sync::atomic::Ordering, time::Duration};

pub(crate) const DIRECT: ConversationId = ConversationId::new([66; 16]);

/// Alice and Bob, who have one device each, are both at the first gateway.
struct Scene {
    world: World,
    here: Place,
    there: Place,
    alice: Client,
    bob: Client,
    bob_is: Person,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new().await;
        let (here, there) = (world.gateway(), world.gateway());
        let (alice, bob) = (world.person(&here, 1).await, world.person(&here, 2).await);
        world.store.found_direct(founding(&alice, &bob)).await.expect("it answers");
        let (alice, connected) = (alice.connect(&here).await, bob.connect(&here).await);
        Self { world, here, there, alice, bob: connected, bob_is: bob }
    }

    /// Alice says something; what was published for it.
    async fn say(&mut self, counter: u64) -> Vec<Subject> {
        let published = || std::mem::take(&mut *self.here.published.lock().expect("nobody panics"));
        published();
        assert!(matches!(self.alice.say(DIRECT, counter).await, ServerFrame::Sent(_)));
        published()
    }

    /// Waits until the first gateway knows that somebody of Bob may be elsewhere.
    async fn until_company(&self) {
        let company = || {
            let handles = self.here.gateway.registry.find(self.bob_is.account, None);
            handles.iter().all(|handle| handle.company.load(Ordering::Relaxed))
        };
        while !company() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) fn founding(founder: &Person, peer: &Person) -> NewDirect {
    let epoch = Epoch { generation: 0, number: 1 };
    NewDirect {
        conversation: DIRECT,
        device: founder.device,
        account: founder.account,
        peer: peer.account,
        suite: 1,
        epoch,
        group_info: "info".into(),
        state: "state".into(),
        tree: "tree".into(),
        joins: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_device_elsewhere_needs_no_record_until_one_connects() {
    let mut scene = Scene::new().await;
    assert_eq!(scene.say(1).await, []);
    assert_eq!(scene.bob.live().await, Live::Row(2));

    let laptop = scene.bob_is.another_device(&scene.world).await;
    let mut laptop = laptop.connect(&scene.there).await;
    scene.until_company().await;
    assert_eq!(scene.say(2).await, [Subject::User(scene.bob_is.account)]);
    assert_eq!((scene.bob.live().await, laptop.live().await), (Live::Row(3), Live::Row(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bus_lost_may_have_been_a_second_device() {
    let mut scene = Scene::new().await;
    let laptop = scene.bob_is.another_device(&scene.world).await;
    scene.world.hub.set_up(false);
    let mut laptop = laptop.connect(&scene.there).await;
    scene.world.hub.set_up(true);
    scene.until_company().await;
    assert_eq!(scene.say(1).await.len(), 2, "nor is it known of Alice any more");
    assert_eq!((scene.bob.live().await, laptop.live().await), (Live::Row(2), Live::Row(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_two_devices_or_moves_is_told_at_every_gateway() {
    let mut scene = Scene::new().await;
    // It has moved, and its old connection has not gone yet.
    let mut moved = scene.bob_is.connect(&scene.there).await;
    scene.until_company().await;
    assert_eq!(scene.say(1).await, [Subject::User(scene.bob_is.account)]);
    assert_eq!(moved.live().await, Live::Row(2));

    scene.bob_is.another_device(&scene.world).await;
    let mut back = scene.bob_is.connect(&scene.here).await;
    assert_eq!(scene.say(2).await, [Subject::User(scene.bob_is.account)], "the other may be anywhere");
    assert_eq!(back.live().await, Live::Row(3));
}

//! A conversation of two across gateways: who gets a record on the bus, and who needs none.

use crate::kit::{Client, Live, PATIENCE, Person, Place, World};
use fastchat_gateway::store::NewDirect;
use fastchat_protocol::{AccountId, ConversationId, Epoch, ServerFrame, bus::Subject};
use std::{sync::atomic::Ordering, time::Duration};
use tokio::time::timeout;

pub(crate) const DIRECT: ConversationId = ConversationId::new([66; 16]);

/// Alice and Bob, who have one device each, are both at the first gateway.
struct Scene {
    world: World,
    here: Place,
    there: Place,
    alice: Client,
    bob: Client,
    people: [Person; 2],
}

impl Scene {
    async fn new() -> Self {
        let world = World::new().await;
        let (here, there) = (world.gateway(), world.gateway());
        let people = [world.person(&here, 1).await, world.person(&here, 2).await];
        world.store.found_direct(founding(&people[0], &people[1])).await.expect("it answers");
        let (alice, bob) = (people[0].connect(&here).await, people[1].connect(&here).await);
        Self { world, here, there, alice, bob, people }
    }

    /// Alice says something, which the first gateway hands out about when she has her answer.
    async fn say(&mut self, counter: u64) {
        assert!(matches!(self.alice.say(DIRECT, counter).await, ServerFrame::Sent(_)));
    }

    /// What the first gateway has published since it was asked last.
    fn published(&self) -> Vec<Subject> {
        std::mem::take(&mut *self.here.published.lock().expect("nobody panics"))
    }

    /// Waits until the first gateway knows that devices of these accounts may be elsewhere.
    async fn until_company(&self, accounts: &[AccountId]) {
        let handles = |account: &AccountId| self.here.gateway.registry.find(*account, None);
        let company =
            || accounts.iter().flat_map(handles).all(|handle| handle.company.load(Ordering::Relaxed));
        let until = async {
            while !company() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, until).await.expect("it knows");
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
    let bob = scene.people[1].account;
    scene.published();
    scene.say(1).await;
    // Its answer comes after the first was handed out.
    scene.say(2).await;
    assert_eq!((scene.bob.live().await, scene.bob.live().await), (Live::Row(2), Live::Row(3)));
    assert_eq!(scene.published(), []);

    let laptop = scene.people[1].another_device(&scene.world).await;
    let mut laptop = laptop.connect(&scene.there).await;
    scene.until_company(&[bob]).await;
    scene.say(3).await;
    assert_eq!((scene.bob.live().await, laptop.live().await), (Live::Row(4), Live::Row(4)));
    assert_eq!(scene.published(), [Subject::User(bob)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bus_lost_may_have_been_a_second_device() {
    let mut scene = Scene::new().await;
    let both = [0, 1].map(|at| scene.people[at].account);
    let laptop = scene.people[1].another_device(&scene.world).await;
    scene.world.hub.set_up(false);
    let mut laptop = laptop.connect(&scene.there).await;
    scene.world.hub.set_up(true);
    scene.until_company(&both).await;
    scene.published();
    scene.say(1).await;
    assert_eq!((scene.bob.live().await, laptop.live().await), (Live::Row(2), Live::Row(2)));
    assert_eq!(scene.published(), both.map(Subject::User));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_two_devices_or_moves_is_told_at_every_gateway() {
    let mut scene = Scene::new().await;
    let bob = scene.people[1].account;
    // It has moved, and its old connection has not gone yet.
    let mut moved = scene.people[1].connect(&scene.there).await;
    scene.until_company(&[bob]).await;
    scene.published();
    scene.say(1).await;
    assert_eq!(moved.live().await, Live::Row(2));
    assert_eq!(scene.published(), [Subject::User(bob)]);

    scene.people[1].another_device(&scene.world).await;
    let mut back = scene.people[1].connect(&scene.here).await;
    scene.published();
    scene.say(2).await;
    assert_eq!(back.live().await, Live::Row(3));
    // The other device may be anywhere.
    scene.say(3).await;
    assert_eq!(scene.published().first(), Some(&Subject::User(bob)));
}

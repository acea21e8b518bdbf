//! A group across two gateways: one publish a row, and nothing live for who is out.

use crate::kit::{Client, Live, Person, Place, World};
use bytes::Bytes;
use fastchat_gateway::store::{Join, NewCommit, NewGroup, Outcome};
use fastchat_protocol::{
    ClientFrame, Code, ConversationId, Counter, Epoch, Role, ServerFrame,
    bus::Subject,
    client::{AskPresence, SetVisible},
};

pub(crate) const GROUP: ConversationId = ConversationId::new([77; 16]);

/// Alice owns a group with Bob and Carol. Alice is on the first gateway, the others on the second.
pub(crate) struct Scene {
    world: World,
    pub(crate) here: Place,
    pub(crate) there: Place,
    pub(crate) people: [Person; 3],
    pub(crate) alice: Client,
    pub(crate) bob: Client,
    pub(crate) carol: Client,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let world = World::new().await;
        let (here, there) = (world.gateway(), world.gateway());
        let people =
            [world.person(&here, 1).await, world.person(&here, 2).await, world.person(&here, 3).await];
        world.store.found_group(founding(&[&people[0], &people[1], &people[2]])).await.expect("it answers");
        let alice = people[0].connect(&here).await;
        let (bob, carol) = (people[1].connect(&there).await, people[2].connect(&there).await);
        Self { world, here, there, people, alice, bob, carol }
    }

    /// Removes Bob behind both gateways: no record of it comes to either.
    pub(crate) async fn remove_bob(&self, counter: u64) -> u64 {
        let [alice, bob, _] = &self.people;
        let commit = NewCommit {
            conversation: GROUP,
            device: alice.device,
            counter: Counter(counter),
            parent: epoch(1),
            // The same keys go on, so that the test's envelopes are still of the epoch in force.
            epoch: epoch(2),
            commit: "commit".into(),
            group_info: "info 2".into(),
            state: "state 2".into(),
            tree: "tree 2".into(),
            membership_changed: false,
            joins: Vec::new(),
            removes: vec![bob.device],
            members: vec![(bob.account, None)],
        };
        match self.world.store.append_commit(commit).await.expect("it answers").outcome {
            Outcome::Stored(stored) => stored.seq.0,
            other => panic!("not stored: {other:?}"),
        }
    }
}

fn epoch(number: u64) -> Epoch {
    Epoch { generation: 0, number }
}

pub(crate) fn founding(people: &[&Person; 3]) -> NewGroup {
    let welcome = Some(Bytes::from_static(b"welcome"));
    let role = |at| if at == 0 { Role::Owner } else { Role::Member };
    NewGroup {
        conversation: GROUP,
        device: people[0].device,
        counter: Counter(0),
        parent: None,
        suite: 1,
        epoch: epoch(1),
        group_info: "info 1".into(),
        state: "state 1".into(),
        tree: "tree 1".into(),
        members: people.iter().enumerate().map(|(at, person)| (person.account, role(at))).collect(),
        joins: people[1..]
            .iter()
            .map(|person| Join { device: person.device, welcome: welcome.clone() })
            .collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_published_once_and_reaches_every_member_elsewhere() {
    let mut scene = Scene::new().await;
    scene.here.published.lock().expect("nobody panics").clear();
    assert!(matches!(scene.alice.say(GROUP, 1).await, ServerFrame::Sent(_)));
    assert_eq!((scene.bob.live().await, scene.carol.live().await), (Live::Row(2), Live::Row(2)));
    assert_eq!(*scene.here.published.lock().expect("nobody panics"), [Subject::Group(GROUP)]);
    assert!(scene.alice.rest().await.is_empty(), "the sender has its answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_out_hears_nothing_after_that_row_though_its_gateway_was_never_told() {
    let mut scene = Scene::new().await;
    assert!(matches!(scene.alice.say(GROUP, 1).await, ServerFrame::Sent(_)));
    assert_eq!((scene.bob.live().await, scene.carol.live().await), (Live::Row(2), Live::Row(2)));

    assert_eq!(scene.remove_bob(2).await, 3);
    assert!(matches!(scene.alice.say(GROUP, 3).await, ServerFrame::Sent(_)));
    assert_eq!(scene.carol.live().await, Live::Row(4));
    assert_eq!(scene.bob.live().await, Live::Head(3), "where its log ends");
    assert!(matches!(scene.alice.say(GROUP, 4).await, ServerFrame::Sent(_)));
    assert_eq!(scene.carol.live().await, Live::Row(5));
    assert_eq!(scene.bob.rest().await, []);

    match scene.bob.say(GROUP, 1).await {
        ServerFrame::Refused(refusal) => assert_eq!(refusal.code, Code::NotMember),
        other => panic!("a removed member sent: {other:?}"),
    }
    assert_eq!(scene.carol.rest().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_reader_takes_the_subscription_with_it_and_the_next_brings_it_back() {
    let mut scene = Scene::new().await;
    let (bob, carol) = (scene.bob, scene.carol);
    drop((bob, carol));
    while scene.there.gateway.registry.connections() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(matches!(scene.alice.say(GROUP, 1).await, ServerFrame::Sent(_)));
    let mut bob = scene.people[1].connect(&scene.there).await;
    assert!(matches!(scene.alice.say(GROUP, 2).await, ServerFrame::Sent(_)));
    let mut first = bob.live().await;
    if first == Live::Row(2) {
        // On its way to whoever had just gone; a busy machine hands it to whoever has just come.
        first = bob.live().await;
    }
    assert_eq!(first, Live::Row(3), "what came before is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_is_told_to_members_unless_it_is_hidden() {
    let mut scene = Scene::new().await;
    let bob = scene.people[1].account;
    let ask = || ClientFrame::AskPresence(AskPresence { accounts: vec![bob], watch_s: 0 });
    assert!(matches!(
        scene.bob.ask(ClientFrame::SetVisible(SetVisible { visible: true })).await,
        ServerFrame::Done(_)
    ));
    assert!(matches!(scene.alice.ask(ask()).await, ServerFrame::Done(_)));
    assert_eq!(scene.alice.live().await, Live::Online(bob));
    assert!(matches!(
        scene.bob.ask(ClientFrame::SetVisible(SetVisible { visible: false })).await,
        ServerFrame::Done(_)
    ));
    assert!(matches!(scene.alice.ask(ask()).await, ServerFrame::Done(_)));
    assert_eq!(scene.alice.rest().await, []);
}

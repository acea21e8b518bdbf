//! Receipts, typing and presence across two gateways, and who hears none of it.

use crate::{
    groups::{GROUP, Scene},
    kit::{Client, Live, Place},
};
use fastchat_protocol::{
    AccountId, ClientFrame, Code, ConversationId, Seq, ServerFrame,
    client::{Ack, AskPresence, Cursor, GetReceipts, MarkRead, SetSharing, SetVisible, Typing},
    server::{self, Presence, Receipt},
};
use std::time::Duration;

fn mark(seq: u64, shared: bool) -> ClientFrame {
    ClientFrame::MarkRead(MarkRead { conversation: GROUP, seq: Seq(seq), shared })
}

fn ack(seq: u64) -> ClientFrame {
    let cursor = Cursor { conversation: GROUP, seq: Seq(seq), authenticator: None };
    ClientFrame::Ack(Ack { cursors: vec![cursor] })
}

fn typing(conversation: ConversationId) -> ClientFrame {
    ClientFrame::Typing(Typing { conversation, typing: true })
}

impl Client {
    /// The next receipt.
    async fn receipt(&mut self) -> Receipt {
        loop {
            if let ServerFrame::Receipt(receipt) = self.frame().await {
                return receipt;
            }
        }
    }

    /// The next account that types.
    async fn typist(&mut self) -> AccountId {
        loop {
            if let ServerFrame::Typing(server::Typing { account, .. }) = self.frame().await {
                return account;
            }
        }
    }

    /// The next news of somebody's presence.
    async fn presence(&mut self) -> Presence {
        loop {
            if let ServerFrame::Presence(presence) = self.frame().await {
                return presence;
            }
        }
    }

    async fn watch(&mut self, account: AccountId) {
        let ask = ClientFrame::AskPresence(AskPresence { accounts: vec![account], watch_s: 60 });
        assert!(matches!(self.ask(ask).await, ServerFrame::Done(_)));
    }

    async fn refused(&mut self, frame: ClientFrame) -> Code {
        match self.ask(frame).await {
            ServerFrame::Refused(refusal) => refusal.code,
            other => panic!("it was not refused: {other:?}"),
        }
    }
}

/// What comes of a question, the answer itself left out.
async fn asked(client: &mut Client, who: AccountId) -> Vec<Presence> {
    // Not as a request: what comes before its answer counts, too.
    client.tell(ClientFrame::AskPresence(AskPresence { accounts: vec![who], watch_s: 0 })).await;
    let presence = |frame| if let ServerFrame::Presence(presence) = frame { Some(presence) } else { None };
    client.rest().await.into_iter().filter_map(presence).collect()
}

async fn until_empty(place: &Place) {
    while place.gateway.registry.connections() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_cross_gateways_and_those_that_are_forged_do_nothing() {
    let mut scene = Scene::new().await;
    assert!(matches!(scene.alice.say(GROUP, 1).await, ServerFrame::Sent(_)));
    assert_eq!(scene.bob.live().await, Live::Row(2));
    let (bob, conversation) = (scene.people[1].account, GROUP);
    scene.bob.tell(ack(2)).await;
    let received = Receipt { conversation, account: bob, delivered: Some(Seq(2)), read: None };
    assert_eq!(scene.alice.receipt().await, received);
    assert!(matches!(scene.bob.ask(mark(2, true)).await, ServerFrame::Done(_)));
    let read = Receipt { delivered: None, read: Some(Seq(2)), ..received };
    assert_eq!((scene.alice.receipt().await, scene.carol.receipt().await.account), (read, bob));

    // Beyond the head, backwards, and privately: nobody hears of it.
    assert_eq!(scene.bob.refused(mark(9, true)).await, Code::NotMember);
    scene.bob.tell(ack(9)).await;
    assert!(matches!(scene.bob.ask(mark(1, true)).await, ServerFrame::Done(_)));
    assert!(matches!(scene.alice.say(GROUP, 2).await, ServerFrame::Sent(_)));
    assert!(matches!(scene.bob.ask(mark(3, false)).await, ServerFrame::Done(_)));
    let ask = ClientFrame::GetReceipts(GetReceipts { conversation });
    let ServerFrame::Receipts(all) = scene.alice.ask(ask).await else { panic!("no receipts") };
    let of_bob = all.members.iter().find(|one| one.account == bob).expect("he is in");
    assert_eq!((of_bob.delivered, of_bob.read), (Some(Seq(2)), Some(Seq(2))));
    let heard = scene.carol.rest().await;
    let beyond = |frame: &ServerFrame| matches!(frame, ServerFrame::Receipt(told) if told.read > Some(Seq(2)) || told.delivered > Some(Seq(2)) && told.account == bob);
    assert!(!heard.iter().any(beyond), "{heard:?}");

    // Whoever does not share what it has received tells nothing.
    let sharing = SetSharing { delivered: false, last_seen: true };
    assert!(matches!(scene.bob.ask(ClientFrame::SetSharing(sharing)).await, ServerFrame::Done(_)));
    scene.bob.tell(ack(3)).await;
    assert_eq!(scene.alice.rest().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_out_hears_of_nobody_and_nobody_of_it() {
    let mut scene = Scene::new().await;
    assert!(matches!(scene.alice.say(GROUP, 1).await, ServerFrame::Sent(_)));
    assert_eq!((scene.bob.live().await, scene.carol.live().await), (Live::Row(2), Live::Row(2)));
    assert_eq!(scene.remove_bob(2).await, 3);
    // Bob's gateway has not heard that he is out; a receipt that the store believed since says so.
    assert!(matches!(scene.alice.ask(mark(3, true)).await, ServerFrame::Done(_)));
    assert_eq!(scene.carol.receipt().await.read, Some(Seq(3)));
    assert_eq!(scene.bob.live().await, Live::Head(3), "where its log ends");
    assert_eq!(scene.bob.refused(mark(2, true)).await, Code::NotMember);
    assert_eq!(
        scene.bob.refused(ClientFrame::GetReceipts(GetReceipts { conversation: GROUP })).await,
        Code::NotMember
    );
    scene.bob.tell(typing(GROUP)).await;
    scene.bob.tell(ack(3)).await;
    assert_eq!(scene.bob.rest().await, []);
    assert_eq!((scene.alice.rest().await, scene.carol.rest().await), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_reaches_the_other_gateway_once_in_a_while_and_before_anybody_spoke() {
    let mut scene = Scene::new().await;
    for _ in 0..5 {
        scene.alice.tell(typing(GROUP)).await;
    }
    let alice = scene.people[0].account;
    assert_eq!((scene.bob.typist().await, scene.carol.typist().await), (alice, alice));
    let is_typing = |frame: &ServerFrame| matches!(frame, ServerFrame::Typing(_));
    let rest = scene.bob.rest().await;
    assert!(!rest.iter().any(is_typing), "one in three seconds: {rest:?}");
    assert!(!scene.alice.rest().await.iter().any(is_typing), "who types knows");
    scene.bob.tell(typing(ConversationId::new([9; 16]))).await;
    assert_eq!(scene.carol.rest().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_told_of_comings_and_goings_and_connecting_costs_nothing() {
    let scene = Scene::new().await;
    let Scene { here, there, people, mut alice, bob, carol, .. } = scene;
    let who = people[1].account;
    drop((bob, carol));
    until_empty(&there).await;
    let clear = |place: &Place| place.published.lock().expect("nobody panics").clear();

    // Nobody looks: a connection says that it is there, and no more.
    clear(&there);
    let bob = people[1].connect(&there).await;
    assert_eq!(there.published.lock().expect("nobody panics").len(), 1, "Connected alone");
    drop(bob);
    until_empty(&there).await;

    alice.watch(who).await;
    let away = alice.presence().await;
    assert!(!away.online && away.account == who);
    let mut bob = people[1].connect(&there).await;
    assert!(alice.presence().await.online);
    // A reconnect is no news, also by way of the other gateway.
    drop(bob);
    until_empty(&there).await;
    bob = people[1].connect(&here).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(alice.rest().await, []);
    drop(bob);
    let gone = alice.presence().await;
    assert!(!gone.online && gone.last_seen_ms.is_some());

    // Who is hidden is gone at once, and tells nothing of when it was there.
    let mut bob = people[1].connect(&there).await;
    assert!(alice.presence().await.online);
    assert!(matches!(
        bob.ask(ClientFrame::SetVisible(SetVisible { visible: false })).await,
        ServerFrame::Done(_)
    ));
    assert!(!alice.presence().await.online);
}

#[tokio::test(flavor = "multi_thread")]
async fn last_seen_is_told_to_who_asks_unless_it_is_switched_off() {
    let mut scene = Scene::new().await;
    let who = scene.people[1].account;
    drop(scene.bob);
    // Stored a moment later.
    let seen = loop {
        if let [Presence { online: false, last_seen_ms: Some(seen), .. }] =
            asked(&mut scene.alice, who).await[..]
        {
            break seen;
        }
    };
    assert!(seen > 1_700_000_000_000);
    let mut bob = scene.people[1].connect(&scene.there).await;
    let sharing = SetSharing { delivered: true, last_seen: false };
    assert!(matches!(bob.ask(ClientFrame::SetSharing(sharing)).await, ServerFrame::Done(_)));
    drop(bob);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(asked(&mut scene.alice, who).await, []);
}

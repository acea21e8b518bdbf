//! Sessions without a device: what they prove, and how little they may ask.

use crate::kit::{Client, World, auth_key};
use fastchat_gateway::store::Recovery;
use fastchat_protocol::{
    Bytes, ClientFrame, Code, ServerFrame, SlotId,
    client::{DeleteAccount, GetSlot, Link, PutSlot, Recover, Sync},
};
use sha2::{Digest, Sha256};

const SLOT: SlotId = SlotId::new([5; 16]);

fn code(frame: &ServerFrame) -> Option<Code> {
    match frame {
        ServerFrame::Refused(refusal) => Some(refusal.code),
        _ => None,
    }
}

fn link(name: &str, letter: char) -> ClientFrame {
    ClientFrame::Link(Link { name: name.into(), auth_key: auth_key(letter) })
}

fn recover(name: &str, letter: char) -> ClientFrame {
    ClientFrame::Recover(Recover { name: name.into(), recovery_key: auth_key(letter) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_opens_slots_and_nothing_else() {
    let world = World::new().await;
    let place = world.gateway();
    let alice = world.person(&place, 1).await;
    let (mut guest, _) = Client::dial(&place).await;
    match guest.ask(link(&alice.name, 'a')).await {
        ServerFrame::Restricted(told) => {
            assert_eq!((told.account, told.recovery), (alice.account, None));
        }
        other => panic!("not let in: {other:?}"),
    }
    assert_eq!(place.gateway.registry.connections(), 0);
    let put = PutSlot { slot: SLOT, part: 0, bytes: Bytes::from_static(b"offer"), expires_in_s: 600 };
    assert!(matches!(guest.ask(ClientFrame::PutSlot(put)).await, ServerFrame::Done(_)));
    assert_eq!(code(&guest.ask(ClientFrame::Sync(Sync::default())).await), Some(Code::Unexpected));

    let mut device = alice.connect(&place).await;
    match device.ask(ClientFrame::GetSlot(GetSlot { slot: SLOT, part: 0 })).await {
        ServerFrame::Slot(slot) => assert_eq!(slot.bytes, Some(Bytes::from_static(b"offer"))),
        other => panic!("no slot: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_names_and_wrong_secrets_are_answered_alike() {
    let world = World::new().await;
    let place = world.gateway();
    let alice = world.person(&place, 1).await;
    let bob = world.person(&place, 2).await;
    let recovery = Recovery {
        key_hash: Sha256::digest(auth_key('r').expose()).into(),
        sealed: Bytes::from_static(b"sealed keys"),
    };
    world.store.set_recovery(alice.account, recovery).await.expect("it answers");
    let mut links = Vec::new();
    for frame in [link(&alice.name, 'b'), link("nobody", 'a'), link("No Name!", 'a')] {
        links.push(Client::dial(&place).await.0.ask(frame).await);
    }
    assert_eq!(code(&links[0]), Some(Code::BadCredentials));
    assert!(links.iter().all(|answer| *answer == links[0]), "{links:?}");
    let mut recovers = Vec::new();
    for frame in [recover(&alice.name, 'b'), recover(&bob.name, 'r'), recover("nobody", 'r')] {
        recovers.push(Client::dial(&place).await.0.ask(frame).await);
    }
    assert_eq!(code(&recovers[0]), Some(Code::BadCredentials));
    assert!(recovers.iter().all(|answer| *answer == recovers[0]), "{recovers:?}");
    match Client::dial(&place).await.0.ask(recover(&alice.name, 'r')).await {
        ServerFrame::Restricted(told) => assert_eq!(told.recovery, Some(Bytes::from_static(b"sealed keys"))),
        other => panic!("not let in: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_at_a_name_are_few() {
    let world = World::new().await;
    let place = world.gateway();
    let mut answers = Vec::new();
    for _ in 0..21 {
        answers.push(Client::dial(&place).await.0.ask(recover("nobody", 'r')).await);
    }
    assert!(answers[..20].iter().all(|answer| code(answer) == Some(Code::BadCredentials)), "{answers:?}");
    match &answers[20] {
        ServerFrame::Refused(refusal) => {
            assert_eq!(refusal.code, Code::RateLimited);
            assert!(refusal.wait_ms.is_some());
        }
        other => panic!("guessed on: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_password_ends_an_account() {
    let world = World::new().await;
    let place = world.gateway();
    let alice = world.person(&place, 1).await;
    let mut device = alice.connect(&place).await;
    let delete = |letter| ClientFrame::DeleteAccount(DeleteAccount { auth_key: auth_key(letter) });
    assert_eq!(code(&device.ask(delete('b')).await), Some(Code::BadCredentials));
    assert!(
        world.store.find_account(&alice.name.parse().expect("a name")).await.expect("it answers").is_some()
    );
}

//! Sealing and opening, and everything that a gateway or a network can do to an envelope.

use crate::kit::*;
use fastchat_delivery::{Suite, header};
use fastchat_e2ee::conversation::{self, ConversationError, OpenError, Opened};
use fastchat_protocol::{Bytes, ConversationId, Counter, Epoch};

fn flip(bytes: &[u8], at: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes.into()
}

#[test]
fn everybody_reads_everybody_in_both_suites() {
    for suite in Suite::ALL {
        let (mut service, mut a1, mut a2, mut b1) = meet(suite);
        assert_eq!(a1.info().suite, suite);
        assert_eq!(a1.info().members.len(), 3);
        for sender in 0..3 {
            let text = format!("from {sender}");
            let peers = [&mut a1, &mut a2, &mut b1];
            let (counter, sealed) = peers[sender].seal(&text);
            let row = service.send(peers[sender].id(), counter, sealed.envelope).unwrap();
            for (index, peer) in peers.iter().enumerate() {
                if index == sender {
                    assert!(matches!(peer.open_row(&row).unwrap(), Opened::OwnMessage));
                } else {
                    assert_eq!(peer.read(&row), text);
                }
            }
        }
        assert_eq!(a1.info().epoch_authenticator_hash, b1.info().epoch_authenticator_hash);
    }
}

#[test]
fn alone_with_oneself() {
    let (manifests, mut a1, ..) = people();
    let founding = a1.found(Suite::PostQuantum, &[]);
    assert!(founding.welcomes.is_empty());
    let mut service = Service::found(&founding, a1.id(), &manifests);
    let (counter, sealed) = a1.seal("note");
    let row = service.send(a1.id(), counter, sealed.envelope).unwrap();
    assert!(matches!(a1.open_row(&row).unwrap(), Opened::OwnMessage));
}

#[test]
fn sizes_say_little() {
    let (_, mut a1, ..) = meet(Suite::Classic);
    let mut size = |text: &str| a1.seal(text).1.envelope.len();
    assert_eq!(size("a"), size(&"a".repeat(100)));
    assert_ne!(size("a"), size(&"a".repeat(400)));
}

#[test]
fn a_replay_is_an_outcome_and_opens_nothing() {
    let (mut service, mut a1, _, b1) = meet(Suite::PostQuantum);
    let (counter, sealed) = a1.seal("once");
    let row = service.send(a1.id(), counter, sealed.envelope).unwrap();
    assert_eq!(b1.read(&row), "once");
    assert!(matches!(b1.open_row(&row).unwrap(), Opened::Replay));
}

#[test]
fn late_by_two_epochs_opens_late_by_three_does_not() {
    for (updates, opens) in [(2, true), (3, false)] {
        let (mut service, mut a1, a2, mut b1) = meet(Suite::Classic);
        let (counter, late) = a1.seal("late");
        for _ in 0..updates {
            let (count, commit) = b1.update();
            let (row, _) = service.commit(b1.id(), count, &commit).unwrap();
            for peer in [&a1, &a2, &b1] {
                peer.open_row(&row).unwrap();
            }
        }
        let opened = a2.open(a1.id(), counter, &late.envelope).unwrap();
        match opened {
            Opened::Message { epoch, .. } if opens => assert_eq!(epoch, late.epoch),
            Opened::TooOld { made, current } if !opens => {
                assert_eq!((made, current), (late.epoch, a2.info().epoch))
            }
            other => panic!("after {updates} updates: {other:?}"),
        }
        assert_eq!(service.send(a1.id(), counter, late.envelope).is_some(), opens);
    }
}

#[test]
fn a_message_of_the_future_opens_after_its_commit() {
    let (mut service, mut a1, _, b1) = meet(Suite::Classic);
    let (count, commit) = a1.update();
    let (commit, _) = service.commit(a1.id(), count, &commit).unwrap();
    assert!(matches!(a1.open_row(&commit).unwrap(), Opened::OwnCommit(_)));
    let (counter, sealed) = a1.seal("early");
    let row = service.send(a1.id(), counter, sealed.envelope).unwrap();
    let Opened::Future { made, current } = b1.open_row(&row).unwrap() else { panic!() };
    assert_eq!(made.number, current.number + 1);
    assert!(matches!(b1.open_row(&commit).unwrap(), Opened::Commit { lost_pending: false, .. }));
    assert_eq!(b1.read(&row), "early");
}

#[test]
fn neither_counter_nor_sender_can_be_swapped() {
    let (_, mut a1, a2, b1) = meet(Suite::PostQuantum);
    let (counter, sealed) = a1.seal("mine");
    let wrong = Counter(counter.0 + 1);
    let refused = b1.open(a1.id(), wrong, &sealed.envelope).unwrap_err();
    assert!(
        matches!(refused, OpenError::Counter { claimed, signed } if claimed == wrong && signed == counter)
    );
    // The counter stands at the end of the header: 2 + 2 + 1 + 20 + 8 + 1 + 1 bytes before it.
    let forged = flip(&sealed.envelope, 42);
    let claimed = header::peek(&forged).unwrap().counter;
    assert_ne!(claimed, counter);
    let refused = b1.open(a1.id(), claimed, &forged).unwrap_err();
    assert!(matches!(refused, OpenError::Undecryptable(_)) && refused.resync_helps(), "{refused}");
    let refused = b1.open(a2.id(), counter, &sealed.envelope).unwrap_err();
    assert!(
        matches!(refused, OpenError::Sender { claimed, actual } if claimed == a2.id() && actual == a1.id())
    );
    let refused = a2.open(b1.id(), counter, &sealed.envelope).unwrap_err();
    assert!(matches!(refused, OpenError::Sender { .. }));
    // Nothing was used up by the lies.
    let Opened::Message { plaintext, .. } = b1.open(a1.id(), counter, &sealed.envelope).unwrap() else {
        panic!()
    };
    assert_eq!(**plaintext, *b"mine");
}

#[test]
fn an_altered_envelope_does_not_open_and_the_true_one_still_does() {
    let (_, mut a1, _, b1) = meet(Suite::PostQuantum);
    let (counter, sealed) = a1.seal("true");
    let whole = sealed.envelope.len();
    for at in [43, 44, 60, whole / 2, whole - 1] {
        assert!(b1.open(a1.id(), counter, &flip(&sealed.envelope, at)).is_err(), "byte {at}");
    }
    for length in [0, 3, 42, whole - 1] {
        assert!(b1.open(a1.id(), counter, &sealed.envelope[..length]).is_err(), "{length} bytes");
    }
    assert!(b1.open(a1.id(), counter, &[&sealed.envelope[..], &[0]].concat()).is_err());
    assert!(matches!(b1.open(a1.id(), counter, &sealed.envelope).unwrap(), Opened::Message { .. }));
}

#[test]
fn another_conversations_envelope_is_refused() {
    let (_, mut a1, _, b1) = meet(Suite::Classic);
    let (counter, sealed) = a1.seal("here");
    let other = ConversationId::new([0xc1; 16]);
    let judged = b1.manifests.judge(|policy| {
        conversation::open(&b1.vault(), &b1.device, other, a1.id(), counter, &sealed.envelope, policy)
    });
    assert!(matches!(judged, Err(OpenError::Conversation)));
}

#[test]
fn without_keys_the_error_says_that_a_resync_helps() {
    let (_, mut a1, ..) = meet(Suite::Classic);
    let (manifests, b1) = (a1.manifests.clone(), Peer::new(BOB, 1, &a1.manifests));
    let (counter, sealed) = a1.seal("hello");
    let refused = manifests
        .judge(|policy| {
            conversation::open(
                &b1.vault(),
                &b1.device,
                CONVERSATION,
                a1.id(),
                counter,
                &sealed.envelope,
                policy,
            )
        })
        .unwrap_err();
    assert!(matches!(refused, OpenError::NotJoined) && refused.resync_helps());
    let refused = conversation::seal(&b1.vault(), &b1.device, CONVERSATION, Counter(1), b"x").unwrap_err();
    assert!(matches!(refused, ConversationError::NotJoined(_)));
}

#[test]
fn the_header_tells_conversation_epoch_and_counter() {
    let (_, mut a1, ..) = meet(Suite::PostQuantum);
    let (counter, sealed) = a1.seal("x");
    let seen = header::peek(&sealed.envelope).unwrap();
    assert_eq!(
        (seen.conversation, seen.counter, seen.kind),
        (CONVERSATION, counter, header::Kind::Application)
    );
    assert_eq!(seen.epoch, Epoch { generation: 0, number: 1 });
    let (counter, commit) = a1.update();
    let seen = header::peek(&commit.commit).unwrap();
    assert_eq!((seen.counter, seen.kind, seen.epoch), (counter, header::Kind::Commit, sealed.epoch));
}

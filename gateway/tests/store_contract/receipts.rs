//! Read positions, what was received, and when somebody was online.

use crate::world::{World, item, leave};
use fastchat_gateway::store::receipts::{Circle, ReadMark};
use fastchat_protocol::{
    ConversationId, DeviceId, Role, Seq, limits::MAX_RECEIPT_MEMBERS, server::MemberReceipt,
};

fn mark(conversation: ConversationId, device: DeviceId, seq: u64, shared: bool) -> ReadMark {
    ReadMark { conversation, device, seq: Seq(seq), shared }
}

async fn filled(world: &World, conversation: ConversationId, device: DeviceId, rows: u64) {
    let batch: Vec<_> = (1..=rows).map(|n| item(conversation, device, n, 1)).collect();
    world.store.append(&batch).await.unwrap();
}

/// (from, delivered, read) of each member as a device is told, by name.
async fn told(world: &World, device: DeviceId, conversation: ConversationId) -> Vec<MemberReceipt> {
    world.store.receipts(device, conversation).await.unwrap().expect("it is a member")
}

pub(crate) async fn a_read_position_is_believed_within_bounds_and_never_goes_back(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    filled(&world, conversation, alice.devices[0], 4).await;
    let (phone, laptop, eve) = (bob.devices[0], bob.devices[1], world.person("eve", 1).await);
    let marks = [
        mark(conversation, phone, 3, true),
        mark(conversation, laptop, 4, false),
        mark(conversation, phone, 6, true),
        mark(conversation, phone, 0, true),
        mark(conversation, phone, u64::MAX, true),
        mark(conversation, eve.devices[0], 2, true),
        mark(ConversationId::new([9; 16]), phone, 1, true),
        mark(conversation, phone, 2, true),
    ];
    let believed = world.store.mark_read(&marks).await.unwrap();
    let expected = [Some(1), Some(1), None, None, None, None, None, Some(1)];
    assert_eq!(believed, expected);
    let of = |all: Vec<MemberReceipt>, who| all.into_iter().find(|one| one.account == who).expect("listed");
    let (own, others) =
        (told(&world, phone, conversation).await, told(&world, alice.devices[1], conversation).await);
    assert_eq!(of(own, bob.account).read, Some(Seq(4)), "the own devices know all of it");
    assert_eq!(of(others, bob.account).read, Some(Seq(3)), "the others what was shared");
    world.store.mark_read(&[mark(conversation, laptop, 1, true)]).await.unwrap();
    assert_eq!(of(told(&world, alice.devices[0], conversation).await, bob.account).read, Some(Seq(3)));
    assert_eq!(world.store.mark_read(&[]).await.unwrap(), []);
    assert_eq!(world.store.receipts(eve.devices[0], conversation).await.unwrap(), None);
}

pub(crate) async fn what_was_received_is_the_greatest_cursor_of_whoever_tells(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    filled(&world, conversation, alice.devices[0], 4).await;
    let set = async |device: DeviceId, seq: u64| {
        world.store.set_cursors(&[(device, conversation, Seq(seq))]).await.unwrap()
    };
    let moved = set(bob.devices[0], 3).await;
    assert_eq!(moved.len(), 1);
    assert_eq!((moved[0].account, moved[0].seq, moved[0].revision), (bob.account, Seq(3), 1));
    assert_eq!(set(bob.devices[0], 3).await, [], "it has not moved");
    assert_eq!(set(bob.devices[0], 99).await, [], "beyond the head");
    set(bob.devices[1], 5).await;
    let delivered = async || {
        let all = told(&world, alice.devices[0], conversation).await;
        all.into_iter().find(|one| one.account == bob.account).map(|one| one.delivered)
    };
    assert_eq!(delivered().await, Some(Some(Seq(5))));
    world.store.set_sharing(bob.account, false, true).await.unwrap();
    assert_eq!(delivered().await, Some(None));
    let device = world.store.device(bob.devices[0]).await.unwrap().unwrap();
    assert_eq!((device.shares_delivered, device.shares_last_seen), (false, true));
    world.store.set_sharing(bob.account, true, true).await.unwrap();
    world.store.block(alice.account, bob.account, true).await.unwrap();
    assert_eq!(delivered().await, None, "whoever blocks is told nothing");
    let to_bob = told(&world, bob.devices[0], conversation).await;
    assert_eq!(to_bob.len(), 1, "nor is who is blocked: {to_bob:?}");
}

pub(crate) async fn receipts_are_of_those_who_are_in(world: World) {
    let (alice, bob, carol) =
        (world.person("alice", 1).await, world.person("bob", 1).await, world.person("carol", 1).await);
    let g = world.group("g", &[(&alice, Role::Owner), (&bob, Role::Member), (&carol, Role::Member)]).await;
    filled(&world, g, alice.devices[0], 2).await;
    assert_eq!(world.store.circles(&[g, ConversationId::new([9; 16])]).await.unwrap(), [(g, Circle::Group)]);
    assert_eq!(told(&world, bob.devices[0], g).await.len(), 3);
    world.store.leave(leave(g, carol.devices[0], 1, 1)).await.unwrap();
    let (gone, stays) = (mark(g, carol.devices[0], 2, true), mark(g, bob.devices[0], 3, true));
    assert_eq!(world.store.mark_read(&[gone, stays]).await.unwrap(), [None, Some(2)]);
    assert_eq!(world.store.set_cursors(&[(carol.devices[0], g, Seq(3))]).await.unwrap(), []);
    assert_eq!(world.store.receipts(carol.devices[0], g).await.unwrap(), None);
    let rest: Vec<_> =
        told(&world, alice.devices[0], g).await.iter().map(|one| (one.account, one.read)).collect();
    let mut expected = vec![(alice.account, None), (bob.account, Some(Seq(3)))];
    expected.sort();
    assert_eq!(rest, expected);

    let mut many = Vec::new();
    for n in 0..MAX_RECEIPT_MEMBERS {
        many.push(world.person(&format!("p{n}"), 1).await);
    }
    let members: Vec<_> =
        std::iter::once((&alice, Role::Owner)).chain(many.iter().map(|one| (one, Role::Member))).collect();
    let large = world.group("large", &members).await;
    assert_eq!(world.store.circles(&[large]).await.unwrap(), [(large, Circle::Nobody)]);
    assert_eq!(told(&world, alice.devices[0], large).await.len(), MAX_RECEIPT_MEMBERS + 1);
}

pub(crate) async fn a_circle_of_two_ends_with_a_block(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let pair =
        if alice.account < bob.account { (alice.account, bob.account) } else { (bob.account, alice.account) };
    let circle = async || world.store.circles(&[conversation]).await.unwrap()[0].1;
    assert_eq!(circle().await, Circle::Pair(pair.0, pair.1));
    world.store.block(bob.account, alice.account, true).await.unwrap();
    assert_eq!(circle().await, Circle::Nobody);
    world.store.block(bob.account, alice.account, false).await.unwrap();
    assert_eq!(circle().await, Circle::Pair(pair.0, pair.1));
    let alone = world.direct(&alice, &alice).await;
    assert_eq!(world.store.circles(&[alone]).await.unwrap()[0].1, Circle::Pair(alice.account, alice.account));
    world.store.delete_account(bob.account).await.unwrap();
    assert_eq!(circle().await, Circle::Nobody);
}

pub(crate) async fn last_seen_is_for_acquaintances_of_those_who_want_it(world: World) {
    let (alice, bob, _) = world.couple().await;
    let eve = world.person("eve", 1).await;
    let seen = async || {
        let known = world.store.acquaintances(alice.account, &[bob.account, eve.account]).await.unwrap();
        known.iter().map(|one| (one.account, one.last_seen_ms)).collect::<Vec<_>>()
    };
    assert_eq!(seen().await, [(bob.account, None)]);
    let notes = [(bob.account, 7), (eve.account, 9), (bob.account, 5), (alice.account, 3)];
    world.store.note_seen(&notes).await.unwrap();
    world.store.note_seen(&[(bob.account, 6)]).await.unwrap();
    assert_eq!(seen().await, [(bob.account, Some(7))], "it never goes back");
    world.store.set_sharing(bob.account, true, false).await.unwrap();
    world.store.note_seen(&[(bob.account, 8)]).await.unwrap();
    assert_eq!(seen().await, [(bob.account, None)]);
    world.store.set_sharing(bob.account, true, true).await.unwrap();
    assert_eq!(seen().await, [(bob.account, None)], "it was forgotten, and not noted");
    world.store.set_visible(bob.account, false).await.unwrap();
    assert_eq!(seen().await, []);
    world.store.note_seen(&[]).await.unwrap();
}

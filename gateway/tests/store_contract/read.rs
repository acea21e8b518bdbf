//! Reading: pages, cursors, heads that moved, and who may see what.

use crate::world::{World, commit, item, stored};
use bytes::Bytes;
use fastchat_gateway::store::Mark;
use fastchat_protocol::{
    Seq,
    limits::{MAX_PAGE_BYTES, MAX_PAGE_ROWS},
};

pub(crate) async fn pages_end_at_rows_and_bytes_but_have_one(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let reader = bob.devices[0];
    let sizes = [MAX_PAGE_BYTES + 1, MAX_PAGE_BYTES / 2, MAX_PAGE_BYTES / 2, 1];
    for (n, size) in sizes.into_iter().enumerate() {
        let mut large = item(conversation, alice.devices[0], n as u64 + 1, 1);
        large.envelope = Bytes::from(vec![7; size]);
        assert_eq!(stored(&world.append(large).await), n as u64 + 2);
    }
    let page = async |after, limit| {
        let page = world.store.fetch(reader, conversation, Seq(after), limit).await.unwrap().unwrap();
        page.rows.iter().map(|row| row.seq.0).collect::<Vec<_>>()
    };
    assert_eq!(page(1, 9).await, [2]);
    assert_eq!(page(2, 9).await, [3, 4]);
    assert_eq!(page(4, 9).await, [5]);
    assert_eq!(page(2, 1).await, [3]);
    assert_eq!(page(5, 9).await, [0; 0]);
    let many: Vec<_> = (5..=400).map(|n| item(conversation, alice.devices[0], n, 1)).collect();
    world.store.append(&many).await.unwrap().iter().for_each(|outcome| {
        stored(outcome);
    });
    assert_eq!(page(4, u32::MAX).await.len(), MAX_PAGE_ROWS as usize);
}

pub(crate) async fn conversations_come_in_pages(world: World) {
    let alice = world.person("alice", 1).await;
    let mut expected = Vec::new();
    for n in 0..5 {
        let peer = world.person(&format!("peer{n}"), 1).await;
        expected.push((world.direct(&peer, &alice).await, Some(peer.account)));
    }
    expected.sort();
    let device = alice.devices[0];
    let first = world.store.conversations(device, None, 3).await.unwrap();
    let second = world.store.conversations(device, Some(first[2].conversation), 3).await.unwrap();
    let all: Vec<_> = first.iter().chain(&second).map(|state| (state.conversation, state.peer)).collect();
    assert_eq!((first.len(), all), (3, expected));
    assert_eq!((first[0].head, first[0].cursor, first[0].join_seq), (Seq(1), Seq(1), Seq(1)));
    assert_eq!((first[0].epoch, first[0].counter.0), (crate::world::epoch(1), 0));
    stored(&world.append(item(first[0].conversation, device, 1, 1)).await);
    let state = world.store.conversations(device, None, 1).await.unwrap().remove(0);
    assert_eq!((state.head, state.cursor, state.counter.0), (Seq(2), Seq(1), 1));
}

pub(crate) async fn cursors_move_forward_and_not_past_the_head(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let eve = world.person("eve", 1).await;
    let batch: Vec<_> = (1..=4).map(|n| item(conversation, alice.devices[0], n, 1)).collect();
    world.store.append(&batch).await.unwrap();
    let device = bob.devices[0];
    let set = async |seqs: &[u64]| {
        let cursors: Vec<_> = seqs.iter().map(|seq| (device, conversation, Seq(*seq))).collect();
        world.store.set_cursors(&cursors).await.unwrap();
        world.store.conversations(device, None, 1).await.unwrap()[0].cursor.0
    };
    assert_eq!(set(&[3]).await, 3);
    assert_eq!(set(&[2]).await, 3);
    assert_eq!(set(&[6]).await, 3);
    // One past the head says nothing, also of the one beside it.
    assert_eq!(set(&[4, 6]).await, 4);
    assert_eq!(set(&[4, 5, 4]).await, 5);
    assert_eq!(set(&[]).await, 5);
    // One that is nobody's says nothing, and does not stop the others.
    let strange = [(eve.devices[0], conversation, Seq(2)), (bob.devices[1], conversation, Seq(2))];
    world.store.set_cursors(&strange).await.unwrap();
    assert_eq!(world.store.conversations(bob.devices[1], None, 1).await.unwrap()[0].cursor, Seq(2));
}

pub(crate) async fn a_former_member_reads_nothing_later(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let batch: Vec<_> = (1..=4).map(|n| item(conversation, alice.devices[0], n, 1)).collect();
    world.store.append(&batch).await.unwrap();
    let account = bob.account;
    world.sql(&format!("UPDATE members SET to_seq = 3 WHERE account = 'id:{account}'")).await;
    let device = bob.devices[0];
    let page = world.store.fetch(device, conversation, Seq(1), 9).await.unwrap().unwrap();
    assert_eq!((page.rows.len(), page.head), (2, Seq(3)));
    assert_eq!(
        world.store.readers(conversation, &[device]).await.unwrap().ranges,
        [(device, Seq(1), Some(Seq(3)))]
    );
    assert_eq!(world.store.group_state(device, conversation).await.unwrap(), None);
    let refused = fastchat_gateway::store::Outcome::NotMember;
    assert_eq!(world.append(item(conversation, device, 1, 1)).await, refused);
    assert_eq!(world.commit(commit(conversation, device, 1, 1)).await, refused);

    let mut manifest = bob.manifest(2);
    manifest.revoked = vec![device];
    assert!(world.store.put_manifest(account, manifest).await.unwrap());
    assert_eq!(world.store.fetch(device, conversation, Seq(0), 9).await.unwrap(), None);
    assert_eq!(world.store.conversations(device, None, 9).await.unwrap(), []);
    assert_eq!(world.store.readers(conversation, &[device]).await.unwrap().ranges, []);
}

pub(crate) async fn retention_shows_in_first(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let batch: Vec<_> = (1..=4).map(|n| item(conversation, alice.devices[0], n, 1)).collect();
    world.store.append(&batch).await.unwrap();
    let page = async || world.store.fetch(bob.devices[0], conversation, Seq(0), 9).await.unwrap().unwrap();
    assert_eq!(page().await.first, Seq(1));
    world.sql("DELETE FROM log WHERE seq <= 3").await;
    let left = page().await;
    assert_eq!((left.first, left.rows[0].seq, left.head), (Seq(4), Seq(4), Seq(5)));
    world.sql("DELETE FROM log").await;
    let nothing = page().await;
    assert_eq!((nothing.first, nothing.rows.len(), nothing.head), (Seq(6), 0, Seq(5)));
    assert_eq!(stored(&world.append(item(conversation, alice.devices[0], 5, 1)).await), 6);
}

pub(crate) async fn moved_since_says_what_moved(world: World) {
    let start = world.store.moved_since(None).await.unwrap();
    assert_eq!((start.heads.len(), start.mailboxes.len()), (0, 0));
    let (alice, bob, conversation) = world.couple().await;
    let founded = world.store.moved_since(Some(start.mark)).await.unwrap();
    assert_eq!((founded.heads.len(), founded.mailboxes.len()), (1, 3));
    assert_eq!((founded.heads[0].0, founded.heads[0].1), (conversation, Seq(1)));
    assert!(founded.mailboxes.contains(&(bob.devices[1], bob.account, Seq(1))));

    let eve = world.person("eve", 1).await;
    let other = world.direct(&alice, &eve).await;
    let mark = settled(&world, founded.mark).await;
    let quiet = world.store.moved_since(Some(mark)).await.unwrap();
    assert_eq!((quiet.heads.len(), quiet.mailboxes.len()), (0, 0));
    stored(&world.append(item(other, alice.devices[0], 1, 1)).await);
    stored(&world.commit(commit(conversation, alice.devices[0], 1, 1)).await);
    let moved = world.store.moved_since(Some(mark)).await.unwrap();
    let mut heads: Vec<_> = moved.heads.iter().map(|head| (head.0, head.1)).collect();
    heads.sort();
    let mut expected = vec![(other, Seq(2)), (conversation, Seq(2))];
    expected.sort();
    assert_eq!((heads, moved.mailboxes.len()), (expected, 0));
}

/// A mark after which nothing moves. A transaction of another test's database holds Postgres's mark
/// back, which is allowed to say things twice.
async fn settled(world: &World, mut mark: Mark) -> Mark {
    for _ in 0..200 {
        let moved = world.store.moved_since(Some(mark)).await.unwrap();
        mark = moved.mark;
        if moved.heads.is_empty() && moved.mailboxes.is_empty() {
            return mark;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the mark never passes what was committed long ago")
}

pub(crate) async fn the_state_is_for_members(world: World) {
    let (alice, _, conversation) = world.couple().await;
    let eve = world.person("eve", 1).await;
    let state = world.store.group_state(alice.devices[0], conversation).await.unwrap().unwrap();
    assert_eq!((state.group_info, state.tree), ("group info 1".into(), "tree 1".into()));
    assert_eq!(world.store.group_state(eve.devices[0], conversation).await.unwrap(), None);
    assert_eq!(world.store.fetch(eve.devices[0], conversation, Seq(0), 9).await.unwrap(), None);
    assert_eq!(world.store.tree(eve.devices[0], conversation, b"x").await.unwrap(), None);
    assert_eq!(world.store.readers(conversation, &[eve.devices[0]]).await.unwrap().ranges, []);
}

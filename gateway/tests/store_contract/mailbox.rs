//! Mailboxes, and the trees that their welcomes need.

use crate::world::{World, commit, founding, stored};
use bytes::Bytes;
use fastchat_gateway::store::{Founded, Join};
use fastchat_protocol::{Seq, codec, limits::MAX_PAGE_BYTES, server::Joining};
use sha2::{Digest, Sha256};

pub(crate) async fn welcomes_wait_with_their_tree_until_they_are_acked(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let hash = Sha256::digest("tree 1");
    let tree = async |device| world.store.tree(device, conversation, &hash).await.unwrap();
    let waiting = [alice.devices[1], bob.devices[0], bob.devices[1]];
    for device in waiting {
        let (items, head) = world.store.mailbox(device, Seq(0), 9).await.unwrap();
        assert_eq!((items.len(), items[0].seq, items[0].kind, head), (1, Seq(1), 1, Seq(1)));
        let joining: Joining = codec::decode(&items[0].body).unwrap();
        assert_eq!(
            (joining.conversation, joining.join_seq, joining.by),
            (conversation, Seq(1), alice.devices[0])
        );
        assert_eq!((joining.welcome, &joining.tree_hash[..]), ("welcome to alice-bob".into(), &hash[..]));
        assert_eq!(tree(device).await, Some("tree 1".into()));
        assert_eq!(world.store.device(device).await.unwrap().unwrap().mailbox_head, Seq(1));
    }
    assert_eq!(world.store.mailbox(alice.devices[0], Seq(0), 9).await.unwrap(), (Vec::new(), Seq(0)));
    assert_eq!(tree(alice.devices[0]).await, None);
    assert_eq!(world.store.tree(bob.devices[0], conversation, b"other").await.unwrap(), None);

    for device in waiting {
        world.store.ack_mailbox(device, Seq(1)).await.unwrap();
        // The head outlives the items; the tree is there for those who still wait.
        assert_eq!(world.store.mailbox(device, Seq(0), 9).await.unwrap(), (Vec::new(), Seq(1)));
        assert_eq!(tree(device).await, None);
        world.store.ack_mailbox(device, Seq(1)).await.unwrap();
    }
    // Nobody waits: tree and welcome are gone, or this insert would meet them.
    let part = |hash: &[u8]| {
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "INSERT INTO welcome_parts (conversation, hash, bytes) VALUES ('id:{conversation}', 'id:{hash}', 'id:')"
        )
    };
    world.sql(&part(&hash)).await;
    world.sql(&part(&Sha256::digest("welcome to alice-bob"))).await;

    let mut again = commit(conversation, alice.devices[0], 1, 1);
    again.joins = vec![Join { device: bob.devices[0], welcome: Some("again".into()) }];
    stored(&world.commit(again).await);
    let (items, head) = world.store.mailbox(bob.devices[0], Seq(1), 9).await.unwrap();
    assert_eq!((items[0].seq, items.len(), head), (Seq(2), 1, Seq(2)));
}

pub(crate) async fn a_page_ends_at_its_size(world: World) {
    let alice = world.person("alice", 1).await;
    let device = alice.devices[0];
    for n in 0..4 {
        let peer = world.person(&format!("peer{n}"), 1).await;
        let mut founding = founding(&peer, &alice, &peer.name);
        founding.joins[0].welcome = Some(Bytes::from(vec![n; MAX_PAGE_BYTES / 2 - 1]));
        assert!(matches!(world.store.found_direct(founding).await.unwrap(), Founded::Made { .. }));
    }
    let page = async |after, limit| {
        let (items, head) = world.store.mailbox(device, Seq(after), limit).await.unwrap();
        assert_eq!(head, Seq(4));
        items.iter().map(|item| item.seq.0).collect::<Vec<_>>()
    };
    assert_eq!(page(0, 9).await, [1, 2]);
    assert_eq!(page(2, 9).await, [3, 4]);
    assert_eq!(page(0, 1).await, [1]);
    assert_eq!(page(4, 9).await, [0; 0]);
}

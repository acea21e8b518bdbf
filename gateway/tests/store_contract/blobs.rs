//! Files: who may begin, put, finish, fetch and drop; quotas; parts that come twice; the sweep.

use crate::world::{Person, World, id, leave, stored};
use bytes::Bytes;
use fastchat_gateway::store::{
    blobs::{
        Begun, Blob, BlobKey, Denied, Dropped, Finished, Known, NewBlob, NewPart, NewToken, PutPart,
        SWEEP_PARTS, Totals,
    },
    operate::{Quotas, ShutOut},
};
use fastchat_protocol::{BlobId, ConversationId, DeviceId, Role};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

const QUOTA: u64 = 1_000;

fn key(conversation: ConversationId, name: &str) -> BlobKey {
    BlobKey { conversation, blob: BlobId::new(id(name)) }
}

fn new(key: BlobKey, by: &Person, size_bytes: u64, parts: u32) -> NewBlob {
    NewBlob { key, device: by.devices[0], account: by.account, size_bytes, parts, outside: false }
}

fn part(number: u32, bytes: &str) -> NewPart {
    NewPart {
        number,
        hash: Sha256::digest(bytes).into(),
        size_bytes: bytes.len() as u64,
        bytes: Some(Bytes::from(bytes.to_owned())),
    }
}

impl World {
    async fn begin(&self, new: NewBlob) -> Begun {
        self.store.begin_blob(new, QUOTA).await.expect("it answers")
    }

    async fn put(&self, key: BlobKey, number: u32, bytes: &str) -> PutPart {
        self.store.put_part(key, part(number, bytes)).await.expect("it answers")
    }

    async fn finish(&self, device: DeviceId, key: BlobKey) -> Finished {
        self.store.finish_blob(device, key).await.expect("it answers")
    }

    /// A complete blob of two parts.
    async fn blob(&self, key: BlobKey, by: &Person) {
        assert_eq!(self.begin(new(key, by, 10, 2)).await, Begun::Open(vec![]));
        assert_eq!(self.put(key, 0, "01234567").await, PutPart::Stored);
        assert_eq!(self.put(key, 1, "89").await, PutPart::Stored);
        assert_eq!(self.finish(by.devices[0], key).await, Finished::Done);
    }

    async fn has(&self, device: DeviceId, key: BlobKey) -> bool {
        self.store.blob(device, key).await.expect("it answers").is_some()
    }

    /// What a token of a device is worth.
    async fn may(&self, device: DeviceId, key: BlobKey, puts: bool) -> Result<(), Denied> {
        let mark = [&device.as_bytes()[..], key.blob.as_bytes(), key.conversation.as_bytes()].concat();
        let hash = Sha256::digest([mark.as_slice(), &[u8::from(puts)]].concat()).into();
        if self.store.transfer(hash).await.expect("it answers").is_none() {
            let token = NewToken { hash, key, device, puts, lasts_s: 600 };
            self.store.put_token(token).await.expect("it answers");
        }
        let transfer = self.store.transfer(hash).await.expect("it answers").expect("a good token");
        assert_eq!((transfer.key, transfer.device, transfer.puts), (key, device, puts));
        transfer.may(puts).map(drop)
    }

    async fn totals(&self) -> Totals {
        self.store.blob_totals().await.expect("it answers")
    }
}

pub(crate) async fn a_blob_is_begun_put_and_finished(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let key = key(conversation, "blob");
    let a = alice.devices[0];
    assert_eq!(world.begin(new(key, &alice, 10, 2)).await, Begun::Open(vec![]));
    assert_eq!(world.finish(a, key).await, Finished::Missing(0));
    assert_eq!(world.put(key, 1, "89").await, PutPart::Stored);
    assert_eq!(world.begin(new(key, &alice, 10, 2)).await, Begun::Open(vec![1]), "it goes on");
    assert!(!world.has(bob.devices[0], key).await, "not before it is finished");
    assert_eq!(world.finish(a, key).await, Finished::Missing(0));
    assert_eq!(world.put(key, 0, "0123456").await, PutPart::Stored);
    assert_eq!(world.finish(a, key).await, Finished::OtherSize(9));
    // Other sizes, another device, another account.
    assert_eq!(world.begin(new(key, &alice, 10, 3)).await, Begun::Conflict);
    assert_eq!(world.begin(new(key, &alice, 11, 2)).await, Begun::Conflict);
    let other = NewBlob { device: alice.devices[1], ..new(key, &alice, 10, 2) };
    assert_eq!(world.begin(other).await, Begun::Conflict);
    assert_eq!(world.begin(new(key, &bob, 10, 2)).await, Begun::Conflict);
    assert_eq!(world.finish(bob.devices[0], key).await, Finished::NoBlob);

    let key = self::key(conversation, "another");
    world.blob(key, &alice).await;
    for _ in 0..2 {
        assert_eq!(world.finish(a, key).await, Finished::Done);
        assert_eq!(world.begin(new(key, &alice, 10, 2)).await, Begun::Complete);
    }
    for device in alice.devices.iter().chain(&bob.devices) {
        let found = world.store.blob(*device, key).await.unwrap();
        assert_eq!(found, Some(Blob { size_bytes: 10, parts: 2 }));
    }
    let got = world.store.part(key, 1).await.unwrap().unwrap();
    assert_eq!((got.size_bytes, got.bytes.as_deref()), (2, Some(&b"89"[..])));
    assert_eq!(world.store.part(key, 2).await.unwrap(), None);
}

pub(crate) async fn a_part_is_put_once(world: World) {
    let (alice, _, conversation) = world.couple().await;
    let key = key(conversation, "blob");
    assert_eq!(world.put(key, 0, "0").await, PutPart::NoBlob);
    world.begin(new(key, &alice, 10, 2)).await;
    assert_eq!(world.put(key, 0, "01234567").await, PutPart::Stored);
    for _ in 0..2 {
        assert_eq!(world.put(key, 0, "01234567").await, PutPart::Same);
        assert_eq!(world.put(key, 0, "0123456x").await, PutPart::Other);
    }
    assert_eq!(world.put(key, 2, "8").await, PutPart::TooLarge, "no such number");
    assert_eq!(world.put(key, 1, "890").await, PutPart::TooLarge, "more than was said");
    assert_eq!(world.put(key, 1, "89").await, PutPart::Stored);
    assert_eq!(world.finish(alice.devices[0], key).await, Finished::Done);
    assert_eq!(world.put(key, 1, "89").await, PutPart::Same, "its answer may have been lost");
    assert_eq!(world.put(key, 1, "8x").await, PutPart::Other);

    // Of two that put other bytes at once, one wins.
    let key = self::key(conversation, "raced");
    world.begin(new(key, &alice, 10, 1)).await;
    let (one, other) = tokio::join!(world.put(key, 0, "one"), world.put(key, 0, "other"));
    let won = if one == PutPart::Stored { "one" } else { "other" };
    let mut both = [one, other];
    both.sort_by_key(|put| *put == PutPart::Other);
    assert_eq!(both, [PutPart::Stored, PutPart::Other]);
    assert_eq!(world.store.part(key, 0).await.unwrap().unwrap().bytes.as_deref(), Some(won.as_bytes()));
}

pub(crate) async fn a_blob_is_for_those_who_were_there(world: World) {
    let (alice, bob) = (world.person("alice", 2).await, world.person("bob", 1).await);
    let (carol, eve) = (world.person("carol", 1).await, world.person("eve", 1).await);
    let g = world.group("g", &[(&alice, Role::Owner), (&bob, Role::Member), (&carol, Role::Member)]).await;
    let (before, after) = (key(g, "before"), key(g, "after"));
    world.blob(before, &alice).await;
    assert_eq!(world.begin(new(after, &alice, 10, 2)).await, Begun::Open(vec![]));
    // Bob leaves right after the first was finished, and right before the second is.
    assert_eq!(stored(&world.store.leave(leave(g, bob.devices[0], 1, 1)).await.unwrap()), 2);
    world.put(after, 0, "01234567").await;
    world.put(after, 1, "89").await;
    assert_eq!(world.finish(alice.devices[0], after).await, Finished::Done);
    for (who, first, second) in
        [(&alice, true, true), (&carol, true, true), (&bob, true, false), (&eve, false, false)]
    {
        let device = who.devices[0];
        assert_eq!(
            (world.has(device, before).await, world.has(device, after).await),
            (first, second),
            "{}",
            who.name
        );
        let may = async |key| world.may(device, key, false).await;
        assert_eq!(may(before).await, if first { Ok(()) } else { Err(Denied::NotMember) }, "{}", who.name);
        assert_eq!(may(after).await, if second { Ok(()) } else { Err(Denied::NotMember) }, "{}", who.name);
    }
    assert!(world.has(alice.devices[1], before).await, "each device of a member");
    // Who is out, or never was in, puts nothing.
    assert_eq!(world.begin(new(key(g, "late"), &bob, 10, 1)).await, Begun::NotMember);
    assert_eq!(world.begin(new(key(g, "strange"), &eve, 10, 1)).await, Begun::NotMember);
    let nowhere = ConversationId::new(id("nowhere"));
    assert_eq!(world.begin(new(key(nowhere, "x"), &alice, 10, 1)).await, Begun::NotMember);
}

pub(crate) async fn whoever_is_put_out_meanwhile_puts_nothing_more(world: World) {
    let (alice, bob) = (world.person("alice", 1).await, world.person("bob", 2).await);
    let g = world.group("g", &[(&alice, Role::Owner), (&bob, Role::Member)]).await;
    let (blob, device) = (key(g, "blob"), bob.devices[0]);
    world.begin(new(blob, &bob, 10, 1)).await;
    assert_eq!(world.may(device, blob, true).await, Ok(()));
    assert_eq!(world.may(device, blob, false).await, Err(Denied::NoBlob), "not finished");
    assert_eq!(world.may(bob.devices[1], blob, true).await, Err(Denied::NoBlob), "another device's");

    let done = key(g, "done");
    world.blob(done, &alice).await;
    let store = &world.store;
    store.set_disabled("tests", bob.account, true).await.unwrap();
    let disabled = Err(Denied::ShutOut(ShutOut::Disabled));
    assert_eq!(
        (world.may(device, blob, true).await, world.may(device, done, false).await),
        (disabled, disabled)
    );
    assert_eq!(world.begin(new(key(g, "x"), &bob, 10, 1)).await, Begun::NotMember);
    assert_eq!(world.finish(device, blob).await, Finished::NotMember);
    assert!(!world.has(device, done).await);
    store.set_disabled("tests", bob.account, false).await.unwrap();
    assert_eq!(world.may(device, blob, true).await, Ok(()));

    let mut manifest = bob.manifest(2);
    manifest.revoked = vec![device];
    assert!(store.put_manifest(bob.account, manifest).await.unwrap());
    let revoked = Err(Denied::ShutOut(ShutOut::Revoked));
    assert_eq!(
        (world.may(device, blob, true).await, world.may(device, done, false).await),
        (revoked, revoked)
    );
    assert_eq!(world.finish(device, blob).await, Finished::NotMember);
    assert!(!world.has(device, done).await && world.has(bob.devices[1], done).await);

    // The account leaves with its other device.
    let mine = key(g, "mine");
    let second = NewBlob { device: bob.devices[1], ..new(mine, &bob, 10, 1) };
    assert_eq!(world.begin(second).await, Begun::Open(vec![]));
    store.leave(leave(g, bob.devices[1], 1, 1)).await.unwrap();
    assert_eq!(world.may(bob.devices[1], mine, true).await, Err(Denied::NotMember));
    assert_eq!(world.finish(bob.devices[1], mine).await, Finished::NotMember);
    assert_eq!(world.may(bob.devices[1], done, false).await, Ok(()), "it was there when that was finished");
}

pub(crate) async fn a_blocked_party_puts_nothing(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let (mine, theirs) = (key(conversation, "mine"), key(conversation, "theirs"));
    world.blob(mine, &alice).await;
    world.begin(new(theirs, &bob, 10, 1)).await;
    world.store.block(alice.account, bob.account, true).await.unwrap();
    assert_eq!(world.begin(new(key(conversation, "x"), &bob, 10, 1)).await, Begun::NotAccepted);
    assert_eq!(world.may(bob.devices[0], theirs, true).await, Err(Denied::NotMember));
    assert_eq!(world.finish(bob.devices[0], theirs).await, Finished::NotMember);
    assert_eq!(world.may(bob.devices[0], mine, false).await, Ok(()), "it reads what it could read");
}

pub(crate) async fn an_account_keeps_as_much_as_its_quota(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let begin = async |name: &str, by, size| world.begin(new(key(conversation, name), by, size, 1)).await;
    assert_eq!(begin("one", &alice, 600).await, Begun::Open(vec![]));
    assert_eq!(begin("two", &alice, 401).await, Begun::Full { used_bytes: 600, quota_bytes: QUOTA });
    assert_eq!(begin("one", &alice, 600).await, Begun::Open(vec![]), "it counts once");
    assert_eq!(begin("two", &alice, 400).await, Begun::Open(vec![]));
    assert_eq!(begin("theirs", &bob, 1_000).await, Begun::Open(vec![]));
    // A quota of its own; what is dropped does not count any more.
    let quotas = Quotas { blob_bytes: Some(1_100), ..Quotas::default() };
    world.store.set_quotas("tests", alice.account, quotas).await.unwrap();
    assert_eq!(begin("three", &alice, 101).await, Begun::Full { used_bytes: 1_000, quota_bytes: 1_100 });
    assert_eq!(begin("three", &alice, 100).await, Begun::Open(vec![]));
    let dropped = world.store.drop_blob(alice.devices[1], key(conversation, "one")).await.unwrap();
    assert_eq!(dropped, Dropped::Done);
    assert_eq!(begin("four", &alice, 600).await, Begun::Open(vec![]));

    // Two that fill the last room at once.
    let carol = world.person("carol", 1).await;
    let conversation = world.direct(&carol, &bob).await;
    let race = async |name: &str| world.begin(new(key(conversation, name), &carol, 600, 1)).await;
    let (one, other) = tokio::join!(race("r1"), race("r2"));
    let open = [&one, &other].into_iter().filter(|begun| matches!(begun, Begun::Open(_))).count();
    assert_eq!(open, 1, "{one:?} {other:?}");
}

pub(crate) async fn a_blob_is_dropped_by_its_account_or_an_admin(world: World) {
    let (alice, bob, carol) =
        (world.person("alice", 1).await, world.person("bob", 2).await, world.person("carol", 1).await);
    let eve = world.person("eve", 1).await;
    let members = [(&alice, Role::Owner), (&bob, Role::Member), (&carol, Role::Member)];
    let g = world.group("g", &members).await;
    let blob = key(g, "blob");
    world.blob(blob, &bob).await;
    let drop = async |device: DeviceId, key| world.store.drop_blob(device, key).await.unwrap();
    assert_eq!(drop(carol.devices[0], blob).await, Dropped::Forbidden);
    assert_eq!(drop(eve.devices[0], blob).await, Dropped::NoBlob);
    assert_eq!(drop(alice.devices[0], key(g, "none")).await, Dropped::NoBlob);
    assert!(world.has(carol.devices[0], blob).await);
    for _ in 0..2 {
        assert_eq!(drop(alice.devices[0], blob).await, Dropped::Done, "the owner");
    }
    assert!(!world.has(carol.devices[0], blob).await);
    assert_eq!(world.may(carol.devices[0], blob, false).await, Err(Denied::NoBlob));
    assert_eq!(world.put(blob, 0, "01234567").await, PutPart::NoBlob);
    assert_eq!(world.finish(bob.devices[0], blob).await, Finished::NoBlob);
    assert_eq!(world.begin(new(blob, &bob, 10, 2)).await, Begun::Gone);
    let own = key(g, "own");
    world.blob(own, &bob).await;
    world.store.leave(leave(g, bob.devices[0], 1, 1)).await.unwrap();
    assert_eq!(drop(bob.devices[1], own).await, Dropped::Done, "its own, also when it is out");
    // Between two, nobody has more to say than the other.
    let (conversation, direct) = (world.direct(&alice, &bob).await, "direct");
    world.blob(key(conversation, direct), &bob).await;
    assert_eq!(drop(alice.devices[0], key(conversation, direct)).await, Dropped::Forbidden);
}

pub(crate) async fn tokens_expire(world: World) {
    let (alice, _, conversation) = world.couple().await;
    let key = key(conversation, "blob");
    world.blob(key, &alice).await;
    let token = |n, lasts_s| NewToken { hash: [n; 32], key, device: alice.devices[0], puts: false, lasts_s };
    world.store.put_token(token(1, 60)).await.unwrap();
    world.store.put_token(token(2, 0)).await.unwrap();
    let known = async |n| world.store.transfer([n; 32]).await.unwrap().is_some();
    assert!(known(1).await && !known(2).await && !known(3).await);
    let transfer = world.store.transfer([1; 32]).await.unwrap().unwrap();
    assert_eq!(transfer.may(true), Err(Denied::OtherDirection));
    assert_eq!(world.store.sweep_tokens().await.unwrap(), 1);
    assert_eq!(world.store.sweep_tokens().await.unwrap(), 0);
    assert!(known(1).await);
}

pub(crate) async fn what_is_past_its_time_goes_in_steps(world: World) {
    const DAY: &str = "86400000";
    let (alice, bob, conversation) = world.couple().await;
    let [old, young, open, fresh, dropped] =
        ["old", "young", "open", "fresh", "dropped"].map(|name| key(conversation, name));
    for key in [old, young, dropped] {
        world.blob(key, &alice).await;
    }
    let parts = SWEEP_PARTS as u32 + 3;
    world.begin(new(open, &alice, 100, parts)).await;
    for n in 0..parts {
        assert_eq!(world.put(open, n, "x").await, PutPart::Stored);
    }
    world.begin(NewBlob { outside: true, ..new(fresh, &alice, 10, 1) }).await;
    let doom = async |days| world.store.doom_blobs(days).await.unwrap();
    assert_eq!(doom(30).await, 0);
    let age = async |key: BlobKey, days: u32| {
        let sql = format!(
            "UPDATE blobs SET at_ms = at_ms - CAST({days} AS bigint) * {DAY} WHERE blob = 'id:{}'",
            key.blob
        );
        world.sql(&sql).await;
    };
    age(old, 31).await;
    age(young, 29).await;
    age(open, 2).await;
    assert_eq!(doom(0).await, 1, "what is complete stays for ever; what is open does not");
    assert_eq!((doom(30).await, doom(30).await), (1, 0));
    assert!(!world.has(bob.devices[0], old).await && world.has(bob.devices[0], young).await);
    assert_eq!(world.begin(new(open, &alice, 100, parts)).await, Begun::Gone);
    assert_eq!(world.store.drop_blob(alice.devices[0], dropped).await.unwrap(), Dropped::Done);
    let totals = Totals { complete: 1, complete_bytes: 10, open: 1, doomed: 3 };
    assert_eq!(world.totals().await, totals);

    assert_eq!(world.store.doomed_blobs(false, 3_600).await.unwrap(), [], "not yet");
    assert_eq!(world.store.doomed_blobs(true, 0).await.unwrap(), []);
    let mut doomed = world.store.doomed_blobs(false, 0).await.unwrap();
    doomed.sort_by_key(|key| key.blob);
    let mut expected = [old, open, dropped];
    expected.sort_by_key(|key| key.blob);
    assert_eq!(doomed, expected);
    assert!(!world.store.forget_blob(open).await.unwrap(), "it has many parts");
    assert_eq!(world.number("SELECT count(*) FROM blobs").await, 5);
    for key in expected {
        assert!(world.store.forget_blob(key).await.unwrap());
    }
    assert!(world.store.forget_blob(young).await.unwrap(), "it is nobody's to forget");
    assert_eq!(world.totals().await, Totals { doomed: 0, ..totals });
    assert_eq!(world.number("SELECT count(*) FROM blob_parts").await, 2);
    assert!(world.store.part(young, 0).await.unwrap().is_some());
}

pub(crate) async fn what_lies_outside_is_known_part_by_part(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let [blob, inside, unknown] = ["blob", "inside", "unknown"].map(|name| key(conversation, name));
    let known = async |key| world.store.known_blob(key).await.unwrap();
    assert_eq!(known(blob).await, Known::Nothing);
    world.begin(NewBlob { outside: true, ..new(blob, &alice, 10, 2) }).await;
    let parts = [part(0, "01234567"), part(1, "89")];
    for part in &parts {
        assert_eq!(known(blob).await, Known::Changing, "parts may be on their way");
        let outside = NewPart { bytes: None, ..part.clone() };
        assert_eq!(world.store.put_part(blob, outside).await.unwrap(), PutPart::Stored);
    }
    assert_eq!(world.finish(alice.devices[0], blob).await, Finished::Done);
    assert_eq!(
        known(blob).await,
        Known::Complete(parts.iter().map(|part| (part.number, part.hash)).collect())
    );
    world.blob(inside, &alice).await;
    assert_eq!(known(inside).await, Known::Complete(HashSet::new()), "nothing of it is outside");

    // What is known is not doomed by it; what is not, is nobody's, and goes like any other.
    let before = world.totals().await;
    for key in [blob, inside, unknown, unknown] {
        world.store.doom_unknown(key).await.unwrap();
    }
    assert_eq!(world.totals().await, Totals { doomed: 1, ..before });
    assert_eq!(known(unknown).await, Known::Changing);
    assert_eq!(world.begin(new(unknown, &alice, 10, 2)).await, Begun::Conflict, "not while it goes");
    assert!(!world.has(bob.devices[0], unknown).await);
    assert_eq!(world.store.doomed_blobs(false, 0).await.unwrap(), []);
    assert_eq!(world.store.doomed_blobs(true, 0).await.unwrap(), [unknown]);
    assert!(world.store.forget_blob(unknown).await.unwrap());
    assert_eq!((known(unknown).await, world.totals().await), (Known::Nothing, before));
}

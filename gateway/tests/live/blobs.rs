//! Files over two gateways: who may put and fetch parts, and what becomes of those who may not.

use crate::{
    kit::{Client, Person, Place, World},
    pairs::{DIRECT, founding},
    web::{Web, bearer, path},
};
use fastchat_gateway::{
    config::Settings,
    store::{
        NewLeave,
        blobs::{BlobKey, NewToken},
    },
};
use fastchat_protocol::{
    BlobId, ClientFrame, Code, ConversationId, Counter, Epoch, ServerFrame,
    client::{BeginBlob, DropBlob, FinishBlob, GetBlob},
    limits::MAX_BLOB_PART,
    server::{BlobGrant, BlobToken},
};
use sha2::{Digest, Sha256};
use std::{num::NonZeroU32, sync::Arc};

pub(crate) const BLOB: BlobId = BlobId::new([9; 16]);

/// Alice and Bob have a conversation, Eve is not in it; each is at a gateway.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) here: Place,
    pub(crate) there: Place,
    pub(crate) alice: Person,
    pub(crate) bob: Person,
    pub(crate) eve: Person,
    pub(crate) a: Client,
    pub(crate) b: Client,
    pub(crate) e: Client,
}

impl Scene {
    pub(crate) async fn new(settings: Settings) -> Self {
        let world = World::new().await;
        let (here, there) = (world.gateway_with(settings.clone()), world.gateway_with(settings));
        let alice = world.person(&here, 1).await;
        let (bob, eve) = (world.person(&here, 2).await, world.person(&here, 3).await);
        world.store.found_direct(founding(&alice, &bob)).await.expect("it answers");
        let (a, b, e) = (alice.connect(&here).await, bob.connect(&there).await, eve.connect(&there).await);
        Self { world, here, there, alice, bob, eve, a, b, e }
    }

    pub(crate) async fn begin(&mut self, size_bytes: u64, parts: u32) -> BlobGrant {
        granted(begin(&mut self.a, size_bytes, parts).await)
    }
}

pub(crate) async fn begin(client: &mut Client, size_bytes: u64, parts: u32) -> ServerFrame {
    client
        .ask(ClientFrame::BeginBlob(BeginBlob { conversation: DIRECT, blob: BLOB, size_bytes, parts }))
        .await
}

pub(crate) async fn get(client: &mut Client) -> ServerFrame {
    client.ask(ClientFrame::GetBlob(GetBlob { conversation: DIRECT, blob: BLOB })).await
}

pub(crate) async fn finish(client: &mut Client) -> ServerFrame {
    client.ask(ClientFrame::FinishBlob(FinishBlob { conversation: DIRECT, blob: BLOB })).await
}

pub(crate) fn granted(frame: ServerFrame) -> BlobGrant {
    match frame {
        ServerFrame::BlobGrant(grant) => grant,
        other => panic!("no grant: {other:?}"),
    }
}

pub(crate) fn code(frame: &ServerFrame) -> Option<Code> {
    match frame {
        ServerFrame::Refused(refusal) => Some(refusal.code),
        _ => None,
    }
}

/// Whole parts that differ, and a shorter one.
fn parts() -> Vec<Vec<u8>> {
    let whole = |n: u8| (0..MAX_BLOB_PART).map(|at| (at % 251) as u8 ^ n).collect();
    vec![whole(1), whole(2), vec![3; 1_000]]
}

pub(crate) async fn up_here_and_down_there(settings: Settings) {
    let mut scene = Scene::new(settings).await;
    let parts = parts();
    let size = parts.iter().map(Vec::len).sum::<usize>() as u64;
    let grant = scene.begin(size, 3).await;
    assert!(!grant.complete && !grant.has(0) && !grant.has(2));
    let web = Web::of(&scene.here).await;
    assert_eq!(web.put(&grant.token, BLOB, 2, &parts[2]).await, 204);
    assert_eq!(web.put(&grant.token, BLOB, 0, &parts[0]).await, 204);
    assert_eq!(code(&finish(&mut scene.a).await), Some(Code::PartsMissing));
    assert_eq!(code(&get(&mut scene.b).await), Some(Code::NoBlob), "not before it is finished");

    // The gateway dies; the same token is good at the other one, and so is another.
    drop(web);
    scene.here.gateway.ending.cancel();
    drop(scene.a);
    let web = Web::of(&scene.there).await;
    assert_eq!(web.put(&grant.token, BLOB, 0, &parts[0]).await, 204, "the same again");
    scene.a = scene.alice.connect(&scene.there).await;
    let again = scene.begin(size, 3).await;
    assert_eq!((0..3).map(|part| again.has(part)).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(web.put(&again.token, BLOB, 1, &parts[1]).await, 204);
    for _ in 0..2 {
        assert!(matches!(finish(&mut scene.a).await, ServerFrame::Done(_)));
    }
    let grant = granted(get(&mut scene.b).await);
    assert_eq!((grant.size_bytes, grant.parts, grant.complete), (size, 3, true));
    for (number, part) in (0..).zip(&parts) {
        let answer = web.get(&grant.token, BLOB, number).await;
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("content-type: application/octet-stream"), "{}", answer.head);
        assert!(answer.body == *part, "part {number}");
    }
    assert!(scene.begin(size, 3).await.complete);
    let dropped = ClientFrame::DropBlob(DropBlob { conversation: DIRECT, blob: BLOB });
    assert_eq!(code(&scene.b.ask(dropped.clone()).await), Some(Code::Forbidden));
    assert!(matches!(scene.a.ask(dropped).await, ServerFrame::Done(_)));
    assert_eq!(web.get(&grant.token, BLOB, 0).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_up_at_two_gateways_and_comes_down() {
    up_here_and_down_there(Settings::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_former_members_fetch_nothing() {
    let mut scene = Scene::new(Settings::default()).await;
    assert_eq!(code(&begin(&mut scene.e, 10, 1).await), Some(Code::NotMember));
    let grant = scene.begin(10, 1).await;
    assert_eq!(code(&begin(&mut scene.b, 10, 1).await), Some(Code::Conflict));
    let web = Web::of(&scene.there).await;
    assert_eq!(web.put(&grant.token, BLOB, 0, b"0123456789").await, 204);
    assert!(matches!(finish(&mut scene.a).await, ServerFrame::Done(_)));
    assert_eq!(code(&get(&mut scene.e).await), Some(Code::NoBlob));
    assert_eq!(code(&finish(&mut scene.e).await), Some(Code::NotMember));
    let dropped = ClientFrame::DropBlob(DropBlob { conversation: DIRECT, blob: BLOB });
    assert_eq!(code(&scene.e.ask(dropped).await), Some(Code::NoBlob));

    // A good token does not outlive what it rests on: here the device is revoked.
    let token = granted(get(&mut scene.b).await).token;
    assert_eq!(web.get(&token, BLOB, 0).await.status, 200);
    scene.world.store.set_disabled("tests", scene.bob.account, true).await.expect("it answers");
    assert_eq!(web.get(&token, BLOB, 0).await.status, 403);
    scene.world.store.set_disabled("tests", scene.bob.account, false).await.expect("it answers");
    assert_eq!(web.get(&token, BLOB, 0).await.status, 200);
    scene
        .world
        .store
        .shut_out_device("tests", scene.bob.account, scene.bob.device)
        .await
        .expect("it answers");
    assert_eq!(web.get(&token, BLOB, 0).await.status, 403);
    // A token that somebody has all the same is worth nothing to a stranger's device.
    let key = BlobKey { conversation: DIRECT, blob: BLOB };
    for (n, device, lasts_s, status) in
        [(1, scene.eve.device, 60, 403), (2, scene.alice.device, 0, 401), (3, scene.alice.device, 60, 200)]
    {
        let hash = Sha256::digest([n; 32]).into();
        let token = NewToken { hash, key, device, puts: false, lasts_s };
        scene.world.store.put_token(token).await.expect("it answers");
        assert_eq!(web.get(&BlobToken::new([n; 32]), BLOB, 0).await.status, status, "{n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_group_before_a_file_is_finished_fetches_it_not() {
    let mut scene = Scene::new(Settings::default()).await;
    let mut group = crate::groups::founding(&[&scene.alice, &scene.bob, &scene.eve]);
    group.conversation = ConversationId::new([67; 16]);
    let conversation = group.conversation;
    scene.world.store.found_group(group).await.expect("it answers");
    let web = Web::of(&scene.here).await;
    let (first, second) = (BlobId::new([1; 16]), BlobId::new([2; 16]));
    for (blob, leaves) in [(first, false), (second, true)] {
        let begin = BeginBlob { conversation, blob, size_bytes: 10, parts: 1 };
        let grant = granted(scene.a.ask(ClientFrame::BeginBlob(begin)).await);
        assert_eq!(web.put(&grant.token, blob, 0, b"0123456789").await, 204);
        if leaves {
            let left = NewLeave {
                conversation,
                device: scene.bob.device,
                counter: Counter(1),
                epoch: Epoch { generation: 0, number: 1 },
                statement: "out".into(),
            };
            scene.world.store.leave(left).await.expect("it answers");
        }
        let finish = ClientFrame::FinishBlob(FinishBlob { conversation, blob });
        assert!(matches!(scene.a.ask(finish).await, ServerFrame::Done(_)));
    }
    let mut get = async |blob| scene.b.ask(ClientFrame::GetBlob(GetBlob { conversation, blob })).await;
    let grant = granted(get(first).await);
    assert_eq!(web.get(&grant.token, first, 0).await.status, 200, "it was there");
    assert_eq!(code(&get(second).await), Some(Code::NoBlob), "it was out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_for_one_blob_and_one_direction() {
    let mut scene = Scene::new(Settings::default()).await;
    let (zero, one) = (vec![0; 10_000], vec![1; 10_000]);
    let put = scene.begin(20_000, 2).await.token;
    let web = Web::of(&scene.here).await;
    assert_eq!(web.get(&put, BLOB, 0).await.status, 403, "to put, not to fetch");
    assert_eq!(web.put(&put, BlobId::new([8; 16]), 0, &zero).await, 403, "another blob");
    assert_eq!(web.put(&BlobToken::new([1; 32]), BLOB, 0, &zero).await, 401);
    assert_eq!(web.put(&put, BLOB, 0, &zero).await, 204);
    assert_eq!(web.put(&put, BLOB, 1, &one).await, 204);
    assert!(matches!(finish(&mut scene.a).await, ServerFrame::Done(_)));
    assert_eq!(web.put(&put, BLOB, 1, &one).await, 204, "its answer may have been lost");
    assert_eq!(web.put(&put, BLOB, 1, &zero).await, 409);
    let got = granted(get(&mut scene.b).await).token;
    assert_eq!(web.put(&got, BLOB, 0, &zero).await, 403, "to fetch, not to put");
    let right = web.get(&got, BLOB, 0).await;
    assert_eq!((right.status, right.body.as_slice()), (200, zero.as_slice()));

    let address = path(BLOB, 0);
    for (headers, status) in [
        (String::new(), 401),
        (format!("Authorization: Basic {}\r\n", hex::encode(got.expose())), 401),
        ("Authorization: Bearer abc\r\n".into(), 401),
        (format!("{}Origin: https://evil.example\r\n", bearer(&got)), 403),
        (format!("{}Origin: null\r\n", bearer(&got)), 403),
        (format!("{}Origin: https://here:1\r\n", bearer(&got)), 200),
    ] {
        assert_eq!(web.ask("GET", &address, &headers, &[]).await.status, status, "{headers}");
    }
    for (address, status) in [
        (path(BLOB, 2), 404),
        (path(BLOB, u32::MAX), 404),
        (path(BLOB, -1), 400),
        (path(BLOB, "x"), 400),
        ("/v1/blobs/0909/0".into(), 400),
        (format!("/v1/blobs/{BLOB}"), 404),
        (format!("/v1/blobs/{BLOB}/0/1"), 404),
    ] {
        assert_eq!(web.ask("GET", &address, &bearer(&got), &[]).await.status, status, "{address}");
    }
    assert_eq!(web.ask("DELETE", &path(BLOB, 0), &bearer(&got), &[]).await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_has_a_length_that_fits() {
    let settings = Settings { blob_max_bytes: Some(MAX_BLOB_PART as u64 * 2), ..Settings::default() };
    let mut scene = Scene::new(settings).await;
    assert_eq!(code(&begin(&mut scene.a, MAX_BLOB_PART as u64 * 2 + 1, 3).await), Some(Code::TooLarge));
    assert_eq!(code(&begin(&mut scene.a, 10, 0).await), Some(Code::TooLarge));
    let grant = scene.begin(300_000, 2).await;
    let web = Web::of(&scene.here).await;
    let token = bearer(&grant.token);
    let ask = async |length: &str, body: &[u8]| {
        web.ask("PUT", &path(BLOB, 0), &format!("{token}{length}\r\n"), body).await.status
    };
    assert_eq!(ask("Content-Length: 0", &[]).await, 400);
    assert_eq!(ask("Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n").await, 411);
    // Refused by what it says, before a byte of it has come.
    assert_eq!(ask("Content-Length: 262209", &[]).await, 413);
    assert_eq!(ask("Content-Length: 99999999999", &[0; 5_000]).await, 413);
    assert_eq!(web.put(&grant.token, BLOB, 0, &vec![1; MAX_BLOB_PART]).await, 204);
    assert_eq!(web.put(&grant.token, BLOB, 1, &vec![1; MAX_BLOB_PART]).await, 413, "more than was said");
    assert_eq!(web.put(&grant.token, BLOB, 1, &vec![1; 300_000 - MAX_BLOB_PART]).await, 204);
    assert!(matches!(finish(&mut scene.a).await, ServerFrame::Done(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_put_a_part_at_once_one_wins() {
    let mut scene = Scene::new(Settings::default()).await;
    let grant = scene.begin(100_000, 1).await;
    let (here, there) = (Web::of(&scene.here).await, Web::of(&scene.there).await);
    let (one, other) = (vec![1; 100_000], vec![2; 100_000]);
    let (first, second) =
        tokio::join!(here.put(&grant.token, BLOB, 0, &one), there.put(&grant.token, BLOB, 0, &other));
    let mut both = [first, second];
    both.sort_unstable();
    assert_eq!(both, [204, 409]);
    assert!(matches!(finish(&mut scene.a).await, ServerFrame::Done(_)));
    let got = granted(get(&mut scene.b).await).token;
    let kept = there.get(&got, BLOB, 0).await.body;
    assert!(kept == if first == 204 { one } else { other });
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_and_sessions_do_not_take_each_others_places() {
    let rate = NonZeroU32::new(6);
    let settings =
        Settings { blob_parts_per_minute: rate, blob_quota_bytes: Some(100), ..Settings::default() };
    let mut scene = Scene::new(settings).await;
    match begin(&mut scene.a, 101, 1).await {
        ServerFrame::Refused(refusal) => {
            assert_eq!(refusal.code, Code::QuotaFull);
            assert!(refusal.detail.contains("100"), "{refusal}");
        }
        other => panic!("not refused: {other:?}"),
    }
    let grant = scene.begin(100, 1).await;
    let web = Web::of(&scene.here).await;
    let free = scene.here.gateway.unidentified.available_permits();
    let all = Arc::clone(&scene.here.gateway.blobs.places);
    let many = u32::try_from(all.available_permits()).expect("few");
    let held = all.acquire_many_owned(many).await.expect("open");
    let headers = format!("{}Content-Length: 5\r\n", bearer(&grant.token));
    let full = web.ask("PUT", &path(BLOB, 0), &headers, b"01234").await;
    assert_eq!(full.status, 503);
    assert!(full.head.contains("retry-after: "), "{}", full.head);
    drop(scene.alice.connect(&scene.here).await);
    assert_eq!(scene.here.gateway.unidentified.available_permits(), free);
    drop(held);
    assert_eq!(web.put(&grant.token, BLOB, 0, &[1; 100]).await, 204);

    // Two beginnings and two parts were counted.
    assert_eq!(web.put(&grant.token, BLOB, 0, &[1; 100]).await, 204);
    assert_eq!(web.put(&grant.token, BLOB, 0, &[1; 100]).await, 204);
    let limited = web.ask("PUT", &path(BLOB, 0), &headers, b"01234").await;
    assert_eq!(limited.status, 429);
    assert!(limited.head.contains("retry-after: "), "{}", limited.head);
    assert!(String::from_utf8_lossy(&limited.body).contains("\"error\""));
}

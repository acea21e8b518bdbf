//! Files in object storage: a folder that two gateways share, and a server that speaks as much S3 as a put
//! needs. Nothing is lost, forgotten, or paid for twice; an outage is said, and is of files alone.

use crate::{
    blobs::{BLOB, Scene, code, finish, get, granted, up_here_and_down_there},
    nats_server::ports::free_port,
    pairs::DIRECT,
    web::{Web, bearer, path, until},
};
use fastchat_gateway::config::Settings;
use fastchat_protocol::{
    BlobId, ClientFrame, ConversationId, ServerFrame,
    client::{BeginBlob, DropBlob, FinishBlob},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A folder, and settings by which files go there.
fn folder() -> (TempDir, Settings) {
    let folder = TempDir::new().expect("a folder");
    let url = format!("file://{}", folder.path().display());
    (folder, Settings { blob_storage: Some(url), sweep_seconds: Some(1), ..Settings::default() })
}

/// All files below.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            if entry.path().is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    files
}

/// An object beside a conversation, of so many days ago.
fn object(folder: &Path, conversation: ConversationId, blob: BlobId, name: &str, days: u64) -> PathBuf {
    let place = folder.join("fastchat.local").join(conversation.to_string()).join(blob.to_string());
    fs::create_dir_all(&place).expect("a folder");
    let file = place.join(name);
    fs::write(&file, "left by a crash").expect("it is written");
    let then = SystemTime::now() - Duration::from_secs(days * 24 * 3_600 + 60);
    fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(then)).expect("it is old");
    file
}

async fn doomed(scene: &Scene) -> u64 {
    scene.world.store.blob_totals().await.expect("it answers").doomed
}

/// As if it had been long ago.
async fn age(scene: &Scene) {
    scene.world.sql("UPDATE blobs SET at_ms = at_ms - 3600000 WHERE state = 3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_a_folder_leaves_nothing_when_it_goes() {
    let (folder, settings) = folder();
    up_here_and_down_there(Settings { sweep_seconds: None, ..settings.clone() }).await;
    let others = files(folder.path());
    assert_eq!(others.len(), 3, "the bytes are in the folder");

    // One more, dropped, with an object that no row knows; the sweep takes both once nobody can put more.
    let mut scene = Scene::new(settings).await;
    let grant = scene.begin(1_000, 1).await;
    let web = Web::of(&scene.here).await;
    assert_eq!(web.put(&grant.token, BLOB, 0, &[7; 1_000]).await, 204);
    assert_eq!(web.put(&grant.token, BLOB, 0, &[8; 1_000]).await, 409, "other bytes");
    assert_eq!(files(folder.path()).len(), 4, "what was refused left nothing");
    // In another conversation's folder nothing is touched; those were put there by the other world.
    let orphan = object(folder.path(), DIRECT, BLOB, "0-orphan#1", 0);
    let dropped = ClientFrame::DropBlob(DropBlob { conversation: DIRECT, blob: BLOB });
    assert!(matches!(scene.a.ask(dropped).await, ServerFrame::Done(_)));
    sleep(Duration::from_secs(3)).await;
    assert_eq!(doomed(&scene).await, 1, "not at once: somebody may be putting a part");
    assert!(orphan.exists());
    age(&scene).await;
    until("it is swept", async || doomed(&scene).await == 0).await;
    assert!(!orphan.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_no_row_knows_are_found_and_go() {
    let (folder, settings) = folder();
    let mut scene = Scene::new(Settings { sweep_seconds: Some(3_600), ..settings.clone() }).await;
    let web = Web::of(&scene.here).await;
    let grant = scene.begin(1_000, 1).await;
    assert_eq!(web.put(&grant.token, BLOB, 0, &[7; 1_000]).await, 204);
    assert!(matches!(finish(&mut scene.a).await, ServerFrame::Done(_)));
    let own = files(folder.path()).remove(0);
    let long_ago = SystemTime::now() - Duration::from_secs(90 * 24 * 3_600);
    fs::File::options().write(true).open(&own).and_then(|file| file.set_modified(long_ago)).expect("old");

    let hash = "ab".repeat(32);
    let (unknown, elsewhere) = (BlobId::new([5; 16]), ConversationId::new([77; 16]));
    let stray = object(folder.path(), DIRECT, BLOB, &format!("0-{hash}"), 2);
    let young = object(folder.path(), DIRECT, BLOB, &format!("1-{hash}"), 0);
    let named = object(folder.path(), DIRECT, BLOB, "notes.txt", 9);
    let lost = object(folder.path(), elsewhere, unknown, &format!("3-{hash}"), 2);
    let fresh = object(folder.path(), elsewhere, BLOB, &format!("3-{hash}"), 0);
    let theirs = folder.path().join("elsewhere").join(DIRECT.to_string());
    fs::create_dir_all(&theirs).expect("a folder");
    let theirs = theirs.join(format!("0-{hash}"));
    fs::write(&theirs, "of another deployment").expect("it is written");

    let _sweeping = scene.world.gateway_with(settings);
    until("the stray is gone", async || !stray.exists()).await;
    until("the unknown blob is doomed", async || doomed(&scene).await == 1).await;
    assert!(lost.exists(), "its time has not come");
    age(&scene).await;
    until("and gone", async || doomed(&scene).await == 0 && !lost.exists()).await;
    for left in [&own, &young, &named, &fresh, &theirs] {
        assert!(left.exists(), "{}", left.display());
    }
    let got = granted(get(&mut scene.b).await).token;
    assert_eq!(web.get(&got, BLOB, 0).await.body, [7; 1_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_object_storage_has_lost_or_altered_is_said() {
    let (folder, settings) = folder();
    let mut scene = Scene::new(settings).await;
    let web = Web::of(&scene.here).await;
    let grant = scene.begin(1_000, 1).await;
    assert_eq!(web.put(&grant.token, BLOB, 0, &[7; 1_000]).await, 204);
    assert!(matches!(finish(&mut scene.a).await, ServerFrame::Done(_)));
    let got = granted(get(&mut scene.b).await).token;
    let file = files(folder.path()).remove(0);
    for bytes in [vec![8; 1_000], vec![7; 999], vec![7; 100_000]] {
        fs::write(&file, &bytes).expect("it is altered");
        let answer = web.get(&got, BLOB, 0).await;
        assert_eq!(answer.status, 410, "{} bytes", bytes.len());
        assert!(String::from_utf8_lossy(&answer.body).contains("has lost this part"));
    }
    fs::write(&file, [7; 1_000]).expect("it is put back");
    assert_eq!(web.get(&got, BLOB, 0).await.status, 200);
    fs::remove_file(&file).expect("it is removed");
    assert_eq!(web.get(&got, BLOB, 0).await.status, 410);
    // Its end is none the worse.
    let dropped = ClientFrame::DropBlob(DropBlob { conversation: DIRECT, blob: BLOB });
    assert!(matches!(scene.a.ask(dropped).await, ServerFrame::Done(_)));
    age(&scene).await;
    until("it is swept", async || doomed(&scene).await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_begun_in_the_store_stay_there_and_those_outside_say_where_they_are() {
    let (folder, settings) = folder();
    let mut scene = Scene::new(Settings::default()).await;
    let outside = scene.world.gateway_with(settings);
    let (here, there) = (Web::of(&scene.here).await, Web::of(&outside).await);
    let grant = scene.begin(1_000, 1).await;
    assert_eq!(there.put(&grant.token, BLOB, 0, &[7; 1_000]).await, 204);
    assert!(files(folder.path()).is_empty(), "it was begun in the store");

    // Begun outside, and asked of a gateway that looks nowhere else.
    let blob = BlobId::new([5; 16]);
    let mut a = scene.alice.connect(&outside).await;
    let begin = BeginBlob { conversation: DIRECT, blob, size_bytes: 1_000, parts: 1 };
    let grant = granted(a.ask(ClientFrame::BeginBlob(begin)).await);
    let headers = format!("{}Content-Length: 1000\r\n", bearer(&grant.token));
    let refused = here.ask("PUT", &path(blob, 0), &headers, &[7; 1_000]).await;
    assert_eq!(refused.status, 503);
    assert!(String::from_utf8_lossy(&refused.body).contains("not set up here"));
    assert_eq!(there.put(&grant.token, blob, 0, &[7; 1_000]).await, 204);
    assert_eq!(files(folder.path()).len(), 1);
}

/// A port at which nobody listens.
fn nobody() -> String {
    format!("http://127.0.0.1:{}", free_port().expect("a port"))
}

/// Settings for S3 there, and the folder of the keys.
fn s3(endpoint: String) -> (TempDir, Settings) {
    let keys = TempDir::new().expect("a folder");
    let key = keys.path().join("key");
    fs::write(&key, "key").expect("it is written");
    let settings = Settings {
        blob_storage: Some("s3://bucket/files".into()),
        blob_s3_endpoint: Some(endpoint),
        blob_s3_access_key_file: Some(key.clone()),
        blob_s3_secret_key_file: Some(key),
        ..Settings::default()
    };
    (keys, settings)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_object_storage_is_away_files_wait_and_messages_go_on() {
    let (_keys, settings) = s3(nobody());
    let mut scene = Scene::new(settings).await;
    let web = Web::of(&scene.here).await;
    let grant = scene.begin(1_000, 1).await;
    let headers = format!("{}Content-Length: 1000\r\n", bearer(&grant.token));
    let refused = web.ask("PUT", &path(BLOB, 0), &headers, &[7; 1_000]).await;
    assert_eq!(refused.status, 503);
    assert!(refused.head.contains("retry-after: 5"), "{}", refused.head);
    assert!(!String::from_utf8_lossy(&refused.body).contains("127.0.0.1"), "that is for the log");
    // No row says that the part is there.
    let finish = ClientFrame::FinishBlob(FinishBlob { conversation: DIRECT, blob: BLOB });
    assert!(code(&scene.a.ask(finish).await).is_some());
    assert!(matches!(scene.a.say(DIRECT, 1).await, ServerFrame::Sent(_)));
}

/// Takes one put as S3 does, and answers it once it is told to.
async fn take_one(listener: &TcpListener) -> TcpStream {
    loop {
        let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.expect("in time").expect("a peer");
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(stream.read_buf(&mut bytes).await.expect("it reads") > 0);
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        if !head.starts_with("put ") {
            // Somebody lists at the start.
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
            continue;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).expect("a length");
        while bytes.len() < end + length {
            assert!(stream.read_buf(&mut bytes).await.expect("it reads") > 0);
        }
        return stream;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_in_the_middle_leaves_no_bytes_that_count_for_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (_keys, settings) = s3(format!("http://{}", listener.local_addr().expect("an address")));
    let mut scene = Scene::new(settings).await;
    let web = Web::of(&scene.here).await;
    let grant = scene.begin(1_000, 1).await;
    let headers = format!("{}Content-Length: 1000\r\n", bearer(&grant.token));
    let address = path(BLOB, 0);
    let mut storage = tokio::select! {
        stream = take_one(&listener) => stream,
        answer = web.ask("PUT", &address, &headers, &[7; 1_000]) => panic!("answered: {answer:?}"),
    };
    // The client's connection is gone, and the bytes are in the bucket.
    until("the gateway has seen it go", async || scene.here.gateway.blobs.transfers() == 0).await;
    let key = fastchat_gateway::store::blobs::BlobKey { conversation: DIRECT, blob: BLOB };
    assert_eq!(scene.world.store.part(key, 0).await.expect("it answers"), None);
    let answer = b"HTTP/1.1 200 OK\r\nETag: \"one\"\r\nContent-Length: 0\r\n\r\n";
    storage.write_all(answer).await.expect("it is written");
    until("the part has its row", async || {
        scene.world.store.part(key, 0).await.expect("it answers").is_some()
    })
    .await;
    assert!(matches!(finish(&mut scene.a).await, ServerFrame::Done(_)));
}

//! How stores use their connections.

use crate::{
    cluster::Database,
    world::{Person, World, connect, item, stored},
};
use fastchat_gateway::store::{Outcome, Registered, Store, sqlite::Sqlite};
use sqlx::{Connection, SqliteConnection};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

/// A way to a server, and how often something came along it.
async fn counted(server: &str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (server, address) = (server.to_owned(), listener.local_addr().unwrap().to_string());
    let count = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (server, count) = (TcpStream::connect(&server).await.unwrap(), Arc::clone(&counting));
            let ((mut from, mut back), (mut answers, mut to)) = (client.into_split(), server.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(read @ 1..) = from.read(&mut buffer).await {
                    count.fetch_add(1, Ordering::Relaxed);
                    to.write_all(&buffer[..read]).await.unwrap();
                }
            });
        }
    });
    (address, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_one_round_trip() {
    const CALLS: usize = 50;
    let database = Database::create().await;
    let url = database.url();
    let server = url.split(['@', '/']).nth(3).expect("a host");
    let (way, count) = counted(server).await;
    let store = connect(&url.replace(server, &way));
    store.migrate().await.unwrap();
    store.incarnation().await.unwrap();
    let before = count.load(Ordering::Relaxed);
    for _ in 0..CALLS {
        store.incarnation().await.unwrap();
    }
    // What a call leaves behind would come after it.
    sleep(Duration::from_millis(50)).await;
    assert_eq!(count.load(Ordering::Relaxed) - before, CALLS);
}

#[tokio::test]
async fn a_failed_call_leaves_no_transaction_open() {
    let world = World::postgres().await;
    world.sql("ALTER TABLE devices ADD CONSTRAINT devices_poison CHECK (false) NOT VALID").await;
    world.store.register(Person::new("alice", 1).registration()).await.unwrap_err();
    let open = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    // Well before Postgres would end it.
    let closed = async {
        while world.number(open).await > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(1), closed).await.expect("its rollback was sent");
}

pub(crate) async fn a_caller_that_gives_up_spoils_no_connection(world: World) {
    let (alice, _, conversation) = world.couple().await;
    // Given up at every stage of its way; whoever uses the connection next reads its own answer.
    for stage in 1_u64.. {
        let batch = [item(conversation, alice.devices[0], stage, 1)];
        let gave_up = give_up_after(stage - 1, world.store.append(&batch)).await;
        let outcome = world.append(item(conversation, alice.devices[0], stage, 1)).await;
        match outcome {
            Outcome::Duplicate(row) => assert_eq!(row.seq.0, stage + 1),
            fresh => assert_eq!((gave_up, stored(&fresh)), (true, stage + 1)),
        }
        if !gave_up {
            assert!(stage > 2, "an append takes several steps");
            return;
        }
    }
}

/// Polls a call so often, each time when it was woken; whether it was given up before its end.
async fn give_up_after<T>(polls: u64, call: impl Future<Output = T>) -> bool {
    let (mut call, mut polled) = (pin!(call), 0);
    std::future::poll_fn(|context| {
        polled += 1;
        match (polled > polls, call.as_mut().poll(context)) {
            (_, Poll::Ready(_)) => Poll::Ready(false),
            (true, Poll::Pending) => Poll::Ready(true),
            (false, Poll::Pending) => Poll::Pending,
        }
    })
    .await
}

#[tokio::test]
async fn a_file_is_closed_after_the_calls_that_run_and_those_that_were_given_up() {
    for waited_for in [true, false] {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("store.db");
        let store = Arc::new(Sqlite::open(&path).await.unwrap());
        let mut other = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
        let calling = Arc::clone(&store);
        let call = async move { calling.register(Person::new("alice", 1).registration()).await };
        // Its connection waits for the file, whoever waits for the call.
        let running = match waited_for {
            true => Some(tokio::spawn(call)),
            false => {
                assert!(give_up_after(0, call).await, "the file is locked");
                None
            }
        };
        sleep(Duration::from_millis(100)).await;
        let mut closing = pin!(store.close());
        timeout(Duration::from_millis(200), &mut closing).await.expect_err("it waits for the call");
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
        other.close().await.unwrap();
        timeout(Duration::from_secs(5), closing).await.expect("the call ends");
        if let Some(running) = running {
            assert_eq!(running.await.unwrap().unwrap(), Registered::Made);
        }
        store.incarnation().await.expect_err("it is closed");
        // Nobody has the file open, and of what was given up nothing is there.
        let mut file = Sqlite::open_alone(&path).await.unwrap();
        let made = sqlx::query_scalar("SELECT count(*) FROM accounts").fetch_one(&mut file).await;
        let made: i64 = made.unwrap();
        assert_eq!(made, i64::from(waited_for));
    }
}

#[tokio::test]
async fn a_file_that_has_gone_is_not_made_anew() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    let store = Sqlite::open(&path).await.unwrap();
    let person = Person::new("alice", 1);
    assert!(give_up_after(0, store.register(person.registration())).await);
    std::fs::rename(&path, folder.path().join("elsewhere.db")).unwrap();
    sleep(Duration::from_millis(100)).await;
    store.register(person.registration()).await.unwrap_err();
    assert!(!path.exists());
}

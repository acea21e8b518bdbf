//! How stores use their connections.

use crate::{
    cluster::Database,
    world::{Person, World, connect, item, stored},
};
use fastchat_gateway::store::{Outcome, Registered, Store, sqlite::Sqlite};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
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
    for counter in 1..=60 {
        let batch = [item(conversation, alice.devices[0], counter, 1)];
        let append = world.store.append(&batch);
        // Given up at any stage of its way; whoever uses the connection next reads its own answer.
        let gave_up = timeout(Duration::from_micros(counter * 40), append).await.is_err();
        let outcome = world.append(item(conversation, alice.devices[0], counter, 1)).await;
        match outcome {
            Outcome::Duplicate(row) => assert_eq!(row.seq.0, counter + 1),
            fresh => assert_eq!((gave_up, stored(&fresh)), (true, counter + 1)),
        }
    }
}

#[tokio::test]
async fn a_failed_call_keeps_no_file_locked() {
    let world = World::sqlite().await;
    let poison = "CREATE TRIGGER poison BEFORE INSERT ON devices BEGIN SELECT raise(ABORT, 'poison'); END";
    world.sql(poison).await;
    world.store.register(Person::new("alice", 1).registration()).await.unwrap_err();
    // Another process writes, which waits for nobody.
    timeout(Duration::from_secs(1), world.sql("DROP TRIGGER poison")).await.expect("nothing is open");
    assert_eq!(world.store.register(Person::new("alice", 1).registration()).await.unwrap(), Registered::Made);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_closed_after_the_calls_that_run() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = Arc::new(Sqlite::open(&folder.path().join("store.db")).await.unwrap());
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let (store, person) = (Arc::clone(&store), Person::new(&format!("p{n}"), 1));
            tokio::spawn(async move { store.register(person.registration()).await })
        })
        .collect();
    sleep(Duration::from_millis(1)).await;
    store.close().await;
    let mut made = 0;
    for call in calls {
        made += usize::from(call.await.unwrap().is_ok());
    }
    store.incarnation().await.expect_err("it is closed");
    // What said that it was done is there, and nobody has the file open.
    let mut file = Sqlite::open_alone(&folder.path().join("store.db")).await.unwrap();
    let there: i64 = sqlx::query_scalar("SELECT count(*) FROM accounts").fetch_one(&mut file).await.unwrap();
    assert_eq!(there, made as i64);
}

//! How the store in Postgres uses its connections.

use crate::{
    cluster::Database,
    world::{Person, World, connect},
};
use fastchat_gateway::store::Store;
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

//! What only a server can do to a gateway: go away and come back, be at another version, be strict
//! about roles, hold a lock.

use crate::{
    cluster::{Cluster, Database, command, with_database},
    world::{Person, World, connect, duplicate, founding, group, item, joins, leave, stored},
};
use fastchat_gateway::{
    limits::BATCH_WAIT,
    store::{
        Founded, Outcome, Recovery, Registered, Store, StoreError,
        operate::{NewInvite, Quotas},
        postgres::Postgres,
    },
    writer::{WriteError, Writer},
};
use fastchat_protocol::{ConversationId, DeviceId, Role, Seq, SlotId};
use sqlx::{Connection, Executor, PgConnection};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Two people and their conversation, in any store.
async fn settle(store: &Postgres) -> (DeviceId, DeviceId, ConversationId) {
    let (alice, bob) = (Person::new("alice", 1), Person::new("bob", 1));
    for person in [&alice, &bob] {
        assert_eq!(store.register(person.registration()).await.unwrap(), Registered::Made);
    }
    let founding = founding(&alice, &bob, "c");
    let conversation = founding.conversation;
    assert!(matches!(store.found_direct(founding).await.unwrap(), Founded::Made { .. }));
    (alice.devices[0], bob.devices[0], conversation)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_goes_away_and_comes_back() {
    let mut cluster = Cluster::start();
    let store = connect(cluster.url());
    store.migrate().await.unwrap();
    let (alice, _, conversation) = settle(&store).await;
    assert!(matches!(store.append(&[item(conversation, alice, 1, 1)]).await.unwrap()[0], Outcome::Stored(_)));

    for (counter, word) in (2..).zip(["stop", "crash"]) {
        cluster.order(word);
        // The connections that were in use are found broken, the next ones are refused.
        let start = Instant::now();
        let errors = [0; 2]
            .map(|_| async { store.append(&[item(conversation, alice, counter, 1)]).await.unwrap_err() });
        for error in errors {
            assert!(matches!(error.await, StoreError::Unavailable(_) | StoreError::Unknown(_)));
        }
        assert!(matches!(store.ping().await.unwrap_err(), StoreError::Unavailable(_)));
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
        cluster.order("start");
        let outcome = loop {
            match store.append(&[item(conversation, alice, counter, 1)]).await {
                Ok(mut outcomes) => break outcomes.remove(0),
                Err(error) => assert!(start.elapsed() < Duration::from_secs(20), "{error}"),
            }
        };
        assert_eq!(stored(&outcome), counter + 1);
    }

    // A gateway may start before its database.
    cluster.order("stop");
    let early = connect(cluster.url());
    assert!(matches!(early.check_schema().await.unwrap_err(), StoreError::Unavailable(_)));
    cluster.order("start");
    early.check_schema().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acked_survives_a_crash() {
    let mut cluster = Cluster::start();
    let store = Arc::new(connect(cluster.url()));
    store.migrate().await.unwrap();
    let (alice, bob, conversation) = settle(&store).await;
    let writer = Writer::spawn(store.clone(), BATCH_WAIT);
    let (acked, mut next) = (Arc::new(Mutex::new(Vec::new())), 1);
    let sender = {
        let acked = acked.clone();
        tokio::spawn(async move {
            let mut unknown = 0;
            // One at a time, so that the crash meets every stage of a commit.
            loop {
                let (reply, answer) = tokio::sync::oneshot::channel();
                let send = Box::new(move |outcome| drop(reply.send(outcome)));
                writer.submit(item(conversation, alice, next, 1), send).unwrap();
                match answer.await.unwrap() {
                    Ok(outcome) => {
                        acked.lock().unwrap().push((next, outcome));
                        next += 1;
                    }
                    Err(WriteError::Unknown) => unknown += 1,
                    Err(WriteError::Unavailable) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
                if next > 400 {
                    return unknown;
                }
            }
        })
    };
    while !sender.is_finished() {
        tokio::time::sleep(Duration::from_millis(150)).await;
        cluster.order("crash");
        cluster.order("start");
    }
    sender.await.unwrap();
    // The first call after a crash may find its connection broken.
    store.ping().await.ok();
    let mut after = Seq(1);
    let acked = std::mem::take(&mut *acked.lock().unwrap());
    for (counter, outcome) in &acked {
        let seq = match outcome {
            Outcome::Stored(_) => stored(outcome),
            // Its first try was unknown.
            repeated => duplicate(repeated),
        };
        assert_eq!(seq, counter + 1);
        let page = store.fetch(bob, conversation, after, 1).await.unwrap().unwrap();
        assert_eq!((page.rows[0].seq.0, page.rows[0].counter.0), (seq, *counter));
        after = page.rows[0].seq;
    }
}

#[tokio::test]
async fn a_schema_that_is_not_there_is_named() {
    let database = Database::create().await;
    let store = connect(&database.url());
    let message = store.check_schema().await.unwrap_err().to_string();
    assert!(message.contains("fastchat-gateway migrate"), "{message}");
    store.migrate().await.unwrap();
    store.check_schema().await.unwrap();
    store.migrate().await.unwrap();
    // A newer gateway has migrated already: this one still serves.
    let newer = "INSERT INTO _sqlx_migrations VALUES (1000, 'later', now(), true, '', 0)";
    command(&database.url(), newer.to_owned()).await;
    store.check_schema().await.unwrap();
    store.migrate().await.unwrap();
}

#[tokio::test]
async fn the_gateways_role_changes_rows_and_no_table() {
    let mut cluster = Cluster::start();
    let owner = connect(cluster.url());
    owner.migrate().await.unwrap();
    let roles = include_str!("../../../infra/postgres/roles.sql");
    command(cluster.url(), roles.to_owned()).await;
    command(cluster.url(), roles.to_owned()).await;

    let url = cluster.url().replace("postgres://postgres@", "postgres://fastchat_gateway@");
    let store = connect(&url);
    store.check_schema().await.unwrap();
    store.incarnation().await.unwrap();
    let (alice, bob, conversation) = settle(&store).await;
    assert_eq!(stored(&store.append(&[item(conversation, alice, 1, 1)]).await.unwrap()[0]), 2);
    let commit = crate::world::commit(conversation, alice, 2, 1);
    assert_eq!(stored(&store.append_commit(commit).await.unwrap().outcome), 3);
    store.publish_key_packages(alice, 1, &["package".into()], Some(&"last".into())).await.unwrap();
    store
        .claim_key_packages(Person::new("bob", 1).account, Person::new("alice", 1).account, 1)
        .await
        .unwrap();
    store.set_cursors(&[(bob, conversation, Seq(2))]).await.unwrap();
    store.ack_mailbox(bob, Seq(1)).await.unwrap();
    store.moved_since(None).await.unwrap();
    assert!(
        store.put_manifest(Person::new("bob", 1).account, Person::new("bob", 1).manifest(2)).await.unwrap()
    );

    let (carol, dave) = (Person::new("carol", 1), Person::new("dave", 1));
    for person in [&carol, &dave] {
        assert_eq!(store.register(person.registration()).await.unwrap(), Registered::Made);
    }
    let founding = group("g", &[(&carol, Role::Owner), (&dave, Role::Member)]);
    assert_eq!(stored(&store.found_group(founding.clone()).await.unwrap().outcome), 1);
    let statement = leave(founding.conversation, dave.devices[0], 1, 1);
    assert_eq!(stored(&store.leave(statement).await.unwrap()), 2);
    store.block(carol.account, dave.account, true).await.unwrap();
    let recovery = Recovery { key_hash: [0; 32], sealed: "sealed".into() };
    store.set_recovery(carol.account, recovery).await.unwrap();
    assert!(store.put_slot(carol.account, SlotId::new([1; 16]), 0, &"part".into(), 60).await.unwrap());
    administrate(&store, &dave).await;
    assert!(store.delete_account(carol.account).await.unwrap());

    let mut connection = PgConnection::connect(&url).await.unwrap();
    for forbidden in [
        "DROP TABLE log",
        "CREATE TABLE x (y int)",
        "ALTER TABLE log ADD x int",
        "TRUNCATE log",
        "UPDATE log SET seq = 9",
        "UPDATE settings SET incarnation = 9",
        "UPDATE audit SET actor = 'nobody'",
        "DELETE FROM _sqlx_migrations",
    ] {
        let error = connection.execute(forbidden).await.unwrap_err();
        assert_eq!(
            error.as_database_error().unwrap().code().as_deref(),
            Some("42501"),
            "{forbidden}: {error}"
        );
    }
    cluster.order("stop");
}

/// What `fastchat-gateway admin` does needs no other role than the gateway's.
async fn administrate(store: &impl Store, person: &Person) {
    let (by, account) = ("operator", person.account);
    let invite = NewInvite { code_hash: [1; 32], note: String::new(), uses: 1, lasts_s: None };
    store.make_invite(by, invite).await.unwrap();
    let mut invited = Person::new("invited", 1).registration();
    invited.invite = Some([1; 32]);
    assert_eq!(store.register(invited).await.unwrap(), Registered::Made);
    assert!(store.revoke_invite(by, [1; 32]).await.unwrap());
    store.set_quotas(by, account, Quotas::default()).await.unwrap();
    assert!(store.set_disabled(by, account, true).await.unwrap());
    store.reset_login(by, account, Some("void")).await.unwrap();
    assert!(store.shut_out_device(by, account, person.devices[0]).await.unwrap());
    assert!(store.delete_user(by, account).await.unwrap());
    assert_eq!(store.notices(0).await.unwrap().len(), 4);
    store.sweep().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_transaction_holds_a_row_for_two_seconds() {
    let database = Database::create().await;
    let store = connect(&database.url());
    store.migrate().await.unwrap();
    let (alice, _, conversation) = settle(&store).await;
    // Somebody else's: it has no timeout of its own.
    let mut holder = PgConnection::connect(&database.url()).await.unwrap();
    holder.execute("BEGIN; SELECT 1 FROM conversations FOR UPDATE").await.unwrap();
    let start = Instant::now();
    let error = store.append(&[item(conversation, alice, 1, 1)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    // Not a batch to take apart: each of its items would wait as long.
    assert!(!error.may_be_one_items());
    assert!((1..4).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    holder.close().await.unwrap();
    assert_eq!(stored(&store.append(&[item(conversation, alice, 1, 1)]).await.unwrap()[0]), 2);
}

/// A commit that removes a late device and lets an early one in writes to the late one first. Somebody
/// who moves both cursors, in their order, must not meet it half way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_takes_cursors_in_their_order() {
    let database = Database::create().await;
    let store = Arc::new(connect(&database.url()));
    store.migrate().await.unwrap();
    let alice = Person::new("alice", 3);
    assert_eq!(store.register(alice.registration()).await.unwrap(), Registered::Made);
    let founding = group("g", &[(&alice, Role::Owner)]);
    let g = founding.conversation;
    assert_eq!(stored(&store.found_group(founding).await.unwrap().outcome), 1);
    let mut two = [alice.devices[1], alice.devices[2]];
    two.sort();
    let mut mover = PgConnection::connect(&database.url()).await.unwrap();
    mover.execute("BEGIN").await.unwrap();
    let cursor = "SELECT 1 FROM cursors WHERE device = $1 FOR NO KEY UPDATE NOWAIT";
    sqlx::query(cursor).bind(two[0].as_bytes().as_slice()).execute(&mut mover).await.unwrap();

    let mut commit = crate::world::commit(g, alice.devices[0], 1, 1);
    (commit.removes, commit.joins) = (vec![two[1]], joins([&two[0]], "welcome"));
    let committing = tokio::spawn({
        let store = store.clone();
        async move { store.append_commit(commit).await }
    });
    let waits = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let mut watch = PgConnection::connect(&database.url()).await.unwrap();
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut watch).await.unwrap() == 0 {
        assert!(!committing.is_finished(), "it waits for the first cursor");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sqlx::query(cursor).bind(two[1].as_bytes().as_slice()).execute(&mut mover).await.unwrap();
    mover.execute("COMMIT").await.unwrap();
    assert_eq!(stored(&committing.await.unwrap().unwrap().outcome), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_commits_late_is_still_said() {
    let database = Database::create().await;
    let store = connect(&database.url());
    store.migrate().await.unwrap();
    let (alice, _, conversation) = settle(&store).await;
    let (carol, dave) = (Person::new("carol", 1), Person::new("dave", 1));
    for person in [&carol, &dave] {
        store.register(person.registration()).await.unwrap();
    }
    let start = store.moved_since(None).await.unwrap().mark;
    // It gets its number now, and commits after a later one has been seen.
    let mut late = PgConnection::connect(&database.url()).await.unwrap();
    let append = "SELECT append_envelopes(array[$1], array[$2], array[1::bigint], array[0::bigint],
                  array[1::bigint], array[''::bytea])";
    late.execute("BEGIN").await.unwrap();
    let query = sqlx::query(append).bind(conversation.as_bytes().as_slice());
    query.bind(alice.as_bytes().as_slice()).execute(&mut late).await.unwrap();
    let other = founding(&carol, &dave, "other");
    store.found_direct(other.clone()).await.unwrap();
    let first = store.moved_since(Some(start)).await.unwrap();
    assert!(first.heads.iter().any(|head| head.0 == other.conversation));
    late.execute("COMMIT").await.unwrap();
    let second = store.moved_since(Some(first.mark)).await.unwrap();
    assert!(second.heads.iter().any(|head| (head.0, head.1) == (conversation, Seq(2))), "{second:?}");
}

/// A row is one row, however many read it: this is what one message of 512 bytes writes ahead.
#[tokio::test]
async fn a_message_to_a_large_group_writes_little() {
    const LIMIT: i64 = 2048;
    let cluster = Cluster::start();
    let store = connect(cluster.url());
    store.migrate().await.unwrap();
    let people: Vec<_> = (0..8).map(|n| Person::new(&format!("p{n}"), 32)).collect();
    for person in &people {
        assert_eq!(store.register(person.registration()).await.unwrap(), Registered::Made);
    }
    let members: Vec<_> = people
        .iter()
        .enumerate()
        .map(|(n, p)| (p, if n == 0 { Role::Owner } else { Role::Member }))
        .collect();
    let mut written = Vec::new();
    for (name, members) in [("two", &members[..1]), ("all", &members[..])] {
        let mut founding = group(name, members);
        if name == "two" {
            founding.joins.truncate(1);
        }
        let g = founding.conversation;
        assert_eq!(stored(&store.found_group(founding).await.unwrap().outcome), 1);
        let mut least = i64::MAX;
        // The first writes whole pages, as after each checkpoint; a vacuum may write beside a later one.
        for counter in 1..=9 {
            let mut message = item(g, people[0].devices[0], counter, 1);
            message.envelope = vec![7; 512].into();
            let before = written_ahead(cluster.url()).await;
            assert_eq!(stored(&store.append(&[message]).await.unwrap()[0]), counter + 1);
            least = least.min(written_ahead(cluster.url()).await - before);
        }
        written.push(least);
    }
    eprintln!("bytes written ahead for 512 bytes: {written:?} (2 devices, 256 devices)");
    assert!(written.iter().all(|bytes| (512..LIMIT).contains(bytes)), "{written:?}");
}

/// Of what was judged once, nothing is judged again: or the plain case is never taken, and nobody notices.
#[tokio::test]
async fn the_plain_case_is_the_usual_one() {
    let world = World::postgres().await;
    let calls = async |function| {
        let calls = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_user_functions WHERE funcname =";
        world.number(&format!("{calls} '{function}'")).await
    };
    let url = world.url();
    let count = "DO $$ BEGIN
                     EXECUTE format('ALTER DATABASE %I SET track_functions = pl', current_database());
                 END $$";
    world.sql(count).await;
    // Connections from now on count.
    let store = connect(&url);
    let (alice, bob, conversation) = world.couple().await;
    let pair = |n| [alice.devices[0], bob.devices[0]].map(|device| item(conversation, device, n, 1));
    for n in 1..=10 {
        let outcomes = store.append(&pair(n)).await.unwrap();
        assert_eq!(outcomes.iter().map(stored).collect::<Vec<_>>(), [n * 2, n * 2 + 1]);
    }
    for n in 11..=20 {
        assert_eq!(stored(&store.append(&pair(n)[..1]).await.unwrap()[0]), n + 11);
    }
    // Connections tell what they counted when they end.
    drop(store);
    let deadline = Instant::now() + Duration::from_secs(20);
    while calls("append_envelopes").await < 1 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // All of them have.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(calls("append_envelopes").await, 1);
}

async fn written_ahead(url: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let query = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
    sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
}

#[test]
fn a_database_is_named_in_a_url() {
    assert_eq!(with_database("postgres://u@h/postgres?host=/tmp", "x"), "postgres://u@h/x?host=/tmp");
    assert_eq!(with_database("postgres://u:p@h:1/postgres", "x"), "postgres://u:p@h:1/x");
}

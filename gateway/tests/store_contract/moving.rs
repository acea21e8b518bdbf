//! From SQLite to Postgres: everything comes over, or nothing does.

use crate::{
    cluster::{Database, command},
    world::{Person, World, commit, connect, group, item, joins, stored},
};
use fastchat_gateway::{
    move_store::{
        move_store,
        tables::{AUDIT, LEFT_OUT, TABLES},
    },
    store::{
        Recovery, Store,
        blobs::{Begun, BlobKey, Blobs, Finished, NewBlob, NewPart},
        operate::{NewInvite, Operate, Quotas},
        postgres::Postgres,
        receipts::ReadMark,
        retain::Retain,
        sqlite::Sqlite,
    },
};
use fastchat_protocol::{BlobId, ConversationId, Role, Seq, SlotId};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};
use std::{collections::BTreeSet, path::Path};
use tempfile::TempDir;

struct Scene {
    folder: TempDir,
    alice: Person,
    bob: Person,
    direct: ConversationId,
    group: ConversationId,
}

impl Scene {
    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("store.db")
    }
}

/// A store with something in every table, closed.
async fn scene() -> Scene {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    let store = Sqlite::open(&path).await.unwrap();
    let (alice, bob) = (Person::new("alice", 2), Person::new("bob", 2));
    for person in [&alice, &bob] {
        store.register(person.registration()).await.unwrap();
    }
    let founding = crate::world::founding(&alice, &bob, "direct");
    let direct = founding.conversation;
    store.found_direct(founding).await.unwrap();
    let founding = group("group", &[(&alice, Role::Owner), (&bob, Role::Member)]);
    let circle = founding.conversation;
    store.found_group(founding).await.unwrap();
    for n in 1..=2_500 {
        assert_eq!(stored(&store.append(&[item(direct, alice.devices[0], n, 1)]).await.unwrap()[0]), n + 1);
    }
    let mut added = commit(circle, alice.devices[0], 1, 1);
    added.joins = joins(&bob.devices[..1], "welcome");
    store.append_commit(added).await.unwrap();
    store
        .publish_key_packages(bob.devices[0], 1, &["b".into(), "a".into()], Some(&"l".into()))
        .await
        .unwrap();
    store.block(bob.account, alice.account, true).await.unwrap();
    store.note_seen(&[(alice.account, 7)]).await.unwrap();
    let mark = ReadMark { conversation: direct, device: alice.devices[0], seq: Seq(5), shared: true };
    assert_eq!(store.mark_read(&[mark]).await.unwrap().len(), 1);
    store.set_recovery(bob.account, Recovery { key_hash: [7; 32], sealed: "sealed".into() }).await.unwrap();
    store.put_slot(bob.account, SlotId::new([3; 16]), 0, &"slot".into(), 3_600).await.unwrap();
    let invite = NewInvite { code_hash: [1; 32], note: "ü".into(), uses: 2, lasts_s: None };
    store.make_invite("operator", invite).await.unwrap();
    let quotas = Quotas { devices: Some(3), ..Quotas::default() };
    store.set_quotas("operator", alice.account, quotas).await.unwrap();
    let key = BlobKey { conversation: circle, blob: BlobId::new([5; 16]) };
    let (device, account) = (alice.devices[0], alice.account);
    let new = NewBlob { key, device, account, size_bytes: 3, parts: 2, outside: false };
    assert_eq!(store.begin_blob(new, 9).await.unwrap(), Begun::Open(vec![]));
    for (number, bytes) in [(0, Some("ab".into())), (1, None)] {
        let size_bytes = 2 - u64::from(number);
        store.put_part(key, NewPart { number, hash: [9; 32], size_bytes, bytes }).await.unwrap();
    }
    assert_eq!(store.finish_blob(device, key).await.unwrap(), Finished::Done);
    store.devices_seen(&alice.devices).await.unwrap();
    store.set_disabled("operator", bob.account, true).await.unwrap();
    store.close().await;
    Scene { folder, alice, bob, direct, group: circle }
}

async fn in_sqlite(path: &Path, sql: &str) {
    let mut connection = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn number(url: &str, sql: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let number = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_comes_over_and_the_source_is_served_no_more() {
    let (scene, database) = (scene().await, Database::create().await);
    in_sqlite(&scene.path(), "UPDATE settings SET incarnation = 5").await;
    let restored = "INSERT INTO restorations (conversation, incarnation, head, generation, epoch)
        SELECT id, 5, 1, 0, 1 FROM conversations LIMIT 1";
    in_sqlite(&scene.path(), restored).await;
    let (mut lines, url) = (Vec::new(), database.url());
    let moved = move_store(&scene.path(), &url, |line| lines.push(line.to_owned())).await.unwrap();
    assert!(!moved.again);
    for (table, rows) in &moved.rows {
        assert!(*rows > 0, "{table} had nothing to move: the test should put something there");
    }
    assert!(lines.iter().any(|line| line.starts_with("log: 2503 rows")), "{lines:?}");

    let store = connect(&url);
    store.check_schema().await.unwrap();
    assert_eq!(store.incarnation().await.unwrap(), 5);
    read_and_write(&scene, &store).await;
    assert_eq!(number(&url, "SELECT max(tx) FROM mailbox_heads").await, 0);
    assert_eq!(number(&url, "SELECT count(*) FROM log WHERE tx = 0").await, 2_503);
    let audit = Operate::audit(&store, None, 0, 99).await.unwrap();
    assert_eq!(audit.last().map(|row| row.act.as_str()), Some("enabled"), "{audit:?}");
    assert!(audit.iter().any(|row| row.act == "store_moved"));

    let again = move_store(&scene.path(), &url, |_| {}).await.unwrap_err();
    assert!(format!("{again:#}").contains("moved to postgres://"), "{again:#}");
    let source = Sqlite::open(&scene.path()).await.unwrap();
    let refused = source.check_not_moved().await.unwrap_err();
    assert!(refused.to_string().contains("store = postgres://"), "{refused}");
}

/// The people go on where they were.
async fn read_and_write(scene: &Scene, store: &Postgres) {
    let Scene { alice, bob, direct, group, .. } = scene;
    let page = store.fetch(bob.devices[1], *direct, Seq(2_495), 50).await.unwrap().unwrap();
    assert_eq!((page.rows.len(), page.head), (6, Seq(2_501)));
    // A retry has its first seq, the next counter the next one; a block holds.
    let retry = store.append(&[item(*direct, alice.devices[0], 2_500, 1)]).await.unwrap();
    assert_eq!(crate::world::duplicate(&retry[0]), 2_501);
    let refused = store.append(&[item(*direct, alice.devices[0], 2_501, 1)]).await.unwrap();
    assert_eq!(refused[0], fastchat_gateway::store::Outcome::NotAccepted);
    assert_eq!(stored(&store.append(&[item(*direct, bob.devices[0], 1, 1)]).await.unwrap()[0]), 2_502);
    assert_eq!(stored(&store.append(&[item(*group, alice.devices[0], 2, 2)]).await.unwrap()[0]), 3);
    let mark = store.moved_since(None).await.unwrap().mark;
    assert_eq!(stored(&store.append(&[item(*group, alice.devices[0], 3, 2)]).await.unwrap()[0]), 4);
    let heads = store.moved_since(Some(mark)).await.unwrap().heads;
    assert!(heads.iter().any(|(id, head, _)| (id, *head) == (group, Seq(4))), "{heads:?}");
    let (items, head) = store.mailbox(bob.devices[0], Seq(0), 9).await.unwrap();
    assert_eq!(items.last().map(|item| item.seq), Some(head));
    assert_eq!(store.recovery(bob.account).await.unwrap().unwrap().key_hash, [7; 32]);
    assert!(store.device(bob.devices[0]).await.unwrap().unwrap().disabled);
    assert!(store.set_disabled("operator", bob.account, false).await.unwrap());
    assert_eq!(store.quotas(alice.account).await.unwrap().devices, Some(3));
    let user = store.user("alice").await.unwrap().unwrap();
    assert!(user.made_at_s > 1_700_000_000, "{user:?}");
    // One-time packages are given out in the order in which they were left.
    let claimed = store.claim_key_packages(bob.account, bob.account, 1).await.unwrap();
    let fastchat_gateway::store::Claimed::Packages(packages) = claimed else { panic!("{claimed:?}") };
    assert_eq!(packages, [(bob.devices[0], "b".into())]);
    assert!(store.publish_key_packages(bob.devices[0], 1, &["c".into()], None).await.unwrap().left == 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_move_leaves_nothing_and_is_started_again() {
    let (scene, database) = (scene().await, Database::create().await);
    let url = database.url();
    connect(&url).migrate().await.unwrap();
    command(&url, "ALTER TABLE slots ADD CONSTRAINT stop CHECK (part < 0)".into()).await;
    let stopped = move_store(&scene.path(), &url, |_| {}).await.unwrap_err();
    assert!(format!("{stopped:#}").contains("slots"), "{stopped:#}");
    for table in TABLES {
        assert_eq!(number(&url, &format!("SELECT count(*) FROM {}", table.name)).await, 0, "{}", table.name);
    }
    // Not marked: it is served as before.
    let source = Sqlite::open(&scene.path()).await.unwrap();
    source.check_not_moved().await.unwrap();
    source.close().await;
    command(&url, "ALTER TABLE slots DROP CONSTRAINT stop".into()).await;
    move_store(&scene.path(), &url, |_| {}).await.unwrap();
    // The commit came through and the mark did not: found to be the same, and marked.
    in_sqlite(&scene.path(), "UPDATE settings SET moved_to = NULL").await;
    assert!(move_store(&scene.path(), &url, |_| {}).await.unwrap().again);
    in_sqlite(&scene.path(), "UPDATE settings SET moved_to = NULL").await;
    command(&url, "UPDATE cursors SET cursor = cursor + 1".into()).await;
    let other = move_store(&scene.path(), &url, |_| {}).await.unwrap_err();
    assert!(format!("{other:#}").contains("cursors differs"), "{other:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_use_and_a_target_in_use_are_refused() {
    let (scene, database) = (scene().await, Database::create().await);
    let gateway = Sqlite::open(&scene.path()).await.unwrap();
    gateway.ping().await.unwrap();
    let busy = move_store(&scene.path(), &database.url(), |_| {}).await.unwrap_err();
    assert!(format!("{busy:#}").contains("stop that first"), "{busy:#}");
    gateway.close().await;

    let other = World::postgres().await;
    other.person("somebody", 1).await;
    let url = other.url();
    let occupied = move_store(&scene.path(), &url, |_| {}).await.unwrap_err();
    assert!(format!("{occupied:#}").contains("not empty"), "{occupied:#}");
    assert_eq!(number(&url, "SELECT count(*) FROM accounts").await, 1);
}

#[tokio::test]
async fn the_list_of_what_is_moved_is_that_of_the_schemas() {
    let (folder, database) = (TempDir::new().unwrap(), Database::create().await);
    let path = folder.path().join("store.db");
    Sqlite::open(&path).await.unwrap().close().await;
    connect(&database.url()).migrate().await.unwrap();
    let mut listed = BTreeSet::new();
    for table in TABLES.iter().chain([&AUDIT]) {
        let columns = table.columns.iter().map(|(column, _)| *column);
        let columns = columns.chain(table.fixed.iter().map(|(column, _)| *column));
        listed.extend(columns.map(|column| format!("{}.{column}", table.name)));
        if table.order == "number" {
            listed.insert(format!("{}.number", table.name));
        }
    }
    let skipped =
        |table: &str| LEFT_OUT.contains(&table) || table.starts_with("_sqlx") || table.starts_with("sqlite_");
    let mut sqlite = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let mut postgres = PgConnection::connect(&database.url()).await.unwrap();
    let here = sqlx::query(
        "SELECT m.name AS tab, c.name AS col FROM sqlite_schema m JOIN pragma_table_info(m.name) c
         WHERE m.type = 'table'",
    );
    let here = here.fetch_all(&mut sqlite).await.unwrap();
    let here: Vec<(String, String)> = here.iter().map(|row| (row.get("tab"), row.get("col"))).collect();
    let there = sqlx::query(
        "SELECT table_name::text AS tab, column_name::text AS col FROM information_schema.columns
         JOIN information_schema.tables USING (table_schema, table_name)
         WHERE table_schema = 'public' AND table_type = 'BASE TABLE'",
    );
    let there = there.fetch_all(&mut postgres).await.unwrap();
    let there: Vec<(String, String)> = there.iter().map(|row| (row.get("tab"), row.get("col"))).collect();
    for schema in [here, there] {
        let schema = schema.into_iter().filter(|(table, _)| !skipped(table));
        let mut schema: BTreeSet<String> =
            schema.map(|(table, column)| format!("{table}.{column}")).collect();
        // What Postgres works out for itself.
        schema.remove("send_counters.vetted");
        assert_eq!(schema, listed);
    }
}

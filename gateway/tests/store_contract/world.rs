//! What a test has: a store of one kind, people in it, and a way round the store to its tables.

use crate::cluster::{Database, command};
use bytes::Bytes;
use fastchat_gateway::store::{
    Append, Claimed, Founded, Join, NewAccount, NewCommit, NewDirect, NewGroup, NewLeave, NewManifest,
    Outcome, Registered, Store,
    postgres::{Options, Postgres},
    sqlite::Sqlite,
};
use fastchat_protocol::{AccountId, ConversationId, Counter, DeviceId, Epoch, Role, Seq};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use std::sync::Arc;
use tempfile::TempDir;

pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    behind: Behind,
}

enum Behind {
    Sqlite(TempDir),
    Postgres(Arc<Database>),
}

impl World {
    pub(crate) async fn sqlite() -> Self {
        let folder = TempDir::new().expect("a folder");
        let store = Sqlite::open(&folder.path().join("store.db")).await.expect("it opens");
        Self { store: Arc::new(store), behind: Behind::Sqlite(folder) }
    }

    pub(crate) async fn postgres() -> Self {
        let database = Database::create().await;
        let store = connect(&database.url());
        store.migrate().await.expect("it migrates");
        store.check_schema().await.expect("it is up to date");
        Self { store: Arc::new(store), behind: Behind::Postgres(Arc::new(database)) }
    }

    /// Another gateway on the same Postgres; or this one after a restart.
    pub(crate) fn beside(&self) -> Self {
        let Behind::Postgres(database) = &self.behind else { panic!("of Postgres") };
        let store = Arc::new(connect(&database.url()));
        Self { store, behind: Behind::Postgres(Arc::clone(database)) }
    }

    /// Statements of a test, with ids as `{hex}` between `'id:` and `'`.
    pub(crate) async fn sql(&self, sql: &str) {
        match &self.behind {
            Behind::Postgres(database) => command(&database.url(), sql.replace("'id:", r"'\x")).await,
            Behind::Sqlite(folder) => {
                let url = format!("sqlite:{}", folder.path().join("store.db").display());
                let mut connection = SqliteConnection::connect(&url).await.expect("it opens");
                let sql = AssertSqlSafe(sql.replace("'id:", "x'"));
                sqlx::raw_sql(sql).execute(&mut connection).await.expect("the tests' own SQL is right");
                connection.close().await.expect("it closes");
            }
        }
    }

    /// The number that a query of a test's own returns.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        match &self.behind {
            Behind::Postgres(database) => {
                let mut connection = PgConnection::connect(&database.url()).await.expect("it answers");
                let sql = AssertSqlSafe(sql.replace("'id:", r"'\x"));
                sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("a number")
            }
            Behind::Sqlite(folder) => {
                let url = format!("sqlite:{}", folder.path().join("store.db").display());
                let mut connection = SqliteConnection::connect(&url).await.expect("it opens");
                let sql = AssertSqlSafe(sql.replace("'id:", "x'"));
                sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("a number")
            }
        }
    }

    /// Where the store is, if it is in Postgres.
    pub(crate) fn url(&self) -> String {
        match &self.behind {
            Behind::Postgres(database) => database.url(),
            Behind::Sqlite(_) => panic!("only Postgres has a URL"),
        }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self.behind, Behind::Postgres(_))
    }

    pub(crate) async fn person(&self, name: &str, devices: usize) -> Person {
        let person = Person::new(name, devices);
        let made = self.store.register(person.registration()).await.expect("it answers");
        assert_eq!(made, Registered::Made);
        person
    }

    /// Two people with two devices each, and their conversation at epoch 1.
    pub(crate) async fn couple(&self) -> (Person, Person, ConversationId) {
        let (alice, bob) = (self.person("alice", 2).await, self.person("bob", 2).await);
        let conversation = self.direct(&alice, &bob).await;
        (alice, bob, conversation)
    }

    pub(crate) async fn direct(&self, founder: &Person, peer: &Person) -> ConversationId {
        let founding = founding(founder, peer, &format!("{}-{}", founder.name, peer.name));
        let conversation = founding.conversation;
        let founded = self.store.found_direct(founding).await.expect("it answers");
        assert!(matches!(founded, Founded::Made { .. }), "{founded:?}");
        conversation
    }

    /// A group with all devices of its members; the first of the first one founds it.
    pub(crate) async fn group(&self, name: &str, members: &[(&Person, Role)]) -> ConversationId {
        let founding = group(name, members);
        let conversation = founding.conversation;
        assert_eq!(stored(&self.store.found_group(founding).await.expect("it answers").outcome), 1);
        conversation
    }

    pub(crate) async fn append(&self, item: Append) -> Outcome {
        let mut outcomes = self.store.append(&[item]).await.expect("it answers");
        assert_eq!(outcomes.len(), 1);
        outcomes.remove(0)
    }

    pub(crate) async fn commit(&self, commit: NewCommit) -> Outcome {
        self.store.append_commit(commit).await.expect("it answers").outcome
    }

    /// What somebody of no importance gets of an account's key packages.
    pub(crate) async fn claim(&self, account: AccountId) -> Vec<(DeviceId, Bytes)> {
        let stranger = AccountId::new(id("a stranger"));
        match self.store.claim_key_packages(stranger, account, 1).await.expect("it answers") {
            Claimed::Packages(packages) => packages,
            Claimed::NotAccepted => panic!("nobody has blocked the stranger"),
        }
    }

    /// The whole log as a device sees it.
    pub(crate) async fn log(
        &self,
        device: DeviceId,
        conversation: ConversationId,
    ) -> Vec<(u64, DeviceId, u64, Bytes)> {
        let mut seen = Vec::new();
        let mut after = Seq(0);
        loop {
            let page = self.store.fetch(device, conversation, after, 50).await.expect("it answers");
            let page = page.expect("it may read");
            let Some(last) = page.rows.last() else { return seen };
            after = last.seq;
            let rows = page.rows.into_iter();
            seen.extend(
                rows.map(|row| (row.seq.0, row.sender, row.counter.0, row.envelope.expect("it is stored"))),
            );
        }
    }
}

pub(crate) fn connect(url: &str) -> Postgres {
    let options = Options { url: url.to_owned(), max_connections: 8, application_name: "tests".to_owned() };
    Postgres::connect(&options).expect("the URL is one")
}

#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) account: AccountId,
    pub(crate) devices: Vec<DeviceId>,
}

impl Person {
    pub(crate) fn new(name: &str, devices: usize) -> Self {
        let device = |n| DeviceId::new(id(&format!("device {name} {n}")));
        Self {
            name: name.to_owned(),
            account: AccountId::new(id(&format!("account {name}"))),
            devices: (0..devices).map(device).collect(),
        }
    }

    pub(crate) fn registration(&self) -> NewAccount {
        NewAccount {
            account: self.account,
            name: self.name.parse().expect("a name"),
            password_hash: format!("hash of {}", self.name),
            manifest: self.manifest(1),
            invite: None,
        }
    }

    pub(crate) fn manifest(&self, version: u64) -> NewManifest {
        let key = |device: &DeviceId| (*device, Sha256::digest(device.as_bytes()).into());
        NewManifest {
            version,
            bytes: format!("manifest {version} of {}", self.name).into(),
            devices: self.devices.iter().map(key).collect(),
            revoked: Vec::new(),
        }
    }
}

pub(crate) fn id(name: &str) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&Sha256::digest(name)[..16]);
    id
}

pub(crate) fn epoch(number: u64) -> Epoch {
    Epoch { generation: 0, number }
}

pub(crate) fn founding(founder: &Person, peer: &Person, name: &str) -> NewDirect {
    let devices =
        founder.devices.iter().skip(1).chain(peer.devices.iter().filter(|_| founder.account != peer.account));
    let join =
        |device: &DeviceId| Join { device: *device, welcome: Some(format!("welcome to {name}").into()) };
    NewDirect {
        conversation: ConversationId::new(id(name)),
        device: founder.devices[0],
        account: founder.account,
        peer: peer.account,
        suite: 0x004d,
        epoch: epoch(1),
        group_info: "group info 1".into(),
        state: "state 1".into(),
        tree: "tree 1".into(),
        joins: devices.map(join).collect(),
    }
}

pub(crate) fn group(name: &str, members: &[(&Person, Role)]) -> NewGroup {
    let founder = members[0].0.devices[0];
    let devices = members.iter().flat_map(|(person, _)| &person.devices).filter(|device| **device != founder);
    NewGroup {
        conversation: ConversationId::new(id(name)),
        device: founder,
        counter: Counter(0),
        parent: None,
        suite: 0x004d,
        epoch: epoch(1),
        group_info: format!("group info of {name}").into(),
        state: "state 1".into(),
        tree: "tree 1".into(),
        members: members.iter().map(|(person, role)| (person.account, *role)).collect(),
        joins: joins(devices, &format!("welcome to {name}")),
    }
}

/// These devices, with one welcome for all.
pub(crate) fn joins<'a>(devices: impl IntoIterator<Item = &'a DeviceId>, welcome: &str) -> Vec<Join> {
    let welcome: Bytes = welcome.to_owned().into();
    let join = |device: &DeviceId| Join { device: *device, welcome: Some(welcome.clone()) };
    devices.into_iter().map(join).collect()
}

pub(crate) fn leave(conversation: ConversationId, device: DeviceId, counter: u64, number: u64) -> NewLeave {
    let statement = format!("{device} leaves {counter}").into();
    NewLeave { conversation, device, counter: Counter(counter), epoch: epoch(number), statement }
}

/// Envelope `counter` of a device, at an epoch.
pub(crate) fn item(conversation: ConversationId, device: DeviceId, counter: u64, number: u64) -> Append {
    let envelope = format!("{device} {counter}").into();
    Append { conversation, device, counter: Counter(counter), epoch: epoch(number), envelope }
}

/// A commit from `parent` to the next epoch, which changes no membership.
pub(crate) fn commit(conversation: ConversationId, device: DeviceId, counter: u64, parent: u64) -> NewCommit {
    NewCommit {
        conversation,
        device,
        counter: Counter(counter),
        parent: epoch(parent),
        epoch: epoch(parent + 1),
        commit: format!("commit {device} {counter}").into(),
        group_info: format!("group info {}", parent + 1).into(),
        state: format!("state {}", parent + 1).into(),
        tree: format!("tree {}", parent + 1).into(),
        membership_changed: false,
        joins: Vec::new(),
        removes: Vec::new(),
        members: Vec::new(),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers from the same seed everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

/// The seq of a row that was stored just now.
pub(crate) fn stored(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Stored(stored) => stored.seq.0,
        other => panic!("not stored: {other:?}"),
    }
}

pub(crate) fn duplicate(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Duplicate(stored) => stored.seq.0,
        other => panic!("not a duplicate: {other:?}"),
    }
}

//! Gateways in this process over one embedded store and one bus, and clients that speak the wire.

use crate::envelope::unsealed;
use async_trait::async_trait;
use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use fastchat_gateway::{
    Config, Gateway,
    blobs::Objects,
    bus::{
        Bus, BusEvents, FleetLink, Waiting,
        local::LocalHub,
        nats::{NatsBus, NatsOptions},
    },
    config::Settings,
    connection,
    fleet::shed::turns::Rules,
    handshake::Unidentified,
    store::{NewAccount, NewManifest, Registered, Store, sqlite::Sqlite},
};
use fastchat_protocol::{
    AccountId, ClientFrame, ConversationId, Counter, DeviceId, RequestId, ServerFrame, VERSIONS,
    bus::Subject,
    challenge,
    client::{AuthKey, Hello, Resume, Send},
    limits,
    server::Move,
};
use futures_util::{SinkExt, StreamExt};
use sqlx::{Connection, SqliteConnection};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{io::DuplexStream, time::timeout};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message, tungstenite::protocol::Role};

const HOST: &str = "here:1";
/// Generous: these machines are slow at times.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One store, one bus, and gateways that are added.
pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hub: LocalHub,
    folder: TempDir,
}

/// A gateway and what it published.
pub(crate) struct Place {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) published: Arc<Mutex<Vec<Subject>>>,
}

/// A bus that remembers what its gateway publishes.
#[derive(Debug)]
struct Watched<B>(B, Arc<Mutex<Vec<Subject>>>);

#[async_trait]
impl<B: Bus> Bus for Watched<B> {
    fn publish(&self, subject: Subject, record: Bytes) {
        self.1.lock().expect("nobody panics").push(subject);
        self.0.publish(subject, record);
    }

    async fn subscribe(&self, subject: Subject) {
        self.0.subscribe(subject).await;
    }

    async fn subscribe_all(&self, subjects: &[Subject]) {
        self.0.subscribe_all(subjects).await;
    }

    fn unsubscribe(&self, subject: Subject) {
        self.0.unsubscribe(subject);
    }

    fn is_up(&self) -> bool {
        self.0.is_up()
    }

    fn fleet(&self) -> Option<FleetLink> {
        self.0.fleet()
    }

    fn waiting(&self) -> Waiting {
        self.0.waiting()
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let store = Sqlite::open(&folder.path().join("store.db")).await.expect("it opens");
        Self { store: Arc::new(store), hub: LocalHub::new(), folder }
    }

    /// Changes the store behind its back.
    pub(crate) async fn sql(&self, sql: &'static str) {
        let mut connection = self.connection().await;
        sqlx::query(sql).execute(&mut connection).await.expect("it is done");
        connection.close().await.expect("it closes");
    }

    /// A way to the store's file beside the store.
    pub(crate) async fn connection(&self) -> SqliteConnection {
        let url = format!("sqlite:{}", self.folder.path().join("store.db").display());
        SqliteConnection::connect(&url).await.expect("it opens")
    }

    /// A gateway whose head checks do not come into a test's way.
    pub(crate) fn gateway(&self) -> Place {
        self.gateway_with(Settings::default())
    }

    /// One with further settings.
    pub(crate) fn gateway_with(&self, settings: Settings) -> Place {
        let (bus, events) = self.hub.join();
        self.start(self.config(settings), bus, events)
    }

    /// One on a real bus.
    pub(crate) async fn gateway_on(&self, nats: &str, settings: Settings) -> Place {
        let options = NatsOptions { url: nats.to_owned(), ..NatsOptions::default() };
        let (bus, events) = NatsBus::start(&options).await.expect("it starts");
        // Nobody here has ten seconds to settle.
        let config = self.config(settings);
        let shed = Rules { settled: Duration::ZERO, ..config.shed };
        self.start(Config { shed, ..config }, bus, events)
    }

    pub(crate) fn config(&self, settings: Settings) -> Config {
        let settings = Settings {
            data_dir: Some(self.folder.path().to_owned()),
            head_check_ms: Some(60_000),
            ..settings
        };
        settings.validate(true).expect("good settings")
    }

    pub(crate) fn start(&self, config: Config, bus: impl Bus, events: BusEvents) -> Place {
        let published = Arc::new(Mutex::default());
        let bus = Arc::new(Watched(bus, Arc::clone(&published)));
        let objects = Objects::open(&config.blobs.storage, &config.deployment).expect("it opens");
        Place { gateway: Gateway::start(config, Arc::clone(&self.store), objects, bus, events), published }
    }

    /// Somebody with one device.
    pub(crate) async fn person(&self, place: &Place, number: u8) -> Person {
        let person = Person::unknown(number);
        let manifest = NewManifest {
            version: 1,
            bytes: person.name.clone().into(),
            devices: vec![(person.device, person.key.verifying_key().to_bytes())],
            revoked: Vec::new(),
        };
        let password_hash = place.gateway.passwords.hash(&auth_key('a')).await.expect("a hash");
        let name = person.name.parse().expect("a name");
        let new = NewAccount { account: person.account, name, password_hash, manifest, invite: None };
        assert_eq!(self.store.register(new).await.expect("it answers"), Registered::Made);
        person
    }
}

/// An auth key of one letter.
pub(crate) fn auth_key(letter: char) -> AuthKey {
    AuthKey::new(letter.to_string().repeat(limits::AUTH_KEY_CHARS))
}

pub(crate) struct Person {
    pub(crate) account: AccountId,
    pub(crate) device: DeviceId,
    pub(crate) name: String,
    key: SigningKey,
}

impl Person {
    /// Somebody whom no store knows.
    pub(crate) fn unknown(number: u8) -> Self {
        Self {
            account: AccountId::new([number; 16]),
            device: DeviceId::new([number + 100; 16]),
            name: format!("person{number}"),
            key: SigningKey::from_bytes(&[number; 32]),
        }
    }

    /// The same person with a second device.
    pub(crate) async fn another_device(&self, world: &World) -> Self {
        let (device, key) =
            (DeviceId::new([self.device.as_bytes()[0] + 100; 16]), SigningKey::from_bytes(&[255; 32]));
        let both = [(self.device, &self.key), (device, &key)];
        let manifest = NewManifest {
            version: 2,
            bytes: self.name.clone().into(),
            devices: both.map(|(device, key)| (device, key.verifying_key().to_bytes())).to_vec(),
            revoked: Vec::new(),
        };
        assert!(world.store.put_manifest(self.account, manifest).await.expect("it answers"));
        Self { account: self.account, device, name: self.name.clone(), key }
    }

    pub(crate) async fn connect(&self, place: &Place) -> Client {
        let (mut client, nonce) = Client::dial(place).await;
        let session = client.ask(self.resume(place, &nonce)).await;
        assert!(matches!(session, ServerFrame::Session(_)), "{session:?}");
        client
    }

    /// The proof for a challenge.
    pub(crate) fn resume(&self, place: &Place, nonce: &[u8; 32]) -> ClientFrame {
        let statement = challenge::signed_bytes(&place.gateway.config.deployment, HOST, self.device, nonce);
        let signature = Bytes::copy_from_slice(&self.key.sign(&statement).to_bytes());
        ClientFrame::Resume(Resume { device: self.device, signature })
    }
}

/// A client's end of a socket.
pub(crate) struct Client(WebSocketStream<DuplexStream>);

impl Client {
    /// Says hello; returns the challenge.
    pub(crate) async fn dial(place: &Place) -> (Self, [u8; 32]) {
        match Self::hello(place, None).await {
            (client, ServerFrame::Hello(hello)) => (client, hello.nonce),
            (_, other) => panic!("no hello: {other:?}"),
        }
    }

    /// Says hello with a ticket or without; returns the answer.
    pub(crate) async fn hello(place: &Place, ticket: Option<Bytes>) -> (Self, ServerFrame) {
        let (ours, theirs) = tokio::io::duplex(1024 * 1024);
        let free = Arc::clone(&place.gateway.unidentified).try_acquire_owned().expect("a place");
        let peer = Unidentified { address: IpAddr::V4(Ipv4Addr::LOCALHOST), host: Some(HOST.into()) };
        tokio::spawn(connection::serve(Arc::clone(&place.gateway), theirs, peer, free));
        let mut client = Self(WebSocketStream::from_raw_socket(ours, Role::Client, None).await);
        let hello = Hello { versions: VERSIONS.to_vec(), agent: String::new(), host: HOST.into(), ticket };
        let answer = client.ask(ClientFrame::Hello(hello)).await;
        (client, answer)
    }

    /// Sends what nobody answers.
    pub(crate) async fn tell(&mut self, frame: ClientFrame) {
        self.0.send(Message::Binary(frame.encode(RequestId(0)))).await.expect("it is written");
    }

    /// The next frame that nobody asked for.
    pub(crate) async fn frame(&mut self) -> ServerFrame {
        self.next().await.expect("a frame").1
    }

    /// The answer to a request; live frames before it are dropped.
    pub(crate) async fn ask(&mut self, frame: ClientFrame) -> ServerFrame {
        self.0.send(Message::Binary(frame.encode(RequestId(7)))).await.expect("it is written");
        loop {
            let (request, frame) = self.next().await.expect("an answer");
            if request == RequestId(7) {
                return frame;
            }
        }
    }

    /// Sends what looks like an application envelope.
    pub(crate) async fn say(&mut self, conversation: ConversationId, counter: u64) -> ServerFrame {
        let counter = Counter(counter);
        let send = Send { conversation, counter, envelope: unsealed(conversation, counter) };
        self.ask(ClientFrame::Send(send)).await
    }

    /// The seq of the next live row or head.
    pub(crate) async fn live(&mut self) -> Live {
        loop {
            match self.next().await.expect("a live frame").1 {
                ServerFrame::Deliver(deliver) => return Live::Row(deliver.row.seq.0),
                ServerFrame::Heads(heads) if heads.mailbox.is_none() => {
                    return Live::Head(heads.heads[0].seq.0);
                }
                ServerFrame::Presence(told) => return Live::Online(told.account),
                ServerFrame::Closing(refusal) => panic!("closed: {refusal}"),
                _ => {}
            }
        }
    }

    /// The next request to move.
    pub(crate) async fn moved(&mut self) -> Move {
        loop {
            if let ServerFrame::Move(target) = self.next().await.expect("it is told").1 {
                return target;
            }
        }
    }

    /// Whatever comes until nothing more does for a while.
    pub(crate) async fn rest(&mut self) -> Vec<ServerFrame> {
        let mut frames = Vec::new();
        while let Ok(Some((_, frame))) = timeout(Duration::from_millis(700), self.next()).await {
            frames.push(frame);
        }
        frames
    }

    async fn next(&mut self) -> Option<(RequestId, ServerFrame)> {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("the gateway answers")? {
                Ok(Message::Binary(bytes)) => return Some(ServerFrame::decode(&bytes).expect("a frame")),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

/// What a device hears without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Live {
    Row(u64),
    Head(u64),
    Online(AccountId),
}

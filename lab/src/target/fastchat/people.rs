//! Everybody of a plan and their conversations, made straight in the store.

use super::link::FastChatLink;
use crate::plan::Plan;
use anyhow::{Context, Result, bail, ensure};
use ed25519_dalek::{Signer, SigningKey};
use fastchat_gateway::store::{
    Founded, Join, NewAccount, NewDirect, NewGroup, NewManifest, Outcome, Registered, Store,
};
use fastchat_protocol::{AccountId, Bytes, ConversationId, Counter, DeviceId, Epoch, Role, ServerFrame};
use fastchat_tests::raw::RawClient;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::net::TcpStream;

/// Calls of the store at a time.
const AT_ONCE: usize = 8;
/// The epoch of every conversation here: nothing ever changes in it.
pub(super) const EPOCH: Epoch = Epoch { generation: 0, number: 1 };
/// Any known suite: nothing here is opened.
const SUITE: u16 = 0x0001;

/// An account with one device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Person {
    account: AccountId,
    device: DeviceId,
    /// The seed of its signing key: of nobody who exists.
    key: [u8; 32],
}

/// Everybody of a plan.
#[derive(Debug)]
pub(super) struct People {
    persons: Vec<Person>,
    conversations: Vec<ConversationId>,
}

impl People {
    /// Makes accounts and conversations.
    pub(super) async fn make(store: &Arc<dyn Store>, plan: &Plan) -> Result<Self> {
        let persons = enrol(store, plan.clients).await?;
        let mut founding = Vec::new();
        for members in &plan.conversations {
            let members: Vec<Person> = members.iter().map(|member| persons[*member].clone()).collect();
            founding.push(found(Arc::clone(store), members, plan.groups));
        }
        let conversations = stream::iter(founding).buffered(AT_ONCE).try_collect().await?;
        Ok(Self { persons, conversations })
    }

    /// One for each client of the plan that this was made for, with the `host:port` it goes to.
    pub(super) fn entrances(self, plan: &Plan, addresses: Vec<String>) -> Vec<Entrance> {
        let mut own: Vec<Vec<(usize, ConversationId)>> = vec![Vec::new(); plan.clients];
        for (index, (members, id)) in plan.conversations.iter().zip(&self.conversations).enumerate() {
            members.iter().for_each(|member| own[*member].push((index, *id)));
        }
        let entrance = |((person, conversations), address)| Entrance { person, conversations, address };
        self.persons.into_iter().zip(own).zip(addresses).map(entrance).collect()
    }
}

/// A client that may connect.
#[derive(Debug, Clone)]
pub struct Entrance {
    person: Person,
    conversations: Vec<(usize, ConversationId)>,
    address: String,
}

impl Entrance {
    /// Connects, and knows nothing of what its conversations hold.
    pub(super) async fn connect(self) -> Result<FastChatLink> {
        let client = self.person.connect(&self.address).await?;
        Ok(FastChatLink::new(client, self.person.device, &self.conversations))
    }
}

/// Makes so many accounts, each with one device.
pub async fn enrol(store: &Arc<dyn Store>, count: usize) -> Result<Vec<Person>> {
    let making = (0..count).map(|_| async {
        let person = Person {
            account: AccountId::new(rand::random()),
            device: DeviceId::new(rand::random()),
            key: rand::random(),
        };
        match store.register(person.registration()?).await? {
            Registered::Made => Ok(person),
            _ => bail!("an account could not be made"),
        }
    });
    stream::iter(making).buffered(AT_ONCE).try_collect().await
}

impl Person {
    /// Connects by the device's key.
    pub async fn connect(&self, address: &str) -> Result<RawClient> {
        let socket = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        self.connect_on(socket, address).await
    }

    /// As [`Person::connect`], on a socket that is connected to `address`.
    pub async fn connect_on(&self, socket: TcpStream, address: &str) -> Result<RawClient> {
        socket.set_nodelay(true)?;
        let mut client = RawClient::from_stream(socket, address).await?;
        let hello = client.challenged().await?;
        let resume = client.resume_frame(&hello, self.device, |said| self.key().sign(said).to_bytes());
        match client.ask(&resume).await? {
            ServerFrame::Session(_) => Ok(client),
            other => bail!("expected a session, got {other:?}"),
        }
    }

    fn key(&self) -> SigningKey {
        SigningKey::from_bytes(&self.key)
    }

    fn registration(&self) -> Result<NewAccount> {
        Ok(NewAccount {
            account: self.account,
            name: format!("lab-{}", &self.account.to_string()[..24]).parse()?,
            password_hash: "no password fits".to_owned(),
            manifest: NewManifest {
                version: 1,
                bytes: Bytes::from_static(b"counted, never read"),
                devices: vec![(self.device, self.key().verifying_key().to_bytes())],
                revoked: Vec::new(),
            },
            invite: None,
        })
    }

    fn join(&self) -> Join {
        Join { device: self.device, welcome: None }
    }
}

async fn found(store: Arc<dyn Store>, members: Vec<Person>, group: bool) -> Result<ConversationId> {
    match members.as_slice() {
        [one, .., other] if !group => found_direct(&store, one, other).await,
        [one] => found_direct(&store, one, one).await,
        members => found_group(&store, members).await,
    }
}

async fn found_direct(store: &Arc<dyn Store>, founder: &Person, peer: &Person) -> Result<ConversationId> {
    let joins = if founder.account == peer.account { Vec::new() } else { vec![peer.join()] };
    let new = NewDirect {
        conversation: ConversationId::new(rand::random()),
        device: founder.device,
        account: founder.account,
        peer: peer.account,
        suite: SUITE,
        epoch: EPOCH,
        group_info: noise(),
        state: noise(),
        tree: noise(),
        joins,
    };
    let conversation = new.conversation;
    match store.found_direct(new).await? {
        Founded::Made { .. } => Ok(conversation),
        other => bail!("a conversation could not be made: {other:?}"),
    }
}

async fn found_group(store: &Arc<dyn Store>, members: &[Person]) -> Result<ConversationId> {
    let role = |n| if n == 0 { Role::Owner } else { Role::Member };
    let new = NewGroup {
        conversation: ConversationId::new(rand::random()),
        device: members[0].device,
        counter: Counter(0),
        parent: None,
        suite: SUITE,
        epoch: EPOCH,
        group_info: noise(),
        state: noise(),
        tree: noise(),
        members: members.iter().enumerate().map(|(n, person)| (person.account, role(n))).collect(),
        joins: members[1..].iter().map(Person::join).collect(),
    };
    let conversation = new.conversation;
    let committed = store.found_group(new).await?;
    ensure!(matches!(committed.outcome, Outcome::Stored(_)), "a group could not be made: {committed:?}");
    Ok(conversation)
}

/// In place of what only members read.
fn noise() -> Bytes {
    Bytes::copy_from_slice(&rand::random::<[u8; 32]>())
}

//! Everybody of a plan and their conversations: made straight in the store, or over the wire.

use super::{keyed::Keyed, link::FastChatLink};
use crate::{
    plan::{Habits, Plan},
    target::Door,
};
use anyhow::{Result, bail, ensure};
use async_trait::async_trait;
use fastchat_gateway::store::{Founded, Join, NewDirect, NewGroup, Outcome, Store};
use fastchat_protocol::{Bytes, ConversationId, Counter, DeviceId, Epoch, Role};
use fastchat_tests::{
    crowd::{Extra, enrol_in},
    raw::RawClient,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;

/// Calls of the store, or newcomers, at a time.
const AT_ONCE: usize = 8;
/// The epoch of every conversation that is made in the store.
pub(super) const EPOCH: Epoch = Epoch { generation: 0, number: 1 };
/// Any known suite: nothing here is opened.
const SUITE: u16 = 0x0001;

/// A conversation as its members have it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    pub(super) id: ConversationId,
    /// Nothing ever changes in it.
    pub(super) epoch: Epoch,
}

/// Who a client is.
#[derive(Debug, Clone)]
pub(super) enum Person {
    /// With the key of a device alone.
    Plain(Extra),
    /// With all keys.
    Keyed(Arc<Keyed>),
}

impl Person {
    /// A session by the device's key.
    pub(super) async fn connect(&self, address: &str) -> Result<RawClient> {
        match self {
            Self::Plain(extra) => extra.connect(address, None).await,
            Self::Keyed(keyed) => keyed.connect(address).await,
        }
    }

    pub(super) fn device(&self) -> DeviceId {
        match self {
            Self::Plain(extra) => extra.device(),
            Self::Keyed(keyed) => keyed.device(),
        }
    }
}

/// Everybody of a plan.
#[derive(Debug)]
pub(super) struct People {
    persons: Vec<Person>,
    conversations: Vec<Own>,
}

impl People {
    /// Makes accounts and conversations.
    pub(super) async fn make(store: &Arc<dyn Store>, plan: &Plan) -> Result<Self> {
        let persons = enrol_in(&**store, plan.clients).await?;
        let mut founding = Vec::new();
        for (index, members) in plan.conversations.iter().enumerate() {
            let members: Vec<Extra> = members.iter().map(|member| persons[*member].clone()).collect();
            founding.push(found(Arc::clone(store), members, plan.is_group(index)));
        }
        let ids: Vec<ConversationId> = some_at_a_time(founding).await?;
        let conversations = ids.into_iter().map(|id| Own { id, epoch: EPOCH }).collect();
        Ok(Self { persons: persons.into_iter().map(Person::Plain).collect(), conversations })
    }

    /// Founds and joins the plan's conversations by the connections of people who have all their keys.
    pub(super) async fn meet(keyed: Vec<Arc<Keyed>>, wires: Vec<RawClient>, plan: &Plan) -> Result<Self> {
        let everybody = || keyed.iter().map(Arc::clone);
        let publishing = everybody().zip(wires).map(|(me, wire)| me.publish(wire));
        let mut wires: Vec<RawClient> = some_at_a_time(publishing.collect()).await?;
        let mut conversations = Vec::new();
        for (index, members) in plan.conversations.iter().enumerate() {
            let others: Vec<_> = members[1..].iter().map(|member| Arc::clone(&keyed[*member])).collect();
            let (founder, wire) = (&keyed[members[0]], &mut wires[members[0]]);
            conversations.push(founder.found(wire, &others, plan.is_group(index)).await?);
        }
        let joining = everybody().zip(wires).map(|(me, wire)| me.join(wire));
        some_at_a_time(joining.collect()).await?;
        Ok(Self { persons: keyed.into_iter().map(Person::Keyed).collect(), conversations })
    }

    /// Of each conversation, who writes in it.
    pub(super) fn writers(&self) -> impl Iterator<Item = (ConversationId, DeviceId)> {
        let pairs = self.conversations.iter().zip(self.persons.chunks(2));
        pairs.map(|(own, persons)| (own.id, persons[0].device()))
    }

    /// One for each client of the plan that this was made for, with the `host:port` it goes to.
    pub(super) fn entrances(self, plan: &Plan, addresses: Vec<String>, seal: bool) -> Vec<Entrance> {
        let mut own: Vec<Vec<(usize, Own)>> = vec![Vec::new(); plan.clients];
        for (index, (members, conversation)) in plan.conversations.iter().zip(&self.conversations).enumerate()
        {
            members.iter().for_each(|member| own[*member].push((index, *conversation)));
        }
        let entrance = |(n, ((person, conversations), address))| {
            let habits = Habits { seed: plan.habits.seed.wrapping_add(n as u64), ..plan.habits };
            Entrance { person, conversations, address, seal, habits }
        };
        self.persons.into_iter().zip(own).zip(addresses).enumerate().map(entrance).collect()
    }
}

/// In the order in which they are given.
pub(super) async fn some_at_a_time<T>(all: Vec<impl Future<Output = Result<T>>>) -> Result<Vec<T>> {
    stream::iter(all).buffered(AT_ONCE).try_collect().await
}

/// A client that may connect.
#[derive(Debug, Clone)]
pub struct Entrance {
    pub(super) person: Person,
    /// By the plan's index.
    pub(super) conversations: Vec<(usize, Own)>,
    pub(super) address: String,
    /// Whether messages are sealed.
    pub(super) seal: bool,
    pub(super) habits: Habits,
}

impl Entrance {
    /// Connects, and knows nothing of what its conversations hold.
    pub(super) async fn connect(self) -> Result<FastChatLink> {
        let client = self.person.connect(&self.address).await?;
        FastChatLink::new(client, self)
    }

    /// By which it comes and goes.
    pub(super) fn door(self) -> EntranceDoor {
        EntranceDoor { entrance: self, inside: None }
    }

    /// The keys, if messages are sealed.
    pub(super) fn keys(&self) -> Option<&Arc<Keyed>> {
        match &self.person {
            Person::Keyed(keyed) if self.seal => Some(keyed),
            _ => None,
        }
    }
}

/// A client who comes and goes.
#[derive(Debug)]
pub(super) struct EntranceDoor {
    entrance: Entrance,
    inside: Option<RawClient>,
}

#[async_trait]
impl Door for EntranceDoor {
    async fn login(&mut self) -> Result<()> {
        self.inside = Some(self.entrance.person.connect(&self.entrance.address).await?);
        Ok(())
    }

    async fn leave(&mut self) -> Result<()> {
        self.inside = None;
        Ok(())
    }
}

fn join(person: &Extra) -> Join {
    Join { device: person.device(), welcome: None }
}

async fn found(store: Arc<dyn Store>, members: Vec<Extra>, group: bool) -> Result<ConversationId> {
    match members.as_slice() {
        [one, .., other] if !group => found_direct(&store, one, other).await,
        [one] => found_direct(&store, one, one).await,
        members => found_group(&store, members).await,
    }
}

async fn found_direct(store: &Arc<dyn Store>, founder: &Extra, peer: &Extra) -> Result<ConversationId> {
    let joins = if founder.account() == peer.account() { Vec::new() } else { vec![join(peer)] };
    let new = NewDirect {
        conversation: ConversationId::new(rand::random()),
        device: founder.device(),
        account: founder.account(),
        peer: peer.account(),
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

async fn found_group(store: &Arc<dyn Store>, members: &[Extra]) -> Result<ConversationId> {
    let role = |n| if n == 0 { Role::Owner } else { Role::Member };
    let new = NewGroup {
        conversation: ConversationId::new(rand::random()),
        device: members[0].device(),
        counter: Counter(0),
        parent: None,
        suite: SUITE,
        epoch: EPOCH,
        group_info: noise(),
        state: noise(),
        tree: noise(),
        members: members.iter().enumerate().map(|(n, person)| (person.account(), role(n))).collect(),
        joins: members[1..].iter().map(join).collect(),
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

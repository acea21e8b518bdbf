//! Everybody of a plan and their conversations, made straight in the store.

use super::link::FastChatLink;
use crate::plan::Plan;
use anyhow::{Result, bail, ensure};
use fastchat_gateway::store::{Founded, Join, NewDirect, NewGroup, Outcome, Store};
use fastchat_protocol::{Bytes, ConversationId, Counter, Epoch, Role};
use fastchat_tests::crowd::{Extra, enrol_in};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;

/// Calls of the store at a time.
const AT_ONCE: usize = 8;
/// The epoch of every conversation here: nothing ever changes in it.
pub(super) const EPOCH: Epoch = Epoch { generation: 0, number: 1 };
/// Any known suite: nothing here is opened.
const SUITE: u16 = 0x0001;

/// Everybody of a plan.
#[derive(Debug)]
pub(super) struct People {
    persons: Vec<Extra>,
    conversations: Vec<ConversationId>,
}

impl People {
    /// Makes accounts and conversations.
    pub(super) async fn make(store: &Arc<dyn Store>, plan: &Plan) -> Result<Self> {
        let persons = enrol_in(&**store, plan.clients).await?;
        let mut founding = Vec::new();
        for members in &plan.conversations {
            let members: Vec<Extra> = members.iter().map(|member| persons[*member].clone()).collect();
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
    person: Extra,
    conversations: Vec<(usize, ConversationId)>,
    address: String,
}

impl Entrance {
    /// Connects, and knows nothing of what its conversations hold.
    pub(super) async fn connect(self) -> Result<FastChatLink> {
        let client = self.person.connect(&self.address, None).await?;
        Ok(FastChatLink::new(client, self.person.device(), &self.conversations))
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

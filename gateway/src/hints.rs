//! Receipts and typing: what is told live, to whom, and kept by nobody.
//!
//! - A receipt is told after the store has believed it, coalesced with the flush of cursors; typing is
//!   told at once, and the store is not asked for it: who hears of a conversation is remembered for a
//!   few seconds ([`CIRCLE_TTL`]), who is in a group is known by [`crate::groups`].
//! - Two people hear it over their accounts' subjects, a group of at most
//!   [`MAX_RECEIPT_MEMBERS`](fastchat_protocol::limits::MAX_RECEIPT_MEMBERS) over its own, larger ones not
//!   at all.
//! - All of it may be lost, and never stands in the way of a row: it is dropped while the bus or a
//!   reader is busy. A client that wants to know asks for receipts.

use crate::{
    bus::{Bus, PUBLISH_QUEUE},
    groups::{GroupHint, Groups},
    limits::{CIRCLE_TTL, MAX_CIRCLES},
    metrics,
    registry::{Handle, Registry},
    store::{Store, receipts::Circle},
};
use bytes::Bytes;
use fastchat_protocol::{
    AccountId, ConversationId, DeviceId, RequestId, Seq, ServerFrame,
    bus::{self, BusFrame, Subject},
    client, server,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// Tells what nobody keeps.
#[derive(Debug)]
pub struct Hints {
    registry: Arc<Registry>,
    groups: Arc<Groups>,
    bus: Arc<dyn Bus>,
    store: Arc<dyn Store>,
    known: Mutex<Known>,
}

/// Who hears of conversations, in two generations: what is in either is younger than twice the time.
#[derive(Debug)]
struct Known {
    newer: HashMap<ConversationId, Circle>,
    older: HashMap<ConversationId, Circle>,
    turned: Instant,
}

/// Something that the store has believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Where.
    pub conversation: ConversationId,
    /// The membership revision then.
    pub revision: u64,
    /// Whose device said so.
    pub account: AccountId,
    /// It knows.
    pub device: DeviceId,
    /// How far a device has received, if others may know.
    pub delivered: Option<Seq>,
    /// How far the account has read.
    pub read: Option<Seq>,
    /// Others may know.
    pub shared: bool,
}

impl Hints {
    /// Between these.
    pub fn new(
        registry: Arc<Registry>,
        groups: Arc<Groups>,
        bus: Arc<dyn Bus>,
        store: Arc<dyn Store>,
    ) -> Self {
        let known = Known { newer: HashMap::new(), older: HashMap::new(), turned: Instant::now() };
        Self { registry, groups, bus, store, known: Mutex::new(known) }
    }

    /// Tells receipts to those who may know.
    pub async fn receipts(&self, all: Vec<Told>) {
        let shared: BTreeSet<_> =
            all.iter().filter(|told| told.shared).map(|told| told.conversation).collect();
        let circles = self.circles(&shared.into_iter().collect::<Vec<_>>()).await;
        for told in all {
            let circle = circles.get(&told.conversation).copied().unwrap_or(Circle::Nobody);
            self.receipt(told, circle);
        }
    }

    fn receipt(&self, told: Told, circle: Circle) {
        let Told { conversation, revision, account, device, delivered, read, shared } = told;
        let receipt = server::Receipt { conversation, account, delivered, read };
        let frame = ServerFrame::Receipt(receipt).encode(RequestId(0));
        let record = || {
            BusFrame::Receipt(bus::Receipt { conversation, revision, device, frame: frame.clone() })
                .encode(RequestId(0))
        };
        match circle {
            Circle::Group if shared => {
                self.groups.hint(GroupHint {
                    conversation,
                    revision,
                    from: device,
                    frame: frame.clone(),
                    own: None,
                });
                self.publish("receipt", Subject::Group(conversation), record());
            }
            Circle::Pair(low, high) if shared => {
                let other = if account == low { high } else { low };
                // Its own devices learn what was read, and have no use for what was received.
                for to in
                    [Some(other), read.map(|_| account).filter(|_| account != other)].into_iter().flatten()
                {
                    if self.tell("receipt", to, device, &frame) {
                        self.publish("receipt", Subject::User(to), record());
                    }
                }
            }
            // The own devices learn it in any case.
            _ if read.is_some() => {
                if self.tell("receipt", account, device, &frame) {
                    self.publish("receipt", Subject::User(account), record());
                }
            }
            _ => metrics::hint_dropped("receipt", "nobody"),
        }
    }

    /// Tells that the device of a connection here types. Its rate was checked.
    pub async fn typing(&self, handle: &Handle, said: client::Typing) {
        let client::Typing { conversation, typing } = said;
        let (account, device) = (handle.account, handle.device);
        let told = server::Typing { conversation, account, typing };
        let frame = ServerFrame::Typing(told).encode(RequestId(0));
        match self.circles(&[conversation]).await.get(&conversation) {
            Some(Circle::Group) => {
                let own = Some(Arc::clone(&self.bus));
                self.groups.hint(GroupHint { conversation, revision: 0, from: device, frame, own });
            }
            Some(Circle::Pair(low, high)) if account == *low || account == *high => {
                let other = if account == *low { *high } else { *low };
                if self.tell("typing", other, device, &frame) {
                    let record = bus::Typing { conversation, revision: 0, device, frame };
                    let record = BusFrame::Typing(record).encode(RequestId(0));
                    self.publish("typing", Subject::User(other), record);
                }
            }
            _ => metrics::hint_dropped("typing", "nobody"),
        }
    }

    /// Passes on what another gateway says to an account.
    pub fn on_user_record(&self, kind: &'static str, account: AccountId, device: DeviceId, frame: &Bytes) {
        self.tell(kind, account, device, frame);
    }

    /// Whether other gateways may have devices of the account too.
    fn tell(&self, kind: &'static str, account: AccountId, except: DeviceId, frame: &Bytes) -> bool {
        let reached = self.registry.hint(account, Some(except), frame);
        metrics::hinted(kind, reached.queued, reached.dropped);
        reached.elsewhere
    }

    /// Rows come first: while many records wait, nothing that may be lost is added.
    fn publish(&self, kind: &'static str, subject: Subject, record: Bytes) {
        if self.bus.waiting().publishes > PUBLISH_QUEUE / 2 {
            return metrics::hint_dropped(kind, "bus_busy");
        }
        metrics::hint_published(kind);
        self.bus.publish(subject, record);
    }

    /// Who hears of these: as remembered, or as one question to the store says.
    async fn circles(&self, conversations: &[ConversationId]) -> HashMap<ConversationId, Circle> {
        let (mut circles, unknown) = self.remembered(conversations);
        if unknown.is_empty() {
            return circles;
        }
        match self.store.circles(&unknown).await {
            Ok(read) => {
                let mut known = self.lock();
                for conversation in unknown {
                    let found = read.binary_search_by_key(&conversation, |(id, _)| *id);
                    let circle = found.map_or(Circle::Nobody, |place| read[place].1);
                    known.newer.insert(conversation, circle);
                    circles.insert(conversation, circle);
                }
            }
            Err(error) => tracing::warn!(%error, "nobody hears who types or has received just now"),
        }
        circles
    }

    fn remembered(
        &self,
        wanted: &[ConversationId],
    ) -> (HashMap<ConversationId, Circle>, Vec<ConversationId>) {
        let mut known = self.lock();
        // Limit: what is remembered is bounded, and no older than a block may take to work.
        if known.turned.elapsed() >= CIRCLE_TTL || known.newer.len() >= MAX_CIRCLES {
            known.older = std::mem::take(&mut known.newer);
            known.turned = Instant::now();
        }
        let (mut found, mut unknown) = (HashMap::new(), Vec::new());
        for conversation in wanted {
            match known.newer.get(conversation).or_else(|| known.older.get(conversation)) {
                Some(circle) => drop(found.insert(*conversation, *circle)),
                None => unknown.push(*conversation),
            }
        }
        (found, unknown)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        // A map of copies: nothing can be half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! From a committed row to the sockets of those it is for.
//!
//! - Storage first, bus second: nothing is handed out before the commit.
//! - The frame is encoded once and shared by all.
//! - This gateway's own connections get it at once; other gateways by one record a subject.
//! - All of it is a hint: what is lost here is found by a gap, a head check or the next login.

use crate::{
    bus::Bus,
    metrics,
    registry::Registry,
    store::{Audience, Stored},
};
use bytes::Bytes;
use fastchat_protocol::{
    AccountId, Code, ConversationId, Counter, DeviceId, RequestId, Seq, ServerFrame,
    bus::{self, BusFrame, Subject},
    limits::MAX_LIVE_ENVELOPE,
    server::{Deliver, Heads, LogKind, LogRow},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Hands rows and wakes to connections here and to other gateways.
#[derive(Debug)]
pub struct Fanout {
    registry: Arc<Registry>,
    bus: Arc<dyn Bus>,
    recent: Mutex<Recent>,
}

/// The highest seq that this gateway has handed out to an account, for conversations that moved
/// lately. A head check needs to say nothing about those: a device that lacks an earlier one sees the
/// gap. By account, because a record for one party says nothing of the record for the other.
#[derive(Debug, Default)]
struct Recent {
    newer: HashMap<(ConversationId, AccountId), Seq>,
    older: HashMap<(ConversationId, AccountId), Seq>,
}

/// A row to hand out.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Whose log.
    pub conversation: ConversationId,
    /// The device that sent it, which has its answer already.
    pub sender: DeviceId,
    /// The sender's count.
    pub counter: Counter,
    /// What it holds.
    pub kind: LogKind,
    /// The sealed bytes.
    pub envelope: Bytes,
    /// Where and when, and for whom.
    pub stored: Stored,
}

impl Fanout {
    /// Between these.
    pub fn new(registry: Arc<Registry>, bus: Arc<dyn Bus>) -> Self {
        Self { registry, bus, recent: Mutex::default() }
    }

    /// Hands a committed row out.
    pub fn committed(&self, row: Committed) {
        let Committed { conversation, sender, counter, kind, envelope, stored } = row;
        let live = envelope.len() <= MAX_LIVE_ENVELOPE;
        let row = LogRow {
            seq: stored.seq,
            sender,
            counter,
            kind,
            at_ms: stored.at_ms,
            envelope: live.then_some(envelope),
        };
        let frame = ServerFrame::Deliver(Deliver { conversation, row }).encode(RequestId(0));
        let record = BusFrame::Row(bus::Row {
            conversation,
            seq: stored.seq,
            sender,
            revision: stored.revision,
            frame: frame.clone(),
        });
        let record = record.encode(RequestId(0));
        for account in accounts(stored.audience) {
            self.deliver(account, sender, &frame);
            self.note(conversation, account, stored.seq);
            self.bus.publish(Subject::User(account), record.clone());
        }
    }

    /// Tells a device that its mailbox grew.
    pub fn mailbox(&self, account: AccountId, device: DeviceId, head: Seq) {
        self.wake_mailbox(account, device, head);
        self.bus.publish(
            Subject::User(account),
            BusFrame::Mailbox(bus::Mailbox { device, head }).encode(RequestId(0)),
        );
    }

    /// Tells other gateways that a device connected here.
    pub fn connected(&self, account: AccountId, device: DeviceId) {
        self.bus.publish(
            Subject::User(account),
            BusFrame::Connected(bus::Connected { device }).encode(RequestId(0)),
        );
    }

    /// Closes live sockets of an account (or of one device) on every gateway.
    pub fn revoked(&self, account: AccountId, device: Option<DeviceId>, except: Option<DeviceId>) {
        let record = bus::Revoked { device, except };
        self.close(account, record);
        self.bus.publish(Subject::User(account), BusFrame::Revoked(record).encode(RequestId(0)));
    }

    /// Deals with a record of another gateway. What cannot be read is counted and dropped.
    pub fn on_record(&self, subject: Subject, record: &[u8]) {
        let Subject::User(account) = subject else {
            return;
        };
        let Ok((_, frame)) = BusFrame::decode(record) else {
            metrics::bus_record("unreadable");
            return;
        };
        metrics::bus_record(frame.name());
        match frame {
            BusFrame::Row(row) => {
                self.deliver(account, row.sender, &row.frame);
                self.note(row.conversation, account, row.seq);
            }
            BusFrame::Mailbox(mailbox) => self.wake_mailbox(account, mailbox.device, mailbox.head),
            BusFrame::Connected(connected) => {
                for handle in self.registry.find(account, Some(connected.device)) {
                    handle.close(Code::Displaced, "this device connected to another gateway");
                }
            }
            BusFrame::Revoked(revoked) => self.close(account, revoked),
            BusFrame::Joined(_) | BusFrame::PresenceAsked(_) | BusFrame::PresenceTold(_) => {}
        }
    }

    /// Tells the connections here about heads that moved without a live copy; how many it told.
    pub fn moved(&self, conversation: ConversationId, head: Seq, audience: Audience) -> usize {
        let heads = vec![fastchat_protocol::server::Head { conversation, seq: head }];
        let frame = ServerFrame::Heads(Heads { heads, mailbox: None }).encode(RequestId(0));
        let mut told = 0;
        for account in accounts(audience).filter(|account| self.handed_out(conversation, *account) < head) {
            told += self.registry.deliver(account, None, &frame).0;
            self.note(conversation, account, head);
        }
        told
    }

    /// Tells a device here about its mailbox.
    pub fn wake_mailbox(&self, account: AccountId, device: DeviceId, head: Seq) {
        let frame = ServerFrame::Heads(Heads { heads: Vec::new(), mailbox: Some(head) });
        for handle in self.registry.find(account, Some(device)) {
            handle.queue.push_live(frame.encode(RequestId(0)));
        }
    }

    /// Forgets the older half of what was handed out; called once a head check.
    pub fn age(&self) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.older = std::mem::take(&mut recent.newer);
    }

    fn deliver(&self, account: AccountId, sender: DeviceId, frame: &Bytes) {
        let (queued, dropped) = self.registry.deliver(account, Some(sender), frame);
        metrics::delivered(queued, dropped);
    }

    fn close(&self, account: AccountId, revoked: bus::Revoked) {
        let (code, detail) = match revoked.device {
            Some(_) => (Code::Revoked, "this device was revoked"),
            None => (Code::PasswordChanged, "the password was changed: prove this device again"),
        };
        for handle in self.registry.find(account, revoked.device) {
            if Some(handle.device) != revoked.except {
                handle.close(code, detail);
            }
        }
    }

    fn note(&self, conversation: ConversationId, account: AccountId, seq: Seq) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = recent.newer.entry((conversation, account)).or_default();
        *noted = seq.max(*noted);
    }

    fn handed_out(&self, conversation: ConversationId, account: AccountId) -> Seq {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |map: &HashMap<_, Seq>| map.get(&(conversation, account)).copied().unwrap_or_default();
        of(&recent.newer).max(of(&recent.older))
    }
}

/// The accounts whose user subjects carry a conversation; a conversation with oneself has one.
fn accounts(audience: Audience) -> impl Iterator<Item = AccountId> {
    let (low, high) = match audience {
        Audience::Pair(low, high) => (Some(low), Some(high).filter(|high| *high != low)),
        // Groups have a subject of their own.
        Audience::Group => (None, None),
    };
    low.into_iter().chain(high)
}

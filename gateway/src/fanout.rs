//! From a committed row to the sockets of those it is for.
//!
//! - Storage first, bus second: nothing is handed out before the commit.
//! - The frame is encoded once and shared by all.
//! - This gateway's own connections get it at once; other gateways by one record a subject: that of
//!   each account of a direct conversation, that of the group itself, however many members it has.
//! - An account whose only device is connected here needs no record. Another device is added by that one,
//!   through this gateway; and whatever connects elsewhere says so on the account's subject.
//! - All of it is a hint: what is lost here is found by a gap, a head check or the next login.

use crate::{
    bus::Bus,
    groups::{GroupHint, GroupRow, Groups},
    hints::Hints,
    metrics,
    registry::Registry,
    session::Me,
    store::{Audience, Stored},
    watches::Watches,
};
use bytes::Bytes;
use fastchat_protocol::{
    AccountId, Code, ConversationId, Counter, DeviceId, RequestId, Seq, ServerFrame,
    bus::{self, BusFrame, Subject},
    limits::MAX_LIVE_ENVELOPE,
    server::{Deliver, Heads, LogKind, LogRow},
};
use std::{
    cell::LazyCell,
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Instant,
};

/// Hands rows and wakes to connections here and to other gateways.
#[derive(Debug)]
pub struct Fanout {
    registry: Arc<Registry>,
    groups: Arc<Groups>,
    hints: Arc<Hints>,
    watches: Arc<Watches>,
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
    pub fn new(
        registry: Arc<Registry>,
        groups: Arc<Groups>,
        hints: Arc<Hints>,
        watches: Arc<Watches>,
        bus: Arc<dyn Bus>,
    ) -> Self {
        Self { registry, groups, hints, watches, bus, recent: Mutex::default() }
    }

    /// Hands a committed row out.
    pub fn committed(&self, row: Committed) {
        let began = Instant::now();
        self.hand_out(row);
        metrics::published(began);
    }

    fn hand_out(&self, row: Committed) {
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
        let (seq, revision) = (stored.seq, stored.revision);
        // Encoded for the first that needs it.
        let record = LazyCell::new(|| {
            let frame = frame.clone();
            BusFrame::Row(bus::Row { conversation, seq, sender, revision, frame }).encode(RequestId(0))
        });
        if stored.audience == Audience::Group {
            let frame = frame.clone();
            self.groups.deliver(conversation, GroupRow { seq, revision, sender, frame });
            return self.bus.publish(Subject::Group(conversation), Bytes::clone(&record));
        }
        for account in accounts(stored.audience) {
            let elsewhere = self.deliver(account, sender, &frame);
            self.note(conversation, account, seq);
            if elsewhere {
                self.bus.publish(Subject::User(account), Bytes::clone(&record));
            }
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

    /// Lets the connections of accounts that came into a group hear it from now on, on every gateway.
    pub fn joined(&self, conversation: ConversationId, accounts: &BTreeSet<AccountId>) {
        let record = BusFrame::Joined(bus::Joined { conversation }).encode(RequestId(0));
        for account in accounts {
            self.enter(conversation, *account);
            self.bus.publish(Subject::User(*account), record.clone());
        }
    }

    /// Lets an account's connections here into a group. What is published before the bus knows is found
    /// by head checks; the row that lets them in, by their mailbox.
    fn enter(&self, conversation: ConversationId, account: AccountId) {
        let handles = self.registry.find(account, None);
        if handles.is_empty() {
            return;
        }
        let groups = Arc::clone(&self.groups);
        tokio::spawn(async move {
            for handle in handles {
                groups.enter(&handle, &[conversation]).await;
            }
        });
    }

    /// Others may learn that an account is online, or no longer: its connections take note everywhere.
    pub fn visible(&self, account: AccountId, visible: bool) {
        self.share(account, bus::Visible { visible, delivered: None, last_seen: None });
    }

    /// What others may learn of an account besides: its connections take note everywhere.
    pub fn sharing(&self, me: &Me, delivered: bool, last_seen: bool) {
        // The connection that asked knows what holds for the account.
        let own = self.registry.find(me.account, Some(me.device));
        let visible = own.iter().any(|handle| handle.visible.load(Ordering::Relaxed));
        let said = bus::Visible { visible, delivered: Some(delivered), last_seen: Some(last_seen) };
        self.share(me.account, said);
    }

    fn share(&self, account: AccountId, said: bus::Visible) {
        self.take_note(account, said);
        self.bus.publish(Subject::User(account), BusFrame::Visible(said).encode(RequestId(0)));
    }

    fn take_note(&self, account: AccountId, said: bus::Visible) {
        let (mut hides, handles) = (false, self.registry.find(account, None));
        for handle in &handles {
            hides |= handle.visible.swap(said.visible, Ordering::Relaxed) && !said.visible;
            if let Some(delivered) = said.delivered {
                handle.shares_delivered.store(delivered, Ordering::Relaxed);
            }
            if let Some(last_seen) = said.last_seen {
                handle.shares_last_seen.store(last_seen, Ordering::Relaxed);
            }
        }
        match (hides, said.visible) {
            (true, _) => self.watches.on_hidden(account),
            (false, true) => self.watches.on_connected(account),
            (false, false) => {}
        }
    }

    /// Deals with a record of another gateway. What cannot be read is counted and dropped.
    pub fn on_record(&self, subject: Subject, record: &[u8]) {
        let Ok((_, frame)) = BusFrame::decode(record) else {
            metrics::bus_record("unreadable");
            return;
        };
        metrics::bus_record(frame.name());
        match subject {
            Subject::User(account) => self.on_user_record(account, frame),
            Subject::Group(group) => match frame {
                BusFrame::Row(bus::Row { conversation, seq, sender, revision, frame })
                    if conversation == group =>
                {
                    self.groups.deliver(group, GroupRow { seq, revision, sender, frame });
                }
                BusFrame::Receipt(bus::Receipt { conversation, revision, device, frame })
                | BusFrame::Typing(bus::Typing { conversation, revision, device, frame })
                    if conversation == group =>
                {
                    self.groups.hint(GroupHint { conversation, revision, from: device, frame, own: None });
                }
                _ => metrics::bus_record("unreadable"),
            },
        }
    }

    fn on_user_record(&self, account: AccountId, frame: BusFrame) {
        match frame {
            BusFrame::Row(row) => {
                self.deliver(account, row.sender, &row.frame);
                self.note(row.conversation, account, row.seq);
            }
            BusFrame::Mailbox(mailbox) => self.wake_mailbox(account, mailbox.device, mailbox.head),
            BusFrame::Connected(connected) => {
                self.registry.accompany(account);
                for handle in self.registry.find(account, Some(connected.device)) {
                    handle.close(Code::Displaced, "this device connected to another gateway");
                }
                self.watches.on_connected(account);
            }
            BusFrame::Revoked(revoked) => self.close(account, revoked),
            BusFrame::PresenceAsked(asked) => self.watches.on_asked(account, asked),
            BusFrame::PresenceTold(told) => self.watches.on_told(account, told),
            BusFrame::Visible(said) => self.take_note(account, said),
            BusFrame::Joined(joined) => self.enter(joined.conversation, account),
            BusFrame::Receipt(told) => {
                self.hints.on_user_record("receipt", account, told.device, &told.frame)
            }
            BusFrame::Typing(told) => self.hints.on_user_record("typing", account, told.device, &told.frame),
        }
    }

    /// Tells the connections here about heads that moved without a live copy; how many it told at once
    /// (the readers of a group are told a little later, and count then).
    pub fn moved(&self, conversation: ConversationId, head: Seq, audience: Audience) -> usize {
        if audience == Audience::Group {
            self.groups.moved(conversation, head);
            return 0;
        }
        let heads = vec![fastchat_protocol::server::Head { conversation, seq: head }];
        let frame = ServerFrame::Heads(Heads { heads, mailbox: None }).encode(RequestId(0));
        let mut told = 0;
        for account in accounts(audience).filter(|account| self.handed_out(conversation, *account) < head) {
            told += self.registry.deliver(account, None, &frame).queued;
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

    /// Whether other gateways may have devices of the account too.
    fn deliver(&self, account: AccountId, sender: DeviceId, frame: &Bytes) -> bool {
        let reached = self.registry.deliver(account, Some(sender), frame);
        metrics::delivered(reached.queued, reached.dropped);
        reached.elsewhere
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

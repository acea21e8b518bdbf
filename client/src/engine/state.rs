//! What the engine holds in memory, and how it is read from the store.

use super::{Engine, notices::Words};
use crate::{
    api::{ApiError, Response},
    cursor::Window,
    outbox::{Lane, Slot, Stage},
    store::{
        Conversation, Entry, EntryKind, Extra, Item, ItemId, ItemState, Party, Standing, StoreError, Tx,
    },
};
use fastchat_delivery::VerifiedManifest;
use fastchat_protocol::{AccountId, ConversationId, Epoch, Seq, server::LogRow};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::{sync::oneshot, time::Instant};

/// A conversation as the engine works on it.
#[derive(Debug)]
pub(super) struct Thread {
    /// Invariant: as it is in the store.
    pub(super) record: Conversation,
    pub(super) window: Window<Arrived>,
    pub(super) lane: Lane,
    /// Nothing is sent before: the server asked for it, or it was tried in vain.
    pub(super) retry_at: Option<Instant>,
    pub(super) failures: u32,
    /// `Found` or `Commit` is on its way.
    pub(super) in_flight: bool,
    /// The epoch in which the server wants messages, after it refused one of another.
    pub(super) wanted_epoch: Option<Epoch>,
    /// New keys are wanted, and by whom.
    pub(super) update: Option<Vec<oneshot::Sender<Result<Response, ApiError>>>>,
    /// When the next commit may be tried.
    pub(super) commit_at: Option<Instant>,
    pub(super) commit_failures: u32,
    /// The last row that this device cannot have, said once.
    pub(super) fetch_failures: u32,
    /// The next row is not judged before: the manifest that it needs could not be had.
    pub(super) stalled_until: Option<Instant>,
    pub(super) stalls: u32,
    /// The epoch of the keys, if it was looked up since it last changed.
    pub(super) epoch: Option<Epoch>,
    /// Somebody may have to be taken out before anything is sent.
    pub(super) audit_due: bool,
    /// The row at this seq is for keys whose welcome is to come by the mailbox.
    pub(super) welcome_wanted: Option<Seq>,
    /// It was not there.
    pub(super) welcome_missed: Option<Seq>,
    /// The server does not let this device found the next generation.
    pub(super) may_not_found: bool,
}

/// A row, and whether it is the log's own copy.
#[derive(Debug, Clone)]
pub(super) struct Arrived {
    pub(super) row: LogRow,
    pub(super) from_log: bool,
}

/// Somebody waits for a message to be acknowledged.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) id: ItemId,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<Response, ApiError>>,
    /// The answer is this group, and not the message's place.
    pub(super) group: Option<ConversationId>,
}

/// Somebody waits for the first sync of a session.
#[derive(Debug)]
pub(super) struct SyncWaiter {
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<Response, ApiError>>,
}

impl Thread {
    pub(super) fn new(record: Conversation) -> Self {
        let lane = Lane::new(record.counter, []);
        Self {
            record,
            window: Window::default(),
            lane,
            retry_at: None,
            failures: 0,
            in_flight: false,
            wanted_epoch: None,
            update: None,
            commit_at: None,
            commit_failures: 0,
            fetch_failures: 0,
            stalled_until: None,
            stalls: 0,
            epoch: None,
            audit_due: true,
            welcome_wanted: None,
            welcome_missed: None,
            may_not_found: false,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.record.standing == Standing::Ready
    }

    /// Sending may be tried now.
    pub(super) fn may_try(&self, now: Instant) -> bool {
        self.retry_at.is_none_or(|at| at <= now)
    }

    /// Times that have come hold nothing back any more, and wake nobody again.
    pub(super) fn forget_past(&mut self, now: Instant) {
        for at in [&mut self.retry_at, &mut self.commit_at, &mut self.stalled_until] {
            at.take_if(|at| *at <= now);
        }
    }

    /// When the log may be asked: `None` while nothing is missing. `clock` is the engine's at `now`.
    pub(super) fn fetch_at(&mut self, clock: Duration, now: Instant) -> Option<Instant> {
        if matches!(self.record.standing, Standing::Founding(_) | Standing::Removed) {
            return None;
        }
        if self.welcome_wanted.is_some() {
            return None;
        }
        let due = now + self.window.due(self.record.cursor, clock)?.saturating_sub(clock);
        let refused = self.retry_at.filter(|_| self.fetch_failures > 0);
        [Some(due), refused, self.stalled_until].into_iter().flatten().max()
    }
}

impl Engine {
    /// Reads everything but the history.
    pub(super) fn load(&mut self) -> Result<(), StoreError> {
        let (contacts, conversations, items) =
            self.store.read(|tx| Ok::<_, StoreError>((tx.contacts()?, tx.conversations()?, tx.items()?)))?;
        self.load_inbox()?;
        self.contacts = contacts.into_iter().map(|contact| (contact.account, contact)).collect();
        self.threads = conversations.into_iter().map(|record| (record.id, Thread::new(record))).collect();
        for (position, item) in items {
            self.load_item(position, &item);
            self.items.insert(position, item);
        }
        Ok(())
    }

    fn load_item(&mut self, position: i64, item: &Item) {
        let thread = item.conversation.and_then(|id| self.threads.get_mut(&id));
        match (&item.state, thread, item.conversation) {
            (ItemState::Draft, Some(thread), _) => thread.lane.push(position),
            (ItemState::Draft, None, _) => self.unrouted.push_back(position),
            (ItemState::Sealed { counter, .. }, Some(thread), Some(id)) => {
                self.by_counter.insert((id, *counter), position);
                thread.lane.push_slot(Slot::new(position, Stage::Sealed(*counter)));
            }
            (ItemState::Acked { counter, .. }, _, Some(id)) => {
                self.by_counter.insert((id, *counter), position);
            }
            _ => {}
        }
    }

    /// The manifest to judge an account by.
    pub(super) fn manifest(&self, account: AccountId) -> Option<VerifiedManifest> {
        self.contacts.get(&account).map(|contact| contact.manifest.clone())
    }

    /// The conversation with an account, if there is one that can be used (or will be).
    pub(super) fn conversation_with(&self, peer: AccountId) -> Option<ConversationId> {
        let threads = self.threads.values().filter(|thread| thread.record.peer() == Some(peer));
        threads
            .filter(|thread| thread.record.standing != Standing::Removed)
            .map(|thread| thread.record.id)
            .min()
    }

    /// What a conversation is called where people read it: the account, or `#` and the group's name.
    pub(super) fn title(&self, record: &Conversation) -> String {
        match &record.party {
            Party::Direct(peer) => self.name_of(*peer),
            Party::Group(group) if group.name.is_empty() => format!("#{}", &record.id.to_string()[..8]),
            Party::Group(group) => format!("#{}", group.name),
        }
    }

    /// Something in words of people.
    pub(super) fn words<T>(&self, say: impl FnOnce(&Words<'_>) -> T) -> T {
        let none = std::collections::BTreeSet::new();
        say(&Words { own: self.me.account(), left: &none, name: &|account| self.name_of(account) })
    }

    /// The name of an account, as far as it is known.
    pub(super) fn name_of(&self, account: AccountId) -> String {
        match self.contacts.get(&account) {
            Some(contact) => contact.name.clone(),
            None => format!("account {}", &account.to_string()[..8]),
        }
    }
}

/// Milliseconds since 1970 by this machine's clock: for display and slow timers only.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The pause after so many failures: as long as asked, or longer each time.
pub(super) fn pause_after(failures: u32, wish_ms: Option<u32>) -> Duration {
    let longer = || Duration::from_millis(250 << failures.min(6)).mul_f64(0.5 + rand::random::<f64>() / 2.0);
    wish_ms.map_or_else(longer, |ms| Duration::from_millis(ms.into()))
}

/// Adds a notice at a place in a conversation.
pub(super) fn notice(
    tx: &Tx<'_>,
    record: &Conversation,
    seq: Seq,
    text: String,
    at_ms: u64,
) -> Result<Entry, StoreError> {
    let incarnation = record.incarnation;
    let part = tx.next_part(record.id, incarnation, seq)?;
    let kind = EntryKind::Notice;
    let entry = Entry {
        incarnation,
        seq,
        part,
        kind,
        from: None,
        text,
        at_ms,
        epoch: None,
        counter: None,
        extra: Extra::default(),
    };
    tx.add_entry(record.id, &entry)?;
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread() -> Thread {
        let (id, peer) = (ConversationId::new([1; 16]), AccountId::new([2; 16]));
        Thread::new(Conversation::new(id, Party::Direct(peer), Standing::Ready, Seq(5), 0))
    }

    #[test]
    fn regression_a_time_that_has_come_wakes_nobody_again() {
        let (now, mut thread) = (Instant::now(), thread());
        let later = now + Duration::from_secs(1);
        (thread.retry_at, thread.commit_at, thread.stalled_until) = (Some(now), Some(later), Some(now));
        thread.forget_past(now);
        assert_eq!((thread.retry_at, thread.commit_at, thread.stalled_until), (None, Some(later), None));
    }

    #[test]
    fn regression_the_log_is_not_asked_before_the_pause_ends() {
        let (clock, now) = (Duration::from_secs(100), Instant::now());
        let later = now + Duration::from_secs(1);
        let mut thread = thread();
        assert_eq!(thread.fetch_at(clock, now), None);
        thread.window.want();
        assert_eq!(thread.fetch_at(clock, now), Some(now));
        thread.retry_at = Some(later);
        assert_eq!(thread.fetch_at(clock, now), Some(now), "a refused message does not hold the log back");
        thread.fetch_failures = 1;
        assert_eq!(thread.fetch_at(clock, now), Some(later), "a refused fetch does");
        (thread.fetch_failures, thread.stalled_until, thread.retry_at) = (0, Some(later), None);
        assert_eq!(thread.fetch_at(clock, now), Some(later), "so does a row that waits for a manifest");
    }

    #[test]
    fn regression_the_servers_wish_is_not_undercut() {
        for failures in [0, 6, 60] {
            assert_eq!(pause_after(failures, Some(2_000)), Duration::from_secs(2));
            assert!(pause_after(failures, None) <= Duration::from_secs(16), "{failures}");
        }
    }
}

//! What this gateway remembers of those who write: nothing of it has to be asked again.
//!
//! A [`Sender`] was found to be allowed at a membership revision. Whatever takes that right away raises the
//! conversation's revision, under its lock; so as long as the row of the conversation still has that
//! revision when it is changed, nobody needs to ask who is in.
//!
//! The counter is the last one known. The true one is never below it, and above it where the device wrote
//! through another gateway, or committed: then what comes with the next counter has been used, and the
//! log's key refuses it. Retention would have to have taken that row, which was written after this was
//! noted: so what is noted is forgotten long before ([`KEPT`]).
//!
//! All of it is forgotten where a connection is opened: the server may be another one now, a copy that lacks
//! the last messages or a backup that was restored, and its counters lie behind.

use super::super::{
    Append, Audience, Outcome, Stored,
    rows::{Columns, Fallible},
};
use fastchat_protocol::{ConversationId, Counter, DeviceId};
use sqlx::PgConnection;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What was not used for three times as long is forgotten, if not before. Retention keeps a day at least.
const KEPT: Duration = Duration::from_mins(10);
/// Limit: twice as many are remembered at most, of about 100 bytes.
const MOST: usize = 1 << 15;

/// A device in a conversation.
pub(super) type Key = (ConversationId, DeviceId);

/// Who may write, as of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sender {
    /// Its last one that is known.
    pub(super) counter: Counter,
    pub(super) revision: u64,
    pub(super) audience: Audience,
}

/// Those who wrote lately.
#[derive(Debug)]
pub(super) struct Senders(Mutex<Known>);

/// Two generations: a full or old one is put behind, and the one behind it forgotten.
#[derive(Debug)]
struct Known {
    young: HashMap<Key, Sender>,
    old: HashMap<Key, Sender>,
    turned: Instant,
    /// Connections that had been opened when the first of them was noted.
    opened: u64,
}

impl Senders {
    pub(super) fn new(now: Instant) -> Self {
        let (young, old) = Default::default();
        Self(Mutex::new(Known { young, old, turned: now, opened: 0 }))
    }

    /// Those of this batch that are known. To be asked when the call has its connection.
    pub(super) fn of(&self, batch: &[Append], opened: u64, now: Instant) -> HashMap<Key, Sender> {
        let mut known = self.lock();
        if known.opened != opened {
            known.young.clear();
            known.old.clear();
            known.opened = opened;
        }
        known.turn(now);
        let of = |item: &Append| Some((key(item), known.get(&key(item))?));
        batch.iter().filter_map(of).collect()
    }

    /// Takes note of those who were found to be allowed, and forgets the others: something was not as it was
    /// known. Learns nothing where connections were opened since.
    pub(super) fn learn(&self, batch: &[Append], outcomes: &[Option<Outcome>], opened: u64) {
        let mut known = self.lock();
        for (item, outcome) in batch.iter().zip(outcomes) {
            match outcome {
                Some(Outcome::Stored(stored)) if known.opened == opened => {
                    let Stored { audience, revision, .. } = *stored;
                    known.young.insert(key(item), Sender { counter: item.counter, revision, audience });
                }
                _ => known.forget(&key(item)),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn get(&self, key: &Key) -> Option<Sender> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    fn forget(&mut self, key: &Key) {
        self.young.remove(key);
        self.old.remove(key);
    }

    fn turn(&mut self, now: Instant) {
        let since = now - self.turned;
        if since >= KEPT || self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
            self.turned = now;
        }
        // Nothing was asked for in all that time.
        if since >= 2 * KEPT {
            self.old.clear();
        }
    }
}

pub(super) fn key(item: &Append) -> Key {
    (item.conversation, item.device)
}

/// Those of them who were found to be allowed before, by whichever gateway, and still are.
pub(super) async fn ask(c: &mut PgConnection, keys: &[Key]) -> Fallible<Vec<(Key, Sender)>> {
    const SQL: &str =
        "SELECT s.conversation::bytea, s.device::bytea, s.high AS counter, c.revision, c.low::bytea, c.high::bytea
         FROM unnest($1::bytea[], $2::bytea[]) AS k (conversation, device)
         JOIN counters s ON s.conversation = k.conversation AND s.device = k.device
         JOIN conversations c ON c.id = k.conversation AND c.revision = s.vetted";
    let query = sqlx::query(SQL)
        .bind(keys.iter().map(|(conversation, _)| conversation.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_, device)| device.as_bytes().as_slice()).collect::<Vec<_>>());
    let rows = query.fetch_all(c).await?;
    let sender = |row: &sqlx::postgres::PgRow| {
        let counter = Counter(row.number("counter")?);
        let sender = Sender { counter, revision: row.number("revision")?, audience: row.audience()? };
        Ok(((row.id("conversation")?, row.id("device")?), sender))
    };
    rows.iter().map(sender).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use fastchat_protocol::{Epoch, Seq};

    fn item(conversation: u8) -> Append {
        Append {
            conversation: ConversationId::new([conversation; 16]),
            device: DeviceId::new([7; 16]),
            counter: Counter(2),
            epoch: Epoch { generation: 0, number: 1 },
            envelope: Bytes::new(),
        }
    }

    fn note(senders: &Senders, item: &Append, opened: u64) {
        let stored = Stored { seq: Seq(3), at_ms: 0, audience: Audience::Group, revision: 1 };
        senders.learn(std::slice::from_ref(item), &[Some(Outcome::Stored(stored))], opened);
    }

    #[test]
    fn who_does_not_write_is_forgotten() {
        let mut now = Instant::now();
        let senders = Senders::new(now);
        let (busy, quiet) = (item(1), item(2));
        note(&senders, &busy, 0);
        note(&senders, &quiet, 0);
        for _ in 0..3 {
            now += KEPT;
            assert!(senders.of(std::slice::from_ref(&busy), 0, now).contains_key(&key(&busy)));
            note(&senders, &busy, 0);
        }
        assert_eq!(senders.of(&[quiet], 0, now), HashMap::new());
        // Where nobody wrote at all, nothing was turned.
        assert_eq!(senders.of(&[busy], 0, now + 2 * KEPT), HashMap::new());
    }

    #[test]
    fn another_server_may_know_less() {
        let now = Instant::now();
        let senders = Senders::new(now);
        let item = item(1);
        let known = |opened| senders.of(std::slice::from_ref(&item), opened, now).len();
        note(&senders, &item, 0);
        assert_eq!((known(0), known(1)), (1, 0));
        // What was begun before is of the one before.
        note(&senders, &item, 0);
        assert_eq!(known(1), 0);
        note(&senders, &item, 1);
        assert_eq!(known(1), 1);
    }

    #[test]
    fn as_many_are_remembered_as_there_is_room_for() {
        let now = Instant::now();
        let senders = Senders::new(now);
        for n in 0..5 * MOST as u32 {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            let other = Append { conversation: ConversationId::new(id), ..item(1) };
            note(&senders, &other, 0);
            senders.of(&[], 0, now);
        }
        let known = senders.lock();
        assert_eq!((known.young.len(), known.old.len()), (0, MOST));
    }
}

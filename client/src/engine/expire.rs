//! Messages whose time is over go: what they said, what leads to them, and what was kept of their rows.
//! Whether anybody has read them, and whether there is a connection, does not matter.

use super::{Engine, state::now_ms};
use crate::{
    api::{Event, GoneView},
    store::{Conversation, Entry, StoreError, Tx},
};
use fastchat_protocol::{AccountId, ConversationId};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;

/// Limit: entries that go in one transaction.
const BATCH: usize = 256;

impl Engine {
    /// Forgets what is due. What is more than a batch has the next turn, which is at once.
    pub(super) fn forget_due(&mut self) -> Result<(), StoreError> {
        let (now, own) = (now_ms(), self.me.account());
        self.expires_ms = self.store.read(|tx| tx.next_expiry())?;
        if self.expires_ms.is_none_or(|at_ms| at_ms > now) {
            return Ok(());
        }
        let (gone, records, next) = self.store.write(|tx| {
            let gone = tx.forget_due(now, self.threads.keys().copied(), BATCH)?;
            let ids: BTreeSet<ConversationId> = gone.iter().map(|(id, _)| *id).collect();
            let mut records = Vec::new();
            for thread in ids.iter().filter_map(|id| self.threads.get(id)) {
                let mut record = thread.record.clone();
                record.unread = record.unread.min(unseen(tx, &record, own)?);
                tx.put_conversation(&record)?;
                records.push(record);
            }
            Ok::<_, StoreError>((gone, records, tx.next_expiry()?))
        })?;
        tracing::debug!(count = gone.len(), "messages whose time was over are gone");
        self.expires_ms = next;
        for record in records {
            self.set_record(record);
        }
        for (id, entry) in gone {
            self.say_gone(id, &entry);
        }
        Ok(())
    }

    /// When the engine has to wake for that.
    pub(super) fn forgets_at(&self) -> Option<Instant> {
        let wait_ms = self.expires_ms?.saturating_sub(now_ms());
        Some(Instant::now() + Duration::from_millis(wait_ms))
    }

    fn say_gone(&self, id: ConversationId, entry: &Entry) {
        let Some(thread) = self.threads.get(&id).filter(|thread| !self.is_hidden(&thread.record)) else {
            return;
        };
        self.say(Event::Gone(GoneView {
            with: self.title(&thread.record),
            conversation: id.to_string(),
            incarnation: entry.incarnation,
            seq: entry.seq.0,
            id: entry.reference().map(super::views::name_of_message),
        }));
    }
}

/// Messages of others after the last that was seen, as they are here now.
fn unseen(tx: &Tx<'_>, record: &Conversation, own: AccountId) -> Result<u64, StoreError> {
    let after = tx.entries_after(record.id, (record.read_in, record.read))?;
    Ok(after.iter().filter(|entry| entry.from.is_some_and(|(account, _)| account != own)).count() as u64)
}

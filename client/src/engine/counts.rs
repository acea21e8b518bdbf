//! Whether every device's rows are there, and in the order in which it sent them.
//!
//! A device counts what it sends to a conversation: 1, 2, 3, ... The count is authenticated with each
//! message, so a server that leaves a row out, calls it something else, or changes the order is found
//! out by the next row of that device. Nothing is withheld for that: a person is told.

use super::state::notice;
use crate::store::{Contact, Conversation, Entry, EntryKind, StoreError, Tx};
use fastchat_protocol::{AccountId, ConversationId, Counter, DeviceId, server::LogRow};
use std::collections::{BTreeMap, HashMap};

/// The last count of each device in a conversation, as far as rows were read without a hole.
#[derive(Debug, Default)]
pub(super) struct Counts {
    last: BTreeMap<DeviceId, Counter>,
    changed: bool,
}

/// What a row's count says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    /// It is the next one, or the first that is met here.
    Next,
    /// So many before it are not there.
    Missing(u64),
    /// It is one of before.
    Late,
}

impl Counts {
    pub(super) fn load(tx: &Tx<'_>, id: ConversationId) -> Result<Self, StoreError> {
        let last = tx.setting(&place(id))?.unwrap_or_default();
        Ok(Self { last, changed: false })
    }

    pub(super) fn store(&self, tx: &Tx<'_>, id: ConversationId) -> Result<(), StoreError> {
        if self.changed { tx.set_setting(&place(id), &self.last) } else { Ok(()) }
    }

    /// Whether this count was met before.
    pub(super) fn has(&self, device: DeviceId, counter: Counter) -> bool {
        self.last.get(&device).is_some_and(|last| counter <= *last)
    }

    /// Rows of before are not to be had: counting begins again with whatever comes next.
    pub(super) fn forget(tx: &Tx<'_>, id: ConversationId) -> Result<(), StoreError> {
        tx.set_setting(&place(id), &BTreeMap::<DeviceId, Counter>::new())
    }

    /// Takes a row in, and says what its count shows to be wrong. `read` is what the row itself came to.
    pub(super) fn check(
        &mut self,
        tx: &Tx<'_>,
        record: &Conversation,
        contacts: &HashMap<AccountId, Contact>,
        row: &LogRow,
        read: Option<&Entry>,
    ) -> Result<Option<Entry>, StoreError> {
        // A count that nobody has authenticated says nothing, but that a row was here.
        let sure = read.is_none_or(|entry| entry.kind != EntryKind::Quarantine);
        let count = self.take(row.sender, row.counter, sure);
        let of = |device: DeviceId| {
            let lists = |contact: &&Contact| contact.manifest.device(device).is_some();
            contacts
                .values()
                .find(lists)
                .map_or_else(|| format!("device {device}"), |contact| contact.name.clone())
        };
        let text = match count {
            Count::Next => return Ok(None),
            Count::Missing(1) => {
                format!("the server has left out 1 message of {} before this", of(row.sender))
            }
            Count::Missing(n) => {
                format!("the server has left out {n} messages of {} before this", of(row.sender))
            }
            Count::Late => {
                let name = of(row.sender);
                format!(
                    "the messages of {name} are not in the order in which {name} sent them: the server has changed it"
                )
            }
        };
        tracing::warn!(conversation = %record.id, seq = %row.seq, text);
        notice(tx, record, row.seq, text, row.at_ms).map(Some)
    }

    fn take(&mut self, device: DeviceId, counter: Counter, sure: bool) -> Count {
        // The first row of a conversation has no count.
        if counter == Counter(0) {
            return Count::Next;
        }
        let last = self.last.get(&device).copied();
        let next = last.is_none_or(|last| counter == last.next());
        if next || (sure && last < Some(counter)) {
            self.last.insert(device, counter);
            self.changed = true;
        }
        match last {
            Some(last) if sure && counter <= last => Count::Late,
            Some(last) if sure && !next => Count::Missing(counter.0 - last.0 - 1),
            _ => Count::Next,
        }
    }
}

fn place(id: ConversationId) -> String {
    format!("counts-{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_show() {
        let (device, mut counts) = (DeviceId::new([1; 16]), Counts::default());
        let cases = [
            (0, true, Count::Next),
            (7, true, Count::Next),
            (8, true, Count::Next),
            (11, true, Count::Missing(2)),
            (9, true, Count::Late),
            (12, true, Count::Next),
            // Claims of rows that do not open.
            (13, false, Count::Next),
            (99, false, Count::Next),
            (2, false, Count::Next),
            (14, true, Count::Next),
        ];
        for (counter, sure, want) in cases {
            assert_eq!(counts.take(device, Counter(counter), sure), want, "{counter}");
        }
        assert_eq!(counts.take(DeviceId::new([2; 16]), Counter(3), true), Count::Next, "another device");
    }
}

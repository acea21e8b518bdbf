//! The readers of one group here, and what waits until their ranges are known. No I/O.

use super::{GroupHint, GroupRow};
use crate::{limits::HELD_ROWS, metrics, registry::Handle, store::Readers};
use bytes::Bytes;
use fastchat_protocol::{
    DeviceId, RequestId, Seq,
    bus::{self, BusFrame, Subject},
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

/// A connection and the rows that it may read: 24 bytes.
#[derive(Debug)]
struct Reader {
    handle: Arc<Handle>,
    from: Seq,
    /// [`OPEN`] while it is in.
    to: Seq,
}

/// The end of a range that has none.
const OPEN: Seq = Seq(u64::MAX);

/// One group.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// What the ranges are true for.
    revision: u64,
    /// The highest seq that readers here were given or told.
    handed_out: Seq,
    readers: Vec<Reader>,
    /// Readers whose range was never read.
    unread: usize,
    /// Ranges are being read.
    work: Option<Box<Work>>,
}

#[derive(Debug, Default)]
struct Work {
    held: VecDeque<Held>,
    /// How many of them were there when the ranges were asked for.
    before: usize,
    /// Readers are to be told this head.
    owed: Seq,
}

#[derive(Debug)]
enum Held {
    Row(GroupRow),
    Hint(GroupHint),
}

impl Held {
    fn revision(&self) -> u64 {
        match self {
            Self::Row(row) => row.revision,
            Self::Hint(hint) => hint.revision,
        }
    }
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Every reader that may have it has it.
    Delivered,
    /// It waits; the caller starts reading ranges if nobody does.
    Held { reload: bool },
    /// Too many wait: its readers are told the head instead.
    Overflow,
}

impl Members {
    /// Adds a connection, which has no range yet.
    pub(super) fn add(&mut self, handle: &Arc<Handle>) {
        if self.readers.iter().all(|reader| reader.handle.id != handle.id) {
            self.readers.push(Reader { handle: Arc::clone(handle), from: OPEN, to: Seq(0) });
            self.unread += 1;
        }
    }

    /// Removes a connection by its number.
    pub(super) fn remove(&mut self, id: u64) {
        self.retain(|reader| reader.handle.id != id);
    }

    /// Whether nobody hears the group here.
    pub(super) fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    /// Deals with a row: at once, if the ranges are good for it and nothing waits before it.
    pub(super) fn take(&mut self, row: GroupRow) -> Taken {
        if let Some(work) = &mut self.work {
            if work.held.len() >= HELD_ROWS {
                work.owed = work.owed.max(row.seq);
                return Taken::Overflow;
            }
            work.held.push_back(Held::Row(row));
            return Taken::Held { reload: false };
        }
        if self.unread > 0 || row.revision > self.revision {
            self.work = Some(Box::new(Work { held: [Held::Row(row)].into(), ..Work::default() }));
            return Taken::Held { reload: true };
        }
        self.hand_out(&row);
        Taken::Delivered
    }

    /// Deals with what may be lost, as with a row; true if the caller is to read ranges.
    pub(super) fn take_hint(&mut self, hint: GroupHint) -> bool {
        if let Some(work) = &mut self.work {
            // Limit: rows are to find room.
            match work.held.len() < HELD_ROWS / 2 {
                true => work.held.push_back(Held::Hint(hint)),
                false => metrics::hint_dropped("group", "held"),
            }
            return false;
        }
        if self.unread > 0 || hint.revision > self.revision {
            self.work = Some(Box::new(Work { held: [Held::Hint(hint)].into(), ..Work::default() }));
            return true;
        }
        self.hand_out_hint(&hint);
        false
    }

    /// Whether readers here were given or told less than `head`.
    pub(super) fn lacks(&self, head: Seq) -> bool {
        self.handed_out < head && !self.readers.is_empty()
    }

    /// Owes the readers a head, once their ranges are known. True if the caller is to read them.
    pub(super) fn owe(&mut self, head: Seq) -> bool {
        if !self.lacks(head) {
            return false;
        }
        let reload = self.work.is_none();
        let work = self.work.get_or_insert_default();
        work.owed = work.owed.max(head);
        reload
    }

    /// Begins to read ranges: of these devices.
    pub(super) fn begin(&mut self) -> Vec<DeviceId> {
        if let Some(work) = &mut self.work {
            work.before = work.held.len();
        }
        self.readers.iter().map(|reader| reader.handle.device).collect()
    }

    /// Nobody is left to read ranges for.
    pub(super) fn give_up(&mut self) {
        self.work = None;
    }

    /// Takes note of the ranges of the devices that were asked for, and hands out what waited; false if
    /// somebody came in meanwhile, or a row needs ranges that are newer still.
    ///
    /// Who is out is told the end of its range, and forgotten with the next reading.
    pub(super) fn apply(&mut self, asked: &[DeviceId], read: &Readers, head: &dyn Fn(Seq) -> Bytes) -> bool {
        let asked: HashSet<_> = asked.iter().copied().collect();
        let ranges: HashMap<_, _> =
            read.ranges.iter().map(|(device, from, to)| (*device, (*from, to.unwrap_or(OPEN)))).collect();
        self.retain(|reader| {
            let device = reader.handle.device;
            if !asked.contains(&device) {
                return true;
            }
            let was_out = reader.is_out();
            let Some((from, to)) = ranges.get(&device) else { return false };
            (reader.from, reader.to) = (*from, *to);
            if reader.is_out() && !was_out {
                reader.handle.queue.push_live(head(*to));
            }
            !(reader.is_out() && was_out)
        });
        self.revision = read.revision;
        self.drop_impossible();
        let newest = self.work.iter().flat_map(|work| &work.held).map(Held::revision).max();
        if self.unread > 0 || newest.is_some_and(|newest| newest > self.revision) {
            return false;
        }
        self.hand_out_held(head);
        true
    }

    /// Drops rows that claim a newer revision than the store had after they came: a gateway never
    /// publishes before the commit, so nobody of ours wrote them.
    fn drop_impossible(&mut self) {
        let Some(work) = &mut self.work else { return };
        let (revision, before) = (self.revision, work.before);
        let mut place = 0;
        work.held.retain(|held| {
            place += 1;
            held.revision() <= revision || place > before
        });
    }

    fn hand_out_held(&mut self, head: &dyn Fn(Seq) -> Bytes) {
        let Some(work) = self.work.take() else { return };
        for held in &work.held {
            match held {
                Held::Row(row) => self.hand_out(row),
                Held::Hint(hint) => self.hand_out_hint(hint),
            }
        }
        if work.owed <= self.handed_out {
            return;
        }
        let frame = head(work.owed);
        let mut told = 0;
        for reader in self.readers.iter().filter(|reader| reader.reads(work.owed)) {
            told += usize::from(reader.handle.queue.push_live(frame.clone()));
        }
        self.handed_out = work.owed;
        metrics::head_check_repairs(told);
    }

    fn hand_out(&mut self, row: &GroupRow) {
        let (mut queued, mut dropped, mut out_of_range) = (0, 0, 0);
        for reader in self.readers.iter().filter(|reader| reader.handle.device != row.sender) {
            if !reader.reads(row.seq) {
                out_of_range += 1;
            } else if reader.handle.queue.push_live(row.frame.clone()) {
                queued += 1;
            } else {
                dropped += 1;
            }
        }
        self.handed_out = self.handed_out.max(row.seq);
        metrics::delivered(queued, dropped);
        metrics::out_of_range(out_of_range);
    }

    /// To everybody who is in; one of ours only if its sender is, too.
    fn hand_out_hint(&self, hint: &GroupHint) {
        let is_in = |reader: &&Reader| !reader.is_unread() && !reader.is_out();
        let GroupHint { conversation, from, frame, own, .. } = hint;
        if let Some(bus) = own {
            if !self.readers.iter().filter(is_in).any(|reader| reader.handle.device == *from) {
                return metrics::hint_dropped("typing", "nobody");
            }
            let (conversation, device, frame) = (*conversation, *from, frame.clone());
            let record =
                BusFrame::Typing(bus::Typing { conversation, revision: self.revision, device, frame });
            metrics::hint_published("typing");
            bus.publish(Subject::Group(conversation), record.encode(RequestId(0)));
        }
        let (mut queued, mut dropped) = (0, 0);
        for reader in self.readers.iter().filter(is_in).filter(|reader| reader.handle.device != *from) {
            match reader.handle.queue.push_hint(frame) {
                true => queued += 1,
                false => dropped += 1,
            }
        }
        metrics::hinted("group", queued, dropped);
    }

    fn retain(&mut self, keep: impl FnMut(&mut Reader) -> bool) {
        self.readers.retain_mut(keep);
        self.unread = self.readers.iter().filter(|reader| reader.is_unread()).count();
    }
}

impl Reader {
    fn reads(&self, seq: Seq) -> bool {
        self.from <= seq && seq <= self.to
    }

    fn is_unread(&self) -> bool {
        self.from == OPEN
    }

    fn is_out(&self) -> bool {
        !self.is_unread() && self.to != OPEN
    }
}

#[cfg(test)]
mod tests;

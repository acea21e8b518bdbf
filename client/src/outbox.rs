//! The rules of sending to one conversation: what goes out next, and what an answer means. Pure.
//!
//! - Slots are in the order in which the messages were typed; counters follow that order without a gap.
//! - A sealed slot may be known to a gateway. Its bytes go out again unchanged until an answer says
//!   definitely that nothing was stored; only then may it be sealed anew.
//! - Up to [`PIPELINE`] slots are on their way at once.
//!
//! Invariant: two different envelopes are never offered under one counter, unless the server said
//! in between that it has stored nothing under it.

use fastchat_protocol::{Code, Counter, Refusal, Retry, Seq};
use std::collections::VecDeque;

/// Limit: messages of one conversation on their way at once; half of what the protocol allows.
pub const PIPELINE: usize = 32;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Its position in the store's outbox.
    pub position: i64,
    /// How far it is.
    pub stage: Stage,
    /// Which offer is on its way: an answer to an earlier one says nothing about this one.
    pub attempt: u64,
}

impl Slot {
    /// A message as the store has it.
    pub fn new(position: i64, stage: Stage) -> Self {
        Self { position, stage, attempt: 0 }
    }
}

/// How far a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Not sealed.
    Draft,
    /// Sealed; the bytes are to be offered (again).
    Sealed(Counter),
    /// Sealed and refused because an earlier one was missing: goes out when nothing else is on its way.
    Bounced(Counter),
    /// On its way.
    InFlight(Counter),
    /// Definitely not stored: must be sealed anew, under this counter.
    Stale(Counter),
}

impl Stage {
    /// The counter, if it has one.
    pub fn counter(self) -> Option<Counter> {
        match self {
            Self::Draft => None,
            Self::Sealed(c) | Self::Bounced(c) | Self::InFlight(c) | Self::Stale(c) => Some(c),
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Seal this message under this counter, store that, and offer it.
    Seal(i64, Counter),
    /// Offer the stored bytes.
    Offer(i64, Counter),
}

/// What an answer to an offer means.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The server has it.
    Acked {
        /// Where.
        seq: Seq,
        /// When, by the server's clock.
        at_ms: u64,
    },
    /// Stored once, and gone by retention since.
    Expired,
    /// Sealed for an epoch that is over. Nothing was stored: read the log, seal anew.
    CatchUp,
    /// The counters do not fit; settled by what the server expects. Nothing was stored.
    Settled,
    /// The server has something that this device does not know of: its state was rolled back.
    RolledBack,
    /// The outcome is not known, or not yet possible: the same bytes again, later.
    Later(Refusal),
    /// Refused for good. Nothing was stored.
    Failed(Refusal),
}

/// The messages to one conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lane {
    slots: VecDeque<Slot>,
    last: Counter,
    attempts: u64,
    /// No new counter may be given: the keys are being changed, or there are none.
    pub sealing_held: bool,
}

impl Lane {
    /// A lane whose last counter was `last`; slots as the store has them, in order.
    pub fn new(last: Counter, slots: impl IntoIterator<Item = Slot>) -> Self {
        Self { slots: slots.into_iter().collect(), last, attempts: 0, sealing_held: false }
    }

    /// A new message.
    pub fn push(&mut self, position: i64) {
        self.slots.push_back(Slot::new(position, Stage::Draft));
    }

    /// A message as the store has it; they come in order.
    pub fn push_slot(&mut self, slot: Slot) {
        self.slots.push_back(slot);
    }

    /// The last counter given.
    pub fn last(&self) -> Counter {
        self.last
    }

    /// Something else (a commit) was given the next counter, or a counter was given back.
    pub fn set_last(&mut self, last: Counter) {
        self.last = last;
    }

    /// No message is waiting.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// No message has a counter whose fate is open: a commit may take the next one.
    pub fn is_quiet(&self) -> bool {
        self.slots.iter().all(|slot| slot.stage == Stage::Draft)
    }

    fn in_flight(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot.stage, Stage::InFlight(_))).count()
    }

    /// What to do next, if anything. The caller does it and says so by [`sealed`](Self::sealed) or
    /// [`offered`](Self::offered).
    pub fn next(&self) -> Option<Action> {
        let in_flight = self.in_flight();
        if in_flight >= PIPELINE {
            return None;
        }
        let slot = self.slots.iter().find(|slot| !matches!(slot.stage, Stage::InFlight(_)))?;
        // An answer that is still to come may concern old bytes behind this one.
        let later = |c: Counter| {
            self.slots.iter().any(|slot| matches!(slot.stage, Stage::InFlight(other) if other > c))
        };
        match slot.stage {
            Stage::Draft if self.sealing_held => None,
            Stage::Draft => Some(Action::Seal(slot.position, self.last.next())),
            Stage::Stale(counter) if !self.sealing_held && !later(counter) => {
                Some(Action::Seal(slot.position, counter))
            }
            Stage::Sealed(counter) => Some(Action::Offer(slot.position, counter)),
            Stage::Bounced(counter) if in_flight == 0 => Some(Action::Offer(slot.position, counter)),
            _ => None,
        }
    }

    /// The message was sealed under the counter and stored.
    pub fn sealed(&mut self, position: i64, counter: Counter) {
        self.last = self.last.max(counter);
        self.set(position, Stage::Sealed(counter));
    }

    /// The bytes are given to a connection. Returns the number of this offer, for its answer.
    pub fn offered(&mut self, position: i64) -> u64 {
        self.attempts += 1;
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.position == position) {
            slot.attempt = self.attempts;
            if let Some(counter) = slot.stage.counter() {
                slot.stage = Stage::InFlight(counter);
            }
        }
        self.attempts
    }

    /// The connection is gone: nothing is known of what was on its way.
    pub fn disconnected(&mut self) {
        for slot in &mut self.slots {
            if let Stage::InFlight(counter) | Stage::Bounced(counter) = slot.stage {
                slot.stage = Stage::Sealed(counter);
            }
        }
    }

    /// Removes a message: acknowledged, read in the log, taken back, or failed.
    pub fn remove(&mut self, position: i64) {
        self.slots.retain(|slot| slot.position != position);
    }

    /// The message under a counter.
    pub fn position_of(&self, counter: Counter) -> Option<i64> {
        self.slots.iter().find(|slot| slot.stage.counter() == Some(counter)).map(|slot| slot.position)
    }

    /// Judges the answer to an offer and moves the slots. `None` if that offer is not on its way any
    /// more: the log has settled it, or it was renumbered.
    pub fn on_answer(&mut self, attempt: u64, answer: Result<(Seq, u64), Refusal>) -> Option<(i64, Verdict)> {
        let slot = self.slots.iter().find(|slot| slot.attempt == attempt)?;
        let Stage::InFlight(counter) = slot.stage else { return None };
        let position = slot.position;
        let verdict = match answer {
            Ok((seq, at_ms)) => {
                self.remove(position);
                Verdict::Acked { seq, at_ms }
            }
            Err(refusal) => self.on_refusal(position, counter, refusal),
        };
        Some((position, verdict))
    }

    fn on_refusal(&mut self, position: i64, counter: Counter, refusal: Refusal) -> Verdict {
        match (refusal.code, refusal.code.retry()) {
            (Code::StaleEpoch, _) => {
                self.set(position, Stage::Stale(counter));
                Verdict::CatchUp
            }
            (Code::OutOfOrder, _) => self.on_out_of_order(position, counter, refusal.expected),
            (Code::Conflict, _) => {
                self.set(position, Stage::Draft);
                Verdict::RolledBack
            }
            (Code::DuplicateExpired, _) => {
                self.remove(position);
                Verdict::Expired
            }
            (_, Retry::Later | Retry::Unknown) => {
                self.set(position, Stage::Sealed(counter));
                Verdict::Later(refusal)
            }
            (_, Retry::Never | Retry::Changed) => {
                self.remove(position);
                self.renumber(counter);
                Verdict::Failed(refusal)
            }
        }
    }

    fn on_out_of_order(&mut self, position: i64, counter: Counter, expected: Option<Counter>) -> Verdict {
        match expected {
            Some(expected) if expected > counter => {
                self.set(position, Stage::Draft);
                Verdict::RolledBack
            }
            // The missing one is here and will go out again: this one follows it unchanged.
            Some(expected) if expected < counter && self.position_of(expected).is_some() => {
                self.set(position, Stage::Bounced(counter));
                Verdict::Settled
            }
            // The missing one is nowhere: everything from here on moves down.
            Some(expected) if expected < counter => {
                self.set(position, Stage::Stale(counter));
                self.renumber(expected);
                Verdict::Settled
            }
            // Refused for its own number, or without saying which is wanted.
            _ => {
                self.set(position, Stage::Bounced(counter));
                Verdict::Settled
            }
        }
    }

    /// Gives the numbers from `next` on to all slots that had a number at or above it.
    ///
    /// Those still on their way will be refused, because one before them is missing; those answers
    /// concern an offer that is over.
    fn renumber(&mut self, mut next: Counter) {
        for slot in &mut self.slots {
            match slot.stage.counter() {
                Some(counter) if counter >= next => {
                    slot.stage = Stage::Stale(next);
                    next = next.next();
                }
                _ => {}
            }
        }
        self.last = Counter(next.0.saturating_sub(1));
    }

    /// Gives the counters of stale slots back, so that a commit can take the next one: they were
    /// definitely not stored, and must be sealed anew in any case. Returns the positions.
    pub fn release(&mut self) -> Vec<i64> {
        let mut released = Vec::new();
        // Only a tail of the numbers can be given back.
        let held =
            |slot: &Slot| matches!(slot.stage, Stage::Sealed(_) | Stage::InFlight(_) | Stage::Bounced(_));
        if self.slots.iter().any(held) {
            return released;
        }
        for slot in &mut self.slots {
            if let Stage::Stale(counter) = slot.stage {
                self.last = self.last.min(Counter(counter.0.saturating_sub(1)));
                slot.stage = Stage::Draft;
                released.push(slot.position);
            }
        }
        released
    }

    /// The server's last counter is beyond ours: this device's state was rolled back.
    pub fn advance_to(&mut self, counter: Counter) {
        self.last = self.last.max(counter);
    }

    fn set(&mut self, position: i64, stage: Stage) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.position == position) {
            slot.stage = stage;
        }
    }
}

#[cfg(test)]
mod tests;

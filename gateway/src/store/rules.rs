//! What may be appended: the rules as functions of what was read under the conversation's lock.
//!
//! - Dedupe comes first: a sender that repeats what was stored learns so, whatever happened since.
//! - Then membership and revocation, then the epoch, then the counter.
//! - Postgres judges batches of application envelopes by the same rules in SQL (`append_envelopes`);
//!   the contract suite runs random operations on both and compares.

use super::{Audience, Committed, NewCommit, Outcome, Stored};
use fastchat_protocol::{Counter, Epoch, Seq};

/// How many epochs back an envelope may be: commits and sends cross on the wire.
const STALE_WINDOW: u64 = 2;

/// A conversation, as its locked row says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conversation {
    pub(super) head: Seq,
    pub(super) epoch: Epoch,
    /// The last epoch that began by adding or removing a leaf.
    pub(super) fence: u64,
    pub(super) revision: u64,
    pub(super) audience: Audience,
}

/// A sender in a conversation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// The device is not revoked, and its account is a member.
    pub(super) member: bool,
    /// The device was let in and not removed.
    pub(super) joined: bool,
    /// High water of its counter.
    pub(super) high: Counter,
}

/// The row that a counter was used for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub(super) seq: Seq,
    pub(super) at_ms: u64,
    /// With the bytes that came now.
    pub(super) same: bool,
}

impl Standing {
    /// Whether the counter was used before, so that the log must say for what.
    pub(super) fn has_used(&self, counter: Counter) -> bool {
        (1..=self.high.0).contains(&counter.0)
    }
}

impl Conversation {
    /// What to say about a counter that was used; `None` is a row past retention.
    pub(super) fn repeated(&self, used: Option<Used>) -> Outcome {
        match used {
            None => Outcome::Expired,
            Some(used) if used.same => Outcome::Duplicate(self.stored(used.seq, used.at_ms)),
            Some(used) => Outcome::Conflict(used.seq),
        }
    }

    /// Why an application envelope with a fresh counter may not be stored.
    pub(super) fn refuse_append(&self, sender: &Standing, epoch: Epoch, counter: Counter) -> Option<Outcome> {
        if !sender.member || !sender.joined {
            return Some(Outcome::NotMember);
        }
        if !self.accepts(epoch) {
            return Some(Outcome::Stale(self.epoch));
        }
        refuse_counter(sender, counter)
    }

    /// Why a commit with a fresh counter may not be stored.
    pub(super) fn refuse_commit(&self, sender: &Standing, commit: &NewCommit) -> Option<Outcome> {
        let lets_itself_in = commit.joins.iter().any(|join| join.device == commit.device);
        if !sender.member || !(sender.joined || lets_itself_in) {
            return Some(Outcome::NotMember);
        }
        if commit.parent != self.epoch {
            return Some(Outcome::Stale(self.epoch));
        }
        refuse_counter(sender, commit.counter)
    }

    /// The conversation after a commit.
    pub(super) fn after(&self, commit: &NewCommit) -> Self {
        let fenced = commit.membership_changed || commit.epoch.generation != self.epoch.generation;
        Self {
            head: self.head.next(),
            epoch: commit.epoch,
            fence: if fenced { commit.epoch.number } else { self.fence },
            revision: self.revision + u64::from(commit.membership_changed),
            audience: self.audience,
        }
    }

    /// A row of this conversation.
    pub(super) fn stored(&self, seq: Seq, at_ms: u64) -> Stored {
        Stored { seq, at_ms, audience: self.audience, revision: self.revision }
    }

    fn accepts(&self, epoch: Epoch) -> bool {
        let oldest = self.epoch.number.saturating_sub(STALE_WINDOW).max(self.fence);
        epoch.generation == self.epoch.generation && (oldest..=self.epoch.number).contains(&epoch.number)
    }
}

impl From<Outcome> for Committed {
    /// Nothing was stored just now.
    fn from(outcome: Outcome) -> Self {
        Self { outcome, mailboxes: Vec::new() }
    }
}

fn refuse_counter(sender: &Standing, counter: Counter) -> Option<Outcome> {
    let expected = sender.high.next();
    (counter != expected).then_some(Outcome::OutOfOrder(expected))
}

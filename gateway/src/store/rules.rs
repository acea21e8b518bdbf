//! What may be appended: the rules as functions of what was read under the conversation's lock.
//!
//! - Dedupe comes first: a sender that repeats what was stored learns so, whatever happened since.
//! - Then membership and revocation, then blocks, then the epoch, then the counter.
//! - Postgres judges batches of application envelopes by the same rules in SQL (`append_envelopes`);
//!   the contract suite runs random operations on both and compares.

use super::{Audience, Committed, NewCommit, NewGroup, NewLeave, Outcome, Stored};
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
    /// The other party of the direct conversation has blocked the account.
    pub(super) barred: bool,
    /// It owns the group, and others are in it.
    pub(super) needed: bool,
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
        refuse_sender(sender, sender.joined)
            .or_else(|| (!self.accepts(epoch)).then_some(Outcome::Stale(self.epoch)))
            .or_else(|| refuse_counter(sender, counter))
    }

    /// Why a commit with a fresh counter may not be stored.
    pub(super) fn refuse_commit(&self, sender: &Standing, commit: &NewCommit) -> Option<Outcome> {
        let lets_itself_in = commit.joins.iter().any(|join| join.device == commit.device);
        // The members of a direct conversation never change.
        if !self.is_group() && !commit.members.is_empty() {
            return Some(Outcome::NotMember);
        }
        refuse_sender(sender, sender.joined || lets_itself_in)
            .or_else(|| (commit.parent != self.epoch).then_some(Outcome::Stale(self.epoch)))
            .or_else(|| refuse_counter(sender, commit.counter))
    }

    /// Why a statement to leave with a fresh counter may not be stored.
    pub(super) fn refuse_leave(&self, sender: &Standing, leave: &NewLeave) -> Option<Outcome> {
        if !self.is_group() {
            return Some(Outcome::NotMember);
        }
        refuse_sender(sender, sender.joined)
            .or_else(|| sender.needed.then_some(Outcome::Owner))
            .or_else(|| (!self.accepts(leave.epoch)).then_some(Outcome::Stale(self.epoch)))
            .or_else(|| refuse_counter(sender, leave.counter))
    }

    /// Why a new generation with a fresh counter may not be stored.
    pub(super) fn refuse_generation(&self, sender: &Standing, founding: &NewGroup) -> Option<Outcome> {
        // The members of a direct conversation never change.
        if self.is_group() == founding.members.is_empty() {
            return Some(Outcome::NotMember);
        }
        refuse_sender(sender, sender.joined)
            .or_else(|| (founding.parent != Some(self.epoch)).then_some(Outcome::Stale(self.epoch)))
            .or_else(|| refuse_counter(sender, founding.counter))
    }

    /// The conversation after a commit.
    pub(super) fn after(&self, commit: &NewCommit) -> Self {
        let fenced = commit.membership_changed || commit.epoch.generation != self.epoch.generation;
        let moved =
            fenced || !(commit.joins.is_empty() && commit.removes.is_empty() && commit.members.is_empty());
        Self {
            head: self.head.next(),
            epoch: commit.epoch,
            fence: if fenced { commit.epoch.number } else { self.fence },
            revision: self.revision + u64::from(moved),
            audience: self.audience,
        }
    }

    /// The conversation after somebody has left. The leaves are still there, so the epoch goes on.
    pub(super) fn after_leave(&self) -> Self {
        Self { head: self.head.next(), revision: self.revision + 1, ..*self }
    }

    /// The conversation after the founding of its next generation.
    pub(super) fn after_generation(&self, founding: &NewGroup) -> Self {
        Self { epoch: founding.epoch, fence: founding.epoch.number, ..self.after_leave() }
    }

    /// A row of this conversation.
    pub(super) fn stored(&self, seq: Seq, at_ms: u64) -> Stored {
        Stored { seq, at_ms, audience: self.audience, revision: self.revision }
    }

    fn is_group(&self) -> bool {
        self.audience == Audience::Group
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

/// `joined` is what counts as such for what the sender wants.
fn refuse_sender(sender: &Standing, joined: bool) -> Option<Outcome> {
    match sender.member && joined {
        false => Some(Outcome::NotMember),
        true => sender.barred.then_some(Outcome::NotAccepted),
    }
}

fn refuse_counter(sender: &Standing, counter: Counter) -> Option<Outcome> {
    let expected = sender.high.next();
    (counter != expected).then_some(Outcome::OutOfOrder(expected))
}

//! What a receiver is held to, lane by lane: everything, once, in order.

use std::collections::{BTreeSet, HashMap};

/// What was wrong with what one receiver, or all of them, got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Never came.
    pub lost: u64,
    /// Came again.
    pub duplicated: u64,
    /// Came after a later one of its lane.
    pub disordered: u64,
}

impl std::ops::AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.disordered += other.disordered;
    }
}

/// The lanes that one receiver has heard of.
#[derive(Debug, Default)]
pub struct Received {
    lanes: HashMap<u32, Lane>,
    faults: Faults,
}

#[derive(Debug, Default)]
struct Lane {
    next: u32,
    /// Passed over so far.
    missing: BTreeSet<u32>,
}

impl Received {
    /// Takes note of message `turn` of a lane; false if it was there before.
    pub fn take(&mut self, lane: u32, turn: u32) -> bool {
        let lane = self.lanes.entry(lane).or_default();
        if turn >= lane.next {
            lane.missing.extend(lane.next..turn);
            lane.next = turn + 1;
            true
        } else if lane.missing.remove(&turn) {
            self.faults.disordered += 1;
            true
        } else {
            self.faults.duplicated += 1;
            false
        }
    }

    /// Takes note of a message that came again, which one it was is not known.
    pub fn repeat(&mut self) {
        self.faults.duplicated += 1;
    }

    /// The faults, when these lanes had so many messages for this receiver.
    pub fn judge(&self, lanes: impl Iterator<Item = (u32, u32)>) -> Faults {
        let lost = |(lane, sent): (u32, u32)| match self.lanes.get(&lane) {
            None => u64::from(sent),
            Some(lane) => u64::from(sent.saturating_sub(lane.next)) + lane.missing.len() as u64,
        };
        Faults { lost: lanes.map(lost).sum(), ..self.faults }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(turns: &[u32], sent: u32) -> (u64, u64, u64) {
        let mut received = Received::default();
        for turn in turns {
            received.take(3, *turn);
        }
        let faults = received.judge([(3, sent)].into_iter());
        (faults.lost, faults.duplicated, faults.disordered)
    }

    #[test]
    fn every_kind_of_fault_has_its_name() {
        for (turns, sent, expected) in [
            (&[0, 1, 2][..], 3, (0, 0, 0)),
            (&[0, 1], 3, (1, 0, 0)),
            (&[0, 2], 3, (1, 0, 0)),
            (&[0, 1, 1, 2], 3, (0, 1, 0)),
            (&[1, 0, 2], 3, (0, 0, 1)),
            (&[2, 2, 0], 3, (1, 1, 1)),
            (&[], 3, (3, 0, 0)),
        ] {
            assert_eq!(judged(turns, sent), expected, "{turns:?} of {sent}");
        }
    }

    #[test]
    fn lanes_do_not_meet() {
        let mut received = Received::default();
        assert!(received.take(1, 0) && received.take(2, 0) && !received.take(1, 0));
        let faults = received.judge([(1, 1), (2, 2), (3, 1)].into_iter());
        assert_eq!(faults, Faults { lost: 2, duplicated: 1, disordered: 0 });
    }
}

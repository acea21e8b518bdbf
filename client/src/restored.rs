//! What a restored backup means for one conversation: pure.
//!
//! A server's store that was restored begins another *incarnation*: its log goes on from the backup's
//! head, and gives the seqs after it again. The server says where each conversation stood then. A
//! device that had not read further has lost nothing; one that had keeps what it read, and goes on
//! from the backup's head. If its keys are newer than the backup, nobody shares them any more.

use fastchat_protocol::{Epoch, Seq, server::Restored};

/// What a device has of a conversation.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// The incarnation in which the others are meant; 0 if none was noted.
    pub incarnation: u32,
    /// The last row that is here, or of which the server has said that it has it.
    pub last: Seq,
    /// The epoch of the keys, if there are any.
    pub epoch: Option<Epoch>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The server has all of it.
    Whole,
    /// What lies after the head of the backup is gone; the keys are still everybody's.
    Shorter(Restored),
    /// And the keys are newer than the backup: they are of a log that is gone.
    KeysGone(Restored),
}

/// Judges by the restorations that the server names.
pub fn judge(held: &Held, restored: &[Restored]) -> Verdict {
    // Several since then: what counts is the one that went back furthest.
    let since = restored.iter().filter(|restored| restored.incarnation > held.incarnation);
    let Some(back) = since.min_by_key(|restored| (restored.head, restored.epoch)) else {
        return Verdict::Whole;
    };
    match held.epoch {
        Some(epoch) if epoch > back.epoch => Verdict::KeysGone(*back),
        _ if held.last > back.head => Verdict::Shorter(*back),
        _ => Verdict::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(incarnation: u32, head: u64, epoch: u64) -> Restored {
        Restored { incarnation, head: Seq(head), epoch: Epoch { generation: 0, number: epoch } }
    }

    #[test]
    fn what_a_restored_store_has_lost() {
        let cases = [
            (1, 10, Some(3), vec![], Verdict::Whole),
            (1, 10, Some(3), vec![at(2, 10, 3)], Verdict::Whole),
            (1, 9, Some(2), vec![at(2, 10, 3)], Verdict::Whole),
            (1, 11, Some(3), vec![at(2, 10, 3)], Verdict::Shorter(at(2, 10, 3))),
            (1, 12, Some(4), vec![at(2, 10, 3)], Verdict::KeysGone(at(2, 10, 3))),
            (1, 12, None, vec![at(2, 10, 3)], Verdict::Shorter(at(2, 10, 3))),
            // That one is known.
            (2, 12, Some(4), vec![at(2, 10, 3)], Verdict::Whole),
            // Whichever went back further.
            (1, 12, Some(4), vec![at(2, 10, 3), at(3, 14, 5)], Verdict::KeysGone(at(2, 10, 3))),
            (1, 12, Some(4), vec![at(2, 20, 9), at(3, 11, 4)], Verdict::Shorter(at(3, 11, 4))),
            (2, 12, Some(4), vec![at(2, 10, 3), at(3, 12, 4)], Verdict::Whole),
            // A profile from before incarnations.
            (0, 12, Some(3), vec![at(2, 10, 3)], Verdict::Shorter(at(2, 10, 3))),
        ];
        for (incarnation, last, epoch, restored, want) in cases {
            let epoch = epoch.map(|number| Epoch { generation: 0, number });
            let held = Held { incarnation, last: Seq(last), epoch };
            assert_eq!(judge(&held, &restored), want, "{held:?} {restored:?}");
        }
    }
}

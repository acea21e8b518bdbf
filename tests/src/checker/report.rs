//! What the checker found, for a person to read.

use std::{collections::BTreeMap, fmt};

/// Which promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Acked and not in the log; in the log and never shown to a device that may read it (G1, G5).
    Lost,
    /// One id at two places of a log (G2).
    DoubledInLog,
    /// Shown more than once by one device (G5).
    ShownTwice,
    /// A seq of a log was left out or used twice (G3).
    Hole,
    /// What was acked, stored and shown at a seq is not the same thing (G2, G3).
    WrongSeq,
    /// A sender's messages are not in the order in which it sent them (G4).
    SenderOrder,
    /// A device showed a lower seq after a higher one (G4).
    OutOfOrder,
    /// Sent after another was acked, and stored before it.
    RealTime,
    /// Refused for certain, and stored all the same (G6).
    AbortedRead,
    /// A device acked what it had not shown (G5).
    CursorAhead,
    /// A device got what it may not read (G8).
    Leak,
    /// Shown with other contents than sent.
    Altered,
    /// Shown, and never sent.
    FromNowhere,
    /// Shown later than allowed (G7).
    Stale,
}

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Which promise.
    pub kind: Kind,
    /// Conversation, message, seq and device.
    pub what: String,
}

/// How much there was of everything.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    /// Messages, and how often they were handed to a gateway.
    pub sent: usize,
    /// Sends with their retries.
    pub attempts: usize,
    /// Answers of each kind.
    pub acked: usize,
    /// Definite refusals.
    pub failed: usize,
    /// Sends without an answer.
    pub unknown: usize,
    /// Messages shown, by all devices together.
    pub shown: usize,
    /// Rows that a device got more than once. Allowed, and paid for.
    pub received_again: usize,
    /// Rows that a device could not open.
    pub quarantined: usize,
    /// The longest time from an ack (or from the end of the faults) until a device showed it.
    pub slowest_us: u64,
    /// The longest time between two acks.
    pub longest_without_ok_us: u64,
}

/// The judgement of a run. Its `Display` is the report.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was broken, by promise.
    pub findings: Vec<Finding>,
    /// How much there was.
    pub numbers: Numbers,
}

/// Findings of a kind that the report shows in full.
const SHOWN: usize = 10;

impl Report {
    pub(super) fn new(numbers: Numbers) -> Self {
        Self { findings: Vec::new(), numbers }
    }

    pub(super) fn add(&mut self, kind: Kind, what: String) {
        self.findings.push(Finding { kind, what });
    }

    /// Stable: findings of a kind stay in the order of conversations and seqs.
    pub(super) fn sort(&mut self) {
        self.findings.sort_by_key(|finding| finding.kind);
    }

    /// Whether every promise held.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether there is a finding of a kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.findings.iter().any(|finding| finding.kind == kind)
    }

    /// Panics with the report unless every promise held, and if nothing was sent: then nothing was
    /// tested.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.numbers.acked > 0 && self.numbers.shown > 0, "an empty run proves nothing\n{self}");
        assert!(self.is_clean(), "\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = &self.numbers;
        writeln!(
            f,
            "{} messages in {} attempts: {} acked, {} refused, {} unknown",
            n.sent, n.attempts, n.acked, n.failed, n.unknown
        )?;
        writeln!(f, "{} shown, {} received again, {} quarantined", n.shown, n.received_again, n.quarantined)?;
        writeln!(
            f,
            "slowest {} ms, longest without an ack {} ms",
            n.slowest_us / 1_000,
            n.longest_without_ok_us / 1_000
        )?;
        if self.is_clean() {
            return writeln!(f, "every promise held");
        }
        let mut kinds: BTreeMap<Kind, Vec<&str>> = BTreeMap::new();
        for finding in &self.findings {
            kinds.entry(finding.kind).or_default().push(&finding.what);
        }
        for (kind, findings) in kinds {
            writeln!(f, "{kind:?}: {}", findings.len())?;
            findings.iter().take(SHOWN).try_for_each(|what| writeln!(f, "  {what}"))?;
            if findings.len() > SHOWN {
                writeln!(f, "  and {} more", findings.len() - SHOWN)?;
            }
        }
        Ok(())
    }
}

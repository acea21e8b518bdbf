//! Judges a history by the promises of the design.
//!
//! - [`check`] reads the events once, in order, into an [`Index`](index::Index), then walks the log,
//!   the messages and the devices once each: linear but for a few binary searches.
//! - The outcome of a message is the last one that its sender heard: a refused attempt may be followed
//!   by a stored one under the same id.
//! - A finding names the message, the seq and the device, so that the file can be searched for it.

mod index;
mod report;

use crate::history::{Event, MessageId, RowKind, Truth};
use index::{Device, Index, Log, Outcome, Sent};
pub use report::{Finding, Kind, Numbers, Report};

/// Judges what happened. An empty list of findings is a pass.
pub fn check(events: &[Event], truth: &Truth) -> Report {
    let index = Index::new(events, truth);
    let mut report = Report::new(index.numbers());
    for (conversation, log) in &index.logs {
        holes(conversation, log, &mut report);
        copies_and_order(conversation, log, &mut report);
    }
    for ((conversation, id), sent) in &index.sent {
        outcome(conversation, id, sent, index.logs.get(conversation), &mut report);
    }
    for ((conversation, name), device) in &index.devices {
        let view = View { conversation, name, device, index: &index };
        view.order(&mut report);
        view.contents(&mut report);
        view.complete(&mut report);
        view.acks(&mut report);
        view.in_time(truth.deadline_us, &mut report);
    }
    report.sort();
    report
}

fn holes(conversation: &str, log: &Log, report: &mut Report) {
    let mut expected = 1;
    for &seq in log.rows.keys() {
        if seq != expected {
            report.add(Kind::Hole, format!("{conversation}: seq {expected} is missing before {seq}"));
        }
        expected = seq + 1;
    }
    for seq in &log.reused {
        report.add(Kind::Hole, format!("{conversation}: seq {seq} was given twice"));
    }
}

/// One id at two places; counters of a sender that do not rise with the seq.
fn copies_and_order(conversation: &str, log: &Log, report: &mut Report) {
    let mut last: std::collections::HashMap<&str, (u64, u64)> = Default::default();
    for (seq, row) in &log.rows {
        let RowKind::Message(id) = row else { continue };
        let places = log.places.get(id).map_or(&[][..], Vec::as_slice);
        if places.len() > 1 && places.first() == Some(seq) {
            report.add(Kind::DoubledInLog, format!("{conversation}: {id} is at seqs {places:?}"));
        }
        if let Some((counter, before)) = last.insert(&id.device, (id.counter, *seq))
            && counter > id.counter
        {
            let what = format!("{conversation}: {id} at seq {seq} comes after #{counter} at seq {before}");
            report.add(Kind::SenderOrder, what);
        }
    }
}

/// What the sender was told against what the log holds.
fn outcome(conversation: &str, id: &MessageId, sent: &Sent, log: Option<&Log>, report: &mut Report) {
    let place = log.and_then(|log| log.places.get(id)).and_then(|places| places.first()).copied();
    let about = |text: String| format!("{conversation}: {id} {text}");
    match (&sent.outcome, place) {
        (Outcome::Ok(seq), None) => {
            report.add(Kind::Lost, about(format!("was acked at seq {seq} and is not in the log")))
        }
        (Outcome::Ok(seq), Some(place)) if *seq != place => {
            report.add(Kind::WrongSeq, about(format!("was acked at seq {seq} and is at {place}")));
        }
        (Outcome::Fail(code), Some(place)) => {
            report.add(Kind::AbortedRead, about(format!("was refused ({code}) and is at seq {place}")));
        }
        _ => {}
    }
    for (first, other) in &sent.other_seqs {
        report.add(Kind::WrongSeq, about(format!("was acked at seq {first}, and again at {other}")));
    }
    if let Some((floor, place)) = sent.floor.zip(place).filter(|(floor, place)| place <= floor) {
        let what = format!("is at seq {place}, but was sent after seq {floor} had been acked");
        report.add(Kind::RealTime, about(what));
    }
}

/// One device's view of one conversation.
struct View<'a> {
    conversation: &'a str,
    name: &'a str,
    device: &'a Device,
    index: &'a Index,
}

impl View<'_> {
    fn order(&self, report: &mut Report) {
        for pair in self.device.shown.windows(2) {
            if pair[1].seq < pair[0].seq {
                self.add(
                    report,
                    Kind::OutOfOrder,
                    &format!("showed seq {} after seq {}", pair[1].seq, pair[0].seq),
                );
            }
        }
        for (id, times) in self.device.times.iter().filter(|(_, times)| **times > 1) {
            self.add(report, Kind::ShownTwice, &format!("showed {id} {times} times"));
        }
    }

    /// Each shown message against the log, its sender and the membership.
    fn contents(&self, report: &mut Report) {
        let log = self.index.logs.get(self.conversation);
        for shown in &self.device.shown {
            let (id, seq) = (&shown.id, shown.seq);
            match log.and_then(|log| log.rows.get(&seq)) {
                Some(RowKind::Message(stored)) if stored == id => {}
                Some(RowKind::Message(stored)) => {
                    self.add(
                        report,
                        Kind::WrongSeq,
                        &format!("showed {id} at seq {seq}, where the log has {stored}"),
                    );
                }
                Some(RowKind::Other) => {
                    self.add(report, Kind::WrongSeq, &format!("showed {id} at seq {seq}, no message"))
                }
                None => self.add(
                    report,
                    Kind::Lost,
                    &format!("showed {id} at seq {seq}, which the log does not have"),
                ),
            }
            match self.index.sent.get(&(self.conversation.to_owned(), id.clone())) {
                None => self.add(report, Kind::FromNowhere, &format!("showed {id}, which nobody sent")),
                Some(sent) if sent.body != shown.body => {
                    self.add(
                        report,
                        Kind::Altered,
                        &format!("showed {id} as {:?}, sent as {:?}", shown.body, sent.body),
                    );
                }
                Some(_) => {}
            }
        }
        for seq in self.device.seen.iter().filter(|seq| !self.device.may_read(**seq)) {
            self.add(report, Kind::Leak, &format!("got seq {seq}, which it may not read"));
        }
    }

    /// Every message that the device may read was shown, or its loss was recorded.
    fn complete(&self, report: &mut Report) {
        let Some(log) = self.index.logs.get(self.conversation) else { return };
        for (seq, row) in &log.rows {
            let RowKind::Message(id) = row else { continue };
            let wanted = self.device.may_read(*seq) && id.device != self.name;
            if wanted && !self.device.times.contains_key(id) && !self.device.quarantined.contains(seq) {
                self.add(report, Kind::Lost, &format!("never showed {id} at seq {seq}"));
            }
        }
    }

    fn acks(&self, report: &mut Report) {
        for early in &self.device.early_acks {
            let what = format!("acked seq {} before it had shown seq {}", early.acked, early.missing);
            self.add(report, Kind::CursorAhead, &what);
        }
    }

    fn in_time(&self, deadline_us: Option<u64>, report: &mut Report) {
        let Some(deadline_us) = deadline_us else { return };
        for late in self.device.delays.iter().filter(|late| late.delay_us > deadline_us) {
            let what = format!("showed seq {} after {} ms", late.seq, late.delay_us / 1_000);
            self.add(report, Kind::Stale, &what);
        }
    }

    fn add(&self, report: &mut Report, kind: Kind, what: &str) {
        report.add(kind, format!("{}: {} {what}", self.conversation, self.name));
    }
}

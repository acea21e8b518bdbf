//! A history put in order: by log, by message and by device.

use super::report::Numbers;
use crate::history::{Event, Member, MessageId, Row, RowKind, Truth, What};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Everything that the checks look up.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) logs: BTreeMap<String, Log>,
    /// By conversation and id.
    pub(super) sent: BTreeMap<(String, MessageId), Sent>,
    /// By conversation and name; members that did nothing as well.
    pub(super) devices: BTreeMap<(String, String), Device>,
    numbers: Numbers,
    clock: Clock,
}

/// A conversation's log at the end.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) rows: BTreeMap<u64, RowKind>,
    /// Where each id is.
    pub(super) places: HashMap<MessageId, Vec<u64>>,
    pub(super) reused: Vec<u64>,
    /// The highest seq that was acked so far, while events are read.
    acked: u64,
}

/// A message from its sender's side.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) body: String,
    pub(super) outcome: Outcome,
    /// Acks that named another seq than the first.
    pub(super) other_seqs: Vec<(u64, u64)>,
    /// The highest seq acked to anybody before the first send.
    pub(super) floor: Option<u64>,
    first_ok: Option<(u64, u64)>,
}

/// What the sender heard last.
#[derive(Debug, Default)]
pub(super) enum Outcome {
    Ok(u64),
    Fail(String),
    #[default]
    Unknown,
}

/// A device's view of one conversation.
#[derive(Debug, Default)]
pub(super) struct Device {
    range: Option<(u64, Option<u64>)>,
    pub(super) shown: Vec<Shown>,
    /// How often each id was shown.
    pub(super) times: HashMap<MessageId, usize>,
    /// Every seq that came near the device.
    pub(super) seen: BTreeSet<u64>,
    pub(super) quarantined: BTreeSet<u64>,
    pub(super) early_acks: Vec<EarlyAck>,
    pub(super) delays: Vec<Delay>,
    received: HashSet<u64>,
    /// Seqs that it must show and has not, while events are read.
    due: BTreeSet<u64>,
}

#[derive(Debug)]
pub(super) struct Shown {
    pub(super) seq: u64,
    pub(super) id: MessageId,
    pub(super) body: String,
}

#[derive(Debug)]
pub(super) struct EarlyAck {
    pub(super) acked: u64,
    pub(super) missing: u64,
}

#[derive(Debug)]
pub(super) struct Delay {
    pub(super) seq: u64,
    pub(super) delay_us: u64,
}

/// Since when a message can be expected at a device.
#[derive(Debug, Default)]
struct Clock {
    faulty: bool,
    healed_us: u64,
    online_us: HashMap<String, u64>,
    last_ok_us: Option<u64>,
}

impl Device {
    /// Whether the membership includes a seq.
    pub(super) fn may_read(&self, seq: u64) -> bool {
        self.range.is_some_and(|(after, until)| seq > after && until.is_none_or(|until| seq <= until))
    }
}

impl Index {
    pub(super) fn new(events: &[Event], truth: &Truth) -> Self {
        let mut index = Self::default();
        truth.log.iter().for_each(|row| index.row(row));
        truth.members.iter().for_each(|member| index.member(member));
        events.iter().for_each(|event| index.event(event));
        index
    }

    pub(super) fn numbers(&self) -> Numbers {
        self.numbers.clone()
    }

    fn row(&mut self, row: &Row) {
        let log = self.logs.entry(row.conversation.clone()).or_default();
        if let RowKind::Message(id) = &row.kind {
            log.places.entry(id.clone()).or_default().push(row.seq);
        }
        if log.rows.insert(row.seq, row.kind.clone()).is_some() {
            log.reused.push(row.seq);
        }
    }

    fn member(&mut self, member: &Member) {
        let mut device = Device { range: Some((member.after, member.until)), ..Device::default() };
        let rows = self.logs.get(&member.conversation).into_iter().flat_map(|log| &log.rows);
        let messages =
            rows.filter(|(_, row)| matches!(row, RowKind::Message(id) if id.device != member.device));
        device.due = messages.map(|(seq, _)| *seq).filter(|seq| device.may_read(*seq)).collect();
        self.devices.insert((member.conversation.clone(), member.device.clone()), device);
    }

    fn event(&mut self, event: &Event) {
        let at_us = event.at_us;
        let name = &event.device;
        match &event.what {
            What::Send { conversation, counter, body } => self.send(conversation, name, *counter, body),
            What::Ok { conversation, counter, seq } => self.ok(at_us, conversation, name, *counter, *seq),
            What::Fail { conversation, counter, code } => {
                self.numbers.failed += 1;
                self.sent(conversation, name, *counter).outcome = Outcome::Fail(code.clone());
            }
            What::Unknown { conversation, counter } => {
                self.numbers.unknown += 1;
                let sent = self.sent(conversation, name, *counter);
                // What was certain before stays certain.
                if matches!(sent.outcome, Outcome::Fail(_)) {
                    sent.outcome = Outcome::Unknown;
                }
            }
            What::Recv { conversation, seq, .. } => {
                let device = self.device(conversation, name);
                device.seen.insert(*seq);
                let again = !device.received.insert(*seq);
                self.numbers.received_again += usize::from(again);
            }
            What::Shown { conversation, seq, id, body } => self.shown(event, conversation, *seq, id, body),
            What::Quarantined { conversation, seq, .. } => {
                self.numbers.quarantined += 1;
                let device = self.device(conversation, name);
                device.quarantined.insert(*seq);
                device.due.remove(seq);
            }
            What::Ack { conversation, seq } => {
                let device = self.device(conversation, name);
                if let Some(&missing) = device.due.first().filter(|missing| **missing <= *seq) {
                    device.early_acks.push(EarlyAck { acked: *seq, missing });
                }
            }
            What::Online => drop(self.clock.online_us.insert(name.clone(), at_us)),
            What::Fault { .. } => self.clock.faulty = true,
            What::Healed => (self.clock.faulty, self.clock.healed_us) = (false, at_us),
        }
    }

    fn send(&mut self, conversation: &str, name: &str, counter: u64, body: &str) {
        let floor = self.logs.get(conversation).map(|log| log.acked);
        let key = (conversation.to_owned(), MessageId { device: name.to_owned(), counter });
        self.numbers.attempts += 1;
        self.sent.entry(key).or_insert_with(|| {
            self.numbers.sent += 1;
            Sent { body: body.to_owned(), floor, ..Sent::default() }
        });
    }

    fn ok(&mut self, at_us: u64, conversation: &str, name: &str, counter: u64, seq: u64) {
        self.numbers.acked += 1;
        let gap_us = at_us - self.clock.last_ok_us.replace(at_us).unwrap_or(at_us);
        self.numbers.longest_without_ok_us = self.numbers.longest_without_ok_us.max(gap_us);
        if let Some(log) = self.logs.get_mut(conversation) {
            log.acked = log.acked.max(seq);
        }
        let sent = self.sent(conversation, name, counter);
        match sent.first_ok {
            None => sent.first_ok = Some((seq, at_us)),
            Some((first, _)) if first != seq => sent.other_seqs.push((first, seq)),
            Some(_) => {}
        }
        sent.outcome = Outcome::Ok(seq);
    }

    fn shown(&mut self, event: &Event, conversation: &str, seq: u64, id: &MessageId, body: &str) {
        self.numbers.shown += 1;
        let stored_us = self.sent.get(&(conversation.to_owned(), id.clone())).and_then(|sent| sent.first_ok);
        let online_us = self.clock.online_us.get(&event.device).copied().unwrap_or(0);
        let since_us = stored_us.map(|(_, at_us)| at_us.max(online_us).max(self.clock.healed_us));
        let delay_us = since_us.filter(|_| !self.clock.faulty).map(|since| event.at_us.saturating_sub(since));
        self.numbers.slowest_us = self.numbers.slowest_us.max(delay_us.unwrap_or(0));

        let device = self.device(conversation, &event.device);
        device.delays.extend(delay_us.map(|delay_us| Delay { seq, delay_us }));
        device.shown.push(Shown { seq, id: id.clone(), body: body.to_owned() });
        *device.times.entry(id.clone()).or_default() += 1;
        device.seen.insert(seq);
        device.due.remove(&seq);
    }

    fn sent(&mut self, conversation: &str, name: &str, counter: u64) -> &mut Sent {
        let id = MessageId { device: name.to_owned(), counter };
        self.sent.entry((conversation.to_owned(), id)).or_default()
    }

    fn device(&mut self, conversation: &str, name: &str) -> &mut Device {
        self.devices.entry((conversation.to_owned(), name.to_owned())).or_default()
    }
}

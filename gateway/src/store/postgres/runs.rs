//! A batch in the shape of `append_runs` (migration 12): conversations, in them the runs of each sender,
//! in those the envelopes, all as arrays end to end. The database then has nothing to sort or to group.

use super::super::{
    Append, Outcome, Stored,
    rows::{Columns, Fallible, Fault, stored},
};
use fastchat_protocol::Seq;
use sqlx::{PgConnection, postgres::PgRow};
use std::collections::HashMap;

/// The outcomes of a batch that is plain throughout; `None` if it is not, and nothing was stored.
pub(super) async fn append(c: &mut PgConnection, batch: &[Append]) -> Fallible<Option<Vec<Outcome>>> {
    const SQL: &str =
        "SELECT * FROM append_runs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
    let Some(runs) = Runs::of(batch) else { return Ok(None) };
    let query = sqlx::query(SQL).bind(&runs.conversations).bind(&runs.counts).bind(&runs.begins);
    let query = query.bind(&runs.devices).bind(&runs.firsts).bind(&runs.lasts).bind(&runs.generations);
    let query = query.bind(&runs.oldest).bind(&runs.newest).bind(&runs.places);
    let query = query.bind(&runs.steps).bind(&runs.starts).bind(&runs.lengths).bind(&runs.envelopes);
    let rows = query.fetch_all(c).await?;
    // Fewer: what they say was undone.
    if rows.len() < runs.firsts.len() { Ok(None) } else { runs.outcomes(&rows).map(Some) }
}

/// What `append_runs` takes, where each array is explained.
#[derive(Debug, Default, PartialEq, Eq)]
struct Runs {
    conversations: Vec<u8>,
    counts: Vec<i32>,
    begins: Vec<i32>,
    devices: Vec<u8>,
    firsts: Vec<i64>,
    lasts: Vec<i64>,
    generations: Vec<i64>,
    oldest: Vec<i64>,
    newest: Vec<i64>,
    places: Vec<i32>,
    steps: Vec<i32>,
    starts: Vec<i32>,
    lengths: Vec<i32>,
    envelopes: Vec<u8>,
    /// Places in the batch, in the order of `steps`.
    order: Vec<usize>,
}

impl Runs {
    /// `None` unless each sender's counters follow each other, within one generation, and none is a first
    /// message: those are never the plain case.
    fn of(batch: &[Append]) -> Option<Self> {
        let mut steps = HashMap::new();
        let mut step = |item: &Append| {
            let step = steps.entry(item.conversation).or_insert(0);
            *step += 1;
            *step
        };
        let steps: Vec<i32> = batch.iter().map(&mut step).collect();
        let mut order: Vec<usize> = (0..batch.len()).collect();
        // Stable: a sender's envelopes stay as they came.
        order.sort_by_key(|&place| (batch[place].conversation, batch[place].device));
        let mut runs = Self::default();
        let mut last = None;
        for &place in &order {
            let item = &batch[place];
            runs.place(item, last)?;
            runs.steps.push(steps[place]);
            runs.starts.push(number(runs.envelopes.len() + 1)?);
            runs.lengths.push(number(item.envelope.len())?);
            runs.envelopes.extend_from_slice(&item.envelope);
            last = Some(item);
        }
        runs.begins.push(number(runs.firsts.len() + 1)?);
        runs.order = order;
        Some(runs)
    }

    /// Continues the run of `last`, or begins one.
    fn place(&mut self, item: &Append, last: Option<&Append>) -> Option<()> {
        let (counter, epoch) = (stored(item.counter.0), stored(item.epoch.number));
        let generation = i64::from(item.epoch.generation);
        let last = last.filter(|last| last.conversation == item.conversation);
        if last.is_none() {
            self.conversations.extend_from_slice(item.conversation.as_bytes());
            self.counts.push(0);
            self.begins.push(number(self.firsts.len() + 1)?);
        }
        *self.counts.last_mut()? += 1;
        if last.is_some_and(|last| last.device == item.device) {
            let run = self.lasts.len() - 1;
            let follows =
                self.lasts[run].checked_add(1) == Some(counter) && self.generations[run] == generation;
            self.lasts[run] = counter;
            self.oldest[run] = self.oldest[run].min(epoch);
            self.newest[run] = self.newest[run].max(epoch);
            return follows.then_some(());
        }
        self.devices.extend_from_slice(item.device.as_bytes());
        self.firsts.push(counter);
        self.lasts.push(counter);
        self.generations.push(generation);
        self.oldest.push(epoch);
        self.newest.push(epoch);
        self.places.push(number(self.starts.len())?);
        (counter > 1).then_some(())
    }

    /// One for each envelope, in the order of the batch.
    fn outcomes(&self, rows: &[PgRow]) -> Fallible<Vec<Outcome>> {
        let mut outcomes = vec![None; self.order.len()];
        for row in rows {
            let run = row.small::<usize>("run")?;
            let from = run
                .checked_sub(1)
                .and_then(|run| self.places.get(run))
                .and_then(|&n| usize::try_from(n).ok());
            let from = from.ok_or_else(|| Fault::corrupt("append_runs.run", run))?;
            let to = self.places.get(run).and_then(|&n| usize::try_from(n).ok()).unwrap_or(self.order.len());
            let (head, at_ms) = (row.number("head")?, row.number("at_ms")?);
            let (audience, revision) = (row.audience()?, row.number("revision")?);
            for (&place, &step) in self.order[from..to].iter().zip(&self.steps[from..to]) {
                let seq = Seq(head + u64::from(step.unsigned_abs()));
                outcomes[place] = Some(Outcome::Stored(Stored { seq, at_ms, audience, revision }));
            }
        }
        let whole: Option<Vec<Outcome>> = outcomes.into_iter().collect();
        whole.ok_or_else(|| Fault::corrupt("append_runs.run", "one is missing"))
    }
}

fn number(count: usize) -> Option<i32> {
    i32::try_from(count).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use fastchat_protocol::{ConversationId, Counter, DeviceId, Epoch};

    fn item(conversation: u8, device: u8, counter: u64, number: u64) -> Append {
        Append {
            conversation: ConversationId::new([conversation; 16]),
            device: DeviceId::new([device; 16]),
            counter: Counter(counter),
            epoch: Epoch { generation: 0, number },
            envelope: Bytes::from(format!("{conversation}{device}{counter}")),
        }
    }

    #[test]
    fn senders_become_runs_and_keep_the_order_of_arrival() {
        let batch = [item(2, 7, 5, 1), item(1, 9, 2, 1), item(2, 8, 3, 3), item(2, 7, 6, 2)];
        let runs = Runs::of(&batch).expect("it is plain");
        assert_eq!((&runs.counts[..], &runs.begins[..]), (&[1, 3][..], &[1, 2, 4][..]));
        assert_eq!(runs.conversations, [[1; 16], [2; 16]].concat());
        assert_eq!(runs.devices, [[9; 16], [7; 16], [8; 16]].concat());
        assert_eq!((&runs.firsts[..], &runs.lasts[..]), (&[2, 5, 3][..], &[2, 6, 3][..]));
        assert_eq!((&runs.oldest[..], &runs.newest[..]), (&[1, 1, 3][..], &[1, 2, 3][..]));
        assert_eq!((&runs.places[..], &runs.order[..]), (&[0, 1, 3][..], &[1, 0, 3, 2][..]));
        assert_eq!((&runs.steps[..], &runs.starts[..]), (&[1, 1, 3, 2][..], &[1, 4, 7, 10][..]));
        assert_eq!((&runs.lengths[..], &runs.envelopes[..]), (&[3; 4][..], &b"192275276283"[..]));
    }

    #[test]
    fn only_the_next_counters_of_those_who_have_written_are_plain() {
        assert_eq!(Runs::of(&[item(1, 1, 1, 1)]), None);
        assert_eq!(Runs::of(&[item(1, 1, 2, 1), item(1, 1, 4, 1)]), None);
        assert_eq!(Runs::of(&[item(1, 1, 3, 1), item(1, 1, 2, 1)]), None);
        assert_eq!(Runs::of(&[item(1, 1, u64::MAX, 1), item(1, 1, u64::MAX, 1)]), None);
        let mut other = item(1, 1, 3, 1);
        other.epoch.generation = 1;
        assert_eq!(Runs::of(&[item(1, 1, 2, 1), other]), None);
    }
}

//! The plain case: the next counters of senders who are known to be allowed ([`senders`](super::senders)), in
//! an epoch that is accepted. One statement, which starts fast: a row changed for each conversation and one
//! inserted for each envelope.
//!
//! It locks by updating. Its snapshot may be older than a lock that it waited for, but it goes only by the
//! rows that it updates, and those Postgres reads again when it has waited. Conversations come in the order
//! of ids, as everybody locks them.

use super::{
    super::{
        Append, Audience, Stored,
        rows::{Columns, Fallible, Fault, stored},
    },
    senders::{Key, Sender, key},
};
use fastchat_protocol::{ConversationId, Epoch, Seq};
use sqlx::PgConnection;
use std::{
    array,
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

/// How the writer's connections plan: by keys, once. Each of these tables is large some day.
pub(super) const PLANS: [(&str, &str); 4] = [
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// Up to so many envelopes, each of another conversation, have a statement of their own: what arrays cost
/// shows in small batches.
const FEW: usize = 4;

/// A conversation's part of a batch: all of it is stored, or nothing.
#[derive(Debug)]
pub(super) struct Part {
    conversation: ConversationId,
    revision: u64,
    audience: Audience,
    generation: u32,
    /// Epochs of its envelopes, the oldest and the newest.
    oldest: u64,
    newest: u64,
    /// Places in the batch, in the order of arrival.
    pub(super) places: Vec<usize>,
}

/// Splits a batch: parts that may be plain, in the order of ids, and places of all else. Whoever is not
/// known takes the conversation's part along: its envelopes keep their order.
pub(super) fn split(batch: &[Append], known: &HashMap<Key, Sender>) -> (Vec<Part>, Vec<usize>) {
    let mut conversations: BTreeMap<ConversationId, Vec<usize>> = BTreeMap::new();
    for (place, item) in batch.iter().enumerate() {
        conversations.entry(item.conversation).or_default().push(place);
    }
    let (mut parts, mut rest) = (Vec::with_capacity(conversations.len()), Vec::new());
    for (_, places) in conversations {
        match Part::of(batch, known, &places) {
            Some(part) => parts.push(part),
            None => rest.extend(places),
        }
    }
    (parts, rest)
}

impl Part {
    fn of(batch: &[Append], known: &HashMap<Key, Sender>, places: &[usize]) -> Option<Self> {
        let first = &batch[*places.first()?];
        let Sender { revision, audience, .. } = *known.get(&key(first))?;
        let Epoch { generation, number } = first.epoch;
        let conversation = first.conversation;
        let places = places.to_vec();
        let mut part =
            Self { conversation, revision, audience, generation, oldest: number, newest: number, places };
        let mut counted = HashMap::with_capacity(part.places.len());
        for &place in &part.places {
            let item = &batch[place];
            let sender = known.get(&key(item))?;
            let counter = counted.entry(item.device).or_insert(sender.counter.0);
            *counter = counter.checked_add(1).filter(|next| *next == item.counter.0)?;
            if sender.revision != revision || item.epoch.generation != generation {
                return None;
            }
            part.oldest = part.oldest.min(item.epoch.number);
            part.newest = part.newest.max(item.epoch.number);
        }
        Some(part)
    }

    fn stored(&self, step: usize, head: u64, at_ms: u64) -> Stored {
        let seq = Seq(head + step as u64 + 1);
        Stored { seq, at_ms, audience: self.audience, revision: self.revision }
    }
}

/// Stores these parts, or nothing if it fails. Returns what it stored, by place in the batch, and the
/// places of parts that were not plain.
///
/// An error of the log's key says that a counter was used before.
pub(super) async fn append(
    c: &mut PgConnection,
    batch: &[Append],
    parts: &[Part],
) -> Fallible<(Vec<(usize, Stored)>, Vec<usize>)> {
    let heads = match parts.len() <= FEW && parts.iter().all(|part| part.places.len() == 1) {
        true => few(c, batch, parts).await?,
        false => many(c, batch, parts).await?,
    };
    let (mut stored, mut rest) = (Vec::with_capacity(batch.len()), Vec::new());
    for (part, head) in parts.iter().zip(heads) {
        match head {
            Some((head, at_ms)) => {
                let places = part.places.iter().enumerate();
                stored.extend(places.map(|(step, &place)| (place, part.stored(step, head, at_ms))));
            }
            None => rest.extend(&part.places),
        }
    }
    Ok((stored, rest))
}

/// Of each part that was stored the head of before, and when.
type Heads = Vec<Option<(u64, u64)>>;

async fn few(c: &mut PgConnection, batch: &[Append], parts: &[Part]) -> Fallible<Heads> {
    static SQL: LazyLock<Vec<String>> = LazyLock::new(|| (1..=FEW).map(statement).collect());
    let Some(sql) = parts.len().checked_sub(1).and_then(|place| SQL.get(place)) else {
        return Err(Fault::corrupt("append", "no statement for so many"));
    };
    let mut query = sqlx::query(sql.as_str());
    for part in parts {
        let item = &batch[part.places[0]];
        query = query
            .bind(part.conversation.as_bytes().as_slice())
            .bind(stored(part.revision))
            .bind(i64::from(part.generation))
            .bind(stored(part.newest))
            .bind(item.device.as_bytes().as_slice())
            .bind(stored(item.counter.0))
            .bind(item.envelope.as_ref());
    }
    let mut heads = vec![None; parts.len()];
    for row in query.fetch_all(c).await? {
        let conversation: ConversationId = row.id("conversation")?;
        let place = parts.binary_search_by_key(&conversation, |part| part.conversation);
        let place = place.map_err(|_| Fault::corrupt("log.conversation", "another one"))?;
        let head = row.number("seq")?.checked_sub(1);
        heads[place] = Some((head.ok_or_else(|| Fault::corrupt("log.seq", 0))?, row.number("at_ms")?));
    }
    Ok(heads)
}

/// One after the other, as it is written: `UNION ALL` keeps the order.
fn statement(parts: usize) -> String {
    let (mut updates, mut rows) = (Vec::new(), Vec::new());
    for n in 0..parts {
        let [id, revision, generation, epoch, device, counter, envelope] =
            array::from_fn(|at| n * 7 + at + 1);
        updates.push(format!(
            "c{n} AS (UPDATE conversations c SET head = c.head + 1
                      WHERE c.id = ${id} AND c.revision = ${revision} AND c.generation = ${generation}
                        AND ${epoch} BETWEEN greatest(c.epoch - 2, c.fence) AND c.epoch
                      RETURNING c.id, c.head)"
        ));
        rows.push(format!(
            "SELECT c.id, c.head, ${device}::bytea, ${counter}::bigint, 2, ${envelope}::bytea,
                    floor(date_part('epoch', clock_timestamp()) * 1000)::bigint,
                    pg_current_xact_id()::text::bigint
             FROM c{n} c"
        ));
    }
    format!(
        "WITH {} INSERT INTO log (conversation, seq, sender, counter, kind, envelope, at_ms, tx)
         {} RETURNING conversation::bytea, seq, at_ms",
        updates.join(", "),
        rows.join(" UNION ALL ")
    )
}

async fn many(c: &mut PgConnection, batch: &[Append], parts: &[Part]) -> Fallible<Heads> {
    // By conversation: ids end to end, where its envelopes begin (from 1; one more at the end), and what its
    // row must say. By envelope: devices end to end, counters, and where each begins (from 1) and how long it
    // is in all envelopes end to end.
    const SQL: &str = "WITH moved AS (
             UPDATE conversations c SET head = c.head + $2[g.place + 1] - $2[g.place]
             FROM generate_series(1, cardinality($3)) AS g (place)
             WHERE c.id = substring($1 FROM g.place * 16 - 15 FOR 16)
               AND c.revision = $3[g.place] AND c.generation = $4[g.place]
               AND $5[g.place] >= greatest(c.epoch - 2, c.fence) AND $6[g.place] <= c.epoch
             RETURNING g.place, c.id, c.head - $2[g.place + 1] + $2[g.place] AS head,
                       floor(date_part('epoch', clock_timestamp()) * 1000)::bigint AS at_ms
         ), rows_in AS (
             INSERT INTO log (conversation, seq, sender, counter, kind, envelope, at_ms, tx)
             SELECT m.id, m.head + 1 + i.n - $2[m.place], substring($7 FROM i.n * 16 - 15 FOR 16), $8[i.n], 2,
                    substring($11 FROM $9[i.n] FOR $10[i.n]), m.at_ms, pg_current_xact_id()::text::bigint
             FROM moved m, generate_series($2[m.place], $2[m.place + 1] - 1) AS i (n)
         )
         SELECT place::bigint, head, at_ms FROM moved";
    let items = || parts.iter().flat_map(|part| &part.places).map(|&place| &batch[place]);
    let column = |f: fn(&Part) -> i64| parts.iter().map(f).collect::<Vec<_>>();
    let (mut begins, mut starts, mut envelopes) = (vec![number(1)?], Vec::new(), Vec::new());
    for part in parts {
        begins.push(begins.last().copied().unwrap_or(1) + number(part.places.len())?);
    }
    for item in items() {
        starts.push(number(envelopes.len() + 1)?);
        envelopes.extend_from_slice(&item.envelope);
    }
    let lengths: Vec<i32> = items().map(|item| number(item.envelope.len())).collect::<Fallible<_>>()?;
    let query = sqlx::query(SQL)
        .bind(parts.iter().flat_map(|part| *part.conversation.as_bytes()).collect::<Vec<u8>>())
        .bind(begins)
        .bind(column(|part| stored(part.revision)))
        .bind(column(|part| part.generation.into()))
        .bind(column(|part| stored(part.oldest)))
        .bind(column(|part| stored(part.newest)))
        .bind(items().flat_map(|item| *item.device.as_bytes()).collect::<Vec<u8>>())
        .bind(items().map(|item| stored(item.counter.0)).collect::<Vec<_>>())
        .bind(starts)
        .bind(lengths)
        .bind(envelopes);
    let mut heads = vec![None; parts.len()];
    for row in query.fetch_all(c).await? {
        let place: usize = row.small("place")?;
        let part = place.checked_sub(1).and_then(|place| heads.get_mut(place));
        let part = part.ok_or_else(|| Fault::corrupt("conversations.place", place))?;
        *part = Some((row.number("head")?, row.number("at_ms")?));
    }
    Ok(heads)
}

fn number(count: usize) -> Fallible<i32> {
    i32::try_from(count).map_err(|_| Fault::corrupt("log.envelope", "a batch of over 2 GiB"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use fastchat_protocol::{AccountId, Counter, DeviceId};

    fn item(conversation: u8, device: u8, counter: u64, number: u64) -> Append {
        Append {
            conversation: ConversationId::new([conversation; 16]),
            device: DeviceId::new([device; 16]),
            counter: Counter(counter),
            epoch: Epoch { generation: 0, number },
            envelope: Bytes::from_static(b"sealed"),
        }
    }

    /// Everybody has sent two.
    fn known(revisions: &[(u8, u8, u64)]) -> HashMap<Key, Sender> {
        let audience = Audience::Pair(AccountId::new([1; 16]), AccountId::new([2; 16]));
        let sender = |revision| Sender { counter: Counter(2), revision, audience };
        revisions.iter().map(|&(c, d, revision)| (key(&item(c, d, 1, 1)), sender(revision))).collect()
    }

    #[test]
    fn what_follows_is_plain_by_conversations_in_the_order_of_arrival() {
        let batch = [item(2, 7, 3, 4), item(1, 9, 3, 1), item(2, 8, 3, 3), item(2, 7, 4, 5)];
        let (parts, rest) = split(&batch, &known(&[(2, 7, 6), (2, 8, 6), (1, 9, 5)]));
        assert_eq!(rest, [0; 0]);
        let places: Vec<&[usize]> = parts.iter().map(|part| &part.places[..]).collect();
        assert_eq!(places, [&[1][..], &[0, 2, 3]]);
        assert_eq!((parts[1].oldest, parts[1].newest, parts[1].revision), (3, 5, 6));
    }

    #[test]
    fn who_is_not_known_or_does_not_follow_takes_the_conversation_along() {
        let all = known(&[(1, 1, 5), (1, 2, 5), (2, 1, 5)]);
        let beside = item(2, 1, 3, 1);
        let mut generation = item(1, 2, 3, 1);
        generation.epoch.generation = 1;
        for odd in [item(1, 3, 3, 1), item(1, 2, 2, 1), item(1, 2, 4, 1), item(1, 1, 3, 1), generation] {
            let batch = [item(1, 1, 3, 1), beside.clone(), odd];
            let (parts, rest) = split(&batch, &all);
            assert_eq!((parts.len(), &parts[0].places[..], &rest[..]), (1, &[1][..], &[0, 2][..]));
        }
        // Known at different revisions: one of them is old.
        let (parts, rest) = split(&[item(1, 1, 3, 1), item(1, 2, 3, 1)], &known(&[(1, 1, 5), (1, 2, 6)]));
        assert_eq!((parts.len(), &rest[..]), (0, &[0, 1][..]));
    }
}

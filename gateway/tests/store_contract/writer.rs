//! The writer on both stores.

use crate::world::{World, item, stored};
use bytes::Bytes;
use fastchat_gateway::{
    limits::BATCH_WAIT,
    store::{Append, Outcome},
    writer::{Busy, WriteError, Writer},
};
use fastchat_protocol::{ConversationId, Counter};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

type Answer = Result<Outcome, WriteError>;

fn spawn(world: &World) -> Writer {
    Writer::spawn(world.store.clone(), BATCH_WAIT)
}

fn submit(writer: &Writer, append: Append) -> oneshot::Receiver<Answer> {
    let (reply, answer) = oneshot::channel();
    writer.submit(append, Box::new(move |outcome| drop(reply.send(outcome)))).expect("there is room");
    answer
}

pub(crate) async fn batches_form_under_load(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let writer = spawn(&world);
    let one = submit(&writer, item(conversation, alice.devices[0], 1, 1)).await.unwrap();
    assert_eq!(stored(&one.unwrap()), 2);
    let answers: Vec<_> =
        (1..=500).map(|n| submit(&writer, item(conversation, bob.devices[0], n, 1))).collect();
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(stored(&answer.await.unwrap().unwrap()), n as u64 + 3);
    }
    let transactions = world.number("SELECT count(DISTINCT tx) FROM log WHERE kind = 2").await;
    assert!((2..=50).contains(&transactions), "{transactions} transactions for 501 rows");
    writer.close().await;
}

/// A table that refuses one envelope stands for whatever one item may do to its batch.
async fn poison(world: &World) {
    let poison = match world.is_postgres() {
        true => "ALTER TABLE log ADD CONSTRAINT log_poison CHECK (envelope <> 'poison'::bytea)",
        false => {
            "CREATE TRIGGER log_poison BEFORE INSERT ON log WHEN new.envelope = CAST('poison' AS BLOB)
             BEGIN SELECT raise(ABORT, 'poison'); END"
        }
    };
    world.sql(poison).await;
}

pub(crate) async fn a_poisoned_item_refuses_nobody_else(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    poison(&world).await;
    let writer = spawn(&world);
    // The first is on its way while the others queue up.
    let mut answers = vec![submit(&writer, item(conversation, alice.devices[0], 1, 1))];
    for n in 2..=20 {
        let mut append = item(conversation, alice.devices[0], n, 1);
        if n == 11 {
            append.envelope = Bytes::from("poison");
        }
        answers.push(submit(&writer, append));
        answers.push(submit(&writer, item(conversation, bob.devices[0], n - 1, 1)));
    }
    let mut results = Vec::new();
    for answer in answers {
        results.push(answer.await.unwrap());
    }
    let spoiled = results.iter().filter(|result| **result == Err(WriteError::Unavailable)).count();
    let broken = results.iter().filter(|result| **result == Ok(Outcome::OutOfOrder(Counter(11)))).count();
    let kept = results.iter().filter(|result| matches!(result, Ok(Outcome::Stored(_)))).count();
    assert_eq!((spoiled, broken, kept), (1, 9, 29));
    assert_eq!(world.log(bob.devices[0], conversation).await.len(), 30);
}

pub(crate) async fn replies_come_in_order(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let writer = spawn(&world);
    let seqs = Arc::new(Mutex::new(Vec::new()));
    let mut last = Vec::new();
    for n in 1..=200 {
        for device in [alice.devices[0], bob.devices[0]] {
            let seqs = seqs.clone();
            let (reply, answer) = oneshot::channel();
            let note = move |outcome: Answer| {
                seqs.lock().unwrap().push(stored(&outcome.unwrap()));
                reply.send(()).ok();
            };
            writer.submit(item(conversation, device, n, 1), Box::new(note)).unwrap();
            last.push(answer);
        }
        // The same again, while the first is in the queue: it waits for its own batch.
        if n % 50 == 0 {
            let again = submit(&writer, item(conversation, alice.devices[0], n, 1));
            assert!(matches!(again.await.unwrap().unwrap(), Outcome::Duplicate(_)));
        }
    }
    for answer in last {
        answer.await.unwrap();
    }
    assert_eq!(*seqs.lock().unwrap(), (2..=401).collect::<Vec<_>>());
}

pub(crate) async fn a_full_queue_refuses_at_once(world: World) {
    let (alice, _, conversation) = world.couple().await;
    let writer = spawn(&world);
    let (done, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let mut taken = 0;
    // A queue of 1,024 and a batch in flight cannot take this many before the first commit ends.
    let refused = (1..=5000).find(|n| {
        let done = done.clone();
        let reply = Box::new(move |outcome: Answer| drop(done.send(outcome)));
        let result = writer.submit(item(conversation, alice.devices[0], *n, 1), reply);
        taken += usize::from(result.is_ok());
        result == Err(Busy)
    });
    assert_eq!(refused, Some(taken as u64 + 1));
    writer.close().await;
    drop(done);
    let mut stored = 0;
    while let Some(answer) = answers.recv().await {
        assert!(matches!(answer, Ok(Outcome::Stored(_))));
        stored += 1;
    }
    assert_eq!(stored, taken);
}

pub(crate) async fn what_was_acked_is_committed(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let (writer, store, reader) = (spawn(&world), world.store.clone(), bob.devices[0]);
    // Looked up by another connection at the very moment of the reply.
    let checks = Arc::new(Mutex::new(Vec::new()));
    for n in 1..=50 {
        let (checks, store) = (checks.clone(), store.clone());
        let (reply, answer) = oneshot::channel();
        let check = move |outcome: Answer| {
            let seq = stored(&outcome.unwrap());
            let found = tokio::spawn(async move {
                let page = store
                    .fetch(reader, conversation, fastchat_protocol::Seq(seq - 1), 1)
                    .await
                    .unwrap()
                    .unwrap();
                page.rows[0].counter.0
            });
            checks.lock().unwrap().push((n, found));
            reply.send(()).ok();
        };
        writer.submit(item(conversation, alice.devices[0], n, 1), Box::new(check)).unwrap();
        if n % 10 == 0 {
            answer.await.unwrap();
        }
    }
    writer.close().await;
    let checks = std::mem::take(&mut *checks.lock().unwrap());
    assert_eq!(checks.len(), 50);
    for (n, found) in checks {
        assert_eq!(found.await.unwrap(), n);
    }
}

pub(crate) async fn closing_drains(world: World) {
    let (alice, _, conversation) = world.couple().await;
    let writer = spawn(&world);
    let mut answers: Vec<_> =
        (1..=300).map(|n| submit(&writer, item(conversation, alice.devices[0], n, 1))).collect();
    writer.close().await;
    for (n, answer) in answers.iter_mut().enumerate() {
        assert_eq!(stored(&answer.try_recv().unwrap().unwrap()), n as u64 + 2);
    }
    let late = writer.submit(item(ConversationId::new([0; 16]), alice.devices[0], 1, 1), Box::new(|_| ()));
    assert_eq!(late, Err(Busy));
}

//! The checker must be able to fail: one bad history for each promise, and a good one.

use fastchat_tests::{
    checker::{Kind, Report, check},
    history::{Event, Member, MessageId, Row, RowKind, Truth, What, id, read},
};

/// A run of two devices in one conversation, to be spoilt.
#[derive(Clone)]
struct Run {
    events: Vec<Event>,
    truth: Truth,
}

const C: &str = "c";

impl Run {
    /// Ann founds (seq 1) and sends four messages; Bob shows and acks each; Bob answers; all is well.
    fn good() -> Self {
        let members = ["ann", "bob"].map(|device| Member {
            conversation: C.into(),
            device: device.into(),
            after: 1,
            until: None,
        });
        let log = vec![Row { conversation: C.into(), seq: 1, kind: RowKind::Other }];
        let truth = Truth { log, members: members.into(), deadline_us: Some(50) };
        let mut run = Self { events: Vec::new(), truth };
        (1..=4).for_each(|counter| run.message("ann", "bob", counter, counter + 1));
        run.message("bob", "ann", 1, 6);
        run
    }

    fn at(&mut self, device: &str, what: What) -> &mut Self {
        let at_us = self.events.last().map_or(10, |event| event.at_us + 10);
        self.events.push(Event { at_us, device: device.into(), what });
        self
    }

    /// A message as it should go.
    fn message(&mut self, from: &str, to: &str, counter: u64, seq: u64) {
        self.at(from, send(counter)).at(from, ok(counter, seq));
        self.at(to, recv(seq, id(from, counter))).at(to, shown(seq, id(from, counter))).at(to, ack(seq));
        self.stored(seq, id(from, counter));
    }

    fn stored(&mut self, seq: u64, id: MessageId) -> &mut Self {
        self.truth.log.push(Row { conversation: C.into(), seq, kind: RowKind::Message(id) });
        self
    }

    /// Takes away events.
    fn without(&mut self, unwanted: impl Fn(&str, &What) -> bool) -> &mut Self {
        self.events.retain(|event| !unwanted(&event.device, &event.what));
        self
    }

    fn report(&self) -> Report {
        check(&self.events, &self.truth)
    }

    /// Exactly this promise was broken: a checker that cries about everything is no help.
    #[track_caller]
    fn must_be(&self, kind: Kind) -> Report {
        let report = self.report();
        assert!(!report.is_clean() && report.findings.iter().all(|finding| finding.kind == kind), "{report}");
        report
    }
}

fn body(counter: u64) -> String {
    format!("message {counter}")
}

fn send(counter: u64) -> What {
    What::Send { conversation: C.into(), counter, body: body(counter) }
}

fn ok(counter: u64, seq: u64) -> What {
    What::Ok { conversation: C.into(), counter, seq }
}

fn fail(counter: u64) -> What {
    What::Fail { conversation: C.into(), counter, code: "stale_epoch".into() }
}

fn unknown(counter: u64) -> What {
    What::Unknown { conversation: C.into(), counter }
}

fn recv(seq: u64, id: MessageId) -> What {
    What::Recv { conversation: C.into(), seq, id }
}

fn shown(seq: u64, id: MessageId) -> What {
    let body = body(id.counter);
    What::Shown { conversation: C.into(), seq, id, body }
}

fn ack(seq: u64) -> What {
    What::Ack { conversation: C.into(), seq }
}

#[test]
fn a_good_run_passes() {
    let report = Run::good().report();
    report.assert_clean();
    assert_eq!((report.numbers.sent, report.numbers.acked, report.numbers.shown), (5, 5, 5));
    assert!(report.to_string().contains("every promise held"), "{report}");
}

#[test]
fn what_is_allowed_passes() {
    let mut run = Run::good();
    // Unknown, retried, stored under the same id; refused, sealed again, stored; received twice;
    // unknown and never stored; one that could not be opened and was recorded.
    run.at("ann", send(5))
        .at("ann", unknown(5))
        .at("ann", send(5))
        .at("ann", ok(5, 7))
        .stored(7, id("ann", 5));
    run.at("bob", recv(7, id("ann", 5))).at("bob", recv(7, id("ann", 5))).at("bob", shown(7, id("ann", 5)));
    run.at("ann", send(6)).at("ann", fail(6)).at("ann", send(6)).at("ann", ok(6, 8)).stored(8, id("ann", 6));
    run.at("bob", What::Quarantined { conversation: C.into(), seq: 8, why: "does not open".into() })
        .at("bob", ack(8));
    run.at("ann", send(7)).at("ann", unknown(7));
    let report = run.report();
    report.assert_clean();
    assert_eq!(
        (report.numbers.received_again, report.numbers.quarantined, report.numbers.unknown),
        (1, 1, 2)
    );
}

#[test]
#[should_panic(expected = "an empty run proves nothing")]
fn an_empty_run_does_not_pass() {
    check(&[], &Truth::default()).assert_clean();
}

#[test]
fn an_acked_message_that_the_log_lost() {
    let mut run = Run::good();
    run.at("ann", send(5)).at("ann", ok(5, 7));
    let report = run.must_be(Kind::Lost);
    assert!(report.findings[0].what.contains("ann#5"), "{report}");
}

#[test]
fn the_last_message_that_a_device_never_showed() {
    let mut run = Run::good();
    run.at("ann", send(5)).at("ann", ok(5, 7)).stored(7, id("ann", 5));
    assert!(run.must_be(Kind::Lost).to_string().contains("bob never showed ann#5"));
}

#[test]
fn a_member_that_was_away_all_the_time() {
    let mut run = Run::good();
    run.truth.members.push(Member { conversation: C.into(), device: "cid".into(), after: 5, until: None });
    assert_eq!(run.must_be(Kind::Lost).findings.len(), 1, "only what it may read");
}

#[test]
fn a_retry_that_was_stored_again() {
    let mut run = Run::good();
    run.at("bob", recv(7, id("bob", 1))).stored(7, id("bob", 1));
    // Ann shows it only once; the log alone is wrong.
    run.must_be(Kind::DoubledInLog);
}

#[test]
fn a_message_shown_twice() {
    let mut run = Run::good();
    run.at("ann", shown(6, id("bob", 1)));
    run.must_be(Kind::ShownTwice);
}

#[test]
fn a_hole_in_the_log() {
    let mut run = Run::good();
    run.message("ann", "bob", 5, 8);
    run.must_be(Kind::Hole);
}

#[test]
fn an_ack_that_names_another_seq() {
    let mut run = Run::good();
    run.at("ann", send(5)).at("ann", ok(5, 9)).at("bob", shown(7, id("ann", 5))).stored(7, id("ann", 5));
    run.must_be(Kind::WrongSeq);
    let mut run = Run::good();
    run.at("ann", ok(4, 6));
    run.must_be(Kind::WrongSeq);
}

#[test]
fn a_device_that_sees_another_message_at_a_seq() {
    let mut run = Run::good();
    run.at("ann", send(5)).at("ann", send(6)).stored(7, id("ann", 5)).stored(8, id("ann", 6));
    run.at("bob", shown(7, id("ann", 6))).at("bob", shown(8, id("ann", 5)));
    run.must_be(Kind::WrongSeq);
}

#[test]
fn a_senders_messages_in_another_order() {
    let mut run = Run::good();
    run.at("ann", send(5)).at("ann", send(6)).stored(7, id("ann", 6)).stored(8, id("ann", 5));
    run.at("bob", shown(7, id("ann", 6))).at("bob", shown(8, id("ann", 5)));
    run.must_be(Kind::SenderOrder);
}

#[test]
fn a_device_that_shows_out_of_order() {
    let mut run = Run::good();
    run.at("ann", send(5)).at("ann", send(6)).stored(7, id("ann", 5)).stored(8, id("ann", 6));
    run.at("bob", shown(8, id("ann", 6))).at("bob", shown(7, id("ann", 5)));
    run.must_be(Kind::OutOfOrder);
}

#[test]
fn a_message_stored_before_one_that_was_acked_earlier() {
    let mut run = Run::good();
    // Bob's answer (acked at 8) was there before Ann began to send what got 7.
    run.at("bob", send(2)).at("bob", ok(2, 8)).at("ann", send(5)).at("ann", ok(5, 7));
    run.stored(7, id("ann", 5)).stored(8, id("bob", 2));
    run.at("bob", shown(7, id("ann", 5))).at("ann", shown(8, id("bob", 2)));
    run.must_be(Kind::RealTime);
}

#[test]
fn a_refused_message_that_appears() {
    let mut run = Run::good();
    run.at("ann", send(5)).at("ann", fail(5)).at("bob", shown(7, id("ann", 5))).stored(7, id("ann", 5));
    run.must_be(Kind::AbortedRead);
}

#[test]
fn an_ack_before_its_message_is_shown() {
    let mut run = Run::good();
    run.at("ann", send(5)).stored(7, id("ann", 5)).at("bob", ack(7)).at("bob", shown(7, id("ann", 5)));
    run.must_be(Kind::CursorAhead);
}

#[test]
fn a_removed_device_that_still_receives() {
    let mut run = Run::good();
    run.truth.members[1].until = Some(5);
    run.at("ann", send(5)).stored(7, id("ann", 5)).at("bob", recv(7, id("ann", 5)));
    run.must_be(Kind::Leak);
    let mut run = Run::good();
    run.at("eve", recv(3, id("ann", 2)));
    run.must_be(Kind::Leak);
}

#[test]
fn a_message_that_was_altered_or_never_sent() {
    let mut run = Run::good();
    run.at("ann", send(5)).stored(7, id("ann", 5));
    run.at("bob", What::Shown { conversation: C.into(), seq: 7, id: id("ann", 5), body: "other".into() });
    run.must_be(Kind::Altered);
    let mut run = Run::good();
    run.stored(7, id("ann", 5)).at("bob", shown(7, id("ann", 5)));
    run.must_be(Kind::FromNowhere);
}

#[test]
fn a_message_that_came_too_late() {
    let mut run = Run::good();
    let last =
        run.without(|device, what| device == "ann" && matches!(what, What::Shown { .. } | What::Ack { .. }));
    last.events.last_mut().expect("not empty").at_us += 100;
    last.at("ann", shown(6, id("bob", 1)));
    run.must_be(Kind::Stale);
}

#[test]
fn lateness_counts_from_the_end_of_the_faults() {
    let wait = |run: &mut Run| run.events.last_mut().expect("not empty").at_us += 100;
    let mut run = Run::good();
    run.at("run", What::Fault { name: "cut".into() })
        .at("ann", send(5))
        .at("ann", ok(5, 7))
        .stored(7, id("ann", 5));
    wait(&mut run);
    let mut good = run.clone();
    good.at("run", What::Healed).at("bob", shown(7, id("ann", 5))).report().assert_clean();
    run.at("run", What::Healed);
    wait(&mut run);
    let mut late = run.clone();
    late.at("bob", What::Online).at("bob", shown(7, id("ann", 5))).report().assert_clean();
    // The time of `Healed` itself was moved by `wait`: go past it.
    run.at("ann", unknown(9));
    wait(&mut run);
    run.at("bob", shown(7, id("ann", 5)));
    run.must_be(Kind::Stale);
}

#[test]
fn a_history_survives_its_file() {
    let history = fastchat_tests::history::History::new();
    let pen = history.recorder("ann");
    pen.send(C, 1, "hello\n\"there\"");
    pen.ok(C, 1, 2);
    pen.fail(C, 2, "stale_epoch");
    pen.unknown(C, 3);
    pen.recv(C, 2, id("bob", 1));
    pen.shown(C, 2, id("bob", 1), "x");
    pen.ack(C, 2);
    pen.online();
    history.fault("cut");
    history.healed();
    let file = tempfile::NamedTempFile::new().expect("a file");
    history.write(file.path()).expect("written");
    assert_eq!(read(file.path()).expect("read"), history.events());
}

#[test]
fn a_long_history_is_judged_quickly() {
    let mut run = Run::good();
    (0..50_000).for_each(|index| run.message("ann", "bob", index + 5, index + 7));
    let begin = std::time::Instant::now();
    run.report().assert_clean();
    assert!(begin.elapsed() < std::time::Duration::from_secs(10), "{:?}", begin.elapsed());
}

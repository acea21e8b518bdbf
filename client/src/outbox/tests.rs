use super::*;

fn lane(last: u64, stages: &[Stage]) -> Lane {
    // What is on its way was offered as number `position`.
    let slot = |(at, stage): (usize, &Stage)| Slot {
        position: at as i64 + 1,
        stage: *stage,
        attempt: at as u64 + 1,
    };
    let mut lane = Lane::new(Counter(last), stages.iter().enumerate().map(slot));
    lane.attempts = stages.len() as u64;
    lane
}

fn stages(lane: &Lane) -> Vec<Stage> {
    lane.slots.iter().map(|slot| slot.stage).collect()
}

fn refusal(code: Code, expected: Option<u64>) -> Refusal {
    Refusal { expected: expected.map(Counter), ..Refusal::new(code, "") }
}

use Stage::{Bounced, Draft, InFlight, Sealed, Stale};

const fn c(n: u64) -> Counter {
    Counter(n)
}

#[test]
fn what_goes_out_next() {
    let cases: &[(&str, u64, &[Stage], Option<Action>)] = &[
        ("nothing", 0, &[], None),
        ("a draft is sealed under the next counter", 4, &[Draft], Some(Action::Seal(1, c(5)))),
        ("a sealed one goes out as it is", 5, &[Sealed(c(5)), Draft], Some(Action::Offer(1, c(5)))),
        ("behind what is on its way", 5, &[InFlight(c(5)), Draft], Some(Action::Seal(2, c(6)))),
        ("a stale one waits for answers to old bytes", 6, &[Stale(c(5)), InFlight(c(6))], None),
        ("and is sealed when they are there", 6, &[Stale(c(5)), Stale(c(6))], Some(Action::Seal(1, c(5)))),
        ("a bounced one waits for the one before", 6, &[InFlight(c(5)), Bounced(c(6))], None),
        ("and then goes out as it is", 6, &[Bounced(c(6))], Some(Action::Offer(1, c(6)))),
    ];
    for (what, last, slots, want) in cases {
        assert_eq!(lane(*last, slots).next(), *want, "{what}");
    }
    let mut held = lane(1, &[Draft]);
    held.sealing_held = true;
    assert_eq!(held.next(), None);
    let full: Vec<Stage> = (1..=PIPELINE as u64).map(|n| InFlight(c(n))).chain([Draft]).collect();
    assert_eq!(lane(PIPELINE as u64, &full).next(), None);
}

#[test]
fn what_a_refusal_means() {
    let on_its_way = [InFlight(c(5)), InFlight(c(6)), Draft];
    let cases: Vec<(Refusal, Verdict, u64, Vec<Stage>)> = vec![
        (refusal(Code::StaleEpoch, None), Verdict::CatchUp, 6, vec![Stale(c(5)), InFlight(c(6)), Draft]),
        (refusal(Code::OutOfOrder, Some(4)), Verdict::Settled, 5, vec![Stale(c(4)), Stale(c(5)), Draft]),
        (refusal(Code::OutOfOrder, Some(7)), Verdict::RolledBack, 6, vec![Draft, InFlight(c(6)), Draft]),
        (refusal(Code::Conflict, None), Verdict::RolledBack, 6, vec![Draft, InFlight(c(6)), Draft]),
        (refusal(Code::DuplicateExpired, None), Verdict::Expired, 6, vec![InFlight(c(6)), Draft]),
    ];
    for (refusal, verdict, last, want) in cases {
        let mut lane = lane(6, &on_its_way);
        let code = refusal.code;
        assert_eq!(lane.on_answer(1, Err(refusal)), Some((1, verdict)), "{code:?}");
        assert_eq!((stages(&lane), lane.last().0), (want, last), "{code:?}");
    }
    for code in [Code::Unavailable, Code::OutcomeUnknown, Code::RateLimited, Code::Draining, Code::Internal] {
        let mut lane = lane(6, &on_its_way);
        let (_, verdict) = lane.on_answer(1, Err(refusal(code, None))).unwrap();
        assert!(matches!(verdict, Verdict::Later(_)), "{code:?}");
        // The same bytes under the same number.
        assert_eq!(stages(&lane)[0], Sealed(c(5)), "{code:?}");
    }
    for code in [Code::NotMember, Code::TooLarge, Code::BadEnvelope] {
        let mut lane = lane(6, &on_its_way);
        let (_, verdict) = lane.on_answer(1, Err(refusal(code, None))).unwrap();
        assert!(matches!(verdict, Verdict::Failed(_)), "{code:?}");
        // The number is free again and the next message takes it.
        assert_eq!((stages(&lane), lane.last()), (vec![Stale(c(5)), Draft], c(5)), "{code:?}");
    }
}

#[test]
fn a_follower_of_a_message_that_waits_keeps_its_bytes() {
    let mut lane = lane(6, &[InFlight(c(5)), InFlight(c(6))]);
    lane.on_answer(1, Err(refusal(Code::Unavailable, None)));
    lane.on_answer(2, Err(refusal(Code::OutOfOrder, Some(5))));
    assert_eq!(stages(&lane), [Sealed(c(5)), Bounced(c(6))]);
    assert_eq!(lane.next(), Some(Action::Offer(1, c(5))));
    let attempt = lane.offered(1);
    assert_eq!(lane.next(), None);
    assert_eq!(lane.on_answer(attempt, Ok((Seq(9), 0))), Some((1, Verdict::Acked { seq: Seq(9), at_ms: 0 })));
    assert_eq!(lane.next(), Some(Action::Offer(2, c(6))));
}

#[test]
fn a_lost_connection_changes_no_bytes_and_the_log_may_answer_first() {
    let mut lane = lane(6, &[InFlight(c(5)), InFlight(c(6)), Draft]);
    lane.disconnected();
    assert_eq!(stages(&lane), [Sealed(c(5)), Sealed(c(6)), Draft]);
    lane.remove(1);
    assert_eq!(lane.on_answer(1, Ok((Seq(1), 0))), None);
}

#[test]
fn counters_are_given_back_only_from_the_end() {
    let mut stale = lane(7, &[Stale(c(6)), Stale(c(7)), Draft]);
    assert_eq!(stale.release(), [1, 2]);
    assert_eq!((stale.last(), stale.is_quiet()), (c(5), true));
    let mut open = lane(7, &[Sealed(c(6)), Stale(c(7))]);
    assert!(open.release().is_empty() && !open.is_quiet());
}

/// Whatever the server answers, in whatever order: no counter is offered twice with other bytes
/// unless a definite refusal came in between, and acknowledged counters are contiguous.
#[test]
fn a_server_that_follows_the_rules_gets_every_message_once_and_in_order() {
    use proptest::prelude::*;
    proptest!(|(answers in proptest::collection::vec(0u8..6, 0..200), count in 1usize..20)| {
        let mut lane = lane(0, &[]);
        for position in 1..=count as i64 {
            lane.push(position);
        }
        let mut server: Vec<i64> = Vec::new();
        let mut flying: VecDeque<(Counter, i64, u64)> = VecDeque::new();
        let mut script = answers.into_iter();
        for _ in 0..10_000 {
            while let Some(action) = lane.next() {
                let (position, counter) = match action {
                    Action::Seal(position, counter) => {
                        // Sealed anew means other bytes: the server must have nothing under it.
                        prop_assert!(counter.0 > server.len() as u64);
                        lane.sealed(position, counter);
                        (position, counter)
                    }
                    Action::Offer(position, counter) => (position, counter),
                };
                let attempt = lane.offered(position);
                flying.push_back((counter, position, attempt));
            }
            let Some((counter, position, attempt)) = flying.pop_front() else { break };
            let expected = Counter(server.len() as u64 + 1);
            if counter < expected {
                // Dedupe comes first: it must be the message that is there.
                prop_assert_eq!(server[counter.0 as usize - 1], position);
                lane.on_answer(attempt, Ok((Seq(counter.0), 0)));
                continue;
            }
            let answer = match script.next().unwrap_or(5) {
                0 => Err(refusal(Code::Unavailable, None)),
                1 => Err(refusal(Code::StaleEpoch, None)),
                2 => { // Lost after the commit.
                    if counter == expected { server.push(position); }
                    Err(refusal(Code::OutcomeUnknown, None))
                }
                3 => { flying.clear(); lane.disconnected(); continue; }
                _ if counter > expected => Err(refusal(Code::OutOfOrder, Some(expected.0))),
                _ => { server.push(position); Ok((Seq(counter.0), 0)) }
            };
            lane.on_answer(attempt, answer);
        }
        prop_assert_eq!(server, (1..=count as i64).collect::<Vec<_>>());
        prop_assert!(lane.is_empty());
    });
}

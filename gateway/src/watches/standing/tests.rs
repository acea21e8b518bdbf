//! Who is told what, in whatever order news come.

use super::*;
use crate::registry::Registry;
use fastchat_protocol::DeviceId;
use std::{sync::LazyLock, time::Duration};

const BOB: AccountId = AccountId::new([7; 16]);
static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::new(10_000));

/// A connection of an account of its own.
fn connection(number: u8) -> Arc<Handle> {
    REGISTRY.enter(AccountId::new([number; 16]), DeviceId::new(rand_id())).expect("room").handle
}

fn rand_id() -> [u8; 16] {
    let mut id = [0; 16];
    getrandom::fill(&mut id).expect("randomness");
    id
}

fn bob(last_seen_ms: Option<u64>) -> Acquaintance {
    Acquaintance { account: BOB, last_seen_ms }
}

fn watcher(handle: &Arc<Handle>, now: Instant) -> Watcher {
    Watcher { handle: Arc::clone(handle), until: now + Duration::from_secs(60), told: None }
}

fn tell(handle: &Handle, online: bool, last_seen_ms: Option<u64>) -> Act {
    Act::Tell(vec![handle.id], handle.account, BOB, online, last_seen_ms)
}

fn ask(handle: &Handle) -> Act {
    Act::Ask { account: BOB, by: handle.account, watch_s: MAX_WATCH_S }
}

#[test]
fn who_does_not_answer_is_away_and_is_heard_when_coming() {
    let (mut state, now, alice) = (State::default(), Instant::now(), connection(1));
    assert_eq!(state.watch(watcher(&alice, now), &bob(Some(5)), false, now), Ok(vec![ask(&alice)]));
    assert_eq!(state.tick(now), (vec![], vec![]), "an answer may still come");
    let later = now + PRESENCE_ANSWER;
    assert_eq!(state.tick(later), (vec![tell(&alice, false, Some(5))], vec![BOB]));
    assert_eq!(state.ask_again(&[BOB]), [ask(&alice)]);
    assert!(state.hears(BOB));
    // It connects somewhere, and is asked for; it answers.
    assert_eq!(state.doubt_absence(BOB), [ask(&alice)]);
    assert_eq!(state.told(BOB, true, None, later), [tell(&alice, true, None), Act::Unsubscribe(BOB)]);
    assert_eq!(state.told(BOB, true, None, later), [], "nobody is told twice");
    assert_eq!(state.doubt_absence(BOB), []);
}

#[test]
fn a_going_is_doubted_first() {
    let (mut state, now, alice) = (State::default(), Instant::now(), connection(1));
    assert!(state.watch(watcher(&alice, now), &bob(None), false, now).is_ok());
    assert_eq!(state.told(BOB, true, None, now), [tell(&alice, true, None)]);
    assert_eq!(state.told(BOB, false, Some(9), now), [ask(&alice)]);
    // It went to a third gateway, which answers: no news.
    assert_eq!(state.told(BOB, true, None, now), []);
    assert_eq!(state.tick(now + PRESENCE_ANSWER), (vec![], vec![]));
    // It is gone for good.
    assert_eq!(state.told(BOB, false, Some(9), now), [ask(&alice)]);
    assert_eq!(state.tick(now + PRESENCE_ANSWER), (vec![tell(&alice, false, Some(9))], vec![BOB]));
}

#[test]
fn many_watchers_are_one_question() {
    let (mut state, now) = (State::default(), Instant::now());
    let (alice, carol) = (connection(1), connection(2));
    assert_eq!(state.watch(watcher(&alice, now), &bob(None), false, now), Ok(vec![ask(&alice)]));
    assert_eq!(state.watch(watcher(&carol, now), &bob(None), false, now), Ok(vec![]));
    assert_eq!(state.told(BOB, true, None, now), [tell(&alice, true, None), tell(&carol, true, None)]);
    let dave = connection(3);
    assert_eq!(state.watch(watcher(&dave, now), &bob(None), false, now), Ok(vec![tell(&dave, true, None)]));
    let later = now + Duration::from_secs(30);
    assert_eq!(
        state.watch(watcher(&dave, later), &bob(None), false, later),
        Ok(vec![ask(&dave)]),
        "once in a while"
    );
}

#[test]
fn a_watch_ends_with_its_lease_or_its_connection() {
    let (mut state, now) = (State::default(), Instant::now());
    let (alice, carol) = (connection(1), connection(2));
    for handle in [&alice, &carol] {
        assert!(state.watch(watcher(handle, now), &bob(None), false, now).is_ok());
    }
    state.tick(now + PRESENCE_ANSWER);
    assert_eq!((state.forget(carol.id), state.counts()), (vec![], (1, 0)));
    let (acts, away) = state.tick(now + Duration::from_secs(61));
    assert_eq!((acts, away, state.counts()), (vec![Act::Unsubscribe(BOB)], vec![], (0, 0)));
    assert!(state.watching.is_empty());
}

#[test]
fn there_are_so_many_and_no_more() {
    let (mut state, now, alice) = (State::default(), Instant::now(), connection(1));
    for _ in 0..MAX_WATCHED {
        let other = Acquaintance { account: AccountId::new(rand_id()), last_seen_ms: None };
        assert!(state.watch(watcher(&alice, now), &other, true, now).is_ok());
    }
    assert_eq!(state.watch(watcher(&alice, now), &bob(None), true, now), Err("watched"));
    for _ in 0..MAX_WATCHERS {
        assert!(state.watch(watcher(&connection(2), now), &bob(None), true, now).is_ok());
    }
    assert_eq!(state.watch(watcher(&connection(2), now), &bob(None), true, now), Err("watchers"));
    for _ in 0..MAX_WATCHERS {
        assert!(state.lease(BOB, AccountId::new(rand_id()), now + Duration::from_secs(1)));
    }
    assert!(!state.lease(BOB, AccountId::new(rand_id()), now + Duration::from_secs(1)));
    assert_eq!(state.take_leases(BOB, now).len(), MAX_WATCHERS);
    assert_eq!(state.take_leases(BOB, now), []);
}

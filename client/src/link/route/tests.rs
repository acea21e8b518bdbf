//! By table, and by chance.

use super::*;
use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

const SECOND: Duration = Duration::from_secs(1);

fn url(n: usize) -> ServerUrl {
    format!("ws://g{n}:1").parse().unwrap()
}

fn named(ns: &[usize]) -> Vec<Named> {
    ns.iter().map(|n| Named { url: url(*n), ticket: None }).collect()
}

fn with_tickets(ns: &[usize], until: Duration) -> Vec<Named> {
    let ticket = |n: usize| Some((Bytes::from(vec![n as u8]), until));
    ns.iter().map(|n| Named { url: url(*n), ticket: ticket(*n) }).collect()
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

fn route(servers: &str, pick: Pick, known: &[usize]) -> Route {
    let known = known.iter().map(|n| url(*n)).collect();
    Route::new(&servers.parse().unwrap(), pick, known, None)
}

/// Takes a question for granted.
fn asks(route: &mut Route, now: Duration) -> (AssignUrl, Vec<String>) {
    match route.next(now, &mut rng()) {
        Step::Ask { balancer, exclude } => (balancer, exclude),
        other => panic!("{other:?}"),
    }
}

fn dials(route: &mut Route, now: Duration) -> Target {
    match route.next(now, &mut rng()) {
        Step::Dial(target) => target,
        other => panic!("{other:?}"),
    }
}

/// What a round without any luck dials, in its order.
fn dead_round(route: &mut Route, now: Duration, fault: Fault) -> Vec<ServerUrl> {
    let mut dialled = Vec::new();
    for _ in 0..100 {
        match route.next(now, &mut rng()) {
            Step::Ask { balancer, .. } => route.unanswered(&balancer),
            Step::Dial(target) => {
                route.failed(&target.url, fault, now);
                dialled.push(target.url);
            }
            Step::Over => {
                route.begin();
                return dialled;
            }
        }
    }
    panic!("it never ends: {route:?}");
}

#[test]
fn one_gateway_that_was_typed_is_dialled_again_and_again() {
    let mut route = route("ws://g1:1", Pick::Assign, &[]);
    for _ in 0..10 {
        assert_eq!(dead_round(&mut route, SECOND, Fault::Unreachable), [url(1)]);
    }
}

#[test]
fn an_answer_is_followed_in_its_order_and_asked_for_again_without_those_that_failed() {
    let mut route = route("http://b:1", Pick::Assign, &[9]);
    let (balancer, exclude) = asks(&mut route, SECOND);
    assert!(exclude.is_empty());
    route.answered(&balancer, with_tickets(&[1, 2], 60 * SECOND), SECOND);
    let first = dials(&mut route, SECOND);
    assert_eq!(first, Target { url: url(1), ticket: Some(Bytes::from_static(&[1])) });
    route.failed(&first.url, Fault::Unreachable, SECOND);
    assert!(route.has_more());
    let second = dials(&mut route, SECOND);
    route.failed(&second.url, Fault::Full, SECOND);
    let (balancer, exclude) = asks(&mut route, SECOND);
    assert_eq!(exclude, [url(2).to_string(), url(1).to_string()]);
    route.answered(&balancer, named(&[3]), SECOND);
    assert_eq!(dials(&mut route, SECOND).url, url(3));
    route.up(&url(3));
    // A minute later everybody is as good as anybody.
    assert!(asks(&mut route, 60 * SECOND).1.is_empty());
}

#[test]
fn without_a_balancer_those_that_are_known_are_tried_once_each_in_another_order_for_everybody() {
    let mut orders = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let mut route = route("http://b:1,http://c:1", Pick::Assign, &[1, 2, 3]);
        let (mut rng, mut order, mut silent) = (StdRng::seed_from_u64(seed), Vec::new(), 0);
        loop {
            match route.next(SECOND, &mut rng) {
                Step::Ask { balancer, .. } => {
                    silent += 1;
                    route.unanswered(&balancer);
                }
                Step::Dial(target) => order.push(target.url),
                Step::Over => break,
            }
        }
        assert_eq!(silent, 2, "each balancer is asked once");
        let mut sorted = order.clone();
        sorted.sort();
        assert_eq!(sorted, [url(1), url(2), url(3)]);
        orders.insert(order);
    }
    assert_eq!(orders.len(), 6, "every order occurs");
}

#[test]
fn who_failed_is_tried_last_and_forgotten_after_three_times() {
    let mut route = route("http://b:1", Pick::Assign, &[1, 2, 3]);
    for n in [1, 2] {
        route.failed(&url(n), Fault::Unreachable, SECOND);
    }
    assert_eq!(dead_round(&mut route, 2 * SECOND, Fault::Ours)[0], url(3));
    for _ in 0..2 {
        route.failed(&url(1), Fault::Unreachable, SECOND);
    }
    assert_eq!(route.known(), [url(2), url(3)]);
}

#[test]
fn a_gateway_that_wants_a_ticket_is_dialled_again_with_one() {
    let mut route = route("ws://g1:1,http://b:1", Pick::Assign, &[]);
    route.unanswered(&"http://b:1".parse().unwrap());
    assert_eq!(dials(&mut route, SECOND), Target { url: url(1), ticket: None });
    route.begin();
    route.failed(&url(1), Fault::NoTicket, SECOND);
    let (balancer, exclude) = asks(&mut route, SECOND);
    assert!(exclude.is_empty(), "it is not excluded");
    route.answered(&balancer, with_tickets(&[1], 9 * SECOND), SECOND);
    assert!(dials(&mut route, SECOND).ticket.is_some());
    // With a ticket that it does not take, it is another matter.
    route.failed(&url(1), Fault::NoTicket, SECOND);
    assert_eq!(asks(&mut route, SECOND).1, [url(1).to_string()]);
}

#[test]
fn a_ticket_is_used_once_and_not_when_it_is_old() {
    let mut route = route("http://b:1", Pick::Assign, &[]);
    let (balancer, _) = asks(&mut route, SECOND);
    route.answered(&balancer, with_tickets(&[1, 2], 5 * SECOND), SECOND);
    assert!(dials(&mut route, SECOND).ticket.is_some());
    // The first one took long to fail: the second ticket is old, and another one is asked for.
    route.failed(&url(1), Fault::Unreachable, 6 * SECOND);
    let (balancer, _) = asks(&mut route, 6 * SECOND);
    route.unanswered(&balancer);
    let dialled = dead_round(&mut route, 6 * SECOND, Fault::Ours);
    assert_eq!(dialled, [url(2)]);
    assert!(route.known.iter().all(|known| known.ticket.is_none()), "no ticket is left to be used twice");
}

#[test]
fn a_balancer_that_names_nobody_new_is_not_asked_for_ever() {
    let mut route = route("http://b:1", Pick::Assign, &[]);
    let mut steps = 0;
    loop {
        steps += 1;
        match route.next(SECOND, &mut rng()) {
            Step::Ask { balancer, .. } => route.answered(&balancer, named(&[1]), SECOND),
            Step::Dial(target) => route.failed(&target.url, Fault::NoTicket, SECOND),
            Step::Over => break,
        }
    }
    assert!(steps <= 10, "{steps}");
}

#[test]
fn turns_go_round_and_leave_out_who_is_away() {
    let mut route = route("ws://g1:1,ws://g2:1,ws://g3:1", Pick::RoundRobin, &[]);
    let mut turns = Vec::new();
    for turn in 0..7 {
        let target = dials(&mut route, SECOND);
        if turn == 3 {
            route.failed(&target.url, Fault::Draining, SECOND);
            route.begin();
        } else {
            route.up(&target.url);
        }
        turns.push(target.url);
    }
    assert!(turns[0] != turns[1] && turns[1] != turns[2] && turns[2] != turns[0], "{turns:?}");
    assert_eq!((&turns[3], turns[4..].contains(&turns[3])), (&turns[0], false), "{turns:?}");
    let mut one = super::Route::new(
        &"ws://g1:1,ws://g2:1".parse().unwrap(),
        Pick::RoundRobin,
        Vec::new(),
        Some(url(1)),
    );
    assert_eq!(dials(&mut one, SECOND).url, url(2), "the turn of an earlier run counts");
}

#[test]
fn who_takes_turns_asks_which_gateways_there_are_and_uses_their_tickets() {
    let mut route = route("http://b:1", Pick::RoundRobin, &[]);
    let (balancer, _) = asks(&mut route, SECOND);
    route.answered(&balancer, with_tickets(&[1, 2, 3], 60 * SECOND), SECOND);
    for _ in 0..3 {
        let target = dials(&mut route, SECOND);
        assert!(target.ticket.is_some());
        route.up(&target.url);
    }
    assert_eq!(dials(&mut route, SECOND).ticket, None);
    asks(&mut route, 60 * SECOND);
}

/// One thing that may happen.
#[derive(Debug, Clone)]
enum Luck {
    Answer(Vec<usize>, u64),
    Silence,
    Fails(usize),
    Up,
    Wait(u64),
}

const FAULTS: [Fault; 7] = [
    Fault::Unreachable,
    Fault::Lost,
    Fault::Full,
    Fault::Draining,
    Fault::NoTicket,
    Fault::Wrong,
    Fault::Ours,
];

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        (proptest::collection::vec(0..50_usize, 0..20), 0..90_u64).prop_map(|(ns, s)| Luck::Answer(ns, s)),
        Just(Luck::Silence),
        (0..FAULTS.len()).prop_map(Luck::Fails),
        Just(Luck::Up),
        (0..100_u64).prop_map(Luck::Wait),
    ]
}

proptest! {
    #[test]
    fn no_round_is_without_end_and_no_ticket_is_used_twice_or_late(
        typed in 0..4_usize,
        balancers in 0..3_usize,
        turns: bool,
        known in proptest::collection::vec(0..50_usize, 0..40),
        events in proptest::collection::vec(luck(), 1..200),
        seed: u64,
    ) {
        let typed = (0..typed).map(|n| format!("ws://g{n}:1"));
        let servers: Vec<String> = typed.chain((0..balancers).map(|n| format!("http://b{n}:1"))).collect();
        prop_assume!(!servers.is_empty());
        let servers: Servers = servers.join(",").parse().unwrap();
        let pick = if turns { Pick::RoundRobin } else { Pick::Assign };
        let mut route = Route::new(&servers, pick, known.iter().map(|n| url(*n)).collect(), None);
        let (mut rng, mut now, mut steps, mut serial) = (StdRng::seed_from_u64(seed), SECOND, 0, 0_u64);
        let mut tickets = std::collections::BTreeMap::new();
        let mut events = events.into_iter().cycle();
        for _ in 0..400 {
            let mut event = events.next().unwrap();
            if let Luck::Wait(seconds) = event {
                now += SECOND * seconds as u32;
                event = events.next().unwrap();
            }
            let step = route.next(now, &mut rng);
            steps += 1;
            prop_assert!(steps <= 1 + MAX_DIALS as usize + MAX_ASKS as usize + balancers, "{step:?}");
            prop_assert!(route.known.len() <= MAX_KNOWN + 4);
            match (step, event) {
                (Step::Ask { balancer, exclude }, Luck::Answer(ns, life)) => {
                    prop_assert!(exclude.len() <= MAX_EXCLUDED);
                    let named = ns.iter().map(|n| {
                        serial += 1;
                        let (bytes, until) = (Bytes::from(serial.to_be_bytes().to_vec()), now + SECOND * life as u32);
                        tickets.insert(bytes.clone(), (url(*n), until));
                        Named { url: url(*n), ticket: Some((bytes, until)) }
                    });
                    route.answered(&balancer, named.collect(), now);
                }
                (Step::Ask { balancer, .. }, _) => route.unanswered(&balancer),
                (Step::Dial(target), event) => {
                    if let Some(ticket) = target.ticket {
                        let (place, until) = tickets.remove(&ticket).expect("used once");
                        prop_assert_eq!(&place, &target.url);
                        prop_assert!(until > now);
                    }
                    match event {
                        Luck::Up => {
                            route.up(&target.url);
                            steps = 0;
                        }
                        Luck::Fails(fault) => route.failed(&target.url, FAULTS[fault], now),
                        _ => {}
                    }
                }
                (Step::Over, _) => {
                    route.begin();
                    steps = 0;
                }
            }
        }
    }
}

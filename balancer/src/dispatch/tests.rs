use super::*;
use crate::fleet::{Report, Source};
use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};
use rand::{SeedableRng, rngs::StdRng};

fn id(n: u8) -> GatewayId {
    GatewayId::new([n; 16])
}

fn report(n: u8, connections: f64) -> Report {
    Report {
        source: Source::Heartbeat,
        gateway: id(n),
        url: format!("wss://g{n}"),
        agent: String::new(),
        versions: vec![1],
        count: None,
        age_ms: 0,
        period_ms: 1_000,
        skew_ms: None,
        connections: Some(connections),
        capacity: Some(1_000.0),
        cpu: Some(0.5),
        draining: Some(0.0),
    }
}

fn dispatcher(reports: impl IntoIterator<Item = Report>) -> Dispatcher {
    let mut dispatcher = Dispatcher::new(Strategy::P2c);
    for report in reports {
        dispatcher.fleet.on_report(report, Moment(0)).expect("a good report");
    }
    dispatcher
}

fn assign(dispatcher: &mut Dispatcher, request: &Request, now: u64) -> Result<Decision, NoGateway> {
    dispatcher.assign(request, Moment(now), &mut StdRng::seed_from_u64(now))
}

fn excluding(names: &[&str]) -> Request {
    Request { exclude: names.iter().map(|name| (*name).to_owned()).collect(), ..Request::default() }
}

#[test]
fn nobody_known_is_an_error_that_says_so() {
    assert_eq!(assign(&mut Dispatcher::default(), &Request::default(), 0).unwrap_err(), NoGateway::Unknown);
    let leaving = Report { draining: Some(1.0), ..report(1, 0.0) };
    let error = assign(&mut dispatcher([leaving]), &Request::default(), 0).unwrap_err().to_string();
    assert!(error.contains("1 draining"), "{error}");
    let request = Request { versions: vec![9], ..Request::default() };
    let error = assign(&mut dispatcher([report(1, 0.0)]), &request, 0).unwrap_err().to_string();
    assert!(error.contains("not of the client's versions"), "{error}");
}

#[test]
fn the_excluded_and_the_full_are_chosen_only_when_nothing_else_is_left() {
    let mut both = dispatcher([report(1, 0.0), report(2, 1_000.0)]);
    assert_eq!(assign(&mut both, &Request::default(), 0).unwrap().target.gateway, id(1));
    let decision = assign(&mut both, &excluding(&["wss://g1"]), 0).unwrap();
    assert_eq!((decision.target.gateway, decision.basis), (id(2), Basis::Full));
    let decision = assign(&mut both, &excluding(&["wss://g1", &id(2).to_string()]), 0).unwrap();
    assert_eq!(decision.basis, Basis::Excluded);
}

#[test]
fn when_all_are_silent_the_last_known_are_used_uniformly_with_a_reason() {
    let leaving = Report { draining: Some(1.0), ..report(4, 0.0) };
    let mut silent = dispatcher([report(1, 0.0), report(2, 900.0), report(3, 1_000.0), leaving]);
    let mut counts = std::collections::BTreeMap::new();
    for n in 0..3_000 {
        let decision = assign(&mut silent, &Request::default(), 60_000 + n).unwrap();
        assert_eq!((decision.basis, decision.strategy), (Basis::LastKnown, Strategy::Random));
        assert!(decision.reason.contains("nothing has reported for 6"), "{}", decision.reason);
        *counts.entry(decision.target.gateway).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 3, "not the one that said it leaves");
    assert!(counts.values().all(|count| (900..1_100).contains(count)), "{counts:?}");
    silent.fleet.on_report(report(2, 900.0), Moment(64_000)).unwrap();
    assert_eq!(assign(&mut silent, &Request::default(), 64_000).unwrap().target.gateway, id(2));
}

#[test]
fn a_decision_names_alternatives_and_can_be_explained() {
    let mut five = dispatcher((1..=5).map(|n| report(n, 10.0 * f64::from(n))));
    let decision =
        assign(&mut five, &Request { key: Some(b"alice".to_vec()), ..Request::default() }, 5).unwrap();
    assert_eq!(decision.alternatives.len(), ALTERNATIVES);
    for (asked, named) in [(0, 0), (1, 1), (4, 4), (16, 4)] {
        let request = Request { alternatives: asked, ..Request::default() };
        assert_eq!(assign(&mut five, &request, 5).unwrap().alternatives.len(), named);
    }
    assert!(!decision.alternatives.contains(&decision.target));
    assert!(decision.reason.contains(" against "), "{}", decision.reason);
    assert!(!format!("{decision:?}").contains("alice"), "a key may name a person");
    for n in 0..2 * EXPLAINED as u64 {
        assign(&mut five, &Request::default(), n % 3_000).unwrap();
    }
    assert_eq!(five.explain(usize::MAX).count(), EXPLAINED);
}

proptest! {
    #[test]
    fn only_live_gateways_are_chosen_while_there_are_any(
        kinds in prop::collection::vec(0_u8..5, 1..10), strategy in prop::sample::select(Strategy::ALL.to_vec()), seed: u64,
    ) {
        let mut dispatcher = Dispatcher::new(strategy);
        let now = Moment(60_000);
        for (n, kind) in (1..).zip(&kinds) {
            let at = if *kind == 1 { Moment(50_000) } else { now };
            let draining = Some(if *kind == 2 { 1.0 } else { 0.0 });
            let connections = if *kind == 3 { 1_000.0 } else { 10.0 };
            dispatcher.fleet.on_report(Report { draining, ..report(n, connections) }, at).unwrap();
            dispatcher.fleet.drain(id(n), *kind == 4);
        }
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..50 {
            match dispatcher.assign(&Request::default(), now, &mut rng) {
                Ok(decision) => {
                    let named = std::iter::once(&decision.target).chain(&decision.alternatives);
                    for target in named {
                        let kind = kinds[usize::from(target.gateway.as_bytes()[0]) - 1];
                        let best = [0, 3, 1].into_iter().find(|kind| kinds.contains(kind));
                        prop_assert_eq!(Some(kind), best);
                    }
                }
                Err(_) => prop_assert!(kinds.iter().all(|kind| [2, 4].contains(kind))),
            }
        }
    }
}

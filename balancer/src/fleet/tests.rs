use super::*;
use proptest::prelude::*;

const SECOND: u64 = 1_000;

fn id(n: u8) -> GatewayId {
    GatewayId::new([n; 16])
}

fn report(n: u8, source: Source) -> Report {
    Report {
        source,
        gateway: id(n),
        url: format!("wss://g{n}.example.org"),
        agent: "fastchat-gateway 0.1.0".into(),
        versions: vec![1],
        count: None,
        age_ms: 0,
        period_ms: SECOND,
        skew_ms: None,
        connections: Some(100.0),
        capacity: Some(1_000.0),
        cpu: Some(0.25),
        draining: Some(0.0),
    }
}

fn beat(n: u8, connections: f64) -> Report {
    Report { connections: Some(connections), ..report(n, Source::Heartbeat) }
}

fn views(fleet: &Fleet, now: u64) -> Vec<View> {
    fleet.views(Moment(now), &Ledger::default())
}

fn state(fleet: &Fleet, n: u8, now: u64) -> State {
    views(fleet, now).iter().find(|view| view.gateway == id(n)).expect("known").state
}

fn tell(fleet: &mut Fleet, report: Report, now: u64) {
    fleet.on_report(report, Moment(now)).expect("a good report");
}

#[test]
fn a_gateway_that_misses_three_periods_is_out_and_comes_back() {
    let mut fleet = Fleet::default();
    tell(&mut fleet, beat(1, 100.0), 10 * SECOND);
    assert_eq!(state(&fleet, 1, 13 * SECOND), State::Live);
    assert_eq!(state(&fleet, 1, 13 * SECOND + 1), State::Stale);
    assert_eq!(views(&fleet, 20 * SECOND)[0].connections, None, "old numbers are not shown as true");
    tell(&mut fleet, beat(1, 100.0), 20 * SECOND);
    assert_eq!(state(&fleet, 1, 20 * SECOND), State::Live);
}

#[test]
fn a_promise_of_a_report_next_year_does_not_keep_a_gateway_in() {
    let mut fleet = Fleet::default();
    tell(&mut fleet, Report { period_ms: u64::MAX, ..beat(1, 1.0) }, 0);
    assert_eq!(state(&fleet, 1, 3 * 60 * SECOND + 1), State::Stale);
    tell(&mut fleet, Report { period_ms: 0, ..beat(2, 1.0) }, 0);
    assert_eq!(state(&fleet, 2, 300), State::Live);
}

#[test]
fn the_freshest_trustworthy_value_of_both_sources_counts() {
    let mut fleet = Fleet::default();
    let sample = |connections| Report { connections: Some(connections), ..report(1, Source::Prometheus) };
    tell(&mut fleet, sample(300.0), 1_000);
    tell(&mut fleet, beat(1, 400.0), 1_500);
    assert_eq!(views(&fleet, 2_000)[0].connections, Some(400));
    tell(&mut fleet, sample(500.0), 2_000);
    assert_eq!(views(&fleet, 2_000)[0].connections, Some(500));
    // A newer one that cannot be true leaves the older one in force; other values of it count.
    tell(&mut fleet, Report { cpu: Some(0.75), ..beat(1, f64::NAN) }, 2_500);
    let view = &views(&fleet, 2_500)[0];
    assert_eq!((view.connections, view.cpu), (Some(500), Some(0.75)));
    assert_eq!(view.doubts, [Doubt::Connections]);
    assert_eq!(view.sources, Source::ALL);
}

#[test]
fn heartbeats_decide_who_is_out_while_they_flow_and_prometheus_when_they_do_not() {
    let mut fleet = Fleet::default();
    let sample = |n| Report { period_ms: 5 * SECOND, ..report(n, Source::Prometheus) };
    for n in [1, 2] {
        tell(&mut fleet, beat(n, 1.0), 10_000);
        tell(&mut fleet, sample(n), 11_000);
    }
    tell(&mut fleet, beat(2, 2.0), 14_000);
    assert_eq!(state(&fleet, 1, 14_000), State::Stale, "it died after its last scrape");
    tell(&mut fleet, sample(1), 15_000);
    assert_eq!(state(&fleet, 1, 15_000), State::Live, "scraped since: only its bus is cut");
    // All heartbeats stop: the bus is down, samples go on.
    tell(&mut fleet, sample(2), 18_500);
    assert_eq!(state(&fleet, 2, 18_500), State::Live);
    assert_eq!(state(&fleet, 2, 18_500 + 15 * SECOND + 1), State::Stale);
}

#[test]
fn a_restarted_gateway_replaces_itself() {
    let mut fleet = Fleet::default();
    tell(&mut fleet, beat(1, 100.0), 0);
    let again = Report { url: "wss://g1.example.org".into(), ..beat(9, 0.0) };
    tell(&mut fleet, again, 1_000);
    assert_eq!((state(&fleet, 1, 1_000), state(&fleet, 9, 1_000)), (State::Replaced, State::Live));
}

#[test]
fn draining_and_drained_and_full_are_told_apart() {
    let mut fleet = Fleet::default();
    tell(&mut fleet, Report { draining: Some(1.0), ..beat(1, 1.0) }, 0);
    tell(&mut fleet, beat(2, 1_000.0), 0);
    tell(&mut fleet, beat(3, 1_100.0), 0);
    tell(&mut fleet, beat(4, 10.0), 0);
    fleet.drain(id(4), true);
    assert_eq!(
        [1, 2, 3, 4].map(|n| state(&fleet, n, 0)),
        [State::Draining, State::Full, State::Full, State::Drained]
    );
    fleet.drain(id(4), false);
    assert_eq!(state(&fleet, 4, 0), State::Live);
}

#[test]
fn values_that_cannot_be_true_are_unknown_and_unknown_is_average() {
    let bad = [-1.0, -0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e30, f64::MAX, 1_251.0];
    for value in bad {
        let mut fleet = Fleet::default();
        (1..=3).for_each(|n| tell(&mut fleet, beat(n, 100.0 * f64::from(n)), 0));
        tell(&mut fleet, beat(4, value), 0);
        let all = views(&fleet, 0);
        assert_eq!((all[3].connections, all[3].state), (None, State::Live), "{value}");
        assert_eq!(all[3].doubts, [Doubt::Connections]);
        assert_eq!(Fleet::candidates(all.iter())[3].connections, 200.0, "{value}");
    }
    for value in [-0.01, 1.06, f64::NAN, f64::INFINITY] {
        let mut fleet = Fleet::default();
        tell(&mut fleet, Report { cpu: Some(value), ..beat(1, 1.0) }, 0);
        assert_eq!((views(&fleet, 0)[0].cpu, &views(&fleet, 0)[0].doubts[..]), (None, &[Doubt::Cpu][..]));
    }
    for value in [0.0, -1.0, f64::NAN, 1e12] {
        let mut fleet = Fleet::default();
        tell(&mut fleet, Report { capacity: Some(value), ..beat(1, 1.0) }, 0);
        tell(&mut fleet, beat(2, 1.0), 0);
        let all = views(&fleet, 0);
        assert_eq!(all[0].capacity, None, "{value}");
        assert_eq!(Fleet::candidates(all.iter())[0].capacity, 1_000.0);
    }
    let mut fleet = Fleet::default();
    tell(&mut fleet, Report { draining: Some(0.5), ..beat(1, 1.0) }, 0);
    assert_eq!((state(&fleet, 1, 0), &views(&fleet, 0)[0].doubts[..]), (State::Live, &[Doubt::Draining][..]));
}

#[test]
fn a_capacity_out_of_proportion_counts_for_four_usual_ones() {
    let mut fleet = Fleet::default();
    (1..=3).for_each(|n| tell(&mut fleet, beat(n, 100.0), 0));
    tell(&mut fleet, Report { capacity: Some(3_000_000.0), ..beat(4, 100.0) }, 0);
    assert_eq!(Fleet::candidates(views(&fleet, 0).iter())[3].capacity, 4_000.0);
}

/// Gateway 1 says the same each second; 2 and 3 move. Returns gateway 1's view and candidate after it.
fn freeze(sent: u64, others_move: bool) -> View {
    let (mut fleet, mut ledger) = (Fleet::default(), Ledger::default());
    for second in 0..30 {
        let now = second * SECOND;
        tell(&mut fleet, beat(1, 3.0), now);
        for n in [2, 3] {
            let more = if others_move { second as f64 } else { 0.0 };
            tell(&mut fleet, beat(n, 100.0 + more), now);
        }
        if second < sent {
            ledger.record(id(1), Moment(now + 1));
        }
    }
    fleet.views(Moment(29 * SECOND), &ledger).swap_remove(0)
}

#[test]
fn a_frozen_report_is_not_believed() {
    let view = freeze(20, true);
    assert_eq!((view.connections, &view.doubts[..]), (None, &[Doubt::Frozen][..]));
    assert_eq!(freeze(0, true).connections, Some(3), "nobody was sent there: it is quiet, not frozen");
    assert_eq!(freeze(20, false).connections, Some(3), "nothing moves anywhere");
}

#[test]
fn no_clock_of_a_gateway_matters() {
    let mut fleet = Fleet::default();
    for (n, skew) in [(1, i64::MAX), (2, i64::MIN), (3, 4_000)] {
        tell(&mut fleet, Report { skew_ms: Some(skew), ..beat(n, 100.0) }, 0);
    }
    let all = views(&fleet, 2 * SECOND);
    assert!(all.iter().all(|view| view.state == State::Live && view.connections == Some(100)));
    assert_eq!(
        [&all[0].doubts[..], &all[1].doubts[..], &all[2].doubts[..]],
        [&[Doubt::Clock][..], &[Doubt::Clock], &[]]
    );
    // A sample's time is Prometheus's: a little ahead is now, more is not taken, long ago is out.
    let sample = |n, age_ms| Report { age_ms, ..report(n, Source::Prometheus) };
    assert_eq!(fleet.on_report(sample(4, -1_500), Moment(5_000)), Ok(()));
    assert_eq!(fleet.on_report(sample(5, -2_001), Moment(5_000)), Err(Refused::Future));
    assert_eq!(fleet.on_report(sample(5, i64::MIN), Moment(5_000)), Err(Refused::Future));
    assert_eq!(fleet.on_report(sample(6, i64::MAX), Moment(9_000)), Ok(()));
    assert_eq!((state(&fleet, 4, 5_000), state(&fleet, 6, 9_000)), (State::Live, State::Stale));
}

#[test]
fn doubled_and_overtaken_reports_are_refused() {
    let mut fleet = Fleet::default();
    let counted = |count, connections| Report { count: Some(count), ..beat(1, connections) };
    tell(&mut fleet, counted(5, 50.0), 0);
    assert_eq!(fleet.on_report(counted(5, 60.0), Moment(1)), Err(Refused::Old));
    assert_eq!(fleet.on_report(counted(4, 60.0), Moment(1)), Err(Refused::Old));
    tell(&mut fleet, counted(u64::MAX, 70.0), 2);
    tell(&mut fleet, counted(6, 80.0), 3);
    assert_eq!(views(&fleet, 3)[0].connections, Some(80), "a forged count does not silence a gateway");
    let sample = |age_ms| Report { age_ms, ..report(2, Source::Prometheus) };
    tell(&mut fleet, sample(1_000), 5_000);
    assert_eq!(fleet.on_report(sample(1_100), Moment(5_100)), Err(Refused::Old), "the same sample again");
    tell(&mut fleet, sample(0), 6_000);
}

#[test]
fn a_flood_of_inventions_is_bounded_and_long_silence_forgotten() {
    let mut fleet = Fleet::default();
    for n in 0..MAX_GATEWAYS {
        let gateway = GatewayId::new((n as u128).to_be_bytes());
        tell(&mut fleet, Report { gateway, url: format!("ws://g{n}"), ..beat(1, 1.0) }, 0);
    }
    assert_eq!(fleet.on_report(beat(255, 1.0), Moment(0)), Err(Refused::TooMany));
    assert_eq!(fleet.forget(Moment(2 * FORGET_MS)), [], "the last ones known are never forgotten");
    let gateway = GatewayId::new([0; 16]);
    tell(&mut fleet, Report { gateway, ..beat(1, 1.0) }, 2 * FORGET_MS);
    assert_eq!(fleet.forget(Moment(2 * FORGET_MS)).len(), MAX_GATEWAYS - 1);
}

/// Any `f64` at all, with the interesting ones often.
fn number() -> impl Strategy<Value = Option<f64>> {
    let special = prop::sample::select(vec![
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        f64::NAN,
        f64::INFINITY,
        f64::MIN,
        f64::MAX,
        1e-300,
    ]);
    prop::option::of(prop_oneof![special, any::<f64>(), 0.0..2_000.0])
}

prop_compose! {
    fn any_report()(
        n in 0_u8..6, heartbeat: bool, count in prop::option::of(any::<u64>()), age_ms in any::<i64>(), fresh: bool,
        period_ms: u64, skew_ms: Option<i64>, connections in number(), capacity in number(), cpu in number(),
        draining in number(), same_url: bool,
    ) -> Report {
        Report {
            source: if heartbeat { Source::Heartbeat } else { Source::Prometheus },
            count, age_ms: if fresh { 0 } else { age_ms }, period_ms, skew_ms, connections, capacity, cpu, draining,
            url: format!("ws://g{}", if same_url { 0 } else { n }),
            ..report(n, Source::Heartbeat)
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_reported_nothing_panics_and_every_candidate_is_sane(
        reports in prop::collection::vec((any_report(), any::<u16>()), 0..60), sent in prop::collection::vec(0_u8..6, 0..40),
    ) {
        let (mut fleet, mut ledger, mut now) = (Fleet::default(), Ledger::default(), Moment(0));
        for (report, wait) in reports {
            now = now.plus(u64::from(wait) % 3_000);
            let _ = fleet.on_report(report, now);
            sent.iter().for_each(|n| ledger.record(id(*n), now));
            let views = fleet.views(now, &ledger);
            for candidate in Fleet::candidates(views.iter()) {
                prop_assert!(candidate.capacity >= 1.0 && candidate.capacity.is_finite());
                prop_assert!(candidate.connections >= 0.0 && candidate.connections.is_finite());
                prop_assert!((0.0..=1.0).contains(&candidate.cpu));
                prop_assert!(candidate.own >= 0.0 && candidate.expected().is_finite());
            }
            for view in &views {
                prop_assert!(view.state != State::Live || !view.sources.is_empty());
            }
            fleet.forget(now);
        }
    }
}

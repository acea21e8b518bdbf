#![expect(clippy::print_stdout, reason = "the figures are what one runs this for")]

use super::*;
use crate::mover::Limits;

/// 10,000 clients come back to 8 gateways within 5 s, and every report is 5 s old.
fn reconnects(seed: u64) -> Scenario {
    Scenario {
        capacities: vec![15_000; 8],
        // Not quite even, as after a while of coming and going.
        start: (0..8).map(|n| 100 + (n * 37 + seed) % 20).collect(),
        arrivals: Arrivals::Burst { clients: 10_000, window_ms: 5_000 },
        balancers: 1,
        report_period_ms: 1_000,
        report_age_ms: 5_000,
        connect_ms: 100,
        failures: Vec::new(),
        joins: Vec::new(),
        moves: None,
        movers: 1,
        settle_ms: 1_000,
        reconnect_window_ms: 2_000,
        seed,
    }
}

#[test]
fn p2c_spreads_ten_thousand_reconnects_on_old_reports_and_least_connections_herds() {
    for seed in 1..=5 {
        let scenario = reconnects(seed);
        let p2c = run(&scenario, Strategy::P2c);
        let herd = run(&scenario, Strategy::LeastConnections);
        println!(
            "seed {seed}: p2c {:.4} (peak share {:.3}), least-connections {:.2}",
            p2c.max_over_mean, p2c.peak_share, herd.max_over_mean
        );
        assert!(p2c.max_over_mean <= 1.03, "p2c: {}", p2c.max_over_mean);
        assert!(p2c.peak_share <= 2.0 / 8.0, "p2c: {}", p2c.peak_share);
        assert!(herd.max_over_mean > 3.0, "least-connections: {}", herd.max_over_mean);
        for outcome in [&p2c, &herd] {
            let start: u64 = scenario.start.iter().sum();
            assert_eq!(outcome.connections.iter().sum::<u64>(), start + 10_000, "nobody is lost");
        }
    }
}

#[test]
fn reports_every_five_seconds_are_as_bad_as_late_ones() {
    for seed in 1..=3 {
        let scenario = Scenario { report_period_ms: 5_000, report_age_ms: 0, ..reconnects(seed) };
        let (p2c, herd) = (run(&scenario, Strategy::P2c), run(&scenario, Strategy::LeastConnections));
        println!("seed {seed}: p2c {:.4}, least-connections {:.2}", p2c.max_over_mean, herd.max_over_mean);
        assert!(p2c.max_over_mean <= 1.10 && herd.max_over_mean > 2.0);
    }
}

#[test]
fn two_balancers_that_do_not_talk_are_nearly_as_good_as_one() {
    for seed in 1..=3 {
        let outcome = run(&Scenario { balancers: 2, ..reconnects(seed) }, Strategy::P2c);
        println!("seed {seed}: {:.4}", outcome.max_over_mean);
        assert!(outcome.max_over_mean <= 1.10, "{}", outcome.max_over_mean);
    }
}

#[test]
fn an_empty_gateway_fills_up_without_drawing_everybody() {
    let scenario = Scenario { start: [vec![1_250; 7], vec![0]].concat(), ..reconnects(1) };
    let outcome = run(&scenario, Strategy::P2c);
    // Drawn with share 2/8; the first and the last second are short, and chance has its say.
    assert!(outcome.peak_share <= 0.30, "{}", outcome.peak_share);
    assert!(outcome.connections[7] > 1_900, "{:?}", outcome.connections);
}

#[test]
fn clients_of_a_failed_gateway_come_to_others_and_none_is_lost() {
    let failures = vec![Failure { gateway: 3, at_ms: 2_000, back_ms: None }];
    let scenario = Scenario { report_age_ms: 0, failures, ..reconnects(1) };
    for strategy in Strategy::ALL {
        let outcome = run(&scenario, strategy);
        assert_eq!((outcome.unserved, outcome.connections[3]), (0, 0), "{strategy}");
        assert_eq!(outcome.connections.iter().sum::<u64>(), 10_000 + scenario.start.iter().sum::<u64>());
    }
    let outcome = run(&scenario, Strategy::P2c);
    assert!(outcome.failed_attempts > 0, "until three reports are missing, some are sent there");
    assert!(outcome.max_over_mean <= 1.05, "{}", outcome.max_over_mean);
}

/// A gateway is added to `before` of them with 1,000 sessions each; reports are half a second old.
fn added(before: usize, seed: u64) -> Scenario {
    Scenario {
        capacities: vec![15_000; before + 1],
        start: [vec![1_000; before], vec![0]].concat(),
        arrivals: Arrivals::Constant { clients: 100, rate: 20.0 },
        report_period_ms: 500,
        report_age_ms: 20,
        joins: vec![Join { gateway: before, at_ms: 1_000 }],
        moves: Some(Limits::default()),
        settle_ms: 90_000,
        ..reconnects(seed)
    }
}

#[test]
fn a_gateway_added_under_load_gets_its_share_within_a_minute_and_then_nothing_moves() {
    for before in [1, 2, 3, 8] {
        let outcome = run(&added(before, 1), Strategy::P2c);
        println!("{before} and one: {:?} {:?}", outcome.level_after_ms, outcome.connections);
        assert!(outcome.level_after_ms.is_some_and(|ms| ms <= 60_000), "{before}: {outcome:?}");
        assert!(outcome.max_over_mean <= 1.1, "{before}: {:.3}", outcome.max_over_mean);
        // No to and fro: little more than what the new one lacked.
        let share = before as u64 * 1_000 / (before as u64 + 1);
        assert!(outcome.moved <= share * 11 / 10, "{before}: {} moved for {share}", outcome.moved);
        let without = run(&Scenario { moves: None, ..added(before, 1) }, Strategy::P2c);
        assert!(before > 3 || without.level_after_ms.is_none(), "it does not come by itself: {without:?}");
    }
}

#[test]
fn two_balancers_that_both_ask_do_not_overshoot() {
    for (balancers, movers) in [(2, 2), (3, 3)] {
        let outcome = run(&Scenario { balancers, movers, ..added(3, 7) }, Strategy::P2c);
        println!("{movers} movers: {} moved, {:?}", outcome.moved, outcome.connections);
        assert!(outcome.max_over_mean <= 1.2 && outcome.moved <= 1_500, "{outcome:?}");
        assert!(outcome.connections[3] < 1_100, "{:?}", outcome.connections);
    }
}

#[test]
fn a_seed_gives_the_same_outcome() {
    let scenario = Scenario { arrivals: Arrivals::Poisson { clients: 500, rate: 200.0 }, ..reconnects(3) };
    for strategy in Strategy::ALL {
        let json = |outcome: &Outcome| serde_json::to_string(outcome).expect("JSON");
        assert_eq!(json(&run(&scenario, strategy)), json(&run(&scenario, strategy)), "{strategy}");
    }
}

#[test]
fn arrivals_come_as_their_names_say() {
    use rand::{SeedableRng, rngs::StdRng};
    let rng = || StdRng::seed_from_u64(5);
    let constant = Arrivals::Constant { clients: 5, rate: 100.0 }.times(&mut rng());
    assert_eq!(constant, [0, 10, 20, 30, 40]);
    let poisson = Arrivals::Poisson { clients: 10_000, rate: 1_000.0 }.times(&mut rng());
    let gaps: Vec<f64> = poisson.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    // Mean and standard deviation of the exponential distribution are equal: 1 ms. Cutting to whole
    // milliseconds adds 1/6 to the variance of a gap.
    assert!((0.95..1.05).contains(&mean) && (1.0..1.35).contains(&variance), "{mean} {variance}");
    let burst = Arrivals::Burst { clients: 1_000, window_ms: 100 }.times(&mut rng());
    assert!(burst.iter().all(|at| *at <= 100) && burst[500].abs_diff(50) < 10);
}

#[test]
fn a_picture_has_a_line_for_every_gateway() {
    let scenario = Scenario { arrivals: Arrivals::Constant { clients: 100, rate: 100.0 }, ..reconnects(1) };
    let picture = svg(&[run(&scenario, Strategy::P2c), run(&scenario, Strategy::Random)]);
    assert_eq!(picture.matches("<polyline").count(), 16);
    assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n") && picture.contains("p2c"));
}

use super::*;
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, prop_compose, proptest};
use rand::{SeedableRng, rngs::StdRng};

const DRAWS: usize = 40_000;

fn candidate(n: u8, connections: f64) -> Candidate {
    Candidate { gateway: GatewayId::new([n; 16]), connections, capacity: 1_000.0, cpu: 0.5, own: 0.0 }
}

fn fleet(loads: &[f64]) -> Vec<Candidate> {
    (1..).zip(loads).map(|(n, load)| candidate(n, *load)).collect()
}

/// How often each candidate is chosen, as a share.
fn shares(strategy: Strategy, candidates: &[Candidate]) -> Vec<f64> {
    let mut rng = StdRng::seed_from_u64(7);
    let mut counts = vec![0.0; candidates.len()];
    let mut last = None;
    for _ in 0..DRAWS {
        let pick = strategy.choose(candidates, Hints { last, key: None }, &mut rng).expect("a choice");
        last = Some(candidates[pick.chosen].gateway);
        counts[pick.chosen] += 1.0 / DRAWS as f64;
    }
    counts
}

#[track_caller]
fn assert_shares(strategy: Strategy, candidates: &[Candidate], expected: &[f64]) {
    let shares = shares(strategy, candidates);
    // Six standard deviations of a share of one half.
    let near = |(share, expected): (&f64, &f64)| (share - expected).abs() < 0.015;
    assert!(shares.iter().zip(expected).all(near), "{strategy}: {shares:?}, not {expected:?}");
}

#[test]
fn random_is_even_whatever_the_load() {
    assert_shares(Strategy::Random, &fleet(&[0.0, 10.0, 500.0, 999.0]), &[0.25; 4]);
}

#[test]
fn round_robin_takes_turns_exactly_and_goes_on_where_it_was_when_one_leaves() {
    let mut rng = StdRng::seed_from_u64(1);
    let candidates = fleet(&[0.0, 900.0, 5.0]);
    let mut next = |candidates: &[Candidate], last| {
        let pick =
            Strategy::RoundRobin.choose(candidates, Hints { last, key: None }, &mut rng).expect("a choice");
        candidates[pick.chosen].gateway
    };
    let mut last = None;
    let turns: Vec<u8> = (0..7)
        .map(|_| {
            last = Some(next(&candidates, last));
            last.expect("a choice").as_bytes()[0]
        })
        .collect();
    assert_eq!(turns, [1, 2, 3, 1, 2, 3, 1]);
    let without_second = [candidates[0], candidates[2]];
    assert_eq!(next(&without_second, Some(candidates[1].gateway)), candidates[2].gateway);
}

#[test]
fn least_connections_takes_the_fewest_and_any_of_equals() {
    assert_shares(Strategy::LeastConnections, &fleet(&[9.0, 3.0, 3.0, 50.0]), &[0.0, 0.5, 0.5, 0.0]);
    let mut own = fleet(&[9.0, 3.0]);
    own[1].own = 1e6;
    assert_shares(Strategy::LeastConnections, &own, &[0.0, 1.0]);
}

#[test]
fn min_load_takes_the_least_cpu() {
    let mut candidates = fleet(&[1.0, 2.0, 900.0]);
    for (candidate, cpu) in candidates.iter_mut().zip([0.5, 0.4, 0.2]) {
        candidate.cpu = cpu;
    }
    assert_shares(Strategy::MinLoad, &candidates, &[0.0, 0.0, 1.0]);
}

#[test]
fn weighted_follows_inverse_load_up_to_twice_the_even_share() {
    // Weights 1/0.6, 1/0.6, 1/0.3, 1/0.3.
    assert_shares(
        Strategy::Weighted,
        &fleet(&[500.0, 500.0, 200.0, 200.0]),
        &[1.0 / 6.0, 1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0],
    );
    // 10 against four times 1/1.1: uncut it would get 73 %.
    assert_shares(Strategy::Weighted, &fleet(&[0.0, 1e3, 1e3, 1e3, 1e3]), &[0.4, 0.15, 0.15, 0.15, 0.15]);
    let mut larger = fleet(&[500.0, 500.0, 500.0]);
    larger[0] = Candidate { capacity: 2_000.0, connections: 1_000.0, ..larger[0] };
    assert_shares(Strategy::Weighted, &larger, &[0.5, 0.25, 0.25]);
}

#[test]
fn p2c_takes_the_better_of_two_so_that_ranks_decide() {
    // Of G candidates with different loads, rank r (from 0) wins against the G-1-r worse ones:
    // share (G-1-r) / (G choose 2).
    assert_shares(
        Strategy::P2c,
        &fleet(&[400.0, 100.0, 300.0, 200.0]),
        &[0.0, 3.0 / 6.0, 1.0 / 6.0, 2.0 / 6.0],
    );
    assert_shares(Strategy::P2c, &fleet(&[7.0; 4]), &[0.25; 4]);
}

#[test]
fn p2c_counts_its_own_assignments_and_the_capacity() {
    let mut own = fleet(&[100.0, 200.0]);
    own[0].own = 101.0;
    assert_shares(Strategy::P2c, &own, &[0.0, 1.0]);
    let mut larger = fleet(&[100.0, 200.0]);
    larger[1].capacity = 4_000.0;
    assert_shares(Strategy::P2c, &larger, &[0.0, 1.0]);
}

#[test]
fn no_lie_about_load_draws_more_than_twice_the_even_share() {
    for (connections, capacity) in [(0.0, 1_000.0), (0.0, 4_000.0), (0.0, 4e6)] {
        let mut candidates = fleet(&[600.0; 8]);
        candidates[3] = Candidate { connections, capacity, cpu: 0.0, ..candidates[3] };
        for strategy in [Strategy::Random, Strategy::RoundRobin, Strategy::Weighted, Strategy::P2c] {
            let share = shares(strategy, &candidates)[3];
            assert!(share <= 2.0 / 8.0 + 0.015, "{strategy}: {share}");
        }
    }
}

#[test]
fn equal_keys_meet_equal_draws_and_a_new_gateway_takes_only_its_share() {
    let before = fleet(&[100.0; 8]);
    let after: Vec<Candidate> = before.iter().copied().chain([candidate(9, 100.0)]).collect();
    for strategy in [Strategy::Random, Strategy::P2c] {
        let mut counts = [0.0; 8];
        let mut moved = 0.0;
        for n in 0..8_000_u32 {
            let key = n.to_be_bytes();
            let choose = |candidates: &[Candidate], seed| {
                let hints = Hints { last: None, key: Some(&key) };
                let mut rng = StdRng::seed_from_u64(seed);
                strategy.choose(candidates, hints, &mut rng).map(|pick| candidates[pick.chosen].gateway)
            };
            let chosen = choose(&before, 1);
            assert_eq!(chosen, choose(&before, 2), "whatever the randomness");
            counts[before.iter().position(|c| Some(c.gateway) == chosen).expect("one of them")] += 1.0;
            if choose(&after, 1) != chosen {
                moved += 1.0 / 8_000.0;
            }
        }
        assert!(counts.iter().all(|count| (900.0..1_100.0).contains(count)), "{strategy}: {counts:?}");
        assert!(moved < 0.25, "{strategy}: {moved}");
    }
}

#[test]
fn names_are_read_as_they_are_written() {
    for strategy in Strategy::ALL {
        assert_eq!(strategy.label().parse(), Ok(strategy));
        assert_eq!(serde_json::to_string(&strategy).expect("JSON"), format!("\"{strategy}\""));
    }
    assert!("P2C".parse::<Strategy>().is_err());
}

prop_compose! {
    fn any_candidate()(
        n: [u8; 16], connections in 0.0..5_000.0, capacity in 1.0..5_000.0, cpu in 0.0..=1.0, own in 0.0..5_000.0,
    ) -> Candidate {
        Candidate { gateway: GatewayId::new(n), connections, capacity, cpu, own }
    }
}

proptest! {
    #[test]
    fn every_strategy_chooses_a_candidate_and_the_same_under_the_same_seed(
        candidates in prop::collection::vec(any_candidate(), 0..12), seed: u64,
        last in prop::option::of(any::<[u8; 16]>()), key in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
    ) {
        let hints = Hints { last: last.map(GatewayId::new), key: key.as_deref() };
        for strategy in Strategy::ALL {
            let choose = || strategy.choose(&candidates, hints, &mut StdRng::seed_from_u64(seed));
            let pick = choose();
            prop_assert_eq!(pick, choose());
            prop_assert_eq!(pick.is_none(), candidates.is_empty());
            if let Some(pick) = pick {
                prop_assert!(pick.chosen < candidates.len());
                prop_assert!(pick.against.is_none_or(|against| against < candidates.len() && against != pick.chosen));
            }
        }
    }

    #[test]
    fn weighted_shares_are_shares(candidates in prop::collection::vec(any_candidate(), 1..12)) {
        let shares = weighted::shares(&candidates);
        prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{:?}", shares);
        let most = (2.0 / candidates.len() as f64).min(1.0);
        prop_assert!(shares.iter().all(|share| (0.0..=most + 1e-9).contains(share)), "{:?}", shares);
    }
}

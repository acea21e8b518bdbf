use super::*;
use crate::{
    fleet::{Fleet, Report, Source},
    ledger::Ledger,
};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

const PERIOD_MS: u64 = 500;

fn id(n: usize) -> GatewayId {
    GatewayId::new([n as u8 + 1; 16])
}

fn place(gateway: GatewayId) -> usize {
    usize::from(gateway.as_bytes()[0]) - 1
}

/// A fleet that reports every half second, and one mover or two that know nothing of each other.
struct World {
    fleet: Fleet,
    movers: Vec<Mover>,
    /// What is true, whatever is reported.
    connections: Vec<f64>,
    capacity: Vec<f64>,
    cpu: Vec<f64>,
    /// Givers that do not do what they are asked.
    deaf: Vec<usize>,
    /// Moves under way: when, from, to.
    underway: Vec<(u64, usize, usize)>,
    moved: u64,
    orders: Vec<(u64, Order)>,
    ended: Vec<Ended>,
    now: u64,
    rng: StdRng,
}

impl World {
    fn new(connections: &[f64]) -> Self {
        Self {
            fleet: Fleet::default(),
            movers: vec![Mover::default()],
            connections: connections.to_vec(),
            capacity: vec![15_000.0; connections.len()],
            cpu: vec![0.3; connections.len()],
            deaf: Vec::new(),
            underway: Vec::new(),
            moved: 0,
            orders: Vec::new(),
            ended: Vec::new(),
            now: 1_000_000,
            rng: StdRng::seed_from_u64(7),
        }
    }

    fn run(&mut self, seconds: u64) {
        self.run_lying(seconds, |_, _, _| {});
    }

    /// `lie` changes what a gateway reports.
    fn run_lying(&mut self, seconds: u64, mut lie: impl FnMut(usize, &mut Report, &mut StdRng)) {
        let end = self.now + 1_000 * seconds;
        while self.now < end {
            self.now += PERIOD_MS;
            self.arrive();
            for n in 0..self.connections.len() {
                let mut report = self.report(n);
                lie(n, &mut report, &mut self.rng);
                let _ = self.fleet.on_report(report, Moment(self.now));
            }
            let views = self.fleet.views(Moment(self.now), &Ledger::default());
            for at in 0..self.movers.len() {
                let ticked = self.movers[at].tick(&views, Moment(self.now), true, &mut self.rng);
                self.ended.extend(ticked.ended);
                ticked.orders.into_iter().for_each(|order| self.order(order));
            }
        }
    }

    fn order(&mut self, order: Order) {
        for (gateway, sessions) in &order.to {
            for _ in 0..*sessions {
                let at = self.now + self.rng.random_range(0..ROUND_MS) + 100;
                if !self.deaf.contains(&place(order.from)) {
                    self.underway.push((at, place(order.from), place(*gateway)));
                }
            }
        }
        self.orders.push((self.now, order));
    }

    fn arrive(&mut self) {
        let now = self.now;
        for (_, from, to) in self.underway.extract_if(.., |(at, _, _)| *at <= now) {
            if self.connections[from] >= 1.0 {
                self.connections[from] -= 1.0;
                self.connections[to] += 1.0;
                self.moved += 1;
            }
        }
    }

    fn report(&self, n: usize) -> Report {
        Report {
            source: Source::Heartbeat,
            gateway: id(n),
            url: format!("wss://g{n}"),
            agent: String::new(),
            versions: vec![1],
            count: Some(self.now),
            age_ms: 0,
            period_ms: PERIOD_MS,
            skew_ms: None,
            connections: Some(self.connections[n]),
            capacity: Some(self.capacity[n]),
            cpu: Some(self.cpu[n]),
            draining: Some(0.0),
        }
    }

    fn add(&mut self) {
        self.connections.push(0.0);
        self.capacity.push(15_000.0);
        self.cpu.push(0.1);
    }

    fn drain(&mut self, n: usize) {
        self.fleet.drain(id(n), true);
        self.movers.iter_mut().for_each(|mover| mover.empty(id(n), true));
    }

    fn max_over_mean(&self) -> f64 {
        let loads: Vec<f64> = self.connections.iter().zip(&self.capacity).map(|(c, of)| c / of).collect();
        loads.iter().copied().fold(0.0, f64::max) * loads.len() as f64 / loads.iter().sum::<f64>()
    }
}

#[test]
fn an_added_gateway_gets_its_share_and_then_nothing_moves_any_more() {
    for before in [1, 3, 8, 20] {
        let mut world = World::new(&vec![600.0; before]);
        world.run(30);
        assert_eq!(world.orders.len(), 0, "{before}: an even fleet stays as it is");
        world.add();
        world.run(60);
        assert!(world.max_over_mean() <= 1.2, "{before}: {:?}", world.connections);
        world.run(120);
        assert!(world.max_over_mean() <= 1.1, "{before}: {:?}", world.connections);
        let moved = world.moved;
        assert!(moved as f64 <= 600.0 * before as f64 / (before as f64 + 1.0), "{before}: {moved}");
        world.run(600);
        assert_eq!(world.moved, moved, "{before}: no oscillation");
        assert_eq!(world.ended.iter().filter(|ended| **ended != Ended::Seen).count(), 0);
    }
}

#[test]
fn rates_are_bounded_and_a_new_gateway_begins_slowly() {
    let mut world = World::new(&[vec![15_000.0; 9], vec![0.0]].concat());
    world.run(200);
    let mut rounds: BTreeMap<u64, u64> = BTreeMap::new();
    for (at, order) in &world.orders {
        assert!(order.sessions() <= 250, "50 a second for 5 s: {order:?}");
        *rounds.entry(*at).or_default() += order.sessions();
    }
    let rounds: Vec<u64> = rounds.into_values().collect();
    assert!(rounds[0] <= 250 && rounds[1] <= 500 && rounds.iter().all(|sum| *sum <= 1_000), "{rounds:?}");
    let mut small = World::new(&[60.0, 60.0, 60.0, 0.0]);
    small.run(60);
    assert!(small.orders.iter().all(|(_, order)| order.sessions() <= 6), "2% a second, or 5");
    assert!(small.max_over_mean() <= 1.2, "{:?}", small.connections);
}

#[test]
fn two_that_ask_at_once_overshoot_by_nothing() {
    let mut world = World::new(&[900.0, 900.0, 0.0]);
    world.movers.push(Mover::default());
    world.run(120);
    assert!(world.max_over_mean() <= 1.1, "{:?}", world.connections);
    assert!(world.moved <= 700, "{}", world.moved);
}

#[test]
fn one_that_takes_over_waits_for_the_round_of_the_other() {
    let mut world = World::new(&[900.0, 0.0]);
    world.run(2);
    let views = world.fleet.views(Moment(world.now), &Ledger::default());
    let mut other = Mover::default();
    assert_eq!(other.tick(&views, Moment(world.now), false, &mut world.rng), Ticked::default());
    world.movers[0] = other;
    let before = world.orders.len();
    world.run((ROUND_MS + EFFECT_MS) / 1_000);
    assert_eq!(world.orders.len(), before);
    world.run(60);
    assert!(world.orders.len() > before);
}

#[test]
fn a_person_empties_a_gateway_and_the_others_take_it_evenly() {
    let mut world = World::new(&[500.0, 500.0, 500.0]);
    world.run(5);
    world.drain(2);
    world.run(120);
    assert_eq!(world.connections[2], 0.0, "{:?}", world.connections);
    assert!((world.connections[0] - world.connections[1]).abs() < 60.0, "{:?}", world.connections);
    assert!(world.orders.iter().all(|(_, order)| order.reason == Reason::Drain && order.from == id(2)));
    // Drained without being emptied: its sessions stay.
    let mut world = World::new(&[500.0, 500.0, 500.0]);
    world.fleet.drain(id(2), true);
    world.run(60);
    assert_eq!(world.moved, 0);
}

#[test]
fn the_overloaded_give_a_bounded_part_and_do_not_get_it_back() {
    let mut world = World::new(&[1_000.0; 3]);
    world.cpu[0] = 0.97;
    world.run(29);
    assert_eq!(world.moved, 0, "not hot for long");
    world.run(400);
    assert!(world.connections[0] >= 490.0, "half of its share stays: {:?}", world.connections);
    assert!(world.connections[0] < 800.0, "{:?}", world.connections);
    world.cpu[0] = 0.5;
    let moved = world.moved;
    world.run(120);
    assert_eq!(world.moved, moved, "not to and fro");
    // All are hot, as several gateways of one machine are: nobody would gain.
    let mut world = World::new(&[1_000.0; 3]);
    world.cpu = vec![0.97; 3];
    world.run(120);
    assert_eq!(world.moved, 0);
    // Near its capacity, while another has room.
    let mut world = World::new(&[970.0, 820.0]);
    world.capacity = vec![1_000.0; 2];
    world.run(60);
    assert!(world.orders.iter().all(|(_, order)| order.reason == Reason::Full), "{:?}", world.orders);
    assert!((10..=60).contains(&world.moved), "{}", world.moved);
}

#[test]
fn nobody_moves_to_those_that_may_not_take_or_in_a_fleet_of_one() {
    let mut alone = World::new(&[1_000.0]);
    alone.run(60);
    assert_eq!(alone.orders.len(), 0);
    // 3 is silent after a while, 4 drains, 5 is drained by a person, 6 is full.
    let mut world = World::new(&[1_000.0, 100.0, 0.0, 0.0, 0.0, 10.0]);
    world.capacity[5] = 10.0;
    world.fleet.drain(id(4), true);
    let mut beats = 0;
    world.run_lying(60, |n, report, _| {
        beats += usize::from(n == 2);
        match n {
            2 if beats > 3 => report.url.clear(),
            3 => report.draining = Some(1.0),
            _ => {}
        }
    });
    let takers: BTreeSet<usize> =
        world.orders.iter().flat_map(|(_, order)| &order.to).map(|(gateway, _)| place(*gateway)).collect();
    assert_eq!(takers, BTreeSet::from([1]), "{:?}", world.orders);
}

/// What a gateway with 1,000 of 8,000 sessions may say, and how many move at most because of it.
#[test]
fn lies_move_few() {
    type Lie = fn(&mut Report, &mut StdRng);
    let lies: [(&str, Lie, u64); 9] = [
        ("NaN", |report, _| report.connections = Some(f64::NAN), 0),
        ("negative", |report, _| report.connections = Some(-5.0), 0),
        ("huge", |report, _| report.connections = Some(1e15), 0),
        ("no capacity", |report, _| report.capacity = Some(0.0), 0),
        ("capacity of NaN", |report, _| report.capacity = Some(f64::NAN), 0),
        (
            "now and then empty",
            |report, rng| {
                if rng.random_bool(0.3) {
                    report.connections = Some(0.0);
                }
            },
            100,
        ),
        ("always empty", |report, _| report.connections = Some(0.0), 500),
        ("always full", |report, _| report.connections = Some(15_000.0), 1_000),
        ("room for a million", |report, _| report.capacity = Some(1e6), 2_500),
    ];
    for (name, lie, most) in lies {
        let mut world = World::new(&[1_000.0; 8]);
        world.run_lying(600, |n, report, rng| {
            if n == 3 {
                lie(report, rng)
            }
        });
        assert!(world.moved <= most, "{name}: {} moved, {:?}", world.moved, world.connections);
    }
}

#[test]
fn noise_moves_nobody() {
    for noise in [0.05, 0.1, 0.2, 0.3] {
        let mut world = World::new(&[1_000.0; 8]);
        world.run_lying(600, |_, report, rng| {
            let factor = 1.0 + rng.random_range(-noise..noise);
            report.connections = report.connections.map(|count| (count * factor).round());
        });
        assert!(world.moved <= 40, "{noise}: {}", world.moved);
    }
}

#[test]
fn those_who_do_not_move_are_not_asked_for_ever() {
    let mut world = World::new(&[1_000.0, 1_000.0, 100.0]);
    world.deaf = vec![0, 1];
    world.run(1_800);
    let asked: u64 = world.orders.iter().map(|(_, order)| order.sessions()).sum();
    assert_eq!(world.moved, 0);
    assert!(asked < 1_000, "{asked} asked in half an hour");
    assert!(world.ended.contains(&Ended::Unseen));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// From any start: it becomes level, never by way of more moves than the distance, and stays.
    #[test]
    fn any_fleet_becomes_level_and_stays_so(
        start in prop::collection::vec(0_u16..2_000, 2..7), seed: u64,
    ) {
        let start: Vec<f64> = start.into_iter().map(f64::from).collect();
        prop_assume!(start.iter().sum::<f64>() >= 50.0 * start.len() as f64);
        let mut world = World::new(&start);
        world.rng = StdRng::seed_from_u64(seed);
        let mean = start.iter().sum::<f64>() / start.len() as f64;
        let distance: f64 = start.iter().map(|count| (count - mean).max(0.0)).sum();
        world.run(300);
        prop_assert!(world.max_over_mean() <= 1.2, "{:?}", world.connections);
        prop_assert!(world.moved as f64 <= 1.05 * distance + 5.0, "{} for {distance}", world.moved);
        let moved = world.moved;
        world.run(120);
        prop_assert_eq!(world.moved, moved);
    }

    /// Whatever one gateway says, none of the others is asked for more than its rate, and no panic.
    #[test]
    fn no_report_breaks_the_rates(
        numbers in prop::collection::vec((any::<f64>(), any::<f64>(), any::<f64>()), 1..20), seed: u64,
    ) {
        let mut world = World::new(&[500.0; 4]);
        world.rng = StdRng::seed_from_u64(seed);
        let mut at = 0;
        world.run_lying(60, |n, report, _| if n == 0 {
            at += 1;
            let (connections, capacity, cpu) = numbers[at % numbers.len()];
            (report.connections, report.capacity, report.cpu) = (Some(connections), Some(capacity), Some(cpu));
        });
        prop_assert!(world.orders.iter().all(|(_, order)| order.sessions() <= 250));
        prop_assert!(world.moved <= 60, "{}", world.moved);
    }
}

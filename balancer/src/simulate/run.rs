//! The events of one experiment, in order of time.

use super::{Failure, Join, LEVEL, Outcome, SAMPLE_MS, Scenario};
use crate::{
    dispatch::{Dispatcher, Request},
    fleet::{Report, Source},
    moment::Moment,
    mover::{Mover, Order, ROUND_MS},
    strategy::Strategy,
};
use fastchat_protocol::GatewayId;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

/// Limit: how often a client asks again before the simulation gives it up.
const ATTEMPTS: usize = 20;
/// Milliseconds until a client asks again after an attempt that failed.
const RETRY_MS: u64 = 250;
/// Milliseconds between two looks of a mover at the fleet.
const LOOK_MS: u64 = 500;
/// Shares of a second with fewer assignments say nothing.
const SHARE_OF: u64 = 100;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Before all else of its millisecond.
    Fail(usize),
    Back(usize),
    Join(usize),
    Sample,
    /// A balancer looks whether sessions should move.
    Look(usize),
    /// A session goes elsewhere.
    Leave {
        from: usize,
        to: usize,
    },
    /// A gateway looks at itself.
    Measure(usize),
    /// What it saw then reaches the balancers.
    Report {
        gateway: usize,
        connections: u64,
        taken: u64,
        count: u64,
    },
    /// A client asks for a gateway, without those that failed it.
    Ask {
        attempts: usize,
        without: Vec<usize>,
    },
    /// A session that moves, or a client.
    Arrive {
        from: usize,
        to: usize,
    },
    Connect {
        gateway: usize,
        attempts: usize,
        without: Vec<usize>,
    },
}

struct World<'a> {
    scenario: &'a Scenario,
    balancers: Vec<Dispatcher>,
    movers: Vec<Mover>,
    connections: Vec<u64>,
    up: Vec<bool>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    /// Orders events of one millisecond as they were made.
    made: u64,
    /// Clients that are neither connected nor given up.
    underway: u64,
    changes_left: usize,
    joined_at: Option<u64>,
    /// Max/mean at each sample.
    levels: Vec<(u64, f64)>,
    rng: StdRng,
    seconds: BTreeMap<u64, Vec<u64>>,
    outcome: Outcome,
}

/// Runs an experiment to its end: every client is connected or given up.
pub fn run(scenario: &Scenario, strategy: Strategy) -> Outcome {
    let gateways = scenario.capacities.len();
    let start = |n| scenario.start.get(n).copied().unwrap_or(0);
    let mut world = World {
        scenario,
        balancers: vec![Dispatcher::new(strategy); scenario.balancers.max(1)],
        movers: scenario.moves.map_or(Vec::new(), |limits| vec![Mover::new(limits); scenario.movers]),
        connections: (0..gateways).map(start).collect(),
        up: (0..gateways).map(|n| !scenario.joins.iter().any(|join| join.gateway == n)).collect(),
        events: BinaryHeap::new(),
        made: 0,
        underway: 0,
        changes_left: scenario.failures.len() + scenario.joins.len(),
        joined_at: None,
        levels: Vec::new(),
        rng: StdRng::seed_from_u64(scenario.seed),
        seconds: BTreeMap::new(),
        outcome: Outcome {
            strategy,
            max_over_mean: 1.0,
            peak_share: 0.0,
            failed_attempts: 0,
            unserved: 0,
            moved: 0,
            level_after_ms: None,
            connections: Vec::new(),
            history: Vec::new(),
        },
    };
    world.prepare();
    world.play();
    world.finish()
}

impl World<'_> {
    /// What is known from the start. Clients come once every gateway was heard.
    fn prepare(&mut self) {
        let first = self.scenario.report_age_ms + self.scenario.report_period_ms;
        for gateway in 0..self.connections.len() {
            let phase = self.rng.random_range(0..self.scenario.report_period_ms.max(1));
            self.push(phase, Event::Measure(gateway));
        }
        for Failure { gateway, at_ms, back_ms } in self.scenario.failures.clone() {
            self.push(first + at_ms, Event::Fail(gateway));
            if let Some(back) = back_ms {
                self.push(first + back, Event::Back(gateway));
            }
        }
        for Join { gateway, at_ms } in self.scenario.joins.clone() {
            self.push(first + at_ms, Event::Join(gateway));
        }
        for mover in 0..self.movers.len() {
            self.push(first, Event::Look(mover));
        }
        for at in self.scenario.arrivals.times(&mut self.rng) {
            self.arrive(first + at);
        }
        self.push(first, Event::Sample);
    }

    fn arrive(&mut self, at: u64) {
        self.underway += 1;
        self.push(at, Event::Ask { attempts: 0, without: Vec::new() });
    }

    fn push(&mut self, at: u64, event: Event) {
        self.made += 1;
        self.events.push(Reverse((at, self.made, event)));
    }

    fn play(&mut self) {
        let mut quiet_since = None;
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            let since = quiet_since.get_or_insert(now);
            if self.underway > 0 || self.changes_left > 0 {
                *since = now;
            } else if now > *since + self.scenario.settle_ms {
                return;
            }
            self.on_event(now, event);
        }
    }

    fn on_event(&mut self, now: u64, event: Event) {
        match event {
            Event::Measure(gateway) => self.on_measure(gateway, now),
            Event::Report { gateway, connections, taken, count } => {
                let report = self.report(gateway, connections, now - taken, count);
                for balancer in &mut self.balancers {
                    // A simulated report is a good one.
                    let _ = balancer.fleet.on_report(report.clone(), Moment(now));
                }
            }
            Event::Ask { attempts, without } => self.on_ask(now, attempts, without),
            Event::Connect { gateway, attempts, without } => self.on_connect(gateway, now, attempts, without),
            Event::Fail(gateway) => self.on_fail(gateway, now),
            Event::Back(gateway) => self.up[gateway] = true,
            Event::Join(gateway) => {
                self.changes_left -= 1;
                (self.up[gateway], self.joined_at) = (true, Some(now));
            }
            Event::Look(mover) => self.on_look(mover, now),
            Event::Leave { from, to } => {
                self.outcome.moved += 1;
                self.push(now + self.scenario.connect_ms, Event::Arrive { from, to });
            }
            Event::Arrive { from, to } => self.on_arrive(from, to),
            Event::Sample => {
                self.levels.push((now, self.max_over_mean()));
                self.outcome.history.push(self.connections.clone());
                self.push(now + SAMPLE_MS, Event::Sample);
            }
        }
    }

    fn on_measure(&mut self, gateway: usize, now: u64) {
        let (connections, count) = (self.connections[gateway], self.made);
        if self.up[gateway] {
            let report = Event::Report { gateway, connections, taken: now, count };
            self.push(now + self.scenario.report_age_ms, report);
        }
        self.push(now + self.scenario.report_period_ms.max(1), Event::Measure(gateway));
    }

    fn report(&self, gateway: usize, connections: u64, age_ms: u64, count: u64) -> Report {
        let capacity = self.scenario.capacities[gateway] as f64;
        let connections = connections as f64;
        Report {
            source: Source::Heartbeat,
            gateway: id(gateway),
            url: format!("ws://{gateway}"),
            agent: String::new(),
            versions: Vec::new(),
            count: Some(count),
            age_ms: age_ms as i64,
            // Three periods of silence are counted from when the report was taken.
            period_ms: self.scenario.report_period_ms + self.scenario.report_age_ms,
            skew_ms: None,
            connections: Some(connections),
            capacity: Some(capacity),
            // A processor does work in proportion to its clients.
            cpu: Some((connections / capacity).min(1.0)),
            draining: Some(0.0),
        }
    }

    fn on_ask(&mut self, now: u64, attempts: usize, without: Vec<usize>) {
        let exclude = without.iter().map(|gateway| id(*gateway).to_string()).collect();
        let asked = self.rng.random_range(0..self.balancers.len());
        let request = Request { exclude, ..Request::default() };
        match self.balancers[asked].assign(&request, Moment(now), &mut self.rng) {
            Ok(decision) => {
                let gateway = place(decision.target.gateway);
                self.seconds.entry(now / 1_000).or_insert_with(|| vec![0; self.connections.len()])
                    [gateway] += 1;
                self.push(now + self.scenario.connect_ms, Event::Connect { gateway, attempts, without });
            }
            Err(_) => self.again(now, attempts, without),
        }
    }

    fn on_look(&mut self, mover: usize, now: u64) {
        self.push(now + LOOK_MS, Event::Look(mover));
        let views = self.balancers[mover % self.scenario.balancers.max(1)].views(Moment(now));
        let ticked = self.movers[mover].tick(&views, Moment(now), true, &mut self.rng);
        for Order { from, to, .. } in ticked.orders {
            for (gateway, sessions) in to {
                for _ in 0..sessions {
                    let at = now + self.rng.random_range(0..ROUND_MS);
                    self.push(at, Event::Leave { from: place(from), to: place(gateway) });
                }
            }
        }
    }

    /// The old connection ends when the new one is there, and stays if it fails.
    fn on_arrive(&mut self, from: usize, to: usize) {
        let fits = self.up[to] && self.connections[to] < self.scenario.capacities[to];
        if fits && self.connections[from] > 0 {
            self.connections[from] -= 1;
            self.connections[to] += 1;
        }
    }

    fn on_connect(&mut self, gateway: usize, now: u64, attempts: usize, mut without: Vec<usize>) {
        let full = self.connections[gateway] >= self.scenario.capacities[gateway];
        if self.up[gateway] && !full {
            self.connections[gateway] += 1;
            self.underway -= 1;
            return;
        }
        self.outcome.failed_attempts += 1;
        without.push(gateway);
        self.again(now, attempts, without);
    }

    fn again(&mut self, now: u64, attempts: usize, without: Vec<usize>) {
        if attempts + 1 >= ATTEMPTS {
            self.outcome.unserved += 1;
            self.underway -= 1;
        } else {
            self.push(now + RETRY_MS, Event::Ask { attempts: attempts + 1, without });
        }
    }

    fn on_fail(&mut self, gateway: usize, now: u64) {
        self.changes_left -= 1;
        self.up[gateway] = false;
        for _ in 0..std::mem::take(&mut self.connections[gateway]) {
            let wait = self.rng.random_range(0..=self.scenario.reconnect_window_ms);
            self.arrive(now + wait);
        }
    }

    fn finish(mut self) -> Outcome {
        self.outcome.max_over_mean = self.max_over_mean();
        let uneven = self.levels.iter().rev().find(|(_, level)| *level > LEVEL).map(|(at, _)| *at);
        let level_at = if self.outcome.max_over_mean > LEVEL { None } else { Some(uneven.unwrap_or(0)) };
        self.outcome.level_after_ms =
            self.joined_at.zip(level_at).map(|(joined, level)| level.saturating_sub(joined));
        let share = |counts: &Vec<u64>| {
            let all: u64 = counts.iter().sum();
            let most = counts.iter().max().copied().unwrap_or(0);
            (all >= SHARE_OF).then(|| most as f64 / all as f64)
        };
        self.outcome.peak_share = self.seconds.values().filter_map(share).fold(0.0, f64::max);
        self.outcome.connections = self.connections;
        self.outcome
    }

    fn max_over_mean(&self) -> f64 {
        let up = (0..self.up.len()).filter(|n| self.up[*n]);
        let loads: Vec<f64> =
            up.map(|n| self.connections[n] as f64 / self.scenario.capacities[n] as f64).collect();
        let mean = loads.iter().sum::<f64>() / loads.len().max(1) as f64;
        let most = loads.iter().copied().fold(0.0, f64::max);
        if mean > 0.0 { most / mean } else { 1.0 }
    }
}

/// The id of a simulated gateway holds its place.
fn id(gateway: usize) -> GatewayId {
    GatewayId::new((gateway as u128).to_be_bytes())
}

fn place(gateway: GatewayId) -> usize {
    let bytes = gateway.as_bytes();
    usize::from(u16::from_be_bytes([bytes[14], bytes[15]]))
}

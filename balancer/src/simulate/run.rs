//! The events of one experiment, in order of time.

use super::{Failure, Outcome, SAMPLE_MS, Scenario};
use crate::{
    dispatch::{Dispatcher, Request},
    fleet::{Report, Source},
    moment::Moment,
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
/// Milliseconds that the simulation goes on after the last client came.
const SETTLE_MS: u64 = 1_000;
/// Shares of a second with fewer assignments say nothing.
const SHARE_OF: u64 = 100;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Before all else of its millisecond.
    Fail(usize),
    Back(usize),
    Sample,
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
    Connect {
        gateway: usize,
        attempts: usize,
        without: Vec<usize>,
    },
}

struct World<'a> {
    scenario: &'a Scenario,
    balancers: Vec<Dispatcher>,
    connections: Vec<u64>,
    up: Vec<bool>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    /// Orders events of one millisecond as they were made.
    made: u64,
    /// Clients that are neither connected nor given up.
    underway: u64,
    failures_left: usize,
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
        connections: (0..gateways).map(start).collect(),
        up: vec![true; gateways],
        events: BinaryHeap::new(),
        made: 0,
        underway: 0,
        failures_left: scenario.failures.len(),
        rng: StdRng::seed_from_u64(scenario.seed),
        seconds: BTreeMap::new(),
        outcome: Outcome {
            strategy,
            max_over_mean: 1.0,
            peak_share: 0.0,
            failed_attempts: 0,
            unserved: 0,
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
            if self.underway > 0 || self.failures_left > 0 {
                *since = now;
            } else if now > *since + SETTLE_MS {
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
            Event::Sample => {
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
                let gateway = usize::from(u16::from_be_bytes([
                    decision.target.gateway.as_bytes()[14],
                    decision.target.gateway.as_bytes()[15],
                ]));
                self.seconds.entry(now / 1_000).or_insert_with(|| vec![0; self.connections.len()])
                    [gateway] += 1;
                self.push(now + self.scenario.connect_ms, Event::Connect { gateway, attempts, without });
            }
            Err(_) => self.again(now, attempts, without),
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
        self.failures_left -= 1;
        self.up[gateway] = false;
        for _ in 0..std::mem::take(&mut self.connections[gateway]) {
            let wait = self.rng.random_range(0..=self.scenario.reconnect_window_ms);
            self.arrive(now + wait);
        }
    }

    fn finish(mut self) -> Outcome {
        let up = || (0..self.up.len()).filter(|n| self.up[*n]);
        let loads: Vec<f64> =
            up().map(|n| self.connections[n] as f64 / self.scenario.capacities[n] as f64).collect();
        let mean = loads.iter().sum::<f64>() / loads.len().max(1) as f64;
        let most = loads.iter().copied().fold(0.0, f64::max);
        self.outcome.max_over_mean = if mean > 0.0 { most / mean } else { 1.0 };
        let share = |counts: &Vec<u64>| {
            let all: u64 = counts.iter().sum();
            let most = counts.iter().max().copied().unwrap_or(0);
            (all >= SHARE_OF).then(|| most as f64 / all as f64)
        };
        self.outcome.peak_share = self.seconds.values().filter_map(share).fold(0.0, f64::max);
        self.outcome.connections = self.connections;
        self.outcome
    }
}

/// The id of a simulated gateway holds its place.
fn id(gateway: usize) -> GatewayId {
    GatewayId::new((gateway as u128).to_be_bytes())
}

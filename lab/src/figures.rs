//! What a run says in the end: figures with units, and whether they may be believed.

mod files;
mod verdict;

pub use files::FileFigures;
pub use verdict::Verdict;

use crate::{
    drive::{Load, Outcome},
    floors::Floors,
    machine::{DRIVER, Machine},
    plan::Pattern,
    record::Counted,
    tally::{Latencies, Second},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use verdict::Shares;

/// A deployment that somebody else has started.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Lets accounts register there.
    pub invite: Option<String>,
    /// Its processes, if they are on this machine.
    pub pids: Vec<u32>,
}

/// Who writes to whom on what, under which load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Experiment {
    /// See [`crate::target::choose`].
    pub target: String,
    /// Who writes to whom.
    pub pattern: Pattern,
    /// How many clients there are.
    pub clients: usize,
    /// How many of a group write.
    pub senders: usize,
    /// Messages are really sealed and opened.
    #[serde(default)]
    pub seal: bool,
    /// What the target must know besides, and no report says.
    #[serde(skip)]
    pub given: Given,
    /// With what.
    #[serde(flatten)]
    pub load: Load,
}

impl Default for Experiment {
    fn default() -> Self {
        Self {
            target: "embedded".to_owned(),
            pattern: Pattern::Pairs,
            clients: 20,
            senders: 1,
            seal: false,
            given: Given::default(),
            load: Load::default(),
        }
    }
}

/// A run's figures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figures {
    /// What was run.
    pub experiment: Experiment,
    /// The target's name.
    pub target: String,
    /// Versions and settings.
    pub about: Vec<(String, String)>,
    /// Where, and what else was running.
    pub machine: Machine,
    /// Whether anything was wrong.
    pub verdict: Verdict,
    /// Counts over the whole run, warm-up and all.
    pub counts: Counts,
    /// How late the driver sent, microseconds.
    pub lag_us: Percentiles,
    /// From when a message was due until it was acknowledged, microseconds.
    pub acked_us: Percentiles,
    /// From when a message was due until somebody received it, microseconds.
    pub delivered_us: Percentiles,
    /// What the parts take by themselves, for FastChat.
    pub floors: Option<Floors>,
    /// The latencies as multiples of their floors.
    pub multiples: Option<Multiples>,
    /// Acknowledged messages a second, in the measured part.
    pub acked_per_s: f64,
    /// Deliveries a second, in the measured part.
    pub delivered_per_s: f64,
    /// Processor time and memory by component.
    pub components: BTreeMap<String, Cost>,
    /// Processor time of everything but the driver, microseconds a message, where it is known.
    pub server_cpu_us_per_message: Option<f64>,
    /// The same for each delivery.
    pub server_cpu_us_per_delivery: Option<f64>,
    /// The driver's share of all processor time that was used.
    pub driver_share: f64,
    /// Of files, if there were any.
    pub files: Option<FileFigures>,
    /// The share of the processors that the machine's host gave to others meanwhile.
    pub stolen_share: f64,
    /// Second by second.
    pub seconds: Vec<Moment>,
    /// Some messages: number, due (s), acknowledged after (us).
    #[serde(skip)]
    pub acks: Vec<(u64, u64, u64)>,
    /// The same until received.
    #[serde(skip)]
    pub deliveries: Vec<(u64, u64, u64)>,
}

/// Counts of a run.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Counts {
    /// Given to the target.
    pub sent: u64,
    /// Acknowledged.
    pub acked: u64,
    /// Refused for good.
    pub refused: u64,
    /// Refused for now, and sent again.
    pub deferred: u64,
    /// Deliveries that should have been.
    pub expected: u64,
    /// Deliveries that were.
    pub delivered: u64,
    /// Deliveries that never were.
    pub lost: u64,
    /// Deliveries that were twice.
    pub duplicated: u64,
    /// Deliveries after a later one of the same sender and conversation.
    pub disordered: u64,
    /// Messages that the driver had no room for.
    pub overflowed: u64,
    /// Times that a client has lost its connection and come back.
    pub reconnected: u64,
}

/// Of latencies, microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half were faster.
    pub p50: u64,
    /// Nine of ten were faster.
    pub p90: u64,
    /// Ninety-nine of a hundred were faster.
    pub p99: u64,
    /// All but one of a thousand were faster.
    pub p999: u64,
    /// The slowest.
    pub max: u64,
    /// How many there were.
    pub count: u64,
}

/// Latencies over the floor that they stand on.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Multiples {
    /// Of the median until acknowledged.
    pub ack_p50: f64,
    /// Of the 99th percentile until acknowledged.
    pub ack_p99: f64,
    /// Of the median until delivered.
    pub delivered_p50: f64,
    /// Of the 99th percentile until delivered.
    pub delivered_p99: f64,
}

/// What a component used in the measured part.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Cost {
    /// Processor time, microseconds a message.
    pub cpu_us_per_message: f64,
    /// Processors in use, on average.
    pub cores: f64,
    /// Resident memory at its end, bytes.
    pub rss_bytes: u64,
}

/// One second of a run.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Moment {
    /// Since the run began.
    pub second: usize,
    /// Messages sent in it.
    pub sent: u64,
    /// Messages acknowledged in it.
    pub acked: u64,
    /// Deliveries in it.
    pub delivered: u64,
    /// Median latency of these deliveries, microseconds.
    pub p50_us: u64,
    /// Their 99th percentile.
    pub p99_us: u64,
}

impl Percentiles {
    /// Of a histogram.
    pub fn of(latencies: &Latencies) -> Self {
        let at = |quantile| latencies.value_at_quantile(quantile);
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: latencies.max(),
            count: latencies.len(),
        }
    }
}

impl Figures {
    /// Of an outcome.
    pub fn of(
        experiment: Experiment,
        target: String,
        about: Vec<(String, String)>,
        outcome: Outcome,
    ) -> Self {
        let Counted { sent, acked, refused, deferred, delivered, overflowed, reconnected, .. } =
            outcome.counted;
        let faults = outcome.faults;
        let counts = Counts {
            sent,
            acked,
            refused,
            deferred,
            expected: outcome.expected,
            delivered,
            lost: faults.lost,
            duplicated: faults.duplicated,
            disordered: faults.disordered,
            overflowed,
            reconnected,
        };
        let (measured_s, tally) = (outcome.measured_s.max(0.001), outcome.tally);
        let count = tally.acked.len() + tally.files.announced.len();
        let deliveries = tally.delivered.len() + tally.files.fetched.len();
        let messages = count.max(1) as f64;
        let cost = |cpu_us: u64, rss_bytes| Cost {
            cpu_us_per_message: cpu_us as f64 / messages,
            cores: cpu_us as f64 / 1e6 / measured_s,
            rss_bytes,
        };
        let all: u64 = outcome.used.values().map(|usage| usage.cpu_us).sum();
        let driver = outcome.used.get(DRIVER).map_or(0, |usage| usage.cpu_us);
        let driver_share = driver as f64 / all.max(1) as f64;
        let is_known = outcome.used.keys().any(|name| name != DRIVER);
        let servers = |count: f64| is_known.then(|| (all - driver) as f64 / count);
        let lag_us = Percentiles::of(&tally.lag);
        let shares = Shares {
            of_used: driver_share,
            of_cores: driver as f64 / 1e6 / measured_s / outcome.machine.cores as f64,
            stolen: outcome.stolen,
        };
        let verdict =
            Verdict::of(&experiment, &counts, &lag_us, shares, &outcome.machine, outcome.complaints);
        Self {
            experiment,
            target,
            about,
            machine: outcome.machine,
            verdict,
            counts,
            lag_us,
            acked_us: Percentiles::of(&tally.acked),
            delivered_us: Percentiles::of(&tally.delivered),
            floors: None,
            multiples: None,
            acked_per_s: count as f64 / measured_s,
            delivered_per_s: deliveries as f64 / measured_s,
            components: outcome
                .used
                .iter()
                .map(|(name, usage)| (name.clone(), cost(usage.cpu_us, usage.rss_bytes)))
                .collect(),
            server_cpu_us_per_message: servers(messages),
            server_cpu_us_per_delivery: servers(deliveries.max(1) as f64),
            driver_share,
            files: FileFigures::of(&tally, measured_s, &servers),
            stolen_share: outcome.stolen,
            seconds: tally.seconds.iter().enumerate().map(moment).collect(),
            acks: tally.acks,
            deliveries: tally.deliveries,
        }
    }

    /// With floors that were measured beside the run.
    #[must_use]
    pub fn beside(mut self, floors: Option<Floors>) -> Self {
        let over = |us: u64, floor_us: u64| us as f64 / floor_us.max(1) as f64;
        let multiples = |ack_us: u64, delivered_us: u64| Multiples {
            ack_p50: over(self.acked_us.p50, ack_us),
            ack_p99: over(self.acked_us.p99, ack_us),
            delivered_p50: over(self.delivered_us.p50, delivered_us),
            delivered_p99: over(self.delivered_us.p99, delivered_us),
        };
        self.multiples = floors.and_then(|of| Some(multiples(of.ack_us()?, of.delivered_us()?)));
        self.floors = floors;
        self
    }
}

fn moment((second, what): (usize, &Second)) -> Moment {
    let at = |quantile| what.latencies.value_at_quantile(quantile);
    let Second { sent, acked, delivered, .. } = *what;
    Moment { second, sent, acked, delivered, p50_us: at(0.5), p99_us: at(0.99) }
}

//! One run: load on a target for a while, and what became of it.

use crate::{
    arrivals::{Arrivals, Schedule},
    loops,
    machine::{self, Component, Machine, Time, Usage},
    order::Faults,
    pacer::{self, Dealer, Shot},
    plan::{Pattern, Plan},
    priority::First,
    record::{Counted, Ear, Recorder},
    span::Span,
    tally::Tally,
    target::Link,
};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// With no answer and no delivery for so long, nothing more is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between looks at whether everything has come.
const LOOK: Duration = Duration::from_millis(20);
/// Messages whose latency is kept one by one, about.
const KEEP: u64 = 5_000;

/// What a target is loaded with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Load {
    /// Messages a second, for all clients together (open loop).
    pub rate: f64,
    /// Instead of a rate: messages that each lane may have on its way (closed loop).
    pub window: Option<usize>,
    /// How the messages of an open loop come.
    pub arrivals: Arrivals,
    /// Bytes of a message.
    pub size: usize,
    /// The share of messages that bring a file.
    pub files: f64,
    /// Bytes of a file.
    pub file_bytes: Span,
    /// Clients a second, of all together, that lose their connection and come back (FastChat).
    pub reconnects: f64,
    /// Seconds that are judged but not measured.
    pub warm_up_s: f64,
    /// Seconds that are measured.
    pub duration_s: f64,
    /// Draws moments and lanes.
    pub seed: u64,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            rate: 500.0,
            window: None,
            arrivals: Arrivals::Exponential,
            size: 256,
            files: 0.0,
            file_bytes: Span::new(20_000, 200_000).expect("a range"),
            reconnects: 0.0,
            warm_up_s: 2.0,
            duration_s: 10.0,
            seed: 1,
        }
    }
}

impl Load {
    /// What a pattern is usually loaded with.
    pub fn usual(pattern: Pattern) -> Self {
        match pattern {
            Pattern::Mixed => {
                Self { arrivals: Arrivals::Bursty, files: 0.02, reconnects: 1.0, ..Self::default() }
            }
            _ => Self::default(),
        }
    }

    fn end(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_s + self.duration_s)
    }
}

/// What became of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Counts, warm-up and all.
    pub counted: Counted,
    /// Deliveries that all messages together should have made.
    pub expected: u64,
    /// What was wrong with what was delivered.
    pub faults: Faults,
    /// The first few complaints.
    pub complaints: Vec<String>,
    /// Latencies and series of the measured part.
    pub tally: Tally,
    /// What each component used within the measured part.
    pub used: BTreeMap<String, Usage>,
    /// Seconds of the measured part, until the last delivery.
    pub measured_s: f64,
    /// The share of the processors that the machine's host gave to others in it.
    pub stolen: f64,
    /// The machine, before the run.
    pub machine: Machine,
}

/// Told while a run goes on: seconds since it began, and counts.
pub type Progress<'a> = &'a (dyn Fn(f64, Counted) + Sync);

/// Puts a load on connected clients, and gives them back.
pub async fn run(
    links: Vec<Box<dyn Link>>,
    plan: &Plan,
    load: &Load,
    components: &[Component],
    progress: Progress<'_>,
) -> Result<(Vec<Box<dyn Link>>, Outcome)> {
    // Where that is not allowed, the report says so.
    let first = First::raise();
    let machine = Machine::look(first.priority())?;
    let messages = (load.rate * load.end().as_secs_f64()) as u64;
    let (windows, returned) = match load.window {
        Some(window) => {
            let (sender, receiver) = mpsc::channel(window * plan.lanes.len() + 1);
            (Some(sender), Some(receiver))
        }
        None => (None, None),
    };
    let recorder = Recorder::new(Duration::from_secs_f64(load.warm_up_s), messages, KEEP, windows);
    let (senders, receivers): (Vec<_>, Vec<_>) = links.iter().map(|_| mpsc::channel(pacer::QUEUE)).unzip();
    let dealer = Dealer::new(plan, load, senders, Arc::clone(&recorder));
    let clients = Clients::spawn(links, receivers, &recorder);
    let run = Run { plan, load, recorder: &recorder, components: with_driver(components), progress };
    let watched = run.watch(dealer, returned).await?;
    let (links, ears) = clients.end().await?;
    let outcome = Outcome {
        counted: recorder.counted(),
        expected: run.expected(&watched.turns),
        faults: judge(plan, &watched.turns, &ears),
        complaints: recorder.complaints(),
        tally: recorder.tally(),
        used: watched.used,
        measured_s: watched.measured_s,
        stolen: watched.stolen,
        machine,
    };
    Ok((links, outcome))
}

fn with_driver(components: &[Component]) -> Vec<Component> {
    components.iter().cloned().chain([Component::driver()]).collect()
}

/// Running clients.
struct Clients {
    tasks: JoinSet<(Box<dyn Link>, Ear)>,
    end: CancellationToken,
}

impl Clients {
    fn spawn(
        links: Vec<Box<dyn Link>>,
        receivers: Vec<mpsc::Receiver<Shot>>,
        recorder: &Arc<Recorder>,
    ) -> Self {
        let (mut tasks, end) = (JoinSet::new(), CancellationToken::new());
        for (client, (mut link, shots)) in links.into_iter().zip(receivers).enumerate() {
            let (mut ear, end) = (Ear::new(client, recorder), end.clone());
            let living = async move {
                if let Err(error) = link.run(shots, &mut ear, end).await {
                    ear.complain(format!("a client ended: {error:#}"));
                }
                (link, ear)
            };
            tasks.spawn_on(living, loops::of(client));
        }
        Self { tasks, end }
    }

    /// Ends all of them; in the order in which they were given.
    async fn end(self) -> Result<(Vec<Box<dyn Link>>, Vec<Ear>)> {
        self.end.cancel();
        let mut ended = self.tasks.join_all().await;
        ended.sort_by_key(|(_, ear)| ear.client());
        Ok(ended.into_iter().unzip())
    }
}

struct Run<'a> {
    plan: &'a Plan,
    load: &'a Load,
    recorder: &'a Recorder,
    components: Vec<Component>,
    progress: Progress<'a>,
}

struct Watched {
    turns: Vec<u32>,
    used: BTreeMap<String, Usage>,
    measured_s: f64,
    stolen: f64,
}

impl Run<'_> {
    async fn watch(&self, dealer: Dealer, returned: Option<mpsc::Receiver<u32>>) -> Result<Watched> {
        let warm_up = Duration::from_secs_f64(self.load.warm_up_s);
        let stop = CancellationToken::new();
        let dealing = async {
            match returned {
                Some(returned) => Ok(self.deal_windows(dealer, returned).await),
                None => self.deal_by_clock(dealer, &stop).await,
            }
        };
        let measuring = async {
            tokio::time::sleep_until((self.recorder.begin() + warm_up).into()).await;
            anyhow::Ok((machine::usage(&self.components)?, Time::now()?, Instant::now()))
        };
        let telling = async {
            let mut ticks = tokio::time::interval(Duration::from_secs(1));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                (self.progress)(self.recorder.begin().elapsed().as_secs_f64(), self.recorder.counted());
            }
        };
        let whole = async {
            let (dealer, before) = tokio::join!(dealing, measuring);
            let (dealer, (before, time, since)) = (dealer?, before?);
            let last = self.drain(dealer.turns()).await;
            let used = machine::between(&before, &machine::usage(&self.components)?);
            let measured_s = last.saturating_duration_since(since).as_secs_f64();
            let stolen = Time::now()?.stolen_since(time);
            anyhow::Ok(Watched { turns: dealer.turns().to_vec(), used, measured_s, stolen })
        };
        tokio::select! {
            watched = whole => watched,
            () = telling => unreachable!("it tells for ever"),
        }
    }

    async fn deal_by_clock(&self, dealer: Dealer, stop: &CancellationToken) -> Result<Dealer> {
        let moments = Schedule::new(self.load.arrivals, self.load.rate, self.load.seed)?;
        let lanes = self.plan.turns(self.load.seed);
        // Whoever gives the run up stops the thread too.
        let _guard = stop.clone().drop_guard();
        let pacer = pacer::spawn(dealer, moments, lanes, self.load.end(), stop.clone());
        let joined = tokio::task::spawn_blocking(move || pacer.join()).await?;
        joined.ok().context("the pacer failed")
    }

    async fn deal_windows(&self, mut dealer: Dealer, mut returned: mpsc::Receiver<u32>) -> Dealer {
        let end = self.recorder.begin() + self.load.end();
        for _ in 0..self.load.window.unwrap_or(1) {
            self.plan.looped().for_each(|lane| dealer.deal(lane, self.recorder.now_us()));
        }
        while let Ok(Some(lane)) = tokio::time::timeout_at(end.into(), returned.recv()).await {
            dealer.deal(lane as usize, self.recorder.now_us());
        }
        dealer
    }

    /// Waits until everything was acknowledged and delivered, or nothing moves any more; when the last
    /// of it came.
    async fn drain(&self, turns: &[u32]) -> Instant {
        // Counted where they were dealt: the last ones may not have reached their clients yet.
        let dealt: u64 = turns.iter().copied().map(u64::from).sum();
        let expected = self.expected(turns);
        let (mut before, mut moved) = (Counted::default(), Instant::now());
        loop {
            // Clients come and go whatever becomes of messages.
            let now = Counted { reconnected: 0, ..self.recorder.counted() };
            if now != before {
                (before, moved) = (now, Instant::now());
            }
            let answered = now.acked + now.refused >= dealt && now.delivered >= expected;
            if answered || moved.elapsed() > PATIENCE {
                return moved;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn expected(&self, turns: &[u32]) -> u64 {
        let of = |(lane, turns): (usize, &u32)| self.plan.receivers(lane).count() as u64 * u64::from(*turns);
        turns.iter().enumerate().map(of).sum()
    }
}

/// Holds what everybody received against what was sent.
fn judge(plan: &Plan, turns: &[u32], ears: &[Ear]) -> Faults {
    let mut all = Faults::default();
    for (ear, lanes) in ears.iter().zip(plan.received_lanes()) {
        all += ear.judge(lanes.into_iter().map(|lane| (lane as u32, turns[lane])));
    }
    all
}

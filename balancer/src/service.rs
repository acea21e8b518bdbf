//! The running balancer: one lock around the dispatcher, held for microseconds and never across an
//! `await`; a clock and randomness for the pure parts.

use crate::{
    Config,
    dispatch::{Decision, Dispatcher, NoGateway, Request, Target},
    fleet::{Report, Source, State, View},
    metrics,
    moment::Moment,
    strategy::Strategy,
};
use fastchat_protocol::GatewayId;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio_util::sync::CancellationToken;

/// How often gauges are set and the long silent forgotten.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What listeners and sources share.
#[derive(Debug)]
pub struct Balancer {
    /// As validated.
    pub config: Config,
    /// Cancelled when the balancer ends.
    pub ending: CancellationToken,
    started: Instant,
    heartbeats_up: AtomicBool,
    prometheus_up: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    dispatcher: Dispatcher,
    rng: StdRng,
}

/// A gateway with the ticket that admits there.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The gateway.
    pub target: Target,
    /// Signed, if the balancer has a key.
    pub ticket: Option<Vec<u8>>,
}

/// A decision with tickets.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The chosen one.
    pub first: Admission,
    /// Others.
    pub alternatives: Vec<Admission>,
    /// When the tickets expire, in milliseconds since 1970; none without tickets.
    pub expires_at_ms: Option<u64>,
    /// Why.
    pub decision: Decision,
}

/// No single gateway has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// None.
    #[error("no gateway has the id, the beginning of an id (at least 4 digits) or the URL {0:?}")]
    Unknown(String),
    /// Several.
    #[error("{0:?} begins the ids of {1} gateways: give more digits")]
    Ambiguous(String, usize),
}

impl Balancer {
    /// An empty one, with randomness from the system.
    pub fn new(config: Config) -> anyhow::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let dispatcher = Dispatcher::new(config.strategy);
        metrics::strategy(config.strategy);
        Ok(Self {
            config,
            ending: CancellationToken::new(),
            started: Instant::now(),
            heartbeats_up: AtomicBool::new(false),
            prometheus_up: AtomicBool::new(false),
            inner: Mutex::new(Inner { dispatcher, rng: StdRng::from_seed(seed) }),
        })
    }

    /// Now, by this process's clock.
    pub fn now(&self) -> Moment {
        // Begins late enough that a report can be as old as it likes.
        Moment(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)).plus(FIRST_MOMENT_MS)
    }

    /// A source has a report.
    pub fn on_report(&self, report: Report) {
        let (source, now) = (report.source, self.now());
        let taken = self.lock().dispatcher.fleet.on_report(report, now);
        metrics::report(source, taken.err().map_or("ok", |refused| refused.label()));
    }

    /// Chooses a gateway for a client.
    pub fn assign(&self, request: &Request) -> Result<Answer, NoGateway> {
        let began = Instant::now();
        let now = self.now();
        let mut inner = self.lock();
        let Inner { dispatcher, rng } = &mut *inner;
        let strategy = dispatcher.strategy;
        let decided = dispatcher.assign(request, now, rng);
        let nonces: [[u8; 16]; 4] = rng.random();
        drop(inner);
        let answer = decided.map(|decision| self.answer(decision, nonces));
        let basis = answer.as_ref().map_or("none", |answer| answer.decision.basis.label());
        metrics::assigned(strategy, basis, began.elapsed());
        answer
    }

    fn answer(&self, decision: Decision, nonces: [[u8; 16]; 4]) -> Answer {
        let expires_at_ms = wall_ms().saturating_add(self.config.ticket_life_ms);
        let key = self.config.ticket_key.as_ref();
        let mut nonces = nonces.into_iter();
        let mut admit = |target: &Target| Admission {
            ticket: key.zip(nonces.next()).map(|(key, nonce)| key.sign(target.gateway, expires_at_ms, nonce)),
            target: target.clone(),
        };
        Answer {
            first: admit(&decision.target),
            alternatives: decision.alternatives.iter().map(&mut admit).collect(),
            expires_at_ms: key.map(|_| expires_at_ms),
            decision,
        }
    }

    /// Every gateway.
    pub fn views(&self) -> Vec<View> {
        let now = self.now();
        self.lock().dispatcher.views(now)
    }

    /// The strategy in force.
    pub fn strategy(&self) -> Strategy {
        self.lock().dispatcher.strategy
    }

    /// Another strategy, from the next decision on.
    pub fn set_strategy(&self, strategy: Strategy) {
        self.lock().dispatcher.strategy = strategy;
        metrics::strategy(strategy);
        tracing::info!(%strategy, "the strategy was changed");
    }

    /// Takes a gateway out (its sessions stay), or lets it back in.
    pub fn drain(&self, name: &str, out: bool) -> Result<GatewayId, NameError> {
        let gateway = find(&self.views(), name)?;
        self.lock().dispatcher.fleet.drain(gateway, out);
        tracing::info!(%gateway, out, "a person took a gateway out, or let it back in");
        Ok(gateway)
    }

    /// The last decisions, newest first, with how many milliseconds ago each was.
    pub fn explain(&self, last: usize) -> Vec<(u64, Decision)> {
        let now = self.now();
        self.lock()
            .dispatcher
            .explain(last)
            .map(|decision| (now.since(decision.at), decision.clone()))
            .collect()
    }

    /// Whether a source is reached at the moment; none if it is not configured.
    pub fn source_up(&self, source: Source) -> Option<bool> {
        match source {
            Source::Heartbeat => {
                self.config.heartbeats.as_ref().map(|_| self.heartbeats_up.load(Ordering::Relaxed))
            }
            Source::Prometheus => {
                self.config.prometheus.as_ref().map(|_| self.prometheus_up.load(Ordering::Relaxed))
            }
        }
    }

    /// A source is reached, or no longer. Logged when it changes.
    pub fn set_source_up(&self, source: Source, up: bool) {
        let flag = match source {
            Source::Heartbeat => &self.heartbeats_up,
            Source::Prometheus => &self.prometheus_up,
        };
        metrics::source_up(source, up);
        if flag.swap(up, Ordering::Relaxed) != up {
            tracing::info!(source = source.label(), up, "a source of load is reached, or no longer");
        }
    }

    /// Sets gauges and forgets what was silent for long, until the balancer ends.
    pub async fn upkeep(&self) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            tokio::select! { () = self.ending.cancelled() => return, _ = ticks.tick() => {} }
            let now = self.now();
            self.lock().dispatcher.forget(now);
            metrics::fleet(&self.views());
        }
    }

    /// Nothing panics while it holds the lock, and the state is whole after each step anyway.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The moment at which a process starts: a day, so that reports from before it have a moment too.
const FIRST_MOMENT_MS: u64 = 24 * 3_600_000;

/// Milliseconds since 1970.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The gateway of an id (known or not), a beginning of a known one, or a URL.
fn find(views: &[View], name: &str) -> Result<GatewayId, NameError> {
    if let Ok(gateway) = name.parse() {
        return Ok(gateway);
    }
    // Of several under one URL, the one that is not replaced.
    if let Some(view) = views.iter().find(|view| view.url == name && view.state != State::Replaced) {
        return Ok(view.gateway);
    }
    let fits = |view: &&View| name.len() >= 4 && view.gateway.to_string().starts_with(name);
    let found: Vec<GatewayId> = views.iter().filter(fits).map(|view| view.gateway).collect();
    match found[..] {
        [gateway] => Ok(gateway),
        [] => Err(NameError::Unknown(name.to_owned())),
        _ => Err(NameError::Ambiguous(name.to_owned(), found.len())),
    }
}

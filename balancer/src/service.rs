//! The running balancer: one lock around the dispatcher, held for microseconds and never across an
//! `await`; a clock and randomness for the pure parts.

use crate::{
    Config,
    dispatch::{Decision, Dispatcher, NoGateway, Request, Target},
    fleet::{Report, Source, State, View},
    limit::Limit,
    metrics,
    moment::Moment,
    mover::{Mover, Order, ROUND_MS},
    peers::Peers,
    state::Kept,
    strategy::Strategy,
};
use fastchat_protocol::{
    BalancerId, GatewayId,
    fleet::{Balancer as Announcement, MAX_SHED, Shed},
    server::Move,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio_util::sync::CancellationToken;

/// How often gauges are set and the long silent forgotten.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A ticket for a session that moves is good for at least this long after the round, in milliseconds.
const MOVE_TICKET_MS: u64 = 15_000;

/// What listeners and sources share.
#[derive(Debug)]
pub struct Balancer {
    /// As validated.
    pub config: Config,
    /// Of this process, drawn when it starts.
    pub id: BalancerId,
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
    mover: Mover,
    peers: Peers,
    limit: Limit,
    /// What a person chose, for the file.
    strategy: Option<Strategy>,
    rng: StdRng,
}

impl Inner {
    /// What is kept in the file.
    fn kept(&self) -> Kept {
        let ids = |ids: &BTreeSet<GatewayId>| ids.iter().map(ToString::to_string).collect();
        Kept {
            strategy: self.strategy,
            drained: ids(self.dispatcher.fleet.drained()),
            emptied: ids(self.mover.emptied()),
        }
    }
}

/// Who asks gateways to move sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Moving {
    /// `move_sessions` is off.
    Off,
    /// This balancer.
    This,
    /// Another one, or it is not known yet.
    Another,
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

/// Why an operator's change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Which gateway is meant?
    #[error(transparent)]
    Name(#[from] NameError),
    /// Its sessions are to move, and this balancer never asks for that.
    #[error("move_sessions is off: sessions stay; drain without --move")]
    NoMoves,
    /// It would be forgotten.
    #[error("state_file: {0}")]
    State(#[from] std::io::Error),
}

impl Balancer {
    /// An empty one, with randomness from the system.
    pub fn new(config: Config) -> anyhow::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let kept = config.kept.clone();
        let mut rng = StdRng::from_seed(seed);
        let mut dispatcher = Dispatcher::new(kept.strategy.unwrap_or(config.strategy));
        let mut mover = Mover::new(config.moves.unwrap_or_default());
        kept.drained.iter().flat_map(|id| id.parse()).for_each(|id| dispatcher.fleet.drain(id, true));
        kept.emptied.iter().flat_map(|id| id.parse()).for_each(|id| mover.empty(id, true));
        metrics::strategy(dispatcher.strategy);
        let (limit, id) = (Limit::new(config.assign_per_second), BalancerId::new(rng.random()));
        let inner = Inner { dispatcher, mover, peers: Peers::default(), limit, strategy: kept.strategy, rng };
        Ok(Self {
            config,
            id,
            ending: CancellationToken::new(),
            started: Instant::now(),
            heartbeats_up: AtomicBool::new(false),
            prometheus_up: AtomicBool::new(false),
            inner: Mutex::new(inner),
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
        let Inner { dispatcher, rng, .. } = &mut *inner;
        let strategy = dispatcher.strategy;
        let decided = dispatcher.assign(request, now, rng);
        let named = decided.as_ref().map_or(0, |decision| 1 + decision.alternatives.len());
        let nonces: Vec<[u8; 16]> = (0..named).map(|_| rng.random()).collect();
        drop(inner);
        let answer = decided.map(|decision| self.answer(decision, nonces));
        let basis = answer.as_ref().map_or(metrics::NO_BASIS, |answer| answer.decision.basis.label());
        metrics::assigned(strategy, basis, began.elapsed());
        answer
    }

    fn answer(&self, decision: Decision, nonces: Vec<[u8; 16]>) -> Answer {
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
    pub fn set_strategy(&self, strategy: Strategy) -> Result<(), ChangeError> {
        let mut inner = self.lock();
        self.keep(&Kept { strategy: Some(strategy), ..inner.kept() })?;
        (inner.dispatcher.strategy, inner.strategy) = (strategy, Some(strategy));
        drop(inner);
        metrics::strategy(strategy);
        tracing::info!(%strategy, "the strategy was changed");
        Ok(())
    }

    /// Takes a gateway out (its sessions stay, unless they are to move), or lets it back in.
    pub fn drain(&self, name: &str, out: bool, moves: bool) -> Result<GatewayId, ChangeError> {
        if moves && self.config.moves.is_none() {
            return Err(ChangeError::NoMoves);
        }
        let gateway = find(&self.views(), name)?;
        let mut inner = self.lock();
        let mut kept = inner.kept();
        let mark = |ids: &mut BTreeSet<String>, on: bool| {
            let id = gateway.to_string();
            if on { ids.insert(id) } else { ids.remove(&id) }
        };
        mark(&mut kept.drained, out);
        mark(&mut kept.emptied, out && moves);
        self.keep(&kept)?;
        inner.dispatcher.fleet.drain(gateway, out);
        inner.mover.empty(gateway, out && moves);
        drop(inner);
        tracing::info!(%gateway, out, moves, "a person took a gateway out, or let it back in");
        Ok(gateway)
    }

    /// Writes the file, if there is one. Under the lock: it is small, and changes are rare.
    fn keep(&self, kept: &Kept) -> Result<(), ChangeError> {
        Ok(self.config.state_file.as_deref().map_or(Ok(()), |path| kept.write(path))?)
    }

    /// Whether an address may ask now; counted.
    pub fn may_ask(&self, address: IpAddr) -> bool {
        let now = self.now();
        let may = self.lock().limit.take(address, now);
        if !may {
            metrics::rate_limited();
        }
        may
    }

    /// Another balancer is there.
    pub fn on_announcement(&self, said: &Announcement) {
        let now = self.now();
        self.lock().peers.on_announcement(said, now);
    }

    /// Who asks for moves.
    pub fn moving(&self) -> Moving {
        let now = self.now();
        match self.config.moves {
            None => Moving::Off,
            Some(_) if self.lock().peers.leads(self.id, now) => Moving::This,
            Some(_) => Moving::Another,
        }
    }

    /// Looks whether sessions should move; what to ask of which gateways.
    pub fn look(&self) -> Vec<(GatewayId, Shed)> {
        let leads = self.moving() == Moving::This;
        let now = self.now();
        metrics::mover(leads);
        let mut inner = self.lock();
        let Inner { dispatcher, mover, rng, .. } = &mut *inner;
        let views = dispatcher.views(now);
        let ticked = mover.tick(&views, now, leads, rng);
        let nonces: Vec<[u8; 16]> =
            (0..ticked.orders.iter().map(Order::sessions).sum()).map(|_| rng.random()).collect();
        drop(inner);
        if let Some(ended) = ticked.ended {
            metrics::round(ended);
        }
        let mut nonces = nonces.into_iter();
        ticked.orders.iter().flat_map(|order| self.sheds(order, &views, &mut nonces)).collect()
    }

    fn sheds(
        &self,
        order: &Order,
        views: &[View],
        nonces: &mut impl Iterator<Item = [u8; 16]>,
    ) -> Vec<(GatewayId, Shed)> {
        metrics::moves_asked(order.reason, order.sessions());
        tracing::info!(gateway = %order.from, reason = order.reason.label(), why = order.why, "sessions are to move");
        let expires_at_ms = wall_ms() + self.config.ticket_life_ms.max(ROUND_MS + MOVE_TICKET_MS);
        let mut moves = Vec::new();
        for (gateway, sessions) in &order.to {
            let Some(view) = views.iter().find(|view| view.gateway == *gateway) else { continue };
            for nonce in nonces.take(usize::try_from(*sessions).unwrap_or(0)) {
                let key = self.config.ticket_key.as_ref();
                let ticket = key.map(|key| key.sign(*gateway, expires_at_ms, nonce)).unwrap_or_default();
                moves.push(Move { url: view.url.clone(), ticket: ticket.into() });
            }
        }
        let shed = |moves: &[Move]| Shed { over_ms: ROUND_MS as u32, moves: moves.to_vec() };
        moves.chunks(MAX_SHED).map(|moves| (order.from, shed(moves))).collect()
    }

    /// Sessions that a gateway gives and takes in the round under way.
    pub fn underway(&self, gateway: GatewayId) -> (u64, u64) {
        self.lock().mover.underway(gateway)
    }

    /// The last orders to move sessions, newest first, with how many milliseconds ago each was.
    pub fn explain_moves(&self, last: usize) -> Vec<(u64, Order)> {
        let now = self.now();
        self.lock().mover.explain(last).map(|(at, order)| (now.since(*at), order.clone())).collect()
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
        if source == Source::Heartbeat {
            let now = self.now();
            self.lock().peers.on_bus(up, now);
        }
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
            let mut inner = self.lock();
            inner.dispatcher.forget(now);
            let drained = inner.dispatcher.fleet.drained().clone();
            inner.mover.retain(&drained);
            inner.limit.forget(now);
            drop(inner);
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

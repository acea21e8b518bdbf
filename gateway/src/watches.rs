//! Who looks at whom: presence, for as long as somebody looks, and at no cost for who is not looked at.
//!
//! A connection *watches* accounts for some seconds and renews that. What follows from it:
//!
//! - This gateway asks once over the watched account's subject; a gateway where it is connected says so,
//!   and keeps a *lease*: whom to tell when the account's last connection there ends.
//! - Silence means away. Then this gateway subscribes to the account's subject, where a gateway to which
//!   it connects says so anyway ([`BusFrame::Connected`]); so connecting publishes nothing for presence.
//! - A going is told after a while ([`PRESENCE_LINGER`]) and only doubted here: the account may be
//!   connected to a third gateway, so it is asked for again before anybody is told.
//! - Many who watch one account from here are one watcher elsewhere.
//!
//! All of it may be lost; a renewal asks again. Who may watch whom is the store's word at each renewal.

mod standing;

use crate::{
    bus::Bus,
    limits::{PRESENCE_LINGER, PRESENCE_TRUST},
    metrics,
    registry::{Handle, Registry},
    rim::now_ms,
    store::receipts::Acquaintance,
};
use fastchat_protocol::{
    AccountId, RequestId, ServerFrame,
    bus::{self, BusFrame, Subject},
    limits::MAX_WATCH_S,
    server::Presence,
};
use standing::{Act, State, Watcher};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Between looks at what has become of questions and leases.
const TICK: Duration = Duration::from_secs(1);

/// Presence as far as this gateway has to do with it.
#[derive(Debug)]
pub struct Watches {
    state: Mutex<State>,
    registry: Arc<Registry>,
    bus: Arc<dyn Bus>,
    this: Weak<Self>,
}

impl Watches {
    /// Nobody looks at anybody.
    pub fn new(registry: Arc<Registry>, bus: Arc<dyn Bus>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self { state: Mutex::default(), registry, bus, this: this.clone() })
    }

    /// Tells a connection how these are, now and for so many seconds.
    pub fn ask(&self, handle: &Arc<Handle>, known: &[Acquaintance], watch_s: u32) {
        let lease = Duration::from_secs(watch_s.min(MAX_WATCH_S).into());
        for one in known {
            let watcher = Watcher { handle: Arc::clone(handle), until: Instant::now() + lease, told: None };
            let here = self.registry.shows(one.account);
            let acts = match lease.is_zero() {
                true => None,
                false => {
                    let now = Instant::now();
                    let acts = self.lock().watch(watcher, one, here, now);
                    if let Err(limit) = acts {
                        metrics::watch_refused(limit);
                    }
                    acts.ok()
                }
            };
            match acts {
                Some(acts) => self.act(acts),
                None => self.ask_once(handle, one, here),
            }
        }
    }

    /// As it is now: what is known at once, and who is online elsewhere says so.
    fn ask_once(&self, handle: &Handle, one: &Acquaintance, here: bool) {
        let last_seen_ms = one.last_seen_ms.filter(|_| !here);
        if here || last_seen_ms.is_some() {
            self.act(vec![Act::Tell(vec![handle.id], handle.account, one.account, here, last_seen_ms)]);
        }
        if !here {
            self.act(vec![Act::Ask { account: one.account, by: handle.account, watch_s: 0 }]);
        }
    }

    /// Another gateway asks whether an account is connected here.
    pub fn on_asked(&self, account: AccountId, asked: bus::PresenceAsked) {
        if !self.registry.shows(account) {
            return;
        }
        if asked.watch_s > 0 {
            let until = Instant::now() + Duration::from_secs(asked.watch_s.min(MAX_WATCH_S).into());
            if !self.lock().lease(account, asked.by, until) {
                metrics::watch_refused("watchers");
            }
        }
        self.publish(asked.by, account, true, None);
    }

    /// Another gateway says that an account is connected there, or not any more, to who asked from here.
    pub fn on_told(&self, by: AccountId, told: bus::PresenceTold) {
        let bus::PresenceTold { account, online, last_seen_ms } = told;
        if online {
            // Who asked without watching hears it by itself.
            self.tell_all_of(by, account);
        }
        let here = self.registry.shows(account);
        let acts = self.lock().told(account, online || here, last_seen_ms, Instant::now());
        self.act(acts);
    }

    /// An account may have come: a connection of it says so somewhere, or lets itself be seen.
    pub fn on_connected(&self, account: AccountId) {
        let here = self.registry.shows(account);
        let acts = match here {
            true => self.lock().told(account, true, None, Instant::now()),
            false => self.lock().doubt_absence(account),
        };
        self.act(acts);
    }

    /// An account does not want to be seen any more: it is gone at once for who watches.
    pub fn on_hidden(&self, account: AccountId) {
        self.gone(account, None);
    }

    /// A connection has ended; `last`: it was the account's only one here. Returns whether this gateway
    /// goes on hearing the account's subject.
    pub fn left(&self, handle: &Handle, last: bool) -> bool {
        let (acts, watched, hears) = {
            let mut state = self.lock();
            let acts = state.forget(handle.id);
            (acts, last && state.is_watched(handle.account), state.hears(handle.account))
        };
        self.act(acts);
        if watched {
            let seen =
                handle.visible.load(Ordering::Relaxed) && handle.shares_last_seen.load(Ordering::Relaxed);
            let last_seen_ms = seen.then(now_ms);
            let (this, account) = (self.this.clone(), handle.account);
            tokio::spawn(async move {
                tokio::time::sleep(PRESENCE_LINGER).await;
                let Some(this) = this.upgrade() else { return };
                if !this.registry.shows(account) {
                    this.gone(account, last_seen_ms);
                }
            });
        }
        hears
    }

    /// Watched accounts, and accounts here that are watched from elsewhere.
    pub fn counts(&self) -> (usize, usize) {
        self.lock().counts()
    }

    /// Looks at questions and leases until told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! { () = stop.cancelled() => return, _ = ticks.tick() => {} }
            let (acts, away) = self.lock().tick(Instant::now());
            self.act(acts);
            if !away.is_empty() {
                let subjects: Vec<_> = away.iter().map(|account| Subject::User(*account)).collect();
                self.bus.subscribe_all(&subjects).await;
                // Whoever came between the question and the subscription was not heard.
                let again = self.lock().ask_again(&away);
                self.act(again);
            }
        }
    }

    /// Nobody of the account is connected here any more: who watches is to know.
    fn gone(&self, account: AccountId, last_seen_ms: Option<u64>) {
        let (leases, acts) = {
            let mut state = self.lock();
            (
                state.take_leases(account, Instant::now()),
                state.told(account, false, last_seen_ms, Instant::now()),
            )
        };
        for by in leases {
            self.publish(by, account, false, last_seen_ms);
        }
        self.act(acts);
    }

    fn act(&self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Tell(connections, watcher, account, online, last_seen_ms) => {
                    let presence = Presence { account, online, last_seen_ms };
                    let frame = ServerFrame::Presence(presence).encode(RequestId(0));
                    let handles = self.registry.find(watcher, None);
                    let ours = handles.iter().filter(|handle| connections.contains(&handle.id));
                    let queued = ours.filter(|handle| handle.queue.push_hint(&frame)).count();
                    metrics::hinted("presence", queued, 0);
                }
                Act::Ask { account, by, watch_s } => {
                    let asked = BusFrame::PresenceAsked(bus::PresenceAsked { by, watch_s });
                    metrics::hint_published("presence");
                    self.bus.publish(Subject::User(account), asked.encode(RequestId(0)));
                }
                Act::Unsubscribe(account) => {
                    if !self.registry.has(account) {
                        self.bus.unsubscribe(Subject::User(account));
                        // Somebody may have entered between the two lines above.
                        if self.registry.has(account) {
                            let bus = Arc::clone(&self.bus);
                            tokio::spawn(async move { bus.subscribe(Subject::User(account)).await });
                        }
                    }
                }
            }
        }
    }

    fn tell_all_of(&self, by: AccountId, account: AccountId) {
        let watching = self.lock().watching(account);
        let handles = self.registry.find(by, None);
        let others = handles.iter().map(|handle| handle.id).filter(|id| !watching.contains(id)).collect();
        self.act(vec![Act::Tell(others, by, account, true, None)]);
    }

    fn publish(&self, by: AccountId, account: AccountId, online: bool, last_seen_ms: Option<u64>) {
        let told = BusFrame::PresenceTold(bus::PresenceTold { account, online, last_seen_ms });
        metrics::hint_published("presence");
        self.bus.publish(Subject::User(by), told.encode(RequestId(0)));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under this lock can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether another gateway's word of then is still believed.
fn is_trusted(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < PRESENCE_TRUST
}

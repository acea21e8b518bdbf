//! A gateway's parts, put together.

use crate::{
    Config,
    arrivals::Arrivals,
    blobs::{BlobState, Objects},
    bus::{Bus, BusEvents},
    cursors::Cursors,
    fanout::Fanout,
    fleet::{self, Identity, tickets::Tickets},
    groups::Groups,
    heads,
    hints::Hints,
    incarnation::Incarnation,
    limits::{MAX_GUESTS, MAX_UNIDENTIFIED},
    notices,
    passwords::Passwords,
    rate::Limiters,
    registry::Registry,
    seen::Seen,
    store::Store,
    sweep::{self, Connected},
    watches::Watches,
    writer::Writer,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What every connection shares.
#[derive(Debug)]
pub struct Gateway {
    /// Which gateway of the fleet this is.
    pub identity: Identity,
    /// Whom balancers sent.
    pub tickets: Tickets,
    /// As validated.
    pub config: Config,
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The hint.
    pub bus: Arc<dyn Bus>,
    /// Commits envelopes.
    pub writer: Writer,
    /// What is asked about devices that connect.
    pub arrivals: Arrivals,
    /// The store's, as this gateway serves it.
    pub incarnation: Incarnation,
    /// Who is connected here.
    pub registry: Arc<Registry>,
    /// Who hears which group here.
    pub groups: Arc<Groups>,
    /// Hands committed rows out.
    pub fanout: Arc<Fanout>,
    /// Tells what nobody keeps.
    pub hints: Arc<Hints>,
    /// Who looks at whom.
    pub watches: Arc<Watches>,
    /// Who was online, on its way to the store.
    pub seen: Arc<Seen>,
    /// Cursors on their way to the store.
    pub cursors: Arc<Cursors>,
    /// bcrypt.
    pub passwords: Passwords,
    /// Places for sockets without a session.
    pub unidentified: Arc<Semaphore>,
    /// Places for sessions without a device.
    pub guests: Arc<Semaphore>,
    /// Who tries too often.
    pub limiters: Limiters,
    /// Where the bytes of files are, and who transfers them.
    pub blobs: BlobState,
    /// Devices that were connected since it was noted last.
    pub connected: Connected,
    /// Cancelled when the gateway begins to leave; connections are woken to see it.
    pub draining: CancellationToken,
    /// Cancelled when it ends; connections are woken to see it.
    pub ending: CancellationToken,
    /// The admin listener asks for a drain.
    pub drain_asked: Notify,
    /// Connections and background work.
    pub tasks: TaskTracker,
}

impl Gateway {
    /// Puts the parts together and starts what runs in the background.
    /// `objects` is where the bytes of files go, if not into the store.
    pub fn start(
        config: Config,
        store: Arc<dyn Store>,
        objects: Option<Objects>,
        bus: Arc<dyn Bus>,
        events: BusEvents,
    ) -> Arc<Self> {
        let registry = Arc::new(Registry::new(config.max_connections));
        let groups = Groups::new(Arc::clone(&store), Arc::clone(&bus));
        let watches = Watches::new(Arc::clone(&registry), Arc::clone(&bus));
        let (of_registry, of_groups) = (|| Arc::clone(&registry), || Arc::clone(&groups));
        let hints = Arc::new(Hints::new(of_registry(), of_groups(), Arc::clone(&bus), Arc::clone(&store)));
        let (to_hints, to_watches) = (Arc::clone(&hints), Arc::clone(&watches));
        let fanout = Fanout::new(of_registry(), of_groups(), to_hints, to_watches, Arc::clone(&bus));
        let fanout = Arc::new(fanout);
        let (tasks, ending) = (TaskTracker::new(), CancellationToken::new());
        let gateway = Arc::new(Self {
            identity: Identity::draw(config.public_url()),
            tickets: Tickets::new(config.tickets, config.balancer_keys.clone()),
            writer: Writer::spawn(Arc::clone(&store), config.batch_wait),
            arrivals: Arrivals::spawn(&store, &tasks, &ending),
            incarnation: Incarnation::default(),
            passwords: Passwords::new(config.pepper.clone(), config.bcrypt_threads),
            unidentified: Arc::new(Semaphore::new(MAX_UNIDENTIFIED)),
            guests: Arc::new(Semaphore::new(MAX_GUESTS)),
            limiters: Limiters::new(config.rates),
            cursors: Arc::new(Cursors::default()),
            seen: Arc::new(Seen::default()),
            hints,
            watches,
            blobs: BlobState::new(Arc::clone(&store), objects),
            connected: Connected::default(),
            draining: CancellationToken::new(),
            ending,
            drain_asked: Notify::new(),
            tasks,
            registry,
            groups,
            fanout,
            store,
            bus,
            config,
        });
        gateway.spawn_background(events);
        gateway
    }

    fn spawn_background(self: &Arc<Self>, events: BusEvents) {
        let stop = || self.ending.child_token();
        let (fanout, registry) = (|| Arc::clone(&self.fanout), || Arc::clone(&self.registry));
        let interval = self.config.head_check_interval;
        let gateway = Arc::clone(self);
        let on_incarnation = move |now| gateway.on_incarnation(now);
        self.tasks.spawn(heads::run(
            Arc::clone(&self.store),
            fanout(),
            registry(),
            interval,
            stop(),
            on_incarnation,
        ));
        self.tasks.spawn(notices::run(Arc::clone(self), stop()));
        self.tasks.spawn(heads::on_bus(events, fanout(), registry(), stop()));
        let (cursors, store, stop_cursors) = (Arc::clone(&self.cursors), Arc::clone(&self.store), stop());
        let hints = Arc::clone(&self.hints);
        self.tasks.spawn(async move { cursors.run(store, hints, stop_cursors).await });
        let (seen, store, known, stop_seen) =
            (Arc::clone(&self.seen), Arc::clone(&self.store), Arc::clone(&self.registry), stop());
        self.tasks.spawn(async move { seen.run(store, known, stop_seen).await });
        self.tasks.spawn(Arc::clone(&self.watches).run(stop()));
        self.tasks.spawn(sweep::run(Arc::clone(self), stop()));
        self.tasks.spawn(fleet::heartbeat::run(Arc::clone(self)));
        self.tasks.spawn(fleet::shed::run(Arc::clone(self)));
        let gateway = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                () = gateway.draining.cancelled() => {
                    gateway.registry.wake();
                    gateway.ending.cancelled().await;
                }
                () = gateway.ending.cancelled() => {}
            }
            gateway.registry.wake();
        });
        let (gateway, stop) = (Arc::clone(self), self.ending.child_token());
        self.tasks.spawn(async move {
            let mut minutes = tokio::time::interval(Duration::from_secs(60));
            loop {
                tokio::select! { () = stop.cancelled() => return, _ = minutes.tick() => gateway.limiters.shrink() }
            }
        });
    }
}

//! The one task that owns a profile's store, keys and session. Others hold a handle.
//!
//! - Inputs: requests, events of the link, and time. After each, [`Engine::turn`] does whatever has
//!   become possible: read the log, apply rows, seal, send, commit, acknowledge.
//! - Sends, commits and foundings are pipelined: their answers come as events. Everything else is a
//!   call that waits for its answer ([`Engine::call`]); what arrives meanwhile is kept in order.
//! - Decisions are in [`crate::outbox`], [`crate::cursor`] and [`crate::trust`].
//!
//! Invariant: what the server may learn of is stored before it is sent; what is shown or
//! acknowledged is stored before that.

mod acks;
pub(crate) mod archive;
mod changes;
mod chores;
mod claims;
mod contacts;
mod counts;
mod devices;
mod error;
mod expire;
mod export;
mod files;
mod found;
mod group_rows;
mod group_views;
mod groups;
mod history;
mod history_rows;
mod keys;
mod kinds;
mod mailbox;
pub(crate) mod manifest;
mod members;
mod messages;
mod notices;
mod parked;
mod presence;
mod receipts;
mod receive;
mod recovery;
mod refound;
mod rejoin;
mod requests;
mod requests_inbox;
mod restored;
mod row;
mod send;
mod session;
mod state;
mod sync;
mod target;
mod views;

use crate::{
    account,
    api::{ApiError, ErrorKind, Event, Request, Response},
    link::{self, Destination, LinkError, LinkEvent, LinkHandle, ServerUrl, Way},
    profile::Profile,
    store::{Contact, Item, ItemId, Store, StoreError},
};
use fastchat_e2ee::Device;
use fastchat_protocol::{AccountId, ConversationId, Counter};
use parked::{ChangeWaiter, Parked, PresenceWaiter};
use session::Session;
use state::{SyncWaiter, Thread, Waiter};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::{Instant, sleep_until},
};

/// Limit: requests that wait for the engine.
pub(crate) const COMMANDS: usize = 64;
/// Limit: events that a slow listener may be behind; it then reads the store.
pub(crate) const EVENTS: usize = 1024;
/// Limit: events of the link handled before the rows they brought are applied together.
const BATCH: usize = 64;
/// Limit: times in a turn that what came up in it is looked at; the rest has another turn.
const ROUNDS: usize = 4;
/// With nothing to do, the engine still looks around this often.
const IDLE: Duration = Duration::from_secs(60);

/// How long the first request is waited for before dialling.
const HEAD_START: Duration = Duration::from_millis(20);

/// A request and where its answer goes.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) request: Request,
    pub(crate) reply: oneshot::Sender<Result<Response, ApiError>>,
}

/// Why the current work stops.
#[derive(Debug)]
enum Halt {
    /// The session is gone; it continues at the next one.
    Down,
    /// The store failed: going on could lose messages.
    Fatal(ApiError),
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Fatal(ApiError::internal(error))
    }
}

/// See the module.
pub(crate) struct Engine {
    profile: Profile,
    destination: Destination,
    name: String,
    me: Arc<Device>,
    store: Store,
    contacts: HashMap<AccountId, Contact>,
    threads: HashMap<ConversationId, Thread>,
    /// Everything in the outbox, by position.
    items: BTreeMap<i64, Item>,
    /// Sealed messages by what the log calls them.
    by_counter: HashMap<(ConversationId, Counter), i64>,
    /// Drafts that have no conversation yet.
    unrouted: VecDeque<i64>,
    /// Conversations that others founded first, with the other party.
    races: Vec<(ConversationId, AccountId)>,
    /// When founding a conversation with a name may be tried again, and why not now.
    route_wait: HashMap<String, (Instant, String)>,

    link: Option<LinkHandle>,
    session: Option<Session>,
    /// The gateway of the last session.
    gateway: Option<ServerUrl>,
    /// The link waits for a moment in which no call waits.
    moving: Option<oneshot::Sender<()>>,
    /// Events that came while a call waited for its answer.
    inbox: VecDeque<LinkEvent>,
    /// Live copies were dropped for want of room.
    overflowed: bool,
    ended: Option<LinkError>,
    down: Option<String>,
    /// The server shows an older store than it did: why its session was ended, until one is good.
    older: Option<String>,
    sync_wanted: bool,
    synced: bool,
    /// What the server has was compared with what is here, in this session.
    compared: bool,
    /// The server may have an older list of this account's devices.
    manifest_due: bool,
    /// No sync before: one was just now, or the server asked for it.
    sync_at: Option<Instant>,
    mailbox_wanted: bool,
    /// The mailbox is not read before: the server asked for it, or an item could not be judged.
    mailbox_at: Option<Instant>,
    mailbox_failures: u32,
    key_packages: Option<u32>,

    chores: chores::Chores,
    files: files::Files,
    index: history::Index,

    dirty: HashSet<ConversationId>,
    ack_at: Option<Instant>,

    commands: mpsc::Receiver<Command>,
    events: broadcast::Sender<Event>,
    /// Accounts whose newest manifests are to be fetched.
    to_learn: BTreeSet<AccountId>,
    blocked: BTreeSet<AccountId>,
    book: receipts::Book,
    watch: presence::Watch,
    /// Strangers are heard without being asked for.
    everybody_may_write: bool,
    online_accounts: BTreeSet<AccountId>,
    last_seen: HashMap<AccountId, Option<u64>>,

    /// A wish or a message came up in the middle of a turn.
    stirred: bool,
    waiters: Vec<Waiter>,
    parked: Vec<Parked>,
    change_waiters: Vec<ChangeWaiter>,
    presence_waiters: Vec<PresenceWaiter>,
    sync_waiters: Vec<SyncWaiter>,
    problems: HashMap<ItemId, String>,
    /// When the next entry goes, in milliseconds since 1970.
    expires_ms: Option<u64>,
    started: Instant,
    stopping: bool,
    online: bool,
}

impl Engine {
    /// Reads the profile. With `online`, dialling begins at once.
    pub(crate) fn start(
        profile: Profile,
        store: Store,
        online: bool,
        commands: mpsc::Receiver<Command>,
        events: broadcast::Sender<Event>,
    ) -> Result<Self, ApiError> {
        let settings = profile.settings()?;
        let mut destination = settings.destination(&profile.location)?;
        destination.incarnation =
            store.read(|tx| tx.setting(restored::INCARNATION)).map_err(ApiError::internal)?;
        let account::Own { device, .. } = account::own(&store)?;
        let me = Arc::new(device);
        let mut engine = Self {
            profile,
            destination,
            name: settings.name,
            me,
            store,
            contacts: HashMap::new(),
            threads: HashMap::new(),
            items: BTreeMap::new(),
            by_counter: HashMap::new(),
            unrouted: VecDeque::new(),
            races: Vec::new(),
            route_wait: HashMap::new(),
            link: None,
            session: None,
            gateway: None,
            moving: None,
            inbox: VecDeque::new(),
            overflowed: false,
            ended: None,
            down: None,
            older: None,
            sync_wanted: false,
            synced: false,
            compared: false,
            manifest_due: false,
            sync_at: None,
            mailbox_wanted: false,
            mailbox_at: None,
            mailbox_failures: 0,
            key_packages: None,
            chores: chores::Chores::default(),
            files: files::Files::default(),
            index: history::Index::default(),
            dirty: HashSet::new(),
            ack_at: None,
            commands,
            events,
            to_learn: BTreeSet::new(),
            blocked: BTreeSet::new(),
            book: receipts::Book::default(),
            watch: presence::Watch::default(),
            everybody_may_write: false,
            online_accounts: BTreeSet::new(),
            last_seen: HashMap::new(),
            stirred: false,
            waiters: Vec::new(),
            parked: Vec::new(),
            change_waiters: Vec::new(),
            presence_waiters: Vec::new(),
            sync_waiters: Vec::new(),
            problems: HashMap::new(),
            expires_ms: None,
            started: Instant::now(),
            stopping: false,
            online,
        };
        engine.load().map_err(ApiError::internal)?;
        engine.load_chores().map_err(ApiError::internal)?;
        engine.load_files().map_err(ApiError::internal)?;
        engine.forget_due().map_err(ApiError::internal)?;
        Ok(engine)
    }

    /// A message that was typed is stored before anything that a session brings can go wrong.
    async fn begin(&mut self) -> Result<(), Halt> {
        match tokio::time::timeout(HEAD_START, self.commands.recv()).await {
            Ok(Some(command)) => self.on_command(command).await?,
            Ok(None) => self.stopping = true,
            Err(_) => {}
        }
        if self.online && !self.stopping {
            self.link = Some(link::spawn(Way::new(self.destination.clone()), Arc::clone(&self.me)));
        }
        Ok(())
    }

    /// Works until it is told to end, every handle is gone, or the store fails.
    pub(crate) async fn run(mut self) {
        let error = match self.begin().await {
            Err(Halt::Fatal(error)) => Some(error),
            Ok(()) | Err(Halt::Down) => self.work().await,
        };
        self.end(error).await;
    }

    async fn work(&mut self) -> Option<ApiError> {
        while !self.stopping {
            if let Err(Halt::Fatal(error)) = self.step().await {
                return Some(error);
            }
        }
        None
    }

    /// One input, and what follows from it.
    async fn step(&mut self) -> Result<(), Halt> {
        self.input().await?;
        for _ in 0..BATCH {
            let Some(event) = self.inbox.pop_front() else { break };
            self.on_event(event)?;
        }
        self.let_move().await?;
        self.turn().await
    }

    async fn input(&mut self) -> Result<(), Halt> {
        if !self.inbox.is_empty() {
            return Ok(());
        }
        let deadline = self.deadline();
        tokio::select! {
            event = next_event(&mut self.link) => {
                self.inbox.push_back(event);
                self.drain_link();
            }
            command = self.commands.recv() => match command {
                Some(command) => self.on_command(command).await?,
                None => self.stopping = true,
            },
            report = self.files.next() => self.on_report(report)?,
            () = sleep_until(deadline) => {}
        }
        Ok(())
    }

    /// Takes what the link has ready, so that rows which came together are stored together.
    fn drain_link(&mut self) {
        while self.inbox.len() < BATCH {
            let Some(event) = self.link.as_mut().and_then(LinkHandle::try_next) else { return };
            self.inbox.push_back(event);
        }
    }

    /// Does whatever is possible now.
    async fn turn(&mut self) -> Result<(), Halt> {
        let now = Instant::now();
        for thread in self.threads.values_mut() {
            thread.forget_past(now);
        }
        self.apply_all().await?;
        self.forget_due()?;
        if self.session.is_some() {
            self.sync_if_wanted().await?;
        }
        if self.session.is_some() && self.compared {
            self.fetch_due().await?;
            self.learn_due().await?;
        }
        self.serve_parked().await?;
        if self.session.is_some() && self.compared {
            self.route().await?;
            for _ in 0..ROUNDS {
                self.stirred = false;
                self.pump_all().await?;
                self.commit_due().await?;
                // A change that is over lets messages go, and may have made one: nothing else wakes for it.
                if !self.stirred {
                    break;
                }
            }
            self.flush_acks().await?;
            self.catch_up_all_reading()?;
            self.do_receipts().await?;
            self.renew_watch().await?;
            self.do_chores().await?;
            self.files_due().await?;
        }
        self.keep_receipts(false)?;
        self.answer_delivery_waiters()?;
        self.answer_waiters();
        self.index_due()
    }

    fn deadline(&mut self) -> Instant {
        let (now, forgets) = (self.clock(), self.forgets_at());
        let online = self.session.is_some();
        // Before what is here was compared, nothing else is done.
        let settled = online && self.compared;
        let patience = self.patience_ends().min();
        let threads = self.threads.values_mut().filter(|_| settled).filter_map(|thread| {
            let due = thread.fetch_at(now, Instant::now());
            [due, thread.stalled_until, thread.retry_at, thread.commit_at].into_iter().flatten().min()
        });
        let wanted =
            |wanted: bool, at: Option<Instant>| (online && wanted).then(|| at.unwrap_or_else(Instant::now));
        let sync = wanted(self.sync_wanted, self.sync_at);
        let mailbox = wanted(self.mailbox_wanted && self.compared, self.mailbox_at);
        let acks = self.ack_at.filter(|_| settled);
        let waiters = self.waiters.iter().map(|waiter| waiter.deadline);
        let sync_waiters = self.sync_waiters.iter().map(|waiter| waiter.deadline);
        let routes = self.route_wait.values().map(|(at, _)| *at).filter(|_| settled);
        let files = self.files.next_at(online && self.synced);
        let floor = Instant::now() + Duration::from_millis(5);
        let stirred = (settled && self.stirred).then_some(floor);
        let chores = self.chores.next_at().filter(|_| online && self.synced);
        let receipts = self.book.next_at(settled).into_iter().chain(self.watch.next_at().filter(|_| settled));
        let session = sync
            .into_iter()
            .chain(receipts)
            .chain(mailbox)
            .chain(acks)
            .chain(routes)
            .chain(chores)
            .chain(files)
            .chain(patience)
            .chain(stirred);
        let index = self.index.next_at();
        let waiting = waiters.chain(sync_waiters);
        let earliest = threads.chain(session).chain(index).chain(waiting).chain(forgets).min();
        // Never a busy loop, even where something due cannot be done yet.
        earliest.unwrap_or_else(|| Instant::now() + IDLE).max(floor).min(Instant::now() + IDLE)
    }

    /// This engine's own clock, for the pure parts.
    fn clock(&self) -> Duration {
        self.started.elapsed()
    }

    async fn end(mut self, error: Option<ApiError>) {
        if error.is_none() {
            let _ = self.flush_acks_now().await;
            // What was read in a command that ends now is told by it.
            if self.session.is_some() && self.compared {
                let _ = self.tell_read().await;
            }
            let _ = self.keep_receipts(true);
        }
        let (reason, kind) = error.map_or((String::new(), None), |error| (error.message, Some(error.kind)));
        for waiter in self.waiters.drain(..) {
            let message = format!("the client ended; the message is in the outbox. {reason}");
            // A command that went through this process asks again: the same id sends nothing twice.
            let _ = waiter.reply.send(Err(ApiError::new(kind.unwrap_or(ErrorKind::Gone), message.trim())));
        }
        let _ = self.events.send(Event::Ended { reason, kind });
        let session = self.session.take().is_some();
        if let Some(link) = self.link.take() {
            link.close(session).await;
        }
    }
}

/// The link's next event; never, without a link. Cancel safety: as `LinkHandle::next`.
async fn next_event(link: &mut Option<LinkHandle>) -> LinkEvent {
    let Some(handle) = link else { return std::future::pending().await };
    match handle.next().await {
        Some(event) => event,
        None => {
            *link = None;
            std::future::pending().await
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("profile", &self.profile).finish_non_exhaustive()
    }
}

//! The handle that everything else uses: to an engine in this process, or to the profile's owner.

mod devices;
mod groups;
mod kinds;

use crate::{
    account::{self, Registration},
    api::{ApiError, ErrorKind, Event, MessageView, Page, Request, Response, SentView, StatusView},
    engine::{COMMANDS, Command, EVENTS, Engine},
    local::{self, Remote},
    profile::{Location, Profile},
};
use fastchat_e2ee::StoreKey;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    task::JoinHandle,
};

/// How a client is opened.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Connect to the server.
    pub online: bool,
    /// Let other processes reach this one by the profile's socket.
    pub serve: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { online: true, serve: true }
    }
}

/// A client. Cheap to clone; the engine ends with [`Client::close`] or the last clone.
#[derive(Debug, Clone)]
pub struct Client(Inner);

#[derive(Debug, Clone)]
enum Inner {
    Here(Arc<Here>),
    Remote(Remote),
}

#[derive(Debug)]
struct Here {
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<Event>,
    engine: Mutex<Option<JoinHandle<()>>>,
    server: Option<local::Server>,
}

/// What happens, from the moment of [`Client::events`] on.
#[derive(Debug)]
pub struct Events(Source);

#[derive(Debug)]
enum Source {
    Here(broadcast::Receiver<Event>),
    Remote(local::RemoteEvents),
}

/// What [`Events::next`] gives.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once, and nearly always an event")]
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Something happened.
    Event(Event),
    /// This listener was too slow; what it missed is in the store.
    Missed,
    /// The client is gone.
    Ended,
}

impl Client {
    /// Makes an account and opens its profile. The directory must hold no other account.
    pub async fn register(
        location: &Location,
        registration: &Registration,
        options: Options,
    ) -> Result<Self, ApiError> {
        let profile = lock(location)?;
        let key = account::register(&profile, registration).await?;
        Self::open(profile, key, options)
    }

    /// Opens a profile that this process owns.
    pub fn open(profile: Profile, key: StoreKey, options: Options) -> Result<Self, ApiError> {
        let store = profile.store(key)?;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (events, _) = broadcast::channel(EVENTS);
        let socket = profile.location.socket_file();
        let engine = Engine::start(profile, store, options.online, inbox, events.clone())?;
        let engine = tokio::spawn(engine.run());
        let server = options.serve.then(|| local::serve(&socket, &commands, &events)).transpose()?;
        Ok(Self(Inner::Here(Arc::new(Here { commands, events, engine: Mutex::new(Some(engine)), server }))))
    }

    /// Opens a profile whose key this login session remembers, or that `password` unlocks.
    pub async fn unlock(
        location: &Location,
        password: Option<(&str, crate::profile::Cost)>,
        options: Options,
    ) -> Result<Self, ApiError> {
        let profile = lock(location)?;
        let settings = profile.settings()?;
        let key = match (location.remembered_key()?, password) {
            (Some(key), _) => key,
            (None, Some((password, cost))) => {
                let keys =
                    crate::profile::derive(password, &settings.deployment, &settings.name, cost).await?;
                settings.unwrap_key(&keys.unlock_key)?.1
            }
            (None, None) => return Err(crate::profile::locked()),
        };
        Self::open(profile, key, options)
    }

    /// Reaches the process that owns the profile.
    pub async fn connect(location: &Location) -> Result<Self, ApiError> {
        Ok(Self(Inner::Remote(Remote::connect(&location.socket_file()).await?)))
    }

    /// Whether the engine is in another process.
    pub fn is_remote(&self) -> bool {
        matches!(self.0, Inner::Remote(_))
    }

    /// Asks, and waits for the answer.
    pub async fn request(&self, request: Request) -> Result<Response, ApiError> {
        match &self.0 {
            Inner::Here(here) => ask(&here.commands, request).await,
            Inner::Remote(remote) => remote.request(request).await,
        }
    }

    /// What happens from now on. Ask for it before the request whose consequences are wanted.
    pub async fn events(&self) -> Result<Events, ApiError> {
        Ok(Events(match &self.0 {
            Inner::Here(here) => Source::Here(here.events.subscribe()),
            Inner::Remote(remote) => Source::Remote(remote.events().await?),
        }))
    }

    /// Sends a text and waits for the server's word; an error of kind `Timeout` means that it waits
    /// in the outbox.
    pub async fn send(&self, to: &str, text: &str, wait: Duration) -> Result<SentView, ApiError> {
        let id = hex::encode(rand::random::<[u8; 16]>());
        let wait_ms = wait.as_millis() as u64;
        let request = Request::Send { id, to: to.to_owned(), text: text.to_owned(), reply: None, wait_ms };
        self.sent(request).await
    }

    /// Asks what is answered once the server has a message.
    async fn sent(&self, request: Request) -> Result<SentView, ApiError> {
        match self.request(request).await? {
            Response::Sent(sent) => Ok(sent),
            Response::Waiting(waiting) => Err(ApiError::new(ErrorKind::Timeout, waiting.reason)),
            other => Err(unexpected(&other)),
        }
    }

    /// The last messages of a conversation, oldest first. `with`: an account's name, or a group.
    pub async fn history(&self, with: &str, limit: usize) -> Result<Vec<MessageView>, ApiError> {
        match self
            .request(Request::History { with: Some(with.to_owned()), limit, page: Page::default() })
            .await?
        {
            Response::Messages { messages, .. } => Ok(messages),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes this device's keys in a conversation new, and waits until the server has them.
    pub async fn update_keys(&self, with: &str) -> Result<(), ApiError> {
        self.request(Request::UpdateKeys { with: with.to_owned() }).await.map(drop)
    }

    /// Waits until everything that the server had at the beginning of the session is here, or until
    /// it is clear that this will not happen; the answer says which.
    pub async fn synced(&self, wait: Duration) -> Result<StatusView, ApiError> {
        match self.request(Request::Synced { wait_ms: wait.as_millis() as u64 }).await? {
            Response::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends the engine and waits until everything is written, unless it is another process's.
    pub async fn close(self) {
        let Inner::Here(here) = &self.0 else { return };
        if let Some(server) = &here.server {
            server.stop_accepting();
        }
        let _ = ask(&here.commands, Request::Shutdown).await;
        let engine = here.engine.lock().ok().and_then(|mut engine| engine.take());
        if let Some(engine) = engine {
            let _ = engine.await;
        }
    }

    /// Stops as a crash would: nothing more is sent or written. For tests.
    pub async fn kill(self) {
        let Inner::Here(here) = &self.0 else { return };
        let engine = here.engine.lock().ok().and_then(|mut engine| engine.take());
        if let Some(engine) = engine {
            engine.abort();
            let _ = engine.await;
        }
    }
}

impl Events {
    pub(crate) fn here(events: broadcast::Receiver<Event>) -> Self {
        Self(Source::Here(events))
    }

    /// The next one. Cancel safety: nothing is lost.
    pub async fn next(&mut self) -> Next {
        match &mut self.0 {
            Source::Here(events) => match events.recv().await {
                Ok(event) => Next::Event(event),
                Err(broadcast::error::RecvError::Lagged(_)) => Next::Missed,
                Err(broadcast::error::RecvError::Closed) => Next::Ended,
            },
            Source::Remote(events) => events.next().await,
        }
    }
}

pub(crate) async fn ask(commands: &mpsc::Sender<Command>, request: Request) -> Result<Response, ApiError> {
    let ended = || ApiError::new(ErrorKind::Gone, "the client has ended");
    let (reply, answer) = oneshot::channel();
    commands.send(Command { request, reply }).await.map_err(|_| ended())?;
    answer.await.map_err(|_| ended())?
}

fn lock(location: &Location) -> Result<Profile, ApiError> {
    let busy = || ApiError::internal(format!("another process owns the profile {:?}", location.name()));
    Profile::lock(location)?.ok_or_else(busy)
}

pub(crate) fn unexpected(response: &Response) -> ApiError {
    ApiError::internal(format!("an answer of another kind: {response:?}"))
}

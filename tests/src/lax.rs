//! A server that believes everything: the whole protocol for the real client, and not one check.
//!
//! - [`State`] keeps all in memory and answers each frame, purely. A test reaches into it
//!   ([`LaxServer::with`]) to swap a key package, forge a row, serve an older manifest, fork a log.
//! - [`LaxServer::tamper`] sees each frame before it goes to a device, and says what goes instead:
//!   nothing (dropped), another (altered), several (replayed, invented).
//! - [`LaxServer::intercept`] sees each frame of a device before it is believed, and may answer it.
//! - [`Rogue`] is a member with real keys and no scruples.
//!
//! What a client shows of a conversation with this server is what it has checked itself.

mod answers;
mod mls;
mod rogue;
mod state;

pub use answers::{Outcome, Who};
pub use rogue::{Deed, Rogue};
pub use state::{Account, Change, Conversation, Mailbox, PublicEpoch, Reader, State};

use anyhow::{Result, bail};
use fastchat_protocol::{
    ClientFrame, Code, ConversationId, DeviceId, Refusal, RequestId, ServerFrame, VERSIONS, limits,
    server::{self, LogRow},
};
use futures_util::{SinkExt, StreamExt};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};

/// The deployment's name.
pub const DEPLOYMENT: &str = "lax";
/// Limit: frames that wait for a client. One that reads so little loses its connection.
const QUEUE: usize = 1024;

type Socket = WebSocketStream<TcpStream>;
type Tamper = Box<dyn FnMut(DeviceId, ServerFrame) -> Vec<ServerFrame> + Send>;
type Intercept = Box<dyn FnMut(Who, &ClientFrame) -> Option<ServerFrame> + Send>;

/// A running server. It ends when it is dropped.
#[derive(Debug)]
pub struct LaxServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    connections: Mutex<HashMap<DeviceId, mpsc::Sender<(RequestId, ServerFrame)>>>,
    tamper: Mutex<Option<Tamper>>,
    intercept: Mutex<Option<Intercept>>,
}

impl LaxServer {
    /// Serves on a port of this machine.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, shared) = (listener.local_addr()?, Arc::<Shared>::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Looks at the state, or changes it. Nobody is told.
    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut lock(&self.shared.state))
    }

    /// From now on this decides what a device is sent in place of each frame. The first frame that it
    /// gives carries on the request of the original; any more come unasked.
    pub fn tamper(&self, tamper: impl FnMut(DeviceId, ServerFrame) -> Vec<ServerFrame> + Send + 'static) {
        *lock(&self.shared.tamper) = Some(Box::new(tamper));
    }

    /// From now on this sees each frame of a session first; what it answers is all that happens.
    pub fn intercept(
        &self,
        intercept: impl FnMut(Who, &ClientFrame) -> Option<ServerFrame> + Send + 'static,
    ) {
        *lock(&self.shared.intercept) = Some(Box::new(intercept));
    }

    /// Honest again, from the next frame on.
    pub fn behave(&self) {
        *lock(&self.shared.tamper) = None;
        *lock(&self.shared.intercept) = None;
    }

    /// Sends a frame to a device, unasked and as it is.
    pub fn push(&self, device: DeviceId, frame: ServerFrame) {
        self.shared.post(device, RequestId(0), frame);
    }

    /// Changes a conversation's log by `forge`, and tells its readers of the row that it gives.
    pub fn forge(
        &self,
        id: ConversationId,
        forge: impl FnOnce(&mut State) -> Result<LogRow>,
    ) -> Result<LogRow> {
        let (row, live) = self.with(|state| {
            let row = forge(state)?;
            Ok::<_, anyhow::Error>((row.clone(), state.appended(id, &row).live))
        })?;
        for (device, frame) in live {
            self.shared.emit(device, RequestId(0), frame);
        }
        Ok(row)
    }

    /// Ends the connections of a device; it dials again.
    pub fn cut(&self, device: DeviceId) {
        lock(&self.shared.connections).remove(&device);
    }

    /// Has a device compare everything with the log.
    pub fn resync(&self, device: DeviceId) {
        self.push(device, ServerFrame::Resync(server::Resync { reason: "bus".into() }));
    }
}

impl Shared {
    /// Sends what the test lets through.
    fn emit(&self, device: DeviceId, request: RequestId, frame: ServerFrame) {
        let frames = match &mut *lock(&self.tamper) {
            Some(tamper) => tamper(device, frame),
            None => vec![frame],
        };
        for (at, frame) in frames.into_iter().enumerate() {
            self.post(device, if at == 0 { request } else { RequestId(0) }, frame);
        }
    }

    fn post(&self, device: DeviceId, request: RequestId, frame: ServerFrame) {
        let mut connections = lock(&self.connections);
        if connections.get(&device).is_some_and(|queue| queue.try_send((request, frame)).is_err()) {
            connections.remove(&device);
        }
    }

    /// Answers a frame; `Some` is for a restricted session, which has no queue.
    fn on_frame(&self, who: Who, request: RequestId, frame: ClientFrame) -> Option<ServerFrame> {
        let intercepted = lock(&self.intercept).as_mut().and_then(|intercept| intercept(who, &frame));
        let outcome = match intercepted {
            Some(answer) => Outcome::from(answer),
            None => lock(&self.state).answer(who, frame).unwrap_or_else(|error| {
                ServerFrame::Refused(Refusal::new(Code::BadCommit, error.to_string())).into()
            }),
        };
        let Outcome { answer, live } = outcome;
        let answer = match (who.device, answer) {
            (Some(device), Some(answer)) => {
                self.emit(device, request, answer);
                None
            }
            (_, answer) => answer,
        };
        live.into_iter().for_each(|(device, frame)| self.emit(device, RequestId(0), frame));
        answer
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            if let Err(error) = serve(tcp, shared).await {
                tracing::debug!(%error, "a connection ended");
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(tcp: TcpStream, shared: Arc<Shared>) -> Result<()> {
    tcp.set_nodelay(true)?;
    let mut ws = accept_async(tcp).await?;
    let (request, hello) = next(&mut ws).await?;
    let ClientFrame::Hello(_) = hello else { bail!("{} before Hello", hello.name()) };
    send(&mut ws, request, &our_hello()).await?;
    let (request, proof) = next(&mut ws).await?;
    let opened = lock(&shared.state).open(proof);
    let (who, session) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let refusal = Refusal::new(Code::BadCredentials, error.to_string());
            return send(&mut ws, request, &ServerFrame::Refused(refusal)).await;
        }
    };
    let (queue, mut outbox) = mpsc::channel(QUEUE);
    if let Some(device) = who.device {
        lock(&shared.connections).insert(device, queue.clone());
    }
    // The connection ends when its device's place is taken or given up; a restricted one by its client.
    let _kept = who.device.is_none().then_some(queue);
    send(&mut ws, request, &session).await?;
    loop {
        tokio::select! {
            frame = next(&mut ws) => {
                let (request, frame) = frame?;
                if let Some(answer) = shared.on_frame(who, request, frame) {
                    send(&mut ws, request, &answer).await?;
                }
            }
            out = outbox.recv() => match out {
                Some((request, frame)) => send(&mut ws, request, &frame).await?,
                None => return Ok(ws.close(None).await?),
            },
        }
    }
}

fn our_hello() -> ServerFrame {
    ServerFrame::Hello(server::Hello {
        version: VERSIONS[0],
        deployment: DEPLOYMENT.to_owned(),
        nonce: [7; 32],
        incarnation: 1,
        max_frame: limits::MAX_FRAME as u32,
        max_envelope: limits::MAX_ENVELOPE as u32,
    })
}

/// The next frame. Cancel safety: as `StreamExt::next`, nothing is lost.
async fn next(ws: &mut Socket) -> Result<(RequestId, ClientFrame)> {
    loop {
        match ws.next().await {
            Some(Ok(Message::Binary(bytes))) => return Ok(ClientFrame::decode(&bytes)?),
            Some(Ok(Message::Close(_))) | None => bail!("the client went away"),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
        }
    }
}

async fn send(ws: &mut Socket, request: RequestId, frame: &ServerFrame) -> Result<()> {
    Ok(ws.send(Message::Binary(frame.encode(request))).await?)
}

/// A test that panicked has said why; the others go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

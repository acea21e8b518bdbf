//! The connection to a gateway: dial, hello, proof of the device, frames, and dialling again.
//!
//! - [`Way`] finds a gateway: it asks balancers, remembers what they named, and knows who failed.
//!   [`Way::open`] dials and says hello; [`Opened::prove`] ends the handshake. Registration and login use
//!   these two alone.
//! - [`Way::restrict`] proves a password or a recovery code without a device: linking and recovery use it.
//! - [`spawn`] keeps a session: it resumes by the device's key, hands frames to the engine, watches
//!   for silence, moves to another gateway when it is asked to, and dials again with full jitter until
//!   something says that no retry can help.
//!
//! Invariant: frames given to a connection's sender go out on that connection or not at all.

pub mod assign;
pub mod backoff;
mod change;
mod dial;
mod error;
mod known;
mod leg;
pub mod parts;
mod restricted;
pub mod route;
pub mod servers;
mod supervise;
pub mod url;
pub mod way;

use dial::Socket;
use fastchat_e2ee::Device;
use fastchat_protocol::{Bytes, ClientFrame, RequestId, ServerFrame, VERSIONS, client, server};
use futures_util::{SinkExt, StreamExt};
use std::{path::PathBuf, time::Duration};
use tokio_tungstenite::tungstenite::Message;

pub use error::LinkError;
pub(crate) use error::older_store;
pub use restricted::RestrictedSession;
pub use servers::{Pick, Servers};
pub use supervise::{LinkEvent, LinkHandle, spawn};
pub use url::{ServerUrl, UrlError};
pub use way::{Destination, Way};

/// How long dialling and each step of the handshake may take. Proving a password waits for bcrypt.
const STEP_TIMEOUT: Duration = Duration::from_secs(15);

/// One gateway to dial, and whom to believe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The gateway.
    pub url: ServerUrl,
    /// A balancer's ticket for it.
    pub ticket: Option<Bytes>,
    /// Trust these certificates (PEM) instead of the platform's.
    pub ca: Option<PathBuf>,
    /// The deployment's name as seen at first use; none before that.
    pub deployment: Option<String>,
    /// A plain connection to another machine is wanted.
    pub insecure: bool,
    /// The newest incarnation of the server's store that was seen; none before that.
    pub incarnation: Option<u32>,
}

/// A connection on which both sides have said hello.
pub struct Opened {
    socket: Socket,
    hello: server::Hello,
    host: String,
}

/// A connection whose device is known to the gateway.
pub(crate) struct Proven {
    pub(crate) socket: Socket,
    pub(crate) hello: server::Hello,
    pub(crate) session: server::Session,
}

/// Dials, agrees on a version, checks the pinned deployment name.
pub async fn open(endpoint: &Endpoint) -> Result<Opened, LinkError> {
    if !endpoint.url.tls() && !endpoint.url.is_loopback() && !endpoint.insecure {
        return Err(LinkError::Plain(endpoint.url.host().to_owned()));
    }
    let mut socket = step("dialling", dial::dial(endpoint)).await?;
    let host = endpoint.url.authority();
    let agent = concat!("fastchat/", env!("CARGO_PKG_VERSION")).to_owned();
    let ticket = endpoint.ticket.clone();
    let hello = client::Hello { versions: VERSIONS.to_vec(), agent, host: host.clone(), ticket };
    let answer = exchange(&mut socket, ClientFrame::Hello(hello)).await?;
    let ServerFrame::Hello(hello) = answer else { return Err(unexpected("Hello", &answer)) };
    if !VERSIONS.contains(&hello.version) {
        return Err(LinkError::Protocol(format!("the server chose protocol version {}", hello.version)));
    }
    if let Some(known) = endpoint.incarnation.filter(|known| hello.incarnation < *known) {
        return Err(LinkError::OlderStore { known, found: hello.incarnation });
    }
    match &endpoint.deployment {
        Some(pinned) if *pinned != hello.deployment => {
            Err(LinkError::Deployment { pinned: pinned.clone(), found: hello.deployment })
        }
        _ => Ok(Opened { socket, hello, host }),
    }
}

impl Opened {
    /// What the gateway said.
    pub fn hello(&self) -> &server::Hello {
        &self.hello
    }

    /// Host and port as they were dialled.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The device's answer to this connection's challenge.
    pub fn sign(&self, device: &Device) -> Bytes {
        device.sign_challenge(&self.hello.deployment, &self.host, &self.hello.nonce).to_vec().into()
    }

    /// Sends the proof (`Register`, `Login` or `Resume`) and waits for the session.
    pub async fn prove(self, proof: ClientFrame) -> Result<server::Session, LinkError> {
        let mut proven = self.prove_and_keep(proof).await?;
        // Nothing more to say: a polite end spares the gateway a timeout.
        let _ = tokio::time::timeout(Duration::from_millis(500), proven.socket.close(None)).await;
        Ok(proven.session)
    }

    pub(crate) async fn prove_and_keep(mut self, proof: ClientFrame) -> Result<Proven, LinkError> {
        let answer = exchange(&mut self.socket, proof).await?;
        let ServerFrame::Session(session) = answer else { return Err(unexpected("Session", &answer)) };
        Ok(Proven { socket: self.socket, hello: self.hello, session })
    }
}

/// One request and its answer, while nothing else is on its way.
async fn exchange(socket: &mut Socket, frame: ClientFrame) -> Result<ServerFrame, LinkError> {
    let request = RequestId(1);
    let what = frame.name();
    step(what, async {
        socket.send(Message::Binary(frame.encode(request))).await.map_err(LinkError::from)?;
        loop {
            let Some(frame) = decode(socket.next().await)? else { continue };
            match frame {
                (_, ServerFrame::Refused(refusal) | ServerFrame::Closing(refusal)) => {
                    return Err(refusal.into());
                }
                (answered, frame) if answered == request => return Ok(frame),
                (_, frame) => tracing::debug!(frame = frame.name(), "ignored during the handshake"),
            }
        }
    })
    .await
}

/// What a socket gave: a frame, or nothing for the engine (a ping, a frame of a later version).
fn decode(
    message: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
) -> Result<Option<(RequestId, ServerFrame)>, LinkError> {
    match message.ok_or(LinkError::Closed)?? {
        Message::Binary(bytes) => match ServerFrame::decode(&bytes) {
            Ok(frame) => Ok(Some(frame)),
            Err(fastchat_protocol::frame::FrameError::Unknown { number, .. }) => {
                tracing::warn!(number, "the server sent a frame of a later version");
                Ok(None)
            }
            Err(error) => Err(LinkError::Protocol(error.to_string())),
        },
        Message::Close(_) => Err(LinkError::Closed),
        _ => Ok(None),
    }
}

async fn step<T>(
    what: &'static str,
    work: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    tokio::time::timeout(STEP_TIMEOUT, work).await.map_err(|_| LinkError::Timeout(what))?
}

fn unexpected(wanted: &str, got: &ServerFrame) -> LinkError {
    LinkError::Protocol(format!("the server answered {} where {wanted} belongs", got.name()))
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("hello", &self.hello).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! Keeps a session with some gateway until it is told to stop or no retry can help.

use super::{Endpoint, LinkError, Proven, backoff::Backoff, decode, dial::Socket, open};
use fastchat_e2ee::Device;
use fastchat_protocol::{Bytes, ClientFrame, RequestId, ServerFrame, client, server};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

/// Limit: frames that wait for the engine; beyond, the socket is not read and the gateway's own
/// bounded queue decides.
const EVENTS: usize = 256;
/// Limit: frames that wait for the socket.
const OUTGOING: usize = 128;
/// A write that takes longer means a dead peer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// Pings are expected this often if the gateway does not say.
const DEFAULT_PING: Duration = Duration::from_secs(20);

/// A second displacement within this is no stale record: somebody else has this device's keys.
const DISPLACED_AGAIN: Duration = Duration::from_secs(60);
/// The pause after the first displacement, give or take a half.
const DISPLACED_PAUSE: Duration = Duration::from_secs(1);

/// Whether a displacement may come from a gateway's stale record of this very device. `last` is the
/// time since the one before.
fn may_be_stale(last: Option<Duration>) -> bool {
    last.is_none_or(|last| last >= DISPLACED_AGAIN)
}

/// What the engine hears.
#[derive(Debug)]
pub enum LinkEvent {
    /// A session began; frames go to `sender`.
    Up {
        /// For encoded frames; dropping it ends the connection.
        sender: mpsc::Sender<Bytes>,
        /// What the gateway knows of the device.
        session: server::Session,
        /// Limits and deployment.
        hello: server::Hello,
    },
    /// A frame of the session that began last.
    Frame(RequestId, ServerFrame),
    /// The session ended, or an attempt failed; another one follows.
    Down {
        /// Why.
        error: LinkError,
        /// When.
        retry_in: Duration,
    },
    /// No retry can help. Nothing follows.
    Ended(LinkError),
}

/// The engine's end of the link.
#[derive(Debug)]
pub struct LinkHandle {
    events: mpsc::Receiver<LinkEvent>,
    stop: CancellationToken,
    hurry: Arc<Notify>,
    task: JoinHandle<()>,
}

impl LinkHandle {
    /// The next event; `None` after the end. Cancel safety: nothing is lost.
    pub async fn next(&mut self) -> Option<LinkEvent> {
        self.events.recv().await
    }

    /// An event that is there already.
    pub fn try_next(&mut self) -> Option<LinkEvent> {
        self.events.try_recv().ok()
    }

    /// Somebody is waiting: dial now instead of at the end of the pause, unless the gateway has asked
    /// for the pause.
    pub fn hurry(&self) {
        self.hurry.notify_waiters();
    }

    /// Ends the connection politely, at most within a second.
    pub async fn close(mut self) {
        self.stop.cancel();
        self.events.close();
        let _ = timeout(Duration::from_secs(1), &mut self.task).await;
    }
}

impl Drop for LinkHandle {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

/// Starts dialling.
pub fn spawn(endpoint: Endpoint, device: Arc<Device>) -> LinkHandle {
    let (sender, events) = mpsc::channel(EVENTS);
    let stop = CancellationToken::new();
    let hurry = Arc::new(Notify::new());
    let link = Link { endpoint, device, events: sender, stop: stop.clone(), hurry: Arc::clone(&hurry) };
    let task = tokio::spawn(async move { link.run().await });
    LinkHandle { events, stop, hurry, task }
}

struct Link {
    endpoint: Endpoint,
    device: Arc<Device>,
    events: mpsc::Sender<LinkEvent>,
    stop: CancellationToken,
    hurry: Arc<Notify>,
}

/// Why one connection ended, and when the gateway wants the client back.
struct End {
    error: LinkError,
    wish: Option<Duration>,
}

impl From<LinkError> for End {
    fn from(error: LinkError) -> Self {
        Self { wish: error.wait(), error }
    }
}

impl Link {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut displaced: Option<Instant> = None;
        loop {
            let began = Instant::now();
            let stop = self.stop.clone();
            let mut end = tokio::select! {
                end = self.connect() => end,
                () = stop.cancelled() => return,
            };
            backoff.ended(began.elapsed());
            let excused = end.error.is_displaced()
                && may_be_stale(displaced.replace(Instant::now()).map(|at| at.elapsed()));
            if excused {
                end.wish = Some(DISPLACED_PAUSE.mul_f64(0.5 + rand::random::<f64>()));
            } else if end.error.is_final() {
                let _ = self.events.send(LinkEvent::Ended(end.error)).await;
                return;
            }
            let asked_for = end.wish.is_some();
            let retry_in = backoff.next(rand::random(), end.wish);
            tracing::info!(error = %end.error, ?retry_in, "no connection");
            if self.events.send(LinkEvent::Down { error: end.error, retry_in }).await.is_err() {
                return;
            }
            tokio::select! {
                () = sleep(retry_in) => {}
                () = self.hurry.notified(), if !asked_for => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One connection from dialling to its end.
    async fn connect(&mut self) -> End {
        let Proven { socket, hello, session } = match self.resume().await {
            Ok(proven) => proven,
            Err(error) => return error.into(),
        };
        // The name is pinned by what was seen first, in this run at the latest.
        self.endpoint.deployment.get_or_insert_with(|| hello.deployment.clone());
        let ping = match session.ping_seconds {
            0 => DEFAULT_PING,
            seconds => Duration::from_secs(u64::from(seconds)),
        };
        let (sender, outgoing) = mpsc::channel(OUTGOING);
        if self.events.send(LinkEvent::Up { sender, session, hello }).await.is_err() {
            return LinkError::Closed.into();
        }
        let (sink, stream) = socket.split();
        tokio::select! {
            end = self.read(stream, ping * 3) => end,
            end = write(sink, outgoing) => end,
        }
    }

    async fn resume(&self) -> Result<Proven, LinkError> {
        let opened = open(&self.endpoint).await?;
        let signature = opened.sign(&self.device);
        opened
            .prove_and_keep(ClientFrame::Resume(client::Resume { device: self.device.id(), signature }))
            .await
    }

    /// Hands frames on until the connection ends or falls silent.
    async fn read(&self, mut stream: SplitStream<Socket>, silence: Duration) -> End {
        // Set by `Draining`: until then the old connection is used, then a new one is made.
        let mut leave: Option<Instant> = None;
        let end = |error: LinkError, leave: Option<Instant>| match leave {
            Some(at) => {
                End { error: LinkError::Draining, wish: Some(at.saturating_duration_since(Instant::now())) }
            }
            None => error.into(),
        };
        loop {
            let message = tokio::select! {
                message = timeout(silence, stream.next()) => message,
                () = sleep_until(leave.unwrap_or_else(Instant::now)), if leave.is_some() => return end(LinkError::Draining, leave),
            };
            let Ok(message) = message else { return end(LinkError::Silent(silence), leave) };
            let (request, frame) = match decode(message) {
                Ok(Some(frame)) => frame,
                Ok(None) => continue,
                Err(error) => return end(error, leave),
            };
            match frame {
                ServerFrame::Closing(refusal) => return end(LinkError::from(refusal), leave),
                ServerFrame::Draining(server::Draining { reconnect_in_ms }) => {
                    leave = Some(Instant::now() + Duration::from_millis(u64::from(reconnect_in_ms)));
                }
                frame => {
                    if self.events.send(LinkEvent::Frame(request, frame)).await.is_err() {
                        return LinkError::Closed.into();
                    }
                }
            }
        }
    }
}

/// Sends frames until the engine drops its sender.
async fn write(mut sink: SplitSink<Socket, Message>, mut outgoing: mpsc::Receiver<Bytes>) -> End {
    while let Some(bytes) = outgoing.recv().await {
        let deadline = Instant::now() + WRITE_TIMEOUT;
        match timeout_at(deadline, sink.send(Message::Binary(bytes))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return LinkError::from(error).into(),
            Err(_) => return LinkError::Silent(WRITE_TIMEOUT).into(),
        }
    }
    let _ = timeout(Duration::from_millis(500), sink.close()).await;
    LinkError::Closed.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_only_a_second_displacement_within_a_minute_ends_it() {
        for (last, want) in [(None, true), (Some(0), false), (Some(59), false), (Some(60), true)] {
            assert_eq!(may_be_stale(last.map(Duration::from_secs)), want, "{last:?}");
        }
    }
}

//! One task a socket: bytes in, frames decided, frames out.
//!
//! - First the handshake ([`opening`]), in a box, so that an idle connection does not carry its state: what
//!   a task is made of stays for as long as it runs. All that is rare or moves is in boxes.
//! - Then one loop over: the client's frames, the answer that is being made, what waits to be
//!   written, the ping, and the end.
//! - While a request is being answered, in a task beside this one, no further frame is read: that is the
//!   client's back-pressure.
//! - Nothing here waits for another connection, and nobody waits for this one.

mod guest;
mod opening;
mod scratch;
mod socket;

use crate::{
    fanout::Committed,
    gateway::Gateway,
    handshake::Unidentified,
    limits::MAX_TYPING,
    metrics,
    queue::Batch,
    rate::{self, SendLimiter},
    refusal,
    registry::Handle,
    service,
    session::{Session, Step, Tick},
    store::{Append, Arrival, Outcome, operate::ShutOut, receipts::ReadMark},
};
use bytes::Bytes;
use fastchat_protocol::{
    ClientFrame, Code, ConversationId, Refusal, RequestId, ServerFrame,
    bus::Subject,
    client::{MarkRead, Typing},
    frame::FrameError,
    limits,
    server::{self, Draining, LogKind, Resync},
};
use futures_util::{SinkExt, StreamExt};
use opening::{Opened, identify};
use scratch::Scratched;
use socket::{dismiss, linger, timed, too_large, write};
use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::OwnedSemaphorePermit,
    task::JoinError,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        error::Error as WsError,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use tokio_util::task::AbortOnDropHandle;

/// Why a connection ended, for the metric.
type Reason = &'static str;

/// Serves an upgraded socket until it ends. `place` is one of those for sockets without a session.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(
    gateway: Arc<Gateway>,
    socket: S,
    peer: Unidentified,
    place: OwnedSemaphorePermit,
) {
    let opened = Box::pin(identify(&gateway, socket, peer)).await;
    drop(place);
    let reason = match opened {
        Err(reason) => reason,
        Ok(Opened::Device(proved)) => match Box::pin(proved.enter(gateway)).await {
            Ok(mut connection) => connection.run().await,
            Err(reason) => reason,
        },
        Ok(Opened::Guest(visit)) => Box::pin(visit.run(gateway)).await,
    };
    metrics::ended(reason);
}

/// A device's entry in the registry; it leaves when this is dropped, however the connection ends.
struct Presence {
    gateway: Arc<Gateway>,
    handle: Arc<Handle>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let (gateway, account) = (&self.gateway, self.handle.account);
        gateway.groups.leave(&self.handle);
        let last = gateway.registry.leave(&self.handle);
        let watched = gateway.watches.left(&self.handle, last);
        if last {
            gateway.seen.note(&self.handle);
        }
        if last && !watched {
            let subject = Subject::User(account);
            gateway.bus.unsubscribe(subject);
            // Somebody may have entered between the two lines above.
            if gateway.registry.has(account) {
                let gateway = Arc::clone(gateway);
                tokio::spawn(async move { gateway.bus.subscribe(subject).await });
            }
        }
        metrics::connections(gateway.registry.connections());
    }
}

/// A socket with a session.
struct Connection<S> {
    gateway: Arc<Gateway>,
    ws: WebSocketStream<Scratched<S>>,
    session: Session,
    handle: Arc<Handle>,
    sends: SendLimiter,
    /// When it was said last that somebody types, by conversation.
    typed: HashMap<ConversationId, Instant>,
    /// The proof that is owed an answer.
    request: RequestId,
    /// It is the account's only connection here.
    first: bool,
    _presence: Presence,
}

/// A request at work; its outcome is the answer, if one is owed. A task, so that it goes on while this
/// connection writes to a client that does not read: it may hold a transaction, which others wait for. It
/// ends with the connection.
type Serving = AbortOnDropHandle<Option<(RequestId, ServerFrame)>>;

fn serving(answer: impl Future<Output = Option<(RequestId, ServerFrame)>> + Send + 'static) -> Serving {
    AbortOnDropHandle::new(tokio::spawn(answer))
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    async fn run(&mut self) -> Reason {
        if let Err(reason) = Box::pin(self.welcome()).await {
            return reason;
        }
        match self.serve().await {
            Ok(never) => match never {},
            Err(reason) => reason,
        }
    }

    /// Subscribes, then answers the proof: what the client reads after that answer, and what wakes it,
    /// leave nothing in between, but what the gateway stored that this device comes from, before it heard
    /// of this connection. That is found by the head check.
    async fn welcome(&mut self) -> Result<(), Reason> {
        if self.first {
            self.gateway.bus.subscribe(Subject::User(self.handle.account)).await;
        }
        match self.begin().await {
            Ok(session) => {
                self.gateway.fanout.connected(self.handle.account, self.handle.device);
                // Who watches from here hears it without the bus.
                self.gateway.watches.on_connected(self.handle.account);
                write(&mut self.ws, [session.encode(self.request)].into()).await
            }
            Err(refusal) => Err(dismiss(&mut self.ws, self.request, refusal).await),
        }
    }

    /// One question for all that a session begins with. It comes after the registry and the account's
    /// subject: others can find this connection, and this gateway hears when a group lets the account in,
    /// so that what happens from here on is not missed, and what happened before is in the answer. A
    /// revocation during the proof is: it closed nothing, because there was nothing yet to close.
    async fn begin(&mut self) -> Result<ServerFrame, Refusal> {
        let arrival = self.gateway.arrivals.session(self.handle.device).await?;
        let arrival = arrival.ok_or_else(|| refusal::of_shut_out(ShutOut::Revoked))?;
        // The client was told another one: it would compare its positions with a log that is gone.
        self.gateway.on_incarnation(arrival.incarnation)?;
        if let Some(why) = arrival.device.shut_out() {
            return Err(refusal::of_shut_out(why));
        }
        self.gateway.groups.enter(&self.handle, &arrival.groups).await;
        Ok(self.session_frame(arrival))
    }

    fn session_frame(&mut self, arrival: Arrival) -> ServerFrame {
        let (me, device) = (self.session.me(), arrival.device);
        if let Some(quota) = device.sends_per_second.and_then(NonZeroU32::new) {
            self.sends = rate::sends(quota);
        }
        self.handle.visible.store(device.visible, Ordering::Relaxed);
        self.handle.shares_delivered.store(device.shares_delivered, Ordering::Relaxed);
        self.handle.shares_last_seen.store(device.shares_last_seen, Ordering::Relaxed);
        self.handle.sole.store(arrival.sole, Ordering::Relaxed);
        let ping_interval = self.gateway.config.ping_interval.as_secs();
        ServerFrame::Session(server::Session {
            account: me.account,
            name: me.name.clone(),
            device: me.device,
            mailbox_head: device.mailbox_head,
            ping_seconds: u32::try_from(ping_interval).unwrap_or(u32::MAX).max(1),
            key_packages: arrival.key_packages,
            sharing: Some(server::Sharing {
                online: device.visible,
                delivered: device.shares_delivered,
                last_seen: device.shares_last_seen,
            }),
        })
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, Reason> {
        let mut serving: Option<Serving> = None;
        // What happened before is to be seen too.
        let (mut woken, mut draining) = (true, false);
        let mut pings = tokio::time::interval_at(
            tokio::time::Instant::now() + self.gateway.config.ping_interval,
            self.gateway.config.ping_interval,
        );
        pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // One wake for all that others want of this connection: a waiter for each would be entered and
            // taken out again with every frame.
            if std::mem::take(&mut woken) {
                if let Some(why) = self.to_end() {
                    return Err(self.close(why).await);
                }
                if !draining && self.gateway.draining.is_cancelled() {
                    draining = true;
                    self.say_draining();
                }
                self.write_waiting().await?;
            }
            // Cancel safety: reading a message, waiting for the queue and the tick may all be dropped at
            // any await; the request that is served lives outside the loop.
            tokio::select! {
                message = self.ws.next(), if serving.is_none() => serving = self.on_socket(message).await?,
                answer = async { serving.as_mut().expect("guarded by is_some").await }, if serving.is_some() => {
                    serving = None;
                    match answer.map_err(JoinError::try_into_panic) {
                        Ok(Some((request, answer))) => self.handle.answer(request, &answer),
                        Err(Ok(panic)) => std::panic::resume_unwind(panic),
                        Ok(None) | Err(Err(_)) => {}
                    }
                }
                () = self.handle.queue.ready() => woken = true,
                _ = pings.tick() => self.on_tick().await?,
            }
        }
    }

    /// Why the connection is to end, if it is.
    fn to_end(&self) -> Option<Refusal> {
        let ends = || Refusal::new(Code::Draining, "the gateway ends");
        self.handle.end().cloned().or_else(|| self.gateway.ending.is_cancelled().then(ends))
    }

    async fn on_socket(
        &mut self,
        message: Option<Result<Message, WsError>>,
    ) -> Result<Option<Serving>, Reason> {
        match message {
            Some(Ok(message)) => self.on_message(&message),
            None => Err("client_left"),
            Some(Err(error)) => Err(match too_large(&error, limits::MAX_FRAME) {
                Some(refusal) => self.close(refusal).await,
                None => "socket_error",
            }),
        }
    }

    fn on_message(&mut self, message: &Message) -> Result<Option<Serving>, Reason> {
        self.session.on_heard();
        metrics::heard(message.len());
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Ping(_) | Message::Pong(_) => return Ok(None),
            Message::Close(_) => return Err("client_closed"),
            Message::Text(_) | Message::Frame(_) => {
                self.handle.close(Code::BadFrame, "frames are binary");
                return Ok(None);
            }
        };
        let (request, frame) = match ClientFrame::decode(bytes) {
            Ok(decoded) => decoded,
            Err(FrameError::Unknown { number, request }) => {
                let detail = format!("frame number {number} is not known to this gateway");
                self.refuse(request, "unknown", Refusal::new(Code::UnknownFrame, detail));
                return Ok(None);
            }
            Err(FrameError::Malformed(error)) => {
                // Where one frame cannot be read, the request that it would answer is not known either.
                self.handle.close(Code::BadFrame, &format!("a frame cannot be read: {error}"));
                return Ok(None);
            }
        };
        let name = frame.name();
        match self.session.on_client(frame) {
            Step::Submit(append) => self.submit(request, append),
            Step::Refuse(refusal) => self.refuse(request, name, refusal),
            Step::Cursors(cursors) => {
                let tells = self.handle.shares_delivered.load(Ordering::Relaxed);
                for cursor in cursors {
                    self.gateway.cursors.set(self.handle.device, cursor.conversation, cursor.seq, tells);
                }
            }
            Step::Read(mark) => self.mark_read(request, mark),
            Step::Typing(said) => return Ok(self.typing(said)),
            Step::Mailbox(seq) => {
                let (gateway, device) = (Arc::clone(&self.gateway), self.handle.device);
                return Ok(Some(serving(async move {
                    if let Err(error) = gateway.store.ack_mailbox(device, seq).await {
                        tracing::warn!(%error, "a mailbox keeps what was acked; the device acks again");
                    }
                    None
                })));
            }
            Step::Serve(frame) => {
                return Ok(Some(self.answer(request, frame)));
            }
        }
        Ok(None)
    }

    fn answer(&self, request: RequestId, frame: ClientFrame) -> Serving {
        let (gateway, me) = (Arc::clone(&self.gateway), self.session.me().clone());
        let ends = matches!(frame, ClientFrame::DeleteAccount(_)).then(|| Arc::clone(&self.handle));
        serving(async move {
            let answer = service::answer(&gateway, &me, frame).await;
            let Some(handle) = ends.filter(|_| matches!(answer, ServerFrame::Done(_))) else {
                return Some((request, answer));
            };
            // The answer goes first: what waits is written before the connection ends.
            handle.answer(request, &answer);
            handle.close(Code::Revoked, "the account was deleted");
            None
        })
    }

    /// Hands an envelope to the writer, which answers this connection and then tells the others.
    fn submit(&self, request: RequestId, append: Append) {
        if let Err(too_often) = rate::check_send(&self.sends) {
            return self.refuse(request, metrics::SEND, service::rate_limited(too_often));
        }
        let (gateway, handle, started) =
            (Arc::clone(&self.gateway), Arc::clone(&self.handle), Instant::now());
        let Append { conversation, device: sender, counter, envelope, .. } = append.clone();
        let submitted = self.gateway.writer.submit(
            append,
            Box::new(move |outcome| {
                let answer = match &outcome {
                    Ok(outcome) => refusal::of_outcome(outcome),
                    Err(error) => Err(refusal::of_write(*error)),
                };
                let refused = answer.as_ref().err().map(|refusal| refusal.code);
                metrics::request(metrics::SEND, refused, started.elapsed());
                handle.answer(request, &refusal::frame(answer.map(ServerFrame::Sent)));
                if let Ok(Outcome::Duplicate(_)) = outcome {
                    metrics::duplicate();
                }
                if let Ok(Outcome::Stored(stored)) = outcome {
                    metrics::committed(started);
                    gateway.fanout.committed(Committed {
                        conversation,
                        sender,
                        counter,
                        kind: LogKind::Application,
                        envelope,
                        stored,
                    });
                }
            }),
        );
        if submitted.is_err() {
            let busy =
                Refusal::new(Code::Unavailable, "the gateway has too much to write; nothing was stored");
            metrics::writer_refused();
            self.refuse(request, metrics::SEND, Refusal { wait_ms: Some(500), ..busy });
        }
    }

    /// Hands a read position to the next flush of cursors, which answers this connection.
    fn mark_read(&self, request: RequestId, mark: MarkRead) {
        let name = ClientFrame::MarkRead(mark).name();
        let MarkRead { conversation, seq, shared } = mark;
        let (handle, started) = (Arc::clone(&self.handle), Instant::now());
        let mark = ReadMark { conversation, device: handle.device, seq, shared };
        let taken = self.gateway.cursors.mark(
            handle.account,
            mark,
            Box::new(move |believed| {
                let answer = match believed {
                    Ok(true) => Ok(ServerFrame::Done(server::Done {})),
                    Ok(false) => {
                        Err(Refusal::new(Code::NotMember, "no such row of a conversation of this account"))
                    }
                    Err(error) => Err(refusal::of_store(error)),
                };
                let refused = answer.as_ref().err().map(|refusal| refusal.code);
                metrics::request(name, refused, started.elapsed());
                handle.answer(request, &refusal::frame(answer));
            }),
        );
        if !taken {
            let busy = Refusal::new(Code::Unavailable, "too many read positions wait; nothing was stored");
            self.refuse(request, name, Refusal { wait_ms: Some(1_000), ..busy });
        }
    }

    /// Tells others, unless this device has said so in this conversation a moment ago.
    fn typing(&mut self, said: Typing) -> Option<Serving> {
        let now = Instant::now();
        let interval = Duration::from_secs(limits::TYPING_INTERVAL_S);
        self.typed.retain(|_, at| now.duration_since(*at) < interval);
        if self.typed.len() >= MAX_TYPING || self.typed.contains_key(&said.conversation) {
            metrics::hint_dropped("typing", "too_often");
            return None;
        }
        self.typed.insert(said.conversation, now);
        let (gateway, handle) = (Arc::clone(&self.gateway), Arc::clone(&self.handle));
        Some(serving(async move {
            gateway.hints.typing(&handle, said).await;
            None
        }))
    }

    fn refuse(&self, request: RequestId, frame: &'static str, refusal: Refusal) {
        metrics::request(frame, Some(refusal.code), Duration::ZERO);
        self.handle.answer(request, &ServerFrame::Refused(refusal));
    }

    async fn write_waiting(&mut self) -> Result<(), Reason> {
        let Some(Batch { mut frames, since, lagged }) = self.handle.queue.take() else {
            return Ok(());
        };
        if lagged {
            metrics::resync("lagging", 1);
            frames.push_back(ServerFrame::Resync(Resync { reason: "lagging".into() }).encode(RequestId(0)));
        }
        write(&mut self.ws, frames).await?;
        metrics::live_written(&since);
        Ok(())
    }

    async fn on_tick(&mut self) -> Result<(), Reason> {
        match self.session.on_tick() {
            Tick::Ping => timed(self.ws.send(Message::Ping(Bytes::new()))).await,
            Tick::Silent => {
                Err(self.close(Refusal::new(Code::TimedOut, "nothing was heard for too long")).await)
            }
        }
    }

    /// Tells the client to come back, each at another time within the drain's window.
    fn say_draining(&self) {
        // The last third of the window is for those who go last: to get there, and to let go here.
        let window = (self.gateway.config.drain_window.as_millis() * 2 / 3).max(1) as u64;
        let mut bytes = [0; 8];
        // Without randomness all come back at once, which is worse but not wrong.
        let _ = getrandom::fill(&mut bytes);
        let reconnect_in_ms = u32::try_from(u64::from_le_bytes(bytes) % window).unwrap_or(0);
        self.handle.answer(RequestId(0), &ServerFrame::Draining(Draining { reconnect_in_ms }));
    }

    async fn close(&mut self, refusal: Refusal) -> Reason {
        Box::pin(self.say_why(refusal)).await
    }

    async fn say_why(&mut self, refusal: Refusal) -> Reason {
        let reason = refusal.code.label();
        let _ = self.write_waiting().await;
        let frame = ServerFrame::Closing(refusal).encode(RequestId(0));
        if write(&mut self.ws, [frame].into()).await.is_ok() {
            let close = CloseFrame { code: CloseCode::Policy, reason: reason.into() };
            let _ = timed(self.ws.close(Some(close))).await;
            linger(&mut self.ws).await;
        }
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::DuplexStream;

    /// What a call of a function makes, as far as its types say.
    fn size_of_future<A, B, C, D, F: Future>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_small() {
        // Each connection has one of both for as long as it lasts.
        let (task, connection) =
            (size_of_future(serve::<DuplexStream>), size_of::<Connection<DuplexStream>>());
        assert!(task <= 1_088 && connection <= 1_024, "{task} {connection}");
    }
}

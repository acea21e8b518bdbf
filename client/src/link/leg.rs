//! One connection with a session, from its first frame to its end.

use super::{LinkError, decode, dial::Socket, supervise::LinkEvent};
use fastchat_protocol::{Bytes, RequestId, ServerFrame, server};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use std::time::Duration;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_tungstenite::tungstenite::Message;

/// A write that takes longer means a dead peer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a connection ended, and when the gateway wants the client back.
#[derive(Debug)]
pub(super) struct End {
    pub(super) error: LinkError,
    pub(super) wish: Option<Duration>,
    /// Another gateway may be tried at once.
    pub(super) more: bool,
}

impl From<LinkError> for End {
    fn from(error: LinkError) -> Self {
        Self { wish: error.wait(), error, more: false }
    }
}

/// A reason to be on another gateway.
#[derive(Debug)]
pub(super) enum Wish {
    /// The gateway wants the client to go there.
    Move(server::Move),
    /// The gateway goes away, and this connection's time has come.
    Leave,
    /// So many requests were answered that another gateway may be picked.
    Again,
}

/// What a connection needs.
pub(super) struct Leg {
    pub(super) socket: Socket,
    /// Frames to send.
    pub(super) outgoing: mpsc::Receiver<Bytes>,
    /// Frames that came.
    pub(super) events: mpsc::Sender<LinkEvent>,
    /// Has room for one: a second reason changes nothing.
    pub(super) wishes: mpsc::Sender<Wish>,
    /// A gateway that says nothing for so long is gone.
    pub(super) silence: Duration,
    /// There may be another gateway to go to.
    pub(super) others: bool,
    /// See `Destination::repick_every`.
    pub(super) repick_every: Option<u32>,
}

impl Leg {
    /// Carries frames until the connection ends or falls silent.
    pub(super) async fn run(self) -> End {
        let (sink, stream) = self.socket.split();
        let reader = Reader {
            events: self.events,
            wishes: self.wishes,
            others: self.others,
            repick_every: self.repick_every,
            answers: 0,
            leave: None,
            left: false,
        };
        tokio::select! {
            end = reader.read(stream, self.silence) => end,
            end = write(sink, self.outgoing) => end,
        }
    }
}

struct Reader {
    events: mpsc::Sender<LinkEvent>,
    wishes: mpsc::Sender<Wish>,
    others: bool,
    repick_every: Option<u32>,
    answers: u32,
    /// Set by `Draining`: until then this connection is used, then another one is made.
    leave: Option<Instant>,
    /// It was said that it is time to leave.
    left: bool,
}

impl Reader {
    async fn read(mut self, mut stream: SplitStream<Socket>, silence: Duration) -> End {
        loop {
            let due = self.leave.filter(|_| !self.left);
            let message = tokio::select! {
                message = timeout(silence, stream.next()) => message,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if !self.others {
                        return self.end(LinkError::Draining);
                    }
                    self.left = true;
                    let _ = self.wishes.try_send(Wish::Leave);
                    continue;
                }
            };
            let Ok(message) = message else { return self.end(LinkError::Silent(silence)) };
            let taken = match decode(message) {
                Ok(Some((request, frame))) => self.take(request, frame).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                return self.end(error);
            }
        }
    }

    async fn take(&mut self, request: RequestId, frame: ServerFrame) -> Result<(), LinkError> {
        match frame {
            ServerFrame::Closing(refusal) => return Err(refusal.into()),
            ServerFrame::Draining(server::Draining { reconnect_in_ms }) => {
                self.leave = Some(Instant::now() + Duration::from_millis(u64::from(reconnect_in_ms)));
                return Ok(());
            }
            ServerFrame::Move(wish) => {
                let _ = self.wishes.try_send(Wish::Move(wish));
                return Ok(());
            }
            frame => {
                // Nobody listens any more: what is left to be written still is, and then it is over.
                let _ = self.events.send(LinkEvent::Frame(request, frame)).await;
            }
        }
        self.answers += u32::from(request != RequestId(0));
        if self.repick_every.is_some_and(|every| self.answers >= every) {
            self.answers = 0;
            let _ = self.wishes.try_send(Wish::Again);
        }
        Ok(())
    }

    fn end(&self, error: LinkError) -> End {
        match self.leave {
            Some(at) => {
                let wish = (!self.left).then(|| at.saturating_duration_since(Instant::now()));
                End { error: LinkError::Draining, wish, more: false }
            }
            None => error.into(),
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

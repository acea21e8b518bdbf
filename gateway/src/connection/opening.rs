//! From an upgraded socket to somebody who has proved something: the first two frames.

use super::{
    Connection, Presence, Reason,
    guest::Visit,
    scratch::Scratched,
    socket::{config, dismiss, too_large, write},
};
use crate::{
    fleet::admission,
    gateway::Gateway,
    handshake::{self, Identified, Unidentified},
    limits::OPENING_TIMEOUT,
    metrics, rate,
    session::Session,
};
use fastchat_protocol::{ClientFrame, Code, Refusal, RequestId, ServerFrame, frame::FrameError, limits};
use futures_util::StreamExt;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

pub(super) async fn identify<S: AsyncRead + AsyncWrite + Unpin>(
    gateway: &Arc<Gateway>,
    socket: S,
    peer: Unidentified,
) -> Result<Opened<S>, Reason> {
    let mut ws = WebSocketStream::from_raw_socket(
        Scratched::new(socket),
        Role::Server,
        Some(config(limits::MAX_FRAME_UNAUTHENTICATED)),
    )
    .await;
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|_| "no_randomness")?;

    let (request, frame) = opening_frame(&mut ws, OPENING_TIMEOUT).await?;
    let ClientFrame::Hello(hello) = frame else {
        return Err(
            dismiss(&mut ws, request, Refusal::new(Code::Unexpected, "the first frame is Hello")).await
        );
    };
    let challenged = match peer.hello(gateway, hello, nonce, Instant::now()).await {
        Ok((challenged, answer)) => {
            write(&mut ws, [answer.encode(request)].into()).await?;
            challenged
        }
        Err(refusal) => return Err(dismiss(&mut ws, request, refusal).await),
    };

    // One answer a challenge, in its time; the gateway's clock decides, and a moment more lets it say so.
    let (request, frame) =
        opening_frame(&mut ws, gateway.config.challenge_timeout + Duration::from_secs(1)).await?;
    let proved = match challenged.proof(gateway, frame, Instant::now()).await {
        Ok(proved) => proved,
        Err(refusal) => return Err(dismiss(&mut ws, request, refusal).await),
    };
    // The client sends nothing between its proof and the answer, so the library's buffer is empty and
    // the socket can be wrapped anew with the limits of a known device.
    let socket = ws.into_inner();
    let ws = WebSocketStream::from_raw_socket(socket, Role::Server, Some(config(limits::MAX_FRAME))).await;
    Ok(match proved {
        handshake::Proved::Device(identified) => Opened::Device(Box::new(Proved { ws, identified, request })),
        handshake::Proved::Guest(guest, restricted) => {
            let answer = ServerFrame::Restricted(*restricted);
            Opened::Guest(Box::new(Visit { ws, guest, request, answer }))
        }
    })
}

/// A socket that has proved something. In boxes: the task that serves it keeps the room that they pass
/// through.
pub(super) enum Opened<S> {
    Device(Box<Proved<S>>),
    Guest(Box<Visit<S>>),
}

/// A socket whose device is known, and which is owed an answer to its proof.
pub(super) struct Proved<S> {
    ws: WebSocketStream<Scratched<S>>,
    identified: Identified,
    request: RequestId,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Proved<S> {
    /// Registers the device here and displaces an older connection of it; refused if the gateway filled up
    /// since the hello.
    pub(super) async fn enter(self, gateway: Arc<Gateway>) -> Result<Box<Connection<S>>, Reason> {
        let Self { mut ws, identified: Identified { me }, request } = self;
        let Some(entered) = gateway.registry.enter(me.account, me.device) else {
            return Err(Box::pin(dismiss(&mut ws, request, admission::full())).await);
        };
        metrics::connections(gateway.registry.connections());
        gateway.connected.note(me.device);
        let presence = Presence { gateway: Arc::clone(&gateway), handle: Arc::clone(&entered.handle) };
        let sends = rate::sends(gateway.config.rates.sends_per_second);
        let (session, handle) = (Session::new(me), entered.handle);
        let first = entered.first;
        Ok(Box::new(Connection {
            gateway,
            ws,
            session,
            handle,
            sends,
            typed: HashMap::new(),
            request,
            first,
            _presence: presence,
        }))
    }
}

/// Reads one frame of the handshake; anything else ends the connection with a clear answer.
pub(super) async fn opening_frame<S: AsyncRead + AsyncWrite + Unpin>(
    ws: &mut WebSocketStream<S>,
    within: Duration,
) -> Result<(RequestId, ClientFrame), Reason> {
    let read_one = async {
        loop {
            match ws.next().await {
                Some(Ok(Message::Binary(bytes))) => break Ok(bytes),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    break Err(Some(Refusal::new(Code::BadFrame, "frames are binary")));
                }
                Some(Ok(Message::Close(_))) | None => break Err(None),
                Some(Err(error)) => {
                    let limit = ws.get_config().max_message_size.unwrap_or(limits::MAX_FRAME_UNAUTHENTICATED);
                    break Err(too_large(&error, limit));
                }
            }
        }
    };
    let bytes = match timeout(within, read_one).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(None)) => return Err("left_opening"),
        Ok(Err(Some(refusal))) => return Err(dismiss(ws, RequestId(0), refusal).await),
        Err(_) => {
            return Err(dismiss(
                ws,
                RequestId(0),
                Refusal::new(Code::TimedOut, "the handshake took too long"),
            )
            .await);
        }
    };
    match ClientFrame::decode(&bytes) {
        Ok(decoded) => Ok(decoded),
        Err(FrameError::Unknown { number, request }) => {
            let refusal = Refusal::new(
                Code::UnknownFrame,
                format!("frame number {number} is not known to this gateway"),
            );
            Err(dismiss(ws, request, refusal).await)
        }
        Err(FrameError::Malformed(error)) => Err(dismiss(
            ws,
            RequestId(0),
            Refusal::new(Code::BadFrame, format!("a frame cannot be read: {error}")),
        )
        .await),
    }
}

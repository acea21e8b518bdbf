//! The socket's own part: limits, writing in time, and an end that the client hears of.

use super::Reason;
use crate::{
    limits::{LINGER, LINGER_BYTES, MAX_WRITE_BUFFER, READ_BUFFER, WRITE_BUFFER, WRITE_TIMEOUT},
    metrics,
};
use bytes::Bytes;
use fastchat_protocol::{Code, Refusal, RequestId, ServerFrame};
use futures_util::SinkExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        error::{CapacityError, Error as WsError},
        protocol::WebSocketConfig,
    },
};

pub(super) fn config(max_frame: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(Some(max_frame))
        .max_frame_size(Some(max_frame))
}

/// Answers a request that ends the connection.
pub(super) async fn dismiss<S: AsyncRead + AsyncWrite + Unpin>(
    ws: &mut WebSocketStream<S>,
    request: RequestId,
    refusal: Refusal,
) -> Reason {
    let reason = refusal.code.label();
    if write(ws, [ServerFrame::Refused(refusal).encode(request)].into()).await.is_ok() {
        let _ = timed(ws.close(None)).await;
        linger(ws).await;
    }
    reason
}

/// Reads and drops what is still on its way from a client that was told that it is over. A socket that
/// is closed with bytes unread is reset, and the reset can overtake the reason.
pub(super) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(ws: &mut WebSocketStream<S>) {
    let socket = ws.get_mut();
    let drop_all = async {
        let (mut scratch, mut left) = (vec![0; 8 * 1024], LINGER_BYTES);
        let _ = socket.shutdown().await;
        while left > 0 {
            match socket.read(&mut scratch).await {
                Ok(0) | Err(_) => return,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
    };
    // In a box: an idle connection does not carry this.
    let _ = timeout(LINGER, Box::pin(drop_all)).await;
}

pub(super) fn too_large(error: &WsError, limit: usize) -> Option<Refusal> {
    let WsError::Capacity(CapacityError::MessageTooLong { .. }) = error else {
        return None;
    };
    Some(Refusal::new(Code::TooLarge, format!("a frame has at most {limit} bytes here")))
}

/// Writes frames together and flushes once.
pub(super) async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    ws: &mut WebSocketStream<S>,
    frames: std::collections::VecDeque<Bytes>,
) -> Result<(), Reason> {
    metrics::wrote(frames.len(), frames.iter().map(Bytes::len).sum());
    timed(async {
        for frame in frames {
            ws.feed(Message::Binary(frame)).await?;
        }
        ws.flush().await
    })
    .await
}

pub(super) async fn timed(write: impl Future<Output = Result<(), WsError>>) -> Result<(), Reason> {
    match timeout(WRITE_TIMEOUT, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err("socket_error"),
        Err(_) => Err("slow_reader"),
    }
}

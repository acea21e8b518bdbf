//! A session without a device: for linking one, or for recovering an account that has lost all of them.
//!
//! It is in no registry and hears nothing live: one request, one answer, until its time is over.

use super::{
    Reason,
    opening::opening_frame,
    scratch::Scratched,
    socket::{dismiss, linger, timed, write},
};
use crate::{
    gateway::Gateway,
    handshake::Guest,
    limits::{GUEST_TIME, OPENING_TIMEOUT},
    service,
};
use fastchat_protocol::{Code, Refusal, RequestId, ServerFrame};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;

/// A socket whose guest is owed an answer to its proof.
pub(super) struct Visit<S> {
    pub(super) ws: WebSocketStream<Scratched<S>>,
    pub(super) guest: Guest,
    pub(super) request: RequestId,
    pub(super) answer: ServerFrame,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Visit<S> {
    /// Serves the guest until it leaves, its time is over, or the gateway leaves.
    pub(super) async fn run(mut self, gateway: Arc<Gateway>) -> Reason {
        let Ok(_place) = Arc::clone(&gateway.guests).try_acquire_owned() else {
            let full = Refusal::new(Code::Unavailable, "too many devices are being linked at the moment");
            return dismiss(&mut self.ws, self.request, Refusal { wait_ms: Some(5_000), ..full }).await;
        };
        if let Err(reason) = write(&mut self.ws, [self.answer.encode(self.request)].into()).await {
            return reason;
        }
        // Cancel safety: whichever comes first ends the session; a request that was at work was either
        // stored whole or not at all, and the guest asks again.
        let end = tokio::select! {
            reason = serve(&mut self.ws, &gateway, &self.guest) => return reason,
            () = tokio::time::sleep(GUEST_TIME) => {
                Refusal::new(Code::TimedOut, "a session without a device lasts ten minutes")
            }
            () = gateway.draining.cancelled() => Refusal::new(Code::Draining, "the gateway is going away"),
        };
        self.close(end).await
    }

    async fn close(mut self, refusal: Refusal) -> Reason {
        let reason = refusal.code.label();
        if write(&mut self.ws, [ServerFrame::Closing(refusal).encode(RequestId(0))].into()).await.is_ok() {
            let _ = timed(self.ws.close(None)).await;
            linger(&mut self.ws).await;
        }
        reason
    }
}

/// One request after the other. A guest waits for people, so that it may be silent as long as it likes.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    ws: &mut WebSocketStream<S>,
    gateway: &Gateway,
    guest: &Guest,
) -> Reason {
    loop {
        let (request, frame) = match opening_frame(ws, GUEST_TIME + OPENING_TIMEOUT).await {
            Ok(asked) => asked,
            Err(reason) => return reason,
        };
        let answer = service::answer_guest(gateway, guest, frame).await;
        if let Err(reason) = write(ws, [answer.encode(request)].into()).await {
            return reason;
        }
    }
}

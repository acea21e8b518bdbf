//! A session of somebody who has proven a password or a recovery code and has no device yet: slots
//! and accounts can be asked for, and after a recovery the account can be restored.

use super::{LinkError, Opened, Socket, exchange, unexpected};
use fastchat_protocol::{
    Bytes, ClientFrame, ServerFrame, SlotId, client,
    server::{self, Hello},
};
use std::time::Duration;

/// A restricted session. The gateway ends it after ten minutes.
pub struct RestrictedSession {
    socket: Socket,
    hello: Hello,
    account: server::Restricted,
}

/// Proves (`Link` or `Recover`).
pub(super) async fn restrict(mut opened: Opened, proof: ClientFrame) -> Result<RestrictedSession, LinkError> {
    let answer = exchange(&mut opened.socket, proof).await?;
    let ServerFrame::Restricted(account) = answer else { return Err(unexpected("Restricted", &answer)) };
    Ok(RestrictedSession { socket: opened.socket, hello: opened.hello, account })
}

impl RestrictedSession {
    /// What the gateway said of itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The account, as the gateway shows it.
    pub fn account(&self) -> &server::Restricted {
        &self.account
    }

    /// Asks and waits for the answer; a refusal is an error.
    pub async fn call(&mut self, frame: ClientFrame) -> Result<ServerFrame, LinkError> {
        exchange(&mut self.socket, frame).await
    }

    /// Puts a sealed part that is good for `expires_in_s` seconds.
    pub async fn put_slot(
        &mut self,
        slot: SlotId,
        part: u32,
        bytes: Bytes,
        expires_in_s: u32,
    ) -> Result<(), LinkError> {
        self.call(ClientFrame::PutSlot(client::PutSlot { slot, part, bytes, expires_in_s })).await.map(drop)
    }

    /// A sealed part, if it is there.
    pub async fn get_slot(&mut self, slot: SlotId, part: u32) -> Result<Option<Bytes>, LinkError> {
        match self.call(ClientFrame::GetSlot(client::GetSlot { slot, part })).await? {
            ServerFrame::Slot(slot) => Ok(slot.bytes),
            other => Err(unexpected("Slot", &other)),
        }
    }

    /// Ends it politely.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(Duration::from_millis(500), self.socket.close(None)).await;
    }
}

impl std::fmt::Debug for RestrictedSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestrictedSession").field("account", &self.account.account).finish_non_exhaustive()
    }
}

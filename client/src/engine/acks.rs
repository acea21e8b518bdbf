//! Cursors to the server, in batches. A cursor moves only after what it covers is committed here.

use super::{Engine, Halt};
use crate::failpoint;
use fastchat_e2ee::conversation;
use fastchat_protocol::{Bytes, ClientFrame, ConversationId, client, limits};
use std::time::Duration;
use tokio::time::Instant;

/// How long cursors are collected: a burst costs one frame.
const DELAY: Duration = Duration::from_millis(100);

impl Engine {
    pub(super) fn ack_later(&mut self, id: ConversationId) {
        self.dirty.insert(id);
        self.ack_at.get_or_insert_with(|| Instant::now() + DELAY);
    }

    pub(super) async fn flush_acks(&mut self) -> Result<(), Halt> {
        match self.ack_at {
            Some(at) if at <= Instant::now() => self.flush_acks_now().await,
            _ => Ok(()),
        }
    }

    pub(super) async fn flush_acks_now(&mut self) -> Result<(), Halt> {
        self.ack_at = None;
        if self.dirty.is_empty() || self.session.is_none() {
            return Ok(());
        }
        failpoint::pass("before-ack");
        let cursors: Vec<client::Cursor> =
            self.dirty.drain().collect::<Vec<_>>().into_iter().filter_map(|id| self.cursor(id)).collect();
        for chunk in cursors.chunks(limits::MAX_CURSORS) {
            self.tell(&ClientFrame::Ack(client::Ack { cursors: chunk.to_vec() })).await?;
        }
        failpoint::pass("acked");
        Ok(())
    }

    /// Cursor and a short hash of the epoch's authenticator, by which a split would show.
    fn cursor(&self, id: ConversationId) -> Option<client::Cursor> {
        // A place in a log that is gone says nothing about this one.
        let thread = self.threads.get(&id).filter(|_| self.in_step(id))?;
        let info = self.store.read(|tx| conversation::info(&tx.vault(), id)).ok().flatten();
        let authenticator = info.map(|info| Bytes::copy_from_slice(&info.epoch_authenticator_hash));
        Some(client::Cursor { conversation: id, seq: thread.record.cursor, authenticator })
    }
}

//! When accounts were last online: noted here a moment, so that many become one statement.
//!
//! Noted when an account's last connection to this gateway ends, and of those that stay now and then, so
//! that a gateway that dies takes little with it. Of accounts that do not want it known, nothing is noted.

use crate::{
    limits::{MAX_SEEN, SEEN_FLUSH, SEEN_INTERVAL},
    metrics,
    registry::{Handle, Registry},
    rim::now_ms,
    store::Store,
};
use fastchat_protocol::AccountId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};
use tokio::{sync::Notify, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Accounts that were online, on their way to the store.
#[derive(Debug, Default)]
pub struct Seen {
    waiting: Mutex<HashMap<AccountId, u64>>,
    some: Notify,
}

impl Seen {
    /// Notes that the account of a connection is online now, if it wants that known.
    pub fn note(&self, handle: &Handle) {
        if !handle.shares_last_seen.load(Ordering::Relaxed) {
            return;
        }
        let mut waiting = self.lock();
        // Limit: what does not fit is noted the next time.
        if waiting.len() < MAX_SEEN || waiting.contains_key(&handle.account) {
            waiting.insert(handle.account, now_ms());
            drop(waiting);
            self.some.notify_one();
        }
    }

    /// Stores what waits, until told to stop; then once more.
    pub async fn run(&self, store: Arc<dyn Store>, registry: Arc<Registry>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(SEEN_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = ticks.tick() => registry.all().iter().for_each(|handle| self.note(handle)),
                () = self.some.notified() => {
                    tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(SEEN_FLUSH) => {} }
                }
            }
            self.flush(&*store).await;
        }
    }

    async fn flush(&self, store: &dyn Store) {
        let seen: Vec<_> = std::mem::take(&mut *self.lock()).into_iter().collect();
        if seen.is_empty() {
            return;
        }
        match store.note_seen(&seen).await {
            Ok(()) => metrics::seen(seen.len()),
            // It is noted again with the next coming or going.
            Err(error) => {
                tracing::warn!(%error, accounts = seen.len(), "the store did not note who was online")
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountId, u64>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Clients that lose their connection now and then, and come back as clients do: by their device's key, with
//! all that was not answered, and after a look at what they have missed.

use super::{ACK_DELAY, FastChatLink};
use crate::{record::Ear, target::fastchat::people::Entrance};
use anyhow::Result;
use fastchat_tests::raw::RawClient;
use futures_util::future::BoxFuture;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::time::Duration;
use tokio::time::Instant;

/// A connection that will be.
pub(super) type Dialling = BoxFuture<'static, Result<RawClient>>;

/// When a client goes, and how it comes back.
pub(super) struct Away {
    every: Option<Duration>,
    rng: StdRng,
    pub(super) dialling: Option<Dialling>,
}

impl std::fmt::Debug for Away {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Away").field("every", &self.every).finish_non_exhaustive()
    }
}

impl Away {
    pub(super) fn new(entrance: &Entrance) -> Self {
        let habits = entrance.habits;
        let rng = StdRng::seed_from_u64(habits.seed);
        Self { every: habits.reconnect_every, rng, dialling: None }
    }

    /// When it goes next, if ever: exponential gaps.
    pub(super) fn next_leave(&mut self) -> Option<Instant> {
        let gap: f64 = -(1.0 - self.rng.random::<f64>()).ln();
        self.every.map(|every| Instant::now() + every.mul_f64(gap))
    }
}

impl FastChatLink {
    /// The connection is gone, without a word.
    pub(super) fn leave(&mut self) {
        self.client = None;
        let (person, address) = (self.entrance.person.clone(), self.entrance.address.clone());
        self.away.dialling = Some(Box::pin(async move { person.connect(&address).await }));
    }

    pub(super) async fn back(&mut self, client: RawClient, ear: &Ear) -> Result<()> {
        ear.reconnected();
        (self.client, self.away.dialling) = (Some(client), None);
        self.asked.clear();
        self.files_waiting.clear();
        let unanswered: Vec<_> = self.files_asked.drain().map(|(_, direction)| direction).collect();
        for thread in &mut self.threads {
            (thread.flying, thread.attempt) = (0, thread.attempt.wrapping_add(1));
        }
        self.sync(None).await?;
        for place in 0..self.threads.len() {
            self.send_more(place).await?;
        }
        for direction in unanswered {
            self.ask_again(direction).await?;
        }
        self.timers.acks.get_or_insert_with(|| Instant::now() + ACK_DELAY);
        self.timers.leave = self.away.next_leave();
        Ok(())
    }
}

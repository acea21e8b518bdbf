//! Removes what is past its time: files, tokens of transfers, rows of logs; and bytes that no row knows.
//!
//! - One gateway does it for all, by a lease; without it, the same work would be done several times.
//! - Everything goes in small steps, a bounded time each round, and is tried again in the next.
//! - Bytes go before the rows that know them.

use crate::{
    blobs::{DEADLINE, Strays},
    gateway::Gateway,
    limits::TRANSFER_PART,
    metrics,
    rim::share,
    store::Result,
};
use fastchat_protocol::{ConversationId, DeviceId};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The name of the lease.
const LEASE: &str = "sweep";
/// Limit: one round, in the store and in object storage each; the lease lasts longer.
const ROUND: Duration = Duration::from_secs(30);
/// Rounds between looks through all logs.
const ROUNDS_A_PASS: u32 = 10;
/// Rounds between notes of who has been connected all along.
const ROUNDS_A_NOTE: u32 = 60;
/// After so long nobody puts a part of a doomed blob any more: the time of its way here, that of putting and
/// of taking it back, and a minute for the store.
const OUTSIDE_GRACE: Duration = Duration::from_secs(TRANSFER_PART.as_secs() + 2 * DEADLINE.as_secs() + 60);

/// Devices that were connected since they were noted last.
#[derive(Debug, Default)]
pub struct Connected(Mutex<HashSet<DeviceId>>);

impl Connected {
    /// A device has a session.
    pub fn note(&self, device: DeviceId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(device);
    }

    fn take(&self) -> Vec<DeviceId> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }
}

/// How far this gateway has come with the logs.
#[derive(Debug, Default)]
struct Walk {
    /// In the middle of a pass: after this conversation.
    after: Option<ConversationId>,
    /// Rounds until the next pass.
    rest: u32,
    /// And with objects that no row knows.
    strays: Strays,
}

/// Sweeps until told to stop.
pub async fn run(gateway: Arc<Gateway>, stop: CancellationToken) {
    let mut walk = Walk::default();
    // What there is can be seen before the first round.
    tokio::select! { () = stop.cancelled() => return, () = logged(measure(&gateway)) => {} }
    tokio::select! { () = stop.cancelled() => return, () = ask_objects(&gateway) => {} }
    for round in 1_u32.. {
        let pause = gateway.config.sweep_interval.mul_f64(0.5 + share());
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(pause) => {} }
        // Cancel safety: a step that is given up was committed or not, and is done again elsewhere.
        tokio::select! { () = stop.cancelled() => return, () = work(&gateway, &mut walk, round) => {} }
    }
}

async fn work(gateway: &Gateway, walk: &mut Walk, round: u32) {
    if round.is_multiple_of(ROUNDS_A_NOTE) {
        gateway.registry.all().iter().for_each(|handle| gateway.connected.note(handle.device));
    }
    let worked = async {
        gateway.store.devices_seen(&gateway.connected.take()).await?;
        let lasts = ROUND * 4 + gateway.config.sweep_interval * 2;
        if gateway.store.hold_lease(LEASE, gateway.identity.id, lasts.as_secs() as u32).await? {
            sweep(gateway, walk, Instant::now() + ROUND).await?;
            // Last, and with a time of its own: its outage keeps nothing else from going.
            sweep_outside(gateway, walk, Instant::now() + ROUND).await?;
        }
        measure(gateway).await
    };
    logged(worked).await;
}

async fn measure(gateway: &Gateway) -> Result<()> {
    metrics::blobs(gateway.store.blob_totals().await?, gateway.blobs.transfers());
    Ok(())
}

async fn logged(work: impl Future<Output = Result<()>>) {
    if let Err(error) = work.await {
        tracing::warn!(%error, "what is past its time stays a little longer");
    }
}

async fn sweep(gateway: &Gateway, walk: &mut Walk, until: Instant) -> Result<()> {
    let store = &gateway.store;
    while Instant::now() < until && store.doom_blobs(gateway.config.blobs.keep_days).await? > 0 {}
    remove_doomed(gateway, false, Duration::ZERO, until).await?;
    loop {
        let tokens = store.sweep_tokens().await?;
        metrics::swept("tokens", tokens);
        if tokens == 0 || Instant::now() >= until {
            break;
        }
    }
    retain(gateway, walk, until).await
}

async fn sweep_outside(gateway: &Gateway, walk: &mut Walk, until: Instant) -> Result<()> {
    remove_doomed(gateway, true, OUTSIDE_GRACE, until).await?;
    let Some(objects) = &gateway.blobs.objects else { return Ok(()) };
    match walk.strays.step(objects, &*gateway.store, until).await {
        Ok(removed) => metrics::swept("strays", removed),
        Err(error) => tracing::warn!(error = error.line(), "bytes that no row knows stay a little longer"),
    }
    Ok(())
}

/// First the bytes, then the rows. Ends at the first that does not go.
async fn remove_doomed(gateway: &Gateway, outside: bool, grace: Duration, until: Instant) -> Result<()> {
    for key in gateway.store.doomed_blobs(outside, grace.as_secs() as u32).await? {
        if Instant::now() >= until {
            break;
        }
        let Some(keeper) = gateway.blobs.keeper_of(outside) else {
            tracing::error!("files that are past their time are where this gateway does not look");
            break;
        };
        if let Err(error) = keeper.remove(key).await {
            tracing::warn!(error = error.line(), "files that are past their time stay until the next sweep");
            break;
        }
        while !gateway.store.forget_blob(key).await? {}
        metrics::swept("blobs", 1);
    }
    Ok(())
}

/// Said once: a wrong bucket or key is to be known before somebody sends a file.
async fn ask_objects(gateway: &Gateway) {
    let Some(objects) = &gateway.blobs.objects else { return };
    match objects.ask().await {
        Ok(()) => tracing::info!("object storage answers"),
        Err(error) => {
            tracing::error!(%error, "object storage does not answer: files are refused until it does")
        }
    }
}

/// Goes on through all logs, from where the last round ended.
async fn retain(gateway: &Gateway, walk: &mut Walk, until: Instant) -> Result<()> {
    let rules = gateway.config.retention;
    if rules.log_days == 0 {
        return Ok(());
    }
    if walk.rest > 0 {
        walk.rest -= 1;
        return Ok(());
    }
    while Instant::now() < until {
        let fronts = gateway.store.fronts(walk.after, rules.log_days).await?;
        for conversation in fronts.old {
            loop {
                let rows =
                    gateway.store.retire_rows(conversation, rules.log_days, rules.below_cursors).await?;
                metrics::swept("rows", rows);
                if rows == 0 || Instant::now() >= until {
                    break;
                }
            }
        }
        walk.after = fronts.last;
        if walk.after.is_none() {
            walk.rest = ROUNDS_A_PASS - 1;
            break;
        }
    }
    Ok(())
}

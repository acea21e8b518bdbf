//! The head check: what moved in the log, whether or not the bus said so.
//!
//! - Every interval one question for the whole gateway, at a cost of what changed since the last.
//! - Connections whose conversation moved without a live copy are told the head and fetch.
//! - When the bus was away or too fast, every connection is told to compare all of its heads.

use crate::{
    bus::{BusEvent, BusEvents, Loss},
    fanout::Fanout,
    metrics, refusal,
    registry::Registry,
    store::{Mark, Store},
};
use fastchat_protocol::{Refusal, RequestId, ServerFrame, server::Resync};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

/// Between looks for revoked devices: what the bus did not carry is made up for in this time.
const REVOCATION_CHECK: Duration = Duration::from_secs(5);

/// Asks what moved, every `interval`, until told to stop. `on_incarnation` hears now and then which one the
/// store is in.
pub async fn run(
    store: Arc<dyn Store>,
    fanout: Arc<Fanout>,
    registry: Arc<Registry>,
    interval: Duration,
    stop: CancellationToken,
    on_incarnation: impl Fn(u32) -> Result<(), Refusal> + Send,
) {
    let mut mark: Option<Mark> = None;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut revocations = Instant::now();
    loop {
        tokio::select! { () = stop.cancelled() => return, _ = ticks.tick() => {} }
        if revocations.elapsed() >= REVOCATION_CHECK {
            revocations = Instant::now();
            close_shut_out(&*store, &registry).await;
            match store.incarnation().await {
                // The gateway ends if it is another one.
                Ok(now) => drop(on_incarnation(now)),
                Err(error) => tracing::warn!(%error, "the incarnation could not be looked up"),
            }
        }
        let began = Instant::now();
        let moved = store.moved_since(mark).await;
        metrics::head_check(moved.is_ok(), began);
        match moved {
            Ok(moved) => {
                mark = Some(moved.mark);
                let told: usize =
                    moved.heads.iter().map(|(id, head, audience)| fanout.moved(*id, *head, *audience)).sum();
                for (device, account, head) in
                    moved.mailboxes.iter().filter(|(_, account, _)| registry.has(*account))
                {
                    fanout.wake_mailbox(*account, *device, *head);
                }
                metrics::head_check_repairs(told);
                fanout.age();
            }
            Err(error) => tracing::warn!(%error, "a head check failed; the next one makes up for it"),
        }
    }
}

/// Closes connections of revoked devices and disabled accounts that nothing quicker has closed.
async fn close_shut_out(store: &dyn Store, registry: &Registry) {
    let handles = registry.all();
    let devices: Vec<_> = handles.iter().map(|handle| handle.device).collect();
    match store.shut_out(&devices).await {
        Ok(shut_out) => {
            let why: HashMap<_, _> = shut_out.into_iter().collect();
            for (handle, why) in handles.iter().filter_map(|handle| Some((handle, why.get(&handle.device)?)))
            {
                let refusal = refusal::of_shut_out(*why);
                handle.close(refusal.code, &refusal.detail);
            }
        }
        Err(error) => tracing::warn!(%error, "devices that are shut out could not be looked for"),
    }
}

/// Deals with what the bus says, until it ends.
pub async fn on_bus(
    mut events: BusEvents,
    fanout: Arc<Fanout>,
    registry: Arc<Registry>,
    stop: CancellationToken,
) {
    loop {
        let event = tokio::select! { () = stop.cancelled() => return, event = events.recv() => event };
        match event {
            None => return,
            Some(BusEvent::Record { subject, record }) => fanout.on_record(subject, &record),
            Some(BusEvent::Down) => {
                metrics::bus_down();
                tracing::warn!("the bus is away: messages arrive by head check until it is back");
            }
            Some(BusEvent::Restored(loss)) => {
                // What clients are told, and what is counted.
                let (reason, label) = match loss {
                    Loss::Reconnected => ("bus", "bus"),
                    Loss::SlowConsumer => ("slow-consumer", "slow_consumer"),
                };
                tracing::info!(
                    reason,
                    "records of the bus may have been lost: every connection compares its heads"
                );
                resync_all(&registry, reason, label);
            }
        }
    }
}

/// Tells every connection to compare its heads with the log. Clients spread their questions.
fn resync_all(registry: &Registry, reason: &str, label: &'static str) {
    let frame = ServerFrame::Resync(Resync { reason: reason.to_owned() }).encode(RequestId(0));
    let all = registry.all();
    metrics::resync(label, all.len());
    for handle in all {
        // That another device of its account connected elsewhere may be among what was lost.
        handle.company.store(true, Ordering::Relaxed);
        handle.queue.push_live(frame.clone());
    }
}

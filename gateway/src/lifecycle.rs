//! Signals: SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reads certificates again.

use crate::{gateway::Gateway, metrics, tls::Tls};
use std::{sync::Arc, time::Duration};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

/// The signals that the gateway listens to.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    /// Begins to listen, so that none is missed later.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// Returns when the gateway is to drain.
    pub async fn wait(&mut self, tls: Option<&Tls>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.reload.recv() => reload(tls),
            }
        }
    }

    /// Returns when the gateway is to end at once.
    pub async fn again(&mut self) {
        tokio::select! { _ = self.terminate.recv() => {} _ = self.interrupt.recv() => {} }
    }
}

fn reload(tls: Option<&Tls>) {
    match tls.map(Tls::reload) {
        None => tracing::info!("SIGHUP: there is no certificate to read again"),
        Some(Ok(())) => tracing::info!("SIGHUP: the certificate was read again"),
        Some(Err(error)) => {
            tracing::error!(error = format!("{error:#}"), "SIGHUP: the certificate in force stays")
        }
    }
}

/// Leaves in order: not ready, tell clients, wait for the window, write what waits, end.
pub async fn drain(gateway: &Arc<Gateway>, again: impl Future<Output = ()>) {
    let window = gateway.config.drain_window;
    tracing::info!(
        connections = gateway.registry.connections(),
        window_ms = window.as_millis() as u64,
        "draining"
    );
    metrics::ready(false);
    gateway.draining.cancel();
    let empty = async {
        while gateway.registry.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let in_order = async {
        tokio::select! { () = empty => {} () = tokio::time::sleep(window) => {} }
        end(gateway).await;
    };
    // Cancel safety: a second signal gives up whatever was waited for; the store keeps what it has.
    tokio::select! {
        () = in_order => tracing::info!("ended"),
        () = again => {
            gateway.ending.cancel();
            tracing::warn!("a second signal: ended at once");
        }
    }
}

/// Ends connections and background work, and commits what waits; each for a limited time.
async fn end(gateway: &Gateway) {
    const PATIENCE: Duration = Duration::from_secs(5);
    gateway.ending.cancel();
    gateway.tasks.close();
    if timeout(PATIENCE, gateway.tasks.wait()).await.is_err() {
        tracing::warn!("some tasks did not end in time");
    }
    if timeout(PATIENCE, gateway.writer.close()).await.is_err() {
        tracing::warn!("some envelopes were not committed in time: their senders will ask again");
    }
}

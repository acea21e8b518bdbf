//! Signals: SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reads certificates again.

use crate::{gateway::Gateway, metrics, tls::Tls};
use std::{sync::Arc, time::Duration};
use tokio::signal::unix::{Signal, SignalKind, signal};

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
    tokio::pin!(again);
    tokio::select! {
        () = empty => {}
        () = tokio::time::sleep(window) => {}
        () = &mut again => tracing::warn!("a second signal: ending at once"),
    }
    gateway.ending.cancel();
    gateway.tasks.close();
    tokio::select! {
        () = gateway.tasks.wait() => {}
        () = tokio::time::sleep(Duration::from_secs(5)) => tracing::warn!("some tasks did not end in time"),
        () = again => {}
    }
    gateway.writer.close().await;
    tracing::info!("ended");
}

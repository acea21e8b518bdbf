//! The admin listener: liveness, readiness, metrics, drain. Loopback unless configured otherwise.

use crate::gateway::Gateway;
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use fastchat_telemetry::Recorder;
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpListener, time::timeout};

#[derive(Clone)]
struct Admin {
    gateway: Arc<Gateway>,
    metrics: Recorder,
}

/// How the gateway's dependencies stand.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    store: &'static str,
    bus: &'static str,
    draining: bool,
}

/// Serves until the gateway has ended.
pub async fn run(gateway: Arc<Gateway>, metrics: Recorder, listener: TcpListener) -> std::io::Result<()> {
    let ending = gateway.ending.clone();
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readiness))
        .route("/metrics", get(render))
        .route("/drain", post(drain))
        .with_state(Admin { gateway, metrics });
    axum::serve(listener, router).with_graceful_shutdown(async move { ending.cancelled().await }).await
}

async fn readiness(State(admin): State<Admin>) -> impl IntoResponse {
    let store = matches!(timeout(Duration::from_secs(2), admin.gateway.store.ping()).await, Ok(Ok(())));
    let draining = admin.gateway.draining.is_cancelled();
    // A gateway without its bus still serves, a little later: that is no reason to send clients away.
    let ready = store && !draining;
    let bus = if admin.gateway.bus.is_up() { "up" } else { "down" };
    let answer = Readiness { ready, store: if store { "up" } else { "down" }, bus, draining };
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(answer))
}

async fn render(State(admin): State<Admin>) -> String {
    crate::metrics::sample(&admin.gateway);
    admin.metrics.render()
}

async fn drain(State(admin): State<Admin>) -> &'static str {
    admin.gateway.drain_asked.notify_one();
    "draining\n"
}

//! The admin listener: liveness, readiness, metrics, and what operators change. Loopback unless
//! configured otherwise.
//!
//! What changes something takes JSON only: a web page that a browser has open cannot send that here
//! without asking first, and is not answered.

use crate::{
    dispatch::Decision,
    fleet::{Source, State as GatewayState, View},
    service::Balancer,
    strategy::Strategy,
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use fastchat_telemetry::Recorder;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::net::TcpListener;

#[derive(Clone)]
struct Admin {
    balancer: Arc<Balancer>,
    metrics: Recorder,
}

/// Whether clients can be answered, and from what.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    live: usize,
    known: usize,
    heartbeats: &'static str,
    prometheus: &'static str,
}

/// The strategy in force, or the one to use.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StrategyName {
    /// Its name.
    pub strategy: String,
}

/// A gateway by id, beginning of an id, or URL.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayName {
    /// Its name.
    pub gateway: String,
}

/// Why something was refused.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failed {
    /// In words.
    pub error: String,
}

/// All gateways.
#[derive(Debug, Serialize)]
struct Fleet {
    strategy: Strategy,
    gateways: Vec<View>,
}

/// A decision, for people. Names no client.
#[derive(Debug, Serialize)]
struct Explained {
    ago_ms: u64,
    gateway: String,
    url: String,
    strategy: Strategy,
    basis: &'static str,
    reason: String,
}

/// Serves until the balancer has ended.
pub async fn run(balancer: Arc<Balancer>, metrics: Recorder, listener: TcpListener) -> std::io::Result<()> {
    let ending = balancer.ending.clone();
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readiness))
        .route("/metrics", get(render))
        .route("/fleet", get(fleet))
        .route("/explain/{last}", get(explain))
        .route("/strategy", get(strategy).put(set_strategy))
        .route("/drain", post(drain))
        .route("/undrain", post(undrain))
        .with_state(Admin { balancer, metrics });
    axum::serve(listener, router).with_graceful_shutdown(async move { ending.cancelled().await }).await
}

/// Ready while a client can be sent somewhere, if only to gateways that were known last.
async fn readiness(State(Admin { balancer, .. }): State<Admin>) -> impl IntoResponse {
    let views = balancer.views();
    let live = views.iter().filter(|view| view.state == GatewayState::Live).count();
    let usable = |view: &View| match view.state {
        GatewayState::Live | GatewayState::Full => true,
        GatewayState::Stale => !view.draining,
        GatewayState::Draining | GatewayState::Drained | GatewayState::Replaced => false,
    };
    let ready = views.iter().any(usable) && !balancer.ending.is_cancelled();
    let source = |source| match balancer.source_up(source) {
        None => "off",
        Some(true) => "up",
        Some(false) => "down",
    };
    let answer = Readiness {
        ready,
        live,
        known: views.len(),
        heartbeats: source(Source::Heartbeat),
        prometheus: source(Source::Prometheus),
    };
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(answer))
}

async fn render(State(admin): State<Admin>) -> String {
    crate::metrics::fleet(&admin.balancer.views());
    admin.metrics.render()
}

async fn fleet(State(Admin { balancer, .. }): State<Admin>) -> impl IntoResponse {
    Json(Fleet { strategy: balancer.strategy(), gateways: balancer.views() })
}

async fn explain(State(admin): State<Admin>, Path(last): Path<usize>) -> impl IntoResponse {
    let explained = |(ago_ms, decision): (u64, Decision)| Explained {
        ago_ms,
        gateway: decision.target.gateway.to_string(),
        url: decision.target.url,
        strategy: decision.strategy,
        basis: decision.basis.label(),
        reason: decision.reason,
    };
    Json(admin.balancer.explain(last).into_iter().map(explained).collect::<Vec<_>>())
}

async fn strategy(State(admin): State<Admin>) -> impl IntoResponse {
    Json(StrategyName { strategy: admin.balancer.strategy().to_string() })
}

async fn set_strategy(State(admin): State<Admin>, Json(name): Json<StrategyName>) -> Response {
    match name.strategy.parse::<Strategy>() {
        Ok(strategy) => {
            admin.balancer.set_strategy(strategy);
            Json(name).into_response()
        }
        Err(error) => failed(StatusCode::BAD_REQUEST, format!("the strategy {error}")),
    }
}

async fn drain(State(admin): State<Admin>, Json(name): Json<GatewayName>) -> Response {
    take_out(&admin.balancer, &name, true)
}

async fn undrain(State(admin): State<Admin>, Json(name): Json<GatewayName>) -> Response {
    take_out(&admin.balancer, &name, false)
}

fn take_out(balancer: &Balancer, name: &GatewayName, out: bool) -> Response {
    match balancer.drain(&name.gateway, out) {
        Ok(gateway) => Json(GatewayName { gateway: gateway.to_string() }).into_response(),
        Err(error) => failed(StatusCode::NOT_FOUND, error.to_string()),
    }
}

fn failed(status: StatusCode, error: String) -> Response {
    (status, Json(Failed { error })).into_response()
}

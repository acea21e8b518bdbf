//! The admin listener: liveness, readiness, metrics, and what operators change. Loopback unless
//! configured otherwise.
//!
//! What changes something takes JSON only: a web page that a browser has open cannot send that here
//! without asking first, and is not answered.

use crate::{
    dispatch::Decision,
    fleet::{Source, State as GatewayState, View},
    mover::Order,
    service::{Balancer, ChangeError, Moving},
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
    /// Its sessions are to move elsewhere, too.
    #[serde(default, rename = "move", skip_serializing_if = "std::ops::Not::not")]
    pub moves: bool,
}

/// What was done with a gateway.
#[derive(Debug, Serialize)]
struct Done {
    gateway: String,
    /// Who asks it to move its sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_by: Option<Moving>,
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
    moves: Moving,
    gateways: Vec<Row>,
}

/// A gateway, with the sessions that it gives and takes in the round under way.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    view: View,
    gives: u64,
    takes: u64,
}

/// Why clients were sent where they were, and why sessions were moved.
#[derive(Debug, Serialize)]
struct Why {
    assignments: Vec<Explained>,
    moves: Vec<ExplainedMove>,
}

#[derive(Debug, Serialize)]
struct ExplainedMove {
    ago_ms: u64,
    sessions: u64,
    #[serde(flatten)]
    order: Order,
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
    let row = |view: View| {
        let (gives, takes) = balancer.underway(view.gateway);
        Row { view, gives, takes }
    };
    let gateways = balancer.views().into_iter().map(row).collect();
    Json(Fleet { strategy: balancer.strategy(), moves: balancer.moving(), gateways })
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
    let moved = |(ago_ms, order): (u64, Order)| ExplainedMove { ago_ms, sessions: order.sessions(), order };
    Json(Why {
        assignments: admin.balancer.explain(last).into_iter().map(explained).collect(),
        moves: admin.balancer.explain_moves(last).into_iter().map(moved).collect(),
    })
}

async fn strategy(State(admin): State<Admin>) -> impl IntoResponse {
    Json(StrategyName { strategy: admin.balancer.strategy().to_string() })
}

async fn set_strategy(State(admin): State<Admin>, Json(name): Json<StrategyName>) -> Response {
    match name.strategy.parse::<Strategy>() {
        Ok(strategy) => {
            let changed = admin.balancer.set_strategy(strategy);
            changed.map_or_else(|error| refused(&error), |()| Json(name).into_response())
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
    match balancer.drain(&name.gateway, out, name.moves) {
        Ok(gateway) => {
            let moved_by = (out && name.moves).then(|| balancer.moving());
            Json(Done { gateway: gateway.to_string(), moved_by }).into_response()
        }
        Err(error) => refused(&error),
    }
}

fn refused(error: &ChangeError) -> Response {
    let status = match error {
        ChangeError::Name(_) => StatusCode::NOT_FOUND,
        ChangeError::NoMoves => StatusCode::CONFLICT,
        ChangeError::State(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    failed(status, error.to_string())
}

fn failed(status: StatusCode, error: String) -> Response {
    (status, Json(Failed { error })).into_response()
}

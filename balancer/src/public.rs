//! The listener for clients: `POST /v1/assign`, and nothing else.
//!
//! Anybody may ask, so that everything is bounded: sockets, header, body and the time for each. An
//! answer costs some microseconds and tells only what a client needs in order to connect.

use crate::{
    dispatch::{ALTERNATIVES, MAX_ALTERNATIVES, Request},
    metrics,
    service::{Admission, Answer, Balancer},
    tls::Tls,
};
use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use fastchat_protocol::fleet::MAX_URL;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

/// Limit: sockets at a time. A client keeps one for milliseconds.
const MAX_SOCKETS: usize = 4_096;
/// Limit: time for a TLS handshake, for a header, and for a body.
const PATIENCE: Duration = Duration::from_secs(5);
/// Limit: how long a socket may be kept for further requests.
const SOCKET_LIFE: Duration = Duration::from_secs(60);
/// Limit: bytes of a header; hyper's own minimum.
const HEADER_BYTES: usize = 8 * 1024;
/// Limit: bytes of a request's body.
const BODY_BYTES: usize = 8 * 1024;
/// Limit: bytes of a key.
const MAX_KEY: usize = 128;
/// Those who asked too often come back after so many seconds, not all at once.
const RETRY_SECONDS: std::ops::RangeInclusive<u32> = 1..=5;
/// Limit: gateways that a request excludes, and versions that it names.
const MAX_ITEMS: usize = 16;

/// What a client asks.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ask {
    /// Equal keys meet equal draws. Anything that the client keeps; never shown or stored.
    key: Option<String>,
    /// Ids or URLs of gateways that could not be reached.
    exclude: Vec<String>,
    /// Protocol versions that the client speaks.
    versions: Vec<u16>,
    /// How many other gateways to name.
    alternatives: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Assigned {
    #[serde(flatten)]
    first: Place,
    alternatives: Vec<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tickets_expire_at_ms: Option<u64>,
    strategy: &'static str,
    basis: &'static str,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Place {
    gateway: String,
    url: String,
    /// Hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<String>,
}

#[derive(Debug, Serialize)]
struct Failed {
    error: String,
}

/// Accepts until the balancer ends.
pub async fn run(balancer: Arc<Balancer>, listener: TcpListener, tls: Option<Arc<Tls>>) {
    let places = Arc::new(Semaphore::new(MAX_SOCKETS));
    loop {
        let accepted = tokio::select! {
            () = balancer.ending.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: those who are here go on, new ones wait.
                tracing::warn!(%error, "a socket could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            metrics::socket_refused();
            continue;
        };
        let state = Client { balancer: Arc::clone(&balancer), address: peer.ip() };
        let router = Router::new().route("/v1/assign", post(assign)).with_state(state);
        let (tls, ending) = (tls.clone(), balancer.ending.clone());
        tokio::spawn(async move {
            let serve = timeout(SOCKET_LIFE, socket(router, stream, tls));
            // A socket that is slow, broken or out of time is just closed.
            tokio::select! { () = ending.cancelled() => {} _ = serve => {} }
            drop(place);
        });
    }
}

async fn socket(router: Router, stream: TcpStream, tls: Option<Arc<Tls>>) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => http(router, stream).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = timeout(PATIENCE, tls.accept(stream)).await {
                http(router, stream).await;
            }
        }
    }
}

async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(router: Router, stream: S) {
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // The peer went away or spoke no HTTP: there is nobody to tell.
    let _ = served.await;
}

/// Who asks.
#[derive(Clone)]
struct Client {
    balancer: Arc<Balancer>,
    address: IpAddr,
}

async fn assign(State(Client { balancer, address }): State<Client>, body: Body) -> Response {
    if !balancer.may_ask(address) {
        let error = Failed { error: "too many requests from this address".to_owned() };
        let wait = rand::random_range(RETRY_SECONDS).to_string();
        return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, wait)], Json(error)).into_response();
    }
    let ask = match read(body).await {
        Ok(ask) => ask,
        Err((status, error)) => {
            metrics::bad_request();
            return (status, Json(Failed { error })).into_response();
        }
    };
    let request = Request {
        key: ask.key.map(String::into_bytes),
        exclude: ask.exclude,
        versions: ask.versions,
        alternatives: ask.alternatives.unwrap_or(ALTERNATIVES),
    };
    match balancer.assign(&request) {
        Ok(answer) => Json(assigned(answer)).into_response(),
        Err(error) => {
            let error = Failed { error: error.to_string() };
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], Json(error)).into_response()
        }
    }
}

/// No body is a request for any gateway.
async fn read(body: Body) -> Result<Ask, (StatusCode, String)> {
    let bad = |status, error: &str| Err((status, error.to_owned()));
    let bytes = match timeout(PATIENCE, to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => return bad(StatusCode::PAYLOAD_TOO_LARGE, "the body is cut off or longer than 8 KB"),
        Err(_) => return bad(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
    };
    if bytes.is_empty() {
        return Ok(Ask::default());
    }
    let ask: Ask =
        serde_json::from_slice(&bytes).map_err(|e| (StatusCode::BAD_REQUEST, format!("the body: {e}")))?;
    match () {
        () if ask.key.as_ref().is_some_and(|key| key.len() > MAX_KEY) => {
            bad(StatusCode::BAD_REQUEST, "key: at most 128 bytes")
        }
        () if ask.exclude.len() > MAX_ITEMS || ask.exclude.iter().any(|name| name.len() > MAX_URL) => {
            bad(StatusCode::BAD_REQUEST, "exclude: at most 16 ids or URLs")
        }
        () if ask.versions.len() > MAX_ITEMS => bad(StatusCode::BAD_REQUEST, "versions: at most 16"),
        () if ask.alternatives.is_some_and(|count| count > MAX_ALTERNATIVES) => {
            bad(StatusCode::BAD_REQUEST, "alternatives: from 0 to 16")
        }
        () => Ok(ask),
    }
}

fn assigned(answer: Answer) -> Assigned {
    let place = |admission: Admission| Place {
        gateway: admission.target.gateway.to_string(),
        url: admission.target.url,
        ticket: admission.ticket.map(hex::encode),
    };
    Assigned {
        first: place(answer.first),
        alternatives: answer.alternatives.into_iter().map(place).collect(),
        tickets_expire_at_ms: answer.expires_at_ms,
        strategy: answer.decision.strategy.label(),
        basis: answer.decision.basis.label(),
        reason: answer.decision.reason,
    }
}

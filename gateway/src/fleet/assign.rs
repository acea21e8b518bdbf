//! `POST /v1/assign` at a gateway: an embedded one is its own balancer.
//!
//! The answer has the balancer's shape, so that a client with one address needs to know nothing of what
//! is behind it. A gateway of a fleet does not choose among others: it says whom to ask.

use crate::gateway::Gateway;
use axum::{
    Json,
    body::to_bytes,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use fastchat_protocol::{VERSIONS, fleet::is_dialable};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::timeout;

/// Limit: bytes of a request's body.
const BODY_BYTES: usize = 8 * 1024;
/// Limit: time for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What of a client's question matters where there is one gateway.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ask {
    /// Protocol versions that the client speaks.
    versions: Vec<u16>,
}

#[derive(Debug, Serialize)]
struct Assigned {
    gateway: String,
    url: String,
    alternatives: [(); 0],
    strategy: &'static str,
    basis: &'static str,
    reason: &'static str,
}

/// Answers; `secure` if the client came by TLS.
pub async fn answer(gateway: &Gateway, secure: bool, request: Request) -> Response {
    if gateway.bus.fleet().is_some() {
        let whom = "this gateway is one of a fleet and assigns nobody: ask a balancer (fastchat-balancer), or connect to /v1/ws here";
        return fail(StatusCode::NOT_FOUND, whom);
    }
    let (head, body) = request.into_parts();
    let bytes = match timeout(PATIENCE, to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => return fail(StatusCode::PAYLOAD_TOO_LARGE, "the body is cut off or longer than 8 KB"),
        Err(_) => return fail(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
    };
    let ask = match bytes.is_empty() {
        true => Ask::default(),
        false => match serde_json::from_slice(&bytes) {
            Ok(ask) => ask,
            Err(error) => return fail(StatusCode::BAD_REQUEST, format!("the body: {error}")),
        },
    };
    if !ask.versions.is_empty() && !ask.versions.iter().any(|version| VERSIONS.contains(version)) {
        let served = format!("this gateway serves protocol versions {VERSIONS:?}");
        return fail(StatusCode::SERVICE_UNAVAILABLE, served);
    }
    Json(Assigned {
        gateway: gateway.identity.id.to_string(),
        url: url(gateway, secure, &head.headers),
        alternatives: [],
        strategy: "none",
        basis: "only",
        reason: "this gateway is the whole deployment",
    })
    .into_response()
}

/// The public URL if one was set; else what the client dialled, since this gateway cannot know better.
fn url(gateway: &Gateway, secure: bool, headers: &HeaderMap) -> String {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    // A proxy that ends TLS says so; whoever lies here misleads nobody but himself.
    let secure = secure || text("x-forwarded-proto") == Some("https");
    let dialled = text("host").filter(|host| gateway.config.serves_host(host));
    let dialled = dialled.map(|host| format!("{}://{host}", if secure { "wss" } else { "ws" }));
    match (&gateway.config.public_url, dialled) {
        (None, Some(url)) if is_dialable(&url) => url,
        _ => gateway.identity.url.clone(),
    }
}

fn fail(status: StatusCode, error: impl Into<String>) -> Response {
    #[derive(Serialize)]
    struct Failed {
        error: String,
    }
    (status, Json(Failed { error: error.into() })).into_response()
}

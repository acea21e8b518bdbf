//! Accepts sockets, makes HTTP of them, and upgrades `/v1/ws`; `/v1/assign` and parts of files
//! ([`transfers`]) are answered here too.
//!
//! - TLS handshake, request and hello each have a time limit; a slow socket costs little and ends.
//! - A request from a web page of another origin is refused: no page may use a person's gateway.
//! - Draining stops accepting; connections that are there are told by their own tasks.

mod transfers;
mod write_limit;

use crate::{
    connection,
    fleet::assign,
    gateway::Gateway,
    handshake::Unidentified,
    limits::{HTTP_BUFFER, OPENING_TIMEOUT, TRANSFER_STALL},
    metrics,
    tls::Tls,
};
use axum::{
    Extension, Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper::service::{Service as _, service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    time::timeout,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use write_limit::WriteLimit;

/// Accepts until the gateway drains.
pub async fn run(gateway: Arc<Gateway>, listener: TcpListener, tls: Option<Arc<Tls>>) {
    let router = router();
    loop {
        let accepted = tokio::select! {
            () = gateway.draining.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                metrics::accepted();
                let (router, tls) = (router.clone(), tls.clone());
                gateway.tasks.spawn(socket(Arc::clone(&gateway), router, stream, address, tls));
            }
            Err(error) => {
                // Out of descriptors, most likely: those who are here go on, new ones wait.
                tracing::warn!(%error, "a socket could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Made once: a router of its own for each socket would be a good part of what a socket costs. Its
/// handlers find their [`Peer`] in the request.
fn router() -> Router {
    Router::new()
        .route("/v1/ws", get(upgrade))
        .route("/v1/assign", post(assign_client))
        .route("/v1/blobs/{blob}/{part}", get(transfers::part).put(transfers::part))
}

async fn socket(
    gateway: Arc<Gateway>,
    router: Router,
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
) {
    // Frames are small and written together already.
    let _ = stream.set_nodelay(true);
    // Where the gateway is full, these places are what is left for saying so.
    let Ok(place) = Arc::clone(&gateway.unidentified).try_acquire_owned() else {
        return metrics::ended("too_many_opening");
    };
    match tls {
        None => http(gateway, router, stream, false, address, place).await,
        Some(tls) => match timeout(OPENING_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => http(gateway, router, stream, true, address, place).await,
            _ => metrics::ended("no_tls"),
        },
    }
}

/// The request's peer and its gateway, for the handler.
#[derive(Clone)]
struct Peer {
    gateway: Arc<Gateway>,
    address: SocketAddr,
    /// By TLS.
    secure: bool,
    /// Goes with the upgrade; a second request on the socket finds none.
    place: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
    /// A place among transfers, once the socket has transferred something.
    transfer: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    gateway: Arc<Gateway>,
    router: Router,
    stream: S,
    secure: bool,
    address: SocketAddr,
    place: OwnedSemaphorePermit,
) {
    let place = Arc::new(Mutex::new(Some(place)));
    let transfer = Arc::default();
    let (draining, ending) = (gateway.draining.clone(), gateway.ending.clone());
    let peer = Peer { gateway, address, secure, place: Arc::clone(&place), transfer: Arc::clone(&transfer) };
    let router = TowerToHyperService::new(router);
    let routed = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.call(request)
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(OPENING_TIMEOUT)
        .max_buf_size(HTTP_BUFFER)
        .serve_connection(TokioIo::new(WriteLimit::new(stream, TRANSFER_STALL)), routed)
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    let transfers = || transfer.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    let served = tokio::select! {
        served = &mut served => served,
        () = draining.cancelled() => {
            // A client that puts parts goes on elsewhere; the part on its way is finished here.
            if transfers() {
                served.as_mut().graceful_shutdown();
            }
            tokio::select! { served = &mut served => served, () = ending.cancelled(), if transfers() => return metrics::ended("draining") }
        }
    };
    if transfers() {
        metrics::ended("transfer");
    } else if place.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
        // What was upgraded is counted when it ends.
        metrics::ended(if served.is_ok() { "no_upgrade" } else { "no_request" });
    }
}

async fn assign_client(Extension(peer): Extension<Peer>, request: Request) -> Response {
    assign::answer(&peer.gateway, peer.secure, request).await
}

async fn upgrade(Extension(peer): Extension<Peer>, mut request: Request) -> Response {
    let key = match websocket_key(request.headers()) {
        Ok(key) => key,
        Err(refused) => return refused.into_response(),
    };
    let host = text(request.headers(), &header::HOST).map(str::to_owned);
    let from = Unidentified { address: peer.address.ip(), host };
    let upgraded = hyper::upgrade::on(&mut request);
    let place = peer.place.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(place) = place else { return StatusCode::BAD_REQUEST.into_response() };
    let Peer { gateway, .. } = peer;
    let tasks = gateway.tasks.clone();
    tasks.spawn(async move {
        match upgraded.await {
            Ok(socket) => connection::serve(gateway, TokioIo::new(socket), from, place).await,
            Err(_) => metrics::ended("no_upgrade"),
        }
    });
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, key),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}

/// Checks the upgrade (RFC 6455, section 4.2.1) and where it comes from.
fn websocket_key(headers: &HeaderMap) -> Result<HeaderValue, (StatusCode, &'static str)> {
    let says = |name, word: &str| {
        text(headers, &name).is_some_and(|value| value.to_ascii_lowercase().contains(word))
    };
    if !says(header::UPGRADE, "websocket") || !says(header::CONNECTION, "upgrade") {
        return Err((StatusCode::UPGRADE_REQUIRED, "this is a WebSocket endpoint\n"));
    }
    if text(headers, &header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err((StatusCode::BAD_REQUEST, "only WebSocket version 13 is served\n"));
    }
    if !same_origin(headers) {
        return Err((StatusCode::FORBIDDEN, "requests from other origins are refused\n"));
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .ok_or((StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing\n"))?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| (StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not one\n"))
}

/// A web page says where it is from: it may use only what it came from.
fn same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    host.is_some() && host == text(headers, &header::HOST)
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

//! Asks a balancer for a gateway: `POST /v1/assign` over HTTP/1.1, on a connection of its own.
//!
//! A balancer is asked before anything else is known: everything about its answer is bounded, and no
//! redirect is followed. What it names is dialled only if the profile's own addresses allow that.

use super::{
    LinkError, dial,
    route::Named,
    url::{AssignUrl, ServerUrl},
};
use fastchat_protocol::{Bytes, VERSIONS, ticket};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::{path::Path, time::Duration};
use tokio::time::timeout;

/// Where balancers are asked, and gateways in embedded mode.
const PATH: &str = "/v1/assign";
/// Limit: from dialling to the end of the answer. Others can be asked.
const PATIENCE: Duration = Duration::from_secs(4);
/// Limit: bytes of an answer; 17 places with tickets are about 10 KB.
const MAX_ANSWER: usize = 64 * 1024;
/// Limit: places that are read.
const MAX_PLACES: usize = 32;
/// Limit: characters of a balancer's own words that are shown.
const MAX_WORDS: usize = 300;
/// How long a ticket is good for at least, whatever the two clocks say: it was just made.
const TICKET_LEAST: Duration = Duration::from_secs(5);
/// And at most.
const TICKET_MOST: Duration = Duration::from_secs(60);

/// What is asked.
#[derive(Debug, Serialize)]
pub(super) struct Ask<'a> {
    /// A word that means nothing, the same for all questions of this profile.
    pub(super) key: &'a str,
    pub(super) exclude: &'a [String],
    pub(super) versions: &'a [u16],
    /// How many gateways besides the first.
    pub(super) alternatives: u8,
}

impl<'a> Ask<'a> {
    pub(super) fn new(key: &'a str, exclude: &'a [String], alternatives: u8) -> Self {
        Self { key, exclude, versions: VERSIONS, alternatives }
    }
}

/// A balancer's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Where to go, best first. Never empty.
    pub places: Vec<Offered>,
    /// How it chose, in its own words.
    pub strategy: String,
    /// On what it chose.
    pub basis: String,
    /// Why.
    pub reason: String,
}

/// A gateway that may be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Where.
    pub url: ServerUrl,
    /// What lets the client in, and for how long.
    pub ticket: Option<(Bytes, Duration)>,
}

impl Answer {
    /// For the route, whose clock says `now`.
    pub(super) fn named(&self, now: Duration) -> Vec<Named> {
        let named = |place: &Offered| Named {
            url: place.url.clone(),
            ticket: place.ticket.as_ref().map(|(ticket, life)| (ticket.clone(), now + *life)),
        };
        self.places.iter().map(named).collect()
    }
}

#[derive(Debug, Deserialize)]
struct Wire {
    #[serde(flatten)]
    first: WirePlace,
    #[serde(default)]
    alternatives: Vec<WirePlace>,
    #[serde(default)]
    tickets_expire_at_ms: Option<u64>,
    #[serde(default)]
    strategy: String,
    #[serde(default)]
    basis: String,
    #[serde(default)]
    reason: String,
}

#[derive(Debug, Deserialize)]
struct WirePlace {
    url: String,
    #[serde(default)]
    ticket: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Failed {
    error: String,
}

/// Asks. `may_dial` says which gateways this profile may use; `wall_ms` is this machine's clock.
pub(super) async fn ask(
    balancer: &AssignUrl,
    ca: Option<&Path>,
    ask: &Ask<'_>,
    wall_ms: u64,
    may_dial: impl Fn(&ServerUrl) -> bool,
) -> Result<Answer, LinkError> {
    let failed = |reason: String| LinkError::Assign { balancer: balancer.to_string(), reason };
    let body = serde_json::to_vec(ask).map_err(|e| failed(e.to_string()))?;
    let exchange = timeout(PATIENCE, exchange(balancer, ca, body));
    let (status, body) = match exchange.await {
        Ok(answer) => answer.map_err(failed)?,
        Err(_) => return Err(failed("it did not answer in time".into())),
    };
    read(status, &body, wall_ms, may_dial).map_err(failed)
}

async fn exchange(
    balancer: &AssignUrl,
    ca: Option<&Path>,
    body: Vec<u8>,
) -> Result<(StatusCode, hyper::body::Bytes), String> {
    let stream = dial::reach(balancer, ca).await.map_err(|e| e.to_string())?;
    let http = |e: hyper::Error| format!("it does not answer as HTTP should ({e})");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(PATH)
        .header(header::HOST, balancer.authority())
        .header(header::USER_AGENT, concat!("fastchat/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(hyper::body::Bytes::from(body)))
        .map_err(|e| e.to_string())?;
    let answer = async move {
        let answer = sender.send_request(request).await.map_err(http)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        Ok((status, body.map_err(|_| "the answer is cut off, or longer than 64 KB".to_owned())?.to_bytes()))
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    // The connection is driven until the answer is there, not until the other side closes it.
    tokio::select! {
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}

/// Reads an answer: pure.
fn read(
    status: StatusCode,
    body: &[u8],
    wall_ms: u64,
    may_dial: impl Fn(&ServerUrl) -> bool,
) -> Result<Answer, String> {
    if status != StatusCode::OK {
        return Err(refusal(status, body));
    }
    let wire: Wire =
        serde_json::from_slice(body).map_err(|e| format!("the answer is not understood ({e})"))?;
    let life = wire.tickets_expire_at_ms.map_or(TICKET_LEAST, |at| {
        Duration::from_millis(at.saturating_sub(wall_ms)).clamp(TICKET_LEAST, TICKET_MOST)
    });
    let mut places: Vec<Offered> = Vec::new();
    for WirePlace { url, ticket } in [wire.first].into_iter().chain(wire.alternatives).take(MAX_PLACES) {
        let Some(url) = url.parse::<ServerUrl>().ok().filter(|url| may_dial(url)) else {
            tracing::warn!(url = clip(&url), "the balancer names a gateway that this profile cannot use");
            continue;
        };
        let ticket = ticket.filter(|hex| hex.len() <= 2 * ticket::MAX_BYTES);
        let ticket = ticket.and_then(|hex| hex::decode(hex).ok()).map(|bytes| (Bytes::from(bytes), life));
        if !places.iter().any(|place| place.url == url) {
            places.push(Offered { url, ticket });
        }
    }
    if places.is_empty() {
        return Err("what it names cannot be dialled from here: addresses without TLS are only for this \
                    machine, or with --insecure"
            .into());
    }
    let Wire { strategy, basis, reason, .. } = wire;
    Ok(Answer { places, strategy: clip(&strategy), basis: clip(&basis), reason: clip(&reason) })
}

fn refusal(status: StatusCode, body: &[u8]) -> String {
    let said = serde_json::from_slice::<Failed>(body).map(|failed| clip(&failed.error));
    match said {
        Ok(said) if !said.is_empty() => said,
        _ if status.is_redirection() => {
            format!("HTTP {status}: redirects are not followed, give the address itself")
        }
        _ => format!("HTTP {status}"),
    }
}

fn clip(text: &str) -> String {
    text.chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls_only(url: &ServerUrl) -> bool {
        url.tls()
    }

    #[test]
    fn an_answer_is_read_in_its_order_without_what_may_not_be_dialled() {
        let body = br#"{"gateway":"aa","url":"wss://g1","ticket":"0a0b","tickets_expire_at_ms":30000,
            "alternatives":[{"gateway":"bb","url":"ws://g2"},{"url":"wss://g3","ticket":"xyz"},
            {"url":"wss://g1"},{"url":"nonsense"}],"strategy":"p2c","basis":"live","reason":"r","new":1}"#;
        let answer = read(StatusCode::OK, body, 10_000, tls_only).unwrap();
        let life = Duration::from_secs(20);
        let place = |url: &str, ticket| Offered { url: url.parse().unwrap(), ticket };
        let ticket = Some((Bytes::from_static(&[10, 11]), life));
        assert_eq!(answer.places, [place("wss://g1", ticket), place("wss://g3", None)]);
        assert_eq!((answer.strategy.as_str(), answer.basis.as_str()), ("p2c", "live"));
        // A clock that is wrong makes a ticket neither eternal nor useless.
        for (wall_ms, want) in [(0, 30), (10_000_000, 5), (29_000, 5)] {
            let answer = read(StatusCode::OK, body, wall_ms, tls_only).unwrap();
            assert_eq!(answer.places[0].ticket.as_ref().unwrap().1, Duration::from_secs(want), "{wall_ms}");
        }
    }

    #[test]
    fn what_is_no_answer_is_said() {
        for (status, body, want) in [
            (200, "{}", "not understood"),
            (200, "hello", "not understood"),
            (200, r#"{"url":"ws://g2"}"#, "without TLS"),
            (200, r#"{"url":7}"#, "not understood"),
            (503, r#"{"error":"no gateway has reported yet"}"#, "no gateway has reported yet"),
            (404, "a page", "HTTP 404"),
            (302, "", "redirects are not followed"),
        ] {
            let error =
                read(StatusCode::from_u16(status).unwrap(), body.as_bytes(), 0, tls_only).unwrap_err();
            assert!(error.contains(want), "{body}: {error}");
        }
    }
}

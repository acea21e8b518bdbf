//! A small HTTP client: one request, one answer, plain HTTP/1.1. For Prometheus and for the admin
//! listener, which are on the same machine or network; there is no TLS here.

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, Uri, body::Bytes, header};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::{net::TcpStream, time::timeout};

/// Limit: bytes of an answer. A thousand gateways of Prometheus are about 1 MB.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not `http://host[:port]`.
    #[error("{0:?} is not a URL such as http://127.0.0.1:9090")]
    Url(String),
    /// Nobody there, or the connection broke.
    #[error("no answer from {place}")]
    Connect {
        /// Host and port.
        place: String,
        /// What happened.
        source: std::io::Error,
    },
    /// Not HTTP, cut off, or too long.
    #[error("{place} does not answer as HTTP should")]
    Http {
        /// Host and port.
        place: String,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Too slow.
    #[error("{0} did not answer in time")]
    Timeout(String),
}

/// Sends a request with an optional JSON body; returns status and body, whatever the status is.
pub async fn send(
    method: Method,
    url: &str,
    json: Option<String>,
    limit: Duration,
) -> Result<(StatusCode, Bytes), HttpError> {
    let place = place(url)?;
    let exchange = exchange(method, url, &place, json);
    timeout(limit, exchange).await.map_err(|_| HttpError::Timeout(place.clone()))?
}

/// Host and port of a URL that this client can reach.
pub fn place(url: &str) -> Result<String, HttpError> {
    let bad = || HttpError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(bad)?;
    Ok(format!("{host}:{}", uri.port_u16().unwrap_or(80)))
}

async fn exchange(
    method: Method,
    url: &str,
    place: &str,
    json: Option<String>,
) -> Result<(StatusCode, Bytes), HttpError> {
    let http = |source| HttpError::Http { place: place.to_owned(), source };
    let path = url.parse::<Uri>().map_err(|e| http(e.into()))?;
    let path = path.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let stream = TcpStream::connect(place)
        .await
        .map_err(|source| HttpError::Connect { place: place.to_owned(), source })?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| http(e.into()))?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, place)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(json.unwrap_or_default())))
        .map_err(|e| http(e.into()))?;
    let answer = async {
        // Dropped with the answer, so that the connection ends whatever the other side wants.
        let mut sender = sender;
        let answer = sender.send_request(request).await.map_err(|e| http(e.into()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(http)?;
        Ok((status, body.to_bytes()))
    };
    let (answer, _) = tokio::join!(answer, connection);
    answer
}

/// A text as a part of a query (RFC 3986: what is not unreserved is escaped).
pub fn escape(text: &str) -> String {
    let escaped = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    escaped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_is_reached() {
        assert_eq!(place("http://127.0.0.1:9090/prefix").expect("good"), "127.0.0.1:9090");
        assert_eq!(place("http://prometheus").expect("good"), "prometheus:80");
        assert_eq!(place("http://[::1]:9").expect("good"), "[::1]:9");
        for bad in ["https://a", "prometheus:9090", "", "http://", "http://a b"] {
            assert!(place(bad).is_err(), "{bad}");
        }
        assert_eq!(escape("a{b=\"c\"}[5s] é"), "a%7Bb%3D%22c%22%7D%5B5s%5D%20%C3%A9");
    }
}

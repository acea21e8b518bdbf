//! Parts of blobs over HTTP/1.1: the gateway of the session, reached as the session is.
//!
//! One connection is kept while it works. Every answer is bounded, in bytes and in time.

use super::{dial, url::ServerUrl};
use fastchat_protocol::{Bytes, limits::MAX_BLOB_PART};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use std::{path::PathBuf, time::Duration};
use tokio::{task::JoinHandle, time::timeout};

/// Limit: from dialling to a connection that takes requests.
const DIAL: Duration = Duration::from_secs(15);
/// Limit: one part and its answer. A quarter of a megabyte comes through 20 kbit/s in that time.
const EXCHANGE: Duration = Duration::from_secs(120);
/// Limit: bytes of an answer that is no part.
const MAX_WORDS: usize = 4 * 1024;
/// Limit: how long a server's wish to be left alone is heeded.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Why a part did not go or come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// The gateway is not to be had, or ended the connection.
    #[error("{0}")]
    Away(String),
    /// It said no.
    #[error("the server refused a part of the file: {message} (HTTP {status})")]
    Refused {
        /// HTTP's number.
        status: u16,
        /// How long it wants to be left alone.
        wait: Option<Duration>,
        /// Its words.
        message: String,
    },
}

/// A gateway, for parts.
#[derive(Debug)]
pub struct Parts {
    url: ServerUrl,
    ca: Option<PathBuf>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Parts {
    /// Nothing is dialled yet.
    pub fn at(url: ServerUrl, ca: Option<PathBuf>) -> Self {
        Self { url, ca, open: None }
    }

    /// Which gateway.
    pub fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// Puts a part; again the same bytes change nothing.
    pub async fn put(&mut self, path: &str, token: &str, bytes: Bytes) -> Result<(), PartError> {
        self.exchange(Method::PUT, path, token, bytes, MAX_WORDS).await.map(drop)
    }

    /// Fetches a part.
    pub async fn get(&mut self, path: &str, token: &str) -> Result<Bytes, PartError> {
        self.exchange(Method::GET, path, token, Bytes::new(), MAX_BLOB_PART).await
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        token: &str,
        bytes: Bytes,
        most: usize,
    ) -> Result<Bytes, PartError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.url.authority())
            .header(header::USER_AGENT, concat!("fastchat/", env!("CARGO_PKG_VERSION")))
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(Full::new(bytes))
            .map_err(|e| PartError::Away(e.to_string()))?;
        let answer = timeout(EXCHANGE, self.ask(request, most)).await;
        let answer = answer.unwrap_or_else(|_| Err(PartError::Away("no answer in time".to_owned())));
        // What comes next on this connection may belong to what was just given up.
        if matches!(answer, Err(PartError::Away(_))) {
            self.open = None;
        }
        answer
    }

    async fn ask(&mut self, request: Request<Full<Bytes>>, most: usize) -> Result<Bytes, PartError> {
        let away = |e: hyper::Error| PartError::Away(e.to_string());
        let open = self.connected().await?;
        open.sender.ready().await.map_err(away)?;
        let answer = open.sender.send_request(request).await.map_err(away)?;
        let (status, wait) = (answer.status(), wait_of(&answer));
        let most = if status == StatusCode::OK { most } else { MAX_WORDS };
        let body = Limited::new(answer.into_body(), most).collect().await;
        let body =
            body.map_err(|_| PartError::Away("the answer is cut off, or too long".to_owned()))?.to_bytes();
        match status.is_success() {
            true => Ok(body),
            false => Err(PartError::Refused { status: status.as_u16(), wait, message: words(&body) }),
        }
    }

    async fn connected(&mut self) -> Result<&mut Open, PartError> {
        self.open.take_if(|open| open.sender.is_closed());
        let open = match self.open.take() {
            Some(open) => open,
            None => match timeout(DIAL, self.dial()).await {
                Ok(open) => open?,
                Err(_) => return Err(PartError::Away(format!("{} does not answer", self.url))),
            },
        };
        Ok(self.open.insert(open))
    }

    async fn dial(&self) -> Result<Open, PartError> {
        let stream = dial::reach(&self.url, self.ca.as_deref()).await;
        let stream = stream.map_err(|e| PartError::Away(e.to_string()))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| PartError::Away(e.to_string()))?;
        let driver = tokio::spawn(async move {
            // Whoever asks hears of it.
            let _ = connection.await;
        });
        Ok(Open { sender, driver })
    }
}

fn wait_of(answer: &Response<Incoming>) -> Option<Duration> {
    let seconds = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_WAIT))
}

/// What a server says, as far as it can be shown.
fn words(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Said {
        error: String,
    }
    let said = serde_json::from_slice::<Said>(body).map(|said| said.error);
    said.unwrap_or_else(|_| "no reason given".to_owned()).chars().take(300).collect()
}

//! `PUT` and `GET /v1/blobs/<blob>/<part>`: one part a request (docs/protocol.md, "Files").
//!
//! - Every request asks the store who uses the token, and whether it may, before a byte of a body is
//!   read. Nothing is kept about it on the connection.
//! - A body has a length that fits before memory is taken for it, and a time in which it comes.
//! - A refused body is read a little and dropped, or the client would see a broken connection and not why.

use super::{BlobStore, Busy, KeepError};
use crate::{
    gateway::Gateway,
    limits::{TRANSFER_DISCARD, TRANSFER_PART, TRANSFER_STALL},
    metrics,
    rate::TooOften,
    store::{
        StoreError,
        blobs::{BlobKey, Denied, PutPart, Standing, Transfer},
        operate::ShutOut,
    },
};
use axum::{
    Json,
    body::{Body, BodyDataStream},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use fastchat_protocol::{BlobId, limits::MAX_BLOB_PART};
use futures_util::StreamExt;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// Which way parts go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a client.
    Put,
    /// To a client.
    Get,
}

/// Why a request was refused.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    /// For a person.
    error: String,
    retry_after_s: Option<u64>,
}

impl Failure {
    /// A refusal.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), retry_after_s: None }
    }

    /// One that may go away.
    pub fn later(status: StatusCode, error: impl Into<String>, wait: Duration) -> Self {
        Self { retry_after_s: Some(wait.as_secs().max(1)), ..Self::new(status, error) }
    }

    /// Of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Too many transfers go on here.
    pub fn no_place() -> Self {
        let error = "too many transfers go on at this gateway";
        Self::later(StatusCode::SERVICE_UNAVAILABLE, error, Duration::from_secs(2))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Failed {
            error: String,
        }
        let mut response = (self.status, Json(Failed { error: self.error })).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A request that was judged: it may be.
#[derive(Debug)]
pub struct Admitted {
    transfer: Transfer,
    standing: Standing,
    part: u32,
}

/// Judges a request: who uses the token, and whether that may be now.
pub async fn admit(
    gateway: &Gateway,
    direction: Direction,
    (blob, part): (&str, &str),
    headers: &HeaderMap,
) -> Result<Admitted, Failure> {
    let part: u32 = part.parse().map_err(|_| bad("the address ends in /<blob>/<part>"))?;
    let blob: BlobId = blob.parse().map_err(|_| bad("a blob's id has 32 hexadecimal digits"))?;
    let unknown = || Failure::new(StatusCode::UNAUTHORIZED, "the token is missing, not known, or expired");
    let token = bearer(headers).ok_or_else(unknown)?;
    let transfer = gateway.store.transfer(Sha256::digest(token).into()).await.map_err(of_store)?;
    let transfer = transfer.ok_or_else(unknown)?;
    if transfer.key.blob != blob {
        return Err(Failure::new(StatusCode::FORBIDDEN, "the token is for another blob"));
    }
    let standing = transfer.may(direction == Direction::Put).map_err(of_denied)?;
    if part >= standing.blob.parts {
        return Err(Failure::new(StatusCode::NOT_FOUND, "the blob has no part of this number"));
    }
    gateway.limiters.blob(transfer.account).map_err(|TooOften(wait)| {
        Failure::later(StatusCode::TOO_MANY_REQUESTS, "too many parts in a short time", wait)
    })?;
    Ok(Admitted { transfer, standing, part })
}

/// Serves a request that may be.
pub async fn serve(
    gateway: &Gateway,
    direction: Direction,
    admitted: Admitted,
    headers: &HeaderMap,
    body: &mut BodyDataStream,
) -> Result<Response, Failure> {
    let Some(busy) = gateway.blobs.busy(admitted.transfer.account) else {
        let error = "too many transfers of this account go on at once";
        return Err(Failure::later(StatusCode::TOO_MANY_REQUESTS, error, Duration::from_secs(1)));
    };
    let Some(keeper) = gateway.blobs.keeper(&admitted.standing) else {
        tracing::error!("a blob's bytes are not in the store, and this gateway looks nowhere else");
        return Err(unavailable("the storage of this file is not set up here"));
    };
    let (key, part) = (admitted.transfer.key, admitted.part);
    match direction {
        Direction::Put => {
            let bytes = read(headers, body, admitted.standing.blob.size_bytes).await?;
            metrics::blob_bytes("in", bytes.len());
            put(gateway, keeper, busy, (key, part), bytes).await
        }
        Direction::Get => {
            let bytes = keeper.get(key, part).await.map_err(of_keep)?;
            let bytes = bytes.ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, "there is no such part"))?;
            metrics::blob_bytes("out", bytes.len());
            let kind = HeaderValue::from_static("application/octet-stream");
            Ok(([(header::CONTENT_TYPE, kind), NO_STORE], bytes).into_response())
        }
    }
}

/// Keeps a part to the end, also when the client goes away meanwhile: bytes in object storage without
/// their row would count for nobody's quota.
async fn put(
    gateway: &Gateway,
    keeper: Arc<dyn BlobStore>,
    busy: Busy,
    (key, part): (BlobKey, u32),
    bytes: Bytes,
) -> Result<Response, Failure> {
    let place = Arc::clone(&gateway.blobs.puts).try_acquire_owned().map_err(|_| Failure::no_place())?;
    let kept = gateway.tasks.spawn(async move {
        let _held = (busy, place);
        keeper.put(key, part, bytes).await
    });
    let fault = |_| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "the gateway found a fault in itself");
    of_put(kept.await.map_err(fault)?.map_err(of_keep)?)
}

/// What is sealed for a few is nobody's cache's.
const NO_STORE: (header::HeaderName, HeaderValue) =
    (header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));

/// Reads a little of a body that nobody wants, so that the client comes to read the answer.
pub async fn discard(body: &mut BodyDataStream) {
    let read = async {
        let mut left = TRANSFER_DISCARD;
        while let Some(Ok(chunk)) = body.next().await {
            match left.checked_sub(chunk.len()) {
                Some(less) => left = less,
                None => return,
            }
        }
    };
    let _ = timeout(Duration::from_secs(5), read).await;
}

/// The token's 32 bytes.
fn bearer(headers: &HeaderMap) -> Option<[u8; 32]> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(token.trim(), &mut bytes).ok()?;
    scheme.eq_ignore_ascii_case("bearer").then_some(bytes)
}

/// The body of a part: as long as it says, not longer than a part or the blob, and in time.
async fn read(headers: &HeaderMap, body: &mut BodyDataStream, most: u64) -> Result<Bytes, Failure> {
    let length: Option<u64> =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let Some(length) = length else {
        return Err(Failure::new(StatusCode::LENGTH_REQUIRED, "a part comes with a Content-Length"));
    };
    if length == 0 {
        return Err(bad("a part has at least one byte"));
    }
    if length > most.min(MAX_BLOB_PART as u64) {
        let error = format!("a part has at most {MAX_BLOB_PART} bytes, and not more than was announced");
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, error));
    }
    let late = |_| Failure::new(StatusCode::REQUEST_TIMEOUT, "the bytes came too slowly: put the part again");
    let whole = async {
        let mut bytes = BytesMut::with_capacity(length as usize);
        while let Some(chunk) = timeout(TRANSFER_STALL, body.next()).await.map_err(late)? {
            let chunk = chunk.map_err(|_| bad("the body broke off"))?;
            // hyper holds to the length that was said; so does this.
            if bytes.len() + chunk.len() > length as usize {
                return Err(bad("the body is longer than it said"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    };
    let bytes = timeout(TRANSFER_PART, whole).await.map_err(late)??;
    if bytes.len() as u64 == length { Ok(bytes.freeze()) } else { Err(bad("the body broke off")) }
}

fn bad(error: &str) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, error)
}

fn unavailable(error: &str) -> Failure {
    Failure::later(StatusCode::SERVICE_UNAVAILABLE, error, Duration::from_secs(1))
}

fn of_put(put: PutPart) -> Result<Response, Failure> {
    match put {
        PutPart::Stored | PutPart::Same => Ok((StatusCode::NO_CONTENT, Body::empty()).into_response()),
        PutPart::Other => {
            Err(Failure::new(StatusCode::CONFLICT, "other bytes are there, or the blob is finished"))
        }
        PutPart::TooLarge => {
            Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "the parts are larger than was announced"))
        }
        PutPart::NoBlob => Err(no_blob()),
    }
}

fn no_blob() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "there is no such blob, or not any more")
}

fn of_denied(why: Denied) -> Failure {
    let error = match why {
        Denied::ShutOut(ShutOut::Revoked) => "this device was revoked",
        Denied::ShutOut(ShutOut::Disabled) => "the operator has disabled this account",
        Denied::NotMember => "this account is not a member of the conversation",
        Denied::OtherDirection => "the token is for the other direction",
        Denied::NoBlob => return no_blob(),
    };
    Failure::new(StatusCode::FORBIDDEN, error)
}

fn of_keep(error: KeepError) -> Failure {
    match error {
        KeepError::Store(error) => of_store(error),
        KeepError::Lost { .. } => {
            tracing::error!(error = error.line(), "a file has lost a part");
            Failure::new(StatusCode::GONE, "the server has lost this part of the file")
        }
        KeepError::Objects(_) | KeepError::Late => {
            tracing::warn!(error = error.line(), "object storage gave no outcome");
            let error = "the server's storage of files is not available";
            Failure::later(StatusCode::SERVICE_UNAVAILABLE, error, STORAGE_PAUSE)
        }
    }
}

/// What a client waits that met an outage of object storage.
const STORAGE_PAUSE: Duration = Duration::from_secs(5);

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
fn of_store(error: StoreError) -> Failure {
    match &error {
        StoreError::Unavailable(_) | StoreError::Unknown(_) => {
            tracing::warn!(%error, "the store gave no outcome");
            unavailable("the server's storage is not available")
        }
        StoreError::Corrupt { .. } | StoreError::Schema(_) => {
            tracing::error!(%error, "the store holds a fault");
            Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "the gateway found a fault in its store")
        }
    }
}

//! The two routes of files on the public listener: origin, place, judgement, answer.

use super::{Peer, same_origin};
use crate::{
    blobs::http::{self, Direction, Failure},
    metrics,
};
use axum::{
    Extension,
    extract::{Path, Request},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use std::sync::{Arc, PoisonError};

pub(super) async fn part(
    Extension(peer): Extension<Peer>,
    Path((blob, part)): Path<(String, String)>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let direction = if head.method == Method::PUT { Direction::Put } else { Direction::Get };
    let mut body = body.into_data_stream();
    let answered = async {
        if !same_origin(&head.headers) {
            return Err(Failure::new(StatusCode::FORBIDDEN, "requests from other origins are refused"));
        }
        let admitted = http::admit(&peer.gateway, direction, (&blob, &part), &head.headers).await?;
        // Only now: whoever has no token takes no place from those who have.
        take_place(&peer)?;
        http::serve(&peer.gateway, direction, admitted, &head.headers, &mut body).await
    };
    let answered = answered.await;
    metrics::blob_request(direction, answered.as_ref().map_or_else(Failure::status, Response::status));
    let mut response = match answered {
        Ok(response) => response,
        Err(failure) => {
            http::discard(&mut body).await;
            failure.into_response()
        }
    };
    if peer.gateway.draining.is_cancelled() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The connection changes its place among those that are to become sessions for one among transfers,
/// which it keeps until it ends.
fn take_place(peer: &Peer) -> Result<(), Failure> {
    let mut transfer = peer.transfer.lock().unwrap_or_else(PoisonError::into_inner);
    if transfer.is_none() {
        let place = Arc::clone(&peer.gateway.blobs.places).try_acquire_owned();
        *transfer = Some(place.map_err(|_| Failure::no_place())?);
        drop(peer.place.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
    Ok(())
}

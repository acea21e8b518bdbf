//! Does what a balancer asks: sends some sessions elsewhere.
//!
//! - Hears this gateway's own subject; [`turns`] decides who moves when, this task tells them.
//! - A request is a claim: what leads back here, cannot be dialled, or was signed by nobody that is known
//!   is left out. While the gateway drains it hears none: everybody is told to leave anyway.
//! - A client that is told stays until it has arrived elsewhere; nothing is lost if it stays for good.

pub mod turns;

use crate::{gateway::Gateway, metrics, registry::Handle, rim::share};
use bytes::Bytes;
use fastchat_protocol::{
    RequestId, ServerFrame,
    fleet::{FleetFrame, FleetSubject, MAX_SHED, Shed, is_dialable},
    server::Move,
};
use futures_util::StreamExt;
use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};
use turns::{Session, Turns};

/// A session, if it is still there, and what it is told.
type Asked = Turns<Weak<Handle>, Move>;

/// Serves requests until the gateway leaves.
pub async fn run(gateway: Arc<Gateway>) {
    let rules = gateway.config.shed;
    let Some(link) = gateway.bus.fleet().filter(|_| rules.per_second > 0) else { return };
    let Some(mut requests) = link.listen(FleetSubject::Shed(gateway.identity.id)).await else { return };
    let mut turns = Asked::new(rules);
    loop {
        let next_at = turns.next_at();
        let turn = async {
            match next_at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = gateway.draining.cancelled() => return,
            () = gateway.ending.cancelled() => return,
            request = requests.next() => match request {
                Some(request) => metrics::shed(on_request(&gateway, &mut turns, &request.payload)),
                None => return,
            },
            () = turn => tell(&gateway, &mut turns),
        }
    }
}

/// Plans what a balancer asks; says what became of it.
fn on_request(gateway: &Gateway, turns: &mut Asked, record: &Bytes) -> &'static str {
    let Ok((_, FleetFrame::Shed(Shed { over_ms, mut moves }))) = FleetFrame::decode(record) else {
        return "malformed";
    };
    moves.truncate(MAX_SHED);
    moves.retain(|target| match doubt(gateway, target) {
        None => true,
        Some(doubt) => {
            metrics::moved(doubt, 1);
            false
        }
    });
    let (wanted, over) = (moves.len(), Duration::from_millis(over_ms.into()));
    let session =
        |handle: Arc<Handle>| Session { id: handle.id, since: handle.since, handle: Arc::downgrade(&handle) };
    let sessions = gateway.registry.all().into_iter().map(session).collect();
    match turns.plan(moves, sessions, over, Instant::now(), share) {
        Ok(planned) => {
            metrics::moved("nobody", wanted - planned);
            tracing::info!(planned, wanted, over_ms, "a balancer asks to move sessions");
            "taken"
        }
        Err(turns::Busy) => "busy",
    }
}

/// Why a client is not sent there.
fn doubt(gateway: &Gateway, target: &Move) -> Option<&'static str> {
    match () {
        () if !is_dialable(&target.url) => Some("bad_url"),
        () if target.url == gateway.identity.url => Some("itself"),
        () if !gateway.tickets.vouched(&target.ticket, gateway.identity.id) => Some("unsigned"),
        () => None,
    }
}

/// Tells those whose turn it is.
fn tell(gateway: &Gateway, turns: &mut Asked) {
    while let Some((session, target)) = turns.take(Instant::now()) {
        match session.upgrade().filter(|_| !gateway.draining.is_cancelled()) {
            Some(handle) => {
                handle.answer(RequestId(0), &ServerFrame::Move(target));
                metrics::moved("told", 1);
            }
            None => metrics::moved("gone", 1),
        }
    }
}

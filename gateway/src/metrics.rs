//! What the gateway measures, one function an event; names and labels are in [`catalogue`].
//!
//! - Events count where they happen; how things stand is looked up when somebody asks ([`sample`]).
//! - sockets = accepted - ended.
//! - What counts with every message is looked up once and kept (`kept!`): the recorder must be there before.

pub mod catalogue;
mod sample;

pub use catalogue::{BUCKETS, CATALOGUE};
pub use sample::{sample, watch_store};

use crate::{
    blobs::{Operation, http::Direction},
    fleet::Identity,
    store::{StoreError, blobs::Totals},
};
use axum::http::StatusCode;
use fastchat_protocol::{ClientFrame, Code};
use metrics::{Counter, Histogram, counter, gauge, histogram};
use std::{
    sync::LazyLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A metric of this type, as it was found the first time.
macro_rules! kept {
    ($kind:ident: $metric:expr) => {{
        static KEPT: LazyLock<$kind> = LazyLock::new(|| $metric);
        &*KEPT
    }};
}

/// How long a stage of a message's way takes.
macro_rules! stage {
    ($stage:literal) => {
        kept!(Histogram: histogram!("fastchat_delivery_stage_seconds", "stage" => $stage))
    };
}

/// The name of the frame with messages, for its requests.
pub const SEND: &str = "Send";

/// Shows what did not happen yet as zero, where the catalogue does not list it: each frame's good answer,
/// what a send may meet, and gauges that somebody sets when they change.
pub fn start() {
    groups(0);
    bus_subscriptions(0);
    for (_, frame) in ClientFrame::NUMBERS {
        counter!("fastchat_requests_total", "frame" => *frame, "result" => "ok").increment(0);
    }
    let met = [Code::Unavailable, Code::OutcomeUnknown, Code::Internal, Code::RateLimited, Code::StaleEpoch];
    for code in met {
        counter!("fastchat_requests_total", "frame" => SEND, "result" => code.label()).increment(0);
    }
    for kind in ["Register", "Login", "Resume"] {
        for result in ["ok", Code::BadCredentials.label(), Code::RateLimited.label()] {
            counter!("fastchat_sessions_total", "kind" => kind, "result" => result).increment(0);
        }
    }
}

/// A socket was accepted.
pub fn accepted() {
    counter!("fastchat_connections_accepted_total").increment(1);
}

/// A socket ended.
pub fn ended(reason: &'static str) {
    counter!("fastchat_connections_ended_total", "reason" => reason).increment(1);
}

/// How many sessions there are.
pub fn connections(count: usize) {
    gauge!("fastchat_connections").set(count as f64);
}

/// Who this gateway is and how much it takes; balancers ask Prometheus for it (docs/balancer.md).
pub fn identity(identity: &Identity, limit: usize) {
    let (gateway, url) = (identity.id.to_string(), identity.url.clone());
    let version = env!("CARGO_PKG_VERSION");
    gauge!("fastchat_gateway_info", "gateway" => gateway, "url" => url, "version" => version).set(1.0);
    gauge!("fastchat_connections_limit").set(limit as f64);
    // Without a connection yet, nothing else would say so.
    gauge!("fastchat_connections").increment(0.0);
}

/// A client showed a ticket, or should have.
pub fn ticket(result: &'static str) {
    counter!("fastchat_tickets_total", "result" => result).increment(1);
}

/// A balancer asked to move sessions.
pub fn shed(result: &'static str) {
    counter!("fastchat_shed_requests_total", "result" => result).increment(1);
}

/// Sessions were told to move, or were not.
pub fn moved(result: &'static str, sessions: usize) {
    if sessions > 0 {
        counter!("fastchat_moves_total", "result" => result).increment(sessions as u64);
    }
}

/// How busy it is, and whether it leaves.
pub fn load(cpu: f64, draining: bool) {
    gauge!("fastchat_cpu_ratio").set(cpu);
    gauge!("fastchat_draining").set(if draining { 1.0 } else { 0.0 });
}

/// Whether new connections are taken.
pub fn ready(ready: bool) {
    gauge!("fastchat_ready").set(if ready { 1.0 } else { 0.0 });
}

/// A frame came from a client.
pub fn heard(bytes: usize) {
    kept!(Counter: counter!("fastchat_socket_frames_total", "direction" => "in")).increment(1);
    kept!(Counter: counter!("fastchat_socket_bytes_total", "direction" => "in")).increment(bytes as u64);
}

/// Frames were written to a client.
pub fn wrote(frames: usize, bytes: usize) {
    kept!(Counter: counter!("fastchat_socket_frames_total", "direction" => "out")).increment(frames as u64);
    kept!(Counter: counter!("fastchat_socket_bytes_total", "direction" => "out")).increment(bytes as u64);
}

/// How many groups are heard here.
pub fn groups(count: usize) {
    gauge!("fastchat_groups").set(count as f64);
}

/// The readers of a group were asked for.
pub fn group_reload(read: bool) {
    counter!("fastchat_group_reloads_total", "result" => ok_or_failed(read)).increment(1);
}

/// A row of a group waits for its readers' ranges, or found no room to.
pub fn group_row(result: &'static str) {
    counter!("fastchat_group_rows_held_total", "result" => result).increment(1);
}

/// Connections that may not read a row.
pub fn out_of_range(connections: usize) {
    if connections > 0 {
        counter!("fastchat_group_out_of_range_total").increment(connections as u64);
    }
}

/// Connections that a head check told about a group's head.
pub fn head_check_repairs(told: usize) {
    counter!("fastchat_head_check_repairs_total").increment(told as u64);
}

/// What may be lost was queued for connections here, or was not because they are slow.
pub fn hinted(kind: &'static str, queued: usize, dropped: usize) {
    if queued > 0 {
        counter!("fastchat_hints_total", "kind" => kind).increment(queued as u64);
    }
    if dropped > 0 {
        hints_dropped(kind, "slow_reader", dropped);
    }
}

/// What may be lost was given to the bus.
pub fn hint_published(kind: &'static str) {
    counter!("fastchat_hints_published_total", "kind" => kind).increment(1);
}

/// What may be lost was dropped.
pub fn hint_dropped(kind: &'static str, reason: &'static str) {
    hints_dropped(kind, reason, 1);
}

fn hints_dropped(kind: &'static str, reason: &'static str, count: usize) {
    counter!("fastchat_hints_dropped_total", "kind" => kind, "reason" => reason).increment(count as u64);
}

/// An account said how far it has read.
pub fn read_mark(result: &'static str) {
    counter!("fastchat_read_marks_total", "result" => result).increment(1);
}

/// The store noted that so many accounts were online.
pub fn seen(accounts: usize) {
    counter!("fastchat_last_seen_total").increment(accounts as u64);
}

/// How many accounts are watched by connections here, and how many here are watched.
pub fn watches(watched: usize, leases: usize) {
    gauge!("fastchat_presence_watched").set(watched as f64);
    gauge!("fastchat_presence_leases").set(leases as f64);
}

/// Somebody is not watched, because a limit is reached.
pub fn watch_refused(limit: &'static str) {
    counter!("fastchat_presence_refused_total", "limit" => limit).increment(1);
}

/// Somebody asked who of so many is online.
pub fn presence_asked(accounts: usize) {
    counter!("fastchat_presence_questions_total").increment(accounts as u64);
}

/// A device proved itself, or did not.
pub fn authenticated(kind: &'static str, result: &'static str, took: Duration) {
    counter!("fastchat_sessions_total", "kind" => kind, "result" => result).increment(1);
    histogram!("fastchat_authentication_seconds", "kind" => kind).record(took);
}

/// A request was answered, `took` after it came.
pub fn request(frame: &'static str, refused: Option<Code>, took: Duration) {
    if frame == SEND && refused.is_none() {
        kept!(Counter: counter!("fastchat_requests_total", "frame" => SEND, "result" => "ok")).increment(1);
        kept!(Histogram: histogram!("fastchat_request_seconds", "class" => class(SEND))).record(took);
        return;
    }
    requested(frame, class(frame), refused, took);
}

/// A request of a session without a device was answered.
pub fn guest_request(frame: &'static str, refused: Option<Code>, took: Duration) {
    requested(frame, "guest", refused, took);
}

fn requested(frame: &'static str, class: &'static str, refused: Option<Code>, took: Duration) {
    let result = refused.map_or("ok", Code::label);
    counter!("fastchat_requests_total", "frame" => frame, "result" => result).increment(1);
    histogram!("fastchat_request_seconds", "class" => class).record(took);
}

/// Requests that take about the same path: one histogram each.
fn class(frame: &str) -> &'static str {
    match frame {
        "Send" => "send",
        "Fetch" | "FetchMailbox" | "Sync" => "log",
        "Commit" | "Found" | "FoundGroup" | "Leave" | "GetGroupState" | "GetTree" => "group",
        "FindAccount" | "GetAccount" | "PublishKeyPackages" | "ClaimKeyPackages" => "directory",
        "PutManifest" | "ChangePassword" | "PutSlot" | "GetSlot" | "DropSlot" | "SetRecovery"
        | "DeleteAccount" => "account",
        "Block" | "GetBlocked" | "AskPresence" | "SetVisible" | "SetSharing" | "MarkRead" | "GetReceipts" => {
            "people"
        }
        "BeginBlob" | "FinishBlob" | "GetBlob" | "DropBlob" => "blob",
        _ => "other",
    }
}

/// A message was stored before: the sender did not hear of it, and asked again.
pub fn duplicate() {
    counter!("fastchat_duplicates_total").increment(1);
}

/// A message was stored that was accepted then.
pub fn committed(accepted: Instant) {
    stage!("commit").record(accepted.elapsed());
}

/// A stored message was handed out, which began then.
pub fn published(began: Instant) {
    stage!("publish").record(began.elapsed());
}

/// Live copies were written that had waited since then.
pub fn live_written(since: &[Instant]) {
    let now = Instant::now();
    for queued in since {
        stage!("socket").record(now.duration_since(*queued));
    }
}

/// Live copies for connections.
pub fn delivered(queued: usize, dropped: usize) {
    kept!(Counter: counter!("fastchat_deliveries_total", "result" => "queued")).increment(queued as u64);
    if dropped > 0 {
        counter!("fastchat_deliveries_total", "result" => "dropped").increment(dropped as u64);
    }
    kept!(Histogram: histogram!("fastchat_fanout_size")).record((queued + dropped) as f64);
}

/// A device asked for its conversations, and so many rows lie after its cursors.
pub fn pending(rows: u64) {
    histogram!("fastchat_pending_size").record(rows as f64);
}

/// A device fetched a page whose oldest row is of then.
pub fn fetched(oldest_at_ms: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The store's clock may be a little ahead.
    let age = now.saturating_sub(Duration::from_millis(oldest_at_ms));
    histogram!("fastchat_pending_age_seconds").record(age);
}

/// Connections were told to compare their heads.
pub fn resync(reason: &'static str, connections: usize) {
    counter!("fastchat_resyncs_total", "reason" => reason).increment(connections as u64);
}

/// A head check was done, or failed.
pub fn head_check(ok: bool, began: Instant) {
    counter!("fastchat_head_checks_total", "result" => ok_or_failed(ok)).increment(1);
    histogram!("fastchat_head_check_seconds").record(began.elapsed());
}

/// Cursors were given to the store.
pub fn cursors(ok: bool, cursors: usize) {
    counter!("fastchat_cursor_flushes_total", "result" => ok_or_failed(ok)).increment(1);
    if ok {
        counter!("fastchat_cursors_stored_total").increment(cursors as u64);
    }
}

/// A record of another gateway.
pub fn bus_record(kind: &'static str) {
    counter!("fastchat_bus_records_total", "kind" => kind).increment(1);
}

/// The bus went away.
pub fn bus_down() {
    counter!("fastchat_bus_down_total").increment(1);
}

/// The bus lost a record.
pub fn bus_dropped(reason: &'static str) {
    counter!("fastchat_bus_dropped_total", "reason" => reason).increment(1);
}

/// The bus took a record.
pub fn bus_published() {
    kept!(Counter: counter!("fastchat_bus_published_total")).increment(1);
}

/// NATS' client took a record that was queued then.
pub fn bus_waited(queued: Instant) {
    stage!("bus").record(queued.elapsed());
}

/// The bus' client said that something is wrong.
pub fn bus_error(from: &'static str) {
    counter!("fastchat_bus_errors_total", "from" => from).increment(1);
}

/// How many subjects are heard.
pub fn bus_subscriptions(count: usize) {
    gauge!("fastchat_bus_subscriptions").set(count as f64);
}

/// A round trip to the bus.
pub fn bus_barrier(began: Instant) {
    histogram!("fastchat_bus_barrier_seconds").record(began.elapsed());
}

/// What NATS' client has counted since it started.
pub fn bus_client(statistics: &async_nats::Statistics) {
    use std::sync::atomic::Ordering::Relaxed;
    let [bytes, messages] = ["fastchat_bus_bytes_total", "fastchat_bus_messages_total"];
    counter!(bytes, "direction" => "in").absolute(statistics.in_bytes.load(Relaxed));
    counter!(bytes, "direction" => "out").absolute(statistics.out_bytes.load(Relaxed));
    counter!(messages, "direction" => "in").absolute(statistics.in_messages.load(Relaxed));
    counter!(messages, "direction" => "out").absolute(statistics.out_messages.load(Relaxed));
    counter!("fastchat_bus_connects_total").absolute(statistics.connects.load(Relaxed));
}

/// A part of a file was asked for, and this was the answer.
pub fn blob_request(direction: Direction, status: StatusCode) {
    let direction = match direction {
        Direction::Put => "in",
        Direction::Get => "out",
    };
    let result = match status.as_u16() {
        200..=299 => "ok",
        401 => "no_token",
        403 => "forbidden",
        404 => "not_found",
        408 => "too_slow",
        409 => "conflict",
        410 => "lost",
        413 => "too_large",
        429 => "rate_limited",
        503 => "unavailable",
        _ => "other",
    };
    counter!("fastchat_blob_requests_total", "direction" => direction, "result" => result).increment(1);
}

/// Bytes of a part came, or go.
pub fn blob_bytes(direction: &'static str, bytes: usize) {
    counter!("fastchat_blob_bytes_total", "direction" => direction).increment(bytes as u64);
}

/// Object storage was asked, and why it failed if it did.
pub fn blob_storage(operation: Operation, took: Duration, failed: Option<&'static str>) {
    let operation = match operation {
        Operation::Put => "put",
        Operation::Get => "get",
        Operation::Remove => "remove",
        Operation::List => "list",
    };
    histogram!("fastchat_blob_storage_seconds", "operation" => operation).record(took);
    if let Some(reason) = failed {
        let labels = [("operation", operation), ("reason", reason)];
        counter!("fastchat_blob_storage_failures_total", &labels).increment(1);
    }
}

/// How many files the store knows, and how many connections transfer some here.
pub fn blobs(totals: Totals, transfers: usize) {
    let Totals { complete, complete_bytes, open, doomed } = totals;
    for (state, count) in [("complete", complete), ("open", open), ("doomed", doomed)] {
        gauge!("fastchat_blobs", "state" => state).set(count as f64);
    }
    gauge!("fastchat_blob_stored_bytes").set(complete_bytes as f64);
    gauge!("fastchat_blob_transfers").set(transfers as f64);
}

/// What was past its time is gone.
pub fn swept(what: &'static str, count: u64) {
    if count > 0 {
        counter!("fastchat_swept_total", "what" => what).increment(count);
    }
}

/// The writer had no room.
pub fn writer_refused() {
    counter!("fastchat_writer_refused_total").increment(1);
}

/// A batch is tried item by item.
pub fn writer_split() {
    counter!("fastchat_writer_split_total").increment(1);
}

/// A call of the store got its connection.
pub fn store_waited(began: Instant) {
    histogram!("fastchat_store_wait_seconds").record(began.elapsed());
}

/// A call of the store ended.
pub fn store_called(kind: &'static str, began: Instant, failed: Option<&StoreError>) {
    histogram!("fastchat_store_call_seconds", "kind" => kind).record(began.elapsed());
    if let Some(error) = failed {
        store_failed(error);
    }
}

/// A call of the store gave no outcome.
pub fn store_failed(error: &StoreError) {
    let kind = match error {
        StoreError::Unavailable(_) => "unavailable",
        StoreError::Unknown(_) => "unknown",
        StoreError::Corrupt { .. } => "corrupt",
        StoreError::Schema(_) => "schema",
    };
    counter!("fastchat_store_errors_total", "kind" => kind).increment(1);
}

fn ok_or_failed(ok: bool) -> &'static str {
    if ok { "ok" } else { "failed" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_listed() {
        for (_, frame) in ClientFrame::NUMBERS {
            assert!(catalogue::CLASSES.contains(&class(frame)), "{frame}");
        }
    }
}

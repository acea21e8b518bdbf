//! Every metric of the gateway: name, help, unit. Labels are few and never name a user.
//!
//! active connections = accepted - ended.

use crate::fleet::Identity;
use fastchat_protocol::Code;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::Duration;

/// Describes all metrics to the recorder.
pub fn describe() {
    describe_gauge!("fastchat_connections", Unit::Count, "Connections with a session.");
    describe_gauge!("fastchat_connections_limit", Unit::Count, "Connections that the gateway takes at most.");
    describe_gauge!(
        "fastchat_gateway_info",
        Unit::Count,
        "1, with this process's id, public URL and version."
    );
    describe_gauge!(
        "fastchat_cpu_ratio",
        Unit::Count,
        "Share of the machine's processors in use, 0 to 1: by all, or by this process (load_scope)."
    );
    describe_counter!(
        "fastchat_tickets_total",
        Unit::Count,
        "Tickets of balancers that clients showed or did not, by result."
    );
    describe_gauge!("fastchat_draining", Unit::Count, "1 while the gateway sends its clients away.");
    describe_counter!("fastchat_connections_accepted_total", Unit::Count, "Sockets accepted.");
    describe_counter!("fastchat_connections_ended_total", Unit::Count, "Sockets ended, by reason.");
    describe_counter!("fastchat_sessions_total", Unit::Count, "Proofs of identity, by kind and result.");
    describe_histogram!(
        "fastchat_authentication_seconds",
        Unit::Seconds,
        "From a proof's arrival to the session, by kind."
    );
    describe_counter!("fastchat_requests_total", Unit::Count, "Requests of clients, by frame and result.");
    describe_histogram!(
        "fastchat_append_seconds",
        Unit::Seconds,
        "From an envelope's arrival to its answer."
    );
    describe_counter!(
        "fastchat_deliveries_total",
        Unit::Count,
        "Live copies for connections: queued, or dropped because the reader is slow."
    );
    describe_counter!(
        "fastchat_resyncs_total",
        Unit::Count,
        "Connections told to compare their heads, by reason."
    );
    describe_counter!("fastchat_head_checks_total", Unit::Count, "Head checks done.");
    describe_counter!(
        "fastchat_head_check_repairs_total",
        Unit::Count,
        "Connections that a head check told about a head."
    );
    describe_counter!(
        "fastchat_bus_records_total",
        Unit::Count,
        "Records that other gateways published, by kind."
    );
    describe_counter!(
        "fastchat_bus_dropped_total",
        Unit::Count,
        "Records that the bus did not take, by reason."
    );
    describe_counter!("fastchat_bus_down_total", Unit::Count, "Times that the bus went away.");
    describe_histogram!("fastchat_writer_batch_size", Unit::Count, "Envelopes committed together.");
    describe_histogram!(
        "fastchat_writer_commit_seconds",
        Unit::Seconds,
        "One batch, from the store's call to its answer."
    );
    describe_gauge!("fastchat_writer_queue_depth", Unit::Count, "Envelopes that wait for the writer.");
    describe_gauge!("fastchat_groups", Unit::Count, "Groups with a reader here, each a subscription.");
    describe_counter!(
        "fastchat_group_reloads_total",
        Unit::Count,
        "Times that a group's readers were asked for, by result."
    );
    describe_counter!(
        "fastchat_group_rows_held_total",
        Unit::Count,
        "Rows of groups that waited for that (held), or did not fit (overflow)."
    );
    describe_counter!(
        "fastchat_group_out_of_range_total",
        Unit::Count,
        "Live copies that were not given to a connection because it may not read the row."
    );
    describe_gauge!("fastchat_guests", Unit::Count, "Sessions that proved no device: linking, recovery.");
    describe_counter!(
        "fastchat_presence_questions_total",
        Unit::Count,
        "Accounts of which somebody asked whether they are online."
    );
    describe_gauge!("fastchat_ready", Unit::Count, "1 while the gateway takes new connections.");
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

/// How busy it is, and whether it leaves.
pub fn load(cpu: f64, draining: bool) {
    gauge!("fastchat_cpu_ratio").set(cpu);
    gauge!("fastchat_draining").set(if draining { 1.0 } else { 0.0 });
}

/// Whether new connections are taken.
pub fn ready(ready: bool) {
    gauge!("fastchat_ready").set(if ready { 1.0 } else { 0.0 });
}

/// How many groups are heard here.
pub fn groups(count: usize) {
    gauge!("fastchat_groups").set(count as f64);
}

/// The readers of a group were asked for.
pub fn group_reload(read: bool) {
    let result = if read { "ok" } else { "failed" };
    counter!("fastchat_group_reloads_total", "result" => result).increment(1);
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

/// How many sessions without a device there are.
pub fn guests(count: usize) {
    gauge!("fastchat_guests").set(count as f64);
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

/// A request was answered.
pub fn request(frame: &'static str, refused: Option<Code>) {
    let result = refused.map_or("ok", Code::label);
    counter!("fastchat_requests_total", "frame" => frame, "result" => result).increment(1);
}

/// An append was answered.
pub fn appended(took: Duration, refused: Option<Code>) {
    request("Send", refused);
    histogram!("fastchat_append_seconds").record(took);
}

/// Live copies for connections.
pub fn delivered(queued: usize, dropped: usize) {
    counter!("fastchat_deliveries_total", "result" => "queued").increment(queued as u64);
    if dropped > 0 {
        counter!("fastchat_deliveries_total", "result" => "dropped").increment(dropped as u64);
    }
}

/// Connections were told to compare their heads.
pub fn resync(reason: &str, connections: usize) {
    counter!("fastchat_resyncs_total", "reason" => reason.to_owned()).increment(connections as u64);
}

/// A head check was done.
pub fn head_check(told: usize) {
    counter!("fastchat_head_checks_total").increment(1);
    head_check_repairs(told);
}

/// A record of another gateway.
pub fn bus_record(kind: &'static str) {
    counter!("fastchat_bus_records_total", "kind" => kind).increment(1);
}

/// The bus went away.
pub fn bus_down() {
    counter!("fastchat_bus_down_total").increment(1);
}

//! One gateway, or several beside each other: connections, requests, queues, process.

use crate::{Dashboard, Panel, Row, Unit};

pub(super) fn board() -> Dashboard {
    Dashboard {
        uid: "fastchat-gateway",
        title: "FastChat / Gateway",
        description: "Connections, requests, queues and the process, by gateway.",
        of: "fastchat_connections",
        rows: vec![
            Row { title: "Connections", panels: connections() },
            Row { title: "Requests", panels: requests() },
            Row { title: "Queues", panels: queues() },
            Row { title: "Process", panels: process() },
        ],
    }
}

fn connections() -> Vec<Panel> {
    vec![
        Panel::stack("Sockets by state", Unit::Count, "Opening ones have no session yet: many of them is a flood or slow proofs.")
            .ask("sum by (state) (fastchat_sockets{@})", "{{state}}"),
        Panel::lines("Sockets accepted and ended", Unit::PerSecond, "Equal at rest. A wave of both is a restart, a network that broke, or sessions that move.")
            .ask("sum(rate(fastchat_connections_accepted_total{@}[@]))", "accepted")
            .ask("sum(rate(fastchat_connections_ended_total{@}[@]))", "ended"),
        Panel::lines("Why sockets end", Unit::PerSecond, "client_left and client_closed are the client's wish; slow_reader and timed_out a bad network; draining ours.")
            .ask("sum by (reason) (rate(fastchat_connections_ended_total{@}[@])) > 0 or sum(rate(fastchat_connections_ended_total{@}[@])) * 0", "{{reason}}"),
        Panel::lines("Proofs of identity", Unit::PerSecond, "Resume is the usual one. A wave of Login with bad_credentials is somebody who guesses.")
            .ask("sum by (kind, result) (rate(fastchat_sessions_total{@}[@]))", "{{kind}} {{result}}"),
        Panel::lines("Time of a proof, p95", Unit::Seconds, "Passwords are hashed on purpose (0.1 s each, few at a time); a resume is one query.")
            .ask("histogram_quantile(0.95, sum by (le, kind) (rate(fastchat_authentication_seconds_bucket{@}[@])))", "{{kind}}")
            .warn(0.5, 2.0),
        Panel::lines("Connections of the limit", Unit::Ratio, "At 100 % newcomers are told gateway_full and go elsewhere.")
            .ask("fastchat_connections{@} / fastchat_connections_limit{@}", "{{instance}}")
            .warn(0.8, 0.95),
        Panel::lines("Sessions moved", Unit::PerSecond, "What became of a balancer's wish. nobody: those here are too new, or were asked a moment ago.")
            .ask("sum by (result) (rate(fastchat_moves_total{@}[@]))", "{{result}}"),
        Panel::lines("Tickets", Unit::PerSecond, "Of balancers, by what they are worth. missing is usual where they are optional; signature is a key that gateways do not know.")
            .ask("sum by (result) (rate(fastchat_tickets_total{@}[@]))", "{{result}}"),
    ]
}

fn requests() -> Vec<Panel> {
    vec![
        Panel::stack(
            "Requests by class",
            Unit::PerSecond,
            "Frames of about the same path together; Send is its own class.",
        )
        .ask("sum by (class) (rate(fastchat_request_seconds_count{@}[@]))", "{{class}}"),
        Panel::lines("Time of a request, p99", Unit::Seconds, "From its arrival to its answer.")
            .ask(
                "histogram_quantile(0.99, sum by (le, class) (rate(fastchat_request_seconds_bucket{@}[@])))",
                "{{class}}",
            )
            .warn(0.5, 2.0),
        Panel::lines("Bytes of frames", Unit::BytesPerSecond, "Read from clients and written to them.")
            .ask("sum by (direction) (rate(fastchat_socket_bytes_total{@}[@]))", "{{direction}}"),
    ]
}

fn queues() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Frames that wait for readers",
            Unit::Count,
            "All connections together, and the one with most (at most 1,024: then live copies are dropped).",
        )
        .ask("sum(fastchat_connection_queue_depth{@})", "all")
        .ask("max(fastchat_connection_queue_longest{@})", "the longest")
        .warn(512.0, 1_024.0),
        Panel::lines(
            "Connections that lag",
            Unit::Count,
            "They lost live copies and are told to read the log; the second line is how often that was.",
        )
        .ask("sum(fastchat_connections_lagging{@})", "now")
        .ask("sum(increase(fastchat_resyncs_total{@,reason=\"lagging\"}[@]))", "told to catch up"),
        Panel::lines(
            "Writer's queue",
            Unit::Count,
            "Envelopes that wait for a commit. It takes 4,096; what finds no room is refused and sent again.",
        )
        .ask("sum by (instance) (fastchat_writer_queue_depth{@})", "{{instance}}")
        .warn(512.0, 4_096.0),
        Panel::lines(
            "Bus queues",
            Unit::Count,
            "Records to be published (4,096 at most) and from other gateways (16,384 at most).",
        )
        .ask("sum by (instance) (fastchat_bus_publish_queue_depth{@})", "{{instance}} to the bus")
        .ask("sum by (instance) (fastchat_bus_event_queue_depth{@})", "{{instance}} from the bus"),
        Panel::lines(
            "Connections to the store",
            Unit::Count,
            "Used ones of the pool. At the limit, calls wait.",
        )
        .ask("sum by (state) (fastchat_store_connections{@})", "{{state}}")
        .ask("sum(fastchat_store_connections_limit{@})", "limit"),
        Panel::lines(
            "Wait for a connection, p99",
            Unit::Seconds,
            "What a call of the store waits for the pool; after two seconds it fails.",
        )
        .ask("histogram_quantile(0.99, sum by (le) (rate(fastchat_store_wait_seconds_bucket{@}[@])))", "p99")
        .warn(0.1, 1.0),
    ]
}

fn process() -> Vec<Panel> {
    vec![
        Panel::lines("CPU of the process", Unit::Count, "Processors in use, by gateway.")
            .ask("sum by (instance) (rate(process_cpu_seconds_total{@}[@]))", "{{instance}}"),
        Panel::lines("Memory for each connection", Unit::Bytes, "Memory of the process over its connections: it falls while they grow.")
            .ask("process_resident_memory_bytes{@} / clamp_min(fastchat_connections{@}, 1)", "{{instance}}"),
        Panel::lines("Descriptors of the limit", Unit::Ratio, "Each connection is one. Out of them, new sockets wait.")
            .ask("process_open_fds{@} / process_max_fds{@}", "{{instance}}")
            .warn(0.7, 0.9),
        Panel::lines("Event loop's lag, p99", Unit::Seconds, "How late a timer fires: the wait of everything that is ready to run.")
            .ask("histogram_quantile(0.99, sum by (le, instance) (rate(fastchat_runtime_lag_seconds_bucket{@}[@])))", "{{instance}}")
            .warn(0.05, 0.25),
        Panel::lines("Tasks", Unit::Count, "One a connection and a few more; growth without connections is a leak.")
            .ask("sum by (instance) (fastchat_runtime_tasks{@})", "{{instance}}"),
        Panel::lines("Up for", Unit::Seconds, "Since the process started.")
            .ask("time() - process_start_time_seconds{@}", "{{instance}}"),
    ]
}

//! Is everybody served? The first look.

use crate::{Dashboard, Panel, Row, Unit};

pub(super) fn board() -> Dashboard {
    Dashboard {
        uid: "fastchat-overview",
        title: "FastChat / Overview",
        description: "Who is online, what they send, how fast it arrives, and what goes wrong.",
        of: "fastchat_connections",
        rows: vec![
            Row { title: "Now", panels: now() },
            Row { title: "Messages", panels: messages() },
            Row { title: "What goes wrong", panels: wrong() },
            Row { title: "Gateways", panels: gateways() },
        ],
    }
}

fn now() -> Vec<Panel> {
    vec![
        Panel::stat("Devices online", Unit::Count, "Connections with a session, over all gateways.")
            .ask("sum(fastchat_connections{@})", "devices"),
        Panel::stat("Gateways up", Unit::Count, "Gateways that Prometheus reaches and that take connections.")
            .ask("sum(up{@} * on (job, instance) fastchat_ready{@})", "gateways")
            .warn(1.0, 1.0),
        Panel::stat("Messages", Unit::PerSecond, "Messages accepted: each was committed before its sender heard so.")
            .ask("sum(rate(fastchat_requests_total{@,frame=\"Send\",result=\"ok\"}[@]))", "accepted"),
        Panel::stat("Send, p99", Unit::Seconds, "99 of 100 messages are answered within this time. The aim is 0.5 s.")
            .ask("histogram_quantile(0.99, sum by (le) (rate(fastchat_request_seconds_bucket{@,class=\"send\"}[@])))", "p99")
            .warn(0.25, 0.5),
        Panel::stat("Sends that failed", Unit::Ratio, "Share of messages that the service could not take (the sender keeps them). The objective is 0.1 %.")
            .ask("sum(rate(fastchat_requests_total{@,frame=\"Send\",result=~\"unavailable|outcome_unknown|internal\"}[@])) / clamp_min(sum(rate(fastchat_requests_total{@,frame=\"Send\"}[@])), 0.001)", "failed")
            .warn(0.001, 0.01),
        Panel::stat("Fullest gateway", Unit::Ratio, "Connections of the limit, where it is most. Balancers send nobody to a full one.")
            .ask("max(fastchat_connections{@} / fastchat_connections_limit{@})", "of the limit")
            .warn(0.8, 0.95),
    ]
}

fn messages() -> Vec<Panel> {
    vec![
        Panel::stack("Messages by outcome", Unit::PerSecond, "Sends by result. Anything but ok is said to the sender, who sends again or is told why.")
            .ask("sum by (result) (rate(fastchat_requests_total{@,frame=\"Send\"}[@]))", "{{result}}"),
        Panel::lines("Send latency", Unit::Seconds, "From a message's arrival to its answer, with the commit.")
            .ask("histogram_quantile(0.5, sum by (le) (rate(fastchat_request_seconds_bucket{@,class=\"send\"}[@])))", "p50")
            .ask("histogram_quantile(0.95, sum by (le) (rate(fastchat_request_seconds_bucket{@,class=\"send\"}[@])))", "p95")
            .ask("histogram_quantile(0.99, sum by (le) (rate(fastchat_request_seconds_bucket{@,class=\"send\"}[@])))", "p99")
            .warn(0.25, 0.5),
        Panel::heat("Send latency, all of it", Unit::Seconds, "How many messages took how long: a second band is a second kind of trouble.")
            .ask("sum by (le) (increase(fastchat_request_seconds_bucket{@,class=\"send\"}[@]))", "{{le}}"),
        Panel::lines("Live copies", Unit::PerSecond, "Copies queued for connected devices. Dropped ones are fetched from the log by a reader that was slow.")
            .ask("sum by (result) (rate(fastchat_deliveries_total{@}[@]))", "{{result}}"),
        Panel::lines("From commit to the reader's socket", Unit::Seconds, "What a live copy waits until it is written, on the gateway that writes it.")
            .ask("histogram_quantile(0.5, sum by (le) (rate(fastchat_delivery_stage_seconds_bucket{@,stage=\"socket\"}[@])))", "p50")
            .ask("histogram_quantile(0.99, sum by (le) (rate(fastchat_delivery_stage_seconds_bucket{@,stage=\"socket\"}[@])))", "p99")
            .warn(0.5, 2.0),
        Panel::lines("Pending when a device comes back", Unit::Count, "Rows that lay after a device's cursors when it asked for its conversations.")
            .ask("histogram_quantile(0.5, sum by (le) (rate(fastchat_pending_size_bucket{@}[@])))", "p50")
            .ask("histogram_quantile(0.99, sum by (le) (rate(fastchat_pending_size_bucket{@}[@])))", "p99"),
    ]
}

fn wrong() -> Vec<Panel> {
    vec![
        Panel::lines("Error budget burnt", Unit::Times, "How many times too fast the monthly budget of failed sends is spent: 1 lasts a month, 14.4 two days.")
            .ask("job:fastchat_send_failures:ratio_rate5m{job=~\"$job\"} / 0.001", "5 minutes")
            .ask("job:fastchat_send_failures:ratio_rate1h{job=~\"$job\"} / 0.001", "1 hour")
            .warn(6.0, 14.4),
        Panel::lines("Refused requests", Unit::PerSecond, "Requests that were not answered with ok, of all frames, by code.")
            .ask("sum by (result) (rate(fastchat_requests_total{@,result!=\"ok\"}[@]))", "{{result}}"),
        Panel::lines("Store and bus", Unit::PerSecond, "Calls of the store without an outcome, and records that the bus lost (the log has them).")
            .ask("sum by (kind) (rate(fastchat_store_errors_total{@}[@]))", "store: {{kind}}")
            .ask("sum by (reason) (rate(fastchat_bus_dropped_total{@}[@]))", "bus: {{reason}}"),
    ]
}

fn gateways() -> Vec<Panel> {
    vec![
        Panel::stack(
            "Connections by gateway",
            Unit::Count,
            "Even within the balancers' strategy; a step is a gateway that came or went.",
        )
        .ask("sum by (instance) (fastchat_connections{@})", "{{instance}}"),
        Panel::lines(
            "CPU by gateway",
            Unit::Ratio,
            "What the gateway tells balancers: of the machine, or of the process (load_scope).",
        )
        .ask("sum by (instance) (fastchat_cpu_ratio{@})", "{{instance}}")
        .warn(0.7, 0.9),
        Panel::lines(
            "Memory by gateway",
            Unit::Bytes,
            "In RAM. It grows with connections and subscriptions, not with time.",
        )
        .ask("sum by (instance) (process_resident_memory_bytes{@})", "{{instance}}"),
    ]
}

//! The bus: the servers by their exporter.

use crate::{Dashboard, Panel, Row, Unit};

pub(super) fn board() -> Dashboard {
    Dashboard {
        uid: "fastchat-nats",
        title: "FastChat / NATS",
        description: "NATS' servers, by prometheus-nats-exporter (-varz). What gateways see of the bus is at the end.",
        of: "gnatsd_varz_connections",
        rows: vec![
            Row { title: "Traffic", panels: traffic() },
            Row { title: "Load", panels: load() },
            Row { title: "As gateways see it", panels: gateways() },
        ],
    }
}

fn traffic() -> Vec<Panel> {
    vec![
        Panel::lines("Messages", Unit::PerSecond, "Into and out of the servers. Out over in is the fan-out.")
            .ask("sum(rate(gnatsd_varz_in_msgs{@}[@]))", "in")
            .ask("sum(rate(gnatsd_varz_out_msgs{@}[@]))", "out"),
        Panel::lines("Bytes", Unit::BytesPerSecond, "Payloads into and out of the servers.")
            .ask("sum(rate(gnatsd_varz_in_bytes{@}[@]))", "in")
            .ask("sum(rate(gnatsd_varz_out_bytes{@}[@]))", "out"),
        Panel::lines("Slow consumers", Unit::Count, "Clients that a server cut off because they did not read. A gateway that meets this compares all heads.")
            .ask("sum by (instance) (increase(gnatsd_varz_slow_consumers{@}[@]))", "{{instance}}")
            .warn(1.0, 1.0),
    ]
}

fn load() -> Vec<Panel> {
    vec![
        Panel::lines("Connections", Unit::Count, "Gateways, balancers and whoever watches: a handful.")
            .ask("sum by (instance) (gnatsd_varz_connections{@})", "{{instance}}"),
        Panel::lines(
            "Subscriptions",
            Unit::Count,
            "One for each account that is online on a gateway, and one for each group with a reader there.",
        )
        .ask("sum by (instance) (gnatsd_varz_subscriptions{@})", "{{instance}}"),
        Panel::lines(
            "Routes",
            Unit::Count,
            "Links to the other servers of a cluster: three servers have two each.",
        )
        .ask("sum by (instance) (gnatsd_varz_routes{@})", "{{instance}}"),
        Panel::lines("CPU", Unit::Ratio, "Of one processor.")
            .ask("sum by (instance) (gnatsd_varz_cpu{@}) / 100", "{{instance}}")
            .warn(0.7, 0.9),
        Panel::lines("Memory", Unit::Bytes, "In RAM; it grows with subscriptions.")
            .ask("sum by (instance) (gnatsd_varz_mem{@})", "{{instance}}"),
    ]
}

fn gateways() -> Vec<Panel> {
    vec![
        Panel::lines("Gateways without a bus", Unit::Count, "They serve all the same: rows arrive by head check.")
            .ask("count(fastchat_bus_up == 0) or vector(0)", "without")
            .warn(1.0, 2.0),
        Panel::lines("Round trip", Unit::Seconds, "A barrier after new subscriptions, from a gateway to its server and back.")
            .ask("histogram_quantile(0.5, sum by (le) (rate(fastchat_bus_barrier_seconds_bucket[$__rate_interval])))", "p50")
            .ask("histogram_quantile(0.99, sum by (le) (rate(fastchat_bus_barrier_seconds_bucket[$__rate_interval])))", "p99")
            .warn(0.05, 0.5),
        Panel::lines("Connected anew", Unit::Count, "Times that gateways' clients connected. After each, every connection there compares its heads.")
            .ask("sum(increase(fastchat_bus_connects_total[$__rate_interval]))", "connects"),
        Panel::lines("Records lost", Unit::PerSecond, "By reason; the log has them.")
            .ask("sum by (reason) (rate(fastchat_bus_dropped_total[$__rate_interval]))", "{{reason}}"),
    ]
}

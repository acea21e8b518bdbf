//! Where clients are sent, and on what grounds.

use crate::{Dashboard, Panel, Row, Unit};

pub(super) fn board() -> Dashboard {
    Dashboard {
        uid: "fastchat-balancer",
        title: "FastChat / Balancer",
        description: "Decisions, the reports they rest on, and how even the fleet is.",
        of: "fastchat_balancer_gateways",
        rows: vec![
            Row { title: "Decisions", panels: decisions() },
            Row { title: "The fleet as balancers see it", panels: fleet() },
            Row { title: "Sessions that move", panels: moves() },
            Row { title: "Reports", panels: reports() },
            Row { title: "Process", panels: process() },
        ],
    }
}

fn decisions() -> Vec<Panel> {
    vec![
        Panel::stack(
            "Assignments by strategy",
            Unit::PerSecond,
            "Answers to clients. Another strategy is a person's choice.",
        )
        .ask("sum by (strategy) (rate(fastchat_balancer_assignments_total{@}[@]))", "{{strategy}}"),
        Panel::lines(
            "Assignments by basis",
            Unit::PerSecond,
            "live is the usual case; full, excluded, last-known and none say that nothing better was there.",
        )
        .ask("sum by (basis) (rate(fastchat_balancer_assignments_total{@}[@]))", "{{basis}}"),
        Panel::lines("Time of a decision", Unit::Seconds, "With its tickets; microseconds.")
            .ask(
                "histogram_quantile(0.5, sum by (le) (rate(fastchat_balancer_assign_seconds_bucket{@}[@])))",
                "p50",
            )
            .ask(
                "histogram_quantile(0.99, sum by (le) (rate(fastchat_balancer_assign_seconds_bucket{@}[@])))",
                "p99",
            )
            .warn(0.001, 0.01),
        Panel::lines(
            "Strategy in force",
            Unit::Count,
            "1 for the one in force, by balancer: two balancers that differ show two lines.",
        )
        .ask("fastchat_balancer_strategy{@} == 1", "{{instance}} {{strategy}}"),
        Panel::lines(
            "Requests that were not served",
            Unit::PerSecond,
            "Unreadable ones, addresses that ask too often, sockets closed because too many were open.",
        )
        .ask("sum(rate(fastchat_balancer_bad_requests_total{@}[@]))", "unreadable")
        .ask("sum(rate(fastchat_balancer_rate_limited_total{@}[@]))", "too often")
        .ask("sum(rate(fastchat_balancer_sockets_refused_total{@}[@]))", "too many sockets"),
    ]
}

fn fleet() -> Vec<Panel> {
    vec![
        Panel::stack(
            "Gateways by state",
            Unit::Count,
            "As the first balancer sees them: live, full, draining, drained, stale, replaced.",
        )
        .ask("max by (state) (fastchat_balancer_gateways{@})", "{{state}}"),
        Panel::lines(
            "Imbalance",
            Unit::Times,
            "Max over mean of connections per capacity; 1 is even. Above 1.2 sessions should move.",
        )
        .ask("fastchat_balancer_imbalance_ratio{@}", "{{instance}}")
        .warn(1.2, 1.5),
        Panel::lines(
            "Values that are not believed",
            Unit::Count,
            "Gateways that report what cannot be: their value is left out, the gateway is still used.",
        )
        .ask("sum by (value) (fastchat_balancer_doubts{@})", "{{value}}")
        .warn(1.0, 2.0),
    ]
}

fn moves() -> Vec<Panel> {
    vec![
        Panel::stack(
            "Sessions asked to move",
            Unit::PerSecond,
            "By reason. uneven follows an added gateway; if it goes on for minutes, reports are wrong.",
        )
        .ask("sum by (reason) (rate(fastchat_balancer_moves_asked_total{@}[@]))", "{{reason}}"),
        Panel::lines(
            "Rounds of moves",
            Unit::PerSecond,
            "seen: reports showed the effect. unseen and timeout: sessions stayed, and less is asked next.",
        )
        .ask("sum by (result) (rate(fastchat_balancer_move_rounds_total{@}[@]))", "{{result}}"),
        Panel::lines(
            "Who asks for moves",
            Unit::Count,
            "1 for the one balancer that asks. Two at 1 for longer than seconds do not hear each other.",
        )
        .ask("fastchat_balancer_mover{@}", "{{instance}}"),
    ]
}

fn reports() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Reports taken",
            Unit::PerSecond,
            "Two a second for each gateway by heartbeats, one a scrape by Prometheus.",
        )
        .ask("sum by (source) (rate(fastchat_balancer_reports_total{@,result=\"ok\"}[@]))", "{{source}}"),
        Panel::lines(
            "Reports refused",
            Unit::PerSecond,
            "By reason. lost is the bus, future and old are clocks, url is a gateway's public_url.",
        )
        .ask(
            "sum by (source, result) (rate(fastchat_balancer_reports_total{@,result!=\"ok\"}[@]))",
            "{{source}} {{result}}",
        ),
        Panel::lines(
            "Oldest report",
            Unit::Seconds,
            "Of a gateway that is not out. After three silent periods a gateway is stale.",
        )
        .ask("fastchat_balancer_oldest_report_seconds{@}", "{{instance}}")
        .warn(1.5, 5.0),
        Panel::lines(
            "Sources reached",
            Unit::Count,
            "1 while the source answers; one of two is enough to decide by.",
        )
        .ask("fastchat_balancer_source_up{@}", "{{instance}} {{source}}"),
    ]
}

fn process() -> Vec<Panel> {
    vec![
        Panel::lines("CPU of the process", Unit::Count, "Processors in use, by balancer.")
            .ask("sum by (instance) (rate(process_cpu_seconds_total{@}[@]))", "{{instance}}"),
        Panel::lines("Memory", Unit::Bytes, "In RAM. A balancer keeps nothing but the last reports.")
            .ask("sum by (instance) (process_resident_memory_bytes{@})", "{{instance}}"),
        Panel::lines("Event loop's lag, p99", Unit::Seconds, "How late a timer fires.")
            .ask("histogram_quantile(0.99, sum by (le, instance) (rate(fastchat_runtime_lag_seconds_bucket{@}[@])))", "{{instance}}")
            .warn(0.05, 0.25),
    ]
}

//! The truth: Postgres, by its exporter, and by the gateways that wait for it.

use crate::{Dashboard, Panel, Row, Unit};

pub(super) fn board() -> Dashboard {
    Dashboard {
        uid: "fastchat-postgres",
        title: "FastChat / Postgres",
        description: "Postgres, by prometheus-postgres-exporter. What gateways wait for it is at the end.",
        of: "pg_up",
        rows: vec![
            Row { title: "Work", panels: work() },
            Row { title: "Trouble", panels: trouble() },
            Row { title: "As gateways see it", panels: gateways() },
        ],
    }
}

fn work() -> Vec<Panel> {
    vec![
        Panel::lines("Transactions", Unit::PerSecond, "Committed and rolled back. A commit of messages holds up to 256 of them.")
            .ask("sum(rate(pg_stat_database_xact_commit{@}[@]))", "committed")
            .ask("sum(rate(pg_stat_database_xact_rollback{@}[@]))", "rolled back"),
        Panel::lines("Rows", Unit::PerSecond, "Inserted, updated and fetched by queries.")
            .ask("sum(rate(pg_stat_database_tup_inserted{@}[@]))", "inserted")
            .ask("sum(rate(pg_stat_database_tup_updated{@}[@]))", "updated")
            .ask("sum(rate(pg_stat_database_tup_fetched{@}[@]))", "fetched"),
        Panel::lines("Found in memory", Unit::Ratio, "Blocks that were in Postgres' own cache. Live traffic is recent: below 95 % shared_buffers is too small.")
            .ask("sum(rate(pg_stat_database_blks_hit{@}[@])) / clamp_min(sum(rate(pg_stat_database_blks_hit{@}[@])) + sum(rate(pg_stat_database_blks_read{@}[@])), 0.001)", "hit")
            .warn(0.95, 0.9),
        Panel::lines("Size", Unit::Bytes, "Of each database, with its indexes.")
            .ask("sum by (datname) (pg_database_size_bytes{@})", "{{datname}}"),
    ]
}

fn trouble() -> Vec<Panel> {
    vec![
        Panel::lines("Connections by state", Unit::Count, "Of all clients. idle in transaction should be none: a gateway holds no transaction for longer than two seconds.")
            .ask("sum by (state) (pg_stat_activity_count{@})", "{{state}}"),
        Panel::lines("Connections of the limit", Unit::Ratio, "Each gateway takes at most 12.")
            .ask("sum(pg_stat_activity_count{@}) / sum(pg_settings_max_connections{@})", "used")
            .warn(0.7, 0.9),
        Panel::lines("Longest transaction", Unit::Seconds, "It holds back vacuum, and perhaps locks.")
            .ask("max(pg_stat_activity_max_tx_duration{@})", "seconds")
            .warn(5.0, 60.0),
        Panel::lines("Locks", Unit::Count, "Held or waited for, by mode.")
            .ask("sum by (mode) (pg_locks_count{@})", "{{mode}}"),
        Panel::lines("Deadlocks and conflicts", Unit::PerSecond, "Locks are taken in one order, so that deadlocks are a fault.")
            .ask("sum(rate(pg_stat_database_deadlocks{@}[@]))", "deadlocks")
            .ask("sum(rate(pg_stat_database_conflicts{@}[@]))", "conflicts"),
        Panel::lines("Written to temporary files", Unit::BytesPerSecond, "Sorts that did not fit into work_mem: no query of the gateways should.")
            .ask("sum(rate(pg_stat_database_temp_bytes{@}[@]))", "bytes"),
    ]
}

fn gateways() -> Vec<Panel> {
    vec![
        Panel::lines("Gateways that reach it", Unit::Count, "One ping every five seconds each.")
            .ask("sum(fastchat_store_up)", "gateways"),
        Panel::lines("Calls", Unit::Seconds, "The 99th of 100, by kind, without the wait for a connection.")
            .ask("histogram_quantile(0.99, sum by (le, kind) (rate(fastchat_store_call_seconds_bucket[$__rate_interval])))", "{{kind}}")
            .warn(0.1, 1.0),
        Panel::lines("Calls without an outcome", Unit::PerSecond, "unavailable: nothing was stored. unknown: perhaps; the sender asks again under the same id.")
            .ask("sum by (kind) (rate(fastchat_store_errors_total[$__rate_interval]))", "{{kind}}")
            .warn(0.1, 1.0),
    ]
}

//! A message's way, stage by stage, and what makes up for a lost hint.

use crate::{Dashboard, Panel, Row, Unit};

pub(super) fn board() -> Dashboard {
    Dashboard {
        uid: "fastchat-delivery",
        title: "FastChat / Delivery",
        description: "A message's way from its sender to the sockets of its readers, and what brings it where a live copy was lost.",
        of: "fastchat_connections",
        rows: vec![
            Row { title: "Stages", panels: stages() },
            Row { title: "Writing", panels: writing() },
            Row { title: "Fan-out", panels: fan_out() },
            Row { title: "Catching up", panels: catching_up() },
        ],
    }
}

fn stages() -> Vec<Panel> {
    vec![
        Panel::lines("Stages, p50", Unit::Seconds, "commit: accepted to committed. publish: to all queues. bus: to NATS' client. socket: queued to written.")
            .ask("histogram_quantile(0.5, sum by (le, stage) (rate(fastchat_delivery_stage_seconds_bucket{@}[@])))", "{{stage}}"),
        Panel::lines("Stages, p99", Unit::Seconds, "The same, of the slow ones. The stage that stands out is the one to look at.")
            .ask("histogram_quantile(0.99, sum by (le, stage) (rate(fastchat_delivery_stage_seconds_bucket{@}[@])))", "{{stage}}")
            .warn(0.25, 1.0),
        Panel::heat("From queue to socket, all of it", Unit::Seconds, "How long live copies wait for their reader. A band at the top is readers on bad networks.")
            .ask("sum by (le) (increase(fastchat_delivery_stage_seconds_bucket{@,stage=\"socket\"}[@]))", "{{le}}"),
    ]
}

fn writing() -> Vec<Panel> {
    vec![
        Panel::lines("Messages committed together", Unit::Count, "Batches form by themselves when senders are faster than commits, and wait a moment for more where many come; 512 is the most.")
            .ask("sum(rate(fastchat_writer_batch_size_sum{@}[@])) / clamp_min(sum(rate(fastchat_writer_batch_size_count{@}[@])), 0.001)", "mean")
            .ask("histogram_quantile(0.99, sum by (le) (rate(fastchat_writer_batch_size_bucket{@}[@])))", "p99"),
        Panel::lines("One commit", Unit::Seconds, "From the store's call to its answer, for a batch of whatever size.")
            .ask("histogram_quantile(0.5, sum by (le) (rate(fastchat_writer_commit_seconds_bucket{@}[@])))", "p50")
            .ask("histogram_quantile(0.99, sum by (le) (rate(fastchat_writer_commit_seconds_bucket{@}[@])))", "p99")
            .warn(0.1, 0.5),
        Panel::lines("Retries and refusals", Unit::PerSecond, "Messages that were sent again after all had gone well (an ack was lost), envelopes without room, batches taken apart.")
            .ask("sum(rate(fastchat_duplicates_total{@}[@]))", "sent again")
            .ask("sum(rate(fastchat_writer_refused_total{@}[@]))", "no room")
            .ask("sum(rate(fastchat_writer_split_total{@}[@]))", "taken apart"),
        Panel::lines("Store calls, p99", Unit::Seconds, "All calls of the gateways, by kind.")
            .ask("histogram_quantile(0.99, sum by (le, kind) (rate(fastchat_store_call_seconds_bucket{@}[@])))", "{{kind}}")
            .warn(0.1, 1.0),
        Panel::lines("Store's ping", Unit::Seconds, "The smallest question, every five seconds: network and server without our work.")
            .ask("histogram_quantile(0.95, sum by (le, instance) (rate(fastchat_store_ping_seconds_bucket{@}[1m])))", "{{instance}}")
            .warn(0.05, 0.5),
    ]
}

fn fan_out() -> Vec<Panel> {
    vec![
        Panel::lines("Readers of a row here", Unit::Count, "Connections of one gateway that one row was for. Groups make it grow; the bus carries one record all the same.")
            .ask("histogram_quantile(0.5, sum by (le) (rate(fastchat_fanout_size_bucket{@}[@])))", "p50")
            .ask("histogram_quantile(0.99, sum by (le) (rate(fastchat_fanout_size_bucket{@}[@])))", "p99"),
        Panel::stack("Records of other gateways", Unit::PerSecond, "What came by the bus, by kind.")
            .ask("sum by (kind) (rate(fastchat_bus_records_total{@}[@]))", "{{kind}}"),
        Panel::lines("Live copies dropped", Unit::PerSecond, "The reader was too slow: it reads the log instead. Nothing is lost.")
            .ask("sum(rate(fastchat_deliveries_total{@,result=\"dropped\"}[@]))", "dropped"),
        Panel::lines("Groups: ranges read", Unit::PerSecond, "Questions who may read which rows of a group, and rows that waited for the answer.")
            .ask("sum by (result) (rate(fastchat_group_reloads_total{@}[@]))", "asked: {{result}}")
            .ask("sum by (result) (rate(fastchat_group_rows_held_total{@}[@]))", "rows: {{result}}"),
    ]
}

fn catching_up() -> Vec<Panel> {
    vec![
        Panel::lines("Connections told to compare heads", Unit::PerSecond, "By reason: the bus came back, was too fast, or the reader was slow.")
            .ask("sum by (reason) (rate(fastchat_resyncs_total{@}[@]))", "{{reason}}"),
        Panel::lines("Repairs by head check", Unit::PerSecond, "Connections that heard of a row from a head check only. Steadily above zero: the bus loses records.")
            .ask("sum(rate(fastchat_head_check_repairs_total{@}[@]))", "repairs")
            .warn(1.0, 10.0),
        Panel::lines("Head checks", Unit::Seconds, "One question a gateway and interval, whatever the number of devices.")
            .ask("histogram_quantile(0.99, sum by (le) (rate(fastchat_head_check_seconds_bucket{@}[@])))", "p99")
            .warn(0.25, 1.0),
        Panel::lines("Pending rows", Unit::Count, "What lay after a device's cursors when it came: offline queues are nothing else.")
            .ask("histogram_quantile(0.5, sum by (le) (rate(fastchat_pending_size_bucket{@}[@])))", "p50")
            .ask("histogram_quantile(0.99, sum by (le) (rate(fastchat_pending_size_bucket{@}[@])))", "p99"),
        Panel::lines("Age of what is fetched", Unit::Seconds, "The oldest row of each page read from the log. Small: live copies were missed. Large: devices that were away.")
            .ask("histogram_quantile(0.5, sum by (le) (rate(fastchat_pending_age_seconds_bucket{@}[@])))", "p50")
            .ask("histogram_quantile(0.99, sum by (le) (rate(fastchat_pending_age_seconds_bucket{@}[@])))", "p99"),
        Panel::lines("Cursors stored", Unit::PerSecond, "Acks of devices that the store took. Waiting ones are batched for 0.2 s.")
            .ask("sum(rate(fastchat_cursors_stored_total{@}[@]))", "stored")
            .ask("sum(rate(fastchat_cursor_flushes_total{@,result=\"failed\"}[@]))", "flushes failed"),
    ]
}

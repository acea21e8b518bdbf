//! What gateways know of clients: who they are is not in any metric.

use crate::{Dashboard, Panel, Row, Unit};

pub(super) fn board() -> Dashboard {
    Dashboard {
        uid: "fastchat-clients",
        title: "FastChat / Clients",
        description: "What clients do and how well they are served, as gateways see it. No metric names a person.",
        of: "fastchat_connections",
        rows: vec![
            Row { title: "Coming and going", panels: coming() },
            Row { title: "What they ask", panels: asking() },
            Row { title: "What they wait for", panels: waiting() },
        ],
    }
}

fn coming() -> Vec<Panel> {
    vec![
        Panel::lines("Devices online", Unit::Count, "Connections with a session.")
            .ask("sum(fastchat_connections{@})", "devices"),
        Panel::lines("New accounts, logins, resumes", Unit::PerSecond, "Proofs that were good.")
            .ask("sum by (kind) (rate(fastchat_sessions_total{@,result=\"ok\"}[@]))", "{{kind}}"),
        Panel::lines("Linking and recovering", Unit::Count, "Sessions that proved a password or a recovery code and no device.")
            .ask("sum(fastchat_sockets{@,state=\"guest\"})", "guests"),
        Panel::lines("Lost connections", Unit::PerSecond, "Not by the client's wish: broken sockets, silence, slow readers. A wave is somebody's network.")
            .ask("sum by (reason) (rate(fastchat_connections_ended_total{@,reason=~\"socket_error|timed_out|slow_reader|client_left\"}[@]))", "{{reason}}"),
        Panel::lines("Clients that were refused", Unit::PerSecond, "Before they had a session: wrong password, too often, full, no ticket.")
            .ask("sum by (reason) (rate(fastchat_connections_ended_total{@,reason=~\"bad_credentials|rate_limited|gateway_full|ticket_needed|too_many_opening\"}[@]))", "{{reason}}"),
        Panel::lines("Tickets", Unit::PerSecond, "Of balancers, by what became of them; only where gateways know balancers' keys.")
            .ask("sum by (result) (rate(fastchat_tickets_total{@}[@]))", "{{result}}"),
    ]
}

fn asking() -> Vec<Panel> {
    vec![
        Panel::stack("Requests by frame", Unit::PerSecond, "The ten most frequent.")
            .ask("topk(10, sum by (frame) (rate(fastchat_requests_total{@}[@])))", "{{frame}}"),
        Panel::lines("Messages for each device", Unit::PerSecond, "Accepted messages over devices online.")
            .ask("sum(rate(fastchat_requests_total{@,frame=\"Send\",result=\"ok\"}[@])) / clamp_min(sum(fastchat_connections{@}), 1)", "messages"),
        Panel::lines("Groups heard", Unit::Count, "Groups with a reader, counted on each gateway where they have one.")
            .ask("sum(fastchat_groups{@})", "groups"),
    ]
}

fn waiting() -> Vec<Panel> {
    vec![
        Panel::lines("Answer to a message", Unit::Seconds, "Network excluded: from arrival at the gateway to the answer.")
            .ask("histogram_quantile(0.5, sum by (le) (rate(fastchat_request_seconds_bucket{@,class=\"send\"}[@])))", "p50")
            .ask("histogram_quantile(0.99, sum by (le) (rate(fastchat_request_seconds_bucket{@,class=\"send\"}[@])))", "p99")
            .warn(0.25, 0.5),
        Panel::lines("Reading the log", Unit::Seconds, "Pages of history, and what was missed.")
            .ask("histogram_quantile(0.5, sum by (le) (rate(fastchat_request_seconds_bucket{@,class=\"log\"}[@])))", "p50")
            .ask("histogram_quantile(0.99, sum by (le) (rate(fastchat_request_seconds_bucket{@,class=\"log\"}[@])))", "p99")
            .warn(0.25, 1.0),
        Panel::lines("Messages sent again", Unit::Ratio, "Share of messages that had been stored: their senders had not heard the answer.")
            .ask("sum(rate(fastchat_duplicates_total{@}[@])) / clamp_min(sum(rate(fastchat_requests_total{@,frame=\"Send\"}[@])), 0.001)", "again")
            .warn(0.01, 0.1),
    ]
}

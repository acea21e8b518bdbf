//! Every metric of the balancer: name, help, unit. Labels are few and never name a client.

use crate::{
    fleet::{Doubt, Source, State, View},
    mover::{Ended, Reason},
    strategy::Strategy,
};
use fastchat_telemetry::{Buckets, Label, Metric};
use metrics::{Unit, counter, gauge, histogram};
use std::time::Duration;

/// What the balancer measures; `process_*` and `fastchat_runtime_*` come with every program.
pub const CATALOGUE: &[Metric] = &[
    Metric::gauge("fastchat_balancer_info", "1; the labels say what runs.")
        .by(&[Label::within("version", "one a process")]),
    Metric::counter(
        "fastchat_balancer_assignments_total",
        "Answers to clients, by strategy and by which gateways were candidates; none: nobody could be named.",
    )
    .by(&[
        Label::these("strategy", STRATEGIES),
        Label::these("basis", &["live", "full", "excluded", "last-known", "none"]),
    ]),
    Metric::seconds("fastchat_balancer_assign_seconds", "One decision, with its tickets."),
    Metric::gauge("fastchat_balancer_strategy", "1 for the strategy in force, 0 for others.")
        .by(&[Label::these("strategy", STRATEGIES)]),
    Metric::gauge("fastchat_balancer_gateways", "Gateways known, by state.")
        .by(&[Label::these("state", &["live", "full", "draining", "drained", "stale", "replaced"])]),
    Metric::gauge(
        "fastchat_balancer_imbalance_ratio",
        "Max/mean of connections per capacity over live gateways; 1 is even.",
    ),
    Metric::gauge(
        "fastchat_balancer_oldest_report_seconds",
        "Age of what is known of the gateway that was not heard for longest, of those that are not out.",
    )
    .in_unit(Unit::Seconds),
    Metric::counter(
        "fastchat_balancer_reports_total",
        "Reports of gateways, by source; result says whether it was taken, and if not, why.",
    )
    .by(&[
        Label::these("source", &["heartbeat", "prometheus"]),
        Label::these(
            "result",
            &["ok", "url", "future", "old", "too_many", "malformed", "lost", "unreachable"],
        ),
    ]),
    Metric::gauge("fastchat_balancer_doubts", "Gateways of which a value is not believed, by value.")
        .by(&[Label::these("value", &["connections", "capacity", "cpu", "draining", "frozen", "clock"])])
        .only_when("a gateway says what cannot be"),
    Metric::gauge("fastchat_balancer_source_up", "1 while a source of load is reached.")
        .by(&[Label::these("source", &["heartbeat", "prometheus"])]),
    Metric::counter("fastchat_balancer_bad_requests_total", "Requests that could not be read.")
        .only_when("somebody sends what is no request"),
    Metric::counter(
        "fastchat_balancer_sockets_refused_total",
        "Sockets of clients that were closed at once because too many are open.",
    )
    .only_when("too many sockets are open"),
    Metric::counter(
        "fastchat_balancer_rate_limited_total",
        "Requests that were refused because too many came from one address.",
    )
    .only_when("an address asks too often"),
    Metric::gauge(
        "fastchat_balancer_mover",
        "1 while this balancer is the one that asks gateways to move sessions.",
    ),
    Metric::counter(
        "fastchat_balancer_moves_asked_total",
        "Sessions that gateways were asked to move, by reason.",
    )
    .by(&[Label::these("reason", &["drain", "full", "hot", "uneven"])])
    .only_when("a gateway is added, overloaded or emptied"),
    Metric::counter(
        "fastchat_balancer_move_rounds_total",
        "Rounds of moves that are over, by whether reports showed the effect in time.",
    )
    .by(&[Label::these("result", &["seen", "unseen", "timeout"])])
    .only_when("a gateway is added, overloaded or emptied"),
];

const STRATEGIES: &[&str] = &["random", "round-robin", "least-connections", "min-load", "weighted", "p2c"];

/// Bounds of histograms.
pub const BUCKETS: &[Buckets] = &[
    // A decision takes microseconds; a millisecond is worth a look.
    Buckets {
        of: "fastchat_balancer_assign_seconds",
        bounds: &[1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2, 0.1],
    },
    Buckets {
        of: "_seconds",
        bounds: &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5],
    },
];

/// What runs.
pub fn running() {
    gauge!("fastchat_balancer_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// A client was answered.
pub(crate) fn assigned(strategy: Strategy, basis: &'static str, took: Duration) {
    counter!("fastchat_balancer_assignments_total", "strategy" => strategy.label(), "basis" => basis)
        .increment(1);
    histogram!("fastchat_balancer_assign_seconds").record(took);
}

/// A request could not be read.
pub(crate) fn bad_request() {
    counter!("fastchat_balancer_bad_requests_total").increment(1);
}

/// A socket was closed because there are too many.
pub(crate) fn socket_refused() {
    counter!("fastchat_balancer_sockets_refused_total").increment(1);
}

/// What answers that name nobody are counted under.
pub(crate) const NO_BASIS: &str = "none";

/// Too many requests came from one address.
pub(crate) fn rate_limited() {
    counter!("fastchat_balancer_rate_limited_total").increment(1);
}

/// Whether this balancer is the one that asks for moves.
pub(crate) fn mover(leads: bool) {
    gauge!("fastchat_balancer_mover").set(if leads { 1.0 } else { 0.0 });
}

/// A gateway was asked to move sessions.
pub(crate) fn moves_asked(reason: Reason, sessions: u64) {
    counter!("fastchat_balancer_moves_asked_total", "reason" => reason.label()).increment(sessions);
}

/// A round of moves is over.
pub(crate) fn round(ended: Ended) {
    counter!("fastchat_balancer_move_rounds_total", "result" => ended.label()).increment(1);
}

/// The strategy in force.
pub(crate) fn strategy(now: Strategy) {
    for strategy in Strategy::ALL {
        let value = if strategy == now { 1.0 } else { 0.0 };
        gauge!("fastchat_balancer_strategy", "strategy" => strategy.label()).set(value);
    }
}

/// A report arrived.
pub(crate) fn report(source: Source, result: &'static str) {
    counter!("fastchat_balancer_reports_total", "source" => source.label(), "result" => result).increment(1);
}

/// A source is reached, or not.
pub(crate) fn source_up(source: Source, up: bool) {
    gauge!("fastchat_balancer_source_up", "source" => source.label()).set(if up { 1.0 } else { 0.0 });
}

/// How the fleet stands.
pub(crate) fn fleet(views: &[View]) {
    for state in State::ALL {
        let count = views.iter().filter(|view| view.state == state).count();
        gauge!("fastchat_balancer_gateways", "state" => state.label()).set(count as f64);
    }
    for doubt in Doubt::ALL {
        let count = views.iter().filter(|view| view.doubts.contains(&doubt)).count();
        gauge!("fastchat_balancer_doubts", "value" => doubt.label()).set(count as f64);
    }
    let heard = views.iter().filter(|view| matches!(view.state, State::Live | State::Full | State::Draining));
    let oldest = heard.map(|view| view.age_ms).max().unwrap_or(0);
    gauge!("fastchat_balancer_oldest_report_seconds").set(oldest as f64 / 1000.0);
    let live = views.iter().filter(|view| matches!(view.state, State::Live | State::Full));
    let loads: Vec<f64> = live.filter_map(View::utilisation).collect();
    let mean = loads.iter().sum::<f64>() / loads.len().max(1) as f64;
    let most = loads.iter().copied().fold(0.0, f64::max);
    gauge!("fastchat_balancer_imbalance_ratio").set(if mean > 0.0 { most / mean } else { 1.0 });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dispatch::Basis, fleet::Refused};
    use fastchat_telemetry::Values;

    /// The catalogue says what the code says: a label's value that it does not know would begin unseen.
    #[test]
    fn the_catalogue_has_every_value_of_every_label() {
        let listed = |name: &str, label: &str| {
            let metric = CATALOGUE.iter().find(|metric| metric.name == name).expect(name);
            let label = metric.labels.iter().find(|found| found.name == label).expect(label);
            let Values::These(values) = label.values else { panic!("{name}: values are not listed") };
            values.to_vec()
        };
        let mut results = Refused::ALL.map(Refused::label).to_vec();
        results.extend(["ok", "malformed", "lost", "unreachable"]);
        let mut bases = Basis::ALL.map(Basis::label).to_vec();
        bases.push(NO_BASIS);
        for (name, label, mut values) in [
            ("assignments_total", "strategy", Strategy::ALL.map(Strategy::label).to_vec()),
            ("assignments_total", "basis", bases),
            ("gateways", "state", State::ALL.map(State::label).to_vec()),
            ("doubts", "value", Doubt::ALL.map(Doubt::label).to_vec()),
            ("reports_total", "result", results),
            ("reports_total", "source", Source::ALL.map(Source::label).to_vec()),
            ("moves_asked_total", "reason", Reason::ALL.map(Reason::label).to_vec()),
            ("move_rounds_total", "result", Ended::ALL.map(Ended::label).to_vec()),
        ] {
            let mut listed = listed(&format!("fastchat_balancer_{name}"), label);
            listed.sort_unstable();
            values.sort_unstable();
            assert_eq!(listed, values, "{name}");
        }
    }
}

//! Every metric of the balancer: name, help, unit. Labels are few and never name a client.

use crate::{
    fleet::{Doubt, Source, State, View},
    strategy::Strategy,
};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::Duration;

/// Describes all metrics to the recorder.
pub fn describe() {
    describe_counter!(
        "fastchat_balancer_assignments_total",
        Unit::Count,
        "Answers to clients, by strategy and by which gateways were candidates; none: nobody could be named."
    );
    describe_histogram!("fastchat_balancer_assign_seconds", Unit::Seconds, "One decision, with its tickets.");
    describe_gauge!("fastchat_balancer_strategy", Unit::Count, "1 for the strategy in force, 0 for others.");
    describe_gauge!("fastchat_balancer_gateways", Unit::Count, "Gateways known, by state.");
    describe_gauge!(
        "fastchat_balancer_imbalance_ratio",
        Unit::Count,
        "Max/mean of connections per capacity over live gateways; 1 is even."
    );
    describe_gauge!(
        "fastchat_balancer_oldest_report_seconds",
        Unit::Seconds,
        "Age of what is known of the gateway that was not heard for longest, of those that are not out."
    );
    describe_counter!(
        "fastchat_balancer_reports_total",
        Unit::Count,
        "Reports of gateways, by source; result says whether it was taken, and if not, why."
    );
    describe_gauge!(
        "fastchat_balancer_doubts",
        Unit::Count,
        "Gateways of which a value is not believed, by value."
    );
    describe_gauge!("fastchat_balancer_source_up", Unit::Count, "1 while a source of load is reached.");
    describe_counter!(
        "fastchat_balancer_bad_requests_total",
        Unit::Count,
        "Requests that could not be read."
    );
    describe_counter!(
        "fastchat_balancer_sockets_refused_total",
        Unit::Count,
        "Sockets of clients that were closed at once because too many are open."
    );
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

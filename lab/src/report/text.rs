//! A run for a terminal.

use crate::figures::{Figures, Percentiles};
use std::fmt::Write;

/// A few lines; what was wrong comes first.
pub fn text(run: &Figures) -> String {
    let (experiment, load) = (&run.experiment, &run.experiment.load);
    let mut text = format!(
        "{}: {} clients, {}, {} B{}, {} at {}/s\n",
        run.target,
        experiment.clients,
        experiment.pattern,
        load.size,
        if experiment.seal { " sealed" } else { "" },
        load.arrivals,
        load.rate
    );
    for (word, lines) in
        [("BROKEN", &run.verdict.broken), ("VOID", &run.verdict.void), ("note", &run.verdict.notes)]
    {
        for line in lines {
            let _ = writeln!(text, "  {word}: {line}");
        }
    }
    let counts = &run.counts;
    let _ = writeln!(
        text,
        "  sent {}  acknowledged {} ({:.0}/s)  delivered {} of {} ({:.0}/s)",
        counts.sent, counts.acked, run.acked_per_s, counts.delivered, counts.expected, run.delivered_per_s
    );
    if counts.reconnected > 0 {
        let _ = writeln!(text, "  {} times a client came back", counts.reconnected);
    }
    for (name, of) in
        [("ack      ", &run.acked_us), ("delivered", &run.delivered_us), ("sent late", &run.lag_us)]
    {
        let Percentiles { p50, p90, p99, p999, max, count } = *of;
        if count == 0 {
            continue;
        }
        let _ = writeln!(text, "  {name}  p50 {p50} us  p90 {p90}  p99 {p99}  p99.9 {p999}  max {max}");
    }
    for line in super::files(run).into_iter().chain(super::floors(run)) {
        let _ = writeln!(text, "  {line}");
    }
    for (name, cost) in &run.components {
        let mib = cost.rss_bytes as f64 / f64::from(1 << 20);
        let (cpu, cores) = (cost.cpu_us_per_message, cost.cores);
        let _ = writeln!(text, "  {name:10} {cpu:7.1} us/message  {cores:.2} cores  {mib:.0} MiB");
    }
    let priority = run.machine.driver_priority;
    let _ = match (run.server_cpu_us_per_message, run.server_cpu_us_per_delivery) {
        (Some(message), Some(delivery)) => write!(
            text,
            "  servers    {message:7.1} us/message, {delivery:.1} us/delivery; the driver used {:.0} % of all \
             and went {priority}",
            run.driver_share * 100.0,
        ),
        _ => write!(text, "  servers    not measured; the driver went {priority}"),
    };
    text
}

//! One page for all runs: what was measured, of what, and whether it may be believed.

use super::{
    axes::{Along, who},
    plot::{Series, draw, linear, logarithmic},
};
use crate::figures::{Figures, Percentiles};
use anyhow::Result;
use std::fmt::Write;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;\
color:#222}table{border-collapse:collapse;font-size:13px}td,th{padding:3px 9px;border-bottom:1px solid #ddd;\
text-align:right}td:first-child,th:first-child{text-align:left}.bad{color:#b00020;font-weight:600}.void{color:\
#a05a00;font-weight:600}.ok{color:#1b6e2e}details{margin:1em 0}svg{max-width:100%}code{background:#f4f4f4}";

pub(super) fn page(title: &str, runs: &[Figures], along: &[Along]) -> Result<String> {
    let mut page = String::new();
    let title = escape(title);
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\
         <h1>{title}</h1>"
    );
    if let Some(run) = runs.first() {
        let machine = &run.machine;
        let _ = write!(
            page,
            "<p>{} cores ({}), {} GiB, Linux {}. Clients, servers and this driver share the cores. Latency \
             counts from the moment a message was due. Times in milliseconds unless said otherwise.</p>",
            machine.cores,
            escape(&machine.processor),
            machine.memory_bytes >> 30,
            escape(&machine.kernel),
        );
    }
    for Along { name, pictures } in along {
        let _ = write!(page, "<h2>Over the {}</h2>", name.replace('-', " "));
        page.extend(pictures.iter().map(String::as_str));
    }
    summary(&mut page, runs);
    for (number, run) in runs.iter().enumerate() {
        one(&mut page, number, run)?;
    }
    page.push_str("</html>\n");
    Ok(page)
}

fn summary(page: &mut String, runs: &[Figures]) {
    page.push_str(
        "<h2>All runs</h2><table><tr><th>target<th>who<th>arrivals<th>bytes<th>offered /s<th>acked /s\
         <th>delivered /s<th>ack p50<th>ack p99<th>delivered p50<th>delivered p99<th>server CPU us/message\
         <th>driver<th>verdict</tr>",
    );
    for run in runs {
        let (load, acked, delivered) = (&run.experiment.load, &run.acked_us, &run.delivered_us);
        let offered = match load.window {
            Some(window) => format!("window {window}"),
            None => format!("{}", load.rate),
        };
        let _ = write!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{offered}<td>{:.0}<td>{:.0}<td>{}<td>{}<td>{}<td>{}<td>{}\
             <td>{:.0} %<td>{}</tr>",
            escape(&run.target),
            who(run),
            load.arrivals,
            load.size,
            run.acked_per_s,
            run.delivered_per_s,
            told(acked, acked.p50),
            told(acked, acked.p99),
            told(delivered, delivered.p50),
            told(delivered, delivered.p99),
            run.server_cpu_us_per_message.map_or_else(|| "not measured".to_owned(), |us| format!("{us:.0}")),
            run.driver_share * 100.0,
            verdict(run),
        );
    }
    page.push_str("</table>");
}

fn verdict(run: &Figures) -> String {
    match (run.verdict.broken.is_empty(), run.verdict.void.is_empty()) {
        (false, _) => {
            let why = escape(&run.verdict.broken.join("; "));
            format!("<span class=\"bad\" title=\"{why}\">broken</span>")
        }
        (true, false) => {
            let why = escape(&run.verdict.void.join("; "));
            format!("<span class=\"void\" title=\"{why}\">void</span>")
        }
        (true, true) => "<span class=\"ok\">sound</span>".to_owned(),
    }
}

fn one(page: &mut String, number: usize, run: &Figures) -> Result<()> {
    let _ = write!(
        page,
        "<details{}><summary>Run {}: {}, {}, {} B</summary>",
        if number == 0 { " open" } else { "" },
        number + 1,
        escape(&run.target),
        who(run),
        run.experiment.load.size,
    );
    let _ = write!(page, "<p>{}</p>", verdict(run));
    list(page, run.verdict.broken.iter().chain(&run.verdict.void).map(String::as_str));
    list(page, run.verdict.notes.iter().map(String::as_str));
    percentiles(page, run);
    list(page, super::files(run).iter().map(String::as_str));
    list(page, super::floors(run).iter().map(String::as_str));
    costs(page, run);
    let settings: Vec<String> = run.about.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    list(page, settings.iter().map(String::as_str));
    pictures(page, run)?;
    page.push_str("</details>");
    Ok(())
}

fn list<'a>(page: &mut String, lines: impl Iterator<Item = &'a str>) {
    page.push_str("<ul>");
    for line in lines {
        let _ = write!(page, "<li>{}</li>", escape(line));
    }
    page.push_str("</ul>");
}

fn percentiles(page: &mut String, run: &Figures) {
    page.push_str("<table><tr><th><th>count<th>p50<th>p90<th>p99<th>p99.9<th>max</tr>");
    for (name, of) in [
        ("sent late", &run.lag_us),
        ("until acknowledged", &run.acked_us),
        ("until delivered", &run.delivered_us),
    ] {
        let Percentiles { p50, p90, p99, p999, max, count } = *of;
        let _ = write!(page, "<tr><td>{name}<td>{count}");
        for us in [p50, p90, p99, p999, max] {
            let _ = write!(page, "<td>{}", told(of, us));
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>");
}

fn costs(page: &mut String, run: &Figures) {
    page.push_str("<table><tr><th>component<th>CPU us/message<th>cores<th>resident MiB</tr>");
    for (name, cost) in &run.components {
        let _ = write!(
            page,
            "<tr><td>{}<td>{:.1}<td>{:.2}<td>{:.1}</tr>",
            escape(name),
            cost.cpu_us_per_message,
            cost.cores,
            cost.rss_bytes as f64 / f64::from(1 << 20)
        );
    }
    page.push_str("</table>");
}

fn pictures(page: &mut String, run: &Figures) -> Result<()> {
    let over = |of: fn(&crate::figures::Moment) -> f64| -> Vec<(f64, f64)> {
        run.seconds.iter().map(|moment| (moment.second as f64, of(moment))).collect()
    };
    let late = |points: Vec<(f64, f64)>| points.into_iter().filter(|point| point.1 > 0.0).collect::<Vec<_>>();
    let latencies = [
        Series::line("p50", late(over(|moment| moment.p50_us as f64 / 1e3))),
        Series::line("p99", late(over(|moment| moment.p99_us as f64 / 1e3))),
    ];
    let flow = [
        Series::line("in", over(|moment| moment.sent as f64)),
        Series::line("out", over(|moment| moment.delivered as f64)),
    ];
    let by_number = |some: &[(u64, u64, u64)]| {
        some.iter()
            .map(|(number, _, after)| (*number as f64, (*after as f64 / 1e3).max(0.001)))
            .collect::<Vec<_>>()
    };
    let cloud = [
        Series::dots("acknowledged", by_number(&run.acks)),
        Series::dots("delivered", by_number(&run.deliveries)),
    ];
    page.push_str(&draw("Latency until delivered, over time", linear("s"), logarithmic("ms"), &latencies)?);
    page.push_str(&draw("Messages in, deliveries out", linear("s"), linear("per second"), &flow)?);
    page.push_str(&draw("Latency by message number", linear("message"), logarithmic("ms"), &cloud)?);
    Ok(())
}

/// One of these percentiles in milliseconds, if there was anything to measure.
fn told(all: &Percentiles, us: u64) -> String {
    match us {
        _ if all.count == 0 => "-".to_owned(),
        ..10_000 => format!("{:.2}", us as f64 / 1e3),
        _ => format!("{:.0}", us as f64 / 1e3),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

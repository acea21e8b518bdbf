//! What programs measure, held against what they say that they measure.

use crate::scene::Scene;
use anyhow::{Context, Result, bail};
use fastchat_telemetry::{EVENT_LOOP, Kind, Metric, PROCESS, Values};
use std::collections::{BTreeMap, BTreeSet};

/// A name: its kind, and each of its series with labels and value.
#[derive(Debug, Default)]
struct Scraped {
    kinds: BTreeMap<String, String>,
    help: BTreeSet<String>,
    series: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// Both programs: every metric that is there is declared, and every declared one is there and moved.
pub(crate) async fn check(scene: &mut Scene) -> Result<()> {
    let mut pages = Vec::new();
    for n in 0..2 {
        pages.push(scene.cluster.gateway(n).admin("/metrics").await?.1);
    }
    let gateway: Vec<_> = all(fastchat_gateway::metrics::CATALOGUE);
    let balancer: Vec<_> = all(fastchat_balancer::metrics::CATALOGUE);
    let mut wrong = faults(&gateway, &parse(&pages.concat())?);
    let page = crate::exporters::get(&scene.balancer.admin, "/metrics").await?;
    wrong.extend(faults(&balancer, &parse(&page)?));
    if wrong.is_empty() { Ok(()) } else { bail!("{} faults:\n{}", wrong.len(), wrong.join("\n")) }
}

fn all(own: &'static [Metric]) -> Vec<Metric> {
    own.iter().chain(PROCESS).chain(EVENT_LOOP).copied().collect()
}

fn faults(catalogue: &[Metric], scraped: &Scraped) -> Vec<String> {
    let mut wrong = Vec::new();
    for name in scraped.kinds.keys() {
        if !catalogue.iter().any(|metric| metric.name == name) {
            wrong.push(format!("{name} is measured, and in no catalogue"));
        }
    }
    for metric in catalogue {
        let mut said = |problem: String| wrong.push(format!("{}: {problem}", metric.name));
        named(metric).into_iter().for_each(&mut said);
        let series: Vec<_> = scraped.series.iter().filter(|(name, ..)| belongs(name, metric)).collect();
        match scraped.kinds.get(metric.name) {
            None => said("does not appear".into()),
            Some(kind) if *kind != format!("{:?}", metric.kind).to_lowercase() => {
                said(format!("is a {kind}"))
            }
            Some(_) => {}
        }
        if !scraped.help.contains(metric.name) {
            said("has no help".into());
        }
        for (_, labels, _) in &series {
            labelled(metric, labels).into_iter().for_each(&mut said);
        }
        // A gauge may be at rest; what counts has counted, unless something must go wrong for it.
        let moved = series.iter().any(|(name, _, value)| *value > 0.0 && !name.ends_with("_bucket"));
        if metric.kind != Kind::Gauge && metric.only_when.is_none() && !moved {
            said("never moved".into());
        }
    }
    wrong
}

/// Prometheus' conventions for names.
fn named(metric: &Metric) -> Vec<String> {
    let Metric { name, kind, unit, help, .. } = metric;
    let mut wrong = Vec::new();
    let ends = |suffix: &str| name.ends_with(suffix);
    if !name.starts_with("fastchat_") && !PROCESS.iter().any(|process| process.name == *name) {
        wrong.push("does not begin with fastchat_".into());
    }
    if (*kind == Kind::Counter) != ends("_total") {
        wrong.push("counters end in _total, and nothing else does".into());
    }
    let base = name.trim_end_matches("_total");
    let seconds = base.ends_with("_seconds") == (*unit == metrics::Unit::Seconds);
    if !seconds || base.ends_with("_bytes") != (*unit == metrics::Unit::Bytes) {
        wrong.push("the unit is not its suffix".into());
    }
    if *kind == Kind::Histogram && !ends("_seconds") && !ends("_size") && !ends("_bytes") {
        wrong.push("a histogram of what?".into());
    }
    if ["_milliseconds", "_ms", "_percent", "_kb"].iter().any(|suffix| base.ends_with(suffix)) {
        wrong.push("is not in a base unit".into());
    }
    if !help.ends_with('.') || help.len() < 15 {
        wrong.push(format!("help that helps nobody: {help:?}"));
    }
    wrong
}

fn belongs(series: &str, metric: &Metric) -> bool {
    let rest = series.strip_prefix(metric.name);
    match metric.kind {
        Kind::Histogram => rest.is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest)),
        Kind::Counter | Kind::Gauge => rest == Some(""),
    }
}

fn labelled(metric: &Metric, labels: &BTreeMap<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, value) in labels.iter().filter(|(name, _)| *name != "le") {
        let Some(label) = metric.labels.iter().find(|label| label.name == name) else {
            wrong.push(format!("has a label {name} that nobody declared"));
            continue;
        };
        let good = match label.values {
            Values::These(values) => values.contains(&value.as_str()),
            Values::Within(_) => within(metric, name, value),
        };
        if !good {
            wrong.push(format!("{name}={value:?} is not declared"));
        }
    }
    let missing = metric.labels.iter().filter(|label| !labels.contains_key(label.name));
    wrong.extend(missing.map(|label| format!("a series without {}", label.name)));
    wrong
}

/// Labels whose values are bounded elsewhere: by what, known here once more.
fn within(metric: &Metric, label: &str, value: &str) -> bool {
    let snake = |value: &str| value.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    match label {
        "frame" => value.bytes().all(|b| b.is_ascii_alphabetic()) && value.len() < 24,
        "result" => snake(value) && value.len() < 24,
        // Who a process is: the only place where an id may be.
        "gateway" | "url" | "version" => metric.name.ends_with("_info"),
        _ => false,
    }
}

fn parse(page: &str) -> Result<Scraped> {
    let mut scraped = Scraped::default();
    for line in page.lines().filter(|line| !line.is_empty()) {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "TYPE", name, kind] => drop(scraped.kinds.insert(name.into(), kind.into())),
            ["#", "HELP", name, _] => drop(scraped.help.insert(name.into())),
            _ => scraped.series.push(series(line).with_context(|| line.to_owned())?),
        }
    }
    Ok(scraped)
}

/// `name{label="value",...} number`; values here have no quotes and no commas.
fn series(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let pairs = labels.strip_suffix('}')?.split(',').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((name.to_owned(), value.trim_matches('"').to_owned()))
    };
    Some((name.to_owned(), pairs.map(pair).collect::<Option<_>>()?, value.parse().ok()?))
}

#[test]
fn faults_are_found() {
    const HELP: &str = "A help that helps somebody.";
    const GOOD: Metric = Metric::counter("fastchat_x_total", HELP);
    let page = "# HELP fastchat_x_total h\n# TYPE fastchat_x_total counter\nfastchat_x_total 1\n";
    let found = |catalogue: &[Metric], page: &str| faults(catalogue, &parse(page).expect("a page"));
    assert_eq!(found(&[GOOD], page), [""; 0]);
    for (catalogue, page, problem) in [
        (GOOD, page.replace(" 1\n", " 0\n"), "never moved"),
        (GOOD, page.replace("total 1", "total{user=\"alice\"} 1"), "a label user"),
        (GOOD, String::new(), "does not appear"),
        (GOOD, page.to_owned() + "# TYPE fastchat_y gauge\nfastchat_y 1\n", "in no catalogue"),
        (Metric::counter("fastchat_x", HELP), page.replace("_total", ""), "_total"),
        (Metric::seconds("fastchat_x", HELP), page.replace("_total", ""), "suffix"),
        (Metric::gauge("fastchat_x_ms", HELP), page.replace("total", "ms"), "base unit"),
    ] {
        let faults = found(&[catalogue], &page);
        assert!(faults.iter().any(|fault| fault.contains(problem)), "{problem}: {faults:?}");
    }
}

/// docs/metrics.md is the catalogues.
#[test]
fn the_table_of_metrics_is_current() {
    let mut text = String::from(TABLE);
    for (title, metrics) in [
        ("Gateway", fastchat_gateway::metrics::CATALOGUE),
        ("Balancer", fastchat_balancer::metrics::CATALOGUE),
        ("Both: the process", PROCESS),
        ("Both: the event loop", EVENT_LOOP),
    ] {
        text += &format!("\n## {title}\n\n| metric | kind | unit | labels | what |\n|---|---|---|---|---|\n");
        text.extend(metrics.iter().map(Metric::row));
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    if std::env::var_os("FASTCHAT_WRITE_DOCS").is_some() {
        std::fs::write(&path, &text).expect("docs/metrics.md can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "docs/metrics.md is not current: FASTCHAT_WRITE_DOCS=1 scripts/test -E 'test(table_of_metrics)'"
    );
}

const TABLE: &str = "\
# Metrics

Made from the programs' catalogues (`gateway/src/metrics/catalogue.rs`, `balancer/src/metrics.rs`, `telemetry`); a test keeps it current, and another holds a running fleet against it. Both programs answer `/metrics` on their admin listeners (loopback unless set otherwise). No label names a person, a device or a conversation; who a gateway is, is in `fastchat_gateway_info` alone. What never happened is shown as zero.
";

//! What many runs show together: for everything that was varied, curves over it of the runs that were
//! alike otherwise.

use super::plot::{Scale, Series, draw, linear, logarithmic};
use crate::{figures::Figures, plan::Pattern};
use anyhow::Result;

/// Something that runs differ in.
struct Axis {
    name: &'static str,
    /// What is along it.
    scale: Scale<'static>,
    of: fn(&Figures) -> Option<f64>,
    /// All else that they may differ in: the name of a curve.
    rest: fn(&Figures) -> Vec<String>,
}

const AXES: [Axis; 4] = [
    Axis { name: "rate", scale: logarithmic("messages/s offered"), of: rate, rest: but_for_rate },
    Axis {
        name: "clients",
        scale: linear("clients"),
        of: |run| Some(run.experiment.clients as f64),
        rest: but_for_clients,
    },
    Axis { name: "gateways", scale: linear("gateways"), of: gateways, rest: but_for_gateways },
    Axis {
        name: "size",
        scale: logarithmic("bytes of a message"),
        of: |run| Some(run.experiment.load.size as f64),
        rest: but_for_size,
    },
];

/// Title, unit, and what is drawn.
type Curve = (&'static str, Scale<'static>, fn(&Figures) -> Option<f64>);

const CURVES: [Curve; 4] = [
    ("Delivered, median", logarithmic("ms"), |run| Some(run.delivered_us.p50 as f64 / 1e3)),
    ("Delivered, 99th percentile", logarithmic("ms"), |run| Some(run.delivered_us.p99 as f64 / 1e3)),
    ("Throughput", linear("deliveries/s"), |run| Some(run.delivered_per_s)),
    ("Processor time of the servers", linear("us/message"), |run| run.server_cpu_us_per_message),
];

/// Pictures of one thing that was varied.
pub(super) struct Along {
    /// What, and in which kind of runs if it was varied in both.
    pub(super) name: String,
    /// As SVG.
    pub(super) pictures: Vec<String>,
}

/// For each axis along which some runs differ, and nothing where none do. Runs of a group have pictures of
/// their own: a message in it is many deliveries.
pub(super) fn along(runs: &[Figures]) -> Result<Vec<Along>> {
    let (groups, pairs): (Vec<_>, Vec<_>) =
        runs.iter().partition(|run| run.experiment.pattern == Pattern::Group);
    let mut all = of_kind(&pairs)?;
    for mut along in of_kind(&groups)? {
        if all.iter().any(|other| other.name == along.name) {
            along.name += "-in-groups";
        }
        all.push(along);
    }
    Ok(all)
}

fn of_kind(runs: &[&Figures]) -> Result<Vec<Along>> {
    let mut all = Vec::new();
    for axis in &AXES {
        let groups = groups(axis, runs);
        if groups.is_empty() {
            continue;
        }
        let (shared, names) = names(&groups);
        let mut pictures = Vec::new();
        for (title, unit, of) in CURVES {
            let series: Vec<Series> = groups
                .iter()
                .zip(&names)
                .map(|((_, points), name)| {
                    let points = points.iter().filter_map(|(at, run)| Some((*at, of(run)?)));
                    Series::line(name, means(points.filter(|point| point.1 > 0.0)))
                })
                .filter(|series| !series.points.is_empty())
                .collect();
            let title = if shared.is_empty() { title.to_owned() } else { format!("{title} ({shared})") };
            if !series.is_empty() {
                pictures.push(draw(&title, axis.scale, unit, &series)?);
            }
        }
        all.push(Along { name: axis.name.to_owned(), pictures });
    }
    Ok(all)
}

/// One point for each place: what was run several times is told once.
fn means(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut all: Vec<(f64, Vec<f64>)> = Vec::new();
    for (at, value) in points {
        match all.last_mut() {
            Some((last, values)) if *last == at => values.push(value),
            _ => all.push((at, vec![value])),
        }
    }
    all.into_iter().map(|(at, values)| (at, values.iter().sum::<f64>() / values.len() as f64)).collect()
}

type Group<'a> = (Vec<String>, Vec<(f64, &'a Figures)>);

/// What all of them share, and what each of them is called beside it.
fn names(groups: &[Group<'_>]) -> (String, Vec<String>) {
    let shared = |part: &String| groups.iter().all(|(parts, _)| parts.contains(part));
    let pick = |parts: &[String], common: bool| {
        let parts = parts.iter().filter(|part| shared(part) == common);
        parts.map(String::as_str).collect::<Vec<_>>().join(", ")
    };
    let of_all = groups.first().map(|(parts, _)| pick(parts, true)).unwrap_or_default();
    (of_all, groups.iter().map(|(parts, _)| pick(parts, false)).collect())
}

/// Sound runs that differ in nothing but this axis, in its order; those alone are left out.
fn groups<'a>(axis: &Axis, runs: &[&'a Figures]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for &run in runs.iter().filter(|run| run.verdict.is_sound()) {
        let Some(at) = (axis.of)(run) else { continue };
        let name = (axis.rest)(run);
        match groups.iter_mut().find(|(other, _)| *other == name) {
            Some((_, points)) => points.push((at, run)),
            None => groups.push((name, vec![(at, run)])),
        }
    }
    for (_, points) in &mut groups {
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    groups.retain(|(_, points)| points.first().map(|one| one.0) != points.last().map(|one| one.0));
    groups
}

fn rate(run: &Figures) -> Option<f64> {
    run.experiment.load.window.is_none().then_some(run.experiment.load.rate)
}

/// Of a fleet, by the target as it was asked for.
fn gateways(run: &Figures) -> Option<f64> {
    fleet(run)?.0.parse().ok()
}

/// How many, and how clients come to them.
fn fleet(run: &Figures) -> Option<(&str, &str)> {
    let fleet = run.experiment.target.strip_prefix("fleet:")?;
    Some(fleet.split_once(':').unwrap_or((fleet, "")))
}

fn but_for_rate(run: &Figures) -> Vec<String> {
    vec![run.experiment.target.clone(), who(run), bytes(run), arrivals(run)]
}

fn but_for_clients(run: &Figures) -> Vec<String> {
    vec![run.experiment.target.clone(), pattern(run), pace(run), bytes(run), arrivals(run)]
}

fn but_for_gateways(run: &Figures) -> Vec<String> {
    let strategy = fleet(run).map(|(_, strategy)| strategy).filter(|strategy| !strategy.is_empty());
    vec![strategy.unwrap_or("drawn").to_owned(), who(run), pace(run), bytes(run), arrivals(run)]
}

fn but_for_size(run: &Figures) -> Vec<String> {
    vec![run.experiment.target.clone(), who(run), pace(run), arrivals(run)]
}

/// Clients, and who of them writes what to whom.
pub(super) fn who(run: &Figures) -> String {
    let experiment = &run.experiment;
    let who = match experiment.pattern {
        Pattern::Group => format!("group of {}, {} write", experiment.clients, experiment.senders),
        pattern => format!("{} clients, {pattern}", experiment.clients),
    };
    let who = with_files(run, who);
    if experiment.seal { who + ", sealed" } else { who }
}

fn pattern(run: &Figures) -> String {
    with_files(run, run.experiment.pattern.to_string())
}

fn with_files(run: &Figures, text: String) -> String {
    let files = run.experiment.load.files;
    if files > 0.0 { format!("{text}, {:.0} % with files", files * 100.0) } else { text }
}

fn pace(run: &Figures) -> String {
    match run.experiment.load.window {
        Some(window) => format!("window {window}"),
        None => format!("{}/s", run.experiment.load.rate),
    }
}

fn bytes(run: &Figures) -> String {
    format!("{} B", run.experiment.load.size)
}

fn arrivals(run: &Figures) -> String {
    run.experiment.load.arrivals.to_string()
}

//! Every query of every panel, asked of Prometheus; and pictures of the answers, where they are wanted.

use crate::scene::{Scene, now};
use anyhow::{Context, Result, bail};
use fastchat_dashboards::{
    Dashboard, Panel, boards,
    draw::{self, Series},
    queries,
};
use serde_json::Value;
use std::path::PathBuf;

/// What Grafana would take at this scrape interval, about.
const WINDOW: &str = "8s";

/// An error, or not one finite number over the whole run, is a fault.
pub(crate) async fn check(scene: &Scene) -> Result<()> {
    let (mut wrong, end, mut asked) = (Vec::new(), now(), 0);
    for board in boards::all() {
        let mut answers = Vec::new();
        for panel in board.panels() {
            let mut drawn = Vec::new();
            for query in &panel.queries {
                asked += 1;
                let expr = queries::for_prometheus(query.expr, queries::job(&board), WINDOW);
                match scene.prometheus.query_range(&expr, scene.began, end, 1).await {
                    Ok(series) if has_data(&series) => drawn.extend(named(&series, query.legend)),
                    Ok(_) => wrong.push(format!("{} / {}: no data: {expr}", board.title, panel.title)),
                    Err(error) => wrong.push(format!("{} / {}: {error:#}: {expr}", board.title, panel.title)),
                }
            }
            answers.push((panel.title, drawn));
        }
        picture(&board, &answers)?;
    }
    if !wrong.is_empty() {
        bail!("{} of {asked} queries:\n{}", wrong.len(), wrong.join("\n"));
    }
    assert!(asked > 100, "only {asked} queries: this test sees nothing");
    Ok(())
}

fn points(series: &Value) -> impl Iterator<Item = (f64, f64)> {
    let value = |point: &Value| Some((point[0].as_f64()?, point[1].as_str()?.parse().ok()?));
    series["values"].as_array().into_iter().flatten().filter_map(value)
}

fn has_data(series: &[Value]) -> bool {
    series.iter().any(|one| points(one).any(|(_, value)| value.is_finite()))
}

fn named<'a>(series: &'a [Value], legend: &'a str) -> impl Iterator<Item = Series> + 'a {
    series.iter().map(move |one| {
        let mut name = legend.to_owned();
        for (label, value) in one["metric"].as_object().into_iter().flatten() {
            name = name.replace(&format!("{{{{{label}}}}}"), value.as_str().unwrap_or(""));
        }
        Series { name, points: points(one).collect() }
    })
}

/// Draws a dashboard into the folder that `FASTCHAT_PICTURES` names.
fn picture(board: &Dashboard, answers: &[(&str, Vec<Series>)]) -> Result<()> {
    let Some(folder) = std::env::var_os("FASTCHAT_PICTURES").map(PathBuf::from) else { return Ok(()) };
    let caption = "Drawn by scripts/draw-dashboards from a real Prometheus' answers to this dashboard's queries \
                   (two gateways under test load). Not a screenshot of Grafana.";
    let mut answer = |panel: &Panel| {
        let found = answers.iter().find(|(title, _)| *title == panel.title);
        found.map(|(_, series)| series.clone()).unwrap_or_default()
    };
    let path = folder.join(format!("{}.svg", board.file()));
    std::fs::write(&path, draw::page(board, caption, &mut answer)).with_context(|| path.display().to_string())
}

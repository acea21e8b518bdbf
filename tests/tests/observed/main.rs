//! A fleet under load, seen by a real Prometheus: every metric is what it says it is and moves, every
//! panel of every dashboard has data, every alert is tested.

mod exporters;
mod metrics;
mod panels;
mod rules;
mod scene;

use anyhow::Result;
use scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_under_load_is_seen_in_every_metric_and_every_panel() -> Result<()> {
    let mut scene = Scene::start().await?;
    scene.live().await?;
    metrics::check(&mut scene).await?;
    panels::check(&scene).await
}

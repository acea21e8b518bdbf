//! Takes what is measured and shows it to Prometheus.

use crate::{Kind, Metric, process};
use metrics::{Label, counter, describe_counter, describe_gauge, describe_histogram, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::time::Duration;

/// Between calls of the recorder's upkeep, so that histograms do not grow.
const UPKEEP: Duration = Duration::from_secs(5);

/// The bounds of a histogram's buckets: of one metric, or of all with a suffix (`_seconds`).
#[derive(Debug, Clone, Copy)]
pub struct Buckets {
    /// A whole name, or a suffix that begins with `_`. A whole name goes first.
    pub of: &'static str,
    /// In the metric's unit, ascending.
    pub bounds: &'static [f64],
}

/// The process's metrics. Cheap to clone.
#[derive(Clone)]
pub struct Recorder(PrometheusHandle);

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}

impl Recorder {
    /// Begins to record, once a process: describes the catalogue and shows what is listed in it as zero.
    pub fn install(catalogue: &[Metric], buckets: &[Buckets]) -> Result<Self, BuildError> {
        let mut builder = PrometheusBuilder::new();
        for Buckets { of, bounds } in buckets {
            let matcher = match of.starts_with('_') {
                true => Matcher::Suffix((*of).into()),
                false => Matcher::Full((*of).into()),
            };
            builder = builder.set_buckets_for_metric(matcher, bounds)?;
        }
        let recorder = Self(builder.install_recorder()?);
        for metric in catalogue.iter().chain(crate::EVENT_LOOP) {
            describe(metric);
            zero(metric);
        }
        Ok(recorder)
    }

    /// What Prometheus reads.
    pub fn render(&self) -> String {
        self.0.render() + &process::render()
    }

    /// Keeps histograms short and watches the event loop; for ever.
    pub async fn upkeep(&self) {
        let upkeep = async {
            let mut ticks = tokio::time::interval(UPKEEP);
            loop {
                ticks.tick().await;
                self.0.run_upkeep();
            }
        };
        tokio::join!(upkeep, crate::watch_lag());
    }
}

fn describe(metric: &Metric) {
    let Metric { name, unit, help, .. } = *metric;
    match metric.kind {
        Kind::Counter => describe_counter!(name, unit, help),
        Kind::Gauge => describe_gauge!(name, unit, help),
        Kind::Histogram => describe_histogram!(name, unit, help),
    }
}

/// A gauge says how things stand: whoever knows says so, zero would be a guess.
fn zero(metric: &Metric) {
    for labels in metric.combinations() {
        let labels: Vec<_> = labels.into_iter().map(|(name, value)| Label::new(name, value)).collect();
        match metric.kind {
            Kind::Counter => counter!(metric.name, labels).increment(0),
            Kind::Histogram => drop(histogram!(metric.name, labels)),
            Kind::Gauge => {}
        }
    }
}

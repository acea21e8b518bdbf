//! Two targets in turn, A B A B: ratios of what each round measured, so that what the neighbours of this
//! machine do meets both.

use crate::{
    experiment::{Bench, Say},
    figures::{Experiment, Figures},
};
use anyhow::{Result, ensure};
use serde::Serialize;

/// A name, and where it stands among the figures.
type Measure = (&'static str, fn(&Figures) -> f64);

/// What is compared.
const MEASURES: [Measure; 7] = [
    ("server CPU, us/message", |run| run.server_cpu_us_per_message.unwrap_or_default()),
    ("server CPU, us/delivery", |run| run.server_cpu_us_per_delivery.unwrap_or_default()),
    ("acknowledged/s", |run| run.acked_per_s),
    ("ack p50, us", |run| run.acked_us.p50 as f64),
    ("ack p99, us", |run| run.acked_us.p99 as f64),
    ("delivered p50, us", |run| run.delivered_us.p50 as f64),
    ("delivered p99, us", |run| run.delivered_us.p99 as f64),
];

/// A measure over all rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Ratio {
    /// What it is, with its unit.
    pub measure: &'static str,
    /// The median of the first target.
    pub first: f64,
    /// The median of the second target.
    pub second: f64,
    /// The median of the rounds' ratios, first to second.
    pub ratio: f64,
    /// The smallest of them.
    pub lowest: f64,
    /// The largest of them.
    pub highest: f64,
}

/// Runs both in turn; every run, and the ratios of those rounds in which neither was broken.
pub async fn run(
    first: &Experiment,
    second: &Experiment,
    rounds: usize,
    say: Say<'_>,
) -> Result<(Vec<Figures>, Vec<Ratio>)> {
    ensure!(rounds > 0, "a comparison takes a round at least");
    let mut benches = [Bench::prepare(first, say).await?, Bench::prepare(second, say).await?];
    let (mut pairs, mut runs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        say(&format!("round {} of {rounds}", round + 1));
        let one = benches[0].run(&first.load, say).await?;
        let other = benches[1].run(&second.load, say).await?;
        if counts(&one) && counts(&other) {
            pairs.push(MEASURES.map(|(_, of)| (of(&one), of(&other))));
        }
        runs.extend([one, other]);
    }
    Ok((runs, ratios(&pairs)))
}

/// A driver that sent late has made both sides' latencies longer, and the report says so; what was broken,
/// or not sent at all, is not compared.
fn counts(run: &Figures) -> bool {
    run.verdict.broken.is_empty() && run.counts.overflowed == 0
}

fn ratios(pairs: &[[(f64, f64); MEASURES.len()]]) -> Vec<Ratio> {
    let one = |(n, (measure, _)): (usize, &Measure)| {
        let of = |pick: fn((f64, f64)) -> f64| sorted(pairs.iter().map(|round| pick(round[n])));
        let all = of(|(first, second)| first / second.max(f64::MIN_POSITIVE));
        Some(Ratio {
            measure,
            first: median(&of(|pair| pair.0))?,
            second: median(&of(|pair| pair.1))?,
            ratio: median(&all)?,
            lowest: *all.first()?,
            highest: *all.last()?,
        })
    };
    MEASURES.iter().enumerate().filter_map(one).collect()
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_rounds_not_of_medians() {
        let round = |first, second| [(first, second); MEASURES.len()];
        let all = ratios(&[round(1.0, 2.0), round(9.0, 3.0), round(4.0, 4.0)]);
        let one = &all[0];
        assert_eq!((one.first, one.second), (4.0, 3.0));
        assert_eq!((one.ratio, one.lowest, one.highest), (1.0, 0.5, 3.0));
        assert!(ratios(&[]).is_empty());
        assert_eq!(median(&[1.0, 2.0]), Some(1.5));
    }
}

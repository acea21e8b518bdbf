//! A table of experiments: every combination of what a file lists.
//!
//! ```toml
//! title = "Arrivals and sizes"
//! [[table]]
//! target = ["embedded", "fleet:2"]
//! pattern = "any"
//! clients = [2, 10, 20]
//! size = [64, 4096]
//! arrivals = ["constant", "exponential", "gaussian"]
//! rate = 200
//! ```
//!
//! A key may have one value or a list of them; one that is left out has its default. Combinations that
//! make no sense (pairs of three clients) are errors before anything runs.

use crate::{
    arrivals::Arrivals,
    drive::Load,
    experiment,
    figures::Experiment,
    plan::{Pattern, Plan},
    span::Span,
};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Limit: runs of one file.
const MAX_RUNS: usize = 2_000;

/// What a file says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// For the report.
    pub title: String,
    table: Vec<Table>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    target: Values<String>,
    pattern: Option<Values<Pattern>>,
    clients: Option<Values<usize>>,
    senders: Option<Values<usize>>,
    seal: Option<Values<bool>>,
    rate: Option<Values<f64>>,
    window: Option<Values<usize>>,
    arrivals: Option<Values<Arrivals>>,
    size: Option<Values<usize>>,
    files: Option<Values<f64>>,
    file_bytes: Option<Values<Span>>,
    reconnects: Option<Values<f64>>,
    warm_up_s: Option<f64>,
    duration_s: Option<f64>,
    seed: Option<u64>,
}

/// One value or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Values<T> {
    One(T),
    Many(Vec<T>),
}

impl<T: Clone> Values<T> {
    fn list(&self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one.clone()],
            Self::Many(many) => many.clone(),
        }
    }
}

impl Matrix {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).context("not a table of experiments")
    }

    /// Every run, in order; all of them make sense.
    pub fn experiments(&self) -> Result<Vec<Experiment>> {
        let all: Vec<_> = self.table.iter().flat_map(Table::expand).collect();
        ensure!(!all.is_empty(), "there is nothing to run");
        ensure!(all.len() <= MAX_RUNS, "{} runs are more than {MAX_RUNS}", all.len());
        for experiment in &all {
            experiment::choose(experiment)?;
            Plan::of(experiment)?;
        }
        Ok(all)
    }
}

impl Table {
    fn expand(&self) -> Vec<Experiment> {
        let mut all = vec![Experiment::default()];
        vary(&mut all, &self.pattern, |one, pattern| {
            (one.pattern, one.load) = (pattern, Load::usual(pattern));
        });
        for one in &mut all {
            let usual = one.load.clone();
            one.load = Load {
                warm_up_s: self.warm_up_s.unwrap_or(usual.warm_up_s),
                duration_s: self.duration_s.unwrap_or(usual.duration_s),
                seed: self.seed.unwrap_or(usual.seed),
                ..usual
            };
        }
        vary(&mut all, &self.clients, |one, clients| one.clients = clients);
        vary(&mut all, &self.senders, |one, senders| one.senders = senders);
        vary(&mut all, &self.seal, |one, seal| one.seal = seal);
        vary(&mut all, &self.size, |one, size| one.load.size = size);
        vary(&mut all, &self.files, |one, files| one.load.files = files);
        vary(&mut all, &self.file_bytes, |one, bytes| one.load.file_bytes = bytes);
        vary(&mut all, &self.reconnects, |one, reconnects| one.load.reconnects = reconnects);
        vary(&mut all, &self.arrivals, |one, arrivals| one.load.arrivals = arrivals);
        vary(&mut all, &self.window, |one, window| one.load.window = Some(window));
        vary(&mut all, &self.rate, |one, rate| one.load.rate = rate);
        // Last, so that what is compared runs side by side.
        vary(&mut all, &Some(self.target.clone()), |one, target| one.target = target);
        all
    }
}

/// Each experiment once for each of these values.
fn vary<T: Clone>(all: &mut Vec<Experiment>, values: &Option<Values<T>>, set: impl Fn(&mut Experiment, T)) {
    let Some(values) = values else { return };
    let values = values.list();
    let with = |one: &Experiment, value: &T| {
        let mut one = one.clone();
        set(&mut one, value.clone());
        one
    };
    *all = all.iter().flat_map(|one| values.iter().map(|value| with(one, value))).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn experiments(text: &str) -> Result<Vec<Experiment>> {
        Matrix::parse(&format!("title = \"t\"\n{text}"))?.experiments()
    }

    #[test]
    fn every_combination_runs_and_targets_are_side_by_side() {
        let all = experiments(
            "[[table]]\ntarget = [\"embedded\", \"nats\"]\nsize = [64, 1024]\nrate = 10\narrivals = \"gaussian\"",
        );
        let all = all.expect("it is one");
        let seen: Vec<_> = all.iter().map(|one| (one.target.as_str(), one.load.size)).collect();
        assert_eq!(seen, [("embedded", 64), ("nats", 64), ("embedded", 1024), ("nats", 1024)]);
        assert!(all.iter().all(|one| one.load.arrivals == Arrivals::Gaussian && one.load.rate == 10.0));
    }

    #[test]
    fn the_files_that_come_with_it_are_experiments() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
        let mut counts = Vec::new();
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("a file").path();
            let text = std::fs::read_to_string(&path).expect("text");
            let all = Matrix::parse(&text).and_then(|matrix| matrix.experiments());
            counts.push((
                path.clone(),
                all.unwrap_or_else(|error| panic!("{}: {error:#}", path.display())).len(),
            ));
            // What the file says of itself.
            let said = text
                .split_once(" runs of")
                .and_then(|(before, _)| before.split(' ').next_back()?.parse().ok());
            assert!(said.is_none_or(|said: usize| said == counts[counts.len() - 1].1), "{counts:?}");
        }
        assert!(counts.len() >= 3);
    }

    #[test]
    fn what_makes_no_sense_is_said_before_anything_runs() {
        for text in [
            "",
            "[[table]]\ntarget = \"room\"",
            "[[table]]\ntarget = \"nats\"\nclients = 3",
            "[[table]]\ntarget = \"nats\"\nroom = 3",
            "[[table]]\ntarget = \"nats\"\nclients = []",
            "[[table]]\ntarget = \"nats\"\narrivals = \"often\"",
            "[[table]]\ntarget = \"nats\"\nfiles = 2",
            "[[table]]\ntarget = \"nats\"\nfiles = 1\nfile_bytes = \"much\"",
            "[[table]]\ntarget = \"nats\"\nseal = true",
        ] {
            assert!(experiments(text).is_err(), "{text}");
        }
    }
}

//! Whole experiments: one run, a search for the knee, a table of runs, two targets in turn.

use crate::{
    drive::{self, Load, Outcome},
    figures::{Experiment, Figures},
    floors::Floors,
    machine::Component,
    plan::Plan,
    record::Counted,
    target::{self, Link, Manner, Target},
};
use anyhow::{Context, Result};

/// What goes on, for a person who waits.
pub type Say<'a> = &'a (dyn Fn(&str) + Sync);

/// A target with its clients connected, ready for runs of one plan.
#[derive(Debug)]
pub struct Bench {
    experiment: Experiment,
    target: Box<dyn Target>,
    plan: Plan,
    /// Away while a run goes on.
    links: Option<Vec<Box<dyn Link>>>,
}

impl Bench {
    /// Starts the target and connects everybody.
    pub async fn prepare(experiment: &Experiment, say: Say<'_>) -> Result<Self> {
        Self::prepare_on(choose(experiment)?, experiment, say).await
    }

    /// As [`Bench::prepare`], with a target that the caller has made.
    pub async fn prepare_on(
        mut target: Box<dyn Target>,
        experiment: &Experiment,
        say: Say<'_>,
    ) -> Result<Self> {
        let plan = Plan::of(experiment)?;
        say(&format!("{}: starting, {} clients", target.name(), plan.clients));
        let links =
            target.prepare(&plan).await.with_context(|| format!("preparing {}", experiment.target))?;
        Ok(Self { experiment: experiment.clone(), target, plan, links: Some(links) })
    }

    /// One run with this load.
    pub async fn run(&mut self, load: &Load, say: Say<'_>) -> Result<Figures> {
        let links = self.links.take().context("the run before failed")?;
        let floors = match self.target.ground() {
            Some(ground) => Some(Floors::measure(&ground, load.size).await?),
            None => None,
        };
        let progress = |second: f64, counted: Counted| say(&told(second, load, counted));
        let mut components = self.target.components();
        let pids = &self.experiment.given.pids;
        components.extend((!pids.is_empty()).then(|| Component::new("server", pids.clone())));
        let (links, outcome): (_, Outcome) =
            drive::run(links, &self.plan, load, &components, &progress).await?;
        self.links = Some(links);
        let experiment = Experiment { load: load.clone(), ..self.experiment.clone() };
        Ok(Figures::of(experiment, self.target.name(), self.target.about(), outcome).beside(floors))
    }
}

/// The experiment's target.
pub fn choose(experiment: &Experiment) -> Result<Box<dyn Target>> {
    let manner = Manner { seal: experiment.seal, invite: experiment.given.invite.clone() };
    target::choose(&experiment.target, &manner)
}

fn told(second: f64, load: &Load, counted: Counted) -> String {
    let Counted { sent, acked, delivered, .. } = counted;
    let whole = load.warm_up_s + load.duration_s;
    format!("{second:5.0} s of {whole:.0}: {sent} sent, {acked} acknowledged, {delivered} delivered")
}

/// One experiment with servers of its own.
pub async fn run(experiment: &Experiment, say: Say<'_>) -> Result<Figures> {
    let mut bench = Bench::prepare(experiment, say).await?;
    bench.run(&experiment.load, say).await
}

//! Writes what was measured where people and programs read it: a folder with JSON, CSV and one page of
//! HTML that needs nothing else.

mod axes;
mod html;
mod plot;
mod read;
mod text;

pub use read::read;
pub use text::text;

use crate::{
    figures::{Figures, Percentiles},
    floors::Floors,
};
use anyhow::{Context, Result};
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// A folder that results go into.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes the folder, if it is not there.
    pub fn make(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes one run's files; `name` is part of theirs.
    pub fn write_run(&self, name: &str, figures: &Figures) -> Result<()> {
        self.write(&format!("{name}.json"), &(serde_json::to_string_pretty(figures)? + "\n"))?;
        self.write(&format!("{name}-seconds.csv"), &seconds(figures))?;
        self.write(&format!("{name}-messages.csv"), &messages(figures))
    }

    /// Writes the page, the table of all runs, and what they show together as pictures by themselves:
    /// `over-rate-1.svg` and so on, in the order of the page.
    pub fn write_report(&self, title: &str, runs: &[Figures]) -> Result<PathBuf> {
        let along = axes::along(runs)?;
        self.write("runs.csv", &table(runs))?;
        self.write("report.html", &html::page(title, runs, &along)?)?;
        for axes::Along { name, pictures } in &along {
            for (number, picture) in (1..).zip(pictures) {
                self.write(&format!("over-{name}-{number}.svg"), picture)?;
            }
        }
        Ok(self.0.join("report.html"))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.0.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn seconds(figures: &Figures) -> String {
    let mut text = "second,sent,acked,delivered,delivered_p50_us,delivered_p99_us\n".to_owned();
    for moment in &figures.seconds {
        let (second, sent, acked) = (moment.second, moment.sent, moment.acked);
        let (delivered, p50, p99) = (moment.delivered, moment.p50_us, moment.p99_us);
        let _ = writeln!(text, "{second},{sent},{acked},{delivered},{p50},{p99}");
    }
    text
}

fn messages(figures: &Figures) -> String {
    let mut text = "number,due_us,until,after_us\n".to_owned();
    for (until, some) in [("acked", &figures.acks), ("delivered", &figures.deliveries)] {
        for (number, due_us, after_us) in some {
            let _ = writeln!(text, "{number},{due_us},{until},{after_us}");
        }
    }
    text
}

/// Of files, in lines for people.
fn files(run: &Figures) -> Vec<String> {
    let Some(of) = &run.files else { return Vec::new() };
    let mut lines = Vec::new();
    for (name, us) in
        [("uploaded", &of.uploaded_us), ("announced", &of.announced_us), ("fetched", &of.fetched_us)]
    {
        let Percentiles { p50, p99, max, count, .. } = *us;
        let [p50, p99, max] = [p50, p99, max].map(|us| us as f64 / 1e3);
        if count > 0 {
            lines.push(format!("files {name}: {count}, p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms"));
        }
    }
    let (up, down) = (of.uploaded_mb_per_s, of.fetched_mb_per_s);
    let mut flow = format!("files: {up:.2} MB/s up, {down:.2} MB/s down");
    if let Some(us) = of.server_cpu_us_per_mb {
        let _ = write!(flow, ", {:.2} ms of the servers for each MB", us / 1e3);
    }
    lines.push(flow);
    lines
}

/// What parts of the way take by themselves, and how the run compares, in lines for people.
fn floors(run: &Figures) -> Vec<String> {
    let Some(of) = &run.floors else { return Vec::new() };
    let mut parts = format!("floors: loopback {} us, driver {} us", of.loopback_us, of.driver_us);
    for (name, us) in
        [("commit", of.commit_us), ("commit after a rest", of.rested_commit_us), ("NATS", of.hop_us)]
    {
        let _ = us.map(|us| write!(parts, ", {name} {us} us"));
    }
    let mut lines = vec![parts];
    if let (Some(ack_us), Some(delivered_us), Some(times)) = (of.ack_us(), of.delivered_us(), run.multiples) {
        for (name, us, p50, p99) in [
            ("ack", ack_us, times.ack_p50, times.ack_p99),
            ("delivered", delivered_us, times.delivered_p50, times.delivered_p99),
        ] {
            lines.push(format!("{name}: {p50:.1} times its floor of {us} us at p50, {p99:.1} at p99"));
        }
    }
    lines
}

fn table(runs: &[Figures]) -> String {
    let mut text =
        "target,pattern,clients,senders,arrivals,size_bytes,rate_per_s,window,sound,sent,lost,duplicated,\
         acked_per_s,delivered_per_s,acked_p50_us,acked_p99_us,delivered_p50_us,delivered_p99_us,\
         server_cpu_us_per_message,driver_share,ack_floor_us,delivered_floor_us\n"
            .to_owned();
    for run in runs {
        let (load, counts) = (&run.experiment.load, &run.counts);
        let floor = |of: fn(&Floors) -> Option<u64>| {
            run.floors.as_ref().and_then(of).map(|us| us.to_string()).unwrap_or_default()
        };
        let window = load.window.map(|window| window.to_string()).unwrap_or_default();
        let _ = writeln!(
            text,
            "\"{}\",{},{},{},{},{},{},{window},{},{},{},{},{:.1},{:.1},{},{},{},{},{},{:.3},{},{}",
            run.target,
            run.experiment.pattern,
            run.experiment.clients,
            run.experiment.senders,
            load.arrivals,
            load.size,
            load.rate,
            run.verdict.is_sound(),
            counts.sent,
            counts.lost,
            counts.duplicated,
            run.acked_per_s,
            run.delivered_per_s,
            run.acked_us.p50,
            run.acked_us.p99,
            run.delivered_us.p50,
            run.delivered_us.p99,
            run.server_cpu_us_per_message.map(|us| format!("{us:.1}")).unwrap_or_default(),
            run.driver_share,
            floor(Floors::ack_us),
            floor(Floors::delivered_us),
        );
    }
    text
}

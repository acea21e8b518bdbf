//! `fastchat-lab`: experiments from the command line.

mod cli;

use anyhow::{Context, Result, bail};
use clap::Parser;
use cli::{Cli, Command, What};
use fastchat_lab::{
    compare::{self, Ratio},
    crowd,
    drive::Load,
    experiment::{self, Say},
    figures::Figures,
    knee, logins,
    matrix::Matrix,
    offline,
    report::{self, Folder},
    target::{self, Manner, fastchat},
};
use std::{io::Write, path::Path, process::ExitCode, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match work_until_told(&cli).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "fastchat-lab: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// As [`work`]; a signal drops it, which ends the servers that it has started.
async fn work_until_told(cli: &Cli) -> Result<bool> {
    // Before anything is started.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        outcome = work(&cli.command, cli.json, cli.quiet) => return outcome,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    bail!("told to end; what was measured so far is given up")
}

/// False if something measured was broken or void.
async fn work(command: &Command, json: bool, quiet: bool) -> Result<bool> {
    let say = |line: &str| {
        if !quiet {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    };
    match command {
        Command::Run { target, what, out } => {
            let experiment = what.experiment(target);
            let figures = experiment::run(&experiment, &say).await?;
            finish("run", &[figures], out.out.as_deref(), json)
        }
        Command::Knee { target, what, highest, out } => {
            let knee = knee::find(&what.experiment(target), *highest, &say).await?;
            if knee.rate == 0.0 {
                bail!("already {} messages/s are too many; begin lower with --rate", what.rate);
            }
            print(&format!("knee: {:.0} messages/s", knee.rate))?;
            // Steps above the knee may break, that is what they are for.
            finish("knee", &knee.steps, out.out.as_deref(), json)?;
            Ok(true)
        }
        Command::Offline { fleet, clients, window, size, duration } => {
            let load = Load {
                window: Some(*window),
                size: *size,
                warm_up_s: 1.0,
                duration_s: *duration,
                ..Load::default()
            };
            let backlog = offline::run(fleet.setup(), *clients, &load, &say).await?;
            print(&figures(&backlog, json)?)?;
            Ok(backlog.faults == 0)
        }
        Command::Idle { fleet, connections, tls, hold } => {
            let hold = Duration::from_secs_f64(*hold);
            let idle = crowd::idle(*connections, fleet.setup(), *tls, hold, &say).await?;
            print(&figures(&idle, json)?)?;
            Ok(idle.dropped == 0)
        }
        Command::Writer { senders, size, rounds } => {
            let alone = fastchat::writer(*senders, *size, *rounds, &say).await?;
            print(&figures(&alone, json)?)?;
            Ok(true)
        }
        Command::Storm { fleet, connections } => {
            let storm = crowd::storm(*connections, fleet.setup(), &say).await?;
            print(&figures(&storm, json)?)?;
            Ok(true)
        }
        Command::Logins { targets, at_once, duration, rounds } => {
            let duration = Duration::from_secs_f64(*duration);
            let mut all = Vec::new();
            for _ in 0..*rounds {
                for name in targets {
                    let mut target = target::choose(name, &Manner::default())?;
                    all.push(logins::run(&mut *target, *at_once, duration, &say).await?);
                }
            }
            print(&if json { serde_json::to_string(&all)? } else { logins::text(&all) })?;
            Ok(true)
        }
        Command::Hold => crowd::hold().await.map(|()| true),
        Command::Report { folders, title, out } => {
            let mut runs = Vec::new();
            for folder in folders {
                runs.extend(report::read(folder)?);
            }
            let report = Folder::make(out)?.write_report(title, &runs)?;
            print(&format!("report of {} runs: {}", runs.len(), report.display()))?;
            Ok(true)
        }
        Command::Matrix { file, list, out } => matrix(file, *list, out, json, &say).await,
        Command::Compare { first, second, rounds, what, out } => {
            let (runs, ratios) = compare((first, second), *rounds, what, &say).await?;
            let text = ratio_text((first, second), &ratios);
            print(&if json { serde_json::to_string(&ratios)? } else { text })?;
            finish(&format!("{first} and {second}"), &runs, out.out.as_deref(), json)
        }
    }
}

/// A line for each figure, or JSON.
fn figures(of: &impl serde::Serialize, json: bool) -> Result<String> {
    let value = serde_json::to_value(of)?;
    if json {
        return Ok(value.to_string());
    }
    let lines = value.as_object().context("figures have names")?;
    let line = |(name, value): (&String, &serde_json::Value)| match value.as_f64() {
        Some(number) if !value.is_i64() && !value.is_u64() => format!("{name:18} {number:.2}"),
        _ => format!("{name:18} {value}"),
    };
    Ok(lines.iter().map(line).collect::<Vec<_>>().join("\n"))
}

async fn matrix(file: &Path, list: bool, out: &Path, json: bool, say: Say<'_>) -> Result<bool> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let matrix = Matrix::parse(&text).with_context(|| name.to_string())?;
    let experiments = matrix.experiments().with_context(|| name.to_string())?;
    if list {
        for experiment in &experiments {
            print(&serde_json::to_string(experiment)?)?;
        }
        return Ok(true);
    }
    let folder = Folder::make(out)?;
    let count = experiments.len();
    let mut runs: Vec<Option<Figures>> = vec![None; count];
    let passes = [false, true].into_iter().flat_map(|again| (0..count).map(move |number| (again, number)));
    for (again, number) in passes {
        // A run that says nothing has a second chance when the machine may be quieter.
        if again && !runs[number].as_ref().is_some_and(|run| run.verdict.is_void()) {
            continue;
        }
        say(&format!("run {} of {count}{}", number + 1, if again { ", again" } else { "" }));
        match experiment::run(&experiments[number], say).await {
            Ok(figures) => {
                print(&if json { serde_json::to_string(&figures)? } else { report::text(&figures) })?;
                folder.write_run(&format!("{:03}", number + 1), &figures)?;
                runs[number] = Some(figures);
                // After each run, so that what was measured is there if the rest is not.
                folder.write_report(&matrix.title, &runs.iter().flatten().cloned().collect::<Vec<_>>())?;
            }
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "run {} failed: {error:#}", number + 1);
            }
        }
    }
    print(&format!("report: {}", folder.path().join("report.html").display()))?;
    Ok(runs.iter().all(|run| run.as_ref().is_some_and(|run| run.verdict.is_sound())))
}

async fn compare(
    (first, second): (&str, &str),
    rounds: usize,
    what: &What,
    say: Say<'_>,
) -> Result<(Vec<Figures>, Vec<Ratio>)> {
    let (first, second) = (what.experiment(first), what.experiment(second));
    let (runs, ratios) = compare::run(&first, &second, rounds, say).await?;
    if ratios.is_empty() {
        bail!("every round was broken on one side, or sent less than it should");
    }
    Ok((runs, ratios))
}

fn ratio_text((first, second): (&str, &str), ratios: &[Ratio]) -> String {
    let mut text = format!("{:26} {first:>14} {second:>14}   ratio (range)", "");
    for Ratio { measure, first, second, ratio, lowest, highest } in ratios {
        text +=
            &format!("\n{measure:26} {first:14.1} {second:14.1}   {ratio:.2} ({lowest:.2} to {highest:.2})");
    }
    text
}

/// Prints and writes what was measured; whether all of it is sound.
fn finish(title: &str, runs: &[Figures], out: Option<&Path>, json: bool) -> Result<bool> {
    for run in runs {
        print(&if json { serde_json::to_string(run)? } else { report::text(run) })?;
    }
    if let Some(path) = out {
        let folder = Folder::make(path)?;
        for (number, run) in runs.iter().enumerate() {
            folder.write_run(&format!("{:03}", number + 1), run)?;
        }
        let report = folder.write_report(title, runs)?;
        print(&format!("report: {}", report.display()))?;
    }
    Ok(runs.iter().all(|run| run.verdict.is_sound()))
}

fn print(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write")
}

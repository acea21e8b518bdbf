//! Every scenario on every kind of target that needs nothing special, for some seconds: it works and
//! nothing is lost. No figure of speed is held to anything here.

use anyhow::{Context, Result};
use fastchat_lab::{
    arrivals::Arrivals,
    drive::Load,
    experiment,
    figures::{Experiment, Figures, Given},
    logins, machine,
    plan::Pattern,
    report::{self, Folder},
    span::Span,
    target::{
        self, Manner, Target, ejabberd,
        fastchat::{FastChat, Setup},
        mosquitto,
    },
};
use fastchat_tests::process::Process;
use std::time::{Duration, Instant};

async fn measured(target: &str, pattern: Pattern, clients: usize, load: Load) -> Result<Figures> {
    run(plan(target, pattern, clients, load)).await
}

fn plan(target: &str, pattern: Pattern, clients: usize, load: Load) -> Experiment {
    let (senders, given) = (2.min(clients), Given::default());
    Experiment { target: target.to_owned(), pattern, clients, senders, seal: false, given, load }
}

async fn run(experiment: Experiment) -> Result<Figures> {
    let figures = experiment::run(&experiment, &|_| {}).await?;
    let name = format!("{} on {}", experiment.pattern, experiment.target);
    assert_eq!(figures.verdict.broken, [""; 0], "{name}: {:?}, {:?}", figures.counts, figures.verdict.notes);
    assert_eq!(figures.counts.delivered, figures.counts.expected);
    assert!(figures.counts.sent > 0);
    Ok(figures)
}

fn short() -> Load {
    Load { rate: 100.0, warm_up_s: 0.5, duration_s: 1.5, ..Load::default() }
}

/// What clients who seal and open can do without any optimisation.
fn slow() -> Load {
    Load { rate: 20.0, ..short() }
}

#[tokio::test]
async fn every_pattern_on_the_embedded_server() -> Result<()> {
    for (pattern, clients) in [
        (Pattern::Pairs, 4),
        (Pattern::Halves, 4),
        (Pattern::Ring, 5),
        (Pattern::Any, 5),
        (Pattern::Pairs, 1),
    ] {
        measured("embedded", pattern, clients, short()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_group_and_pairs_on_fleets() -> Result<()> {
    let figures = measured("fleet:2", Pattern::Group, 20, short()).await?;
    assert_eq!(figures.counts.expected, 19 * figures.counts.sent);
    for component in ["gateway", "postgres", "nats", "driver"] {
        assert!(figures.components[component].rss_bytes > 0, "{component}");
    }
    let floors = figures.floors.expect("a fleet stands on something");
    assert!(floors.commit_us.is_some() && floors.hop_us.is_some(), "{floors:?}");
    assert!(figures.multiples.is_some_and(|times| times.ack_p50 > 0.0 && times.delivered_p99 > 0.0));
    assert!(report::text(&figures).contains("times its floor"));
    measured("fleet:2:p2c", Pattern::Pairs, 10, short()).await?;
    Ok(())
}

#[tokio::test]
async fn sealed_messages_on_both_kinds_of_servers() -> Result<()> {
    for (target, pattern, clients) in [("embedded", Pattern::Ring, 3), ("fleet:2", Pattern::Group, 5)] {
        let sealed = Experiment { seal: true, ..plan(target, pattern, clients, slow()) };
        let figures = run(sealed).await?;
        assert!(report::text(&figures).contains("256 B sealed"), "{target}");
    }
    Ok(())
}

#[tokio::test]
async fn a_deployment_that_runs_already() -> Result<()> {
    let mut deployment = FastChat::new(Setup { gateways: 2, ..Setup::default() });
    let servers = deployment.start().await?;
    servers.serve().await?;
    let urls: Vec<String> = servers.gateways().iter().map(|address| format!("ws://{address}")).collect();
    let target = format!("url:{}", urls.join(","));
    let figures = measured(&target, Pattern::Pairs, 4, short()).await?;
    assert!(figures.server_cpu_us_per_message.is_none(), "nobody said where the processes are");
    assert!(report::text(&figures).contains("servers    not measured"));
    let pids = deployment.components().into_iter().flat_map(|component| component.pids).collect();
    let given = Given { pids, invite: None };
    let figures = run(Experiment { seal: true, given, ..plan(&target, Pattern::Group, 5, slow()) }).await?;
    assert!(figures.components["server"].rss_bytes > 0 && figures.server_cpu_us_per_message.is_some());
    Ok(())
}

#[tokio::test]
async fn files_go_beside_messages_and_with_them() -> Result<()> {
    let whole = Load { files: 1.0, file_bytes: Span::new(300_000, 600_000)?, rate: 5.0, ..short() };
    let figures = measured("fleet:2", Pattern::Pairs, 4, whole.clone()).await?;
    let files = figures.files.as_ref().expect("there were files");
    assert!(files.uploaded_us.count > 0 && files.uploaded_us.count == files.fetched_us.count, "{files:?}");
    assert!(files.server_cpu_us_per_mb.is_some() && figures.acked_us.count == 0);
    assert!(report::text(&figures).contains("MB/s up"));
    let sealed = Experiment { seal: true, ..plan("embedded", Pattern::Group, 4, whole) };
    run(sealed).await?;
    let pictures = Load { files: 0.2, rate: 50.0, ..short() };
    let figures = measured("embedded", Pattern::Ring, 5, pictures.clone()).await?;
    assert!(figures.files.is_some() && figures.acked_us.count > 0);
    measured("nats", Pattern::Pairs, 4, pictures).await?;
    let closed = Load { files: 1.0, window: Some(2), ..short() };
    measured("embedded", Pattern::Pairs, 2, closed).await?;
    Ok(())
}

#[tokio::test]
async fn a_day_in_the_life() -> Result<()> {
    let load = Load { reconnects: 10.0, files: 0.1, duration_s: 3.0, ..Load::usual(Pattern::Mixed) };
    let figures = measured("fleet:2", Pattern::Mixed, 60, Load { rate: 100.0, ..load.clone() }).await?;
    assert!(figures.counts.reconnected > 5 && figures.files.is_some(), "{:?}", figures.counts);
    let sealed =
        Experiment { seal: true, ..plan("embedded", Pattern::Mixed, 12, Load { rate: 20.0, ..load }) };
    assert!(run(sealed).await?.counts.reconnected > 5);
    Ok(())
}

#[tokio::test]
async fn clients_log_in_and_hang_up() -> Result<()> {
    let mut targets = vec!["fleet:2", "embedded"];
    targets.extend(mosquitto::is_installed().then_some("mosquitto:1"));
    targets.extend(ejabberd::is_installed(false).then_some("ejabberd"));
    for name in targets {
        let mut target = target::choose(name, &Manner::default())?;
        let logins = logins::run(&mut *target, 8, Duration::from_secs(2), &|_| {}).await?;
        assert!(logins.logins > 8 && logins.server_cpu_us > 0.0, "{name}: {logins:?}");
    }
    let mut nobody = target::choose("null", &Manner::default())?;
    assert!(logins::run(&mut *nobody, 8, Duration::from_secs(2), &|_| {}).await.is_err());
    Ok(())
}

/// A peer that is not there cannot be measured: `scripts/test` installs both.
#[tokio::test]
async fn pairs_and_a_group_on_mosquitto() -> Result<()> {
    if !mosquitto::is_installed() {
        eprintln!("skipped: no mosquitto");
        return Ok(());
    }
    for target in ["mosquitto:0", "mosquitto:1"] {
        let figures = measured(target, Pattern::Pairs, 4, short()).await?;
        assert_eq!(figures.counts.acked, figures.counts.sent, "{target}");
        let figures = measured(target, Pattern::Group, 20, short()).await?;
        assert_eq!(figures.counts.expected, 19 * figures.counts.sent, "{target}");
    }
    Ok(())
}

#[tokio::test]
async fn pairs_and_a_group_on_ejabberd() -> Result<()> {
    on_ejabberd("ejabberd", false).await
}

#[tokio::test]
async fn pairs_and_a_group_on_ejabberd_with_archive() -> Result<()> {
    on_ejabberd("ejabberd:archive", true).await
}

async fn on_ejabberd(target: &str, archive: bool) -> Result<()> {
    if !ejabberd::is_installed(archive) {
        eprintln!("skipped: no ejabberd");
        return Ok(());
    }
    let mut archiving = 0.0;
    for (pattern, clients, others) in [(Pattern::Pairs, 4, 1), (Pattern::Group, 20, 19), (Pattern::Any, 1, 0)]
    {
        let figures = measured(target, pattern, clients, short()).await?;
        assert_eq!(figures.counts.acked, figures.counts.sent, "{target}, {pattern}");
        assert_eq!(figures.counts.expected, others * figures.counts.sent, "{target}, {pattern}");
        assert!(figures.components["ejabberd"].rss_bytes > 0);
        archiving += figures.components.get("postgres").map_or(0.0, |cost| cost.cpu_us_per_message);
    }
    // Some hundred commits are more than a tick, one by one they may be none.
    assert_eq!(archiving > 0.0, archive, "{target}: {archiving} us of Postgres");
    Ok(())
}

#[tokio::test]
async fn every_arrival_process_and_a_closed_loop() -> Result<()> {
    for arrivals in [Arrivals::Constant, Arrivals::Gaussian, Arrivals::Bursty] {
        measured("nats", Pattern::Pairs, 4, Load { arrivals, ..short() }).await?;
    }
    let closed = Load { window: Some(3), ..short() };
    measured("embedded", Pattern::Pairs, 4, closed).await?;
    Ok(())
}

#[tokio::test]
async fn a_report_says_what_was_measured() -> Result<()> {
    let figures = measured("null", Pattern::Group, 10, short()).await?;
    let folder = tempfile::tempdir()?;
    let out = Folder::make(folder.path())?;
    out.write_run("001", &figures)?;
    let seen = (figures.acks.len(), figures.deliveries.len());
    let report = std::fs::read_to_string(out.write_report("A <title>", &[figures])?)?;
    assert!(report.contains("A &lt;title&gt;") && report.matches("<svg").count() == 3, "{report}");
    let messages = std::fs::read_to_string(folder.path().join("001-messages.csv"))?;
    assert!(messages.lines().count() > 100 && messages.contains("delivered"));
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.path().join("001.json"))?)?;
    assert_eq!(json["verdict"]["broken"], serde_json::json!([]));

    let again = report::read(folder.path())?;
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].acks.len(), again[0].deliveries.len()), seen);
    let report = std::fs::read_to_string(out.write_report("Again", &again)?)?;
    assert!(report.contains("Again") && report.matches("<svg").count() == 3, "{report}");
    Ok(())
}

#[tokio::test]
async fn runs_that_differ_in_one_thing_make_a_curve() -> Result<()> {
    let mut one = measured("null", Pattern::Group, 10, short()).await?;
    // A busy machine makes runs void, which are in no curve.
    one.verdict.void.clear();
    let (mut more, mut other) = (one.clone(), one.clone());
    more.experiment.clients = 20;
    // Alone on its axes: nothing else is alike.
    (other.experiment.load.rate, other.experiment.pattern) = (1.0, Pattern::Ring);
    // What was run twice is one point.
    let twice = more.clone();
    let folder = tempfile::tempdir()?;
    let out = Folder::make(folder.path())?;
    let report = std::fs::read_to_string(out.write_report("many", &[one, other, more, twice])?)?;
    let over: Vec<_> =
        report.match_indices("<h2>Over the ").map(|(at, _)| &report[at + 13..at + 20]).collect();
    assert_eq!(over, ["clients"]);
    let picture = std::fs::read_to_string(folder.path().join("over-clients-1.svg"))?;
    assert!(picture.contains("null, group, ") && !picture.contains("ring"), "{picture}");
    assert_eq!(picture.matches("<circle").count(), 2, "{picture}");
    assert!(!folder.path().join("over-rate-1.svg").exists());
    Ok(())
}

#[tokio::test]
async fn a_run_that_is_told_to_end_leaves_no_server_behind() -> Result<()> {
    let arguments = ["run", "--target", "fleet:1", "--clients", "2", "--rate", "20", "--duration", "60"];
    let lab = env!("CARGO_BIN_EXE_fastchat-lab");
    let mut lab = Process::spawn_path(lab.as_ref(), "fastchat-lab", |command| {
        command.args(arguments);
    })?;
    lab.line(Duration::from_secs(120), |line| line.contains(" s of ")).await?;
    let started = machine::descendants(lab.pid().context("it runs")?)?;
    assert!(started.len() > 3, "{started:?}");
    let status = lab.terminate(Duration::from_secs(20)).await?;
    assert_eq!(status.code(), Some(2), "{}", lab.log());
    assert!(lab.log().contains("told to end"), "{}", lab.log());
    // Backends of Postgres end by themselves, in a moment.
    let begin = Instant::now();
    while started.iter().any(|pid| machine::is_running(*pid)) {
        assert!(begin.elapsed() < Duration::from_secs(10), "some of {started:?} run on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

//! Every scenario on every kind of target that needs nothing special, for some seconds: it works and
//! nothing is lost. No figure of speed is held to anything here.

use anyhow::Result;
use fastchat_lab::{
    arrivals::Arrivals,
    drive::Load,
    experiment,
    figures::{Experiment, Figures},
    plan::Pattern,
    report::{self, Folder},
    target::{ejabberd, mosquitto},
};

async fn measured(target: &str, pattern: Pattern, clients: usize, load: Load) -> Result<Figures> {
    let experiment =
        Experiment { target: target.to_owned(), pattern, clients, senders: 2.min(clients), load };
    let figures = experiment::run(&experiment, &|_| {}).await?;
    assert_eq!(figures.verdict.broken, [""; 0], "{target}, {pattern}: {:?}", figures.counts);
    assert_eq!(figures.counts.delivered, figures.counts.expected);
    assert!(figures.counts.sent > 0);
    Ok(figures)
}

fn short() -> Load {
    Load { rate: 100.0, warm_up_s: 0.5, duration_s: 1.5, ..Load::default() }
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
    let report = std::fs::read_to_string(out.write_report("A <title>", &[figures])?)?;
    assert!(report.contains("A &lt;title&gt;") && report.matches("<svg").count() == 3, "{report}");
    let messages = std::fs::read_to_string(folder.path().join("001-messages.csv"))?;
    assert!(messages.lines().count() > 100 && messages.contains("delivered"));
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.path().join("001.json"))?)?;
    assert_eq!(json["verdict"]["broken"], serde_json::json!([]));
    Ok(())
}

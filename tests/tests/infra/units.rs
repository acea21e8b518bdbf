//! The systemd units, by systemd's own judgement.

use crate::deployment::{root, run};
use anyhow::{Context, Result};
use fastchat_tests::process::program;
use std::{path::PathBuf, process::Command};

/// Of 10; systemd says "OK" below 4.0 or so, and most services have more than 9.
const MOST_EXPOSURE: f64 = 2.0;

fn units() -> Result<Vec<PathBuf>> {
    let mut units = Vec::new();
    for entry in std::fs::read_dir(root().join("infra/systemd"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "service" || extension == "timer") {
            units.push(path);
        }
    }
    assert!(units.len() >= 5, "{units:?}");
    Ok(units)
}

#[test]
fn units_are_hardened() -> Result<()> {
    for unit in units()?.into_iter().filter(|unit| unit.extension().is_some_and(|kind| kind == "service")) {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", "--no-pager", "--threshold=100"]).arg(&unit);
        let report = run(&mut command).context("on Debian: apt-get install systemd")?;
        let level =
            report.lines().find_map(|line| line.split_once("exposure level for ")?.1.split(' ').nth(1));
        let level: f64 = level.with_context(|| report.clone())?.parse()?;
        assert!(level <= MOST_EXPOSURE, "{}: {level}\n{report}", unit.display());
    }
    Ok(())
}

/// With the programs that were built here: systemd wants to see what it would run.
#[test]
fn units_are_read_without_a_complaint() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for unit in units()? {
        let mut text = std::fs::read_to_string(&unit)?;
        for name in ["fastchat-gateway", "fastchat-balancer"] {
            let built = program(name)?.display().to_string();
            text = text.replace(&format!("/usr/bin/{name} "), &format!("{built} "));
            text = text.replace(&format!("/usr/bin/{name}\n"), &format!("{built}\n"));
        }
        let backup = root().join("infra/backup/backup").canonicalize()?.display().to_string();
        text = text.replace("/usr/share/fastchat/infra/backup/backup", &backup);
        std::fs::write(folder.path().join(unit.file_name().context("a name")?), text)?;
    }
    for name in [
        "fastchat-gateway@0.service",
        "fastchat-balancer.service",
        "nats-server.service",
        "fastchat-backup.timer",
    ] {
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no", "--recursive-errors=no"]).arg(folder.path().join(name));
        let output = command.output().context("on Debian: apt-get install systemd")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let ours = |line: &&str| line.contains("fastchat") || line.contains("nats");
        let complaints: Vec<&str> = said.lines().filter(ours).collect();
        assert!(output.status.success() && complaints.is_empty(), "{name}: {said}");
    }
    Ok(())
}

/// Secrets are handed over by systemd and are in no environment file.
#[test]
fn environment_files_hold_no_secrets() -> Result<()> {
    let folder = root().join("infra/systemd");
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "env") {
            for line in std::fs::read_to_string(&path)?.lines().filter(|line| !line.starts_with('#')) {
                let (name, value) = line.split_once('=').with_context(|| line.to_owned())?;
                let secret =
                    ["PASSWORD", "PEPPER", "TICKET_KEY", "STORE"].iter().any(|word| name.contains(word));
                assert!(!secret && !value.contains('@'), "{}: {line}", path.display());
            }
        }
    }
    Ok(())
}

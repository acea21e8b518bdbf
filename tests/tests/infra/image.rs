//! The Dockerfile, as far as it can be read.

use crate::deployment::root;
use anyhow::{Context, Result};

fn dockerfile() -> Result<String> {
    Ok(std::fs::read_to_string(root().join("infra/Dockerfile"))?)
}

#[test]
fn base_images_are_pinned_and_the_compiler_is_new_enough() -> Result<()> {
    let text = dockerfile()?;
    let mut stages = vec![];
    for line in text.lines().filter_map(|line| line.strip_prefix("FROM ")) {
        let (image, stage) = line.split_once(" AS ").context("each stage has a name")?;
        if !stages.contains(&image) {
            let version = image.rsplit_once(':').map(|(_, tag)| tag).unwrap_or_default();
            let exact = version.split('-').next().unwrap_or_default().split('.').count() == 3;
            assert!(exact || image.contains("@sha256:"), "{image} is not pinned");
        }
        stages.push(stage);
    }
    assert_eq!(stages, ["build", "base", "gateway", "balancer"]);
    let manifest: toml::Table = std::fs::read_to_string(root().join("Cargo.toml"))?.parse()?;
    let needed = manifest["workspace"]["package"]["rust-version"].as_str().context("rust-version")?;
    assert!(text.contains(&format!("FROM rust:{needed}.")), "the image's compiler is not {needed}");
    Ok(())
}

#[test]
fn what_runs_is_not_root_and_has_no_shell() -> Result<()> {
    let text = dockerfile()?;
    let (_, last) = text.split_once("FROM gcr.io/distroless/").context("a base without a shell")?;
    assert!(last.contains("\nUSER 65532:65532\n"));
    for line in last.lines() {
        let instruction = line.split(' ').next().unwrap_or_default();
        assert!(!["RUN", "ADD", "SHELL"].contains(&instruction), "needs a shell: {line}");
        let form = ["ENTRYPOINT", "CMD"].contains(&instruction) || line.contains(" CMD ");
        assert!(!form || line.contains('['), "runs in a shell: {line}");
    }
    Ok(())
}

/// The build sees exactly what the workspace consists of.
#[test]
fn the_build_gets_every_crate_and_nothing_secret() -> Result<()> {
    let manifest: toml::Table = std::fs::read_to_string(root().join("Cargo.toml"))?.parse()?;
    let ignored = std::fs::read_to_string(root().join(".dockerignore"))?;
    let let_in: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignored.lines().any(|line| line == "*"), "what is not named stays out");
    let members = manifest["workspace"]["members"].as_array().context("members")?;
    for member in members.iter().filter_map(toml::Value::as_str).chain(["Cargo.toml", "Cargo.lock"]) {
        assert!(let_in.contains(&member), "the build does not see {member}");
    }
    assert!(let_in.iter().all(|name| root().join(name).exists()), "{let_in:?}");
    Ok(())
}

//! What infra/ sets is what the programs know, and they find it good.

use crate::{
    compose::filled_in,
    deployment::{Secrets, root, run},
    yaml::{self, pairs},
};
use anyhow::{Context, Result};
use fastchat_tests::process::program;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// Every variable that the help of a program names.
fn known() -> Result<BTreeSet<String>> {
    let mut known = BTreeSet::new();
    for (name, commands) in [("fastchat-gateway", &[""][..]), ("fastchat-balancer", &["serve", "fleet"])] {
        for command in commands {
            let arguments = [*command, "--help"].into_iter().filter(|argument| !argument.is_empty());
            let help = run(Command::new(program(name)?).args(arguments))?;
            known.extend(variables(&help));
        }
    }
    assert!(known.len() > 40, "{known:?}");
    Ok(known)
}

/// Words like FASTCHAT_GATEWAY_LISTEN.
fn variables(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = |word: &&str| word.starts_with("FASTCHAT_GATEWAY_") || word.starts_with("FASTCHAT_BALANCER_");
    words.filter(ours).filter(|word| !word.ends_with('_')).map(str::to_owned).collect()
}

/// All files of a folder, and of those in it.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

#[test]
fn every_variable_is_one_that_a_program_knows() -> Result<()> {
    let known = known()?;
    let mut seen = 0;
    let mut places = files(&root().join("infra"))?;
    places.extend([root().join("docs/operations.md"), root().join("scripts/secrets")]);
    for path in places {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for variable in variables(&text) {
            assert!(known.contains(&variable), "{}: no program knows {variable}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen}");
    Ok(())
}

/// Asks a program what it thinks of an environment in which secrets and certificates are elsewhere.
fn check(name: &str, environment: &BTreeMap<String, String>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(program(name)?);
    command.arg("check-config").env_clear().envs(environment).current_dir(folder.path());
    assert!(run(&mut command)?.contains("good"));
    Ok(())
}

fn of_service(service: &Value, secrets: &Secrets) -> Result<BTreeMap<String, String>> {
    let secret = |value: &str| match value.strip_prefix("/run/secrets/") {
        Some(name) => secrets.path(name),
        None => filled_in(value),
    };
    let mut environment: BTreeMap<String, String> = pairs(&service["environment"])
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), secret(value.as_str()?))))
        .collect();
    if service["env_file"].is_array() {
        environment.extend(of_file(&secrets.read("balancer-keys.env")?));
    }
    Ok(environment)
}

/// What systemd and Compose read of an environment file.
fn of_file(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

#[test]
fn the_programs_take_what_compose_gives_them() -> Result<()> {
    let compose = yaml::read("infra/compose.yaml")?;
    let secrets = Secrets::make(&["--compose", "--database", "postgres"])?;
    for name in ["gateway-0", "gateway-1", "gateway-2", "migrate"] {
        check("fastchat-gateway", &of_service(&compose["services"][name], &secrets)?).context(name)?;
    }
    check("fastchat-balancer", &of_service(&compose["services"]["balancer"], &secrets)?)?;

    let over = yaml::read("infra/compose.tls.yaml")?;
    let tls = certificates(&secrets)?;
    for name in ["gateway-0", "gateway-1", "gateway-2", "balancer"] {
        let mut environment = of_service(&compose["services"][name], &secrets)?;
        environment.extend(of_service(&over["services"][name], &secrets)?);
        // As the heading of compose.tls.yaml says: FASTCHAT_SCHEME=wss.
        let said = |value: &str| value.replace("/etc/fastchat/tls", &tls).replace("ws://", "wss://");
        environment.values_mut().for_each(|value| *value = said(value));
        let program = if name == "balancer" { name } else { "gateway" };
        check(&format!("fastchat-{program}"), &environment).context(name)?;
    }
    Ok(())
}

/// A folder as /etc/fastchat/tls.
fn certificates(secrets: &Secrets) -> Result<String> {
    let folder = secrets.path("tls");
    run(Command::new(root().join("infra/tls/make-certificates")).args([&folder, "chain,localhost"]))?;
    std::fs::rename(Path::new(&folder).join("chain.key"), Path::new(&folder).join("key.pem"))?;
    Ok(folder)
}

#[test]
fn the_programs_take_what_the_units_give_them() -> Result<()> {
    let secrets = Secrets::make(&[])?;
    let tls = certificates(&secrets)?;
    // `scripts/secrets` makes no keys of other people's servers.
    for name in ["s3-access-key", "s3-secret-key"] {
        std::fs::write(secrets.path(name), "a key")?;
    }
    let gateway = ["systemd/gateway.env", "systemd/gateway-0.env", "examples/files-in-s3/gateway.env"];
    let gateway_units = ["systemd/fastchat-gateway@.service", "examples/files-in-s3/s3.conf"];
    for (name, units, files) in [
        ("fastchat-gateway", &gateway_units[..1], &gateway[..2]),
        ("fastchat-gateway", &gateway_units, &gateway),
        ("fastchat-balancer", &["systemd/fastchat-balancer.service"], &["systemd/balancer.env"]),
    ] {
        let mut environment: BTreeMap<String, String> =
            of_file(&secrets.read("balancer-keys.env")?).into_iter().collect();
        for file in files {
            environment.extend(of_file(&std::fs::read_to_string(root().join("infra").join(file))?));
        }
        let read = |unit: &&str| std::fs::read_to_string(root().join("infra").join(unit));
        let unit = units.iter().map(read).collect::<std::io::Result<Vec<_>>>()?.join("\n");
        // LoadCredential=NAME:FILE, and Environment=VARIABLE=%d/NAME.
        let lines = |key: &'static str| unit.lines().filter_map(move |line| line.strip_prefix(key));
        let credentials: BTreeMap<&str, &str> =
            lines("LoadCredential=").filter_map(|credential| credential.split_once(':')).collect();
        for (variable, value) in lines("Environment=").filter_map(|line| line.split_once('=')) {
            let value = match value.strip_prefix("%d/") {
                Some(credential) => {
                    let file =
                        credentials.get(credential).with_context(|| format!("no credential {credential}"))?;
                    secrets.path(
                        file.strip_prefix("/etc/fastchat/secrets/").context("in the folder of secrets")?,
                    )
                }
                None => value.to_owned(),
            };
            environment.insert(variable.to_owned(), value);
        }
        environment.values_mut().for_each(|value| *value = value.replace("/etc/fastchat/tls", &tls));
        check(name, &environment).context(name)?;
    }
    Ok(())
}

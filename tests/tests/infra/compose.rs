//! compose.yaml by itself: every rule that we have for a container.

use crate::{
    deployment::{Secrets, root},
    yaml::{self, items, pairs, texts},
};
use anyhow::Result;
use serde_json::Value;
use std::{os::unix::fs::PermissionsExt, path::Path};

/// Begins as root to own its volume, and goes on as somebody else; its capabilities are listed.
const BEGINS_AS_ROOT: &str = "postgres";
/// Those that do their work and end.
const ONCE: [&str; 2] = ["migrate", "grants"];
/// What people reach; the rest is reached by these only.
const PUBLISHED: [&str; 6] = ["gateway-0", "gateway-1", "gateway-2", "balancer", "prometheus", "grafana"];

/// `${NAME:-default}` as Compose fills it in when nothing is set.
pub(crate) fn filled_in(text: &str) -> String {
    let mut parts = text.split("${");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (variable, rest) = part.split_once('}').unwrap_or((part, ""));
        filled += variable.split_once(":-").map_or("", |(_, default)| default);
        filled += rest;
    }
    filled
}

fn services(compose: &Value) -> Vec<(&str, &Value)> {
    pairs(&compose["services"])
}

#[test]
fn images_are_pinned() -> Result<()> {
    let compose = yaml::read("infra/compose.yaml")?;
    assert!(services(&compose).len() >= 10);
    for (name, service) in services(&compose) {
        let image = service["image"].as_str().unwrap_or_default();
        let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{name}: {image} has no tag"));
        if service["build"].is_object() {
            assert_eq!(tag, "local", "{name}: what is built here is not pulled");
        } else {
            let version = tag.trim_start_matches('v').split('-').next().unwrap_or_default();
            let numbers: Vec<&str> = version.split('.').collect();
            let exact = numbers.len() >= 2 && numbers.iter().all(|number| number.parse::<u32>().is_ok());
            assert!(exact, "{name}: {image} is not one version");
        }
    }
    Ok(())
}

#[test]
fn containers_are_not_root_and_write_only_where_they_must() -> Result<()> {
    let compose = yaml::read("infra/compose.yaml")?;
    for (name, service) in services(&compose) {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(texts(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(texts(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        assert!(service["privileged"].is_null() && service["pid"].is_null(), "{name}");
        if name == BEGINS_AS_ROOT {
            continue;
        }
        let user = service["user"].as_str().unwrap_or_default();
        let uid = user.split(':').next().and_then(|uid| uid.parse::<u32>().ok());
        assert!(uid.is_some_and(|uid| uid > 0), "{name} runs as {user:?}");
        assert!(service["cap_add"].is_null(), "{name}");
    }
    Ok(())
}

#[test]
fn everything_restarts_and_says_how_it_is() -> Result<()> {
    let compose = yaml::read("infra/compose.yaml")?;
    for (name, service) in services(&compose) {
        let (restart, health) = (service["restart"].as_str(), &service["healthcheck"]);
        if ONCE.contains(&name) {
            assert_eq!((restart, &health["disable"]), (Some("on-failure"), &Value::Bool(true)), "{name}");
        } else {
            assert_eq!(restart, Some("unless-stopped"), "{name}");
            assert_eq!(health["test"][0], "CMD", "{name}: no shell is needed to ask");
            for key in ["interval", "timeout", "retries"] {
                assert!(!health[key].is_null(), "{name}: healthcheck.{key}");
            }
        }
        for (other, how) in pairs(&service["depends_on"]) {
            let condition = how["condition"].as_str().unwrap_or_default();
            let right =
                if ONCE.contains(&other) { "service_completed_successfully" } else { "service_healthy" };
            assert_eq!(condition, right, "{name} waits for {other}");
            assert!(compose["services"][other].is_object(), "{name} waits for {other}, which is not there");
        }
    }
    Ok(())
}

#[test]
fn bus_and_database_cannot_be_reached_from_outside() -> Result<()> {
    let compose = yaml::read("infra/compose.yaml")?;
    for network in ["bus", "database", "metrics"] {
        assert_eq!(compose["networks"][network]["internal"], true, "{network}");
    }
    for (name, service) in services(&compose) {
        for network in texts(&service["networks"]) {
            assert!(compose["networks"].get(network).is_some(), "{name}: there is no network {network}");
        }
        let published = !items(&service["ports"]).is_empty();
        let outside = texts(&service["networks"]).contains(&"edge");
        assert_eq!((published, outside), (PUBLISHED.contains(&name), PUBLISHED.contains(&name)), "{name}");
        assert!(service["network_mode"].as_str().is_none_or(|mode| mode == "service:nats"), "{name}");
        for port in texts(&service["ports"]) {
            let port = filled_in(port);
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port} is published to everybody by default");
        }
    }
    Ok(())
}

#[test]
fn files_that_are_mounted_exist() -> Result<()> {
    let compose = yaml::read("infra/compose.yaml")?;
    for (name, service) in services(&compose) {
        for volume in texts(&service["volumes"]) {
            let volume = filled_in(volume);
            let (source, target) = volume.split_once(':').unwrap_or_else(|| panic!("{name}: {volume}"));
            if source.starts_with('.') {
                assert!(root().join("infra").join(source).exists(), "{name}: {source} is not there");
                assert!(target.ends_with(":ro"), "{name}: {volume} can be written");
            } else {
                assert!(
                    compose["volumes"].get(source).is_some(),
                    "{name}: the volume {source} is not declared"
                );
            }
        }
        if let Some(file) = service["build"]["dockerfile"].as_str() {
            let target = service["build"]["target"].as_str().unwrap_or_default();
            let text = std::fs::read_to_string(root().join(file))?;
            assert!(text.contains(&format!(" AS {target}\n")), "{name}: {file} has no stage {target}");
        }
    }
    Ok(())
}

#[test]
fn secrets_come_by_file_and_are_what_the_script_makes() -> Result<()> {
    let compose = yaml::read("infra/compose.yaml")?;
    let secrets = Secrets::make(&["--compose", "--database", "postgres"])?;
    for (name, secret) in pairs(&compose["secrets"]) {
        let file = filled_in(secret["file"].as_str().unwrap_or_default());
        let made = secrets.path(file.strip_prefix("./secrets/").unwrap_or_else(|| panic!("{name}: {file}")));
        let mode =
            std::fs::metadata(&made).unwrap_or_else(|e| panic!("{name}: {e}: {made}")).permissions().mode();
        assert_eq!(mode & 0o777, 0o444, "{name}: a container of another user could not read it");
    }
    let folder = std::fs::metadata(Path::new(&secrets.path("pepper")).with_file_name(""))?;
    assert_eq!(folder.permissions().mode() & 0o777, 0o700, "others of the machine could read secrets");
    for (name, service) in services(&compose) {
        let given: Vec<&str> = items(&service["secrets"])
            .into_iter()
            .filter_map(|secret| secret.as_str().or(secret["source"].as_str()))
            .collect();
        assert!(given.iter().all(|secret| compose["secrets"].get(secret).is_some()), "{name}: {given:?}");
        for (variable, value) in pairs(&service["environment"]) {
            let value = value.as_str().unwrap_or_else(|| panic!("{name}: {variable} is not a text"));
            match value.strip_prefix("/run/secrets/") {
                Some(secret) => {
                    assert!(variable.ends_with("_FILE"), "{name}: {variable}");
                    assert!(given.contains(&secret), "{name} is not given {secret}");
                }
                None => {
                    let secret = ["PASSWORD", "PASS", "SECRET", "PEPPER", "TOKEN", "TICKET_KEY"];
                    assert!(
                        !secret.iter().any(|word| variable.contains(word)),
                        "{name}: {variable} holds a secret"
                    );
                    assert!(!value.contains('@'), "{name}: {variable} holds a login");
                }
            }
        }
        for file in texts(&service["env_file"]) {
            let made = filled_in(file).replace("./secrets/", "");
            assert!(Path::new(&secrets.path(&made)).exists(), "{name}: {file}");
        }
    }
    Ok(())
}

#[test]
fn what_is_left_open_is_filled_in() {
    assert_eq!(filled_in("${A:-x}:1"), "x:1");
    assert_eq!(filled_in("a/${B}/${C:-./d}/e"), "a//./d/e");
}

//! Ports, names and paths that one file tells another.

use crate::{
    compose::filled_in,
    deployment::root,
    yaml::{self, items, pairs, texts},
};
use anyhow::{Context, Result};
use serde_json::Value;
use std::{collections::BTreeSet, process::Command};

fn service<'a>(compose: &'a Value, name: &str) -> &'a Value {
    let service = &compose["services"][name];
    assert!(service.is_object(), "compose.yaml has no service {name}");
    service
}

fn variable(service: &Value, name: &str) -> String {
    filled_in(service["environment"][name].as_str().unwrap_or_else(|| panic!("{name} is not set")))
}

fn port_of(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or_default()
}

/// The URL that a health check asks: its last word.
fn asked_for_health(service: &Value) -> &str {
    texts(&service["healthcheck"]["test"]).pop().unwrap_or_default()
}

/// The value of a plain setting in a nats.conf.
fn nats_setting(key: &str) -> Result<String> {
    let text = std::fs::read_to_string(root().join("infra/nats/nats.conf"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    Ok(line.with_context(|| format!("nats.conf has no {key}"))?.trim_matches('"').to_owned())
}

fn job<'a>(prometheus: &'a Value, name: &str) -> &'a Value {
    let jobs = items(&prometheus["scrape_configs"]);
    jobs.into_iter().find(|job| job["job_name"] == name).unwrap_or_else(|| panic!("there is no job {name}"))
}

fn targets(prometheus: &Value, name: &str) -> Vec<String> {
    let configs = items(&job(prometheus, name)["static_configs"]);
    configs.into_iter().flat_map(|config| texts(&config["targets"])).map(str::to_owned).collect()
}

#[test]
fn prometheus_asks_where_things_are() -> Result<()> {
    let (compose, prometheus) =
        (yaml::read("infra/compose.yaml")?, yaml::read("infra/prometheus/prometheus.yml")?);
    let jobs: BTreeSet<&str> =
        items(&prometheus["scrape_configs"]).into_iter().filter_map(|job| job["job_name"].as_str()).collect();
    assert_eq!(jobs, BTreeSet::from(["gateway", "balancer", "nats", "postgres", "prometheus"]));

    let mut gateways: Vec<String> = Vec::new();
    for (name, service) in pairs(&compose["services"]) {
        if name.starts_with("gateway-") {
            let admin = variable(service, "FASTCHAT_GATEWAY_ADMIN_LISTEN");
            gateways.push(format!("{name}:{}", port_of(&admin)));
        }
    }
    assert_eq!(targets(&prometheus, "gateway"), gateways);
    let balancer = variable(service(&compose, "balancer"), "FASTCHAT_BALANCER_ADMIN_LISTEN");
    assert_eq!(targets(&prometheus, "balancer"), [format!("balancer:{}", port_of(&balancer))]);
    let exporter = service(&compose, "nats-exporter");
    assert_eq!(exporter["network_mode"], "service:nats", "its port is seen at the name nats");
    let health = asked_for_health(exporter);
    assert!(health.contains(&targets(&prometheus, "nats")[0].replace("nats:", "127.0.0.1:")), "{health}");
    let health = asked_for_health(service(&compose, "postgres-exporter"));
    let asked = targets(&prometheus, "postgres")[0].replace("postgres-exporter:", "127.0.0.1:");
    assert!(health.contains(&asked), "{health}");
    for name in ["gateway-0", "balancer", "nats", "postgres-exporter", "grafana", "prometheus"] {
        assert!(texts(&service(&compose, name)["networks"]).contains(&"metrics"), "{name} is out of sight");
    }
    Ok(())
}

#[test]
fn prometheus_itself_takes_its_configuration() -> Result<()> {
    for path in ["infra/prometheus/prometheus.yml", "infra/examples/three-machines/prometheus.yml"] {
        let output = Command::new("promtool").args(["check", "config"]).arg(root().join(path)).output();
        let output =
            output.context("promtool comes with prometheus; on Debian: apt-get install prometheus")?;
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
    Ok(())
}

#[test]
fn the_balancer_and_grafana_ask_that_prometheus() -> Result<()> {
    let (compose, prometheus) =
        (yaml::read("infra/compose.yaml")?, yaml::read("infra/prometheus/prometheus.yml")?);
    let own = targets(&prometheus, "prometheus")[0].replace("localhost:", "http://prometheus:");
    let balancer = service(&compose, "balancer");
    assert_eq!(variable(balancer, "FASTCHAT_BALANCER_LOAD_SOURCE"), format!("heartbeats,prometheus={own}"));
    let interval = prometheus["global"]["scrape_interval"].as_str().context("scrape_interval")?;
    assert!(job(&prometheus, "gateway")["scrape_interval"].is_null(), "the balancer is told the global one");
    let seconds: u64 = interval.strip_suffix('s').context("seconds")?.parse()?;
    assert_eq!(variable(balancer, "FASTCHAT_BALANCER_SCRAPE_INTERVAL_MS"), (1000 * seconds).to_string());

    let source = &yaml::read("infra/grafana/provisioning/datasources/prometheus.yml")?["datasources"][0];
    assert_eq!((&source["url"], &source["type"]), (&Value::from(own), &Value::from("prometheus")));
    assert_eq!(source["jsonData"]["timeInterval"], interval);
    let provider = &yaml::read("infra/grafana/provisioning/dashboards/fastchat.yml")?["providers"][0];
    let path = provider["options"]["path"].as_str().context("a path")?;
    let grafana = service(&compose, "grafana");
    assert!(texts(&grafana["volumes"]).contains(&format!("../dashboards:{path}:ro").as_str()), "{path}");
    let home = variable(grafana, "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH");
    let file = home.strip_prefix(path).context("the home page is one of ours")?;
    assert!(root().join("dashboards").join(file.trim_start_matches('/')).exists(), "there is no {file}");
    Ok(())
}

#[test]
fn everybody_finds_the_bus_and_its_monitoring() -> Result<()> {
    let compose = yaml::read("infra/compose.yaml")?;
    let bus = format!("nats://nats:{}", port_of(&nats_setting("listen")?));
    for name in ["gateway-0", "gateway-1", "gateway-2"] {
        assert_eq!(variable(service(&compose, name), "FASTCHAT_GATEWAY_BUS"), bus);
    }
    assert_eq!(variable(service(&compose, "balancer"), "FASTCHAT_BALANCER_BUS"), bus);
    let monitoring = format!("http://{}", nats_setting("http")?);
    assert!(monitoring.starts_with("http://127.0.0.1:"), "monitoring has no login: {monitoring}");
    assert!(texts(&service(&compose, "nats-exporter")["command"]).contains(&monitoring.as_str()));
    let health = asked_for_health(service(&compose, "nats"));
    assert_eq!(health, format!("{monitoring}/healthz"));
    Ok(())
}

#[test]
fn gateways_say_where_they_are_published() -> Result<()> {
    let compose = yaml::read("infra/compose.yaml")?;
    let mut seen = BTreeSet::new();
    for name in ["gateway-0", "gateway-1", "gateway-2"] {
        let service = service(&compose, name);
        let published = filled_in(texts(&service["ports"])[0]);
        let (outside, inside) = published.rsplit_once(':').context("host:port:port")?;
        assert_eq!(variable(service, "FASTCHAT_GATEWAY_PUBLIC_URL"), format!("ws://{outside}"), "{name}");
        assert_eq!(port_of(&variable(service, "FASTCHAT_GATEWAY_LISTEN")), inside, "{name}");
        assert!(seen.insert(outside.to_owned()), "{outside} is published twice");
    }
    let balancer = service(&compose, "balancer");
    let published = filled_in(texts(&balancer["ports"])[0]);
    assert_eq!(port_of(&variable(balancer, "FASTCHAT_BALANCER_LISTEN")), port_of(&published));
    let admin = port_of(&variable(balancer, "FASTCHAT_BALANCER_ADMIN_LISTEN")).to_owned();
    assert_eq!(variable(balancer, "FASTCHAT_BALANCER_ADMIN"), format!("http://127.0.0.1:{admin}"));
    Ok(())
}

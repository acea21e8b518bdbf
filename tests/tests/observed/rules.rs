//! Recording rules and alerts, by Prometheus' own tool.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn promtool(arguments: &[&str]) {
    let done = Command::new("promtool").args(arguments).current_dir(root()).output();
    let done = done.expect("promtool comes with Debian's prometheus");
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// The words after `key: ` in a file.
fn after(text: &str, key: &str) -> BTreeSet<String> {
    let value = |line: &str| line.trim_start_matches([' ', '-']).strip_prefix(key).map(str::to_owned);
    text.lines().filter_map(value).collect()
}

#[test]
fn the_rules_are_right_and_each_alert_fires_and_is_quiet() {
    promtool(&["check", "rules", "infra/prometheus/rules/fastchat.yml"]);
    promtool(&["test", "rules", "infra/prometheus/tests/fastchat.yml", "infra/prometheus/tests/slow.yml"]);
}

#[test]
fn every_alert_has_cases_a_severity_and_a_page() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect("it can be read");
    let rules = read("infra/prometheus/rules/fastchat.yml");
    let cases = read("infra/prometheus/tests/fastchat.yml") + &read("infra/prometheus/tests/slow.yml");
    let (alerts, tested) = (after(&rules, "alert: "), after(&cases, "name: "));
    assert!(alerts.len() >= 15, "{alerts:?}");
    for alert in &alerts {
        for case in ["fires", "is quiet"] {
            assert!(tested.contains(&format!("{alert} {case}")), "there is no case in which {alert} {case}");
        }
        let page = format!("docs/runbooks/{alert}.md");
        assert!(after(&rules, "runbook_url: ").contains(&page), "{alert} does not name its page");
        let lines = read(&page).lines().count();
        assert!((15..=40).contains(&lines), "{page} has {lines} lines");
    }
    for block in rules.split("- alert: ").skip(1) {
        for key in ["severity: ", "summary: ", "description: ", "for: "] {
            assert!(block.contains(key), "no {key} in {block}");
        }
    }
    let pages = std::fs::read_dir(root().join("docs/runbooks")).expect("runbooks");
    for page in pages {
        let name = page.expect("a page").file_name().to_string_lossy().trim_end_matches(".md").to_owned();
        assert!(name == "README" || alerts.contains(&name), "the page {name} is of no alert");
    }
}

/// What rules ask for is measured.
#[test]
fn rules_ask_for_what_is_measured() {
    let rules = std::fs::read_to_string(root().join("infra/prometheus/rules/fastchat.yml")).expect("rules");
    let catalogues = [fastchat_gateway::metrics::CATALOGUE, fastchat_balancer::metrics::CATALOGUE];
    let more = [fastchat_telemetry::PROCESS, fastchat_telemetry::EVENT_LOOP];
    let known: BTreeSet<_> = catalogues.into_iter().chain(more).flatten().map(|metric| metric.name).collect();
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
    let words =
        rules.split(word).filter(|word| word.starts_with("fastchat_") || word.starts_with("process_"));
    for name in words {
        let metric = name.trim_end_matches("_bucket");
        assert!(known.contains(metric), "a rule asks for {name}");
    }
}

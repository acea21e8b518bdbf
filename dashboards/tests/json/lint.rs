//! The rules of Grafana's dashboard linter (github.com/grafana/dashboard-linter, docs/rules), restated:
//! a name here is a rule's name there. Rules on LogQL have nothing to look at. `target-promql-rule` is
//! checked by asking a real Prometheus every query (tests/tests/dashboards.rs).

use super::committed;
use serde_json::Value;

type Found = Vec<String>;
type Rule = fn(&Value, &mut Found);

/// Every rule, by its name.
const RULES: [(&str, Rule); 14] = [
    ("template-datasource-rule", template_datasource),
    ("template-job-rule", |board, found| template_label(board, "job", found)),
    ("template-instance-rule", |board, found| template_label(board, "instance", found)),
    ("template-label-promql-rule", template_promql),
    ("template-on-time-change-reload-rule", template_reload),
    ("panel-datasource-rule", panel_datasource),
    ("panel-title-description-rule", panel_words),
    ("panel-units-rule", panel_units),
    ("panel-no-targets-rule", panel_targets),
    ("target-rate-interval-rule", target_rate_interval),
    ("target-job-rule", |board, found| target_matches(board, "job", found)),
    ("target-instance-rule", |board, found| target_matches(board, "instance", found)),
    ("target-counter-agg-rule", target_counters),
    ("uneditable-dashboard-rule", uneditable),
];

/// Where a dashboard also shows what another job measures: the bus and the store as gateways see them.
const OTHER_JOB: [&str; 2] = ["nats.json", "postgres.json"];

fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    board["panels"].as_array().into_iter().flatten().filter(|panel| panel["type"] != "row")
}

fn targets(board: &Value) -> impl Iterator<Item = (&str, &str)> {
    panels(board).flat_map(|panel| {
        let title = panel["title"].as_str().unwrap_or("");
        let list = panel["targets"].as_array().into_iter().flatten();
        list.map(move |target| (title, target["expr"].as_str().unwrap_or("")))
    })
}

fn variable<'a>(board: &'a Value, name: &str) -> &'a Value {
    let mut list = board["templating"]["list"].as_array().into_iter().flatten();
    list.find(|variable| variable["name"] == name).unwrap_or(&Value::Null)
}

fn template_datasource(board: &Value, found: &mut Found) {
    let source = variable(board, "datasource");
    if source["type"] != "datasource" || source["query"] != "prometheus" || source["label"] != "Data source" {
        found.push("no variable that chooses the Prometheus".into());
    }
}

fn template_label(board: &Value, name: &str, found: &mut Found) {
    let variable = variable(board, name);
    let good = variable["type"] == "query"
        && variable["datasource"]["uid"] == "${datasource}"
        && variable["label"] == name
        && variable["multi"] == true
        && variable["includeAll"] == true
        && variable["allValue"] == ".+";
    if !good {
        found.push(format!("the variable {name} is not one for several values, with all of them as .+"));
    }
}

fn template_promql(board: &Value, found: &mut Found) {
    for name in ["job", "instance"] {
        let query = variable(board, name)["query"]["query"].as_str().unwrap_or("");
        if !query.starts_with("label_values(") || !query.ends_with(&format!(", {name})")) {
            found.push(format!("{name} is not made from labels: {query}"));
        }
    }
}

fn template_reload(board: &Value, found: &mut Found) {
    for variable in board["templating"]["list"].as_array().into_iter().flatten() {
        if variable["type"] == "query" && variable["refresh"] != 2 {
            found.push(format!("{} is not read again when the time changes", variable["name"]));
        }
    }
}

fn panel_datasource(board: &Value, found: &mut Found) {
    for panel in panels(board).filter(|panel| panel["datasource"]["uid"] != "${datasource}") {
        found.push(format!("{} does not use the chosen data source", panel["title"]));
    }
}

fn panel_words(board: &Value, found: &mut Found) {
    for panel in panels(board) {
        if ["title", "description"].iter().any(|name| panel[name].as_str().unwrap_or("").is_empty()) {
            found.push(format!("{} lacks a title or a description", panel["title"]));
        }
    }
}

fn panel_units(board: &Value, found: &mut Found) {
    let known = ["short", "ops", "percentunit", "none", "s", "bytes", "Bps"];
    for panel in panels(board) {
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or("");
        if !known.contains(&unit) {
            found.push(format!("{} has no unit that Grafana knows: {unit:?}", panel["title"]));
        }
    }
}

fn panel_targets(board: &Value, found: &mut Found) {
    for panel in panels(board).filter(|panel| panel["targets"].as_array().is_none_or(Vec::is_empty)) {
        found.push(format!("{} asks nothing", panel["title"]));
    }
}

fn target_rate_interval(board: &Value, found: &mut Found) {
    for (title, expr) in targets(board) {
        // A ping every five seconds needs a window that holds some, however near one looks.
        let fixed = expr.contains("store_ping_seconds");
        let windows = expr.split('[').skip(1).filter_map(|rest| rest.split(']').next());
        if windows.into_iter().any(|window| window != "$__rate_interval" && !fixed) {
            found.push(format!("{title}: a window that is not $__rate_interval: {expr}"));
        }
    }
}

/// Every selector of a metric has a matcher of job or instance with the variable.
fn target_matches(board: &Value, label: &str, found: &mut Found) {
    let other_job = board["uid"].as_str().is_some_and(|uid| {
        OTHER_JOB.iter().any(|file| uid.trim_start_matches("fastchat-") == file.trim_end_matches(".json"))
    });
    for (title, expr) in targets(board) {
        let recorded = expr.contains("job:") && label == "instance";
        let elsewhere = other_job && expr.contains("fastchat_");
        let matcher = format!("{label}=~\"${label}\"");
        // Every metric here has a selector, so that braces count metrics.
        let (selectors, matched) = (expr.matches('{').count(), expr.matches(&matcher).count());
        if !recorded && !elsewhere && (matched == 0 || matched < selectors) {
            found.push(format!("{title}: not every metric is of the chosen {label}: {expr}"));
        }
    }
}

fn target_counters(board: &Value, found: &mut Found) {
    for (title, expr) in targets(board) {
        let counted =
            ["_total{", "_total[", "_bucket{", "_bucket[", "_count{", "_sum{", "xact_commit{", "in_msgs{"];
        // A count of connections is a gauge whatever its name ends in.
        let counter = counted.iter().any(|end| expr.contains(end))
            && !expr.contains("activity_count{")
            && !expr.contains("locks_count{");
        let rated = ["rate(", "increase("].iter().any(|function| expr.contains(function));
        if counter && !rated {
            found.push(format!("{title}: a counter without a rate: {expr}"));
        }
    }
}

fn uneditable(board: &Value, found: &mut Found) {
    if board["editable"] != false {
        found.push("it can be edited where it is provisioned, and would be overwritten".into());
    }
}

fn lint(board: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for (rule, check) in RULES {
        let mut found = Vec::new();
        check(board, &mut found);
        all.extend(found.into_iter().map(|problem| format!("{rule}: {problem}")));
    }
    all
}

#[test]
fn the_linter_finds_nothing() {
    for (name, board) in committed() {
        let found = lint(&board);
        assert!(found.is_empty(), "{name}:\n{}", found.join("\n"));
    }
}

#[test]
fn each_rule_finds_what_it_is_for() {
    let good = committed().into_iter().find(|(name, _)| name == "overview.json").expect("it is committed").1;
    type Spoil = fn(&mut Value);
    fn expr(board: &mut Value, expr: &str) {
        board["panels"][1]["targets"][0]["expr"] = expr.into();
    }
    let spoilt: [(&str, Spoil); 14] = [
        ("template-datasource-rule", |board| board["templating"]["list"][0]["query"] = "loki".into()),
        ("template-job-rule", |board| board["templating"]["list"][1]["allValue"] = "".into()),
        ("template-instance-rule", |board| board["templating"]["list"][2]["multi"] = false.into()),
        ("template-label-promql-rule", |board| {
            board["templating"]["list"][1]["query"]["query"] = "up".into()
        }),
        ("template-on-time-change-reload-rule", |board| board["templating"]["list"][1]["refresh"] = 1.into()),
        ("panel-datasource-rule", |board| board["panels"][1]["datasource"]["uid"] = "fixed".into()),
        ("panel-title-description-rule", |board| board["panels"][1]["description"] = "".into()),
        ("panel-units-rule", |board| board["panels"][1]["fieldConfig"]["defaults"]["unit"] = "".into()),
        ("panel-no-targets-rule", |board| board["panels"][1]["targets"] = Value::Array(Vec::new())),
        ("target-rate-interval-rule", |board| {
            expr(board, "rate(x_total{job=~\"$job\",instance=~\"$instance\"}[5m])")
        }),
        ("target-job-rule", |board| expr(board, "fastchat_connections{instance=~\"$instance\"}")),
        ("target-instance-rule", |board| expr(board, "fastchat_connections{job=~\"$job\"}")),
        ("target-counter-agg-rule", |board| expr(board, "x_total{job=~\"$job\",instance=~\"$instance\"}")),
        ("uneditable-dashboard-rule", |board| board["editable"] = true.into()),
    ];
    assert!(RULES.iter().all(|(rule, _)| spoilt.iter().any(|(name, _)| name == rule)));
    for (rule, spoil) in spoilt {
        let mut board = good.clone();
        spoil(&mut board);
        let found = lint(&board);
        assert!(found.iter().any(|problem| problem.starts_with(rule)), "{rule} found {found:?}");
    }
}

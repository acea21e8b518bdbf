//! Queries with their placeholders filled in.

use crate::Dashboard;

/// As Grafana gets it.
pub fn for_grafana(expr: &str) -> String {
    fill(expr, "job=~\"$job\",instance=~\"$instance\"", "$__rate_interval")
}

/// As Prometheus gets it: every job and instance that has the dashboard's metric, over `interval`.
pub fn for_prometheus(expr: &str, job: &str, interval: &str) -> String {
    fill(expr, &format!("job=~\"{job}\",instance=~\".+\""), interval).replace("$job", job)
}

/// The job that a dashboard is about, in infra/prometheus and scripts/fleet.
pub fn job(dashboard: &Dashboard) -> &'static str {
    match dashboard.uid {
        "fastchat-balancer" => "balancer",
        "fastchat-nats" => "nats",
        "fastchat-postgres" => "postgres",
        _ => "gateway",
    }
}

fn fill(expr: &str, matchers: &str, interval: &str) -> String {
    let expr = expr.replace("{@", &format!("{{{matchers}")).replace("[@]", &format!("[{interval}]"));
    expr.replace("$__rate_interval", interval)
}

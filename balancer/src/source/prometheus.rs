//! Samples that a Prometheus scraped from the gateways.
//!
//! One query an interval, for raw samples with their times: an instant query would stamp everything
//! with now. What belongs to one gateway has one `job` and `instance`; the labels of
//! `fastchat_gateway_info` say which gateway that is. A sample that was read before is not a new report.

use crate::{
    config::PrometheusChoice,
    fleet::{MISSED_PERIODS, Report, Source},
    http::{self, HttpError},
    metrics,
    service::{Balancer, wall_ms},
};
use fastchat_protocol::GatewayId;
use hyper::Method;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

/// Names a gateway: labels `gateway` (its id), `url` and `version`; the value is 1.
pub const INFO: &str = "fastchat_gateway_info";
/// Connections with a session.
pub const CONNECTIONS: &str = "fastchat_connections";
/// Most connections.
pub const CAPACITY: &str = "fastchat_connections_limit";
/// Share of the machine's processors in use, 0 to 1.
pub const CPU: &str = "fastchat_cpu_ratio";
/// 1 while it sends its clients away.
pub const DRAINING: &str = "fastchat_draining";

/// Limit: how long Prometheus may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a poll brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// No answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Another status than 200.
    #[error("Prometheus answers {status}: {text}")]
    Status {
        /// The status.
        status: u16,
        /// The beginning of its answer.
        text: String,
    },
    /// Not what the query API answers.
    #[error("Prometheus answers something else than samples")]
    Answer(#[from] serde_json::Error),
}

/// Asks Prometheus until the balancer ends.
pub async fn run(balancer: Arc<Balancer>, choice: PrometheusChoice) {
    // Twice a period: a sample is at most half a period older here than there.
    let mut ticks = tokio::time::interval(choice.period / 2);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = HashMap::new();
    loop {
        tokio::select! { () = balancer.ending.cancelled() => return, _ = ticks.tick() => {} }
        let polled = poll(&choice).await;
        balancer.set_source_up(Source::Prometheus, polled.is_ok());
        match polled {
            Err(error) => {
                metrics::report(Source::Prometheus, "unreachable");
                tracing::debug!(error = %anyhow::Error::from(error), "no samples");
            }
            Ok(samples) => {
                let period_ms = u64::try_from(choice.period.as_millis()).unwrap_or(u64::MAX);
                for (at_ms, report) in reports(&samples, wall_ms(), period_ms) {
                    if seen.insert(report.gateway, at_ms) != Some(at_ms) {
                        balancer.on_report(report);
                    }
                }
                if seen.len() > 2 * crate::fleet::MAX_GATEWAYS {
                    seen.clear();
                }
            }
        }
    }
}

async fn poll(choice: &PrometheusChoice) -> Result<Vec<Series>, PrometheusError> {
    let seconds = choice.period.as_secs_f64() * MISSED_PERIODS as f64;
    let names = [INFO, CONNECTIONS, CAPACITY, CPU, DRAINING].join("|");
    let query = format!("{{__name__=~\"{names}\"}}[{}s]", seconds.ceil() as u64 + 1);
    let url = format!("{}/api/v1/query?query={}", choice.url.trim_end_matches('/'), http::escape(&query));
    let (status, body) = http::send(Method::GET, &url, None, ANSWER_TIMEOUT).await?;
    if !status.is_success() {
        let text = String::from_utf8_lossy(&body).chars().take(200).collect();
        return Err(PrometheusError::Status { status: status.as_u16(), text });
    }
    Ok(serde_json::from_slice::<QueryAnswer>(&body)?.data.result)
}

/// As much of the query API's answer as is used (prometheus.io/docs/prometheus/latest/querying/api).
#[derive(Debug, Deserialize)]
struct QueryAnswer {
    data: Data,
}

#[derive(Debug, Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Debug, Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    /// Time in seconds since 1970, and the value as text ("NaN", "+Inf", "1.5").
    #[serde(default)]
    values: Vec<(f64, String)>,
}

impl Series {
    fn label(&self, name: &str) -> &str {
        self.metric.get(name).map_or("", String::as_str)
    }

    /// The last sample: its time in milliseconds, and its value.
    fn last(&self) -> Option<(i64, f64)> {
        let (seconds, value) = self.values.last()?;
        // A time that is no number becomes 0: long ago.
        Some(((seconds * 1000.0).round() as i64, value.parse().ok()?))
    }
}

/// Reports of all gateways, with the time of each; a report is as old as its newest sample.
fn reports(series: &[Series], wall_ms: u64, period_ms: u64) -> Vec<(i64, Report)> {
    let mut targets: BTreeMap<(&str, &str), Vec<&Series>> = BTreeMap::new();
    for series in series {
        targets.entry((series.label("job"), series.label("instance"))).or_default().push(series);
    }
    targets.values().filter_map(|series| report(series, wall_ms, period_ms)).collect()
}

fn report(series: &[&Series], wall_ms: u64, period_ms: u64) -> Option<(i64, Report)> {
    let of = |name: &'static str| series.iter().filter(move |series| series.label("__name__") == name);
    // A gateway that was restarted has another id on the same target: the newest one counts.
    let info =
        of(INFO).filter(|info| info.last().is_some()).max_by_key(|info| info.last().map(|(at, _)| at))?;
    let Ok(gateway) = info.label("gateway").parse::<GatewayId>() else {
        metrics::report(Source::Prometheus, "malformed");
        return None;
    };
    let (at_ms, _) = info.last()?;
    // What was not in the newest scrape is not true any more.
    let value = |name| {
        let samples = of(name).filter_map(|series| series.last());
        samples.filter(|(at, _)| *at >= at_ms).max_by_key(|(at, _)| *at).map(|(_, value)| value)
    };
    let report = Report {
        source: Source::Prometheus,
        gateway,
        url: info.label("url").to_owned(),
        agent: info.label("version").to_owned(),
        versions: Vec::new(),
        count: None,
        age_ms: i64::try_from(wall_ms).unwrap_or(i64::MAX).saturating_sub(at_ms),
        period_ms,
        skew_ms: None,
        connections: value(CONNECTIONS),
        capacity: value(CAPACITY),
        cpu: value(CPU),
        draining: value(DRAINING),
    };
    Some((at_ms, report))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(series: &str) -> Vec<Series> {
        let text = format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{series}]}}}}"#);
        serde_json::from_str::<QueryAnswer>(&text).expect("an answer").data.result
    }

    fn series(name: &str, labels: &str, values: &str) -> String {
        format!(
            r#"{{"metric":{{"__name__":"{name}","job":"gateway","instance":"g1"{labels}}},"values":[{values}]}}"#
        )
    }

    fn info(byte: &str, values: &str) -> String {
        let labels = format!(r#","gateway":"{}","url":"ws://{byte}","version":"0.1.0""#, byte.repeat(16));
        series(INFO, &labels, values)
    }

    #[test]
    fn the_last_samples_of_a_target_are_one_report_with_their_age() {
        let text = [
            info("ab", r#"[100.0,"1"],[105.0,"1"]"#),
            series(CONNECTIONS, "", r#"[100.0,"7"],[105.0,"9"]"#),
            series(CPU, "", r#"[100.0,"0.5"],[105.0,"+Inf"]"#),
            series(CAPACITY, "", r#"[100.0,"50"]"#),
        ];
        let found = reports(&answer(&text.join(",")), 106_500, 5_000);
        let [(105_000, report)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((report.age_ms, report.connections, report.url.as_str()), (1_500, Some(9.0), "ws://ab"));
        assert_eq!(report.cpu, Some(f64::INFINITY), "what to believe is for the fleet to say");
        assert_eq!((report.capacity, report.draining), (None, None), "not in the newest scrape");
    }

    #[test]
    fn a_restarted_gateway_is_the_newest_one_of_its_target() {
        let text = [info("ab", r#"[100.0,"1"]"#), info("cd", r#"[105.0,"1"]"#)].join(",");
        let found = reports(&answer(&text), 105_000, 5_000);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1.gateway.to_string(), "cd".repeat(16));
    }

    #[test]
    fn what_is_no_gateway_gives_no_report_and_no_panic() {
        for text in [
            series(CONNECTIONS, "", r#"[1.0,"7"]"#),
            series(INFO, r#","gateway":"nonsense","url":"ws://a""#, r#"[1.0,"1"]"#),
            info("ab", ""),
            info("ab", r#"[1.0,"many"]"#),
        ] {
            assert!(reports(&answer(&text), 5_000, 5_000).is_empty(), "{text}");
        }
        let far = reports(&answer(&info("ab", r#"[1e300,"1"]"#)), 5_000, 5_000);
        assert_eq!(far[0].1.age_ms, 5_000_i64.saturating_sub(i64::MAX), "the fleet refuses it");
    }
}

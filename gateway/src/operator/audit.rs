//! `admin audit`.

use super::{
    Desk,
    output::{self, clean, time},
};
use crate::store::operate::{AuditRow, Operate};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  fastchat-gateway admin audit\n  \
    fastchat-gateway admin audit --since 7d --user alice\n  \
    fastchat-gateway admin audit --since 24h --json\n\n\
    The newest 100,000 rows are kept, for 400 days at most.")]
pub(super) struct Audit {
    /// How far back: a number with m, h or d
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = span)]
    since: Duration,
    /// Rows about one account
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Rows at most, the newest
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: u32,
}

pub(super) async fn run(desk: &Desk, audit: &Audit) -> Result<()> {
    let account = match &audit.user {
        Some(name) => Some(desk.user(name).await?.account),
        None => None,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock after 1970")?;
    let since_ms = u64::try_from(now.saturating_sub(audit.since).as_millis()).unwrap_or(0);
    let store: &dyn Operate = &*desk.store;
    let rows = store.audit(account, since_ms, audit.limit).await?;
    if desk.json {
        return rows.iter().try_for_each(|row| {
            output::object(json!({
                "number": row.number, "at_ms": row.at_ms, "actor": row.actor, "act": row.act,
                "account": row.account.map(|account| account.to_string()), "name": row.name,
                "detail": row.detail,
            }))
        });
    }
    let row = |row: &AuditRow| {
        [
            time(row.at_ms),
            clean(&row.actor),
            row.act.clone(),
            row.name.clone().unwrap_or_default(),
            clean(&row.detail),
        ]
    };
    output::table(["WHEN", "WHO", "WHAT", "ACCOUNT", "DETAIL"], &rows.iter().map(row).collect::<Vec<_>>())
}

fn span(text: &str) -> Result<Duration> {
    let wrong = || format!("{text:?} is not a time such as 90m, 24h or 7d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).with_context(wrong)?;
    let seconds = match unit {
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => bail!(wrong()),
    };
    let number: u32 = number.parse().ok().with_context(wrong)?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(span("90m").ok(), Some(Duration::from_secs(5_400)));
        assert_eq!(span("7d").ok(), Some(Duration::from_secs(604_800)));
        for wrong in ["", "7", "d", "-1d", "7 d", "7ü", "99999999999d"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}

//! What operators ask running balancers, through their admin listeners. Two balancers do not talk to
//! each other: what changes something is sent to every address that `--admin` names.

use super::say;
use anyhow::{Context, bail};
use clap::Args;
use fastchat_balancer::{
    admin::{Failed, GatewayName, StrategyName},
    http,
};
use hyper::Method;
use serde_json::Value;
use std::{
    fmt::Write,
    time::{Duration, Instant},
};

/// Limit: how long a balancer may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Of the table of gateways.
const COLUMNS: usize = 12;

/// Which balancers, and how to write.
#[derive(Debug, Args)]
pub(crate) struct Admin {
    /// Admin addresses of the balancers, with commas
    #[arg(
        long,
        env = "FASTCHAT_BALANCER_ADMIN",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7411"
    )]
    admin: Vec<String>,
    /// Write JSON, one line for each balancer
    #[arg(long)]
    json: bool,
}

/// A gateway.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Its id, the beginning of its id (at least 4 digits), or its URL
    gateway: String,
    #[command(flatten)]
    admin: Admin,
}

/// A gateway to be taken out.
#[derive(Debug, Args)]
pub(crate) struct Drained {
    /// Move its sessions to other gateways as well, little by little
    #[arg(long = "move")]
    moves: bool,
    #[command(flatten)]
    named: Named,
}

/// A strategy or none.
#[derive(Debug, Args)]
pub(crate) struct Strategy {
    /// random, round-robin, least-connections, min-load, weighted or p2c
    name: Option<String>,
    #[command(flatten)]
    admin: Admin,
}

/// How far back.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// How many decisions, newest first; the last 256 are kept
    #[arg(long, value_name = "N", default_value_t = 20)]
    last: usize,
    #[command(flatten)]
    admin: Admin,
}

/// Ready or alive, now or soon.
#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Only whether it runs, even if it can name nobody yet
    #[arg(long)]
    alive: bool,
    /// Go on asking for so many seconds
    #[arg(long, value_name = "S", default_value_t = 0)]
    wait: u64,
    #[command(flatten)]
    admin: Admin,
}

pub(crate) fn fleet(admin: &Admin) -> anyhow::Result<()> {
    admin.each(&Method::GET, "/fleet", None, table)
}

pub(crate) fn health(args: &Health) -> anyhow::Result<()> {
    // Both answer in JSON; the first does as long as it runs.
    let path = if args.alive { "/strategy" } else { "/readyz" };
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    loop {
        match args.admin.each(&Method::GET, path, None, |answer| format!("{answer}\n")) {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(200)),
            answer => return answer,
        }
    }
}

pub(crate) fn drain(args: &Drained) -> anyhow::Result<()> {
    take_out(&args.named, "/drain", args.moves, |answer| {
        let moved = match answer["moved_by"].as_str() {
            None => "",
            Some("this") => "; its sessions are moved",
            Some(_) => "; its sessions are moved by another balancer: name that one in --admin, too",
        };
        format!("gets no new clients{moved}")
    })
}

pub(crate) fn undrain(named: &Named) -> anyhow::Result<()> {
    take_out(named, "/undrain", false, |_| "gets clients again".to_owned())
}

fn take_out(named: &Named, path: &str, moves: bool, done: impl Fn(&Value) -> String) -> anyhow::Result<()> {
    let body = serde_json::to_string(&GatewayName { gateway: named.gateway.clone(), moves })?;
    let say = |answer: &Value| format!("{} {}\n", text(&answer["gateway"]), done(answer));
    named.admin.each(&Method::POST, path, Some(&body), say)
}

pub(crate) fn strategy(args: &Strategy) -> anyhow::Result<()> {
    let say = |answer: &Value| format!("{}\n", text(&answer["strategy"]));
    match &args.name {
        None => args.admin.each(&Method::GET, "/strategy", None, say),
        Some(name) => {
            let body = serde_json::to_string(&StrategyName { strategy: name.clone() })?;
            args.admin.each(&Method::PUT, "/strategy", Some(&body), say)
        }
    }
}

pub(crate) fn explain(args: &Explain) -> anyhow::Result<()> {
    args.admin.each(&Method::GET, &format!("/explain/{}", args.last), None, |answer| {
        let mut lines = String::new();
        let list = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
        let ago = |entry: &Value| entry["ago_ms"].as_f64().unwrap_or(0.0) / 1000.0;
        for decision in list("assignments") {
            let ago = ago(&decision);
            let (url, strategy, reason) =
                (text(&decision["url"]), text(&decision["strategy"]), text(&decision["reason"]));
            // Writing into a String cannot fail.
            let _ = writeln!(lines, "{ago:>7.1} s ago  {url}  {strategy}: {reason}");
        }
        for order in list("moves") {
            let (ago, reason, why) = (ago(&order), text(&order["reason"]), text(&order["why"]));
            let _ = writeln!(
                lines,
                "{ago:>7.1} s ago  {} sessions are to move, {reason}: {why}",
                order["sessions"]
            );
        }
        if lines.is_empty() { "nobody was sent anywhere yet\n".to_owned() } else { lines }
    })
}

impl Admin {
    /// Asks every balancer and writes each answer. All are asked even if one fails.
    fn each(
        &self,
        method: &Method,
        path: &str,
        body: Option<&str>,
        show: impl Fn(&Value) -> String,
    ) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut failed = Vec::new();
        for place in &self.admin {
            match runtime.block_on(ask(method, place, path, body)) {
                Ok(answer) if self.json => say(&format!("{answer}\n"))?,
                Ok(answer) => {
                    let heading = if self.admin.len() > 1 { format!("{place}\n") } else { String::new() };
                    say(&format!("{heading}{}", show(&answer)))?;
                }
                Err(error) => {
                    failed.push(format!("{place}: {error:#}"));
                }
            }
        }
        if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
    }
}

async fn ask(method: &Method, place: &str, path: &str, body: Option<&str>) -> anyhow::Result<Value> {
    let url = format!("{}{path}", place.trim_end_matches('/'));
    let (status, body) = http::send(method.clone(), &url, body.map(str::to_owned), PATIENCE).await?;
    if !status.is_success() {
        let answer = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        if answer["ready"] == false {
            bail!("not ready: {answer}");
        }
        match serde_json::from_value::<Failed>(answer) {
            Ok(failed) => bail!("{}", failed.error),
            Err(_) => bail!("answers {status}: is this a balancer's admin address?"),
        }
    }
    serde_json::from_slice(&body).context("answers something else: is this a balancer's admin address?")
}

fn table(answer: &Value) -> String {
    let mut rows = vec![
        ["GATEWAY", "STATE", "CONNECTIONS", "OF", "LOAD", "CPU", "SENT", "GIVES", "TAKES", "AGE", "URL", ""]
            .map(str::to_owned),
    ];
    let gateways = answer["gateways"].as_array().map_or(&[][..], Vec::as_slice);
    for gateway in gateways {
        let load = gateway["connections"].as_f64().zip(gateway["capacity"].as_f64());
        let percent =
            |share: Option<f64>| share.map_or("?".to_owned(), |share| format!("{:.0}%", 100.0 * share));
        let number = |value: &Value| value.as_u64().map_or("?".to_owned(), |number| number.to_string());
        let doubts: Vec<&str> =
            gateway["doubts"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let doubts = if doubts.is_empty() { String::new() } else { format!("doubts: {}", doubts.join(", ")) };
        rows.push([
            text(&gateway["gateway"]).chars().take(8).collect(),
            text(&gateway["state"]).to_owned(),
            number(&gateway["connections"]),
            number(&gateway["capacity"]),
            percent(load.map(|(connections, capacity)| connections / capacity)),
            percent(gateway["cpu"].as_f64()),
            number(&gateway["own"]),
            number(&gateway["gives"]),
            number(&gateway["takes"]),
            format!("{:.1}s", gateway["age_ms"].as_f64().unwrap_or(0.0) / 1000.0),
            text(&gateway["url"]).to_owned(),
            doubts,
        ]);
    }
    if gateways.is_empty() {
        return "no gateway has reported yet\n".to_owned();
    }
    let moves = match text(&answer["moves"]) {
        "this" => "asked by this balancer",
        "another" => "asked by another balancer",
        _ => "off",
    };
    aligned(&rows) + &format!("strategy: {}; moves of sessions: {moves}\n", text(&answer["strategy"]))
}

/// Columns as wide as their widest cell; numbers to the right.
fn aligned(rows: &[[String; COLUMNS]]) -> String {
    let widths: Vec<usize> =
        (0..COLUMNS).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            2..=9 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

//! `fastchat doctor`.

use super::{
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    api::{ApiError, ErrorKind, Request, Response, StatusView},
    client::Options,
    link::{Pick, Way, way::Asked},
    profile::{Profile, Settings},
};
use serde::Serialize;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nothing of FastChat is older than this (2025-01-01): a clock before it is wrong.
const EARLIEST: u64 = 1_735_689_600;

/// Check this profile and the way to its server; say what to do about what is wrong.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fastchat doctor\n  fastchat doctor --json\n\nExits 1 if something failed, or with the code of the failure."
)]
pub(crate) struct Args {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Check {
    r#type: &'static str,
    check: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
    /// What was found, for programs, where there is more than a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
    #[serde(skip)]
    kind: ErrorKind,
}

struct Report<'a> {
    context: &'a Context,
    worst: Option<ErrorKind>,
}

impl Report<'_> {
    fn say(
        &mut self,
        check: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        advice: Option<&'static str>,
        kind: ErrorKind,
    ) {
        self.print(&Check {
            r#type: "check",
            check,
            verdict,
            found: found.into(),
            advice,
            details: None,
            kind,
        });
    }

    fn print(&mut self, check: &Check) {
        let (verdict, advice) = (check.verdict, check.advice);
        if verdict == Verdict::Fail {
            self.worst.get_or_insert(check.kind);
        }
        self.context.print(check, || {
            let mark = match verdict {
                Verdict::Ok => "ok  ",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            let advice =
                advice.map(|advice| format!("\n                    -> {advice}")).unwrap_or_default();
            format!(
                "{mark}  {:<12}  {}{advice}",
                check.check,
                fastchat_client::terminal::clean_line(&check.found)
            )
        });
    }

    fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.say(check, Verdict::Ok, found, None, ErrorKind::Internal);
    }

    /// As [`ok`](Self::ok), with the same for programs.
    fn detail(&mut self, check: &'static str, found: String, details: Value) {
        let (verdict, details, kind) = (Verdict::Ok, Some(details), ErrorKind::Internal);
        self.print(&Check { r#type: "check", check, verdict, found, advice: None, details, kind });
    }

    fn warn(&mut self, check: &'static str, found: impl Into<String>, advice: &'static str) {
        self.say(check, Verdict::Warn, found, Some(advice), ErrorKind::Internal);
    }

    fn fail(&mut self, check: &'static str, error: &ApiError, advice: &'static str) {
        self.say(check, Verdict::Fail, error.message.clone(), Some(advice), error.kind);
    }
}

pub(crate) async fn run(context: &Context, _: Args) -> Result<(), ApiError> {
    let mut report = Report { context, worst: None };
    clock(&mut report);
    if let Some(settings) = files(&mut report)? {
        server(&mut report, &settings).await;
        if let Err(error) = session(&mut report).await {
            report.fail("session", &error, "the other checks say what to do first");
        }
    }
    match report.worst {
        Some(kind) => Err(ApiError::new(kind, "something is wrong: see the failed checks")),
        None => Ok(()),
    }
}

fn clock(report: &mut Report<'_>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match now >= EARLIEST {
        true => report.ok("clock", output::time(now * 1000)),
        false => {
            let error = ApiError::internal(format!("{} cannot be", output::time(now * 1000)));
            report.fail(
                "clock",
                &error,
                "set the clock: certificates and key packages are valid for a time only",
            );
        }
    }
}

fn files(report: &mut Report<'_>) -> Result<Option<Settings>, ApiError> {
    let place = &report.context.location;
    let settings = match place.settings() {
        Ok(Some(settings)) => settings,
        Ok(None) => {
            report.warn(
                "profile",
                format!("none in {}", place.dir().display()),
                "make an account: fastchat register NAME --server URL",
            );
            return Ok(None);
        }
        Err(error) => {
            report.fail("profile", &error, "profile.json is damaged: restore it from a backup");
            return Ok(None);
        }
    };
    match settings.registered {
        true => report.ok("profile", format!("{} in {}", settings.name, place.dir().display())),
        false => report.warn(
            "profile",
            format!("the registration of {} is not finished", settings.name),
            "run fastchat register again",
        ),
    }
    match place.is_private() {
        true => report.ok("files", "only you can read them"),
        false => report.warn(
            "files",
            "others on this machine can look into the directory",
            "chmod 700 the profile's directory",
        ),
    }
    if settings.wraps.len() > 1 {
        report.warn(
            "password",
            "a change of the password was interrupted",
            "run fastchat login with the new password, or fastchat passwd again",
        );
    }
    match (place.remembered_key(), place.runtime_is_on_disk()) {
        (Ok(Some(_)), false) => report.ok("unlocked", "until `fastchat logout`"),
        (Ok(Some(_)), true) => report.warn(
            "unlocked",
            "the key is beside the data, because XDG_RUNTIME_DIR is not set",
            "fastchat logout, or set XDG_RUNTIME_DIR to a directory in memory",
        ),
        (Ok(None), _) => report.warn("unlocked", "no", "fastchat login (or give --password-file)"),
        (Err(error), _) => report.fail("unlocked", &error, "fastchat login"),
    }
    match Profile::lock(place)? {
        Some(_) => report.ok("lock", "no other process uses the profile"),
        None => report
            .ok("lock", "another process owns the profile (a running `listen`?); commands go through it"),
    }
    Ok(settings.registered.then_some(settings))
}

/// Questions and a hello only: that needs no key and displaces nobody.
async fn server(report: &mut Report<'_>, settings: &Settings) {
    let mut way = match settings.destination(&report.context.location) {
        Ok(destination) => Way::new(destination),
        Err(error) => {
            return report.fail("server", &error, "profile.json is damaged: restore it from a backup");
        }
    };
    known(report, &way);
    for asked in way.survey().await {
        balancer(report, asked);
    }
    match way.open().await {
        Ok(opened) => {
            let (host, hello) = (opened.host().to_owned(), opened.hello());
            let found = format!("{host} ({}), protocol version {}", hello.deployment, hello.version);
            let details = json!({
                "gateway": host, "deployment": hello.deployment, "version": hello.version,
                "servers": settings.server,
            });
            report.detail("server", found, details);
        }
        Err(error) => report.fail("server", &error.into(), "is the server running, and the address right?"),
    }
}

/// What would be tried if no balancer answered.
fn known(report: &mut Report<'_>, way: &Way) {
    let to = way.destination();
    if to.servers.balancers().next().is_none() && to.pick == Pick::default() {
        return;
    }
    let known: Vec<String> = way.known().iter().map(ToString::to_string).collect();
    let repick =
        to.repick_every.map_or_else(|| "never".to_owned(), |every| format!("every {every} requests"));
    let found = match known.len() {
        0 => "none yet".to_owned(),
        n => format!("{n}: {}", known.join(", ")),
    };
    let found = format!("{found} (picked by {}, picked again {repick})", to.pick);
    let details = json!({ "gateways": known, "pick": to.pick, "repick_every": to.repick_every });
    report.detail("known", found, details);
}

fn balancer(report: &mut Report<'_>, asked: Asked) {
    let took_ms = asked.took.as_millis() as u64;
    match asked.answer {
        Ok(answer) => {
            let places: Vec<String> = answer.places.iter().map(|place| place.url.to_string()).collect();
            let ticket = if answer.places[0].ticket.is_some() { "with a ticket" } else { "without a ticket" };
            let found = format!(
                "{} names {} {ticket} and {} others in {took_ms} ms ({}, {}): {}",
                asked.balancer,
                places[0],
                places.len() - 1,
                answer.strategy,
                answer.basis,
                answer.reason
            );
            let details = json!({
                "balancer": asked.balancer.to_string(), "gateway": places[0], "alternatives": places[1..],
                "ticket": answer.places[0].ticket.is_some(), "took_ms": took_ms,
                "strategy": answer.strategy, "basis": answer.basis, "reason": answer.reason,
            });
            report.detail("balancer", found, details);
        }
        Err(error) => report.warn(
            "balancer",
            error.to_string(),
            "gateways that are known are used without it; is the address right?",
        ),
    }
}

async fn session(report: &mut Report<'_>) -> Result<(), ApiError> {
    let context = report.context;
    let mut client = match context.client(Options::default()).await {
        Ok(client) => client,
        Err(error) if error.kind == ErrorKind::Auth => return Ok(()),
        Err(error) => return Err(error),
    };
    let wait = context.given_timeout().unwrap_or(Duration::from_secs(10));
    let response = context.synced(&mut client, wait).await.map(Response::Status);
    let outbox = client.request(Request::Outbox).await;
    client.close().await;
    let response = response?;
    let Response::Status(status) = &response else { return Err(unexpected(&response)) };
    of_status(report, status);
    if let Ok(Response::Outbox { items }) = outbox {
        let failed = items.iter().filter(|item| item.state == "failed").count();
        match (items.len(), failed) {
            (0, _) => report.ok("outbox", "empty"),
            (n, 0) => report.warn(
                "outbox",
                format!("{n} messages wait"),
                "they go out with the next command that connects",
            ),
            (_, n) => report.warn(
                "outbox",
                format!("{n} messages were refused"),
                "fastchat outbox says why; fastchat outbox retry",
            ),
        }
    }
    Ok(())
}

fn of_status(report: &mut Report<'_>, status: &StatusView) {
    match (status.synced, &status.reason) {
        (true, _) => {
            let at = status.gateway.clone().unwrap_or_default();
            let found = format!("with {at}; everything on the server is here");
            report.detail("session", found, json!({ "gateway": at }));
        }
        (false, reason) => {
            let reason = reason.clone().unwrap_or_else(|| "the server has not answered yet".to_owned());
            let error = ApiError::new(status.ended.unwrap_or(ErrorKind::Network), reason);
            report.fail("session", &error, "see what the server's check says");
        }
    }
    match status.key_packages {
        Some(0) => report.warn("key packages", "none", "they are made again at the next connection"),
        Some(n) => report.ok("key packages", format!("{n} left for people who write to you first")),
        None => {}
    }
    match status.quarantined {
        0 => report.ok("messages", "all can be read"),
        n => report.warn("messages", format!("{n} cannot be read"), "fastchat history says which and why"),
    }
}

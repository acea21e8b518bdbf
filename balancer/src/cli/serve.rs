//! `serve`, and the commands that look at its settings.

use super::say;
use anyhow::Context;
use fastchat_balancer::{
    Balancer, admin,
    config::{ConfigError, Settings, redact},
    metrics, public,
    source::{heartbeats, prometheus},
    tls::Tls,
};
use fastchat_telemetry::Recorder;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};

pub(crate) const EXAMPLES: &str = "\
Examples:
  fastchat-balancer serve --bus nats://127.0.0.1:4222
  fastchat-balancer serve --load-source prometheus=http://127.0.0.1:9090 --scrape-interval-ms 5000
  fastchat-balancer serve --config /etc/fastchat/balancer.toml --ticket-key-file ticket-key
  curl -X POST http://127.0.0.1:7410/v1/assign

SIGTERM and SIGINT end it; SIGHUP reads the certificate again.";

/// Limit: how long open answers may take when the balancer ends.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

pub(crate) fn check(settings: &Settings) -> anyhow::Result<()> {
    settings.validate()?;
    say("the settings are good\n")
}

pub(crate) fn print(settings: &Settings) -> anyhow::Result<()> {
    let config = settings.validate()?;
    let mut shown = settings.clone();
    shown.listen = Some(config.listen.to_string());
    shown.admin_listen = Some(config.admin_listen.to_string());
    shown.bus = settings.bus.as_deref().map(redact);
    shown.load_source = Some(settings.load_source.clone().unwrap_or_else(|| vec!["heartbeats".into()]));
    shown.scrape_interval_ms = config.prometheus.as_ref().map(|choice| choice.period.as_millis() as u64);
    shown.strategy = Some(config.strategy.to_string());
    shown.ticket_seconds = Some(config.ticket_life_ms / 1000);
    shown.move_sessions = Some(if config.moves.is_some() { "on" } else { "off" }.to_owned());
    shown.moves_per_second = config.moves.map(|limits| limits.per_second);
    shown.moves_percent = config.moves.map(|limits| limits.percent_per_second);
    shown.assign_per_second = Some(config.assign_per_second);
    say(&toml::to_string(&shown).context("the settings could not be written")?)
}

pub(crate) fn public_key(settings: &Settings) -> anyhow::Result<()> {
    match settings.ticket_key()? {
        Some(key) => say(&format!("{}\n", key.public_hex())),
        None => {
            let problem = "is not set: there is no key, and this balancer gives no tickets".into();
            Err(ConfigError { key: "ticket_key_file", problem }.into())
        }
    }
}

pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    log(settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("the runtime could not start")?.block_on(serve(settings))
}

fn log(settings: &Settings) -> anyhow::Result<()> {
    let wrong = |key, problem: String| ConfigError { key, problem };
    let filter = settings.log.as_deref().unwrap_or("info");
    let filter = tracing_subscriber::EnvFilter::try_new(filter).map_err(|e| wrong("log", e.to_string()))?;
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.log_format.as_deref().unwrap_or("text") {
        "text" => logger.with_ansi(false).init(),
        "json" => logger.json().init(),
        other => return Err(wrong("log_format", format!("is text or json, not {other:?}")).into()),
    }
    Ok(())
}

async fn serve(settings: &Settings) -> anyhow::Result<()> {
    let config = settings.validate()?;
    let recorder = recorder()?;
    let tls = config.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
    let listener = bind("listen", config.listen).await?;
    let admin_listener = bind("admin_listen", config.admin_listen).await?;
    let mut signals = Signals::listen().context("signals")?;
    let (address, admin_address) = (listener.local_addr()?, admin_listener.local_addr()?);
    let scheme = if tls.is_some() { "https" } else { "http" };

    let balancer = Arc::new(Balancer::new(config)?);
    let sources = spawn_sources(&balancer);
    let upkeep = tokio::spawn(upkeep(Arc::clone(&balancer), recorder.clone()));
    let admin = tokio::spawn(admin::run(Arc::clone(&balancer), recorder, admin_listener));
    let accepting = tokio::spawn(public::run(Arc::clone(&balancer), listener, tls.clone()));
    tracing::info!(
        url = format!("{scheme}://{address}"),
        admin = format!("http://{admin_address}"),
        heartbeats = ?balancer.config.heartbeats,
        prometheus = balancer.config.prometheus.as_ref().map(|choice| choice.url.as_str()),
        strategy = %balancer.strategy(),
        id = %balancer.id,
        moves = balancer.config.moves.is_some(),
        tickets = balancer.config.ticket_key.is_some(),
        "serving"
    );

    let ended = tokio::select! {
        () = signals.wait(tls.as_deref()) => Ok(()),
        failed = sources => failed,
    };
    balancer.ending.cancel();
    let _ = tokio::time::timeout(LAST_ANSWERS, async { tokio::join!(admin, accepting, upkeep) }).await;
    ended
}

/// Starts the sources. The future returned ends only if one of them cannot go on.
fn spawn_sources(balancer: &Arc<Balancer>) -> impl Future<Output = anyhow::Result<()>> + use<> {
    if let Some(choice) = balancer.config.prometheus.clone() {
        tokio::spawn(prometheus::run(Arc::clone(balancer), choice));
    }
    let heartbeats = balancer.config.heartbeats.clone();
    let heartbeats = heartbeats.map(|choice| tokio::spawn(heartbeats::run(Arc::clone(balancer), choice)));
    async {
        match heartbeats {
            Some(task) => task.await.context("heartbeats")?.context("heartbeats"),
            None => std::future::pending().await,
        }
    }
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, ConfigError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| ConfigError { key, problem: format!("{address}: {error}") })
}

async fn upkeep(balancer: Arc<Balancer>, recorder: Recorder) {
    tokio::select! { () = balancer.upkeep() => {} () = recorder.upkeep() => {} }
}

fn recorder() -> anyhow::Result<Recorder> {
    let recorder = Recorder::install(metrics::CATALOGUE, metrics::BUCKETS);
    let recorder = recorder.context("the metrics recorder could not start")?;
    metrics::running();
    Ok(recorder)
}

/// The signals that the balancer listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// Returns when the balancer is to end.
    async fn wait(&mut self, tls: Option<&Tls>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.reload.recv() => reload(tls),
            }
        }
    }
}

fn reload(tls: Option<&Tls>) {
    match tls.map(Tls::reload) {
        None => tracing::info!("SIGHUP: there is no certificate to read again"),
        Some(Ok(())) => tracing::info!("SIGHUP: the certificate was read again"),
        Some(Err(error)) => {
            tracing::error!(error = format!("{error:#}"), "SIGHUP: the certificate in force stays")
        }
    }
}

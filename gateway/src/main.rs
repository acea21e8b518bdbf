//! The program `fastchat-gateway`: parse, validate, bind, run.

use anyhow::Context;
use clap::{Parser, Subcommand, error::ErrorKind};
use fastchat_gateway::{
    Config, Gateway, admin,
    blobs::Objects,
    bus::{
        Bus, BusEvents,
        local::LocalHub,
        nats::{NatsAuth, NatsBus, NatsOptions},
    },
    config::{BusChoice, ConfigError, ConfigErrors, Settings, StoreChoice},
    fleet, health,
    lifecycle::{self, Signals},
    metrics, move_store, operator, server,
    store::{
        Store, StoreError,
        postgres::{self, Postgres},
        sqlite::Sqlite,
    },
    tls::Tls,
};
use fastchat_telemetry::Recorder;
use std::{
    io::Write,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};

mod restored;

/// What sysexits.h calls EX_USAGE: a setting is wrong.
const EXIT_CONFIG: u8 = 64;
/// How long a database may take to come up beside this program.
const STORE_PATIENCE: Duration = Duration::from_secs(30);
/// How long a start waits for the bus; then it serves without.
const BUS_PATIENCE: Duration = Duration::from_secs(2);
/// Connections to Postgres: the writer's lanes, the rest for reads, logins and commits.
const POSTGRES_CONNECTIONS: u32 = 12;

#[derive(Debug, Parser)]
#[command(name = "fastchat-gateway", version, about = "Serves FastChat's clients", after_help = EXAMPLES)]
struct Cli {
    /// Settings in TOML; flags and environment win over it
    #[arg(long, env = "FASTCHAT_GATEWAY_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (what happens without a command)
    Run,
    /// Check the settings, say what is wrong with which key, and end
    CheckConfig,
    /// Print the settings in force, without secrets, and end
    PrintConfig,
    /// Bring the database to this version's schema, and end
    Migrate,
    /// Ask the gateway that runs with these settings whether it is ready: exit code 0 if so
    Health {
        /// Go on asking for so many seconds
        #[arg(long, value_name = "S", default_value_t = 0)]
        wait: u64,
    },
    /// Look after people: invites, users, devices, quotas, the audit log
    Admin(operator::Admin),
    /// Move an embedded store (SQLite) to Postgres
    MoveStore(move_store::MoveStore),
    /// After a backup was restored, and before any gateway serves it: begin another incarnation
    ///
    /// The backup lacks what was sent after it was made, and gateways would give the same numbers to
    /// other messages. This raises the incarnation of the store, so that clients notice, keep what only
    /// they have, and go on with new keys where theirs are newer than the backup. Every gateway must be
    /// stopped. Run it once after each restoration, as the owner of the tables, not as the gateways' role.
    Restored {
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Begin an incarnation above this one: what a client has said that it knows
        #[arg(long, value_name = "INCARNATION")]
        above: Option<u32>,
    },
}

const EXAMPLES: &str = "\
Examples:
  fastchat-gateway                                   one person or a few: SQLite in ./fastchat-data
  fastchat-gateway --listen 0.0.0.0:443 --tls-certificate chain.pem --tls-key key.pem
  fastchat-gateway migrate --store postgres://owner@db/fastchat --pepper-file pepper
  fastchat-gateway --store postgres://gateway@db/fastchat --bus nats://bus:4222 --pepper-file pepper
  fastchat-gateway restored --store postgres://owner@db/fastchat --pepper-file pepper
  fastchat-gateway check-config --config /etc/fastchat/gateway.toml";

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // A flag or variable of the wrong kind is a bad setting like any other.
        Err(error) if matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) => {
            let _ = error.print();
            return ExitCode::from(EXIT_CONFIG);
        }
        Err(error) => error.exit(),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in format!("{error:#}").lines() {
                let _ = writeln!(std::io::stderr(), "fastchat-gateway: {line}");
            }
            let bad_config = error.is::<ConfigError>() || error.is::<ConfigErrors>();
            if bad_config { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let file = cli.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
    let mut settings = cli.settings.over(file);
    let command = cli.command.unwrap_or(Command::Run);
    let checks_all = matches!(command, Command::CheckConfig | Command::PrintConfig | Command::Run);
    if !checks_all && !settings.faults.is_empty() {
        return Err(ConfigErrors(settings.faults).into());
    }
    match command {
        Command::CheckConfig => {
            settings.look_for_misnamed(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()));
            objects(&settings.validate(false)?)?;
            say("the settings are good\n")
        }
        Command::PrintConfig => print_config(&settings),
        Command::Health { wait } => {
            let answer = health::wait(settings.admin_address()?, Duration::from_secs(wait));
            say(&format!("{}\n", runtime()?.block_on(answer)?))
        }
        Command::Migrate => runtime()?.block_on(migrate(settings.validate(true)?)),
        Command::Admin(admin) => runtime()?.block_on(operator::run(admin, &settings)),
        Command::MoveStore(moving) => runtime()?.block_on(move_store::run(moving, &settings)),
        Command::Restored { yes, above } => restored(&settings.validate(true)?, yes, above),
        Command::Run => {
            let config = settings.validate(true)?;
            log(&settings)?;
            start(&mut serving(config.threads))?.block_on(serve(config))
        }
    }
}

fn runtime() -> anyhow::Result<Runtime> {
    start(&mut Builder::new_multi_thread())
}

/// A runtime that moves nothing between threads where there is but one: at 2,200 messages a second they are
/// acknowledged in 0.87 of the time.
fn serving(threads: usize) -> Builder {
    if threads == 1 {
        return Builder::new_current_thread();
    }
    let mut many = Builder::new_multi_thread();
    many.worker_threads(threads);
    many
}

fn start(runtime: &mut Builder) -> anyhow::Result<Runtime> {
    runtime.enable_all().build().context("the runtime could not start")
}

fn say(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("standard output")
}

fn log(settings: &Settings) -> anyhow::Result<()> {
    let logger =
        tracing_subscriber::fmt().with_env_filter(settings.log_filter()?).with_writer(std::io::stderr);
    match settings.log_as_json()? {
        true => logger.json().init(),
        false => logger.with_ansi(false).init(),
    }
    Ok(())
}

fn print_config(settings: &Settings) -> anyhow::Result<()> {
    let config = settings.validate(false)?;
    let mut shown = settings.clone();
    shown.listen = Some(config.listen.to_string());
    shown.admin_listen = Some(config.admin_listen.to_string());
    shown.deployment = Some(config.deployment.clone());
    shown.data_dir = Some(config.data_dir.clone());
    shown.store = Some(config.store.redacted());
    shown.store_file = None;
    shown.bus = Some(settings.bus.clone().unwrap_or_else(|| "local".into()));
    shown.public_url = Some(config.public_url());
    shown.heartbeat_ms = Some(config.heartbeat.as_millis() as u64);
    shown.load_scope = Some(config.load_scope.to_string());
    shown.shed_per_second = Some(config.shed.per_second);
    shown.tickets = Some(config.tickets.to_string());
    shown.registration = Some(config.registration.name().into());
    shown.max_connections = Some(config.max_connections);
    shown.head_check_ms = Some(config.head_check_interval.as_millis() as u64);
    shown.batch_wait_ms = Some(config.batch_wait.as_millis() as u64);
    shown.threads = Some(config.threads);
    shown.ping_seconds = Some(config.ping_interval.as_secs());
    shown.drain_seconds = Some(config.drain_window.as_secs());
    shown.logins_per_minute = Some(config.rates.logins_per_minute);
    shown.guesses_per_hour = Some(config.rates.guesses_per_hour);
    shown.sends_per_second = Some(config.rates.sends_per_second);
    shown.claims_per_minute = Some(config.rates.claims_per_minute);
    shown.commits_per_minute = Some(config.rates.commits_per_minute);
    shown.slots_per_minute = Some(config.rates.slots_per_minute);
    shown.presence_per_minute = Some(config.rates.presence_per_minute);
    shown.blob_parts_per_minute = Some(config.rates.blob_parts_per_minute);
    shown.blob_max_bytes = Some(config.blobs.max_bytes);
    shown.blob_quota_bytes = Some(config.blobs.quota_bytes);
    shown.blob_keep_days = Some(config.blobs.keep_days);
    shown.blob_storage.get_or_insert_with(|| "store".into());
    shown.retention_log_days = Some(config.retention.log_days);
    shown.retention_below_cursors = Some(config.retention.below_cursors);
    say(&toml::to_string(&shown).context("the settings could not be written")?)
}

async fn migrate(config: Config) -> anyhow::Result<()> {
    match &config.store {
        StoreChoice::Sqlite(path) => drop(Sqlite::open(path).await?),
        StoreChoice::Postgres(url) => Postgres::connect(&postgres_options(url))?.migrate().await?,
    }
    say("the schema is this version's\n")
}

fn restored(config: &Config, yes: bool, above: Option<u32>) -> anyhow::Result<()> {
    if let StoreChoice::Sqlite(path) = &config.store {
        anyhow::ensure!(path.exists(), "store: there is no {}: put the backup there first", path.display());
    }
    if !yes && !restored::confirm(&config.store.redacted())? {
        return say("nothing was changed\n");
    }
    runtime()?.block_on(async { say(&restored::restored(&*open_store(config).await?, above).await?) })
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let metrics = recorder()?;
    let tls = config.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
    let bind = |key, address| async move {
        let problem = move |e: std::io::Error| ConfigError::new(key, format!("{address}: {e}"));
        TcpListener::bind(address).await.map_err(problem)
    };
    let listener = bind("listen", config.listen).await?;
    let admin_listener = bind("admin_listen", config.admin_listen).await?;
    let store = open_store(&config).await?;
    let objects = objects(&config)?;
    let mut signals = Signals::listen().context("signals")?;
    let (bus, events) = open_bus(&config).await?;
    let scheme = if tls.is_some() { "wss" } else { "ws" };
    let (address, admin_address) = (listener.local_addr()?, admin_listener.local_addr()?);

    // What was bound: port 0 has become one that clients can dial.
    let config = Config { listen: address, ..config };
    let gateway = Gateway::start(config, store, objects, bus, events);
    let admin = tokio::spawn(admin::run(Arc::clone(&gateway), metrics.clone(), admin_listener));
    let accepting = tokio::spawn(server::run(Arc::clone(&gateway), listener, tls.clone()));
    let upkeep = tokio::spawn(upkeep(metrics, Arc::clone(&gateway)));
    fastchat_gateway::metrics::ready(true);
    let fleet::Identity { id, url: public_url } = &gateway.identity;
    tracing::info!(gateway = %id, public_url, url = format!("{scheme}://{address}"), admin = format!("http://{admin_address}"), store = gateway.config.store.redacted(), bus = ?gateway.config.bus, "serving");

    tokio::select! {
        () = signals.wait(tls.as_deref()) => {}
        () = gateway.drain_asked.notified() => {}
    }
    lifecycle::drain(&gateway, signals.again()).await;
    accepting.abort();
    upkeep.abort();
    let _ = admin.await;
    Ok(())
}

/// Measures what goes on without clients; until it is aborted.
async fn upkeep(recorder: Recorder, gateway: Arc<Gateway>) {
    tokio::join!(recorder.upkeep(), metrics::watch_store(&gateway));
}

fn recorder() -> anyhow::Result<Recorder> {
    let recorder = Recorder::install(metrics::CATALOGUE, metrics::BUCKETS);
    let recorder = recorder.context("the metrics recorder could not start")?;
    metrics::start();
    Ok(recorder)
}

async fn open_store(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    match &config.store {
        StoreChoice::Sqlite(path) => {
            let store = Sqlite::open(path).await.with_context(|| format!("store: {}", path.display()))?;
            store.check_not_moved().await?;
            Ok(Arc::new(store))
        }
        StoreChoice::Postgres(url) => {
            let store = Postgres::connect(&postgres_options(url))?;
            wait_for_schema(&store).await?;
            Ok(Arc::new(store))
        }
    }
}

/// Storage for the bytes of files, if they do not go into the store. Nobody is asked yet: messages go on
/// without it.
fn objects(config: &Config) -> Result<Option<Objects>, ConfigError> {
    let opened = Objects::open(&config.blobs.storage, &config.deployment);
    opened.map_err(|error| ConfigError::new("blob_storage", error.to_string()))
}

fn postgres_options(url: &str) -> postgres::Options {
    postgres::Options {
        url: url.to_owned(),
        max_connections: POSTGRES_CONNECTIONS,
        application_name: "fastchat-gateway".into(),
    }
}

/// A database that is still starting is waited for; one with another schema is not served.
async fn wait_for_schema(store: &Postgres) -> anyhow::Result<()> {
    let deadline = Instant::now() + STORE_PATIENCE;
    loop {
        match store.check_schema().await {
            Err(error @ StoreError::Unavailable(_)) if Instant::now() < deadline => {
                tracing::warn!(%error, "waiting for the store");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            checked => return checked.context("store"),
        }
    }
}

async fn open_bus(config: &Config) -> anyhow::Result<(Arc<dyn Bus>, BusEvents)> {
    match &config.bus {
        BusChoice::Local => {
            let (bus, events) = LocalHub::new().join();
            Ok((Arc::new(bus), events))
        }
        BusChoice::Nats { url, login } => {
            let auth = match login.clone() {
                Some((user, password)) => NatsAuth::Password { user, password },
                None => NatsAuth::Url,
            };
            let name = format!("fastchat-gateway {}", config.listen);
            let options = NatsOptions { url: url.clone(), name, auth, ..NatsOptions::default() };
            let (bus, events) = NatsBus::start(&options).await?;
            // The first `Restored` marks every session as one that may have company elsewhere, until it ends:
            // none begins before it.
            if !bus.reached(BUS_PATIENCE).await {
                tracing::warn!("the bus has not answered: messages arrive by head check until it does");
            }
            Ok((Arc::new(bus), events))
        }
    }
}

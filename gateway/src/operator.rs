//! `fastchat-gateway admin`: what an operator does about people, beside whatever gateways run.
//!
//! - It works on the store that the settings name, with their file, flags and environment; running
//!   gateways hear of it within a second or two ([`crate::notices`]).
//! - SQLite lets a second process write (WAL, short transactions, a busy timeout of two seconds), so an
//!   embedded gateway goes on meanwhile.
//! - Every act leaves a row in the audit log, in its own transaction.
//! - Output is a table for people, or with `--json` one object a line.

mod audit;
mod devices;
mod invites;
mod output;
mod quotas;
mod users;

pub use output::say;

use crate::{
    config::{Settings, StoreChoice},
    store::{
        Store,
        operate::User,
        postgres::{self, Postgres},
        sqlite::Sqlite,
    },
};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use std::{path::Path, sync::Arc};

/// Connections to Postgres: one command does one thing.
const CONNECTIONS: u32 = 2;

/// Invites, users, devices, quotas, the audit log.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Admin {
    #[command(subcommand)]
    area: Area,
    /// One JSON object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Area {
    /// Codes by which strangers may register (registration = invite)
    #[command(subcommand)]
    Invite(invites::Command),
    /// List, show, disable, delete, reset
    #[command(subcommand)]
    User(users::Command),
    /// The devices of an account
    #[command(subcommand)]
    Device(devices::Command),
    /// What is allowed to one account instead of the settings
    #[command(subcommand)]
    Quota(quotas::Command),
    /// Who did what, when
    Audit(audit::Audit),
}

const EXAMPLES: &str = "\
Examples:
  fastchat-gateway admin invite create --uses 5 --expires 30 --note 'the choir'
  fastchat-gateway admin user list
  fastchat-gateway admin user disable mallory
  fastchat-gateway admin device list alice --json
  fastchat-gateway admin --config /etc/fastchat/gateway.toml audit --since 7d

It works on the same store as the gateway: give it the same settings.";

/// What every command has.
struct Desk {
    store: Arc<dyn Store>,
    json: bool,
    /// For the audit log.
    by: String,
}

/// Runs one command.
pub async fn run(admin: Admin, settings: &Settings) -> Result<()> {
    let store = open(&settings.store_choice()?).await?;
    let desk = Desk { store, json: admin.json, by: format!("operator {}", whoami()) };
    match admin.area {
        Area::Invite(command) => invites::run(&desk, command, settings).await,
        Area::User(command) => users::run(&desk, command).await,
        Area::Device(command) => devices::run(&desk, command).await,
        Area::Quota(command) => quotas::run(&desk, command).await,
        Area::Audit(audit) => audit::run(&desk, &audit).await,
    }
}

async fn open(choice: &StoreChoice) -> Result<Arc<dyn Store>> {
    match choice {
        StoreChoice::Sqlite(path) => {
            must_exist(path)?;
            let store = Sqlite::open(path).await.with_context(|| format!("store: {}", path.display()))?;
            store.check_not_moved().await?;
            Ok(Arc::new(store))
        }
        StoreChoice::Postgres(url) => {
            let options = postgres::Options {
                url: url.clone(),
                max_connections: CONNECTIONS,
                application_name: "fastchat-gateway admin".into(),
            };
            let store = Postgres::connect(&options)?;
            store.check_schema().await.context("store")?;
            Ok(Arc::new(store))
        }
    }
}

/// A misspelt folder must not become a new store.
pub(crate) fn must_exist(path: &Path) -> Result<()> {
    if !path.is_file() {
        bail!("there is no store at {}: give data_dir or store as the gateway has it", path.display());
    }
    Ok(())
}

/// The operator, as far as the system says; a hint for people, not a proof.
fn whoami() -> String {
    let of = |key| std::env::var(key).ok().filter(|name| !name.is_empty());
    let name = of("SUDO_USER").or_else(|| of("LOGNAME")).or_else(|| of("USER"));
    name.unwrap_or_else(|| "unknown".into()).chars().filter(|c| !c.is_control()).take(64).collect()
}

impl Desk {
    async fn user(&self, name: &str) -> Result<User> {
        self.store.user(name).await?.with_context(|| format!("there is no account {name:?}"))
    }

    /// An account that an act can still change.
    async fn living(&self, name: &str) -> Result<User> {
        let user = self.user(name).await?;
        if user.deleted {
            bail!("the account {name:?} is deleted");
        }
        Ok(user)
    }

    /// Says that something was done.
    fn done(&self, object: serde_json::Value, text: &str) -> Result<()> {
        if self.json { output::object(object) } else { say(&format!("{text}\n")) }
    }
}

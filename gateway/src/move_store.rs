//! `fastchat-gateway move-store`: an embedded installation becomes one on Postgres.
//!
//! - The source is held alone meanwhile: SQLite refuses it while any other process has the file open,
//!   and a gateway that is started on it waits and fails. So one read of it is consistent.
//! - All of it is one transaction on Postgres: an interrupted move leaves nothing, and is started again.
//! - Each table is read back and compared, row by row, before the commit.
//! - Then the source is marked: no gateway serves it any more, so that no history forks.
//!
//! The incarnation and all seqs are kept, so clients notice nothing. Numbers of transactions (`tx`) mean
//! nothing in another store and become 0 (docs/decisions/0003): a gateway that starts has no mark yet,
//! and every client that connects compares its heads.

mod compare;
mod copy;
mod source;
pub mod tables;

use crate::{
    config::{Settings, StoreChoice},
    operator::{must_exist, say},
    store::postgres::{self, Postgres},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use compare::Digest;
use sqlx::{ConnectOptions, Connection, PgConnection, SqliteConnection, postgres::PgConnectOptions};
use std::path::{Path, PathBuf};
use tables::{AUDIT, TABLES};

/// Moves an embedded store to Postgres.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct MoveStore {
    /// sqlite:PATH [default: the store that the settings name]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// postgres://owner@host/database: an empty database, by a role that may create tables
    #[arg(long, value_name = "URL", required_unless_present_any = ["to_file", "undo"], conflicts_with = "undo")]
    to: Option<String>,
    /// File that holds that URL, for URLs with a password
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "undo"])]
    to_file: Option<PathBuf>,
    /// Let gateways serve the source again; what was said on Postgres meanwhile is not in it
    #[arg(long)]
    undo: bool,
}

const EXAMPLES: &str = "\
Examples:
  systemctl stop fastchat-gateway
  fastchat-gateway move-store --from sqlite:/var/lib/fastchat/fastchat.sqlite --to postgres://owner@db/fastchat
  psql postgres://owner@db/fastchat -f roles.sql
  fastchat-gateway --store postgres://fastchat_gateway@db/fastchat --pepper-file /var/lib/fastchat/pepper

The gateway must not run meanwhile. Keep the pepper: without it no password fits any more.";

/// What came over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Rows of each table.
    pub rows: Vec<(&'static str, u64)>,
    /// It had been copied before, and only the source's mark was missing.
    pub again: bool,
}

/// Runs the command.
pub async fn run(args: MoveStore, settings: &Settings) -> Result<()> {
    let from = source(&args, settings)?;
    must_exist(&from)?;
    if args.undo {
        source::mark(&mut source::open(&from).await?, None).await?;
        return say(&format!("{} is served again\n", from.display()));
    }
    let to = match (args.to, args.to_file) {
        (Some(to), _) => to,
        (None, Some(file)) => std::fs::read_to_string(&file)
            .with_context(|| format!("to_file: {}", file.display()))?
            .trim()
            .to_owned(),
        (None, None) => bail!("to: give postgres://owner@host/database"),
    };
    let moved = move_store(&from, &to, |line| eprintln!("{line}")).await?;
    say(&farewell(&from, &moved))
}

fn source(args: &MoveStore, settings: &Settings) -> Result<PathBuf> {
    match &args.from {
        Some(from) => match from.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() => Ok(path.into()),
            _ => bail!("from: is sqlite:PATH, not {from:?}"),
        },
        None => match settings.store_choice()? {
            StoreChoice::Sqlite(path) => Ok(path),
            StoreChoice::Postgres(_) => bail!("from: the settings name Postgres already: give sqlite:PATH"),
        },
    }
}

fn farewell(from: &Path, moved: &Moved) -> String {
    let rows: u64 = moved.rows.iter().map(|(_, rows)| rows).sum();
    let pepper = from.parent().unwrap_or(Path::new(".")).join("pepper");
    let how = if moved.again { "were there already and are the same" } else { "were copied and compared" };
    format!(
        "{rows} rows {how}. {} is not served any more.\nNext: run infra/postgres/roles.sql on the database, \
         then start the gateway with store = postgres://… and pepper_file = {}\n",
        from.display(),
        pepper.display()
    )
}

/// Moves the store in the file `from` to the database `to`; `progress` hears a line now and then.
pub async fn move_store(from: &Path, to: &str, mut progress: impl FnMut(&str)) -> Result<Moved> {
    if !to.starts_with("postgres://") && !to.starts_with("postgresql://") {
        bail!("to: begins with postgres://");
    }
    let mut source = source::open(from).await?;
    source::must_not_have_moved(&mut source).await?;
    let mut target = target(to).await?;
    let (_, place) = to.rsplit_once('@').unwrap_or(("", to));
    let place = format!("postgres://{place}");

    let mut work = target.begin().await.context("to")?;
    compare::lock(&mut work).await?;
    let moved = match compare::first_that_is_not_empty(&mut work).await? {
        None => {
            let rows = copy_all(&mut source, &mut work, &mut progress).await?;
            copy::finish(&mut work, source::incarnation(&mut source).await?, from).await?;
            Moved { rows, again: false }
        }
        Some(table) => Moved { rows: same_or_not(&mut source, &mut work, table).await?, again: true },
    };
    work.commit().await.context("to: the commit (look there, and start again)")?;
    source::mark(&mut source, Some(&place)).await?;
    source.close().await.context("from")?;
    target.close().await.context("to")?;
    Ok(moved)
}

/// The target with this program's schema, by a connection that has no deadlines.
async fn target(url: &str) -> Result<PgConnection> {
    let options = postgres::Options {
        url: url.to_owned(),
        max_connections: 1,
        application_name: "fastchat-gateway move-store".into(),
    };
    Postgres::connect(&options)?.migrate().await.context("to")?;
    let options: PgConnectOptions = url.parse().context("to")?;
    options.application_name("fastchat-gateway move-store").connect().await.context("to")
}

async fn copy_all(
    source: &mut SqliteConnection,
    target: &mut PgConnection,
    progress: &mut impl FnMut(&str),
) -> Result<Vec<(&'static str, u64)>> {
    let mut rows = Vec::with_capacity(TABLES.len());
    for table in TABLES.iter().chain([&AUDIT]) {
        let copied = copy::table(source, target, table, progress).await?;
        let arrived = Digest::of_postgres(target, table).await?;
        if copied != arrived {
            bail!("{}: what arrived differs from what was read; nothing was moved", table.name);
        }
        progress(&format!("{}: {} rows copied and compared", table.name, copied.rows));
        rows.push((table.name, copied.rows));
    }
    Ok(rows)
}

/// A target that holds exactly the source was moved to, and the mark is missing; anything else is not
/// touched.
async fn same_or_not(
    source: &mut SqliteConnection,
    target: &mut PgConnection,
    occupied: &str,
) -> Result<Vec<(&'static str, u64)>> {
    let mut rows = Vec::with_capacity(TABLES.len());
    for table in &TABLES {
        let (here, there) =
            (Digest::of_sqlite(source, table).await?, Digest::of_postgres(target, table).await?);
        if here != there {
            bail!(
                "to: the database is not empty (its table {occupied} has rows), and {} differs from the \
                 source: give an empty one",
                table.name
            );
        }
        rows.push((table.name, here.rows));
    }
    Ok(rows)
}

//! The embedded store that is moved: held alone, at this program's schema, and marked in the end.

use crate::store::sqlite::Sqlite;
use anyhow::{Context, Result, bail};
use sqlx::{Row, SqliteConnection};
use std::path::Path;

/// Opens the file for this process alone.
pub(super) async fn open(path: &Path) -> Result<SqliteConnection> {
    Sqlite::open_alone(path).await.with_context(|| {
        format!("from: {} (if it is locked, a gateway serves it: stop that first)", path.display())
    })
}

pub(super) async fn must_not_have_moved(source: &mut SqliteConnection) -> Result<()> {
    let row = sqlx::query("SELECT moved_to FROM settings").fetch_one(source).await.context("from")?;
    match row.try_get::<Option<String>, _>(0).context("settings.moved_to")? {
        None => Ok(()),
        Some(place) => bail!("from: it was moved to {place} before (--undo lets it be served again)"),
    }
}

pub(super) async fn incarnation(source: &mut SqliteConnection) -> Result<i64> {
    let row = sqlx::query("SELECT incarnation FROM settings").fetch_one(source).await.context("from")?;
    row.try_get(0).context("settings.incarnation")
}

/// From now on no gateway serves it, or any may again.
pub(super) async fn mark(source: &mut SqliteConnection, moved_to: Option<&str>) -> Result<()> {
    let sql = "UPDATE settings SET moved_to = $1";
    let marked = sqlx::query(sql).bind(moved_to).execute(source).await;
    marked.map(drop).context("from: the mark that it was moved could not be written: start again")
}
